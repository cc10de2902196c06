# Prefixes are denied and allowed again by reloading, while the program stays
# attached; connections of others do not notice.
source "$(dirname "$0")/lib.sh"
needs ping
make_network 1
start_nginx 1
configure() {
    config "$@"
    virtual_server $VIP:80 TCP rr
    real_server 10.77.0.101:80 1
    virtual_server "[$VIP6]:80" TCP rr
    real_server "[fd77::101]:80" 1
}
# steering NAME: a counter of the director's interface.
steering() { ask workers ".[0].interfaces[0].steering.$1"; }
program() { on_ip director -d link show dev eth0 | grep -o 'prog/xdp id [0-9]*'; }
answer() { on client curl -sgS --max-time 0.5 -H 'Connection: close' "$1"; }
answered() { [ "$(answer "$1")" = rs1 ]; }
denied() { ! answer "$1" >/dev/null 2>&1; }

configure '[appliance]' 'deny = ["192.0.2.0/24"]'
start_director
answered http://$VIP/ || fail "the client is not denied yet"
before=$(program)

configure '[appliance]' 'deny = ["10.88.0.0/24", "fd88::/64"]'
contains "what the reload says" "$(reload)" 'appliance.deny: 10.88.0.0/24 added'
denied http://$VIP/ || fail "the client is served, although its prefix is denied"
denied "http://[$VIP6]/" || fail "the client is served by IPv6, although its prefix is denied"
! on client ping -q -c 1 -W 0.3 $DIRECTOR >/dev/null || fail "the director answers what is denied"
counted=$(steering denied)
[ "$counted" -ge 3 ] || fail "denied packets: $counted"
equal "denied packets of show drops" \
    "$(ask drops '.[] | select(.reason == "denied") | .packets_total')" "$counted"

configure '[appliance]' 'deny = ["10.88.0.0/24", "fd88::/64"]' 'allow = ["10.88.0.2"]'
reload
answered http://$VIP/ || fail "the client is allowed"
denied "http://[$VIP6]/" || fail "the client's IPv6 address is not allowed"

configure
reload
answered "http://[$VIP6]/" || fail "nothing is denied any more"
equal "the attached program" "$(program)" "$before"

status=0
configure '[appliance]' 'deny = ["10.77.0.0/16"]'
said=$(reload 2>&1) || status=$?
equal "status of a reload that would cut off the real server" "$status" 2
contains "what it says" "$said" 'real server 10\.77\.0\.101'

# What the switch floods to the director, for another host, is not the director's.
before=$(steering steered)
on_ip router neighbour replace $VIP lladdr 02:00:00:00:99:99 dev segment
ignored=$(steering not_for_us)
answered http://$VIP/ 2>/dev/null && fail "somebody answered for another host"
[ "$(steering not_for_us)" -gt "$ignored" ] || fail "the director did not see the flooded frames"
equal "packets steered meanwhile" "$(steering steered)" "$before"
