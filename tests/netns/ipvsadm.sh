# The appliance started with no configuration and programmed by ipvsadm, as an
# LVS director is, and a watchdog script for one, unchanged.
source "$(dirname "$0")/lib.sh"
make_network 2
start_nginx 1 2

# Only what a system directory would have: the binary under another name.
mkdir "$WORK/sbin"
ln -s "$APPLIANCE" "$WORK/sbin/ipvsadm"
export APPLIANCE_SOCKET=$SOCKET
lvs() { on director env PATH="$WORK/sbin:$PATH" "$@"; }

status=0
said=$(lvs ipvsadm -Ln 2>&1) || status=$?
equal "status without an appliance" "$status" 2
contains "what it says" "$said" "^Can't initialize ipvs: no appliance answers"

: >"$LOG"
exec_on director "$APPLIANCE" run --socket "$SOCKET" 2>"$LOG" &
DIRECTOR_PID=$!
wait_until 20 "the director is ready" director_is_ready

# As on a director, the address is the administrator's.
addresses director eth0 $VIP/32
lvs ipvsadm -A -t $VIP:80 -s rr
lvs ipvsadm -a -t $VIP:80 -r 10.77.0.101:80 -g -w 1
lvs ipvsadm -a -t $VIP:80 -r 10.77.0.102 -g
answers=$(names 20 http://$VIP/)
equal "rs1" "$(served rs1 <<<"$answers")" 10
equal "rs2" "$(served rs2 <<<"$answers")" 10

listed=$(lvs ipvsadm -Ln)
contains "the listing" "$listed" '^TCP  10\.77\.0\.100:80 rr$'
for number in 1 2; do
    # A director in DR sees half of a connection's end: it stays a while.
    contains "the listing" "$listed" \
        "^  -> 10\.77\.0\.10$number:80 {15}Route   1      0          10        \$"
done
stats=$(lvs ipvsadm -Ln --stats)
contains "statistics" "$stats" '^TCP  10\.77\.0\.100:80 {14}       20 +[1-9][0-9]+        0 +[1-9][0-9]+        0$'
contains "connections" "$(lvs ipvsadm -Lnc)" \
    '^TCP 01:[0-9]{2}  FIN_WAIT    10\.88\.0\.2:[0-9]+ +10\.77\.0\.100:80 +10\.77\.0\.10[12]:80$'
rate_is_shown() { prints '^TCP  10\.77\.0\.100:80 +[1-9]' lvs ipvsadm -Ln --rate; }
wait_until 4 "a rate of connections" rate_is_shown
lvs ipvsadm -Z
contains "statistics after -Z" "$(lvs ipvsadm -Ln --stats)" \
    '^TCP  10\.77\.0\.100:80 {14}        0        0        0        0        0$'

# The watchdog takes a dead server out and a healthy one back in.
watchdog() { lvs "$HERE/monitor_lvs" $VIP 80 10.77.0.101 10.77.0.102; }
contains "the watchdog" "$(watchdog)" '^OK: 2 real servers, 20 connections$'
stop_nginx 2
contains "the watchdog" "$(watchdog)" '^removed 10\.77\.0\.102$'
answers=$(names 10 http://$VIP/)
equal "rs1 alone" "$(served rs1 <<<"$answers")" 10
start_nginx 2
contains "the watchdog" "$(watchdog)" '^added 10\.77\.0\.102$'
answers=$(names 10 http://$VIP/)
equal "rs2 again" "$(served rs2 <<<"$answers")" 5

# Weights change, and what was saved can be restored.
lvs ipvsadm -E -t $VIP:80 -s wrr
lvs ipvsadm -e -t $VIP:80 -r 10.77.0.101:80 -g -w 3
answers=$(names 40 http://$VIP/)
equal "rs1 at weight 3:1" "$(served rs1 <<<"$answers")" 30
saved=$(lvs ipvsadm -Sn)
lvs ipvsadm -C
equal "the table after -C" "$(lvs ipvsadm -Sn)" ""
status=0
one_answer http://$VIP/ >/dev/null 2>&1 || status=$?
[ "$status" != 0 ] || fail "a cleared virtual server still answers"
lvs ipvsadm -R <<<"$saved"
equal "the table after -R" "$(lvs ipvsadm -Sn)" "$saved"
answers=$(names 40 http://$VIP/)
equal "rs1 at weight 3:1, restored" "$(served rs1 <<<"$answers")" 30

# Every port of the address, and all of the client's connections to one server.
lvs ipvsadm -A -t $VIP:0 -s rr -p 30
lvs ipvsadm -a -t $VIP:0 -r 10.77.0.101 -g
lvs ipvsadm -a -t $VIP:0 -r 10.77.0.102 -g
lvs ipvsadm -D -t $VIP:80
answers=$(names 10 http://$VIP/)
server=$(head -1 <<<"$answers")
equal "answers of the client's server" "$(served "$server" <<<"$answers")" 10
listed=$(lvs ipvsadm -Ln --persistent-conn)
contains "the listing" "$listed" '^TCP  10\.77\.0\.100:0 rr persistent 30$'
contains "its server" "$listed" "^  -> 10\.77\.0\.10${server#rs}:0 {16}1         1 "
contains "its template" "$(lvs ipvsadm -Lnc)" \
    "^TCP 00:[0-9]{2}  NONE        10\.88\.0\.2:0 +10\.77\.0\.100:0 +10\.77\.0\.10${server#rs}:0\$"
# A weight of 0 does not send it elsewhere, a drain does.
lvs ipvsadm -e -t $VIP:0 -r "10.77.0.10${server#rs}" -g -w 0
answers=$(names 5 http://$VIP/)
equal "answers at weight 0" "$(served "$server" <<<"$answers")" 5
lvs ipvsadm -e -t $VIP:0 -r "10.77.0.10${server#rs}" -g -w 1
"$APPLIANCE" drain "10.77.0.10${server#rs}" --no-wait 2>/dev/null
answers=$(names 5 http://$VIP/)
equal "answers of the drained server" "$(served "$server" <<<"$answers")" 0
stop_director
