/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause) */
/*
 * Sends every frame of a receive queue to the AF_XDP socket that user space put into the slot of
 * that queue, and leaves the frames of queues without a socket to the kernel's own network stack.
 *
 * Needs no libbpf headers, so that it builds with clang and the kernel's user-space headers alone.
 */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name

/* linux/bpf.h, "long bpf_redirect_map(struct bpf_map *map, u64 key, u64 flags)". */
static long (*const bpf_redirect_map)(void *map, __u64 key, __u64 flags) =
	(void *)BPF_FUNC_redirect_map;

/*
 * Indexed by the receive queue. The loader sets max_entries to the number of queues that the
 * interface has before it loads the object.
 */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} ringwire_xsks SEC(".maps");

SEC("xdp")
int ringwire_xsk(struct xdp_md *ctx)
{
	/*
	 * The lower bits of flags are the verdict when the slot is empty (Linux 5.3), which saves
	 * a lookup per frame.
	 */
	return bpf_redirect_map(&ringwire_xsks, ctx->rx_queue_index, XDP_PASS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
