// The packet source: one run of this program makes one frame.
//
// It is never attached. pktgen runs it by BPF_PROG_TEST_RUN with
// BPF_F_TEST_XDP_LIVE_FRAMES (Linux 5.18): the kernel hands it frames of a small
// recycled pool and sends what it redirects, about 5 million a second and core
// over veth.
//
// Because the frames are recycled, each holds whatever the last receiver left in
// it: the whole header is written anew in every run.
//
// What varies from frame to frame is the flow (source address and port), the
// TCP flags, the stamp (flow, sequence, time) at the start of the payload, and
// with a mix the length. User space gives checksum sums without these parts;
// they are added here (RFC 1071), so both checksums are always right.
//
// No include: neither kernel nor libbpf headers change the object.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))

struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

enum { XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT };

static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*const bpf_xdp_adjust_tail)(struct xdp_md *ctx, int delta) = (void *)65;

#define ETHERNET 14
#define TAG 4
#define TEMPLATE_WORDS 10 // with a VLAN tag, IPv6 and TCP: 78 bytes
#define MAX_SHAPES 12
#define STAMP_BYTES 16
#define STAMP_MAGIC 0x7067 // "pg"
#define TCP_SYN 0x02
#define TCP_ACK 0x10
// Paced sending that falls behind, because other threads had the CPU, catches up what it did not send
// in so long, no more, and beyond a moment at no more than eight times the rate, rather than in one burst.
#define MAX_DEBT_PS 200000000000ull // 200 ms
#define MOMENT_PS 1000000000ull     // 1 ms
// Sending at full speed, the clock is read once in this many frames (a power of two).
#define CLOCK_EVERY 16

// One frame length: its headers, and the sums of what does not vary.
struct shape {
	u64 words[TEMPLATE_WORDS];
	u32 length;
	u32 ip_sum; // IPv4 header without the source address; host order
	u32 l4_sum; // pseudo header, L4 header and payload without source, port, flags, stamp
	u32 pad;
};

// Filled in by pktgen/src/live.rs before loading. The verifier knows the values, so
// branches on them cost nothing.
struct config {
	u64 gap_ps;      // picoseconds from frame to frame; 0 = as fast as possible
	u64 duration_ns; // from the first frame on: none is sent later
	u32 ifindex;
	u32 flows;
	u32 stride;   // coprime to flows: visits every flow once a round, in scattered order
	u32 hosts;    // source addresses in use
	u32 source;   // the first of them (IPv6: its last 32 bits), host order
	u32 port;     // first source port
	u32 words;    // of 8 bytes: the headers, rounded up
	u32 shapes;   // frame lengths, used in turn
	u32 ipv6;
	u32 tcp;
	u32 tagged;   // with a VLAN tag
	u32 run;      // which run the stamp is of, in its highest 8 bits
	u32 offset;   // number of the first flow among those of all workers
	u32 syn_only; // no ACKs after the SYNs
	struct shape shape[MAX_SHAPES];
};

// Read by pktgen after each call.
struct state {
	u64 frames;
	u64 bytes;
	u64 next_ps;  // no frame before this
	u64 now_ns;   // time of the last frame, as of the last look at the clock
	u64 first_ns; // of the first frame
	u64 due_ps;   // of the next frame, by the rate alone
	u32 position; // in the round
	u32 round;    // the sequence number within each flow
	u32 flow;
	u32 shape;
};

const volatile struct config CONFIG;
struct state STATE;

// Decided here and not in user space, whose thread may come late to interrupt the call.
static __attribute__((always_inline)) int is_over(u64 now_ns)
{
	return STATE.first_ns && now_ns - STATE.first_ns >= CONFIG.duration_ns;
}

