# Sourced: what is done with an unpacked kernel package ("kernel directory": boot/, lib/modules/).
# shellcheck shell=bash

# kernel_version DIR: the version whose modules DIR holds.
kernel_version() {
    local dirs=("$1"/lib/modules/*)
    [[ ${#dirs[@]} == 1 && -d ${dirs[0]} ]] || die "$1 holds no kernel, or several; fetch one with tests/lab/fetch-kernel"
    basename "${dirs[0]}"
}

# extract_vmlinux BZIMAGE OUT: the ELF kernel inside a bzImage (x86 boot protocol 2.08, fields
# payload_offset and payload_length). It boots faster: an emulated CPU need not unpack it.
extract_vmlinux() {
    local image=$1 out=$2 setup_sects offset length start magic unpack trailer=4
    setup_sects=$(od -An -tu1 -j $((0x1f1)) -N1 "$image")
    offset=$(od -An -tu4 -j $((0x248)) -N4 "$image")
    length=$(od -An -tu4 -j $((0x24c)) -N4 "$image")
    ((setup_sects != 0)) || setup_sects=4
    start=$(((setup_sects + 1) * 512 + offset))
    magic=$(od -An -tx1 -j "$start" -N4 "$image" | tr -d ' \n')
    case $magic in
        fd377a58) unpack="xz -dc" ;;
        28b52ffd) unpack="zstd -dcq" ;;
        # The "legacy" frames of LZ4, as of `lz4 -l`.
        02214c18) unpack="lz4 -dcq" ;;
        # gzip's own trailer is the length that the build appends for the others.
        1f8b*) unpack="gzip -dc" trailer=0 ;;
        *) die "$image: the kernel inside is compressed in a way not known here (first bytes $magic)" ;;
    esac
    need "${unpack%% *}"
    dd if="$image" bs=64K iflag=skip_bytes,count_bytes skip="$start" count=$((length - trailer)) status=none |
        $unpack >"$out.part"
    [[ $(head -c 4 "$out.part" | od -An -tx1 | tr -d ' \n') == 7f454c46 ]] || die "$image: no ELF kernel inside"
    mv "$out.part" "$out"
}

# copy_modules KERNEL_DIR VERSION OUT_DIR MODULE...: copies the modules and what they need, unpacked, into
# OUT_DIR and writes OUT_DIR/order: one "NAME FILE" a line, in the order in which they must be loaded.
# A module that is built in, or that this kernel has not, is left out with a note.
copy_modules() {
    local dir=$1 version=$2 out=$3 module file plain list
    shift 3
    : >"$out/order"
    for module in "$@"; do
        if ! list=$(modprobe -d "$dir" -S "$version" --show-depends "$module" 2>/dev/null); then
            note "kernel $version has no module $module; left out"
            continue
        fi
        while read -r file; do
            plain=$(basename "$file")
            plain=${plain%.xz}
            plain=${plain%.zst}
            [[ -e $out/$plain ]] && continue
            case $file in
                *.xz) xz -dc "$file" >"$out/$plain" ;;
                *.zst) zstd -dcq "$file" >"$out/$plain" ;;
                *) cp "$file" "$out/$plain" ;;
            esac
            printf '%s %s\n' "$(module_name "$plain")" "$plain" >>"$out/order"
        done < <(awk '$1 == "insmod" { print $2 }' <<<"$list")
    done
}

# module_name FILE.ko: the name as the kernel writes it, with underscores.
module_name() {
    local name=${1%.ko}
    printf '%s' "${name//-/_}"
}

# pack_initramfs TREE OUT: an uncompressed newc archive, owned by root. Unpacking it under emulation would
# cost more than reading it.
pack_initramfs() {
    (cd "$1" && find . -print0 | LC_ALL=C sort -z | cpio --null --create --format=newc --owner=0:0 --quiet) >"$2.part"
    mv "$2.part" "$2"
}
