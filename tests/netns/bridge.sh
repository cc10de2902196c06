# The network of the Linux kernel's own test of IPVS (ipvs.sh): the client reaches the director through a
# bridge, and the virtual address, which is of no network, by way of it. The real server is behind the
# director's other interface, and on the bridge, too: with DR and TUN its answers go that way.
#
#   client ───── bridge ───── eth0 director eth1
#   10.10.0.2      │          10.10.0.1     │ 10.20.0.1
#                  └── eth0 ── rs1 ── eth1 ─┘
#                  10.10.0.3       10.20.0.2
source "$(dirname "$0")/lib.sh"
needs nc ethtool
ADDRESS=203.0.113.10
for host in switch client director rs1; do add_host $host; done
on_ip switch link add bridge type bridge mcast_snooping 0
on_ip switch link set bridge up
for host in client director rs1; do plug $host eth0 $host; done
cable director eth1 rs1 eth1
addresses client eth0 10.10.0.2/24
addresses director eth0 10.10.0.1/24
addresses director eth1 10.20.0.1/24
addresses rs1 eth1 10.20.0.2/24
on_ip director address add $ADDRESS/32 dev eth0
on_ip client route add $ADDRESS via 10.10.0.1
setting rs1 net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2

head -c 3M /dev/urandom >"$WORK/file"

# configure MODE
configure() {
    config '[[interface]]' 'name = "eth1"'
    LB_KIND=$1 virtual_server $ADDRESS:8080 TCP rr
    real_server 10.20.0.2:8080 1
}

listens() { prints "[:.]$1 " on rs1 ss -Hltn; }

# transfer MODE: a file to the real server, and one from it.
transfer() {
    local server
    equal "forwarding method" "$(ask services '.[].forwarding_method')" "$1"
    # One way at a time: nc forgets what it has not read when both sides have closed.
    exec_on rs1 nc -l -d 8080 >"$WORK/received" &
    server=$!
    wait_until 5 "nc listens" listens 8080
    on client timeout 20 nc -N $ADDRESS 8080 <"$WORK/file" || fail "$1: nc of the client"
    wait $server || fail "$1: nc of rs1"
    cmp "$WORK/file" "$WORK/received" || fail "$1: what the real server received"

    exec_on rs1 nc -l -N 8080 <"$WORK/file" &
    server=$!
    wait_until 5 "nc listens" listens 8080
    on client timeout 20 nc -d $ADDRESS 8080 >"$WORK/received" || fail "$1: nc of the client"
    wait $server || fail "$1: nc of rs1"
    cmp "$WORK/file" "$WORK/received" || fail "$1: what the client received"
    equal "$1: drops" "$(ask drops 'map(.packets_total) | add')" 0
}
# replies: packets of the last transfer's replies that passed the director.
replies() { ask services '[.[].reply_packets_total // 0] | add'; }

configure DR
addresses rs1 eth0 10.10.0.3/24
addresses rs1 lo $ADDRESS/32
start_director
transfer DR
equal "DR: replies by way of the director" "$(replies)" 0

configure TUN
realserver 1 up >"$WORK/said"
reload >"$WORK/said"
transfer TUN
equal "TUN: replies by way of the director" "$(replies)" 0

# All that it knows is its gateway.
realserver 1 down >"$WORK/said"
on_ip rs1 address delete $ADDRESS/32 dev lo
on_ip rs1 address delete 10.10.0.3/24 dev eth0
on_ip rs1 route add default via 10.20.0.1
configure NAT
reload >"$WORK/said"
transfer NAT
between "NAT: replies by way of the director" "$(replies)" 1000 100000
