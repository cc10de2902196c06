# FULLNAT: the real servers know nothing of the VIP, and their way to clients is not by the director. They see
# its local addresses, to which they reply; their checks stay in the kernel. They are told who the client
# is by TOA and by the PROXY protocol, and IPv6 clients reach IPv4 servers.
source "$(dirname "$0")/lib.sh"
make_network 2
head -c 10000000 /dev/urandom >"$WORK/big"
for number in 1 2; do
    on_ip rs$number address delete $VIP/32 dev lo
    on_ip rs$number address delete $VIP6/128 dev lo
done
start_nginx 1 2

# What rs1 knows of its clients: on 81 by their address, on 82 by the PROXY protocol.
mkdir "$WORK/told" "$WORK/told/up"
cat >"$WORK/told/conf" <<END
user root;
worker_processes 1;
daemon off;
pid $WORK/told/pid;
events {}
http {
    access_log off;
    client_max_body_size 0;
    client_body_temp_path $WORK/told/body;
    proxy_temp_path $WORK/told/proxy;
    fastcgi_temp_path $WORK/told/fastcgi;
    uwsgi_temp_path $WORK/told/uwsgi;
    scgi_temp_path $WORK/told/scgi;
    server {
        listen 81;
        listen [::]:81;
        location = / { return 200 "\$remote_addr\n"; }
        location = /big { alias $WORK/big; }
        location /up/ { root $WORK/told; dav_methods PUT; }
    }
    server {
        listen 82 proxy_protocol;
        listen [::]:82 proxy_protocol;
        location = / { return 200 "\$proxy_protocol_addr \$proxy_protocol_server_port\n"; }
        location = /big { alias $WORK/big; }
        location /up/ { root $WORK/told; dav_methods PUT; }
    }
}
END
exec_on rs1 nginx -p "$WORK/told" -c "$WORK/told/conf" -e "$WORK/told/error.log" &

LOCAL=10.77.0.201
LOCAL6=fd77::201
LOCALS="local_addresses = [\"$LOCAL\", \"$LOCAL6\"]"
config
LB_KIND=FULLNAT
virtual_server $VIP:8000 TCP rr "local_addresses = [\"$LOCAL\", \"10.77.0.202\"]"
for number in 1 2; do
    real_server 10.77.0.10$number:80 1 'TCP_CHECK = {}' 'delay_loop = 1'
done
virtual_server "[$VIP6]:8000" TCP rr "$LOCALS"
for number in 1 2; do
    real_server "[fd77::10$number]:80" 1 'TCP_CHECK = {}' 'delay_loop = 1'
done
virtual_server $VIP:8001 TCP rr "$LOCALS" 'client_address = "toa"'
real_server 10.77.0.101:81 1
virtual_server $VIP:8002 TCP rr "$LOCALS" 'client_address = "proxy"'
real_server 10.77.0.101:82 1
virtual_server "[$VIP6]:8002" TCP rr "$LOCALS" 'client_address = "proxy"'
real_server "[fd77::101]:82" 1
# From IPv6 to IPv4.
virtual_server "[$VIP6]:8003" TCP rr "$LOCALS"
real_server 10.77.0.101:81 1
virtual_server "[$VIP6]:8004" TCP rr "$LOCALS" 'client_address = "proxy"'
real_server 10.77.0.101:82 1
start_director
wait_until 5 "every check passes" eval \
    '[ "$(ask services "[.[:2][].real_servers[].health] | unique[]")" = up ]'
contains "addresses" "$(on_ip director -o address show eth0)" "$LOCAL/32"

for url in "http://$VIP:8000/" "http://[$VIP6]:8000/"; do
    answers=$(names 60 "$url")
    for number in 1 2; do
        between "rs$number at $url" "$(served rs$number <<<"$answers")" 30 30
    done
done

# What the server knows of the client.
equal "by its address" "$(one_answer http://$VIP:8001/)" $LOCAL
equal "PROXY" "$(one_answer http://$VIP:8002/)" "10.88.0.2 8002"
equal "PROXY, IPv6" "$(one_answer "http://[$VIP6]:8002/")" "fd88::2 8002"
equal "NAT64" "$(one_answer "http://[$VIP6]:8003/")" $LOCAL
equal "NAT64, PROXY" "$(one_answer "http://[$VIP6]:8004/")" "fd88::2 8004"

# Down and up, unharmed.
expected=$(sha256sum <"$WORK/big")
for url in "$VIP:8000" "[$VIP6]:8000" "$VIP:8001" "$VIP:8002" "[$VIP6]:8002" "[$VIP6]:8003" \
    "[$VIP6]:8004"; do
    equal "download from $url" "$(on client curl -sg --max-time 20 "http://$url/big" | sha256sum)" \
        "$expected"
done
for url in "$VIP:8001" "$VIP:8002" "[$VIP6]:8002" "[$VIP6]:8003" "[$VIP6]:8004"; do
    on client curl -sgf --max-time 20 -T "$WORK/big" "http://$url/up/file"
    equal "upload to $url" "$(sha256sum <"$WORK/told/up/file")" "$expected"
    rm "$WORK/told/up/file"
done

# A client behind a link that takes less learns so: the way to it, and its own.
on_ip router link set client mtu 1300
on_ip client link set eth0 mtu 1300
for url in "$VIP:8000" "$VIP:8002" "[$VIP6]:8003"; do
    equal "download behind a small MTU from $url" \
        "$(on client curl -sg --max-time 20 "http://$url/big" | sha256sum)" "$expected"
done

# The kernel's own connections to the same servers are not mistaken for the workers'.
equal "the director's own request" "$(on director curl -s --max-time 2 http://10.77.0.101/)" rs1

# A server that dies is replaced for new connections.
stop_nginx 2
wait_until 8 "rs2 is out" server_is 2 down
answers=$(names 20 "http://$VIP:8000/")
equal "answers of rs1" "$(served rs1 <<<"$answers")" 20

# At the end, the addresses go as they came.
stop_director
equal "addresses left" \
    "$(on_ip director -o address show eth0 | grep -cE "$LOCAL|$LOCAL6|$VIP/" || true)" 0
