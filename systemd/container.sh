# For boot-test.sh and package-test.sh: a Debian root that is made once, a copy of it that systemd boots, and words to ask it with.
# Sourced by a script that has set `test` to its name.
#
# The first argument of the script may be --install: get what is missing with apt-get first, and fail where the test cannot run (for
# CI). Needs root, systemd-nspawn and debootstrap (apt-get install systemd-container debootstrap); without them the script says so
# and ends with exit code 0. The root is kept in $XDG_CACHE_HOME/shmd-boot, or /var/cache/shmd-boot.

require=no
if [ "${1:-}" = --install ]; then
    require=yes
    shift
fi
suite=bookworm
cache=${XDG_CACHE_HOME:-/var/cache}/shmd-boot
base=$cache/$suite

say() { echo "$test: $*"; }
fail() {
    echo "$test: FAILED: $*" >&2
    exit 1
}
skip() {
    [ "$require" = no ] || fail "$1"
    echo "$test: skipped: $1"
    exit 0
}
[ "$(id -u)" = 0 ] || skip "only root can boot a container"
if [ "$require" = yes ] && ! { command -v systemd-nspawn && command -v debootstrap; } >/dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends systemd-container debootstrap
fi
for tool in systemd-nspawn debootstrap nsenter; do
    command -v "$tool" >/dev/null || skip "$tool is missing (apt-get install systemd-container debootstrap)"
done

work=$(mktemp -d)
root=$work/root
nspawn=
inner=
cleanup() {
    status=$?
    if [ "$status" != 0 ] && [ -n "$inner" ]; then
        echo "$test: the journal's end:" >&2
        inside journalctl --no-pager -n 60 >&2 || true
    fi
    if [ -n "$nspawn" ] && kill -0 "$nspawn" 2>/dev/null; then
        kill "$nspawn" 2>/dev/null || true
        for _ in $(seq 100); do
            kill -0 "$nspawn" 2>/dev/null || break
            sleep 0.1
        done
        kill -9 "$nspawn" 2>/dev/null || true
        wait "$nspawn" 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# A root of its own, in $root.
make_root() {
    # One script at a time makes the root, and no script copies a half-made root.
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
    if [ ! -e "$base/.complete" ]; then
        say "making a $suite root in $base"
        rm -rf "$base"
        debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps "$suite" "$base" >"$cache/debootstrap.log" 2>&1 ||
            skip "debootstrap failed: $(tail -n 1 "$cache/debootstrap.log")"
        # The packages' archives are of no use here.
        rm -rf "$base"/var/cache/apt/archives/*.deb
        touch "$base/.complete"
    fi
    exec 9>&-
    cp -a "$base" "$root"
}

# Boots it, and waits until everything that is enabled was started.
boot() {
    systemd-nspawn -q -D "$root" --register=no --keep-unit --link-journal=no --private-network --console=pipe \
        --machine="${test%.sh}-$$" /lib/systemd/systemd >"$work/console" 2>&1 </dev/null &
    nspawn=$!
    for _ in $(seq 300); do
        kill -0 "$nspawn" 2>/dev/null || {
            cat "$work/console" >&2
            skip "systemd-nspawn does not start here: $(tail -n 1 "$work/console")"
        }
        inner=$(pgrep -P "$nspawn" | head -n 1) && [ -n "$inner" ] &&
            inside systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded' && break
        sleep 0.1
    done
    [ -n "$inner" ] || fail "the container has no first process"
}

inside() { nsenter -t "$inner" -m -u -i -n -p -- "$@"; }
# as USER COMMAND...: with the user's groups.
as() {
    local user=$1
    shift
    inside runuser -u "$user" -- "$@"
}
# until_so WHAT COMMAND...: tries until it succeeds.
until_so() {
    local what=$1
    shift
    for _ in $(seq 600); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    fail "waited in vain until $what"
}
# prints PATTERN COMMAND...: whether the command prints it. Not a pipe: grep -q ends at the first match, and the command,
# killed by SIGPIPE, would make the pipe fail now and then.
prints() {
    local pattern=$1 said
    shift
    said=$("$@" 2>&1) || true
    grep -q -- "$pattern" <<<"$said"
}
# ends_with CODE COMMAND...: the exit code of a command. What the command says is in $said.
ends_with() {
    local wanted=$1 code=0
    shift
    said=$("$@" 2>&1) || code=$?
    [ "$code" = "$wanted" ] || fail "exit code $code instead of $wanted: $*: $said"
}
# Of shmd.service, if no unit is named.
property() { inside systemctl show -P "$1" "${2:-shmd.service}"; }
main_pid() { property MainPID "$@"; }
active() { [ "$(property ActiveState "$@")" = active ]; }
restarts_are() { [ "$(property NRestarts)" = "$1" ] && active; }
