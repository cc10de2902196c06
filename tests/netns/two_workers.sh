# Two receive queues, two pinned workers: flows are spread over both, each
# connection stays with its worker, and the counters add up.
source "$(dirname "$0")/lib.sh"
[ "$(nproc)" -ge 2 ] || skip "this machine has one CPU"
DIRECTOR_QUEUES=2
make_network 2
start_nginx 1 2
cores=$(python3 -c 'import os; print(sorted(os.sched_getaffinity(0))[:2])')
config '[appliance]' "cores = $cores"
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1
real_server 10.77.0.102:80 1
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
