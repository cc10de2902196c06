# What every scenario shares: a network out of namespaces, real servers with
# nginx, the director, and ways to wait and to assert.
#
#   client ── router ──┬── director         VIP 10.77.0.100, fd77::100
#   10.88.0.2          ├── rs1  10.77.0.101, fd77::101   (VIP on lo, silent)
#   fd88::2            ├── rs2  10.77.0.102, fd77::102
#          10.77.0.1 ──┘   …         `switch` is a bridge: one segment
#
# A scenario is a bash script that sources this file, builds what it needs and
# asserts. Any command that fails ends it (set -e). Its exit status is 0 for
# success, 77 for "cannot run here", and anything else for failure; whatever
# happens, everything that it made is removed.
#
# shellcheck shell=bash
set -euo pipefail
# A function that fails fails its caller, in $(…) too.
shopt -s inherit_errexit

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
VIP=10.77.0.100
VIP6=fd77::100
DIRECTOR=10.77.0.2
DIRECTOR6=fd77::2

# Scenarios may run beside each other, or beside somebody else's namespaces.
PREFIX="nt$$-"
WORK=$(mktemp -d "${TMPDIR:-/tmp}/netns-test.XXXXXX")
SOCKET=$WORK/socket
LOG=$WORK/director.log
CONFIG=$WORK/director.toml
DIRECTOR_PID=

# ---------------------------------------------------------------- outcome

# fail WHAT WENT WRONG
fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# skip WHY: this machine cannot run the scenario. In CI that is a failure.
skip() {
    [ "${CI:-}" != true ] || fail "cannot run here: $*"
    echo "$*"
    exit 77
}

# needs TOOL…
needs() {
    local tool
    [ "$(id -u)" = 0 ] || skip "not root"
    for tool in ip jq curl python3 "$@"; do
        command -v "$tool" >/dev/null || skip "$tool is not installed"
    done
    [ -x "$APPLIANCE" ] || fail "no appliance at '$APPLIANCE': build it, or set APPLIANCE"
}

clean_up() {
    local status=$? name pids
    set +e
    trap '' PIPE # Of `SCENARIO | head`, too, nothing is left.
    if [ $status != 0 ] && [ $status != 77 ] && [ -s "$LOG" ]; then
        echo "--- the director's log"
        tail -n 40 "$LOG"
        if [ -S "$SOCKET" ]; then
            echo "--- its drops and workers"
            timeout 5 "$APPLIANCE" show drops --socket "$SOCKET"
            timeout 5 "$APPLIANCE" show workers --socket "$SOCKET"
        fi
    fi
    # All of these namespaces are ours, and so is every process in them. That
    # background jobs are killed is no news.
    exec 2>/dev/null
    for name in $(ip netns list | awk -v p="$PREFIX" 'index($1, p) == 1 { print $1 }'); do
        pids=$(ip netns pids "$name")
        [ -z "$pids" ] || kill -9 $pids
        ip netns delete "$name"
    done
    wait
    ! mountpoint -q "$WORK/bpf" || umount -l "$WORK/bpf"
    rm -rf "$WORK"
    exit $status
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---------------------------------------------------------------- network

# on HOST COMMAND…: runs a command in a host's namespace.
on() {
    local host=$1
    shift
    ip netns exec "$PREFIX$host" "$@"
}

# exec_on HOST COMMAND…: for the background, where $! has to be the command itself.
exec_on() {
    local host=$1
    shift
    exec ip netns exec "$PREFIX$host" "$@"
}

# on_ip HOST ARGUMENTS…: ip(8) on a host.
on_ip() {
    local host=$1
    shift
    ip -n "$PREFIX$host" "$@"
}

# setting HOST NAME=VALUE…
setting() {
    local host=$1
    shift
    on "$host" sysctl -qw "$@"
}

add_host() {
    ip netns add "$PREFIX$1"
    on_ip "$1" link set lo up
    # Addresses are usable at once: no duplicate address detection.
    setting "$1" net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 \
        net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.dad_transmits=0
}

# cable HOST INTERFACE HOST INTERFACE [QUEUES]: a veth pair. Checksums are
# finished before sending: AF_XDP sees frames as they are.
cable() {
    local queues=${5:-1}
    ip link add "$2" netns "$PREFIX$1" numrxqueues "$queues" numtxqueues "$queues" type veth \
        peer name "$4" netns "$PREFIX$3" numrxqueues "$queues" numtxqueues "$queues"
    on "$1" ethtool -K "$2" tx off >/dev/null
    on "$3" ethtool -K "$4" tx off >/dev/null
    on_ip "$1" link set "$2" up
    on_ip "$3" link set "$4" up
}

# plug HOST INTERFACE PORT [QUEUES]: connects a host to the switch.
plug() {
    cable "$1" "$2" switch "$3" "${4:-1}"
    on_ip switch link set "$3" master bridge
}

# unplug HOST / replug HOST: pulls the cable at the switch, or puts it back.
unplug() { on_ip switch link set "$1" down; }
replug() { on_ip switch link set "$1" up; }

# addresses HOST INTERFACE ADDRESS/LENGTH…
addresses() {
    local host=$1 interface=$2 address
    shift 2
    for address in "$@"; do
        case $address in
        *:*) on_ip "$host" address add "$address" dev "$interface" nodad ;;
        *) on_ip "$host" address add "$address" dev "$interface" ;;
        esac
    done
}

