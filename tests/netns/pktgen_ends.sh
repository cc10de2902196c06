# pktgen's two ends with nothing but a cable between them: what they say of what was sent and what came.
source "$(dirname "$0")/lib.sh"
needs ethtool
: "${PKTGEN:=$(dirname "$APPLIANCE")/pktgen}"
[ -x "$PKTGEN" ] || fail "no pktgen at '$PKTGEN': build it, or set PKTGEN"
add_host a
add_host b
cable a eth0 b eth0 2
on_ip a addr add 10.77.0.1/24 dev eth0
on_ip b addr add 10.77.0.2/24 dev eth0
on_ip a addr add fd77::1/64 dev eth0
on_ip b addr add fd77::2/64 dev eth0
# A veth without NAPI at its receiving end takes no frames made in the kernel.
on b ethtool -K eth0 gro off

# tx OPTIONS…: what it says on stderr is in $WORK/tx.log.
tx() {
    on a "$PKTGEN" tx --interface eth0 --dst 10.77.0.2:9 --src 198.18.0.0/16 --json "$@" 2>"$WORK/tx.log"
}

# start_sink OPTIONS…: $WORK/sink will have its report.
start_sink() {
    : >"$WORK/sink.log" # The one before was ready, too.
    exec_on b "$PKTGEN" sink --interface eth0 --json "$@" >"$WORK/sink" 2>"$WORK/sink.log" &
    SINK=$!
    wait_until 10 "the sink is ready" grep -q ready "$WORK/sink.log"
}

# received FILTER: of the sink's report.
received() { jq -r "$1" "$WORK/sink"; }

echo "an end that takes no frames made in the kernel gets them by AF_XDP, from each worker"
for workers in 1 2; do
    sent=$(tx --flows 100 --rate 2k --duration 1s --workers $workers)
    between "packets sent by $workers" "$(jq .sent <<<"$sent")" 200 2100
    equal "dropped" "$(jq .dropped <<<"$sent")" 0
    grep -q "AF_XDP instead" "$WORK/tx.log" || fail "it does not say that it sends by AF_XDP"
done

echo "a sink that starts in the middle of a run, and ends before it"
tx --flows 100 --rate 10k --duration 3s >/dev/null &
TX=$!
sleep 1
start_sink --duration 500ms
wait $SINK
wait $TX
between "packets received" "$(received .received)" 1000 6000
equal "missed" "$(received .missed)" 0

echo "frames that no interface takes"
python3 -c 'import struct, sys
sys.stdout.buffer.write(struct.pack("<IHHiIII IIII", 0xa1b2c3d4, 2, 4, 0, 0, 65535, 1, 0, 0, 5, 5) + b"hello")' >"$WORK/short.pcap"
on a "$PKTGEN" tx --interface eth0 --pcap "$WORK/short.pcap" --duration 200ms >/dev/null 2>"$WORK/tx.log"
grep -q "eth0 took none of the frames" "$WORK/tx.log" || fail "it does not say why: $(<"$WORK/tx.log")"

echo "several workers: their progress on a terminal, and the failure of one"
on a python3 -c 'import pty, sys; pty.spawn(sys.argv[1:])' "$PKTGEN" tx --interface eth0 --dst 10.77.0.2:9 \
    --flows 10 --rate 1k --duration 1500ms --workers 2 >"$WORK/terminal"
contains "the terminal" "$(tr '\r' '\n' <"$WORK/terminal")" '^1 s, [0-9]* packets, .* Mpps *$'
contains "the terminal" "$(tr '\r' '\n' <"$WORK/terminal")" '^sent [0-9]* packets'
begin=$(now)
# The third has no queue.
! tx --flows 10 --rate 1k --duration 20s --workers 3 --engine af-xdp || fail "a worker without a queue is no failure"
grep -q "a worker failed: .*queue" "$WORK/tx.log" || fail "it does not say why: $(<"$WORK/tx.log")"
between "ms until the failure is reported" $(($(now) - begin)) 0 5000

echo "what was sent is named in the report"
equal "a SYN flood" "$(tx --syn --duration 100ms | jq -r .protocol)" tcp
equal "handshakes" "$(tx --handshakes --rate 10 --duration 100ms | jq -r .protocol)" tcp
equal "a capture" "$(on a "$PKTGEN" tx --interface eth0 --pcap "$WORK/short.pcap" --duration 100ms --json \
    2>/dev/null | jq -c '[.protocol, .flows]')" '["",0]'

echo "what cannot be sent is the command line's fault, and nothing is sent"
on b ethtool -K eth0 gro on
counted() { on a cat /sys/class/net/eth0/statistics/tx_packets; }
tx --duration 100ms >/dev/null # the kernel knows the neighbour
before=$(counted)
for options in "--size 59" "--size 1515" "--src 10.0.0.0/8 --flows 20M" "--src 10.0.0.0/8 --flows 20M --workers 2" "--flows 2 --workers 3" "--syn --protocol udp" \
    "--src 198.18.0.1 --flows 70000" "--size 3000 --fragment 1488"; do
    status=0
    on a "$PKTGEN" tx --interface eth0 --dst 10.77.0.2:9 --duration 100ms $options 2>/dev/null || status=$?
    equal "status with $options" $status 2
done
between "packets sent" $(($(counted) - before)) 0 8

# Never one more: the program itself knows when it is over.
echo "frames made in the kernel are as many as --rate and --duration say, or fewer on a busy machine"
for load in "10 1s 10" "1k 1s 1000"; do
    read -r rate duration count <<<"$load"
    sent=$(tx --flows 10 --rate "$rate" --duration "$duration" --engine live-frames)
    between "packets in $duration at $rate" "$(jq .sent <<<"$sent")" $((count * 40 / 100)) "$count"
    between "packets per second" "$(jq '.mpps * 1e6 | round' <<<"$sent")" $((count * 40 / 100)) $((count * 101 / 100))
done

echo "of a packet in fragments the sink sees the first"
for destination in 10.77.0.2:9 "[fd77::2]:9"; do
    start_sink
    sent=$(on a "$PKTGEN" tx --interface eth0 --dst "$destination" --size 3000 --fragment 1448 --flows 10 --rate 900 \
        --duration 500ms --json)
    sleep 0.3
    kill -INT $SINK
    wait $SINK
    # Three each, and a packet may be cut short by the end.
    packets=$((($(jq .sent <<<"$sent") + 2) / 3))
    between "packets to $destination" $packets 50 151
    equal "first fragments" "$(received .received)" $packets
    equal "what is wrong with them" "$(received '.found | [.malformed, .bad_l4_checksums, .lost] | tostring')" "[0,0,0]"
done

echo "millions of flows, of which a few come"
start_sink
on a "$PKTGEN" tx --interface eth0 --dst 10.77.0.2:9 --src 10.0.0.0/8 --flows 16M --rate 10k --duration 1s --json >"$WORK/sent"
sleep 0.3
kill -INT $SINK
wait $SINK
equal "packets received" "$(received .received)" "$(jq .sent "$WORK/sent")"
equal "missed, lost, flows" "$(received '[.missed, .found.lost, .found.flows] | tostring')" "[0,0,$(jq .sent "$WORK/sent")]"
equal "flows that are missing" "$(received .found.silent_flows)" 0
