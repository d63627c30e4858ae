# Sourced: building with cargo, and finding what was built.
# shellcheck shell=bash

# executables KIND build|test OPTION...: builds (release), and prints the executables of KIND (bin, test) that cargo
# made, one a line.
# cargo tells where they are: the target directory may be anywhere.
executables() { built_executables "$@" --release; }

# built_executables KIND build|test OPTION...: the same in the profile that the options say, debug if none.
built_executables() {
    local kind=$1
    shift
    cargo "$@" --locked --message-format=json-render-diagnostics |
        jq -r --arg kind "$kind" \
            'select(.reason == "compiler-artifact" and .executable != null and .target.kind == [$kind]) | .executable'
}

# build_ringwire: the ringwire program.
build_ringwire() {
    (cd "$RINGWIRE_TOP" && executables bin build --package vmm --bin ringwire)
}

# guests_cargo COMMAND OPTION...: cargo in tests/guests, which is a workspace of its own.
guests_cargo() {
    local command=$1
    shift
    cargo "$command" --locked --manifest-path "$RINGWIRE_TOP/tests/guests/Cargo.toml" \
        --target-dir "${CARGO_TARGET_DIR:-$RINGWIRE_TOP/target}/guests" "$@"
}

# build_bare_guest [NAME]: a bare guest; without a name the one that sends, receives and forwards.
build_bare_guest() {
    local target=${CARGO_TARGET_DIR:-$RINGWIRE_TOP/target} name=${1:-traffic}
    guests_cargo build --release --bin "$name" >&2
    printf '%s\n' "$target/guests/release/$name"
}

# xsk_object: the XDP program of net-afxdp as an object file, for tests that attach one as others would.
xsk_object() {
    (cd "$RINGWIRE_TOP" && cargo build --locked --release --package vmm --bin ringwire --message-format=json-render-diagnostics) |
        jq -r 'select(.reason == "build-script-executed" and (.package_id | test("net-afxdp"))) | .out_dir + "/xsk.bpf.o"'
}
