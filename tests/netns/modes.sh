# Each forwarding method, by IPv4 and IPv6, in one director side by side: requests, 100 MB down and up,
# DNS, connections half-closed and reset by either side, a client behind a smaller MTU, and the death of
# a real server. nginx, dnsmasq, curl and the C library's resolver, as they are.
#
#   narrow ── edge ── 1300 bytes ──┐
#   client ────────────────────── router ── segment: director, rs1, rs2
source "$(dirname "$0")/lib.sh"
needs nginx dnsmasq getent nstat
make_network 2
head -c 100M /dev/urandom >"$WORK/big"

MODES="DR NAT TUN FULLNAT"
# An address for each, because what a client learns of a path's MTU is about an address.
declare -A V4=([DR]=$VIP [NAT]=10.77.0.110 [TUN]=10.77.0.120 [FULLNAT]=10.77.0.130)
declare -A V6=([DR]=$VIP6 [NAT]=fd77::110 [TUN]=fd77::120 [FULLNAT]=fd77::130)

# The narrow link is behind narrow's own: its SYNs announce what 1500 bytes carry.
for host in narrow edge; do add_host $host; done
cable narrow eth0 edge narrow
cable edge router router edge
addresses narrow eth0 10.89.0.2/24 fd89::2/64
addresses edge narrow 10.89.0.1/24 fd89::1/64
addresses edge router 10.90.0.2/24 fd90::2/64
addresses router edge 10.90.0.1/24 fd90::1/64
default_route narrow 10.89.0.1 fd89::1
default_route edge 10.90.0.1 fd90::1
on_ip router route add 10.89.0.0/24 via 10.90.0.2
on_ip router -6 route add fd89::/64 via fd90::2
setting edge net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
on_ip edge link set router mtu 1300
on_ip router link set edge mtu 1300

# Replies from the real servers' own addresses are NAT's, and go by the director; FULLNAT's are to the segment.
for number in 1 2; do
    addresses rs$number lo ${V4[TUN]}/32 ${V6[TUN]}/128
    on_ip rs$number rule add from 10.77.0.10$number lookup 77
    on_ip rs$number route add 10.77.0.0/24 dev eth0 table 77
    on_ip rs$number route add default via $DIRECTOR table 77
    on_ip rs$number -6 rule add from fd77::10$number lookup 77
    on_ip rs$number -6 route add fd77::/64 dev eth0 table 77
    on_ip rs$number -6 route add default via $DIRECTOR6 table 77
done

start_nginx 1 2
for number in 1 2; do
    exec_on rs$number dnsmasq --no-daemon --conf-file=/dev/null --user=root --pid-file= --no-resolv \
        --no-hosts --address=/who.test/192.0.2.$number 2>"$WORK/dnsmasq$number" &
    exec_on rs$number python3 "$HERE/tcp_ends.py" serve 90 &
done

# service ADDRESS PORT PROTOCOL ALGORITHM
service() {
    local network=10.77.0. open='' close='' more=()
    case $1 in *:*) network=fd77:: open='[' close=']' ;; esac
    [ $LB_KIND != FULLNAT ] || more=("local_addresses = [\"${network}20\"]")
    virtual_server "$open$1$close:$2" "$3" "$4" 'delay_loop = 1' 'connect_timeout = 2' 'retry = 0' "${more[@]}"
    real_server "$open${network}101$close:$2" 1 'TCP_CHECK = {}'
    real_server "$open${network}102$close:$2" 1 'TCP_CHECK = {}'
}
# configure MODES
configure() {
    local address
    config
    for LB_KIND in $1; do
        for address in ${V4[$LB_KIND]} ${V6[$LB_KIND]}; do
            service $address 80 TCP rr
            service $address 53 UDP rr
            service $address 90 TCP sh
        done
    done
}

# What the real servers need for TUN. lib.sh's network has what DR needs, and NAT's routes are above.
configure TUN
for number in 1 2; do realserver $number up >"$WORK/said"; done
configure "$MODES"
start_director
healthy() { ask services '[.[].real_servers[] | select(.health == "up")] | length'; }
all_are_healthy() { [ "$(healthy)" = "$(ask services '[.[].real_servers[]] | length')" ]; }
wait_until 8 "all are up" all_are_healthy

