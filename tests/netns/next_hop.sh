# A real server without checks goes away and comes back: the kernel loses and
# finds its neighbour, and the appliance follows by itself.
source "$(dirname "$0")/lib.sh"
make_network 1
start_nginx 1
config
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1
# So that the kernel gives up on a neighbour within two seconds.
setting director net.ipv4.neigh.eth0.base_reachable_time_ms=500 \
    net.ipv4.neigh.eth0.delay_first_probe_time=1 net.ipv4.neigh.eth0.retrans_time_ms=200
start_director
answers=$(names 10 http://$VIP/)
equal "answers before" "$(served rs1 <<<"$answers")" 10

neighbour_is() { [ "$(ask neighbors '.[0].state')" = "$1" ]; }
neighbour_is_not() { ! neighbour_is "$1"; }

unplug rs1
lost() {
    ! one_answer http://$VIP/ && neighbour_is_not resolved
}
wait_until 15 "the next hop is lost" lost
ask neighbors '.[0] | "\(.real_server): \(.state)"'

replug rs1
begin=$(now)
wait_until 5 "requests are answered again" one_answer http://$VIP/
between "ms until it answers after the cable is back" $(($(now) - begin)) 0 7000
neighbour_is resolved || fail "the next hop is $(ask neighbors '.[0].state')"
answers=$(names 10 http://$VIP/)
equal "answers afterwards" "$(served rs1 <<<"$answers")" 10
equal "rx - tx - drops - waiting" \
    "$(ask workers 'map(.rx_packets - .tx_packets - .dropped_packets - .waiting) | add')" 0

echo "another machine takes its address over"
sleep 1.1 # A neighbour's new address is believed after a second (locktime).
on_ip rs1 link set eth0 address 02:77:00:00:00:42
wait_until 3 "the new MAC address is used" prints 02:77:00:00:00:42 ask neighbors '.[0].mac'
equal "an answer from the new address" "$(one_answer http://$VIP/)" rs1
