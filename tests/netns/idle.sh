# With nothing to do, the appliance takes less than 3 % of a CPU.
source "$(dirname "$0")/lib.sh"
make_network 2
start_nginx 1 2
config
virtual_server $VIP:80 TCP rr 'delay_loop = 1'
real_server 10.77.0.101:80 1 'TCP_CHECK = {}'
real_server 10.77.0.102:80 1 'TCP_CHECK = {}'
start_director
names 100 http://$VIP/ >"$WORK/names"

# utime + stime, in ticks
ticks() { sed 's/.*) //' "/proc/$DIRECTOR_PID/stat" | awk '{ print $12 + $13 }'; }
sleep 1
before=$(ticks)
sleep 10
used=$(($(ticks) - before))
between "‰ of a CPU while idle" $((used * 1000 / (10 * $(getconf CLK_TCK)))) 0 29
# And it wakes up.
equal "an answer" "$(names 1 http://$VIP/ | served 'rs[12]')" 1
