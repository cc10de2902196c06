# An appliance and a real keepalived share a VIP: who is master, who takes over,
# and who never has it at the same time.
source "$(dirname "$0")/vrrp.bash"
make_directors

pass='authentication = { auth_type = "PASS", auth_pass = "1111" }'
vrrp_config 'priority = 100' "$pass" "virtual_ipaddress = [\"$VIP/24\"]"
keepalived_conf peer 'state BACKUP' 'priority 50' 'authentication { auth_type PASS' 'auth_pass 1111' '}' \
    "virtual_ipaddress { $VIP/24" '}'

# VRRPv2 with a password, one second: the higher priority wins.
start_keepalived peer
wait_until 5 "keepalived is master" only peer
start_director
begin=$(now)
wait_until 5 "we preempt" only director
between "preemption, ms" $(($(now) - begin)) 3000 4500
equal "state" "$(vrrp_state)" MASTER
contains "keepalived's log" "$(<"$WORK/peer.log")" 'Entering BACKUP STATE'

ask_for_vip
stop_director TERM
wait_until 3 "keepalived takes over" only peer
answers=$(asked)
echo "planned: $answers"