static __attribute__((always_inline)) u32 fold(u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

static __attribute__((always_inline)) u32 halves(u32 value)
{
	return (value >> 16) + (value & 0xffff);
}

SEC("xdp") int generate(struct xdp_md *ctx)
{
	struct state *state = &STATE;
	u64 now_ns;

	if (CONFIG.gap_ps) {
		now_ns = bpf_ktime_get_ns();
		u64 now = now_ns * 1000;
		if (now < state->next_ps)
			return XDP_DROP; // too early: this run sends nothing
		if (is_over(now_ns))
			return XDP_DROP;
		u64 due = state->due_ps + CONFIG.gap_ps;
		if (due + MAX_DEBT_PS < now)
			due = now + CONFIG.gap_ps;
		state->due_ps = due;
		state->next_ps = due + MOMENT_PS < now ? now + CONFIG.gap_ps / 8 : due;
		state->now_ns = now_ns;
	} else if (!(state->frames & (CLOCK_EVERY - 1))) {
		now_ns = bpf_ktime_get_ns();
		if (is_over(now_ns))
			return XDP_DROP;
		state->now_ns = now_ns;
	} else {
		now_ns = state->now_ns;
	}

	if (!state->first_ns)
		state->first_ns = now_ns;

	u32 index = 0;
	if (CONFIG.shapes > 1) {
		index = state->shape;
		if (index >= MAX_SHAPES)
			return XDP_ABORTED;
		state->shape = index + 1 == CONFIG.shapes ? 0 : index + 1;
	}
	const volatile struct shape *shape = &CONFIG.shape[index];
	u32 length = shape->length;
	if (CONFIG.shapes > 1) {
		// Every run starts with a frame of the longest length.
		int delta = (int)length - (int)(ctx->data_end - ctx->data);
		if (delta && bpf_xdp_adjust_tail(ctx, delta))
			return XDP_ABORTED;
	}

	u8 *p = (u8 *)(u64)ctx->data, *end = (u8 *)(u64)ctx->data_end;
#pragma unroll
	for (u32 i = 0; i < TEMPLATE_WORDS; i++) {
		if (i < CONFIG.words) {
			if (p + 8 * i + 8 > end)
				return XDP_ABORTED;
			((u64 *)p)[i] = shape->words[i];
		}
	}

	u32 flow = CONFIG.offset + state->flow, round = state->round;
	u32 source = CONFIG.source, port = CONFIG.port;
	if (CONFIG.hosts > 1) {
		source += flow % CONFIG.hosts;
		port += flow / CONFIG.hosts;
	} else {
		port += flow;
	}

	u32 l3 = ETHERNET + (CONFIG.tagged ? TAG : 0);
	u32 l4 = l3 + (CONFIG.ipv6 ? 40 : 20);
	u32 payload = l4 + (CONFIG.tcp ? 20 : 8);
	if (p + payload > end)
		return XDP_ABORTED;
	u32 sum = shape->l4_sum + halves(source) + port;
	if (CONFIG.ipv6) {
		*(u32 *)(p + l3 + 20) = __builtin_bswap32(source);
	} else {
		u32 ip_sum = shape->ip_sum + halves(source);
		*(u32 *)(p + l3 + 12) = __builtin_bswap32(source);
		*(u16 *)(p + l3 + 10) = __builtin_bswap16(~fold(ip_sum));
	}
	*(u16 *)(p + l4) = __builtin_bswap16(port);
	if (CONFIG.tcp) {
		u32 flags = round && !CONFIG.syn_only ? TCP_ACK : TCP_SYN;
		p[l4 + 13] = flags;
		sum += flags;
	}
	if (p + payload + STAMP_BYTES <= end) {
		u32 *stamp = (u32 *)(p + payload);
		u32 high = STAMP_MAGIC << 16 | (now_ns >> 32 & 0xffff), low = now_ns;
		u32 who = CONFIG.run | flow;
		stamp[0] = __builtin_bswap32(who);
		stamp[1] = __builtin_bswap32(round);
		stamp[2] = __builtin_bswap32(high);
		stamp[3] = __builtin_bswap32(low);
		sum += halves(who) + halves(round) + halves(high) + halves(low);
	}
	u16 checksum = ~fold(sum);
	if (CONFIG.tcp)
		*(u16 *)(p + l4 + 16) = __builtin_bswap16(checksum);
	else // 0 would say "no checksum" (RFC 768)
		*(u16 *)(p + l4 + 6) = checksum ? __builtin_bswap16(checksum) : 0xffff;

	state->frames++;
	state->bytes += length;
	if (CONFIG.flows > 1) {
		u32 next = state->flow + CONFIG.stride;
		state->flow = next >= CONFIG.flows ? next - CONFIG.flows : next;
	}
	u32 position = state->position + 1;
	if (position >= CONFIG.flows) {
		position = 0;
		state->round = round + 1;
	}
	state->position = position;
	return bpf_redirect(CONFIG.ifindex, 0);
}

char LICENSE[] SEC("license") = "MIT";
