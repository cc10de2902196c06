// The bare forwarder's steering: every frame goes to the AF_XDP socket of its queue,
// to the kernel where there is none. What libxdp's default program does, without
// its per-interface state.
//
// No include: neither kernel nor libbpf headers change the object.

typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, value) int (*name)[value]
#define __type(name, value) typeof(value) *name

struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

enum { XDP_ABORTED, XDP_DROP, XDP_PASS };
enum { BPF_MAP_TYPE_XSKMAP = 17 };

static long (*const bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 64);
	__type(key, u32);
	__type(value, u32);
} SOCKETS SEC(".maps");

SEC("xdp") int forward(struct xdp_md *ctx)
{
	return bpf_redirect_map(&SOCKETS, ctx->rx_queue_index, XDP_PASS);
}

char LICENSE[] SEC("license") = "MIT";
