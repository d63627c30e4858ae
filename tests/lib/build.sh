# Sourced: building with cargo, and finding what was built.
# shellcheck shell=bash

# executables build|test OPTION...: builds (release), and prints the executables that cargo made, one a line.
# cargo tells where they are: the target directory may be anywhere.
executables() {
    cargo "$@" --locked --release --message-format=json-render-diagnostics |
        jq -r 'select(.reason == "compiler-artifact" and .executable != null) | .executable'
}

# build_ringwire: the ringwire program.
build_ringwire() {
    (cd "$RINGWIRE_TOP" && executables build --package vmm --bin ringwire)
}
