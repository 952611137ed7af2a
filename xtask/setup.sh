# Set-up that ./demo and ./test share; sourced, not run. It installs what is missing and nothing else.

say() {
    printf '%s\n' "$*"
}

fail() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Runs a program to see that it is there and works: a package may be installed and broken.
works() {
    "$@" >/dev/null 2>&1 </dev/null
}

# Notes a package as missing unless the program that it is needed for runs.
missing=()
need() {
    local package=$1
    shift
    works "$@" || missing+=("$package")
}

install_missing() {
    missing=()
    need gcc gcc --version
    need libc6-dev sh -c 'echo "#include <stdio.h>" | gcc -E -xc - -o /dev/null'
    need binutils ld --version
    need make make --version
    need flex flex --version
    need bison bison --version
    need bc bc --version
    need mawk awk 'BEGIN { exit 0 }'
    need gzip gzip --version
    need xz-utils xz --version
    need diffutils cmp --version
    need locales test -f /usr/share/i18n/locales/tr_TR
    need perl perl -e 1
    need python3 python3 -c 0
    need procps ps --version
    need dpkg-dev dpkg-source --version
    need lsb-release lsb_release -i
    need qemu-system-x86 qemu-system-x86_64 --version
    need ca-certificates test -s /etc/ssl/certs/ca-certificates.crt
    if [ ${#missing[@]} -eq 0 ]; then
        say "Set-up: nothing to install."
        return
    fi
    works apt-get --version || fail "these Debian packages are missing, and there is no apt-get: ${missing[*]}"
    say "Set-up: installing these Debian packages with apt-get: ${missing[*]}"
    apt_get_update
    apt_get install --no-install-recommends "${missing[@]}" >/dev/null || fail "apt-get install failed"
}

# apt-get as root, without questions.
apt_get() {
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        works sudo -n true || say "Set-up: sudo may ask for your password."
        root=(sudo)
    fi
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o Dpkg::Use-Pty=0 -qq -y "$@" </dev/null
}

# The lists may be stale, or not there at all; an update that fails in part may still do.
updated=
apt_get_update() {
    [ -n "$updated" ] || apt_get update || say "Set-up: apt-get update failed; trying with the lists that are there."
    updated=yes
}

# The compiler of an older Xen, for a test that is skipped without it.
install_old_compiler() {
    works gcc-11 --version && return
    works apt-get --version || return 0
    say "Set-up: installing gcc-11 with apt-get, for Xen 4.14."
    apt_get_update
    apt_get install --no-install-recommends gcc-11 >/dev/null ||
        say "Set-up: gcc-11 cannot be had; what needs it is skipped."
}

# Programs that --launcher puts in front of the compiler, for tests that are skipped without them.
install_launchers() {
    local launchers=() name
    for name in ccache distcc; do
        works "$name" --version || launchers+=("$name")
    done
    [ ${#launchers[@]} -gt 0 ] && works apt-get --version || return 0
    say "Set-up: installing with apt-get, for tests of --launcher: ${launchers[*]}"
    apt_get_update
    apt_get install --no-install-recommends "${launchers[@]}" >/dev/null ||
        say "Set-up: these cannot be had; what needs them is skipped."
}

need_rust() {
    works cargo --version || fail "there is no Rust: install it from https://rustup.rs (1.88 or newer)"
    say "Set-up: $(cargo --version), $(gcc --version | head -n 1), $(nproc) processors."
}
