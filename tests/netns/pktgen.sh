# pktgen on both sides of the director, one port of the switch being both: stickiness, distribution by weight,
# checksums and loss of every packet, for DR and NAT, by the same sink that users measure with.
source "$(dirname "$0")/lib.sh"
: "${PKTGEN:=$(dirname "$APPLIANCE")/pktgen}"
[ -x "$PKTGEN" ] || fail "no pktgen at '$PKTGEN': build it, or set PKTGEN"
make_network 3
config
virtual_server $VIP:53 UDP wrr
real_server 10.77.0.101:53 1
real_server 10.77.0.102:53 1
real_server 10.77.0.103:53 2
LB_KIND=NAT
virtual_server $VIP:54 UDP rr
real_server 10.77.0.101:5300 1
real_server 10.77.0.102:5300 1
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1
real_server 10.77.0.102:80 1
start_director

# mac HOST INTERFACE
mac() { on "$1" cat "/sys/class/net/$2/address"; }

# measure PORT FLOWS PACKETS-A-SECOND SINK-OPTIONS…: a second of it; leaves $sent and $received.
measure() {
    local port=$1 flows=$2 rate=$3
    shift 3
    : >"$WORK/sink.log" # or the one before would be found ready
    exec_on switch "$PKTGEN" sink --interface director --json "$@" >"$WORK/sink" 2>"$WORK/sink.log" &
    local sink=$!
    wait_until 10 "the sink is ready" grep -q ready "$WORK/sink.log"
    sent=$(on switch "$PKTGEN" tx --interface director --dst "$VIP:$port" --dst-mac "$(mac director eth0)" \
        --src 198.18.0.0/24 --flows "$flows" --rate "$rate" --duration 1s --json)
    sleep 0.3
    kill -INT $sink
    wait $sink
    received=$(<"$WORK/sink")
}

# found FILTER: of the sink's report.
found() { jq -r ".found | $1" <<<"$received"; }

# all_is_well FLOWS: every packet sent came, whole, and each flow to one server.
all_is_well() {
    local count=$(jq .sent <<<"$sent")
    between "packets sent" "$count" 200 2100
    equal "packets that came" "$(jq .received <<<"$received")" "$count"
    equal "looked at" "$(found .frames)" "$count"
    equal "flows" "$(found .flows)" "$1"
    for what in malformed bad_ip_checksums bad_l4_checksums silent_flows moved_flows moved_frames lost \
        duplicates reordered unfollowed; do
        equal "$what" "$(found ".$what")" 0
    done
    equal "spread as the weights want it" "$(found .spread.fits)" true
    between "median latency, ns" "$(found '.latency.p50 * 1000 | floor')" 500 100000000
}

echo "DR, weights 1:1:2"
measure 53 100 2k --mode dr --server "$(mac rs1 eth0)=1" --server "$(mac rs2 eth0)=1" --server "$(mac rs3 eth0)=2"
all_is_well 100
equal "flows of each server" "$(jq -r --arg a "$(mac rs3 eth0)" '.found.servers
    | [(.[] | select(.server != $a) | .flows), (.[] | select(.server == $a) | .flows)] | tostring' <<<"$received")" '[25,25,50]'

echo "NAT"
measure 54 40 2k --mode nat --server 10.77.0.101:5300=1 --server 10.77.0.102:5300=1
all_is_well 40
equal "servers" "$(found '.servers | map(.server) | tostring')" '["10.77.0.101:5300","10.77.0.102:5300"]'

echo "handshakes by NAT: pktgen is client and servers"
# One-arm NAT: real servers answer to the director, which their frames come from.
for number in 1 2; do
    exec_on rs$number "$PKTGEN" sink --interface eth0 --respond 80 --json >"$WORK/respond$number" 2>"$WORK/respond$number.log" &
    responders[number]=$!
    wait_until 10 "responder $number is ready" grep -q ready "$WORK/respond$number.log"
done
opened=$(on client "$PKTGEN" tx --interface eth0 --dst "$VIP:80" --handshakes --flows 100 --rate 200 --duration 1s --json)
count=$(jq .connections.opened <<<"$opened")
between "connections opened" "$count" 20 210
equal "answered and closed" "$(jq -c '.connections | [.answered, .closed, .refused]' <<<"$opened")" "[$count,$count,0]"
kill -INT "${responders[@]}"
wait "${responders[@]}"
# A SYN and a FIN of each connection; servers take turns.
equal "segments answered" "$(jq -s 'map(.answered) | add' "$WORK"/respond[12])" $((2 * count))
between "by the first" "$(jq .answered "$WORK/respond1")" $((count - 2)) $((count + 2))
equal "connections that the director counted" "$(ask services '.[2].connections_total')" "$count"

# What is not as it should be is said: a third server that gets nothing.
measure 54 40 2k --mode nat --server 10.77.0.101:5300 --server 10.77.0.102:5300 --server 10.77.0.103:5300
equal "a server that gets nothing" "$(found .spread.fits)" false
equal "drops" "$(ask drops 'map(.packets_total) | add')" 0
