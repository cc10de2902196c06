# What is left: nothing after SIGTERM; after SIGKILL nothing that keeps the
# next start from working, and nothing once that one has stopped.
source "$(dirname "$0")/lib.sh"
make_network 1
start_nginx 1
config
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1
virtual_server "[$VIP6]:80" TCP rr
real_server "[fd77::101]:80" 1

is_working() {
    equal "an answer" "$(one_answer http://$VIP/)" rs1
    equal "an answer over IPv6" "$(one_answer "http://[$VIP6]/")" rs1
}

xdp_programs() { on_ip director -details link show | grep -c 'prog/xdp' || true; }
vips() { on_ip director -oneline address show | grep -cE "$VIP/|$VIP6/" || true; }

nothing_is_left() {
    equal "XDP programs $1" "$(xdp_programs)" 0
    equal "virtual addresses $1" "$(vips)" 0
    [ ! -e "$SOCKET" ] || fail "the control socket is still there $1"
}

before=$(on_ip director -oneline address show)
for signal in TERM INT; do
    start_director
    is_working
    between "XDP programs while running" "$(xdp_programs)" 1 1
    equal "virtual addresses while running" "$(vips)" 2
    stop_director $signal || fail "exit status $? after SIG$signal"
    nothing_is_left "after SIG$signal"
    equal "addresses after SIG$signal" "$(on_ip director -oneline address show)" "$before"
done

start_director
is_working
status=0
stop_director KILL || status=$?
equal "exit status of a killed process" $status 137
equal "XDP programs after SIGKILL" "$(xdp_programs)" 0

start_director
is_working
stop_director || fail "exit status $? of the one after the killed one"
nothing_is_left "after the one after the killed one"

echo "SIGTERM while the start waits for a real server that does not answer"
config '[[vrrp_instance]]' 'name = "VI_1"' 'interface = "eth0"' 'virtual_router_id = 51' 'priority = 255' \
    'state = "MASTER"' "virtual_ipaddress = [\"$VIP/24\"]" 'virtual_routes = ["10.99.0.0/16 via 10.77.0.1"]'
virtual_server $VIP:80 TCP rr
real_server 10.77.0.199:80 1
virtual_server 10.77.0.200:80 TCP rr
real_server 10.77.0.199:80 1
launch_director
wait_until 5 "it is master" prints 10.99.0.0/16 on_ip director route
stop_director || fail "exit status $? after SIGTERM at the start"
! grep -qx ready "$LOG" || fail "it was ready already: this shows nothing"
nothing_is_left "after SIGTERM at the start"
equal "addresses after SIGTERM at the start" "$(on_ip director -oneline address show)" "$before"
equal "routes after SIGTERM at the start" "$(on_ip director route show 10.99.0.0/16)" ""
contains "what it said" "$(cat "$LOG")" "SIGTERM: stopping"
