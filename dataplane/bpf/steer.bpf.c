// Which packets are the director's.
//
// Runs on every packet an interface receives. A packet of a virtual server goes
// to the AF_XDP socket of its receive queue; every other packet (ARP, ND, ssh,
// ping, health checks, …) goes on into the kernel as if this program were not
// there. Steered are:
//
//   - TCP and UDP whose destination address, port and protocol are a service,
//     among them first fragments, which the director counts and drops: the
//     later fragments carry no port and pass to the kernel;
//   - ICMP and ICMPv6 errors about a packet that was sent from a service.
//
// Under up to two VLAN tags, IPv4 options and a few IPv6 extension headers. A
// packet that is too short or too nested to tell passes to the kernel.
//
// No include: neither kernel nor libbpf headers of the building machine have a
// say in what comes out (see build.sh). Layouts and numbers are those of
// include/uapi/linux/bpf.h and of the RFCs named below.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline)) inline
#define MAP_UINT(name, value) int(*name)[value]
#define MAP_TYPE(name, type) type *name

enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_MAP_TYPE_XSKMAP = 17 };
enum { BPF_F_NO_PREALLOC = 1 };
enum { XDP_PASS = 2, XDP_REDIRECT = 4 };

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};

// Numbers on the wire are big endian, this program little.
#define BE16(n) ((u16)((((n) & 0xff) << 8) | ((n) >> 8)))

enum { ETHERNET_LENGTH = 14, VLAN_LENGTH = 4, IPV4_LENGTH = 20, IPV6_LENGTH = 40 };
enum { ICMP_LENGTH = 8 };
enum { ETH_IPV4 = BE16(0x0800), ETH_IPV6 = BE16(0x86dd) };
enum { ETH_8021Q = BE16(0x8100), ETH_8021AD = BE16(0x88a8) };
enum { HOP_BY_HOP = 0, ICMP = 1, TCP = 6, UDP = 17, ROUTING = 43, FRAGMENT = 44, ICMPV6 = 58 };
enum { DESTINATION_OPTIONS = 60 };
// Most IPv6 extension headers that are walked over.
enum { EXTENSIONS = 4 };

struct service_key {
	u32 address[4]; // network byte order; IPv4 as ::ffff:a.b.c.d
	u16 port;       // network byte order
	u8 protocol;
	u8 zero;
};

struct counters {
	u64 steered;   // given to a socket
	u64 passed;    // no service's
	u64 no_socket; // a service's, but its queue has no socket: passed to the kernel
};

struct {
	MAP_UINT(type, BPF_MAP_TYPE_HASH);
	MAP_UINT(max_entries, 65536);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct service_key);
	MAP_TYPE(value, u32);
} services SEC(".maps");

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

// The transport header of an IP packet.
struct transport {
	u8 *start; // 0: none that can be told
	u8 protocol;
};

// An IPv4 packet (RFC 791 §3.1) at `ip`.
INLINE struct transport transport_of_ipv4(u8 *ip, u8 *end)
{
	struct transport none = {0}, found;
	if (ip + IPV4_LENGTH > end)
		return none;
	u32 length = (ip[0] & 15) * 4;
	// A later fragment has no transport header.
	if (length < IPV4_LENGTH || (*(u16 *)(ip + 6) & BE16(0x1fff)))
		return none;
	found.start = ip + length;
	found.protocol = ip[9];
	return found;
}

// An IPv6 packet (RFC 8200 §3, §4) at `ip`.
INLINE struct transport transport_of_ipv6(u8 *ip, u8 *end)
{
	struct transport none = {0}, found;
	if (ip + IPV6_LENGTH > end)
		return none;
	found.protocol = ip[6];
	found.start = ip + IPV6_LENGTH;
	for (int i = 0; i < EXTENSIONS; i++) {
		u8 *header = found.start;
		switch (found.protocol) {
		case HOP_BY_HOP:
		case ROUTING:
		case DESTINATION_OPTIONS:
			if (header + 2 > end)
				return none;
			found.start = header + (header[1] + 1) * 8;
			break;
		case FRAGMENT:
			if (header + 8 > end || (*(u16 *)(header + 2) & BE16(0xfff8)))
				return none;
			found.start = header + 8;
			break;
		default:
			return found;
		}
		found.protocol = header[0];
	}
	return found;
}

