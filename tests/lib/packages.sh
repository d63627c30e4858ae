# Sourced: installing Debian packages.
# shellcheck shell=bash

# missing_packages PACKAGE...: those that are not installed, one a line.
missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            printf '%s\n' "$package"
    done
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@" >&2
}

# install_packages PACKAGE...: installs those that are not there yet; run again, it does nothing. Packages come from
# where the machine's apt configuration says.
install_packages() {
    local missing
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]} > 0)) || return 0
    command -v apt-get >/dev/null || die "this is not Debian; install by other means what Debian calls: ${missing[*]}"
    ((EUID == 0)) || die "packages are missing and this is not root. As root: apt-get install ${missing[*]}"
    step "Installing ${#missing[@]} packages: ${missing[*]}"
    # The lists may be missing or older than the mirror: read them only then.
    apt_install "${missing[@]}" || {
        step "Reading apt's package lists and trying again"
        apt-get -q update >&2 || die "'apt-get update' failed; see above"
        apt_install "${missing[@]}" || die "apt could not install the packages; see above"
    }
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]} == 0)) || die "apt reported success, but these are not installed: ${missing[*]}"
}
