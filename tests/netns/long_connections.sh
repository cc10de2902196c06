# A 100 MB download and 200 keep-alive connections survive another real
# server's death, a changed MAC address, and a real server added by reload.
source "$(dirname "$0")/lib.sh"
make_network 3
head -c 100M /dev/urandom >"$WORK/big"
start_nginx 1 2 3
servers() {
    config
    virtual_server $VIP:80 TCP rr 'delay_loop = 1' 'connect_timeout = 1' 'retry = 0'
    local number
    for number in "$@"; do
        real_server "10.77.0.10$number:80" 1 'TCP_CHECK = {}'
    done
}
servers 1 2
start_director
wait_until 5 "both are up" eval 'server_is 1 up && server_is 2 up'

# So that everything that is still to come may be sent to rs1 only.
unplug rs2
wait_until 5 "rs2 is out" server_is 2 down

exec_on client python3 "$HERE/download.py" http://$VIP/big "$WORK/downloaded" "$WORK/go" &
download=$!
exec_on client python3 "$HERE/keep_alive.py" $VIP 80 --connections 200 >"$WORK/kept" &
kept=$!
wait_until 30 "200 connections are open" grep -q open "$WORK/kept"

replug rs2
wait_until 5 "rs2 is back" server_is 2 up
echo "another real server dies"
unplug rs2
wait_until 5 "rs2 is out" server_is 2 down

echo "the real server's MAC address changes"
sleep 1.1 # The kernel believes a neighbour's new address after a second (locktime).
on_ip rs1 link set eth0 address 02:77:00:00:00:99
wait_until 3 "the next hop has the new address" prints 02:77:00:00:00:99 ask neighbors '.[].mac'

echo "a real server is added"
servers 1 2 3
reload
wait_until 5 "rs3 is up" server_is 3 up
answers=$(names 40 http://$VIP/)
between "answers of the new one" "$(served rs3 <<<"$answers")" 18 22

touch "$WORK/go"
wait $download || fail "the download failed"
cmp "$WORK/big" "$WORK/downloaded" || fail "the download is damaged"
kill $kept 2>/dev/null || true
wait $kept || fail "a keep-alive connection broke: $(cat "$WORK/kept")"
cat "$WORK/kept"
