# What is no virtual server's goes to the director's kernel, untouched: TCP on
# another port of the director and of the VIP, UDP, ping, ARP, ND, fragments,
# and the director's own connections.
source "$(dirname "$0")/lib.sh"
needs ping
make_network 2
start_nginx 1 2
config
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1
real_server 10.77.0.102:80 1
virtual_server "[$VIP6]:80" TCP rr
real_server "[fd77::101]:80" 1
start_director

mkdir "$WORK/host"
echo director >"$WORK/host/name"
exec_on director python3 -m http.server --bind :: --directory "$WORK/host" 2222 >"$WORK/httpd" 2>&1 &
exec_on director python3 "$HERE/udp_echo.py" director $DIRECTOR 5300 $DIRECTOR6 5300 &
wait_until 5 "the director's own server answers" \
    on director curl -sfo "$WORK/answer" http://$DIRECTOR:2222/name

everything_works() {
    local address from
    for address in $DIRECTOR $VIP "[$DIRECTOR6]" "[$VIP6]"; do
        for from in client router rs1; do
            # A real server has the VIP itself.
            case $from,$address in rs1,$VIP | rs1,"[$VIP6]") continue ;; esac
            equal "TCP port 2222 of $address from $from" \
                "$(on $from curl -sgS --max-time 3 "http://$address:2222/name")" director
            on $from ping -q -c 2 -i 0.2 -W 2 "$(tr -d '[]' <<<"$address")" >"$WORK/ping" ||
                fail "ping $address from $from: $(cat "$WORK/ping")"
            # Fragments: more than the MTU.
            on $from ping -q -c 1 -W 2 -s 4000 "$(tr -d '[]' <<<"$address")" >"$WORK/ping" ||
                fail "fragmented ping $address from $from: $(cat "$WORK/ping")"
        done
    done
    for address in $DIRECTOR $DIRECTOR6; do
        equal "UDP port 5300 of $address" \
            "$(on client python3 "$HERE/udp_ask.py" $address 5300)" director
    done
    # From the very port and address that client packets are sent to.
    equal "the director's own request to a real server" \
        "$(on director curl -sS --max-time 3 http://10.77.0.101/)" rs1
    # A closed port is refused by the kernel, not swallowed.
    status=0
    on client curl -s --max-time 3 http://$VIP:81/ || status=$?
    equal "curl's status for a closed port of the VIP (7: refused)" $status 7
}
everything_works

echo "ARP and neighbour discovery"
for family in -4 -6; do
    on_ip router $family neighbour flush dev segment
    on_ip director $family neighbour flush dev eth0
done
everything_works

echo "while requests are balanced"
names 2000 http://$VIP/ >"$WORK/names" &
load=$!
everything_works
wait $load || fail "requests failed meanwhile"
equal "answers meanwhile" "$(served 'rs[12]' <"$WORK/names")" 2000
