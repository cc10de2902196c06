# What a worker finds to be no virtual server's goes back to the kernel: fragments
# to another port of the VIP, and what a NAT real server sends for itself from the
# port of its service. So does what is for a real server that is the director itself.
# Without /dev/net/tun that is dropped, and said. The
# interface goes with the appliance, also when that is killed.
source "$(dirname "$0")/lib.sh"
needs
make_network 1
# The real server is NAT's: its way out is the director, which routes, too.
setting director net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 \
    net.ipv4.conf.eth0.send_redirects=0 net.ipv6.conf.all.forwarding=1
on_ip rs1 address delete $VIP/32 dev lo
on_ip rs1 route replace default via $DIRECTOR
config
virtual_server $VIP:5300 UDP rr
sed -i 's/"DR"/"NAT"/' "$CONFIG"
real_server 10.77.0.101:5300 1
virtual_server $VIP:8000 TCP rr
sed -i 's/"DR"/"NAT"/' "$CONFIG"
real_server 10.77.0.101:8000 1
virtual_server "[$VIP6]:5300" UDP rr
real_server "[fd77::101]:5300" 1

# The director itself is a real server, by DR.
virtual_server $VIP:8080 TCP rr
real_server $DIRECTOR:8080 1 'TCP_CHECK = {}'
virtual_server "[$VIP6]:8080" TCP rr
real_server "[::1]:8080" 1 'TCP_CHECK = {}'

counted() { ask workers "map(.$1) | add"; }
taps() { on_ip director -oneline link show | grep -c ': appliance[0-9]' || true; }
ask_udp() { on client python3 "$HERE/udp_ask.py" "$@"; }
# The other end of a connection from the port of rs1's service.
own_connection() {
    on rs1 curl -sS --max-time 3 --local-port 8000 http://10.88.0.2:9000/name
}

# Whichever end closes first, port 8000 of rs1 is free for the next connection at once.
setting rs1 net.ipv4.tcp_max_tw_buckets=0
setting client net.ipv4.tcp_max_tw_buckets=0

mkdir "$WORK/client"
echo client >"$WORK/client/name"
exec_on client python3 -m http.server --directory "$WORK/client" 9000 >"$WORK/httpd" 2>&1 &
mkdir "$WORK/director"
echo director >"$WORK/director/name"
exec_on director python3 -m http.server --bind :: --directory "$WORK/director" 8080 >"$WORK/httpd2" 2>&1 &
exec_on rs1 python3 "$HERE/udp_echo.py" rs1 10.77.0.101 5300 $VIP6 5300 &
wait_until 5 "the client's own server answers" \
    on client curl -sfo "$WORK/answer" http://10.88.0.2:9000/name

start_director
equal "taps while running" "$(taps)" 1
exec_on director python3 "$HERE/udp_echo.py" director $VIP 7000 $VIP6 7000 &
echo=$!
for address in $VIP $VIP6; do
    wait_until 5 "the director's own server answers at $address" ask_udp $address 7000
    before=$(counted returned_to_kernel)
    equal "4000 bytes to another port of $address" \
        "$(ask_udp $address 7000 --size 4000)" director
    equal "later fragments given back" $(($(counted returned_to_kernel) - before)) 2
    equal "the virtual server itself" "$(ask_udp $address 5300 --size 4000)" rs1
done
before=$(counted returned_to_kernel)
equal "the real server's own connection" "$(own_connection)" client
between "its packets" $(($(counted returned_to_kernel) - before)) 4 20
for _ in {1..5}; do
    for address in $VIP "[$VIP6]"; do
        equal "the real server that is the director" "$(one_answer "http://$address:8080/name")" director
    done
done
equal "its connections" "$(ask services \
    'map(select(.address | endswith(":8080")) | .real_servers[0].connections_total) | add')" 10
for address in $DIRECTOR ::1; do
    equal "next hop of $address" "$(ask neighbors ".[] | select(.real_server == \"$address\") |
        .interface + \" \" + .state")" "appliance0 resolved"
done
equal "drops" "$(ask drops 'map(.packets_total) | add')" 0
equal "not taken" "$(ask workers 'map(.way_back.tx_invalid + .way_back.tx_dropped) | add')" 0
equal "rx + made - tx - waiting" "$(ask workers 'map(
    .rx_packets + .fragments_made - .tx_packets - .waiting) | add')" 0
kill $echo

status=0
stop_director KILL || status=$?
equal "exit status of a killed process" $status 137
equal "taps after SIGKILL" "$(taps)" 0
start_director
equal "the name after SIGKILL" "$(ask workers '.[0].way_back.interface')" appliance0
# Somebody deletes it.
on_ip director link delete appliance0
wait_until 3 "the log says that it is gone" grep -q 'WARN the way back to the kernel is gone' "$LOG"
equal "the way back that is gone" "$(ask workers '.[0].way_back')" null
stop_director || fail "exit status $?"
equal "taps after SIGTERM" "$(taps)" 0

# No /dev/net/tun: in a mount namespace of the process's own, as ip netns makes it one.
cat >"$WORK/without_tun" <<END
#!/bin/bash
mount -t tmpfs none /dev/net && exec "$APPLIANCE" "\$@"
END
chmod +x "$WORK/without_tun"
APPLIANCE=$WORK/without_tun launch_director
wait_until 20 "the director is ready without /dev/net/tun" director_is_ready
contains "log" "$(<"$LOG")" 'no way back to the kernel: .*open /dev/net/tun.*modprobe tun'
equal "the virtual server without a way back" "$(ask_udp $VIP 5300 --size 4000)" rs1
equal "way back" "$(ask workers '.[0].way_back')" null
own_connection >"$WORK/answer" 2>&1 && fail "the real server's own connection without a way back"
contains "curl" "$(<"$WORK/answer")" 'timed out'
between "drops" "$(ask drops '.[] | select(.reason == "no_virtual_server") | .packets_total')" 1 20
stop_director || fail "exit status $? without /dev/net/tun"
