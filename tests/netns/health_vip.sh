# Checks with through_vip take the way of clients' packets: by DR in IPv4 and IPv6, by TUN to the
# decapsulator, from a director that has the VIP itself. A server that lost the VIP, or its
# decapsulator, is found by them alone.
# alone: it measures when checks change their verdict.
source "$(dirname "$0")/lib.sh"
needs nginx dnsmasq
make_network 3
start_nginx 1 2 3
TUNNELLED=10.77.0.110
parameters=('delay_loop = 0.3' 'connect_timeout = 0.4' 'retry = 1' 'delay_before_retry = 0.1' 'warmup = 0')
config
virtual_server $VIP:80 TCP rr "${parameters[@]}"
for number in 1 2; do
    real_server 10.77.0.10$number:80 1 'TCP_CHECK = {}' \
        'HTTP_GET = { through_vip = true, url = { path = "/health", status_code = 200 } }'
done
virtual_server "[$VIP6]:80" TCP rr "${parameters[@]}"
real_server '[fd77::101]:80' 1 'TCP_CHECK = {}' 'HTTP_GET = { through_vip = true, url = { path = "/" } }'
LB_KIND=TUN virtual_server $TUNNELLED:80 TCP rr "${parameters[@]}"
real_server 10.77.0.103:80 1 'HTTP_GET = { url = { path = "/" } }' \
    'TCP_CHECK = { through_vip = true }'
virtual_server $VIP:53 UDP rr "${parameters[@]}"
real_server 10.77.0.102:53 1 'DNS_CHECK = { through_vip = true, name = "www.example.org", type = "A" }'
virtual_server "[$VIP6]:7" UDP rr "${parameters[@]}"
real_server '[fd77::101]:7' 1 'UDP_CHECK = { through_vip = true, payload = "70696e67", require_reply = "727331" }'
addresses rs3 lo $TUNNELLED/32
realserver 3 up >/dev/null
exec_on rs2 dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --user=root \
    --pid-file="$WORK/dnsmasq.pid" --bind-interfaces --listen-address=$VIP --except-interface=lo \
    --address=/www.example.org/192.0.2.1 2>"$WORK/dnsmasq.log" &
start_echo() { exec_on rs1 python3 "$HERE/udp_echo.py" rs1 $VIP6 7 & echo=$!; }
start_echo
echo healthy >"$WORK/rs1/health"

# state SERVER CHECK: of one check; the servers are 101, 102 and 103 of either IP version.
state() { ask health ".[] | select(.check == \"$2\" and (.real_server | test(\"$1\"))) | .state"; }
state_is() { [ "$(state "$1" "$2")" = "$3" ]; }
result() { ask health ".[] | select(.check == \"$2\" and (.real_server | test(\"$1\"))) | .last_result"; }
all_up() { [ "$(ask health '[.[] | select(.state == "up" and .last_result != null)] | length')" = 10 ]; }
wait_until 1 "nginx of rs3" on rs3 curl -sfo /dev/null http://10.77.0.103/
start_director
wait_until 5 "all checks have passed" all_up
contains "target" "$(result 0.101 HTTP_GET)" "^HTTP_GET $VIP:80 /health: status 200$"

# The worst: a try has just passed, two more run into their timeouts: 0.3 + 2 × 0.4 + 0.1 s, 10 % and
# 50 ms, and 1.7 s for asking five times on a busy machine.
begin=$(now)
on_ip rs2 address delete $VIP/32 dev lo
on_ip rs1 -6 address delete $VIP6/128 dev lo
realserver 3 down >/dev/null
wait_until 3 "rs2 is down by DR" state_is 0.102 HTTP_GET down
wait_until 3 "rs1 is down by DR with IPv6" state_is fd77::101 HTTP_GET down
wait_until 3 "rs3 is down by TUN" state_is 0.103 TCP_CHECK down
wait_until 3 "rs2 is down by DNS" state_is 0.102 DNS_CHECK down
wait_until 3 "rs1 is down by UDP with IPv6" state_is fd77::101 UDP_CHECK down
between "ms until all are down" $(($(now) - begin)) 300 3000
contains "reason of DR" "$(result 0.102 HTTP_GET)" "HTTP_GET $VIP:80 /health: connect: timed out"
contains "reason of DNS" "$(result 0.102 DNS_CHECK)" "DNS_CHECK $VIP:53 A www.example.org: no answer: timed out"
contains "reason of TUN" "$(result 0.103 TCP_CHECK)" "TCP_CHECK $TUNNELLED:80: connect: timed out"
for server in 0.102 fd77::101; do equal "plain check of $server" "$(state $server TCP_CHECK)" up; done
equal "plain check of 0.103" "$(state 0.103 HTTP_GET)" up
equal "rs1 by IPv4" "$(state 0.101 HTTP_GET)" up
equal "answers of rs1" "$(names 10 http://$VIP/ | served rs1)" 10

# Refused at once, wrong status, garbage: what plain checks tell apart.
rm "$WORK/rs1/health"
wait_until 3 "a wrong status" prints 'status 404, expected 200' result 0.101 HTTP_GET
stop_nginx 1
wait_until 3 "refused" prints 'HTTP_GET .*connect: connection refused' result 0.101 HTTP_GET

kill $echo
on_ip rs2 address add $VIP/32 dev lo
on_ip rs1 address add $VIP6/128 dev lo nodad
realserver 3 up >/dev/null
addresses rs3 lo $TUNNELLED/32 2>/dev/null || true
start_nginx 1
echo healthy >"$WORK/rs1/health"
# An ICMP error of the server tells that nobody has the port.
wait_until 3 "UDP is refused" prints "UDP_CHECK .*$VIP6.*:7: connection refused" result fd77::101 UDP_CHECK
start_echo
wait_until 3 "all are back" all_up