INLINE void address_of_ipv4(struct service_key *key, u8 *address)
{
	key->address[0] = 0;
	key->address[1] = 0;
	key->address[2] = 0xffff0000; // bytes 00 00 ff ff
	key->address[3] = *(u32 *)address;
}

INLINE void address_of_ipv6(struct service_key *key, u8 *address)
{
	for (int i = 0; i < 4; i++)
		key->address[i] = ((u32 *)address)[i];
}

// Fills in port and protocol and looks the key up. The port is the one at
// `offset` of the transport header: 0 is the source port, 2 the destination's,
// of TCP and UDP alike.
INLINE int is_service(struct service_key *key, struct transport transport, u32 offset, u8 *end)
{
	if (transport.protocol != TCP && transport.protocol != UDP)
		return 0;
	if (!transport.start || transport.start + 4 > end)
		return 0;
	key->port = *(u16 *)(transport.start + offset);
	key->protocol = transport.protocol;
	key->zero = 0;
	return bpf_map_lookup_elem(&services, key) != 0;
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

INLINE int is_ours_ipv4(u8 *ip, u8 *end)
{
	struct service_key key;
	struct transport transport = transport_of_ipv4(ip, end);
	if (transport.protocol == ICMP) {
		u8 *icmp = transport.start;
		if (!icmp || icmp + ICMP_LENGTH > end || !is_icmp_error(icmp[0]))
			return 0;
		ip = icmp + ICMP_LENGTH;
		transport = transport_of_ipv4(ip, end);
		if (!transport.start)
			return 0;
		address_of_ipv4(&key, ip + 12);
		return is_service(&key, transport, 0, end);
	}
	if (!transport.start)
		return 0;
	address_of_ipv4(&key, ip + 16);
	return is_service(&key, transport, 2, end);
}

INLINE int is_ours_ipv6(u8 *ip, u8 *end)
{
	struct service_key key;
	struct transport transport = transport_of_ipv6(ip, end);
	if (transport.protocol == ICMPV6) {
		u8 *icmp = transport.start;
		if (!icmp || icmp + ICMP_LENGTH > end || !is_icmpv6_error(icmp[0]))
			return 0;
		ip = icmp + ICMP_LENGTH;
		transport = transport_of_ipv6(ip, end);
		if (!transport.start)
			return 0;
		address_of_ipv6(&key, ip + 8);
		return is_service(&key, transport, 0, end);
	}
	if (!transport.start)
		return 0;
	address_of_ipv6(&key, ip + 24);
	return is_service(&key, transport, 2, end);
}

INLINE int is_ours(u8 *packet, u8 *end)
{
	if (packet + ETHERNET_LENGTH > end)
		return 0;
	// A frame to a group is not for this host alone; a router does not forward
	// it (RFC 1812 §5.3.4).
	if (packet[0] & 1)
		return 0;
	u16 type = *(u16 *)(packet + 12);
	u8 *ip = packet + ETHERNET_LENGTH;
	for (int i = 0; i < 2; i++) {
		if (type != ETH_8021Q && type != ETH_8021AD)
			break;
		if (ip + VLAN_LENGTH > end)
			return 0;
		type = *(u16 *)(ip + 2);
		ip += VLAN_LENGTH;
	}
	if (type == ETH_IPV4)
		return is_ours_ipv4(ip, end);
	if (type == ETH_IPV6)
		return is_ours_ipv6(ip, end);
	return 0;
}

SEC("xdp")
int steer(struct xdp_md *context)
{
	u32 zero = 0;
	struct counters *count = bpf_map_lookup_elem(&counters, &zero);
	if (!count) // never: the verifier wants it
		return XDP_PASS;
	if (!is_ours((u8 *)(u64)context->data, (u8 *)(u64)context->data_end)) {
		count->passed++;
		return XDP_PASS;
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
