# `pktgen rfc2544` as one command: it builds the lab of a file, finds a rate, and leaves a report and nothing else.
# Trials are too short for the numbers to mean anything.
source "$(dirname "$0")/lib.sh"
: "${PKTGEN:=$(dirname "$APPLIANCE")/pktgen}"
[ -x "$PKTGEN" ] || fail "no pktgen at '$PKTGEN': build it, or set PKTGEN"
needs
configs=$HERE/../../configs

# exec_measure OPTIONS…: for the background, where $! has to be the command itself.
exec_measure() {
    exec "$PKTGEN" rfc2544 "$configs/udp-dns.toml" --appliance "$APPLIANCE" --trial 200ms --tolerance 20 --resolution 50 "$@"
}

(exec_measure --frames 64 --flows 10 --json --html "$WORK/report.html" >"$WORK/run.json")
equal "measured" "$(jq -c '[.measurements[] | [.frame, (.mpps > 0), (.latency | length)]]' "$WORK/run.json")" \
    '[[64,true,3]]'
equal "malformed, moved, twice" "$(jq '[.measurements[].latency[] | .bad + .moved_flows + .duplicates] | add' "$WORK/run.json")" 0
contains "the report" "$(<"$WORK/report.html")" '<h2>One-way latency</h2>'

# Ctrl-C keeps what was measured, and takes the lab down.
exec_measure --frames 64,1518 --flows 10 --json >"$WORK/some.json" 2>"$WORK/some.log" &
run=$!
wait_until 30 "the first result" grep -q '^1/2: ' "$WORK/some.log"
kill -INT $run
wait $run || fail "interrupted: $(<"$WORK/some.log")"
between "results of an interrupted run" "$(jq '.measurements | length' "$WORK/some.json")" 1 1
left=$(ip netns list | awk -v lab="lab-$run-" 'index($1, lab) == 1')
equal "namespaces left" "$left" ""

# What cannot be sent is known before anything is measured.
(exec_measure --frames 64,9000 --flows 10 2>&1) >"$WORK/long.log" && fail "9000 bytes were sent"
contains "frames that are too long" "$(<"$WORK/long.log")" '^pktgen: 9000 bytes, flows: 10: pktgen tx: '

# Two runs beside each other, without measuring.
compared=$("$PKTGEN" rfc2544 --from "$WORK/run.json" --compare "$WORK/some.json" --html "$WORK/report.html")
contains "the comparison" "$compared" 'before +change'