# default_route HOST GATEWAY GATEWAY6
default_route() {
    on_ip "$1" route add default via "$2"
    on_ip "$1" -6 route add default via "$3"
}

# make_network SERVERS: the picture above. $DIRECTOR_QUEUES (1) and
# $DIRECTOR_INTERFACE (eth0) say what the director's interface is like.
make_network() {
    needs ethtool
    local host number
    for host in client router switch director; do
        add_host "$host"
    done
    on_ip switch link add bridge type bridge mcast_snooping 0
    on_ip switch link set bridge up

    cable client eth0 router client
    addresses client eth0 10.88.0.2/24 fd88::2/64
    addresses router client 10.88.0.1/24 fd88::1/64
    default_route client 10.88.0.1 fd88::1

    plug router segment router
    addresses router segment 10.77.0.1/24 fd77::1/64
    setting router net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
        net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.segment.rp_filter=0 \
        net.ipv4.conf.client.rp_filter=0

    plug director "${DIRECTOR_INTERFACE:=eth0}" director "${DIRECTOR_QUEUES:-1}"
    addresses director "$DIRECTOR_INTERFACE" $DIRECTOR/24 $DIRECTOR6/64
    default_route director 10.77.0.1 fd77::1

    for number in $(seq "$1"); do
        add_real_server "$number"
    done
}

# add_real_server NUMBER: VIP on lo, silent about it (arp_ignore, arp_announce).
add_real_server() {
    add_host "rs$1"
    setting "rs$1" net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 \
        net.ipv4.conf.default.arp_notify=1 net.ipv6.conf.default.ndisc_notify=1
    plug "rs$1" eth0 "rs$1"
    addresses "rs$1" eth0 "10.77.0.10$1/24" "fd77::10$1/64"
    addresses "rs$1" lo $VIP/32 $VIP6/128
    default_route "rs$1" 10.77.0.1 fd77::1
}

# ---------------------------------------------------------------- servers

# start_nginx NUMBER…: `/` answers the server's name, `/big` is $WORK/big,
# `/health` is a file that a scenario may remove, `/up/` stores what is PUT.
start_nginx() {
    command -v nginx >/dev/null || skip "nginx is not installed"
    local number directory
    for number in "$@"; do
        directory=$WORK/rs$number
        mkdir -p "$directory"
        ln -sfn "$WORK/big" "$directory/big"
        echo healthy >"$directory/health"
        cat >"$directory/nginx.conf" <<END
user root;
worker_processes 1;
daemon off;
pid $directory/pid;
error_log $directory/error.log;
events { worker_connections 2048; }
http {
    access_log off;
    keepalive_timeout 600;
    keepalive_requests 1000000;
    client_body_temp_path $directory/body;
    proxy_temp_path $directory/proxy;
    fastcgi_temp_path $directory/fastcgi;
    uwsgi_temp_path $directory/uwsgi;
    scgi_temp_path $directory/scgi;
    server {
        listen 80;
        listen [::]:80;
        root $directory;
        location = / { default_type text/plain; return 200 "rs$number\n"; }
        location /up/ { dav_methods PUT; create_full_put_path on; client_max_body_size 0; }
    }
}
END
        exec_on "rs$number" nginx -p "$directory" -c "$directory/nginx.conf" \
            -e "$directory/error.log" &
        echo $! >"$directory/nginx.pid"
        wait_until 5 "nginx of rs$number answers" \
            on "rs$number" curl -sfo "$WORK/answer" "http://10.77.0.10$number/"
    done
}

# stop_nginx NUMBER
stop_nginx() {
    local pid
    pid=$(<"$WORK/rs$1/nginx.pid")
    kill "$pid"
    wait "$pid" 2>/dev/null || true
}

# realserver NUMBER ACTION [OPTIONS]: `appliance realserver` on a real server, for $CONFIG as it is now.
realserver() {
    local number=$1 action=$2
    shift 2
    # The decapsulator stays attached by a file of this file system, beyond the command.
    mkdir -p "$WORK/bpf"
    mountpoint -q "$WORK/bpf" || mount -t bpf bpf "$WORK/bpf"
    mkdir -p "$WORK/bpf/rs$number"
    [ "$action" != up ] || set -- --bpffs "$WORK/bpf/rs$number" "$@"
    on "rs$number" "$APPLIANCE" realserver "$action" "$CONFIG" --state "$WORK/rs$number.json" "$@"
}

# ---------------------------------------------------------------- director

