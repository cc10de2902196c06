# 802.1Q: a tagged packet for the VIP is balanced and keeps its tag. Raw
# sockets send and receive, so that no VLAN driver is needed.
source "$(dirname "$0")/lib.sh"
make_network 2
for port in "router segment" "switch router" "switch director" "director eth0" \
    "switch rs1" "switch rs2"; do
    # Otherwise a veth carries the tag beside the frame, where XDP cannot see it.
    on ${port% *} ethtool -K ${port#* } txvlan off rxvlan off >/dev/null 2>&1 ||
        on ${port% *} ethtool -K ${port#* } txvlan off >/dev/null
done
config
virtual_server $VIP:53 UDP rr
real_server 10.77.0.101:53 1
real_server 10.77.0.102:53 1
start_director

for number in 1 2; do
    exec_on rs$number python3 "$HERE/vlan.py" receive eth0 --seconds 4 >"$WORK/received$number" &
done
sleep 0.5
mac=$(on_ip director -json link show eth0 | jq -r '.[0].address')
on router python3 "$HERE/vlan.py" send segment --to-mac "$mac" --to $VIP --port 53 \
    --tag 42 --count 20
sleep 1
tagged=$(cat "$WORK"/received[12] | grep -c "^vlan 42 10.88.0.2 .* $VIP 53$" || true)
between "tagged packets at the real servers" "$tagged" 20 20
for number in 1 2; do
    between "of them at rs$number" "$(grep -c '^vlan 42 ' "$WORK/received$number")" 9 11
done
