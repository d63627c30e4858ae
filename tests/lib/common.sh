# Sourced by the scripts under tests/: where things are, and how to speak.
# shellcheck shell=bash

# The project's top directory, absolute.
RINGWIRE_TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Everything that is generated goes here; `make clean` removes it.
RINGWIRE_BUILD=${RINGWIRE_BUILD:-$RINGWIRE_TOP/build}
export RINGWIRE_TOP RINGWIRE_BUILD

# What programs print is read here, and some of them translate it (apt, ping) or write 0,5 for 0.5.
export LC_ALL=C.UTF-8
unset LANGUAGE
# `su` leaves the directories out in which depmod and ip are; a shell that was started before rustup ran knows nothing of cargo.
for directory in /usr/sbin /sbin "${HOME:-/root}/.cargo/bin"; do
    [[ :$PATH: == *:$directory:* ]] || PATH+=:$directory
done
export PATH
unset directory

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
