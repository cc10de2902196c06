# `appliance lab` removes all that it made, however it ends: at its end, on
# Ctrl-C, at the next start after a SIGKILL, and after --keep when asked.
source "$(dirname "$0")/lib.sh"
needs
config
virtual_server $VIP:80 TCP wrr
real_server 10.77.0.101:80 1
real_server 10.77.0.102:80 3

namespaces() { ip netns list | awk '{ print $1 }' | grep -E "^lab-(keep-)?$1-" || true; }
nothing_is_left() {
    equal "namespaces $2" "$(namespaces "$1")" ""
    [ ! -e "/run/appliance-lab-$1" ] && [ ! -e "/run/appliance-lab-keep-$1" ] ||
        fail "its directory is still there $2"
}
# rehearse [OPTIONS]: in the background, $lab is its process.
rehearse() {
    "$APPLIANCE" lab "$CONFIG" --script none "$@" >"$WORK/lab" 2>&1 &
    lab=$!
}
is_built() { [ "$(namespaces $lab | wc -l)" = 6 ]; }

rehearse --requests 40
wait $lab || fail "exit status $?: $(cat "$WORK/lab")"
contains "what it printed" "$(cat "$WORK/lab")" '10\.77\.0\.102 +served +30 +75\.0 %.*ok$'
equal "escape codes in a file" "$(grep -c $'\e' "$WORK/lab" || true)" 0
nothing_is_left $lab "at its end"

for signal in INT TERM; do
    rehearse --requests 1000000
    wait_until 10 "the network is there" is_built
    kill -$signal $lab
    status=0
    wait $lab || status=$?
    equal "exit status after SIG$signal" $status 1
    nothing_is_left $lab "after SIG$signal"
done

rehearse --requests 1000000
wait_until 10 "the network is there" is_built
sleep 1
kill -KILL $lab
wait $lab || true
is_built || fail "a killed lab cannot have cleaned up"
killed=$lab
rehearse --requests 4
wait $lab || fail "exit status $? after a killed one: $(cat "$WORK/lab")"
contains "what it said about that" "$(cat "$WORK/lab")" "removed what lab-$killed left"
nothing_is_left $killed "at the next start"
nothing_is_left $lab "at its end"

if prints '^lab-keep-' ip netns list; then
    echo "somebody keeps a lab on this machine: --keep and --remove are not tested"
    exit
fi
rehearse --requests 4 --keep
wait $lab || fail "exit status $? with --keep: $(cat "$WORK/lab")"
is_built || fail "--keep kept $(namespaces $lab)"
equal "an answer in a kept lab" \
    "$(ip netns exec lab-keep-$lab-client curl -s --max-time 3 http://$VIP/ | grep -cx '10.77.0.10[12]')" 1
"$APPLIANCE" lab --remove
nothing_is_left $lab "after --remove"
