# Interfaces and instances of VRRP that a reload adds and removes, while connections by another
# interface go on: all of a file is taken up, or nothing.
source "$(dirname "$0")/lib.sh"
make_network 2
# A real server of NAT behind a second interface.
add_host rs3
plug_in() {
    cable director eth1 rs3 eth0
    addresses director eth1 10.78.0.1/24
    addresses rs3 eth0 10.78.0.3/24
    on_ip rs3 route add default via 10.78.0.1
}
plug_in
addresses rs3 lo 10.77.0.103/32
start_nginx 1 2 3

# first: what is there at the start, and stays.
first() {
    config "$@"
    virtual_server $VIP:80 TCP rr
    real_server 10.77.0.101:80 1
    real_server 10.77.0.102:80 1
}
# both NAME [LINES…]: a second interface, and a virtual server that needs it.
both() {
    first '[[interface]]' "name = \"$1\"" "${@:2}"
    LB_KIND=NAT virtual_server $VIP:81 TCP rr
    real_server 10.78.0.3:80 1
}
refuses() {
    local said status=0
    said=$(reload 2>&1) || status=$?
    equal "status of a reload that is refused" "$status" 2
    contains "what it says" "$said" "$1"
    equal "interfaces" "$(ask workers '[.[].interfaces[].interface] | join(" ")')" eth0
    equal "virtual servers" "$(ask services length)" 1
    ! on_ip director link show eth1 | grep -q xdp || fail "a program is left on eth1"
    equal "descriptors after the refusal" "$(descriptors)" "$quiet"
}
descriptors() { find "/proc/$DIRECTOR_PID/fd" -type l | wc -l; }

first
start_director
exec_on client python3 "$HERE/keep_alive.py" $VIP 80 --connections 20 >"$WORK/kept" &
kept=$!
wait_until 10 "20 connections are open" grep -q open "$WORK/kept"
# What only the first question needs is there.
show services >/dev/null
quiet=$(descriptors)

echo "an interface that cannot be taken"
both eth9
refuses 'interface eth9: not found; this machine.s Ethernet interfaces: .*eth1'
on_ip director link set eth1 mtu 3000
both eth1
refuses 'interface eth1: MTU 3000 .* lower it to 1706, or restart'
on_ip director link set eth1 mtu 1500
both eth1 'mode = "zero-copy"'
refuses 'eth1.*zero-copy.*restart'

for round in 1 2 3; do
    echo "there and back, $round"
    both eth1
    contains "what the reload says" "$(reload)" 'interface eth1 added'
    wait_until 3 "the new real server answers" eval '[ "$(one_answer http://$VIP:81/)" = rs3 ]'
    equal "answers by the new interface" "$(names 50 http://$VIP:81/ | served rs3)" 50
    first
    contains "what the reload says" "$(reload)" 'interface eth1 removed'
    ! on_ip director link show eth1 | grep -q xdp || fail "a program is left on eth1"
    equal "descriptors" "$(descriptors)" "$quiet"
done

echo "an interface that is made anew, with an instance of VRRP"
instance=('[[vrrp_instance]]' 'name = "inside"' 'interface = "eth1"' 'virtual_router_id = 7'
    'version = 3' 'advert_int = 0.1' 'virtual_ipaddress = ["10.78.0.9/24"]')
both eth1
reload
on_ip director link delete eth1
plug_in
both eth1 "${instance[@]}"
reload
is_master() { on_ip director address show dev eth1 | grep -q 10.78.0.9; }
wait_until 3 "the new instance is master" is_master
wait_until 3 "the new real server answers" eval '[ "$(one_answer http://$VIP:81/)" = rs3 ]'
# Another instance comes, and the first stays what it is.
both eth1 "${instance[@]}" '[[vrrp_instance]]' 'name = "outside"' 'interface = "eth0"' \
    'virtual_router_id = 8' 'version = 3' 'advert_int = 0.1' 'virtual_ipaddress = ["10.77.0.9/24"]'
before=$(grep -c 'vrrp_instance inside:' "$LOG")
contains "what the reload says" "$(reload)" 'vrrp_instance outside added'
wait_until 3 "the second instance is master" eval \
    'on_ip director address show dev eth0 | grep -q 10.77.0.9'
equal "changes of the first instance" "$(grep -c 'vrrp_instance inside:' "$LOG")" "$before"

kill $kept
wait $kept || fail "a connection broke: $(<"$WORK/kept")"
tail -1 "$WORK/kept"
for worker in $(seq 0 $(($(ask workers length) - 1))); do
    equal "rx - tx - drops - waiting" "$(ask workers ".[$worker]
        | .rx_packets - .tx_packets - .dropped_packets - .waiting")" 0
done
equal "errors in the log" "$(grep -cE ' (ERROR|error)' "$LOG" || true)" 0

# The interface by which all sockets were opened first; what is deleted cannot be shared with.
first_anew() {
    on_ip director link delete eth0
    plug director eth0 director
    serves_anew
}
# By its index alone, what returns is what went: but its sockets are dead.
away_and_back() {
    local index
    index=$(index_of_eth0)
    on_ip director link set eth0 netns "${PREFIX}attic"
    on_ip attic link set eth0 netns "${PREFIX}director"
    equal "index of eth0" "$(index_of_eth0)" "$index"
    on_ip director link set eth0 up
    serves_anew
}
index_of_eth0() { on_ip director -j link show eth0 | jq '.[0].ifindex'; }
serves_anew() {
    addresses director eth0 $DIRECTOR/24 $DIRECTOR6/64
    default_route director 10.77.0.1 fd77::1
    contains "what the reload says" "$(reload)" 'interface eth0 added'
    wait_until 5 "eth0 serves again" one_answer http://$VIP/
    equal "answers by eth0" "$(names 50 http://$VIP/ | wc -l)" 50
}
echo "the first interface is made anew, beside another"
both eth1
reload
first_anew
equal "answers by eth1" "$(names 50 http://$VIP:81/ | served rs3)" 50
echo "the only interface is made anew"
first
reload
first_anew
first_anew
echo "an interface is made anew that no file names"
stop_director
sed -i '/^\[\[interface\]\]/,+1d' "$CONFIG"
start_director
first_anew
add_host attic
echo "an interface that no file names goes to another namespace and returns"
away_and_back
echo "the same of one that the file names"
first
reload
away_and_back
away_and_back
