// What the XDP programs share: types, maps' notation, helpers, headers' numbers.
//
// No include: neither kernel nor libbpf headers of the building machine have a
// say in what comes out (see build.sh). Layouts and numbers are those of
// include/uapi/linux/bpf.h and of the RFCs named in the programs.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static __attribute__((always_inline)) inline
#define MAP_UINT(name, value) int(*name)[value]
#define MAP_TYPE(name, type) type *name

enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PERCPU_ARRAY = 6 };
enum { BPF_MAP_TYPE_LPM_TRIE = 11, BPF_MAP_TYPE_XSKMAP = 17 };
enum { BPF_F_NO_PREALLOC = 1 };
enum { XDP_DROP = 1, XDP_PASS = 2, XDP_REDIRECT = 4 };

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_xdp_adjust_head)(void *context, int delta) = (void *)44;
static long (*const bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

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
enum { DESTINATION_OPTIONS = 60, SCTP = 132 };

struct address {
	u32 words[4]; // network byte order; IPv4 as ::ffff:a.b.c.d
};

// One end of a flow. Port 0 stands for every port, and for none: that of a
// later fragment, or of a protocol that has no ports.
struct endpoint {
	struct address address;
	u16 port; // network byte order
	u8 protocol;
	u8 zero;
};

INLINE void address_of_ipv4(struct endpoint *end, u8 *address)
{
	end->address.words[0] = 0;
	end->address.words[1] = 0;
	end->address.words[2] = 0xffff0000; // bytes 00 00 ff ff
	end->address.words[3] = *(u32 *)address;
}

INLINE void address_of_ipv6(struct endpoint *end, u8 *address)
{
	for (int i = 0; i < 4; i++)
		end->address.words[i] = ((u32 *)address)[i];
}
