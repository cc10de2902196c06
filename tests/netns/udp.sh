# UDP: each datagram of a new socket is scheduled, those of one socket stay.
source "$(dirname "$0")/lib.sh"
make_network 2
for number in 1 2; do
    exec_on rs$number python3 "$HERE/udp_echo.py" "rs$number" $VIP 53 $VIP6 53 &
done
config
virtual_server $VIP:53 UDP rr
real_server 10.77.0.101:53 1
real_server 10.77.0.102:53 1
virtual_server "[$VIP6]:53" UDP rr
real_server "[fd77::101]:53" 1
real_server "[fd77::102]:53" 1
start_director

for vip in $VIP $VIP6; do
    answers=$(on client python3 "$HERE/udp_ask.py" $vip 53 --sockets 100)
    between "rs1 at $vip" "$(served rs1 <<<"$answers")" 48 52
    between "rs2 at $vip" "$(served rs2 <<<"$answers")" 48 52
    answers=$(on client python3 "$HERE/udp_ask.py" $vip 53 --sockets 1 --datagrams 100)
    equal "answers to one socket of $vip" "$(wc -l <<<"$answers")" 100
    equal "servers of one socket of $vip" "$(sort -u <<<"$answers" | wc -l)" 1
done
equal "drops" "$(ask drops 'map(.packets_total) | add')" 0
