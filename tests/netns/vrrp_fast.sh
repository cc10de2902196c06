# VRRPv3 with advertisements every 100 ms: either side stops, dies, loses its
# link and returns, with and without preemption. The VIP is on one side only.
# alone: it measures failovers in milliseconds.
source "$(dirname "$0")/vrrp.bash"
make_directors

ours() { vrrp_config 'version = 3' 'advert_int = 0.1' "virtual_ipaddress = [\"$VIP/24\"]" "$@"; }
ours 'priority = 100'
keepalived_conf peer 'state BACKUP' 'version 3' 'advert_int 0.1' 'priority 150' "virtual_ipaddress { $VIP/24" '}'
start_keepalived peer
start_director
wait_until 5 "keepalived is master" only peer
wait_until 1 "we know" vrrp_is BACKUP
equal "whom we follow" "$(ask vrrp '.instances[0].master')" $PEER
watch_vip

echo "-- keepalived stops: we wait for the skew time, 61 ms"
ask_for_vip
stop_keepalived peer
wait_until 2 "we take over" only director
asked
between "failover, ms" "$(gap peer rs1)" 0 160

echo "-- it returns and preempts; then it is killed: Master_Down_Interval is 361 ms"
start_keepalived peer
wait_until 3 "it preempts" only peer
ask_for_vip
kill_keepalived peer
wait_until 2 "we take over" only director
asked
between "failover, ms" "$(gap peer rs1)" 200 460

echo "-- its link goes down and up"
start_keepalived peer
wait_until 3 "it preempts" only peer
unplug peer
wait_until 2 "we take over" has_vip director
replug peer
wait_until 3 "it preempts" only peer

echo "-- a reload gives us the higher priority"
ours 'priority = 200'
reload
wait_until 3 "we preempt" only director
equal "priority" "$(ask vrrp '.instances[0].priority')" 200

echo "-- a reload makes it another virtual router: keepalived is told"
: >"$WORK/peer.log"
sed -i "s/virtual_router_id = 51/virtual_router_id = 61/; s/$VIP/10.77.0.222/" "$CONFIG"
reload
wait_until 2 "it takes over" only peer
grep -q 'received priority 0' "$WORK/peer.log" || fail "keepalived was not told: $(<"$WORK/peer.log")"
ours 'priority = 200'
reload
wait_until 3 "we preempt" only director

echo "-- our link goes down and up"
unplug director
wait_until 2 "it takes over" only peer
equal "our state" "$(vrrp_state)" FAULT
contains "why" "$(ask vrrp '.instances[0].faults[0]')" 'interface is down'
replug director
wait_until 3 "we preempt" only director

echo "-- we stop, and are killed"
ask_for_vip
stop_director TERM
wait_until 2 "it takes over" only peer
asked
# Those that were under way when the other took over.
between "requests that failed" "$(jq .failed <<<"$ANSWERS")" 0 3
between "planned failover, ms" "$(gap rs1 peer)" 0 50
start_director
wait_until 3 "we preempt" only director
ask_for_vip
kill_director
wait_until 2 "it takes over" only peer
asked
between "failover, ms" "$(gap rs1 peer)" 200 410

echo "-- nopreempt: we leave a master alone, and take over when it goes"
ours 'priority = 200' 'nopreempt = true'
start_director
sleep 0.6
only peer || fail "we preempted in spite of nopreempt"
equal "our state" "$(vrrp_state)" BACKUP
stop_keepalived peer
wait_until 2 "we take over" only director
equal "advertisements that were late" "$(ask vrrp '.instances[0].late_adverts_total')" 0

echo "-- nopreempt of keepalived: it leaves us alone, and takes over when we go"
: >"$WORK/peer.log"
keepalived_conf peer 'state BACKUP' nopreempt 'version 3' 'advert_int 0.1' 'priority 250' "virtual_ipaddress { $VIP/24" '}'
start_keepalived peer
wait_until 3 "it is backup" grep -q 'Entering BACKUP STATE' "$WORK/peer.log"
sleep 0.6 # twice its Master_Down_Interval
only director || fail "it preempted in spite of nopreempt"
equal "our state" "$(vrrp_state)" MASTER
stop_director TERM
wait_until 2 "it takes over" only peer
# Each gives it up at the first advertisement of the other.
between "ms in which both had the VIP" "$(had_by_both)" 0 150
