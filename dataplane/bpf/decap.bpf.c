// Takes packets out of the tunnels that a director sent them through.
//
// For a real server of TUN: what is addressed to one of its tunnel ends loses its
// outer headers and goes on into the kernel as if it had arrived so; everything
// else passes untouched. No kernel module (ipip, sit, ip6_tunnel, ip_gre, fou)
// and no tunnel device is needed. Understood are:
//
//   - IPv4 or IPv6, directly in IPv4 or IPv6 (RFC 2003, 2473, 4213);
//   - the same behind a GRE header (RFC 2784, 2890), whose checksum and sequence
//     number nobody looks at;
//   - the same behind UDP and a GUE header, variant 0 without control messages,
//     or variant 1, which has no header at all (draft-ietf-intarea-gue §3, §4).
//
// Congestion that a router has marked on the outer header is marked on the inner
// one (RFC 6040 §4.2), and the packet is dropped where that cannot be.
//
// Under up to two VLAN tags, IPv4 options and one IPv6 destination options
// header, in which Linux puts its encapsulation limit. Outer fragments are not
// put together: they pass.

#include "xdp.h"

enum { IP_IN_IP = 4, IPV6_IN_IP = 41, GRE = 47 };
enum { UDP_LENGTH = 8, GRE_LENGTH = 4, GUE_LENGTH = 4 };
enum { GRE_CHECKSUM = BE16(0x8000), GRE_KEY = BE16(0x2000), GRE_SEQUENCE = BE16(0x1000) };
// Most bytes of outer headers: ten times what is usual. The verifier wants a limit.
enum { LONGEST_OUTER = 512 };
// RFC 3168 §5: congestion experienced; not able to say so.
enum { CE = 3, NOT_ECT = 0 };

struct counters {
	u64 decapsulated;
	u64 passed;
	u64 dropped; // congestion that could not be told
};

// The outer destinations: the port is that of GUE.
struct {
	MAP_UINT(type, BPF_MAP_TYPE_HASH);
	MAP_UINT(max_entries, 1024);
	MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
	MAP_TYPE(key, struct endpoint);
	MAP_TYPE(value, u32);
} ends SEC(".maps");

struct {
	MAP_UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	MAP_UINT(max_entries, 1);
	MAP_TYPE(key, u32);
	MAP_TYPE(value, struct counters);
} counters SEC(".maps");

// The headers around a packet.
struct outer {
	struct endpoint destination;
	u32 length; // in bytes, of all that goes
	u8 ecn;
	u8 inner; // IP_IN_IP or IPV6_IN_IP
};

INLINE int read_outer_ipv4(struct outer *outer, u8 *ip, u8 *end)
{
	if (ip + IPV4_LENGTH > end)
		return 0;
	outer->length = (ip[0] & 15) * 4;
	// Neither too short nor a fragment.
	if (outer->length < IPV4_LENGTH || *(u16 *)(ip + 6) & BE16(0x3fff))
		return 0;
	outer->ecn = ip[1] & 3;
	outer->destination.protocol = ip[9];
	address_of_ipv4(&outer->destination, ip + 16);
	return 1;
}

INLINE int read_outer_ipv6(struct outer *outer, u8 *ip, u8 *end)
{
	if (ip + IPV6_LENGTH > end)
		return 0;
	outer->length = IPV6_LENGTH;
	outer->ecn = ip[1] >> 4 & 3;
	outer->destination.protocol = ip[6];
	address_of_ipv6(&outer->destination, ip + 24);
	if (ip[6] == DESTINATION_OPTIONS) {
		u8 *options = ip + IPV6_LENGTH;
		if (options + 2 > end)
			return 0;
		outer->destination.protocol = options[0];
		outer->length += (options[1] + 1) * 8;
	}
	return 1;
}

INLINE int read_gre(struct outer *outer, u8 *gre, u8 *end)
{
	if (gre + GRE_LENGTH > end)
		return 0;
	u16 flags = *(u16 *)gre, type = *(u16 *)(gre + 2);
	if (flags & ~(GRE_CHECKSUM | GRE_KEY | GRE_SEQUENCE))
		return 0;
	outer->length += GRE_LENGTH;
	if (flags & GRE_CHECKSUM)
		outer->length += 4;
	if (flags & GRE_KEY)
		outer->length += 4;
	if (flags & GRE_SEQUENCE)
		outer->length += 4;
	outer->inner = type == ETH_IPV4 ? IP_IN_IP : IPV6_IN_IP;
	return type == ETH_IPV4 || type == ETH_IPV6;
}

INLINE int read_gue(struct outer *outer, u8 *udp, u8 *end)
{
	u8 *gue = udp + UDP_LENGTH;
	if (gue + GUE_LENGTH > end)
		return 0;
	outer->length += UDP_LENGTH;
	switch (gue[0] >> 5) {
	case 0: // variant 0, data
		outer->length += GUE_LENGTH + (gue[0] & 31) * 4;
		outer->inner = gue[1];
		return 1;
	case 2: // variant 1: the first bits of an IPv4 header are 010,
	case 3: // and of an IPv6 header 011
		outer->inner = gue[0] >> 5 == 2 ? IP_IN_IP : IPV6_IN_IP;
		return 1;
	default:
		return 0;
	}
}

