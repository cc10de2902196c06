# The status page, the metrics and the API over TCP; explain and top beside them: they agree.
source "$(dirname "$0")/lib.sh"
make_network 2
start_nginx 1 2
config '[appliance]' 'http = "127.0.0.1:9180"'
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1
real_server 10.77.0.102:80 1
start_director
names 20 http://$VIP/ >/dev/null

http() { on director curl -sS --max-time 5 "http://127.0.0.1:9180$1"; }
equal "healthz" "$(http /healthz)" ok
equal "real servers by HTTP" "$(http /api/v1/services | jq '.[0].real_servers | length')" 2
contains "the page" "$(http /)" "10\.77\.0\.102:80"
connections() {
    http /metrics | awk '/^appliance_real_server_connections_total\{/ { sum += $2 } END { print sum }'
}
equal "connections in the metrics" "$(connections)" 20
refused=$(on director curl -sS --max-time 5 -X POST http://127.0.0.1:9180/api/v1/reload)
contains "a change without a token" "$refused" "http_token_file is not set"

# A connection that stays: explain finds it where the director has it.
exec_on client bash -c "exec 3<>/dev/tcp/$VIP/80; echo >&3 -n GET; sleep 30" &
wait_until 3 "the connection" eval "[ \"\$(ask connections '[.[] | select(.state == \"ESTABLISHED\")] | length')\" -ge 1 ]"
read -r client server < <(ask connections '[.[] | select(.state == "ESTABLISHED")][0] | "\(.client) \(.real_server)"')
explained=$("$APPLIANCE" explain "$client" $VIP:80 --socket "$SOCKET" --json)
equal "the server of the connection" "$(jq -r .connection.real_server <<<"$explained")" "$server"
equal "is that certain" "$(jq -r .certain <<<"$explained")" true
contains "the next hop" "$(jq -r .next_hop.mac <<<"$explained")" "..:..:..:..:..:.."
contains "top" "$("$APPLIANCE" top --count 1 --interval 0.2 --socket "$SOCKET")" "2 of 2 up"
stop_director || fail "exit status $?"
