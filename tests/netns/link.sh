# The interface is down when the appliance starts, comes up, and goes down and
# up again while it runs: each time traffic flows as soon as it can.
source "$(dirname "$0")/lib.sh"
make_network 1
start_nginx 1
config
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1
on_ip director link set eth0 down
start_director
contains "the log" "$(cat "$LOG")" 'interface eth0 is down'

for turn in "first time" "second time"; do
    on_ip director link set eth0 up
    on_ip director route add default via 10.77.0.1 # It went with the link.
    begin=$(now)
    wait_until 5 "requests are answered the $turn" one_answer http://$VIP/
    between "the $turn: ms until it answers after the link is up" $(($(now) - begin)) 0 7000
    equal "answers" "$(names 10 http://$VIP/ | served rs1)" 10
    on_ip director link set eth0 down
done

echo "the interface's own address is away for a moment, and a reload comes"
on_ip director link set eth0 up
on_ip director address delete $DIRECTOR/24 dev eth0
reload
addresses director eth0 $DIRECTOR/24
on_ip director route add default via 10.77.0.1
wait_until 5 "requests are answered" one_answer http://$VIP/
stop_director

echo "and it comes after the start"
on_ip director address delete $DIRECTOR/24 dev eth0
start_director
addresses director eth0 $DIRECTOR/24
on_ip director route add default via 10.77.0.1
wait_until 5 "requests are answered" one_answer http://$VIP/
stop_director || fail "exit status $?"
