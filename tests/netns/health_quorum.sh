# Below its quorum a virtual server is served by the sorry server, connections
# to what is left of the real servers go on, scripts are told, and all of it is
# undone when the quorum is back. A MISC_CHECK sets a weight.
source "$(dirname "$0")/lib.sh"
make_network 3
start_nginx 1 2 3
truncate -s 3M "$WORK/big"
chmod 755 "$WORK"
touch "$WORK/told"
chmod 666 "$WORK/told"
cat >"$WORK/tell" <<END
#!/bin/sh
echo "\$1 by \$(id -un)" >>"$WORK/told"
END
chmod 755 "$WORK/tell"
echo 'exit 0' >"$WORK/load"
config '[global_defs]' 'script_user = "nobody"'
virtual_server $VIP:80 TCP wrr 'delay_loop = 0.3' 'connect_timeout = 0.5' 'retry = 0' 'warmup = 0' \
    'quorum = 2' 'sorry_server = "10.77.0.103:80"' 'omega = true' \
    "quorum_up = '$WORK/tell gained'" "quorum_down = ['$WORK/tell', 'lost']"
real_server 10.77.0.101:80 1 'TCP_CHECK = {}' "notify_down = '$WORK/tell down1'" \
    "notify_up = { script = '$WORK/tell up1', user = 'root' }" \
    "MISC_CHECK = { misc_path = \"/bin/sh $WORK/load\", misc_dynamic = true }"
real_server 10.77.0.102:80 1 'TCP_CHECK = {}' "notify_down = '$WORK/tell down2'"
start_director
told() { equal "told" "$(tr '\n' ',' <"$WORK/told")" "$1"; }
told_is() { [ "$(tr '\n' ',' <"$WORK/told")" = "$1" ]; }
weight() { ask services ".[0].real_servers[] | select(.address == \"10.77.0.10$1:80\") | .weight"; }
weight_is() { [ "$(weight "$1")" = "$2" ]; }
wait_until 3 "all are up" eval 'server_is 1 up && server_is 2 up'
wait_until 3 "quorum_up at start" told_is "gained by nobody,"
answers=$(names 20 http://$VIP/)
equal "answers of rs1 and rs2" "$(served 'rs[12]' <<<"$answers")" 20

# A connection that lasts, to rs1 or rs2, in pieces.
on client curl -sS --limit-rate 1M --max-time 20 -o "$WORK/got" http://$VIP/big &
download=$!
sleep 0.3
owner=$(ask connections 'first(.[] | select(.state == "ESTABLISHED") | .real_server)')
echo "the download is served by $owner"
if [[ $owner == *101:80 ]]; then stays=1 dies=2; else stays=2 dies=1; fi
stop_nginx $dies
wait_until 2 "the sorry server serves" weight_is 3 1
equal "weight of rs$stays" "$(weight $stays)" 0
answers=$(names 20 http://$VIP/)
equal "answers of the sorry server" "$(served rs3 <<<"$answers")" 20
wait $download || fail "the download was cut off when the quorum was lost"
equal "bytes" "$(stat -c %s "$WORK/got")" 3145728
contains "log" "$(cat "$LOG")" "quorum lost: weight 1 of 2; the sorry server 10.77.0.103:80 serves"

start_nginx $dies
wait_until 3 "the quorum is back" eval 'server_is 1 up && server_is 2 up && weight_is 1 1'
answers=$(names 20 http://$VIP/)
equal "answers of rs1 and rs2" "$(served 'rs[12]' <<<"$answers")" 20
if [ $dies = 1 ]; then down="down1 by nobody," up="up1 by root,"; else down="down2 by nobody," up=""; fi
# Scripts run beside each other: their order is not fixed.
sorted() { sort "$WORK/told" | tr '\n' ','; }
expected=$(tr ',' '\n' <<<"gained by nobody,lost by nobody,gained by nobody,$down$up" | grep . | sort | tr '\n' ',')
wait_until 2 "everybody was told" eval '[ "$(sorted)" = "$expected" ]'

echo 'exit 7' >"$WORK/load"
wait_until 2 "the script sets the weight" weight_is 1 5
between "rs1 of 60" "$(names 60 http://$VIP/ | served rs1)" 45 55

: >"$WORK/told"
stop_director
equal "told at the end" "$(sorted)" "down1 by nobody,down2 by nobody,lost by nobody,"
