# Two appliances on different interfaces of one network namespace: neither takes what the other has for what a
# killed one left. What one that was killed left is removed all the same, as far as it must be its.
source "$(dirname "$0")/lib.sh"
make_network 1
add_host rs9
cable director eth1 rs9 eth0
addresses director eth1 10.99.9.2/24
addresses rs9 eth0 10.99.9.1/24

# The first: VRRP on eth0, with a macvlan, routes and rules.
config '[[vrrp_instance]]' 'name = "VI_1"' 'interface = "eth0"' 'virtual_router_id = 51' 'priority = 255' \
    'state = "MASTER"' "virtual_ipaddress = [\"$VIP/24\"]" \
    'virtual_routes = ["10.50.0.0/16 via 10.77.0.1", "blackhole 10.51.0.0/16"]' \
    'virtual_rules = ["to 10.52.0.0/16 prohibit"]' \
    '[[vrrp_instance]]' 'name = "VI_2"' 'interface = "eth0"' 'virtual_router_id = 52' 'priority = 255' \
    'state = "MASTER"' 'use_vmac = true' 'virtual_ipaddress = ["10.77.0.205/24"]'
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1

# The second: eth1, an address of its own, and later VRRP with a route.
SECOND=$WORK/second.toml
second_config() {
    printf '%s\n' '[[interface]]' 'name = "eth1"' '[[virtual_server]]' "address = \"$1:80\"" \
        'lb_kind = "DR"' '[[virtual_server.real_server]]' 'address = "10.99.9.1:80"' \
        '[[vrrp_instance]]' 'name = "VI_9"' 'interface = "eth1"' 'virtual_router_id = 59' 'priority = 255' \
        'state = "MASTER"' 'virtual_ipaddress = ["10.99.9.200/24"]' "virtual_routes = [\"$2 via 10.99.9.1\"]" \
        >"$SECOND"
}
SECOND_PID=
start_second() {
    : >"$WORK/second.log"
    exec_on director "$APPLIANCE" run "$SECOND" --socket "$WORK/second" 2>"$WORK/second.log" &
    SECOND_PID=$!
    wait_until 20 "the second is ready" grep -qx ready "$WORK/second.log"
}
stop_second() {
    kill "-$1" $SECOND_PID
    wait $SECOND_PID 2>/dev/null || [ "$1" = KILL ]
}

# of_first, of_second: what each has beside its interfaces' own addresses.
of_first() {
    on_ip director -oneline address show | grep -cE "$VIP/|10\.77\.0\.205/" || true
    on_ip director route show proto 169 | grep -cE '10\.5[01]\.' || true
    on_ip director rule show | grep -c 10.52.0.0/16 || true
}
of_second() {
    on_ip director -oneline address show dev eth1 | grep -oE '10\.99\.9\.(1[0-9]+|200)/' | xargs
    on_ip director route show proto 169 | grep -oE '^10\.6[0-9]\.' | xargs
}
is_first() { [ "$(of_first | xargs)" = "$1" ]; }
# changes: addresses, routes and rules of the first that went away.
changes() { grep -E '^Deleted' "$WORK/changes" | grep -E "$VIP/|10\.77\.0\.205/|10\.5[0-2]\." || true; }

second_config 10.99.9.100 10.60.0.0/16
start_director
wait_until 3 "the first has everything" is_first "2 2 1"
exec_on director ip -oneline monitor address route rule >"$WORK/changes" &
sleep 0.1

echo "-- a second one starts, reloads, and stops"
start_second
is_first "2 2 1" || fail "the start of the second changed what the first has: $(of_first)"
wait_until 3 "the second has its own" eval '[ "$(of_second | xargs)" = "10.99.9.100/ 10.99.9.200/ 10.60." ]'
second_config 10.99.9.101 10.61.0.0/16
"$APPLIANCE" reload --socket "$WORK/second" >/dev/null
wait_until 3 "it has what it has to" eval '[ "$(of_second | xargs)" = "10.99.9.101/ 10.99.9.200/ 10.61." ]'
stop_second TERM || fail "exit status $? of the second"
equal "what is left of the second" "$(of_second | xargs)" ""
equal "lines of the second about a killed one" "$(grep -c 'left behind' "$WORK/second.log" || true)" 0
contains "what the second leaves alone" "$(cat "$WORK/second.log")" 'may be its stays: 3 routes and rules'

echo "-- one that is killed: the next removes what is over its interface, and no more"
start_second
stop_second KILL
second_config 10.99.9.102 10.62.0.0/16
start_second
wait_until 3 "it has what it has to" eval '[ "$(of_second | xargs)" = "10.99.9.102/ 10.99.9.200/ 10.62." ]'
contains "what it says" "$(cat "$WORK/second.log")" 'removed 1 routes and rules that a killed'
contains "what it says of addresses" "$(cat "$WORK/second.log")" 'removed 1 address \(10.99.9.101\) that a killed'
is_first "2 2 1" || fail "what the first has changed: $(of_first)"
equal "what the first lost at any time" "$(changes)" ""

echo "-- the first one starts anew: nor does it take from the second"
stop_director || fail "exit status $?"
is_first "0 0 0" || fail "the first left something: $(of_first)"
start_director
wait_until 3 "the first has everything" is_first "2 2 1"
equal "what the second has" "$(of_second | xargs)" "10.99.9.102/ 10.99.9.200/ 10.62."

echo "-- alone after both were killed: what is elsewhere is removed, too"
stop_second KILL
stop_director KILL || true
second_config 10.99.9.103 10.63.0.0/16
start_second
wait_until 3 "it has its own" eval '[ "$(of_second | xargs)" = "10.99.9.103/ 10.99.9.200/ 10.63." ]'
is_first "0 0 0" || fail "something is left: $(of_first)"
contains "what it says" "$(cat "$WORK/second.log")" 'removed 4 routes and rules that a killed'
stop_second TERM || fail "exit status $? of the second"
equal "what is left of the second" "$(of_second | xargs)" ""
