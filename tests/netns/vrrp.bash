# What the scenarios of VRRP share: a second director, `peer`, with the real
# keepalived, and a third, `third`, to have two keepaliveds side by side.
# Whoever has the VIP answers for it with its own name: peer and third by a
# server of their own, the director by rs1.
#
# shellcheck shell=bash
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PEER=10.77.0.3
declare -A KEEPALIVED

# make_directors [THIRD]: the network, rs1, and the other directors.
make_directors() {
    command -v keepalived >/dev/null || skip "keepalived is not installed"
    make_network 1
    start_nginx 1
    local number=3 host
    for host in peer "$@"; do
        add_host "$host"
        plug "$host" eth0 "$host"
        addresses "$host" eth0 "10.77.0.$number/24" "fd77::$number/64"
        default_route "$host" 10.77.0.1 fd77::1
        exec_on "$host" python3 "$HERE/vrrp_serve.py" "$host" &
        wait_until 5 "$host answers" on "$host" curl -sfo /dev/null "http://10.77.0.$number/"
        number=$((number + 1))
    done
}

# keepalived_conf HOST LINES…: its configuration; the lines are those of the instance.
keepalived_conf() {
    local host=$1
    shift
    {
        printf 'global_defs {\n router_id %s\n script_user root\n}\nvrrp_instance VI_1 {\n' "$host"
        printf ' interface eth0\n virtual_router_id 51\n'
        printf ' %s\n' "$@"
        printf '}\n'
    } >"$WORK/$host.conf"
}

# start_keepalived HOST
start_keepalived() {
    local host=$1
    exec_on "$host" keepalived --vrrp --dont-fork --log-console --log-detail --no-syslog \
        --use-file "$WORK/$host.conf" --pid "$WORK/$host.pid" --vrrp_pid "$WORK/$host.vrrp.pid" \
        >>"$WORK/$host.log" 2>&1 7>&- & # 7: `asked` waits until nobody has it open
    KEEPALIVED[$host]=$!
}

# stop_keepalived HOST
stop_keepalived() {
    kill -TERM "${KEEPALIVED[$1]}"
    wait "${KEEPALIVED[$1]}" 2>/dev/null || true
}

# kill_keepalived HOST: nothing is tidied up; then its addresses go, as they would with the machine.
# The child dies first: with its parent gone it is sent SIGTERM, and may find the time to say priority 0.
kill_keepalived() {
    local pids
    mapfile -t pids < <(pgrep -P "${KEEPALIVED[$1]}")
    kill -9 "${pids[@]}" "${KEEPALIVED[$1]}"
    on_ip "$1" address flush dev eth0 to $VIP
    wait "${KEEPALIVED[$1]}" 2>/dev/null || true
    rm -f "$WORK/$1.pid" "$WORK/$1.vrrp.pid"
}

# kill_director: the same for ours.
kill_director() {
    stop_director KILL || true
    on_ip director address flush dev eth0 to $VIP
}

# has_vip HOST [ADDRESS]
has_vip() { prints . on_ip "$1" -o address show dev eth0 to "${2:-$VIP}"; }

# only HOST [ADDRESS]: it has the VIP, no other director has.
only() {
    local host
    for host in director peer third; do
        prints "^$PREFIX$host\b" ip netns list || continue
        if [ "$host" = "$1" ]; then
            has_vip "$host" "${2:-$VIP}" || return 1
        elif has_vip "$host" "${2:-$VIP}"; then
            return 1
        fi
    done
}

# watch_vip: from now on it is noted when a director gets or loses the VIP.
watch_vip() {
    local host
    for host in director peer; do
        exec_on "$host" ip -oneline -tshort monitor address >"$WORK/$host.addresses" 7>&- &
    done
    sleep 0.1
}

# had_by_both: for how many milliseconds two directors had the VIP at the same time, at most.
had_by_both() {
    python3 "$HERE/vrrp_overlap.py" "$VIP" "$WORK/director.addresses" "$WORK/peer.addresses"
}

# vrrp_state: ours.
vrrp_state() { ask vrrp '.instances[0].state'; }
vrrp_is() { [ "$(vrrp_state)" = "$1" ]; }

# vrrp_config LINES…: the configuration with one instance, and a virtual server for its address.
vrrp_config() {
    config '[[vrrp_instance]]' 'name = "VI_1"' 'interface = "eth0"' 'virtual_router_id = 51' "$@"
    virtual_server "$VIP:80" TCP rr
    real_server 10.77.0.101:80 1
}


# logged PATTERN: how many lines of our log have it.
logged() { grep -c -- "$1" "$LOG" || true; }

# ask_for_vip: in the background, until `asked` is called, which leaves what it found in $ANSWERS.
ask_for_vip() {
    mkfifo "$WORK/stdin" 2>/dev/null || true
    : >"$WORK/asking"
    on client python3 "$HERE/vrrp_ask.py" "$VIP" <"$WORK/stdin" >"$WORK/asked" 2>"$WORK/asking" &
    ASKER=$!
    exec 7>"$WORK/stdin"
    wait_until 5 "the first answer" test -s "$WORK/asking"
}

asked() {
    sleep 0.3
    exec 7>&-
    wait "$ASKER"
    ANSWERS=$(<"$WORK/asked")
}

# gap FROM TO: milliseconds in which nobody answered when one followed the other.
gap() {
    jq --arg from "$1" --arg to "$2" \
        '[.changes[] | select(.from == $from and .to == $to) | .milliseconds] | max' <<<"$ANSWERS"
}
