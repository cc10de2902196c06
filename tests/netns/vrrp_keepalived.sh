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

# The other way round: we follow keepalived, and take over when it stops.
ours 'priority = 40'
start_director
wait_until 3 "we follow its advertisements" eval '[ "$(ask vrrp .instances[0].master)" = $PEER ]'
only peer || fail "we have the VIP beside keepalived"
begin=$(now)
stop_keepalived peer
wait_until 3 "we take over" only director
# Our skew time is 216/256 s; keepalived takes some tenths to stop.
between "takeover, ms" $(($(now) - begin)) 700 2000

# What tshark thinks of our packets.
sleep 0.2
tshark -r "$WORK/vrrp.pcap" -T fields -E separator=/s -e ip.ttl -e vrrp.prio -e vrrp.checksum.status -e _ws.expert.message \
    -Y "vrrp && ip.src == $DIRECTOR || arp.isgratuitous && arp.src.proto_ipv4 == $VIP" 2>/dev/null >"$WORK/decoded"
# TTL, priority, status of the checksum, no complaint.
good=$(grep -cE '^255 [0-9]+ 1 *$' "$WORK/decoded") || true
between "our advertisements" "$good" 3 30
equal "advertisements, those with something wrong too" "$(grep -c '^[^ ]' "$WORK/decoded")" "$good"
between "gratuitous ARPs of ours" "$(grep -c '^ ' "$WORK/decoded")" 10 100
