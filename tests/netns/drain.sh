# A real server is drained: no new connections, the open ones go on, the
# command waits for them; a deadline gives up those that are left.
source "$(dirname "$0")/lib.sh"
make_network 2
start_nginx 1 2
head -c 10000000 /dev/zero >"$WORK/big"
for number in 1 2; do
    exec_on rs$number python3 "$HERE/udp_echo.py" "rs$number" $VIP 53 $VIP6 53 &
done
config
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1
real_server 10.77.0.102:80 1
virtual_server $VIP:53 UDP rr
real_server 10.77.0.101:53 1
real_server 10.77.0.102:53 1
start_director
drain() { "$APPLIANCE" drain --socket "$SOCKET" "$@"; }
undrain() { "$APPLIANCE" undrain --socket "$SOCKET" "$@"; }
active() { ask services "[.[0].real_servers[$1].active_connections] | add"; }

# A download on each server, of which the rest comes when the drain waits for it.
for number in 1 2; do
    on client python3 "$HERE/download.py" http://$VIP/big "$WORK/download$number" "$WORK/go" &
    downloads+=($!)
done
wait_until 3 "both servers have a download" eval '[ "$(active 0)$(active 1)" = 11 ]'

drain 10.77.0.102:80 >"$WORK/said" &
draining=$!
wait_until 3 "the drain waits" grep -qE '^1 connection left, and [0-9]+ closing$' "$WORK/said"
kill -0 $draining || fail "the drain did not wait: $(<"$WORK/said")"
touch "$WORK/go"
wait $draining || fail "the drain failed: $(<"$WORK/said")"
contains "the drain" "$(<"$WORK/said")" '^drained: no connections are left$'
wait "${downloads[@]}" || fail "a download broke"
cmp "$WORK/big" "$WORK/download1"
cmp "$WORK/big" "$WORK/download2"
answers=$(names 10 http://$VIP/)
equal "answers of the drained server" "$(served rs2 <<<"$answers")" 0
equal "it is shown" "$(ask services '.[0].real_servers[1] | "\(.drained) \(.weight)"')" "true 0"

# Not by a reload, but by undrain.
reload >/dev/null
answers=$(names 10 http://$VIP/)
equal "answers after a reload" "$(served rs2 <<<"$answers")" 0
undrain 10.77.0.102
answers=$(names 10 http://$VIP/)
equal "answers after undrain" "$(served rs2 <<<"$answers")" 5
status=0
undrain 10.77.0.102 2>/dev/null || status=$?
equal "status of an undrain of what is not drained" "$status" 1

# UDP: the deadline moves a client that goes on to the other server.
on client python3 "$HERE/udp_ask.py" $VIP 53 --sockets 1 --datagrams 40 --interval 0.05 \
    >"$WORK/udp" &
asking=$!
wait_until 3 "an answer" test -s "$WORK/udp"
first=$(head -n 1 "$WORK/udp")
status=0
drain "10.77.0.10${first#rs}:53" --deadline 1 >"$WORK/drain" 2>&1 || status=$?
equal "status at the deadline" "$status" 1
contains "what it says" "$(<"$WORK/drain")" '1 connection .*at the deadline'
wait $asking
equal "answers to one socket" "$(wc -l <"$WORK/udp")" 40
equal "servers of one socket" "$(sort -u "$WORK/udp" | wc -l)" 2

# With a script of an operator, who stops the server when the command returns: nothing is served any more by then.
# The second after the tick does not matter: three deadlines, at other times in it.
for deadline in 0.3 0.6 0.9; do
    undrain 10.77.0.101 2>/dev/null || true
    undrain 10.77.0.102 2>/dev/null || true
    on client python3 "$HERE/udp_ask.py" $VIP 53 --sockets 1 --datagrams 80 --interval 0.02 \
        >"$WORK/udp$deadline" &
    asking=$!
    wait_until 3 "an answer" test -s "$WORK/udp$deadline"
    first=$(head -n 1 "$WORK/udp$deadline")
    drain "10.77.0.10${first#rs}:53" --deadline $deadline >"$WORK/drain" 2>&1 && fail "no connection was left"
    before=$(grep -c "^$first\$" "$WORK/udp$deadline")
    wait $asking
    contains "what it says" "$(<"$WORK/drain")" ' left at the deadline, now given up$'
    # One answer may have been on its way, and unwritten.
    between "answers of $first after the command" $(($(grep -c "^$first\$" "$WORK/udp$deadline") - before)) 0 1
done
stop_director
