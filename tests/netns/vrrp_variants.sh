# VRRP over IPv6 and to unicast peers, a sync group, a tracked interface, and
# advertisements that are refused.
# alone: timers of tenths of a second run on both sides.
source "$(dirname "$0")/vrrp.bash"
make_directors
# A second interface of the director, to be tracked.
cable director eth9 switch director9

cat >"$CONFIG" <<END
[[interface]]
name = "eth0"
[[vrrp_instance]]
name = "VI_1"
interface = "eth0"
virtual_router_id = 51
version = 3
advert_int = 0.1
priority = 100
virtual_ipaddress = ["fe80::51/64", "$VIP6/64"]
track_interface = ["eth9 weight -60"]
[[vrrp_instance]]
name = "VI_2"
interface = "eth0"
virtual_router_id = 52
version = 3
advert_int = 0.1
priority = 100
unicast_src_ip = "$DIRECTOR"
unicast_peer = ["$PEER min_ttl 64 max_ttl 64"]
unicast_ttl = 64
track_interface = ["eth9 weight -60"]
no_accept = true
virtual_ipaddress = ["$VIP/24"]
virtual_routes = ["10.99.0.0/16 via 10.77.0.1 src $VIP", "10.99.0.0/16 via $PEER table 99"]
virtual_rules = ["from $VIP to 10.99.0.0/16 table 99 priority 99"]
[[vrrp_instance]]
name = "VI_3"
interface = "eth0"
virtual_router_id = 53
authentication = { auth_type = "PASS", auth_pass = "1111" }
virtual_ipaddress = ["10.77.0.200/24"]
virtual_ipaddress_excluded = ["10.77.0.201/32", "fd77::201/128"]
[[vrrp_instance]]
name = "VI_4"
interface = "eth0"
virtual_router_id = 54
priority = 100
authentication = { auth_type = "AH", auth_pass = "1111" }
virtual_ipaddress = ["10.77.0.202/24"]
[[vrrp_instance]]
name = "VI_5"
interface = "eth0"
virtual_router_id = 55
use_vmac = true
version = 3
advert_int = 0.1
virtual_ipaddress = ["10.77.0.205/24"]
[[vrrp_instance]]
name = "VI_6"
interface = "eth0"
virtual_router_id = 56
advert_int = 10 # it waits for long before it is master
authentication = { auth_type = "AH", auth_pass = "1111" }
virtual_ipaddress = ["10.77.0.206/24"]
END
virtual_server 10.77.0.205:80 TCP rr
real_server 10.77.0.101:80 1
addresses rs1 lo 10.77.0.205/32
virtual_server "$VIP:80" TCP rr
real_server 10.77.0.101:80 1
virtual_server "[$VIP6]:80" TCP rr
real_server '[fd77::101]:80' 1

cat >"$WORK/peer.conf" <<END
global_defs {
    router_id peer
}
vrrp_instance VI_1 {
    interface eth0
    virtual_router_id 51
    version 3
    advert_int 0.1
    priority 50
    virtual_ipaddress {
        fe80::51/64
        $VIP6/64
    }
}
vrrp_instance VI_2 {
    interface eth0
    virtual_router_id 52
    version 3
    advert_int 0.1
    priority 50
    unicast_src_ip $PEER
    unicast_ttl 64
    unicast_peer {
        $DIRECTOR min_ttl 64 max_ttl 64
    }
    virtual_ipaddress {
        $VIP/24
    }
}
vrrp_instance VI_4 {
    interface eth0
    virtual_router_id 54
    state MASTER
    priority 150
    authentication {
        auth_type AH
        auth_pass 1111
    }
    virtual_ipaddress {
        10.77.0.202/24
    }
}
vrrp_instance VI_5 {
    interface eth0
    virtual_router_id 55
    use_vmac
    version 3
    advert_int 0.1
    priority 50
    virtual_ipaddress {
        10.77.0.205/24
    }
}
vrrp_instance VI_6 {
    interface eth0
    virtual_router_id 56
    state MASTER
    priority 150
    authentication {
        auth_type AH
        auth_pass 2222
    }
    virtual_ipaddress {
        10.77.0.206/24
    }
}
END
state_of() { ask vrrp ".instances[$1].state"; }
# refused_of_others: reasons for which any advertisement was refused, but those of the wrong password.
refused_of_others() { ask vrrp '[(.instances[] | select(.name != "VI_6")).refused[], .refused[]] | length'; }
both_on() { only "$1" $VIP && only "$1" $VIP6; }
# vmac_on HOST: it alone has the address, on its macvlan.
vmac_on() {
    local other=director
    [ "$1" = peer ] || other=peer
    prints 10.77.0.205 on_ip "$1" -o address show dev vrrp.55 &&
        ! prints 10.77.0.205 on_ip $other -o address show
}
# routing: our routes and rules, as far as an instance brings them.
routing() { on_ip director route show table all to root 10.99.0.0/16 | wc -l; on_ip director rule show priority 99 | wc -l; }
routing_is() { [ "$(routing | xargs)" = "$1" ]; }

start_keepalived peer
wait_until 3 "keepalived is master of both" both_on peer
start_director
wait_until 3 "we preempt both" both_on director
equal "who answers, IPv6" "$(one_answer "http://[$VIP6]/")" rs1
equal "who answers, IPv4" "$(one_answer http://$VIP/)" rs1
echo "-- no_accept: the VIP takes nothing but its virtual server's packets"
pinged() { on client ping -nc 1 -W 1 "$1" >/dev/null; }
pinged $VIP6 || fail "the VIP does not answer though it accepts"
! pinged $VIP || fail "the VIP answers in spite of no_accept"
contains "dropped by the program" "$(ask workers '[.. | objects | .denied? // empty] | add')" '^[1-9]'
contains "source of the IPv6 instance" "$(ask vrrp '.instances[0].source')" '^fe80::'
wait_until 1 "our routes and rules are there" routing_is "2 1"
contains "a route of ours" "$(on_ip director route get 10.99.0.1)" 'via 10.77.0.1 .* src 10.77.0.100'
contains "one by the rule" "$(on_ip director route get 10.99.0.1 from $VIP)" "via $PEER"
equal "refused" "$(refused_of_others)" 0

