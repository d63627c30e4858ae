# Sourced: getting packages from Debian without installing them. The machine's apt state, its package database and
# /boot are not touched.
# shellcheck shell=bash

# What apt is called with; apt_private changes it.
apt_options=(-o APT::Sandbox::User=root)

# Where this machine gets Debian from: the first site of its own configuration that serves Debian's archive.
apt_mirror() {
    # shellcheck disable=SC2016 # these are apt's fields
    apt-get indextargets --format '$(SITE) $(ORIGIN)' 2>/dev/null | awk '$2 == "Debian" { print $1; exit }'
}

# apt_private [SUITE]: from now on apt has its own lists and cache under build/, with the machine's sources, or with
# SUITE of the machine's mirror alone.
apt_private() {
    local suite=${1:-} dir=$RINGWIRE_BUILD/apt site
    apt_options=(-o APT::Sandbox::User=root -o Acquire::Languages=none
        -o Dir::State::Lists="$dir/lists${suite:+-$suite}" -o Dir::Cache="$dir/cache")
    mkdir -p "$dir/lists${suite:+-$suite}/partial" "$dir/cache/archives/partial"
    [[ -n $suite ]] || return 0
    site=$(apt_mirror)
    [[ -n $site ]] || die "this machine's apt configuration names no Debian mirror to fetch $suite from"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$site" "$suite" \
        >"$dir/$suite.list"
    apt_options+=(-o Dir::Etc::SourceList="$dir/$suite.list" -o Dir::Etc::SourceParts=/dev/null)
}

# apt_private_source SUITE: from now on apt has, under build/, the source packages of SUITE of the machine's mirror.
apt_private_source() {
    local suite=$1 dir=$RINGWIRE_BUILD/apt
    apt_private "$suite"
    sed 's/^deb /deb-src /' "$dir/$suite.list" >"$dir/$suite-source.list"
    mkdir -p "$dir/lists-$suite-source/partial"
    apt_options+=(-o Dir::Etc::SourceList="$dir/$suite-source.list" -o Dir::State::Lists="$dir/lists-$suite-source")
}

apt_update() {
    note "reading the package lists into $RINGWIRE_BUILD/apt (the machine's own are left alone)"
    apt-get "${apt_options[@]}" -q update >&2 || die "apt could not read the package lists; see above"
}

# apt_candidate NAME PATTERN: the package that the meta package NAME depends on and that matches PATTERN, as
# "PACKAGE=VERSION"; fails if apt knows none.
apt_candidate() {
    local name version
    name=$(apt-cache "${apt_options[@]}" depends --important "$1" 2>/dev/null |
        awk -v pattern="$2" '$1 == "Depends:" && $2 ~ pattern { print $2; exit }')
    [[ -n $name ]] || return 1
    version=$(apt-cache "${apt_options[@]}" policy "$name" | awk '$1 == "Candidate:" { print $2 }')
    [[ -n $version && $version != "(none)" ]] || return 1
    printf '%s=%s' "$name" "$version"
}

# apt_unpacked NAME PATTERN [SUITE]: sets apt_dir to a directory under build/packages/ that holds the unpacked package
# (see apt_candidate). What was fetched before is not fetched again.
apt_unpacked() {
    local name=$1 pattern=$2 suite=${3:-} wanted
    need apt-get apt-cache dpkg
    if [[ -n $suite ]] || ! wanted=$(apt_candidate "$name" "$pattern"); then
        apt_private "$suite"
        wanted=$(apt_candidate "$name" "$pattern") || { apt_update && wanted=$(apt_candidate "$name" "$pattern"); } ||
            die "apt knows no $name${suite:+ in $suite}"
    fi
    apt_fetch "$wanted" && return
    # The lists may be older than the mirror.
    apt_private "$suite"
    apt_update
    wanted=$(apt_candidate "$name" "$pattern") || die "apt knows no $name${suite:+ in $suite}"
    apt_fetch "$wanted" || die "could not download $wanted; see above"
}

# apt_fetch_newest PACKAGE: apt_fetch of the newest version that apt knows, after apt_private.
apt_fetch_newest() {
    apt_fetch "$(apt_version "$1")" && return
    apt_update
    apt_fetch "$(apt_version "$1")" || die "could not download $1; see above"
}

# apt_version PACKAGE: the newest version that apt knows, as "PACKAGE=VERSION".
apt_version() {
    local version
    version=$(apt-cache "${apt_options[@]}" policy "$1" | awk '$1 == "Candidate:" { print $2 }')
    printf '%s=%s' "$1" "$version"
}

# apt_fetch PACKAGE=VERSION: downloads and unpacks it, if that was not done before; sets apt_dir.
apt_fetch() {
    local wanted=$1 work
    apt_dir=$RINGWIRE_BUILD/packages/${wanted/=/_}
    [[ ! -d $apt_dir ]] || return 0
    step "Fetching Debian's package ${wanted/=/ }"
    mkdir -p "$RINGWIRE_BUILD/packages"
    work=$(mktemp -d "$RINGWIRE_BUILD/packages/.fetch.XXXXXX")
    if ! (cd "$work" && apt-get "${apt_options[@]}" -q download "$wanted" >&2 && dpkg -x ./*.deb tree); then
        rm -rf "$work"
        return 1
    fi
    # Another run may have been faster.
    mv -T "$work/tree" "$apt_dir" 2>/dev/null || true
    rm -rf "$work"
}
