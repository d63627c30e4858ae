# Sourced: Debian's kernel source, and a configuration made from the fragment in kernel-configs/.
# shellcheck shell=bash
. "$RINGWIRE_TOP/tests/lib/apt.sh"

# The fragment of this project for the guests' architecture.
fragment=$RINGWIRE_TOP/kernel-configs/x86_64.config

# kernel_source OUT [PATTERN...]: unpacks the kernel source that apt gives into OUT; with patterns, only the files that match.
kernel_source() {
    local out=$1
    shift
    [[ ! -e $out/.complete ]] || return 0
    need xz tar
    apt_unpacked linux-source '^linux-source-[0-9]'
    note "unpacking $(basename "$apt_dir")"
    rm -rf "$out"
    mkdir -p "$out"
    xz -dc -T0 "$apt_dir"/usr/src/linux-source-*.tar.xz |
        tar -x -C "$out" --strip-components=1 --wildcards ${1+"$@"}
    touch "$out/.complete"
}

# configure SOURCE OUT: writes OUT/.config from nothing but the fragment and what it depends on.
configure() {
    local source=$1 out=$2
    need flex bison gcc make
    mkdir -p "$out"
    make -s -C "$source" O="$out" ARCH=x86 KCONFIG_ALLCONFIG="$fragment" allnoconfig >&2
    make -s -C "$source" O="$out" ARCH=x86 olddefconfig >&2
}

# lost_options CONFIG: the fragment's lines that CONFIG does not have.
lost_options() {
    local line
    grep -E '^(CONFIG_|# CONFIG_[A-Z0-9_]+ is not set)' "$fragment" | while read -r line; do
        case $line in
            # What is off may also not be mentioned at all.
            '# '*) ! grep -q "^$(cut -d ' ' -f 2 <<<"$line")=" "$1" || printf '%s\n' "$line" ;;
            *) grep -qxF "$line" "$1" || printf '%s\n' "$line" ;;
        esac
    done
}
