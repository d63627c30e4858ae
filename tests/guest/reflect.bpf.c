/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause) */
/*
 * A guest's own program on its virtio-net card, for the tests: frames of the Ethertype for local
 * experiments go back to where they came from, all others pass.
 */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))

struct ethernet {
	__u8 destination[6];
	__u8 source[6];
	__u8 type[2];
};

SEC("xdp")
int reflect(struct xdp_md *ctx)
{
	struct ethernet *frame = (void *)(long)ctx->data;
	int i;

	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	if (frame->type[0] != 0x88 || frame->type[1] != 0xb5)
		return XDP_PASS;
	for (i = 0; i < 6; i++) {
		__u8 byte = frame->destination[i];

		frame->destination[i] = frame->source[i];
		frame->source[i] = byte;
	}
	return XDP_TX;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
