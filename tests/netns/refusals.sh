# A start that cannot succeed says why in one line, and leaves nothing.
source "$(dirname "$0")/lib.sh"
needs setpriv
make_network 1
config
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1
run=(on director "$APPLIANCE" run "$CONFIG" --socket "$SOCKET")

nothing_is_left() {
    equal "XDP programs" "$(on_ip director -details link show | grep -c 'prog/xdp' || true)" 0
    equal "virtual addresses" "$(on_ip director -oneline address show | grep -c "$VIP/" || true)" 0
}

echo "without rights"
fails_with 1 'root|CAP_NET_ADMIN' on director setpriv --bounding-set -all --inh-caps -all \
    "$APPLIANCE" run "$CONFIG" --socket "$SOCKET"
nothing_is_left

echo "absent interface"
sed 's/"eth0"/"eth7"/' "$CONFIG" >"$WORK/absent.toml"
fails_with 1 eth7 on director "$APPLIANCE" run "$WORK/absent.toml" --socket "$SOCKET"
nothing_is_left

echo "an interface that is down"
on_ip director link set eth0 down
fails_with 1 'eth0.*down' "${run[@]}"
on_ip director link set eth0 up
default_route director 10.77.0.1 fd77::1 2>/dev/null || true
nothing_is_left

echo "the VIP is another machine's"
addresses rs1 eth0 $VIP/24
fails_with 1 "$VIP.*in use" "${run[@]}"
on_ip rs1 address del $VIP/24 dev eth0
nothing_is_left

echo "a file that is not there"
status=0
"${run[@]/$CONFIG/$WORK/nothing.toml}" 2>"$WORK/said" || status=$?
equal "exit status" $status 2
contains "error" "$(cat "$WORK/said")" nothing.toml

echo "a second one on the same socket"
start_director
fails_with 1 "$SOCKET" "${run[@]}"
start_nginx 1
equal "the first one still works" "$(one_answer http://$VIP/)" rs1
