// The end of a measurement: counts each UDP, TCP and tunnelled frame and its bytes, per CPU, and
// drops it, where the driver has it (XDP) or where the kernel's network stack begins (tc). All else
// is the kernel's: a host whose ARP or neighbour discovery went unanswered would soon get nothing to count.
//
// No include: neither kernel nor libbpf headers change the object.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name

struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

// Up to what is used here.
struct __sk_buff {
	u32 len, pkt_type, mark, queue_mapping, protocol, vlan_present, vlan_tci, vlan_proto, priority,
		ingress_ifindex, ifindex, tc_index, cb[5], hash, tc_classid, data, data_end;
};

enum { XDP_ABORTED, XDP_DROP, XDP_PASS };
enum { TC_ACT_UNSPEC = -1, TC_ACT_OK, TC_ACT_RECLASSIFY, TC_ACT_SHOT };
enum { BPF_MAP_TYPE_PERCPU_ARRAY = 6 };

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;

// [0] frames, [1] bytes
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, u64);
} COUNTED SEC(".maps");

#define ETHERNET 14
#define IPV4 0x0008 // as the two bytes are read here, on a little-endian machine
#define IPV6 0xdd86
#define IPIP 4
#define TCP 6
#define UDP 17
#define IPV6_INSIDE 41
#define GRE 47

// 1 if the frame was counted.
static __attribute__((always_inline)) int counts(u32 data, u32 data_end, u32 length)
{
	u8 *p = (u8 *)(u64)data, *end = (u8 *)(u64)data_end;
	if (p + ETHERNET + 20 > end)
		return 0;
	u16 type = *(u16 *)(p + 12);
	u8 protocol = type == IPV4 ? p[ETHERNET + 9] : type == IPV6 ? p[ETHERNET + 6] : 0;
	if (protocol != UDP && protocol != TCP && protocol != IPIP && protocol != IPV6_INSIDE &&
	    protocol != GRE)
		return 0;
	u32 frames = 0, bytes = 1;
	u64 *count = bpf_map_lookup_elem(&COUNTED, &frames);
	if (count)
		*count += 1;
	count = bpf_map_lookup_elem(&COUNTED, &bytes);
	if (count)
		*count += length;
	return 1;
}

SEC("xdp") int sink_xdp(struct xdp_md *ctx)
{
	return counts(ctx->data, ctx->data_end, ctx->data_end - ctx->data) ? XDP_DROP : XDP_PASS;
}

SEC("classifier") int sink_tc(struct __sk_buff *ctx)
{
	return counts(ctx->data, ctx->data_end, ctx->len) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "MIT";
