# Two thousand real servers that swallow what is sent to them, checked at the
# same time under the usual limit of 1024 open files: each has its verdict.
# alone: it takes all of a processor.
source "$(dirname "$0")/lib.sh"
make_network 1
on_ip router link add sink type bridge
on_ip router link set sink up
on_ip router address add 10.79.255.1/16 dev sink
config
for port in 8001 8002 8003 8004; do
    virtual_server $VIP:$port TCP rr 'delay_loop = 5' 'connect_timeout = 2' 'retry = 0' 'warmup = 0.5'
    for number in $(seq 0 499); do
        printf '[[virtual_server.real_server]]\naddress = "10.79.%s.%s:%s"\nTCP_CHECK = {}\n' \
            $((number / 250)) $((number % 250 + 1)) $port
    done >>"$CONFIG"
done
ulimit -Sn 1024
start_director
down() { ask health 'map(select(.state == "down")) | length'; }
all_down() { [ "$(down)" = 2000 ]; }
wait_until 10 "all are down" all_down
equal "checks that could not run" "$(grep -c 'could not run' "$LOG" || true)" 0
