# Weighted round robin over real HTTP requests: 1:1:2 within 5 %.
source "$(dirname "$0")/lib.sh"
make_network 3
start_nginx 1 2 3
config
virtual_server $VIP:80 TCP wrr
real_server 10.77.0.101:80 1
real_server 10.77.0.102:80 1
real_server 10.77.0.103:80 2
start_director

answers=$(names 400 http://$VIP/)
equal "answers" "$(wc -l <<<"$answers")" 400
between "rs1" "$(served rs1 <<<"$answers")" 95 105
between "rs2" "$(served rs2 <<<"$answers")" 95 105
between "rs3" "$(served rs3 <<<"$answers")" 190 210

# What it counted is what happened.
equal "connections that it counted" "$(ask services '.[0].connections_total')" 400
equal "packets it took and passed on or dropped" \
    "$(ask workers 'map(.rx_packets - .tx_packets - .dropped_packets - .waiting) | add')" 0
equal "drops" "$(ask drops 'map(.packets_total) | add')" 0