# url ADDRESS
url() { case $1 in *:*) echo "http://[$1]" ;; *) echo "http://$1" ;; esac; }
icmp_sent() { ask workers '[.[].icmp_sent] | add'; }
# told_of_size NUMBER: how often a real server was told that its packets are too big.
told_of_size() {
    on "rs$1" nstat -asz IcmpInDestUnreachs Icmp6InPktTooBigs | awk '!/^#/ { n += $2 } END { print n }'
}
forget_sizes() {
    local host
    for host in client narrow rs1 rs2; do
        on_ip $host route flush cache
        on_ip $host -6 route flush cache
    done
}

# requests WHAT ADDRESS
requests() {
    local answers number
    # Not by curl's [1-10], which an address in brackets is not to be mixed with.
    answers=$(on client curl -gsS --max-time 5 -H 'Connection: close' $(for number in {1..10}; do url "$2"; done))
    for number in 1 2; do
        equal "$1: answers of rs$number" "$(served rs$number <<<"$answers")" 5
    done
}

# transfers WHAT ADDRESS: 100 MB down and up.
transfers() {
    local file
    on client curl -gsS --max-time 60 "$(url "$2")/big" | cmp - "$WORK/big" || fail "$1: download"
    on client curl -gfsS --max-time 60 -H 'Expect:' -T "$WORK/big" "$(url "$2")/up/file" || fail "$1: upload"
    file=$(ls "$WORK"/rs?/up/file)
    cmp "$file" "$WORK/big" || fail "$1: upload is damaged"
    rm "$file"
}

# names_resolve WHAT ADDRESS: both servers answer, the first packet of each query.
names_resolve() {
    local answers
    printf 'nameserver %s\noptions timeout:2 attempts:1\n' "$2" >"$WORK/resolv.conf"
    answers=$(on client sh -c "mount --bind '$WORK/resolv.conf' /etc/resolv.conf &&
        for number in 1 2 3 4; do getent ahostsv4 who.test; done | grep STREAM")
    equal "$1: names resolved" "$(sort <<<"$answers" | awk '{ print $1 }' | uniq -c | xargs)" \
        "2 192.0.2.1 2 192.0.2.2"
}

# narrow_download WHAT ADDRESS: in packets with DF, which a router on the way answers with its MTU.
narrow_download() {
    local before
    forget_sizes
    before=$(($(told_of_size 1) + $(told_of_size 2)))
    on narrow curl -gsS --max-time 10 -r 0-4999999 "$(url "$2")/big" |
        cmp -n 5000000 - "$WORK/big" || fail "$1: download behind a small MTU"
    between "$1: told that a packet is too big" \
        $(($(told_of_size 1) + $(told_of_size 2) - before)) 1 100
}

for mode in $MODES; do
    for address in ${V4[$mode]} ${V6[$mode]}; do
        what="$mode, $address"
        begin=$(now)
        requests "$what" $address
        names_resolve "$what" $address
        on client python3 "$HERE/tcp_ends.py" ask $address 90 || fail "$what: a connection's end"
        narrow_download "$what" $address
        told=$(icmp_sent)
        transfers "$what" $address
        # An outer header in front leaves less room than the client thinks.
        if [ $mode = TUN ]; then
            between "$what: told the client its size" $(($(icmp_sent) - told)) 1 100
        fi
        echo "$what: $(($(now) - begin)) ms"
    done
done

unplug rs2
all=$(ask services '[.[].real_servers[]] | length')
half_are_healthy() { [ "$(healthy)" = $((all / 2)) ]; }
wait_until 8 "rs2 is out everywhere" half_are_healthy
for mode in $MODES; do
    for address in ${V4[$mode]} ${V6[$mode]}; do
        equal "$mode, $address without rs2" "$(on client curl -gsS --max-time 2 \
            -H 'Connection: close' "$(url $address)" "$(url $address)" | sort | uniq -c | xargs)" "2 rs1"
    done
done
replug rs2
wait_until 8 "rs2 is back" all_are_healthy
for mode in $MODES; do
    for address in ${V4[$mode]} ${V6[$mode]}; do requests "$mode, $address with rs2 again" $address; done
done
