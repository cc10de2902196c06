# 200 clients of the control socket that ask without end, read a byte at a time, send garbage or never
# read: timers are as punctual as without them, packets are forwarded as before, and commands are answered.
# alone: it measures how late timers are.
source "$(dirname "$0")/lib.sh"
make_network 1
start_nginx 1
config '[[vrrp_instance]]' 'name = "VI_1"' 'interface = "eth0"' 'virtual_router_id = 51' 'version = 3' \
    'advert_int = 0.05' "virtual_ipaddress = [\"$VIP/24\"]"
for port in $(seq 80 179); do
    virtual_server $VIP:"$port" TCP rr
    real_server 10.77.0.101:"$port" 1
done
start_director
is_master() { [ "$(ask vrrp '.instances[0].state')" = MASTER ]; }
wait_until 5 "it is master" is_master

# late: how many timers were more than 25 ms late, half of the interval, and how many there were.
late() { ask vrrp '.timer_slip | "\(.timers_total - (.buckets[] | select(.le_microseconds == 25000) | .timers_total)) \(.timers_total)"'; }
read -r late_before timers_before < <(late)
python3 "$HERE/many_clients.py" "$SOCKET" --clients 200 --seconds 3 >"$WORK/crowd" &
crowd=$!
sleep 0.5
equal "answers by the director" "$(names 200 http://$VIP/ | served rs1)" 200
started=$(now)
show vrrp >/dev/null
between "milliseconds until a command is answered" $(($(now) - started)) 0 2500
wait $crowd
cat "$WORK/crowd"
read -r late_after timers_after < <(late)
between "timers" $((timers_after - timers_before)) 40 200
between "late ones" $((late_after - late_before)) 0 2
between "answers to clients" "$(jq .answers "$WORK/crowd")" 50 1000000
between "garbage that was refused" "$(jq .refused "$WORK/crowd")" 50 1000000
equal "whether it is master" "$(ask vrrp '.instances[0].state')" MASTER
equal "drops" "$(ask drops 'map(.packets_total) | add')" 0
stop_director || fail "exit status $?"
