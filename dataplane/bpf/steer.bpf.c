// Which packets are the director's.
//
// Runs on every packet an interface receives. What belongs to a virtual server
// goes to the AF_XDP socket of its receive queue; every other packet (ARP, ND,
// ssh, ping, health checks, …) goes on into the kernel as if this program were
// not there. In this order:
//
//   1. A frame to a group, or to the MAC address of another host (a switch that
//      floods, a promiscuous interface), is none of our business: the other
//      director of a VRRP pair must not forward what is sent to the first.
//   2. A packet from a denied prefix is dropped.
//   3. Packets to a service: its address, port and protocol.
//   4. Packets to an address of a pool, which real servers of FULLNAT answer to.
//   5. Packets from a real server of NAT, unless they are for this host: the
//      answers to health checks come from the very same address and port.
//   6. Packets to an address that refuses what is no service's are dropped.
//   7. ICMP errors about a packet that a service sent to a client, that we sent
//      to a real server of NAT, or that we sent from a pool or into a tunnel.
//
// A later fragment carries no port. It goes to the workers when any service, or
// any real server, has its address and protocol: only they, who saw the first
// fragment, know better, and hand back to the kernel what is not theirs. A NIC
// that takes ports into its hash spreads the fragments of a datagram over its
// queues, and a packet can only be redirected to a socket of the queue that it
// came by: so first and later fragments may reach different workers, who have
// to find each other.
//
// Under up to two VLAN tags, IPv4 options and a few IPv6 extension headers. A
// packet that is too short or too nested to tell passes to the kernel.

#include "xdp.h"

// Most IPv6 extension headers that are walked over.
enum { EXTENSIONS = 4 };
// Most MAC addresses that an interface answers to.
enum { OWN_MACS = 4 };

// What an entry of `services` or `returns` is for: bits.
enum { PACKETS = 1, LATER_FRAGMENTS = 2 };

// What an address of this host is.
enum { HOST = 1, POOL = 2, REFUSED = 3 };

// Words of a set of virtual routers: 256 of IPv4, then 256 of IPv6.
enum { ROUTER_WORDS = 8 };

// What is done with packets from a prefix; the longest prefix decides.
enum { DENY = 1, ALLOW = 2 };

struct prefix_ipv4 {
	u32 length; // in bits
	u32 address; // network byte order
};

struct prefix_ipv6 {
	u32 length; // in bits
	struct address address;
};

struct counters {
	u64 steered;    // given to a socket
	u64 passed;     // no service's
	u64 no_socket;  // a service's, but its queue has no socket: passed to the kernel
	u64 not_for_us; // to another host or to a group: passed to the kernel
	u64 denied;     // from a denied prefix, or to an address that refuses it: dropped
};

struct own_macs {
	u64 macs[OWN_MACS]; // the first byte on the wire is the lowest; 0: no more
	u64 routers[ROUTER_WORDS]; // those of VRRP whose MAC address is answered to
};

struct {
	MAP_UINT(type, BPF_MAP_TYPE_HASH);
	MAP_UINT(max_entries, 131072);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct endpoint);
	MAP_TYPE(value, u32); // PACKETS, LATER_FRAGMENTS
} services SEC(".maps");

// Real servers of NAT.
struct {
	MAP_UINT(type, BPF_MAP_TYPE_HASH);
	MAP_UINT(max_entries, 131072);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct endpoint);
	MAP_TYPE(value, u32); // PACKETS, LATER_FRAGMENTS
} returns SEC(".maps");

// Ends of tunnels, as the ends of the outer packets: the port is that of GUE.
struct {
	MAP_UINT(type, BPF_MAP_TYPE_HASH);
	MAP_UINT(max_entries, 131072);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct endpoint);
	MAP_TYPE(value, u32);
} tunnel_servers SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_HASH);
	MAP_UINT(max_entries, 65536);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct address);
	MAP_TYPE(value, u32); // HOST, POOL, REFUSED
} local_addresses SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_LPM_TRIE);
	MAP_UINT(max_entries, 1048576);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct prefix_ipv4);
	MAP_TYPE(value, u32); // DENY, ALLOW
} prefixes_ipv4 SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_LPM_TRIE);
	MAP_UINT(max_entries, 1048576);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct prefix_ipv6);
	MAP_TYPE(value, u32); // DENY, ALLOW
} prefixes_ipv6 SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct own_macs);
} own_macs SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_XSKMAP);
	MAP_UINT(max_entries, 1024);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, u32);
} sockets SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct counters);
} counters SEC(".maps");

// What an IP packet says of itself.
struct packet {
	struct endpoint source;
	struct endpoint destination;
	u8 *transport; // 0: a later fragment, which has no transport header
};

