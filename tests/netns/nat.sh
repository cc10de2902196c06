# NAT: the real servers know nothing of the VIP and answer by the director, whose port is another one than
# theirs. rs1 and rs2 are on the director's own segment, rs3 behind a second interface.
source "$(dirname "$0")/lib.sh"
make_network 2
head -c 5000000 /dev/urandom >"$WORK/big"
head -c 500000 "$WORK/big" >"$WORK/half"

# rs3 has a segment of its own, with another MTU.
add_host rs3
cable rs3 eth0 director eth1
on_ip rs3 link set eth0 mtu 1400
on_ip director link set eth1 mtu 1400
addresses rs3 eth0 10.78.0.103/24 fd78::103/64
addresses director eth1 10.78.0.2/24 fd78::2/64
default_route rs3 10.78.0.2 fd78::2
for number in 1 2; do
    on_ip rs$number address delete $VIP/32 dev lo
    on_ip rs$number address delete $VIP6/128 dev lo
    on_ip rs$number route replace default via $DIRECTOR
    on_ip rs$number -6 route replace default via $DIRECTOR6
done
start_nginx 1 2
# Its address is not what start_nginx asks.
addresses rs3 lo 10.77.0.103/32
start_nginx 3

config '[[interface]]' 'name = "eth1"'
LB_KIND=NAT
virtual_server $VIP:8000 TCP rr
for server in 10.77.0.101 10.77.0.102 10.78.0.103; do
    real_server $server:80 1 'TCP_CHECK = {}' 'delay_loop = 1'
done
virtual_server "[$VIP6]:8000" TCP rr
for server in fd77::101 fd77::102 fd78::103; do
    real_server "[$server]:80" 1 'TCP_CHECK = {}' 'delay_loop = 1'
done
# The same behind the SYN proxy, whose numbers are shifted on the way.
for vip in $VIP "[$VIP6]"; do
    virtual_server "$vip:8001" TCP rr 'syn_proxy = "always"'
    case $vip in
    $VIP) servers="10.77.0.101 10.77.0.102" ;;
    *) servers="[fd77::101] [fd77::102]" ;;
    esac
    for server in $servers; do
        real_server "$server:80" 1 'TCP_CHECK = {}' 'delay_loop = 1'
    done
done
start_director
# Checks come from the same servers and ports as replies, and stay in the kernel.
wait_until 5 "every check passes" eval \
    '[ "$(ask services "[.[].real_servers[].health] | unique[]")" = up ]'

for url in "http://$VIP:8000/" "http://[$VIP6]:8000/"; do
    answers=$(names 60 "$url")
    for number in 1 2 3; do
        between "rs$number at $url" "$(served rs$number <<<"$answers")" 19 21
    done
done

expected=$(sha256sum <"$WORK/big")
for url in "http://$VIP:8000/big" "http://[$VIP6]:8000/big"; do
    for number in 1 2 3; do
        # rs3's own packets are shorter than its segment's MTU; those for it are not, and curl is told.
        equal "download $number from $url" \
            "$(on client curl -sg --max-time 20 "$url" | sha256sum)" "$expected"
    done
done

for url in "http://$VIP:8001" "http://[$VIP6]:8001"; do
    answers=$(names 10 "$url/")
    between "rs1 at $url" "$(served rs1 <<<"$answers")" 4 6
    equal "download from $url" "$(on client curl -sg --max-time 20 "$url/big" | sha256sum)" "$expected"
    # More than the window of the SYN-ACK, while the server is being asked.
    equal "upload to $url" "$(on client curl -sg --max-time 20 -o /dev/null -w '%{http_code}' \
        --data-binary "@$WORK/half" "$url/")" 200
done
between "cookies accepted" "$(ask workers '[.[].syn_cookies_accepted] | add')" 24 40

# What the director itself asks of the same servers does not pass the workers.
equal "the director's own request" "$(on director curl -s --max-time 2 http://10.77.0.101/)" rs1
equal "by way of eth1" "$(on director curl -s --max-time 2 http://10.78.0.103/)" rs3

# The client's side closes, the server's side closes, and both are forgotten in time.
equal "established connections" \
    "$(ask connections '[.[] | select(.state == "ESTABLISHED")] | length')" 0
contains "states" "$(ask connections '[.[].state] | unique | join(" ")')" 'TIME_WAIT'
between "packets of replies" "$(ask services '[.[].reply_packets_total] | add')" 1000 10000000

echo "drops: $(ask drops -c 'map(select(.packets_total > 0)) | map({(.reason): .packets_total}) | add' | tr -d '\n')"
