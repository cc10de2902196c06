# A start that cannot succeed says why in one line, and leaves nothing.
source "$(dirname "$0")/lib.sh"
needs setpriv
make_network 1
config
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1
run=("$APPLIANCE" run "$CONFIG" --socket "$SOCKET")

nothing_is_left() {
    equal "XDP programs" "$(on_ip director -details link show | grep -c 'prog/xdp' || true)" 0
    equal "virtual addresses" "$(on_ip director -oneline address show | grep -c "$VIP/" || true)" 0
}

echo "without rights"
refused 1 'root|CAP_NET_ADMIN' setpriv --bounding-set -all --inh-caps -all \
    "$APPLIANCE" run "$CONFIG" --socket "$SOCKET"
nothing_is_left

echo "without one of the rights: it is named, and the verifier's log is not shown"
lacking=(setpriv --bounding-set -perfmon,-sys_admin "${run[@]}")
refused 1 CAP_PERFMON "${lacking[@]}"
equal "lines of the verifier" "$(on director "${lacking[@]}" 2>&1 | grep -ci verifier || true)" 0
nothing_is_left

echo "absent interface"
sed 's/"eth0"/"eth7"/' "$CONFIG" >"$WORK/absent.toml"
refused 1 eth7 "$APPLIANCE" run "$WORK/absent.toml" --socket "$SOCKET"
nothing_is_left

echo "the VIP is another machine's"
addresses rs1 eth0 $VIP/24
refused 1 "$VIP.*in use" "${run[@]}"
on_ip rs1 address del $VIP/24 dev eth0
nothing_is_left

echo "a file that is not there"
status=0
on director "${run[@]/$CONFIG/$WORK/nothing.toml}" 2>"$WORK/said" || status=$?
equal "exit status" $status 2
contains "error" "$(cat "$WORK/said")" nothing.toml

echo "a second one on the same socket"
start_director
refused 1 "$SOCKET" "${run[@]}"
start_nginx 1
equal "the first one still works" "$(one_answer http://$VIP/)" rs1