# start_director [OPTIONS]: with the configuration on stdin unless that is a
# terminal or empty; returns once it is ready.
start_director() {
    launch_director "$@"
    wait_until 20 "the director is ready" director_is_ready
}

director_is_ready() {
    kill -0 "$DIRECTOR_PID" 2>/dev/null || fail "the director stopped at its start"
    grep -qx ready "$LOG"
}

# launch_director [OPTIONS]: does not wait.
launch_director() {
    : >"$LOG"
    exec_on director "$APPLIANCE" run "$CONFIG" --socket "$SOCKET" "$@" 2>"$LOG" &
    DIRECTOR_PID=$!
}

# stop_director [SIGNAL]: its exit status.
stop_director() {
    kill "-${1:-TERM}" "$DIRECTOR_PID"
    local status=0
    wait "$DIRECTOR_PID" 2>/dev/null || status=$?
    DIRECTOR_PID=
    return $status
}

# show WHAT: JSON.
show() { "$APPLIANCE" show "$1" --json --socket "$SOCKET"; }

# ask WHAT FILTER: jq's raw answer about `show WHAT --json`.
ask() { show "$1" | jq -r "$2"; }

# server_state NUMBER [SERVICE]: health of a real server, by `show services`.
server_state() {
    ask services ".[${2:-0}].real_servers[]
        | select(.address | test(\"(10\\\\.77\\\\.0\\\\.|fd77::)10$1\\\\b\")) | .health"
}

# server_is NUMBER STATE
server_is() { [ "$(server_state "$1")" = "$2" ]; }

# config LINES…: starts the configuration file with these, and an [[interface]].
config() {
    printf '%s\n' "$@" '[[interface]]' "name = \"${DIRECTOR_INTERFACE:-eth0}\"" >"$CONFIG"
}

# virtual_server ADDRESS PROTOCOL ALGORITHM [LINES…], of the forwarding method $LB_KIND (DR)
virtual_server() {
    {
        printf '[[virtual_server]]\naddress = "%s"\nprotocol = "%s"\nlb_algo = "%s"\n' "$1" "$2" "$3"
        printf 'lb_kind = "%s"\n' "${LB_KIND:-DR}"
        shift 3
        printf '%s\n' "$@"
    } >>"$CONFIG"
}

# real_server ADDRESS WEIGHT [LINES…]
real_server() {
    {
        printf '[[virtual_server.real_server]]\naddress = "%s"\nweight = %s\n' "$1" "$2"
        shift 2
        printf '%s\n' "$@"
    } >>"$CONFIG"
}

# reload: applies the file as it is now.
reload() { "$APPLIANCE" reload --socket "$SOCKET"; }

# ---------------------------------------------------------------- client

# names COUNT URL: who answered COUNT requests, each on a new connection.
names() {
    on client curl -sS --max-time 60 --connect-timeout 10 -H 'Connection: close' "$2?[1-$1]"
}

# served NAME <names: how often a server answered.
served() { grep -cx "$1" || true; }

# one_answer URL: a single request that has to be answered soon.
one_answer() { on client curl -sgS --max-time 2 -H 'Connection: close' "$1"; }

# ---------------------------------------------------------------- waiting and asserting

# wait_until SECONDS WHAT COMMAND…: repeats the command until it succeeds. SECONDS are a quiet machine's: one that
# does other things as well gets three times as long. What has to be fast is measured, with `between`.
wait_until() {
    local seconds=$(($1 * 3)) what=$2 end
    shift 2
    end=$((SECONDS + seconds + 1))
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "not within $seconds s: $what"
        sleep 0.05
    done
}

# now: milliseconds.
now() { date +%s%3N; }

# equal WHAT FOUND EXPECTED
equal() { [ "$2" = "$3" ] || fail "$1: found '$2', expected '$3'"; }

# between WHAT FOUND LOW HIGH: whole numbers.
between() {
    [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] || fail "$1: found $2, expected $3 to $4"
    echo "$1: $2"
}

# contains WHAT TEXT PATTERN
contains() {
    grep -qE -- "$3" <<<"$2" || fail "$1: found '$2', expected something with '$3'"
}

# prints PATTERN COMMAND…: whether its output has that. (`COMMAND | grep -q` fails at times when it
# has: grep stops reading, and the command dies of SIGPIPE.)
prints() {
    local pattern=$1
    shift
    grep -qE -- "$pattern" <<<"$("$@")"
}

# refused STATUS PATTERN COMMAND…: on the director, it stops with that status
# and says why in one line on stderr. The line is printed.
refused() {
    local wanted=$1 pattern=$2 status=0 said
    shift 2
    said=$(on director timeout 20 "$@" 2>&1 >/dev/null) || status=$?
    equal "exit status of '$*' (it said: $said)" "$status" "$wanted"
    # Log lines of the start may precede it; the complaint itself is one line.
    equal "lines of the error '$said'" "$(grep -c '^appliance: ' <<<"$said")" 1
    said=$(grep '^appliance: ' <<<"$said")
    contains "error" "$said" "$pattern"
    echo "it said: $said"
}
