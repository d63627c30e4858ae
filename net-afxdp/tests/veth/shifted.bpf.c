/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause) */
/*
 * A program of others, for the tests: the sockets of the receive queues 0, 1, ... are in the slots
 * 5, 6, ... of its map.
 */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name

static long (*const bpf_redirect_map)(void *map, __u64 key, __u64 flags) =
	(void *)BPF_FUNC_redirect_map;

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u32);
} shifted_xsks SEC(".maps");

SEC("xdp")
int shifted(struct xdp_md *ctx)
{
	return bpf_redirect_map(&shifted_xsks, ctx->rx_queue_index + 5, XDP_PASS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
