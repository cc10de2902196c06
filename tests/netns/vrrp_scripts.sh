# vrrp_script and notify: a check that fails costs priority or is a fault, and
# scripts and a FIFO are told of each change in keepalived's words.
source "$(dirname "$0")/lib.sh"
needs ethtool
make_network 0
told=$WORK/told
cat >"$WORK/tell.sh" <<END
#!/bin/sh
echo "\$@" >>$told
END
chmod +x "$WORK/tell.sh"
touch "$WORK/healthy" "$told"
# enable_script_security would refuse a script in a directory that others can write to.
cat >"$CONFIG" <<END
[global_defs]
script_user = "root"
notify_fifo = "$WORK/fifo"
notify_fifo_script = ["/bin/sh", "-c", "cat <\$1 >$WORK/lines", "sh"]
[[interface]]
name = "eth0"
[[vrrp_script]]
name = "chk_file"
script = "/usr/bin/test -e $WORK/healthy"
interval = 0.1
fall = 2
weight = -30
[[vrrp_script]]
name = "chk_hard"
script = ["/usr/bin/test", "!", "-e", "$WORK/broken"]
interval = 0.1
[[vrrp_script]]
name = "chk_slow"
script = "/bin/sleep 60"
interval = 0.1
timeout = 0.2
weight = 5
init_fail = true
[[vrrp_script]]
name = "chk_absent"
script = "$WORK/absent"
[[track_file]]
name = "load"
file = "$WORK/load"
init_file = true
weight = -1
[[vrrp_track_process]]
name = "served"
process = ["sleep", "7777.$$"]
weight = 2
[[vrrp_instance]]
name = "VI_1"
interface = "eth0"
virtual_router_id = 51
version = 3
advert_int = 0.1
virtual_ipaddress = ["$VIP/24"]
track_script = ["chk_file", "chk_hard", "chk_slow", "chk_absent"]
track_file = ["load"]
track_process = ["served"]
notify_priority_changes = true
notify_master = "$WORK/tell.sh master"
notify = "$WORK/tell.sh any"
[[vrrp_sync_group]]
name = "VG_1"
group = ["VI_1"]
notify = "$WORK/tell.sh group"
notify_stop = "$WORK/tell.sh stop"
END
start_director
is_told() { grep -qx -- "$1" "$told"; }
priority() { ask vrrp '.instances[0].priority'; }
wait_until 2 "it is master" is_told 'any INSTANCE VI_1 MASTER 100'
wait_until 1 "the group is told" is_told 'group GROUP VG_1 MASTER 0'
wait_until 1 "notify_master has no arguments" is_told 'master'

echo "-- a check with a weight fails"
rm "$WORK/healthy"
wait_until 2 "the priority falls" eval '[ "$(priority)" = 70 ]'
equal "state" "$(ask vrrp '.instances[0].state')" MASTER
touch "$WORK/healthy"
wait_until 2 "the priority rises" eval '[ "$(priority)" = 100 ]'

echo "-- a number in a file, and a process"
equal "the file at first" "$(<"$WORK/load")" 0
echo 9 >"$WORK/load"
wait_until 2 "the number is taken off" eval '[ "$(priority)" = 91 ]'
sleep "7777.$$" &
sleeper=$!
wait_until 3 "the process is found" eval '[ "$(priority)" = 93 ]'
kill $sleeper
wait_until 2 "its end is noticed" eval '[ "$(priority)" = 91 ]'
rm "$WORK/load"
wait_until 2 "without the file it counts as 0" eval '[ "$(priority)" = 100 ]'

echo "-- a check without one fails"
touch "$WORK/broken"
wait_until 2 "it is at fault" is_told 'any INSTANCE VI_1 FAULT 100'
contains "why" "$(ask vrrp '.instances[0].faults[0]')" 'track_script chk_hard failed'
rm "$WORK/broken"
wait_until 2 "it is master again" eval '[ "$(ask vrrp ".instances[0].state")" = MASTER ]'

echo "-- the end"
stop_director TERM
is_told 'any INSTANCE VI_1 STOP 100' || fail "nobody was told of the end: $(<"$told")"
is_told 'stop' || fail "notify_stop was not run: $(<"$told")"
equal "the FIFO" "$(tr '\n' ',' <"$WORK/lines")" "$(printf '%s,' \
    'INSTANCE "VI_1" BACKUP 100' 'GROUP "VG_1" BACKUP 0' 'INSTANCE "VI_1" MASTER 100' 'GROUP "VG_1" MASTER 0' \
    'INSTANCE "VI_1" MASTER_PRIORITY 70' 'INSTANCE "VI_1" MASTER_PRIORITY 100' 'INSTANCE "VI_1" MASTER_PRIORITY 91' \
    'INSTANCE "VI_1" MASTER_PRIORITY 93' 'INSTANCE "VI_1" MASTER_PRIORITY 91' 'INSTANCE "VI_1" MASTER_PRIORITY 100' \
    'INSTANCE "VI_1" FAULT 100' 'GROUP "VG_1" FAULT 0' 'INSTANCE "VI_1" BACKUP 100' 'GROUP "VG_1" BACKUP 0' \
    'INSTANCE "VI_1" MASTER 100' 'GROUP "VG_1" MASTER 0' 'INSTANCE "VI_1" STOP 100' 'GROUP "VG_1" STOP 0')"
[ ! -e "$WORK/fifo" ] || fail "the FIFO was not removed"
equal "scripts that are left" "$(ip netns pids "${PREFIX}director")" ""