// Fills in what follows from the protocol. False: too short for its ports.
INLINE int read_ports(struct packet *packet, u8 protocol, u8 *end)
{
	u8 *transport = packet->transport;
	packet->source.protocol = packet->destination.protocol = protocol;
	packet->source.zero = packet->destination.zero = 0;
	packet->source.port = packet->destination.port = 0;
	if (!transport || (protocol != TCP && protocol != UDP && protocol != SCTP))
		return 1;
	if (transport + 4 > end)
		return 0;
	packet->source.port = *(u16 *)transport;
	packet->destination.port = *(u16 *)(transport + 2);
	return 1;
}

// Reads an IPv4 packet (RFC 791 §3.1) at `ip`. False: it cannot be read.
INLINE int read_ipv4(struct packet *packet, u8 *ip, u8 *end)
{
	if (ip + IPV4_LENGTH > end)
		return 0;
	u32 length = (ip[0] & 15) * 4;
	if (length < IPV4_LENGTH)
		return 0;
	address_of_ipv4(&packet->source, ip + 12);
	address_of_ipv4(&packet->destination, ip + 16);
	packet->transport = ip + length;
	if (*(u16 *)(ip + 6) & BE16(0x1fff))
		packet->transport = 0;
	return read_ports(packet, ip[9], end);
}

// Reads an IPv6 packet (RFC 8200 §3, §4) at `ip`. False: it cannot be read.
INLINE int read_ipv6(struct packet *packet, u8 *ip, u8 *end)
{
	if (ip + IPV6_LENGTH > end)
		return 0;
	address_of_ipv6(&packet->source, ip + 8);
	address_of_ipv6(&packet->destination, ip + 24);
	u8 protocol = ip[6];
	u8 *header = ip + IPV6_LENGTH;
	for (int i = 0; i < EXTENSIONS; i++) {
		if (protocol == FRAGMENT) {
			if (header + 8 > end)
				return 0;
			protocol = header[0];
			if (*(u16 *)(header + 2) & BE16(0xfff8)) {
				packet->transport = 0;
				return read_ports(packet, protocol, end);
			}
			header += 8;
		} else if (protocol == HOP_BY_HOP || protocol == ROUTING ||
			   protocol == DESTINATION_OPTIONS) {
			if (header + 2 > end)
				return 0;
			protocol = header[0];
			header += (header[1] + 1) * 8;
		} else {
			break;
		}
	}
	packet->transport = header;
	return read_ports(packet, protocol, end);
}

// True if an entry of `map` is for packets of this end.
INLINE int is_in(void *map, struct endpoint *end, int later_fragment)
{
	u32 *what;
	if (!later_fragment) {
		what = bpf_map_lookup_elem(map, end);
		if (what && *what & PACKETS)
			return 1;
		if (!end->port)
			return 0;
	}
	struct endpoint every_port = *end;
	every_port.port = 0;
	what = bpf_map_lookup_elem(map, &every_port);
	return what && *what & (later_fragment ? LATER_FRAGMENTS : PACKETS);
}

// 0: not an address of this host that matters.
INLINE u32 kind_of(struct address *address)
{
	u32 *kind = bpf_map_lookup_elem(&local_addresses, address);
	return kind ? *kind : 0;
}

// What is to become of a packet that was read.
enum verdict { PASS, STEER, NOT_FOR_US, DENIED };

// Of a packet that is no service's, by the kind of the address that it is for.
INLINE enum verdict judge_kind(u32 kind)
{
	return kind == POOL ? STEER : kind == REFUSED ? DENIED : PASS;
}

// Of a packet that is neither TCP, UDP nor SCTP.
INLINE enum verdict judge_other(struct packet *packet)
{
	return kind_of(&packet->destination.address) == REFUSED ? DENIED : PASS;
}

INLINE enum verdict judge_transport(struct packet *packet)
{
	int later_fragment = !packet->transport;
	if (is_in(&services, &packet->destination, later_fragment))
		return STEER;
	u32 kind = kind_of(&packet->destination.address);
	if (kind)
		return judge_kind(kind);
	return is_in(&returns, &packet->source, later_fragment) ? STEER : PASS;
}

// `about` is the packet that the error is about, `destination` where it goes.
INLINE enum verdict judge_error(struct packet *about, struct address *destination)
{
	int later_fragment = !about->transport;
	// Where it came from is where the service's packets to clients came from.
	if (is_in(&services, &about->source, later_fragment))
		return STEER;
	if (bpf_map_lookup_elem(&tunnel_servers, &about->destination))
		return STEER;
	u32 kind = kind_of(destination);
	if (kind)
		return judge_kind(kind);
	return is_in(&returns, &about->destination, later_fragment) ? STEER : PASS;
}

// RFC 792: destination unreachable, time exceeded, parameter problem.
INLINE int is_icmp_error(u8 type)
{
	return type == 3 || type == 11 || type == 12;
}

// RFC 4443: destination unreachable, packet too big, time exceeded, parameter
// problem.
INLINE int is_icmpv6_error(u8 type)
{
	return type >= 1 && type <= 4;
}

