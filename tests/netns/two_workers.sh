# Two receive queues, two pinned workers: flows are spread over both, each
# connection stays with its worker, and the counters add up. With NAT answers come by
# either queue, whichever their request came by, and reach the client nevertheless: the worker that gets them
# translates them, but for those that begin or end a connection.
source "$(dirname "$0")/lib.sh"
[ "$(nproc)" -ge 2 ] || skip "this machine has one CPU"
DIRECTOR_QUEUES=2
make_network 3
# A veth's queue follows the sender's hash, which changes with a retransmission. A network card's does not.
for host in client rs1 rs2 rs3; do setting $host net.core.txrehash=0; done
head -c 5000000 /dev/urandom >"$WORK/big"
# rs3 is for NAT: it answers by the director.
on_ip rs3 address delete $VIP/32 dev lo
on_ip rs3 route replace default via $DIRECTOR
start_nginx 1 2 3
cores=$(python3 -c 'import os; print(sorted(os.sched_getaffinity(0))[:2])')
with() {
    config '[appliance]' "$@"
    LB_KIND=DR virtual_server $VIP:80 TCP rr
    real_server 10.77.0.101:80 1
    real_server 10.77.0.102:80 1
    LB_KIND=NAT virtual_server $VIP:8000 TCP rr
    real_server 10.77.0.103:80 1
}
with "cores = $cores"
start_director

answers=$(names 1000 http://$VIP/)
equal "answers" "$(served 'rs[12]' <<<"$answers")" 1000
between "rs1" "$(served rs1 <<<"$answers")" 475 525
equal "workers" "$(ask workers length)" 2
equal "cores" "$(ask workers 'map(.core) | tostring')" "$(tr -d ' ' <<<"$cores")"
for worker in 0 1; do
    between "connections of worker $worker" \
        "$(ask workers ".[$worker].connections_created")" 200 800
    equal "rx - tx - drops - waiting of worker $worker" "$(ask workers ".[$worker]
        | .rx_packets - .tx_packets - .dropped_packets - .waiting")" 0
done
equal "connections of both" "$(ask workers 'map(.connections_created) | add')" 1000
equal "drops" "$(ask drops 'map(.packets_total) | add')" 0

# Of half of the connections answers come by the other worker's queue, about half of them by either: with SYN
# or FIN 100 packets for each, without as many or more.
equal "NAT" "$(names 200 http://$VIP:8000/ | served rs3)" 200
for counter in handed_off_rx replies_for_others; do
    between "workers with answers in $counter" \
        "$(ask workers "map(select(.$counter >= 50)) | length")" 2 2
done
handed=$(ask workers 'map(.handed_off_rx) | add')
for number in 1 2 3 4; do
    equal "download $number" \
        "$(on client curl -s --max-time 20 http://$VIP:8000/big | sha256sum)" "$(sha256sum <"$WORK/big")"
done
# Whichever queue their packets came by: SYN and FIN.
between "packets of the downloads that were handed over" \
    "$(($(ask workers 'map(.handed_off_rx) | add') - handed))" 0 100
equal "rx + handed_off_rx - tx - handed_off_tx - drops - waiting of either worker" "$(ask workers '[.[]
    | .rx_packets + .handed_off_rx - .tx_packets - .handed_off_tx - .dropped_packets - .waiting]
    | unique | tostring')" '[0]'
equal "handed over and taken" "$(ask workers 'map(.handed_off_tx - .handed_off_rx) | add')" 0
# When the machine is busy a server sends its FIN again, which is handed over and comes behind the last ACK, which is
# not: the client knows nothing of it any more. No socket sends that RST, so a veth gives it to any worker.
few_drops() {
    equal "drops" "$(ask drops 'map(select(.reason != "tcp_midstream").packets_total) | add')" 0
    between "drops of RST" "$(ask drops 'map(select(.reason == "tcp_midstream").packets_total) | add')" 0 5
}
few_drops

# Fewer threads, more threads, another way to idle: the same workers with the same connections.
kept=()
for port in 80 8000; do
    exec_on client python3 "$HERE/keep_alive.py" $VIP $port --connections 20 >"$WORK/kept$port" &
    kept+=($!)
    wait_until 10 "20 connections to port $port are open" grep -q open "$WORK/kept$port"
done
first=$(jq '.[0]' <<<"$cores")
second=$(jq '.[1]' <<<"$cores")
threads() { cat /proc/"$DIRECTOR_PID"/task/*/comm | grep -c '^worker-'; }
for change in "[$second] $second,$second" "[$first] $first,$first" "[$second,$first] $second,$first"; do
    read -r list expected <<<"$change"
    with "cores = $list" 'idle = "interrupt"' "http = \"127.0.0.1:91${list:1:1}0\""
    contains "what the reload says" "$(reload)" 'cores changed'
    equal "cores" "$(ask workers 'map(.core) | join(",")')" "$expected"
    equal "threads" "$(threads)" "$(jq length <<<"$list")"
    equal "the page" "$(on director curl -s "http://127.0.0.1:91${list:1:1}0/healthz")" ok
    for port in 80 8000; do
        equal "answers of port $port" "$(names 50 http://$VIP:$port/ | served 'rs[123]')" 50
    done
done
with "cores = $cores" 'workers = 3'
status=0
said=$(reload 2>&1) || status=$?
equal "status of a reload that is refused" "$status" 2
contains "what it says" "$said" 'appliance.workers: found 3, and the appliance was started with 2: restart'
kill "${kept[@]}"
for port in 80 8000; do
    wait "${kept[0]}" || fail "a connection broke: $(<"$WORK/kept$port")"
    kept=("${kept[@]:1}")
    tail -1 "$WORK/kept$port"
done
few_drops
