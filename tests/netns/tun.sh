# TUN: packets reach real servers inside IPIP, GRE and GUE, and are taken out
# by the decapsulator of `appliance realserver up`. Every MTU is 1500: uploads
# in full-size packets are told the tunnel's size by the director, and go on.
source "$(dirname "$0")/lib.sh"
make_network 2
head -c 10000000 /dev/urandom >"$WORK/big"
start_nginx 1 2
sums=$(sha256sum <"$WORK/big")
head -c 5000000 "$WORK/big" >"$WORK/upload"

xdp() { on_ip "$1" -d link show eth0 | grep -c 'prog/xdp'; }

icmp_sent() { ask workers '[.. | .icmp_sent? // empty] | add'; }

# tunnel LINES…: virtual servers of both IP versions.
tunnel() {
    local prefix=10.77.0.10
    config
    virtual_server $VIP:80 TCP rr "$@"
    real_server ${prefix}1:80 1
    real_server ${prefix}2:80 1
    virtual_server "[$VIP6]:80" TCP rr "$@"
    real_server '[fd77::101]:80' 1
    real_server '[fd77::102]:80' 1
    sed -i 's/"DR"/"TUN"/' "$CONFIG"
}

ask_for() {
    on client curl -sS --fail-early --connect-timeout 3 --max-time 20 --resolve "v4:80:$VIP" --resolve "v6:80:[$VIP6]" "$@"
}

# serves WHAT: small answers, a download, and uploads, by both IP versions.
serves() {
    local url number
    # By names, because curl's [1-10] and brackets of an address do not mix.
    for url in http://v4 http://v6; do
        ask_for -H 'Connection: close' "$url/?[1-10]" >"$WORK/names"
        for number in 1 2; do
            equal "$1: answers of rs$number at $url" "$(served "rs$number" <"$WORK/names")" 5
        done
        equal "$1: download from $url" \
            "$(ask_for "$url/big" | sha256sum)" "$sums"
        # The client learns the size anew.
        on_ip client route flush cache
        on_ip client -6 route flush cache
        ask_for -f -T "$WORK/upload" "$url/up/file"
        cmp "$WORK/upload" "$(ls -t "$WORK"/rs?/up/file | head -1)" || fail "$1: upload to $url"
        rm "$WORK"/rs?/up/file
    done
}

for kind in ipip gre gue; do
    case $kind in
    gue) tunnel 'tun_type = "gue"' 'tun_port = 5555' ;;
    *) tunnel "tun_type = \"$kind\"" ;;
    esac
    for number in 1 2; do
        realserver $number up >"$WORK/said"
        contains "up" "$(<"$WORK/said")" "^attached the decapsulator to eth0"
        equal "up again" "$(realserver $number up)" "nothing to do"
        realserver $number status >"$WORK/said"
        contains "status" "$(<"$WORK/said")" "^ok .*${kind^^} to 10.77.0.10$number.*the decapsulator on eth0"
        # Whoever attached it: no record names it here.
        by_others=("$CONFIG" --state "$WORK/none.json" --bpffs "$WORK/bpf/rs$number")
        on rs$number "$APPLIANCE" realserver status "${by_others[@]}" >/dev/null
        on rs$number "$APPLIANCE" realserver up "${by_others[@]}" >"$WORK/said"
        equal "up with another's decapsulator" "$(<"$WORK/said")" "nothing to do"
    done
    if [ $kind = ipip ]; then start_director; else reload >/dev/null; fi
    before=$(icmp_sent)
    serves $kind
    # By each IP version one at least, to a client that tried 1500 bytes.
    between "$kind: told that a packet is too big" $(($(icmp_sent) - before)) 2 100
done

# Behind the router, where DR cannot go; and IPv6 in IPv4.
add_host rs3
cable rs3 eth0 router far
addresses rs3 eth0 10.99.0.103/24 fd99::103/64
addresses router far 10.99.0.1/24 fd99::1/64
setting router net.ipv4.conf.far.rp_filter=0
default_route rs3 10.99.0.1 fd99::1
# Where start_nginx asks.
addresses rs3 lo 10.77.0.103/32
start_nginx 3
cp "$CONFIG" "$WORK/near"
config
for address in $VIP:80 "[$VIP6]:80"; do
    virtual_server "$address" TCP rr
    real_server 10.99.0.103:80 1
done
sed -i 's/"DR"/"TUN"/' "$CONFIG"
realserver 3 up >/dev/null
reload >/dev/null
for url in http://v4 http://v6; do
    equal "name of the far server at $url" "$(ask_for "$url/")" rs3
    equal "download of the far server at $url" "$(ask_for "$url/big" | sha256sum)" "$sums"
done
realserver 3 down >/dev/null
cp "$WORK/near" "$CONFIG"
reload >/dev/null

# Without it, status says so; down leaves no program.
rm "$WORK/bpf/rs1/appliance-decap-eth0"
status=0
realserver 1 status >"$WORK/said" 2>&1 || status=$?
equal "status without decapsulator" "$status" 1
contains "it" "$(grep ^wrong "$WORK/said")" 'GUE to 10.77.0.101, UDP port 5555: nothing here'
realserver 1 up >/dev/null
serves "gue again"
stop_director
for number in 1 2; do
    realserver $number down >/dev/null
    equal "programs left on rs$number" "$(xdp rs$number || true)" 0
    equal "files left of rs$number" "$(ls "$WORK/bpf/rs$number")" ""
done
