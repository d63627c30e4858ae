# Sourced by the scripts under tests/: where things are, and how to speak.
# shellcheck shell=bash

# The project's top directory, absolute.
RINGWIRE_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Everything that is generated goes here; `make clean` removes it.
RINGWIRE_BUILD=${RINGWIRE_BUILD:-$RINGWIRE_TOP/build}
export RINGWIRE_TOP RINGWIRE_BUILD

# step TEXT...: says what is done now. On stderr: stdout is for results.
step() { printf '\n==> %s\n' "$*" >&2; }

# note TEXT...: a detail of the current step.
note() { printf '    %s\n' "$*" >&2; }

# die TEXT...: ends the script with the reason.
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# need TOOL...: every tool must be there, or the script ends saying which is not.
need() {
    local tool missing=()
    for tool in "$@"; do
        command -v "$tool" >/dev/null 2>&1 || missing+=("$tool")
    done
    ((${#missing[@]} == 0)) || die "not installed: ${missing[*]}. Run 'make setup' as root first."
}
