# Shared by the scripts: words to the person, and what the machine must have. Sourced, not run.
# shellcheck shell=bash
# shellcheck disable=SC2034 # the scripts that source this use them

# Colours only for a person at a terminal.
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\033[1m' dim=$'\033[2m' red=$'\033[31m' green=$'\033[32m' plain=$'\033[0m'
else
    bold='' dim='' red='' green='' plain=''
fi

# These exit codes are the same in all scripts.
readonly EXIT_FAILED=1 EXIT_MISSING=3

step() { printf '\n%s==> %s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s    %s%s\n' "$dim" "$*" "$plain"; }
good() { printf '%s    %s%s\n' "$green" "$*" "$plain"; }

die() {
    local code=$1
    shift
    printf '%serror: %s%s\n' "$red" "$*" "$plain" >&2
    exit "$code"
}

have() { command -v "$1" >/dev/null 2>&1; }

# Run as root, with sudo when we are not and it is there.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        return 1
    fi
}

# The directory of initdb of the newest Postgres here; nothing when there is none.
postgres_bin_dir() {
    local dir best='' best_major=0 major
    for dir in "${PGBIN:-}" \
        "$(pg_config --bindir 2>/dev/null || true)" \
        /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin \
        /Applications/Postgres.app/Contents/Versions/*/bin \
        /usr/local/pgsql/bin /usr/local/bin /usr/bin; do
        if [ ! -x "$dir/initdb" ] || [ ! -x "$dir/postgres" ]; then continue; fi
        major=$("$dir/postgres" --version | sed -n 's/.*) \([0-9]*\).*/\1/p')
        if [ "${major:-0}" -ge 14 ] && [ "${major:-0}" -gt "$best_major" ]; then
            best=$dir best_major=$major
        fi
    done
    [ -z "$best" ] || printf '%s\n' "$best"
}

# Names of the things that are not here. libgit2 is compiled from source, which needs a C compiler.
missing_tools() {
    local tool
    for tool in git python3 curl; do
        have "$tool" || printf '%s\n' "$tool"
    done
    have cc || have gcc || have clang || printf 'c-compiler\n'
    have pkg-config || printf 'pkg-config\n'
    [ -n "$(postgres_bin_dir)" ] || printf 'postgresql\n'
}

# The packages of a list of missing things, for a package manager.
packages_for() {
    local manager=$1 thing
    shift
    for thing in "$@"; do
        case "$manager:$thing" in
            apt:c-compiler) printf 'gcc\nlibc6-dev\nmake\n' ;;
            apt:git) printf 'git\nca-certificates\n' ;;
            # The server starts by itself on Debian; nothing here uses or touches that one.
            apt:postgresql) printf 'postgresql\npostgresql-client\n' ;;
            brew:c-compiler) ;; # comes with the command line tools of Xcode
            brew:pkg-config) printf 'pkgconf\n' ;;
            brew:postgresql) printf 'postgresql@17\n' ;;
            *) printf '%s\n' "$thing" ;;
        esac
    done
}

# Install what is missing, or say exactly what to install and give up.
ensure_tools() {
    local missing packages
    mapfile_into missing missing_tools
    [ "${#missing[@]}" -gt 0 ] || return 0
    step "Installing what is missing: ${missing[*]}"
    if have apt-get && { [ "$(id -u)" = 0 ] || have sudo; }; then
        mapfile_into packages packages_for apt "${missing[@]}"
        as_root apt-get update -q </dev/null || note "apt-get update failed; trying with the lists that are here"
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
            "${packages[@]}" </dev/null || true
    elif have brew; then
        mapfile_into packages packages_for brew "${missing[@]}"
        [ "${#packages[@]}" = 0 ] || brew install "${packages[@]}" </dev/null || true
    fi
    mapfile_into missing missing_tools
    [ "${#missing[@]}" = 0 ] || die "$EXIT_MISSING" \
        "please install with your system's package manager, then run this again: ${missing[*]} (postgresql: server programs of version 14 or newer)"
}

# A pooler, for the test that goes through one; that test says that it is skipped without it.
# Debian keeps it in /usr/sbin, which a user's PATH does not have.
ensure_pooler() {
    local PATH=$PATH:/usr/sbin:/opt/homebrew/bin
    have pgbouncer && return 0
    step "Installing pgbouncer"
    if have apt-get && { [ "$(id -u)" = 0 ] || have sudo; }; then
        as_root apt-get update -q </dev/null || true
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends pgbouncer </dev/null || true
    elif have brew; then
        brew install pgbouncer </dev/null || true
    fi
    have pgbouncer || note "pgbouncer is not installed: the test with a pooler is skipped"
}

# The best sandbox for agents, on Linux; without it workers use Landlock, and say so.
ensure_sandbox() {
    [ "$(uname -s)" = Linux ] || return 0
    have bwrap && return 0
    step "Installing bubblewrap"
    if have apt-get && { [ "$(id -u)" = 0 ] || have sudo; }; then
        as_root apt-get update -q </dev/null || true
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends bubblewrap </dev/null || true
    fi
    have bwrap || note "bubblewrap is not installed: agents are confined by Landlock alone"
}

# mapfile for the bash 3.2 of macOS: fill the named array with the lines a command prints.
mapfile_into() {
    local name=$1 line
    shift
    eval "$name=()"
    while IFS= read -r line; do
        eval "$name+=(\"\$line\")"
    done < <("$@")
}

# A Rust toolchain that can build this; rustup fetches the one of rust-toolchain.toml by itself.
ensure_rust() {
    local wanted=95 version minor
    [ -d "${CARGO_HOME:-$HOME/.cargo}/bin" ] && PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    if ! have cargo || ! have rustc; then die "$EXIT_MISSING" \
        "no Rust toolchain: install Rust 1.$wanted or newer from https://rustup.rs, then run this again"; fi
    version=$(rustc --version) || die "$EXIT_MISSING" "rustc does not run; see above (rust-toolchain.toml names the version)"
    minor=$(printf '%s' "$version" | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
    [ "${minor:-0}" -ge "$wanted" ] || die "$EXIT_MISSING" \
        "$version is too old: install Rust 1.$wanted or newer (rustup update, or https://rustup.rs)"
}
