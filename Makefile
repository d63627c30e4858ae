# Everything that people and CI do with this tree. The work is done by cargo and by the scripts under tests/.

.DEFAULT_GOAL := help
.PHONY: help setup build test lint demo bench bench-qemu bench-lab fuzz mutants soak guest-kernel clean
# One step after the other even under -j: cargo uses all CPUs by itself, and the lab needs them too.
.NOTPARALLEL:

# rustup puts cargo here; a shell that was started before knows nothing of it.
export PATH := $(PATH):$(HOME)/.cargo/bin
export CARGO_TERM_COLOR ?= auto

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the Debian packages that are missing (as root)
	@tests/setup

build: setup ## build the ringwire command (release)
	cargo build --locked --release --package vmm

test: setup ## all tests; those with guests run under this machine's KVM or in the lab
	@tests/test

lint: setup ## formatting, clippy, documentation, dependencies, shell scripts
	@tests/lint

demo: build ## boot a Debian kernel on a veth pair, ping, iperf3, and print a table
	@tests/demo/make-demo

bench: setup ## frames a second on veth, raw and by a guest, beside AF_PACKET and DPDK; start, memory (16 minutes)
	@tests/bench/bench raw

bench-qemu: setup ## the same guest under a QEMU built with -netdev af-xdp (12 minutes, the first time 15 more)
	@tests/bench/bench qemu

bench-lab: setup ## Linux guests with iperf3, beside QEMU with tap and af-xdp, in the lab if need be (10 minutes)
	@tests/bench/bench lab

T ?=
fuzz: TIME ?= 60
fuzz: setup ## fuzz T=target (all, if it is empty) for TIME=seconds each: see docs/fuzzing.md
	@tests/fuzz $(TIME) $(T)

mutants: NUMBER ?= 180
mutants: setup ## change the code in NUMBER=180 small ways drawn by SEED=1, and count what the plain tests notice (2 hours): see docs/mutants.md
	@tests/mutants "$(or $(SEED),1)" "$(NUMBER)"

SEED ?=
LAB ?=
soak: TIME ?= 1200
soak: setup ## hostile and Linux guests, restless interfaces, for TIME=seconds (20 minutes), at random; again with its SEED=number; LAB=1: in the lab; CARDS=1: on its cards
	@tests/soak/soak $(TIME) "$(SEED)" $(if $(CARDS),cards,$(if $(LAB),lab))

guest-kernel: build ## build the guest kernel of kernel-configs/ and boot it (about 15 minutes)
	@tests/guest/make-kernel

clean: ## remove what was built and fetched
	cargo clean
	rm -rf build
