# 500 reloads of random files, right and wrong ones, under traffic: no request
# to the virtual server that stays is lost, what runs in the end is what the last right file
# says, and nothing is left over.
source "$(dirname "$0")/lib.sh"
make_network 2
start_nginx 1 2
config
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1
real_server 10.77.0.102:80 1
start_director

exec_on client python3 "$HERE/keep_alive.py" $VIP 80 --connections 50 >"$WORK/kept" &
kept=$!
wait_until 10 "50 connections are open" grep -q open "$WORK/kept"
(
    while [ ! -e "$WORK/over" ]; do
        on client curl -sS --max-time 5 -H 'Connection: close' "http://$VIP/?[1-200]"
    done
) >"$WORK/answers" 2>"$WORK/failures" &
new=$!

python3 "$HERE/reload_storm.py" "$CONFIG" "$SOCKET" "$DIRECTOR_PID" --vip $VIP --interfaces eth0
touch "$WORK/over"
wait $new || fail "a new connection: $(head -3 "$WORK/failures")"
kill $kept
wait $kept || fail "a kept connection: $(<"$WORK/kept")"
tail -1 "$WORK/kept"
between "new connections" "$(wc -l <"$WORK/answers")" 500 1000000
equal "failures" "$(<"$WORK/failures")" ""

mv "$CONFIG.last" "$CONFIG"
"$APPLIANCE" check --print "$CONFIG" 2>/dev/null | sed "s|\"/run/appliance.sock\"|\"$SOCKET\"|" | diff - "$CONFIG.running" ||
    fail "what runs is not what the last right file says"
