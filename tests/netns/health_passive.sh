# Passive health with DR: a real server that answers the director's checks and
# no client is taken out for fail_timeout once clients' SYNs stay unanswered,
# and the SYNs that are repeated go to another. The last one is never taken out.
source "$(dirname "$0")/lib.sh"
make_network 2
start_nginx 1 2
config
virtual_server $VIP:80 TCP rr 'delay_loop = 0.2' 'warmup = 0' 'max_fails = 2' 'fail_timeout = 2'
real_server 10.77.0.101:80 1 'TCP_CHECK = {}'
real_server 10.77.0.102:80 1 'TCP_CHECK = {}'
start_director
wait_until 3 "all are up" eval 'server_is 1 up && server_is 2 up'
answers=$(names 20 http://$VIP/)
equal "answers of rs2" "$(served rs2 <<<"$answers")" 10

# rs2 loses its way back to clients; the director is on its own segment.
on_ip rs2 route delete default
begin=$(now)
# Ten clients beside each other; those that rs2 gets repeat their SYN after 1 s and 3 s.
answers=$(on client curl -sS --parallel --parallel-immediate --parallel-max 10 --connect-timeout 8 \
    --max-time 10 -H 'Connection: close' "http://$VIP/?[1-10]")
echo "10 requests took $(($(now) - begin)) ms"
equal "requests that rs1 answered in the end" "$(served rs1 <<<"$answers")" 10
between "ms until all were answered" $(($(now) - begin)) 900 4500
contains "log" "$(cat "$LOG")" \
    "10.77.0.102:80 is down: [0-9]+ SYNs of clients got no answer, max_fails is 2; it is out for 2s; 1 of 2"
equal "state of rs2" "$(server_state 2)" down
equal "passive check" "$(ask health '.[] | select(.check == "passive" and .real_server == "10.77.0.102:80") | .state')" down
equal "state of its TCP_CHECK" \
    "$(ask health '.[] | select(.check == "TCP_CHECK" and .real_server == "10.77.0.102:80") | .state')" up
answers=$(names 10 http://$VIP/)
equal "answers of rs1 while rs2 is out" "$(served rs1 <<<"$answers")" 10

# Back after fail_timeout; meanwhile it recovered.
on_ip rs2 route add default via 10.77.0.1
wait_until 5 "rs2 is back" server_is 2 up
answers=$(names 20 http://$VIP/)
equal "answers of rs2" "$(served rs2 <<<"$answers")" 10

# Alone it is better than nobody.
stop_nginx 1
wait_until 5 "rs1 is out by its check" server_is 1 down
on_ip rs2 route delete default
on client curl -s --connect-timeout 3 -o "$WORK/nothing" http://$VIP/ && fail "answered without a route"
equal "state of the last server" "$(server_state 2)" up
