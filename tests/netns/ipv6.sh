# The same over IPv6, beside an IPv4 virtual server.
source "$(dirname "$0")/lib.sh"
make_network 2
start_nginx 1 2
config
virtual_server "[$VIP6]:80" TCP rr
real_server "[fd77::101]:80" 1 'TCP_CHECK = {}'
real_server "[fd77::102]:80" 1 'TCP_CHECK = {}'
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1
real_server 10.77.0.102:80 1
start_director

for url in "http://[$VIP6]/" "http://$VIP/"; do
    answers=$(names 100 "$url")
    between "rs1 at $url" "$(served rs1 <<<"$answers")" 48 52
    between "rs2 at $url" "$(served rs2 <<<"$answers")" 48 52
done
equal "drops" "$(ask drops 'map(.packets_total) | add')" 0
