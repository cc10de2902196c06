# Edits of the file: a weight changes, a real server drains and goes, a wrong
# file changes nothing.
source "$(dirname "$0")/lib.sh"
make_network 2
start_nginx 1 2
weights() {
    config
    virtual_server $VIP:80 TCP wrr
    real_server 10.77.0.101:80 "$1"
    real_server 10.77.0.102:80 "$2"
}
weights 1 1
start_director
answers=$(names 100 http://$VIP/)
between "rs2 at weight 1:1" "$(served rs2 <<<"$answers")" 48 52

shown=$("$APPLIANCE" show config --socket "$SOCKET")
contains "the socket of show config" "$shown" "control_socket = \"$SOCKET\""

weights 1 3
contains "what the reload says" "$(reload)" '10\.77\.0\.102.*3'
answers=$(names 100 http://$VIP/)
between "rs2 at weight 1:3" "$(served rs2 <<<"$answers")" 73 77

# SIGHUP is the same.
weights 1 0
kill -HUP "$DIRECTOR_PID"
wait_until 3 "weight 0 arrives" eval "[ \"\$(ask services '.[0].real_servers[1].weight')\" = 0 ]"
answers=$(names 50 http://$VIP/)
equal "answers of rs2 at weight 0" "$(served rs2 <<<"$answers")" 0

weights 1 1
echo 'wieght = 1' >>"$CONFIG"
status=0
said=$(reload 2>&1) || status=$?
equal "status of a reload of a wrong file" "$status" 2
contains "what it says" "$said" "director.toml:[0-9]+:[0-9]+:.*wieght"
answers=$(names 50 http://$VIP/)
equal "answers of rs2 after the refused reload" "$(served rs2 <<<"$answers")" 0

config
virtual_server $VIP:80 TCP wrr
real_server 10.77.0.102:80 1
reload
answers=$(names 50 http://$VIP/)
equal "answers of rs2 alone" "$(served rs2 <<<"$answers")" 50

# A warning does not keep a file from being taken up, and is said each time.
sed -i '/^lb_algo/a ops = true' "$CONFIG"
contains "what the reload says" "$(reload 2>&1)" 'director.toml:[0-9]+:[0-9]+: warning: .*ops: it has no effect'
contains "the second time" "$(reload 2>&1)" 'warning: .*ops: it has no effect'
equal "warnings in the log" "$(grep -c 'WARN .*ops: it has no effect' "$LOG")" 2

# A log that cannot be written, as on a full disk, stops nothing.
stop_director
LOG=/dev/full launch_director
wait_until 20 "a director without a log serves" one_answer http://$VIP/
weights 1 1
contains "what the reload says" "$(reload)" '10\.77\.0\.101'
equal "answers after the reload" "$(names 50 http://$VIP/ | wc -l)" 50
stop_director || fail "the director without a log ended with status $?"
SOCKET=$WORK/no/directory LOG=/dev/full launch_director
status=0
wait "$DIRECTOR_PID" || status=$?
equal "status of a director that cannot start" "$status" 1