echo "-- another appliance on our interface does not start, and our routes and rules stay"
refused 1 eth0 "$APPLIANCE" run "$CONFIG" --socket "$WORK/other"
routing_is "2 1" || fail "another appliance changed routes: $(routing)"

echo "-- use_vmac: the address has a MAC address of its own, and keepalived hears what comes from it"
wait_until 3 "the address is on our macvlan" vmac_on director
equal "who answers behind the virtual MAC address" "$(one_answer http://10.77.0.205/)" rs1
pinged 10.77.0.205 || fail "the address on the macvlan does not answer"
contains "whom the router knows" "$(on_ip router neighbor show 10.77.0.205)" 00:00:5e:00:01:37

echo "-- authentication headers: we follow keepalived"
wait_until 5 "an advertisement is followed" eval '[ "$(ask vrrp .instances[3].master)" = $PEER ]'
equal "who has the address" "$(has_vip peer 10.77.0.202 && state_of 3)" BACKUP

echo "-- one with another password is refused"
wrong_header() { ask vrrp '[.instances[5].refused[] | select(.reason == "integrity") | .total] | add // 0'; }
wait_until 3 "it is counted" eval '[ "$(wrong_header)" -ge 2 ]'
equal "lines about it" "$(logged 'VI_6.*its authentication header')" 1

echo "-- a tracked interface that goes down takes 60 off the priority"
on_ip switch link set director9 down
wait_until 3 "keepalived preempts" both_on peer
equal "our priority" "$(ask vrrp '.instances[0].priority')" 40
vmac_on director || fail "an instance moved that does not track it"
on_ip switch link set director9 up
wait_until 3 "we preempt" both_on director

echo "-- keepalived becomes master when we die, we when it does; what we left is tidied up"
kill_director
routing_is "1 1" || fail "the kill changed routes: $(routing)"
wait_until 3 "keepalived is master of both" only peer $VIP
# The owner of an address does not wait, and keepalived yields if it takes our headers.
sed -i '/virtual_router_id = 54/,$s/^priority = 100/priority = 255/' "$CONFIG"
start_director
equal "lines about what was tidied up" "$(logged 'removed 2 routes and rules')" 1
wait_until 3 "we preempt both" both_on director
wait_until 3 "the macvlan is used again" vmac_on director
equal "lines about arp_ignore" "$(logged 'arp_ignore of eth0 is 0 again')" 1
wait_until 5 "keepalived yields to an authentication header" only director 10.77.0.202
equal "refused" "$(refused_of_others)" 0
stop_director TERM
routing_is "0 0" || fail "routes or rules are left: $(routing)"
wait_until 3 "keepalived is master of both" both_on peer
on_ip switch link set director9 down # priority 40
start_director
wait_until 3 "we follow it by IPv6" eval '[[ "$(ask vrrp .instances[0].master)" = fe80::* ]]'
wait_until 3 "and by unicast" eval '[ "$(ask vrrp .instances[1].master)" = $PEER ]'
stop_keepalived peer
wait_until 3 "we take both over" both_on director

echo "-- excluded addresses are held too"
wait_until 5 "the third instance is master" eval '[ "$(state_of 2)" = MASTER ]'
for address in 10.77.0.200 10.77.0.201 fd77::201; do
    wait_until 1 "we have $address" has_vip director $address
done

echo "-- what is refused is counted, and logged once"
for _ in 1 2 3; do
    on peer python3 "$HERE/vrrp_send.py" 53 2222 255 10.77.0.200
    on peer python3 "$HERE/vrrp_send.py" 53 1111 254 10.77.0.200
    on peer python3 "$HERE/vrrp_send.py" 99 1111 255 10.77.0.200
done
refused_total() {
    ask vrrp "[.instances[].refused[], .refused[] | select(.reason == \"$1\") | .total] | add // 0"
}
for reason in password ttl virtual_router_id; do
    wait_until 1 "$reason is counted" eval '[ "$(refused_total $reason)" = 3 ]'
done
equal "lines of the log about a password" "$(logged 'its password is not ours')" 1
equal "lines about a TTL" "$(logged 'its TTL is 254')" 1
equal "lines about a router id" "$(logged 'virtual_router_id 99 is not ours')" 1
equal "state" "$(state_of 2)" MASTER
contains "the table" "$("$APPLIANCE" show vrrp --socket "$SOCKET")" 'VI_3 +MASTER .* 10.77.0.201/32'
echo "-- other addresses are followed, and said"
on peer python3 "$HERE/vrrp_send.py" 53 1111 255 10.77.0.222
wait_until 1 "it is followed" eval '[ "$(state_of 2)" = BACKUP ]'
equal "lines about other addresses" "$(logged 'has other addresses (10.77.0.222)')" 1
stop_director TERM
left=$(on_ip director -o address show dev eth0 to 10.77.0.192/26)
equal "addresses that are left" "$left" ""
! prints vrrp on_ip director -o link show || fail "a macvlan is left"
equal "arp_ignore of the interface" "$(on director sysctl -n net.ipv4.conf.eth0.arp_ignore)" 0
