# Sourced: building with cargo, and finding what was built.
# shellcheck shell=bash

# executables KIND build|test OPTION...: builds (release), and prints the executables of KIND (bin, test) that cargo
# made, one a line.
# cargo tells where they are: the target directory may be anywhere.
executables() {
    local kind=$1
    shift
    cargo "$@" --locked --release --message-format=json-render-diagnostics |
        jq -r --arg kind "$kind" \
            'select(.reason == "compiler-artifact" and .executable != null and .target.kind == [$kind]) | .executable'
}

# build_ringwire: the ringwire program.
build_ringwire() {
    (cd "$RINGWIRE_TOP" && executables bin build --package vmm --bin ringwire)
}