// Reads all headers from `ip` on to the inner packet. False: it is no packet in a
// tunnel of ours.
INLINE int read_outer(struct outer *outer, u16 type, u8 *ip, u8 *end)
{
	if (type == ETH_IPV4 ? !read_outer_ipv4(outer, ip, end)
			     : type != ETH_IPV6 || !read_outer_ipv6(outer, ip, end))
		return 0;
	struct endpoint *destination = &outer->destination;
	u8 *next = ip + outer->length;
	destination->port = 0;
	destination->zero = 0;
	if (destination->protocol == UDP) {
		if (next + UDP_LENGTH > end)
			return 0;
		destination->port = *(u16 *)(next + 2);
	}
	if (!bpf_map_lookup_elem(&ends, destination))
		return 0;
	switch (destination->protocol) {
	case IP_IN_IP:
	case IPV6_IN_IP:
		outer->inner = destination->protocol;
		return 1;
	case GRE:
		return read_gre(outer, next, end);
	default:
		return read_gue(outer, next, end);
	}
}

enum verdict { PASS, DECAPSULATE, DROP };

// Looks at the inner packet and tells it of congestion.
INLINE enum verdict judge_inner(struct outer *outer, u8 *ip, u8 *end)
{
	if (outer->inner == IP_IN_IP) {
		if (ip + IPV4_LENGTH > end || ip[0] >> 4 != 4)
			return PASS;
		if (outer->ecn != CE || (ip[1] & 3) == CE)
			return DECAPSULATE;
		if ((ip[1] & 3) == NOT_ECT)
			return DROP;
		// RFC 1624 §3; the sum is the same in either byte order.
		u32 sum = (u16)~*(u16 *)(ip + 10) + (u16)~*(u16 *)ip;
		ip[1] |= CE;
		sum += *(u16 *)ip;
		sum = (sum & 0xffff) + (sum >> 16);
		sum = (sum & 0xffff) + (sum >> 16);
		*(u16 *)(ip + 10) = ~sum;
		return DECAPSULATE;
	}
	if (outer->inner != IPV6_IN_IP || ip + IPV6_LENGTH > end || ip[0] >> 4 != 6)
		return PASS;
	if (outer->ecn != CE || (ip[1] >> 4 & 3) == CE)
		return DECAPSULATE;
	if ((ip[1] >> 4 & 3) == NOT_ECT)
		return DROP;
	ip[1] |= CE << 4;
	return DECAPSULATE;
}

// The Ethernet header, without the type, and VLAN tags.
struct link {
	u16 addresses[6];
	u32 tags[2];
	u32 count;
};

INLINE enum verdict decapsulate(struct xdp_md *context)
{
	u8 *packet = (u8 *)(u64)context->data, *end = (u8 *)(u64)context->data_end;
	if (packet + ETHERNET_LENGTH > end)
		return PASS;
	struct link link = {0};
	for (int i = 0; i < 6; i++)
		link.addresses[i] = ((u16 *)packet)[i];
	u16 type = *(u16 *)(packet + 12);
	u8 *ip = packet + ETHERNET_LENGTH;
	for (int i = 0; i < 2; i++) {
		if (type != ETH_8021Q && type != ETH_8021AD)
			break;
		if (ip + VLAN_LENGTH > end)
			return PASS;
		// The type of the tag, and what is in it.
		link.tags[i] = type | (u32)*(u16 *)ip << 16;
		link.count++;
		type = *(u16 *)(ip + 2);
		ip += VLAN_LENGTH;
	}
	struct outer outer;
	if (!read_outer(&outer, type, ip, end))
		return PASS;
	u32 length = outer.length;
	if (length > LONGEST_OUTER)
		return PASS;
	u8 *inner = ip + length;
	// One sum for the check of the bounds and for the reading: the verifier does not
	// know that two are equal.
	__asm__ volatile("" : "+r"(inner));
	enum verdict verdict = judge_inner(&outer, inner, end);
	if (verdict != DECAPSULATE)
		return verdict;

	if (bpf_xdp_adjust_head(context, length))
		return DROP; // never: the inner packet is behind what goes
	packet = (u8 *)(u64)context->data;
	end = (u8 *)(u64)context->data_end;
	if (packet + ETHERNET_LENGTH > end)
		return DROP; // never
	for (int i = 0; i < 6; i++)
		((u16 *)packet)[i] = link.addresses[i];
	u8 *next = packet + 12;
	for (u32 i = 0; i < 2; i++) {
		if (i == link.count)
			break;
		if (next + VLAN_LENGTH > end)
			return DROP; // never
		*(u16 *)next = link.tags[i];
		*(u16 *)(next + 2) = link.tags[i] >> 16;
		next += VLAN_LENGTH;
	}
	if (next + 2 > end)
		return DROP; // never
	*(u16 *)next = outer.inner == IP_IN_IP ? ETH_IPV4 : ETH_IPV6;
	return DECAPSULATE;
}

SEC("xdp")
int decap(struct xdp_md *context)
{
	u32 zero = 0;
	struct counters *count = bpf_map_lookup_elem(&counters, &zero);
	if (!count) // never: the verifier wants it
		return XDP_PASS;
	switch (decapsulate(context)) {
	case PASS:
		count->passed++;
		return XDP_PASS;
	case DECAPSULATE:
		count->decapsulated++;
		return XDP_PASS;
	default:
		count->dropped++;
		return XDP_DROP;
	}
}

// Of the helpers used none demands a GPL program.
char decap_license[] SEC("license") = "MIT";
