# VRRPv2 with a password and advertisements every second, an appliance and a
# real keepalived: whoever has the higher priority is master, and takeovers are
# as fast as the protocol allows.
# alone: it measures failovers.
source "$(dirname "$0")/vrrp.bash"
needs tshark tcpdump
make_directors

ours() {
    vrrp_config "$@" 'authentication = { auth_type = "PASS", auth_pass = "1111" }' \
        "virtual_ipaddress = [\"$VIP/24\"]" 'garp_master_delay = 1'
}
ours 'priority = 100'
keepalived_conf peer 'state BACKUP' 'priority 50' 'authentication { auth_type PASS' 'auth_pass 1111' '}' \
    "virtual_ipaddress { $VIP/24" '}'

# Started together: we have the higher priority, so our skew time is the shorter.
on router tcpdump -i segment -w "$WORK/vrrp.pcap" -U 'proto 112 or arp' 2>/dev/null &
start_keepalived peer
start_director
begin=$(now)
wait_until 5 "we are master" only director
between "election, ms" $(($(now) - begin)) 3000 4500
sleep 0.1
only director || fail "keepalived took the VIP as well"
equal "state" "$(vrrp_state)" MASTER
equal "who answers" "$(one_answer http://$VIP/)" rs1

# Planned: the other is master within its skew time, and until then we serve.
ask_for_vip
stop_director TERM
wait_until 2 "keepalived takes over" only peer
asked
# Those that were under way when the other took over.
between "requests that failed" "$(jq .failed <<<"$ANSWERS")" 0 3
between "planned failover, ms" "$(gap rs1 peer)" 0 50

# Unplanned: Master_Down_Interval of priority 50 is 3 s + 206/256 s, from our last advertisement.
# The owner of an address does not wait for anybody.
ours 'priority = 255'
begin=$(now)
start_director
wait_until 2 "the owner is master" only director
between "takeover of the owner with its start, ms" $(($(now) - begin)) 0 2000
ask_for_vip
kill_director
wait_until 5 "keepalived takes over" only peer
asked
between "failover after kill -9, ms" "$(gap rs1 peer)" 2000 3900

# What tshark thinks of our packets.
sleep 0.2
decode() { tshark -r "$WORK/vrrp.pcap" -Y "$1" -T fields -e "$2" 2>/dev/null; }
between "our advertisements" "$(decode "vrrp && ip.src == $DIRECTOR" vrrp.prio | wc -l)" 3 30
equal "their checksums" "$(decode "vrrp && ip.src == $DIRECTOR" vrrp.checksum.status | sort -u)" 1
equal "their TTLs" "$(decode "vrrp && ip.src == $DIRECTOR" ip.ttl | sort -u)" 255
equal "complaints" "$(decode "vrrp && _ws.expert && ip.src == $DIRECTOR" frame.number | wc -l)" 0
between "gratuitous ARPs of ours" "$(decode "arp.isgratuitous && arp.src.proto_ipv4 == $VIP" eth.src | wc -l)" 10 100