// RFC 4861 §4: without it nobody finds an address that refuses all else.
INLINE int is_neighbour_discovery(u8 type)
{
	return type >= 133 && type <= 137;
}

INLINE int has_ports(u8 protocol)
{
	return protocol == TCP || protocol == UDP || protocol == SCTP;
}

INLINE enum verdict judge_ipv4(u8 *ip, u8 *end)
{
	struct packet packet, about;
	if (ip + IPV4_LENGTH > end)
		return PASS;
	struct prefix_ipv4 source = { .length = 32, .address = *(u32 *)(ip + 12) };
	u32 *what = bpf_map_lookup_elem(&prefixes_ipv4, &source);
	if (what && *what == DENY)
		return DENIED;
	if (!read_ipv4(&packet, ip, end))
		return PASS;
	if (has_ports(packet.source.protocol))
		return judge_transport(&packet);
	u8 *icmp = packet.transport;
	if (packet.source.protocol != ICMP || !icmp || icmp + ICMP_LENGTH > end)
		return judge_other(&packet);
	if (!is_icmp_error(icmp[0]) || !read_ipv4(&about, icmp + ICMP_LENGTH, end))
		return judge_other(&packet);
	return judge_error(&about, &packet.destination.address);
}

INLINE enum verdict judge_ipv6(u8 *ip, u8 *end)
{
	struct packet packet, about;
	if (ip + IPV6_LENGTH > end)
		return PASS;
	struct prefix_ipv6 source = { .length = 128 };
	for (int i = 0; i < 4; i++)
		source.address.words[i] = ((u32 *)(ip + 8))[i];
	u32 *what = bpf_map_lookup_elem(&prefixes_ipv6, &source);
	if (what && *what == DENY)
		return DENIED;
	if (!read_ipv6(&packet, ip, end))
		return PASS;
	if (has_ports(packet.source.protocol))
		return judge_transport(&packet);
	u8 *icmp = packet.transport;
	if (packet.source.protocol != ICMPV6 || !icmp || icmp + ICMP_LENGTH > end)
		return judge_other(&packet);
	if (is_neighbour_discovery(icmp[0]))
		return PASS;
	if (!is_icmpv6_error(icmp[0]) || !read_ipv6(&about, icmp + ICMP_LENGTH, end))
		return judge_other(&packet);
	return judge_error(&about, &packet.destination.address);
}

INLINE int is_own_mac(u8 *mac)
{
	u32 zero = 0;
	struct own_macs *own = bpf_map_lookup_elem(&own_macs, &zero);
	if (!own) // never: the verifier wants it
		return 0;
	u64 wanted = *(u32 *)mac | (u64)*(u16 *)(mac + 4) << 32;
	for (int i = 0; i < OWN_MACS; i++)
		if (own->macs[i] == wanted)
			return wanted != 0;
	// 00:00:5e:00:01:VRID, and 02 for IPv6 (RFC 9568 §7.3).
	u8 family = mac[4] - 1;
	if (mac[0] || mac[1] || mac[2] != 0x5e || mac[3] || family > 1)
		return 0;
	u32 word = (family * 4 + (mac[5] >> 6)) & (ROUTER_WORDS - 1);
	return own->routers[word] >> (mac[5] & 63) & 1;
}

INLINE enum verdict judge(u8 *packet, u8 *end)
{
	if (packet + ETHERNET_LENGTH > end)
		return PASS;
	// A group's first byte is odd, and no interface has such an address.
	if (!is_own_mac(packet))
		return NOT_FOR_US;
	u16 type = *(u16 *)(packet + 12);
	u8 *ip = packet + ETHERNET_LENGTH;
	for (int i = 0; i < 2; i++) {
		if (type != ETH_8021Q && type != ETH_8021AD)
			break;
		if (ip + VLAN_LENGTH > end)
			return PASS;
		type = *(u16 *)(ip + 2);
		ip += VLAN_LENGTH;
	}
	if (type == ETH_IPV4)
		return judge_ipv4(ip, end);
	if (type == ETH_IPV6)
		return judge_ipv6(ip, end);
	return PASS;
}

SEC("xdp")
int steer(struct xdp_md *context)
{
	u32 zero = 0;
	struct counters *count = bpf_map_lookup_elem(&counters, &zero);
	if (!count) // never: the verifier wants it
		return XDP_PASS;
	switch (judge((u8 *)(u64)context->data, (u8 *)(u64)context->data_end)) {
	case STEER:
		break;
	case PASS:
		count->passed++;
		return XDP_PASS;
	case NOT_FOR_US:
		count->not_for_us++;
		return XDP_PASS;
	case DENIED:
		count->denied++;
		return XDP_DROP;
	}
	int action = bpf_redirect_map(&sockets, context->rx_queue_index, XDP_PASS);
	if (action == XDP_REDIRECT)
		count->steered++;
	else
		count->no_socket++;
	return action;
}

// Of the helpers used none demands a GPL program.
char steer_license[] SEC("license") = "MIT";
