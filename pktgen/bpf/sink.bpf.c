// The end of a measurement: counts each frame and its bytes, per CPU, and drops it.
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

enum { XDP_ABORTED, XDP_DROP };
enum { BPF_MAP_TYPE_PERCPU_ARRAY = 6 };

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;

// [0] frames, [1] bytes
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, u64);
} COUNTED SEC(".maps");

SEC("xdp") int sink(struct xdp_md *ctx)
{
	u32 frames = 0, bytes = 1;
	u64 *count = bpf_map_lookup_elem(&COUNTED, &frames);
	if (count)
		*count += 1;
	count = bpf_map_lookup_elem(&COUNTED, &bytes);
	if (count)
		*count += ctx->data_end - ctx->data;
	return XDP_DROP;
}

char LICENSE[] SEC("license") = "MIT";
