# A real server of DR is set up by `appliance realserver`: it serves, its
# status finds whatever is undone by hand, and `down` leaves no trace. Then the
# same by the script.
source "$(dirname "$0")/lib.sh"
make_network 2
on_ip rs1 address del $VIP/32 dev lo
on_ip rs1 address del $VIP6/128 dev lo
setting rs1 net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.all.arp_announce=0
start_nginx 1 2
config
virtual_server $VIP:80 TCP rr
real_server 10.77.0.101:80 1
real_server 10.77.0.102:80 1
virtual_server "[$VIP6]:80" TCP rr
real_server '[fd77::101]:80' 1
real_server '[fd77::102]:80' 1

realserver() {
    local host=$1 action=$2
    shift 2
    on "$host" "$APPLIANCE" realserver "$action" "$CONFIG" --state "$WORK/$host.json" "$@"
}
# What a host has that the command may change.
traces() {
    on_ip "$1" -o address show
    on "$1" sysctl -a 2>/dev/null | grep -E 'arp_(ignore|announce)|rp_filter'
    ls "$WORK" | grep "^$1\.json" || true
}
# status_says HOST PATTERN: that alone is wrong.
status_says() {
    local said status=0
    said=$(realserver "$1" status 2>"$WORK/stderr") || status=$?
    equal "status of $1, which says $said" "$status" 1
    equal "faults, of $said" "$(grep -c ^wrong <<<"$said")" 1
    contains "the fault" "$(grep ^wrong <<<"$said")" "$2"
}

# rs2 was set up by hand, as are those of every other scenario.
contains "addresses of rs2" "$(on_ip rs2 address show dev lo)" $VIP
realserver rs2 status >/dev/null

before=$(traces rs1)
status=0
realserver rs1 status >"$WORK/said" 2>&1 || status=$?
equal "status before" "$status" 1
equal "faults before" "$(grep -c ^wrong "$WORK/said")" 4
realserver rs1 up >"$WORK/said"
contains "up" "$(<"$WORK/said")" "^added $VIP/32 to lo"
contains "up" "$(<"$WORK/said")" '^set all arp_ignore to 1, was 0'
equal "up again" "$(realserver rs1 up)" "nothing to do"
realserver rs1 status >/dev/null

start_director
both() {
    names 10 "http://$VIP/" >"$WORK/names"
    equal "answers of rs1" "$(served rs1 <"$WORK/names")" 5
    # By a name, because curl's [1-10] and brackets of an address do not mix.
    on client curl -sS --max-time 30 -H 'Connection: close' --resolve "v6:80:[$VIP6]" \
        'http://v6/?[1-10]' >"$WORK/names"
    equal "answers of rs1 by IPv6" "$(served rs1 <"$WORK/names")" 5
}
both

# Each thing undone alone.
setting rs1 net.ipv4.conf.all.arp_ignore=0
status_says rs1 'answers ARP .*arp_ignore is 0'
setting rs1 net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=0
status_says rs1 'arp_announce is 0'
setting rs1 net.ipv4.conf.all.arp_announce=2
on_ip rs1 address del $VIP/32 dev lo
status_says rs1 "$VIP is not on this host"
on_ip rs1 address add $VIP/24 dev lo
status_says rs1 "$VIP/24 on lo"
on_ip rs1 address del $VIP/24 dev lo
on_ip rs1 address add $VIP/32 dev eth0
status_says rs1 "$VIP is on eth0, which answers ARP"
on_ip rs1 address del $VIP/32 dev eth0
on_ip rs1 address add $VIP/32 dev lo
on_ip rs1 address del $VIP6/128 dev lo
status_says rs1 "$VIP6 is not on this host"
realserver rs1 up >/dev/null
setting rs1 net.ipv4.conf.eth0.rp_filter=1
realserver rs1 status >/dev/null
on_ip rs1 route del default
status_says rs1 'rp_filter is strict'
contains "up" "$(realserver rs1 up)" '^set eth0 rp_filter to 2, was 1'
on_ip rs1 route add default via 10.77.0.1
realserver rs1 status >/dev/null
both

# It goes, and leaves nothing.
realserver rs1 down >/dev/null
setting rs1 net.ipv4.conf.eth0.rp_filter=0
diff <(echo "$before") <(traces rs1) || fail "down left something"
equal "down again" "$(realserver rs1 down)" "nothing to take back"

# The script.
realserver_script() {
    on rs1 "$APPLIANCE" realserver script "$CONFIG" >"$WORK/script"
    on rs1 env MADE="$WORK/made" sh "$WORK/script" "$1"
}
realserver_script up
realserver_script up
realserver rs1 status >/dev/null
both
realserver_script down
diff <(echo "$before") <(traces rs1) || fail "the script's down left something"

# NAT: the default route has to lead to the director.
sed -i 's/"DR"/"NAT"/' "$CONFIG"
status=0
realserver rs1 up >"$WORK/said" 2>&1 || status=$?
equal "status with NAT" "$status" 1
contains "NAT" "$(<"$WORK/said")" '^wrong .* leave by 10.77.0.1, which is no director'
realserver rs1 up --gateway 10.77.0.1 --gateway fd77::1 >/dev/null
# Or a route that only its replies take.
for family in "-4 10.77.0.101 $DIRECTOR" "-6 fd77::101 $DIRECTOR6"; do
    read -r family server director <<<"$family"
    on_ip rs1 "$family" rule add from "$server" lookup 100
    on_ip rs1 "$family" route add default via "$director" table 100
done
realserver rs1 status --gateway $DIRECTOR --gateway $DIRECTOR6 >/dev/null

# One that comes to nothing half-way says what it did, and how to undo it: here a decapsulator has no place to be kept.
sed 's/"NAT"/"TUN"/' "$CONFIG" >"$WORK/tun.toml"
traces rs1 >"$WORK/before"
status=0
on rs1 "$APPLIANCE" realserver up "$WORK/tun.toml" --state "$WORK/rs1.json" --bpffs "$WORK" >"$WORK/said" 2>"$WORK/stderr" || status=$?
equal "status of half an up" "$status" 1
contains "what half an up did" "$(<"$WORK/said")" '^set all arp_ignore to 1, was 0'
contains "how to undo it" "$(<"$WORK/stderr")" 'BPF file system.*`appliance realserver down` takes back what was done'
contains "down" "$(realserver rs1 down)" '^set all arp_ignore back to 0'
diff "$WORK/before" <(traces rs1) || fail "down left something of half an up"

# Where it is no real server.
refused 2 'no address of this host is a real_server .*10.77.0.101' \
    "$APPLIANCE" realserver status "$CONFIG"
refused 2 'address 10.77.0.9: no real_server' \
    "$APPLIANCE" realserver status "$CONFIG" --address 10.77.0.9
stop_director
