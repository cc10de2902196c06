// The far end of a measurement: takes the frames that pktgen made, by the magic number of their
// stamp, or TCP segments from or to one port, for handshakes without state. It leaves all others to the kernel: ARP, health checks and whatever else keeps the
// network alive.
//
// Of a packet in fragments the first has the stamp, and is taken; the others have none.
//
// A frame may carry up to two VLAN tags and be inside a tunnel (IPIP, GRE, GUE), as the director
// sends it to real servers. Each is counted; then it is dropped, or goes to the AF_XDP socket of
// its queue with the time of its arrival in front, so that what user space adds to it does not
// count as latency.
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

enum { XDP_ABORTED, XDP_DROP, XDP_PASS };
enum { BPF_MAP_TYPE_PERCPU_ARRAY = 6, BPF_MAP_TYPE_XSKMAP = 17 };

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;
static long (*const bpf_xdp_adjust_meta)(struct xdp_md *ctx, int delta) = (void *)54;

// Filled in by pktgen/src/receive.rs before loading.
struct config {
	u16 deliver;  // 0: count and drop
	u16 from;     // TCP source port to take, network byte order; 0: frames with a stamp
	u16 to;       // TCP destination port, the same
	u16 pad;
};
const volatile struct config CONFIG;

// Set by user space once every queue has its socket, and cleared before it stops looking.
volatile u32 OPEN;

// [0] frames, [1] bytes
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, u64);
} COUNTED SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64);
	__type(key, u32);
	__type(value, u32);
} SOCKETS SEC(".maps");

// In front of a delivered frame.
struct arrival {
	u64 magic;
	u64 time; // CLOCK_MONOTONIC, nanoseconds
};
#define ARRIVAL_MAGIC 0x6c61766972726100ull

#define ETHERNET 14
#define TAG 4
#define MAX_TAGS 2
#define MAX_TUNNELS 1
#define STAMP_BYTES 16
#define MAGIC_OFFSET 8
#define STAMP_MAGIC 0x6770 // "pg", as the two bytes are read here, on a little-endian machine
// EtherTypes, read the same way.
#define IPV4 0x0008
#define IPV6 0xdd86
#define VLAN 0x0081
#define QINQ 0xa888
#define IPIP 4
#define TCP 6
#define UDP 17
#define IPV6_IN_IP 41
#define IPV6_FRAGMENT 44
#define FRAGMENT_HEADER 8
#define GRE 47
#define GRE_CHECKSUM 0x80
#define GUE_HEADER 4

// True for a frame with our stamp.
static __attribute__((always_inline)) int is_ours(u8 *p, u8 *end)
{
	if (p + ETHERNET > end)
		return 0;
	u16 type = *(u16 *)(p + 12);
	p += ETHERNET;
#pragma unroll
	for (int i = 0; i < MAX_TAGS; i++) {
		if (type == VLAN || type == QINQ) {
			if (p + TAG > end)
				return 0;
			type = *(u16 *)(p + 2);
			p += TAG;
		}
	}
#pragma unroll
	for (int i = 0; i <= MAX_TUNNELS; i++) {
		u8 protocol;
		if (type == IPV4) {
			if (p + 20 > end)
				return 0;
			protocol = p[9];
			p += (p[0] & 15) * 4;
		} else if (type == IPV6) {
			if (p + 40 > end)
				return 0;
			protocol = p[6];
			p += 40;
			if (protocol == IPV6_FRAGMENT) {
				if (p + FRAGMENT_HEADER > end)
					return 0;
				protocol = p[0];
				p += FRAGMENT_HEADER;
			}
		} else {
			return 0;
		}
		if (protocol == TCP || protocol == UDP) {
			u32 header = 8;
			if (protocol == TCP) {
				if (p + 20 > end)
					return 0;
				u16 *ports = (u16 *)p;
				if (CONFIG.from || CONFIG.to)
					return ports[0] == CONFIG.from || ports[1] == CONFIG.to;
				header = (p[12] >> 4) * 4;
			}
			u8 *stamp = p + header;
			if (!CONFIG.from && !CONFIG.to && stamp + STAMP_BYTES <= end &&
			    *(u16 *)(stamp + MAGIC_OFFSET) == STAMP_MAGIC)
				return 1;
			// GUE, perhaps: version 0, data, no flags.
			if (protocol == TCP || stamp + GUE_HEADER > end || stamp[0])
				return 0;
			protocol = stamp[1];
			p = stamp + GUE_HEADER;
		} else if (protocol == GRE) {
			if (p + 4 > end)
				return 0;
			type = *(u16 *)(p + 2);
			p += p[0] & GRE_CHECKSUM ? 8 : 4;
			continue;
		}
		type = protocol == IPIP ? IPV4 : protocol == IPV6_IN_IP ? IPV6 : 0;
	}
	return 0;
}

static __attribute__((always_inline)) void add(u32 index, u64 value)
{
	u64 *count = bpf_map_lookup_elem(&COUNTED, &index);
	if (count)
		*count += value;
}

SEC("xdp") int receive(struct xdp_md *ctx)
{
	if (!OPEN || !is_ours((u8 *)(u64)ctx->data, (u8 *)(u64)ctx->data_end))
		return XDP_PASS;
	add(0, 1);
	add(1, ctx->data_end - ctx->data);
	if (!CONFIG.deliver)
		return XDP_DROP;
	// Where the driver has no room for it, user space looks at its own clock.
	if (!bpf_xdp_adjust_meta(ctx, -(int)sizeof(struct arrival))) {
		struct arrival *arrival = (void *)(u64)ctx->data_meta;
		if ((u8 *)(arrival + 1) <= (u8 *)(u64)ctx->data) {
			arrival->magic = ARRIVAL_MAGIC;
			arrival->time = bpf_ktime_get_ns();
		}
	}
	return bpf_redirect_map(&SOCKETS, ctx->rx_queue_index, XDP_DROP);
}

char LICENSE[] SEC("license") = "MIT";
