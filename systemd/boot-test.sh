#!/bin/bash
# Boots a Debian root in systemd-nspawn with shmd installed as its service, and looks at what an operator would see: start,
# status, a reader of the right group, an outsider, reload, SIGKILL and a hang with automatic restart, stop, leftovers; then
# the same daemon without systemd, in the background.
#
# Usage: boot-test.sh [--install] [DIRECTORY-OF-BINARIES]      (default: target/release beside this directory)
#   --install   get what is missing with apt-get first, and fail where the test cannot run (for CI)
#
# Needs root, systemd-nspawn and debootstrap (apt-get install systemd-container debootstrap); without them it says so and is
# skipped with exit code 0. The root is made once and kept in $XDG_CACHE_HOME/shmd-boot, or
# /var/cache/shmd-boot.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
require=no
if [ "${1:-}" = --install ]; then
    require=yes
    shift
fi
binaries=${1:-${CARGO_TARGET_DIR:-$here/../target}/release}
suite=bookworm
cache=${XDG_CACHE_HOME:-/var/cache}/shmd-boot
base=$cache/$suite
machine=shmd-boot-$$

skip() {
    if [ "$require" = yes ]; then
        echo "boot-test.sh: FAILED: $1" >&2
        exit 1
    fi
    echo "boot-test.sh: skipped: $1"
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
for program in shmd shmctl; do
    [ -x "$binaries/$program" ] || skip "$binaries/$program is missing (cargo build --release)"
done

# One at a time makes the root, and none copies a half-made one.
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
if [ ! -e "$base/.complete" ]; then
    echo "boot-test.sh: making a $suite root in $base"
    rm -rf "$base"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps "$suite" "$base" >"$cache/debootstrap.log" 2>&1 ||
        skip "debootstrap failed: $(tail -n 1 "$cache/debootstrap.log")"
    # The packages' archives are of no use here.
    rm -rf "$base"/var/cache/apt/archives/*.deb
    touch "$base/.complete"
fi
exec 9>&-

work=$(mktemp -d)
root=$work/root
nspawn=
inner=
cleanup() {
    status=$?
    if [ "$status" != 0 ] && [ -n "$inner" ]; then
        echo "boot-test.sh: the journal's end:" >&2
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

say() { echo "boot-test.sh: $*"; }
fail() {
    echo "boot-test.sh: FAILED: $*" >&2
    exit 1
}
inside() { nsenter -t "$inner" -m -u -i -n -p -- "$@"; }
# as USER COMMAND...: with the user's groups.
as() {
    local user=$1
    shift
    inside runuser -u "$user" -- "$@"
}
# until WHAT COMMAND...: tries until it succeeds.
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
main_pid() { inside systemctl show -P MainPID shmd.service; }
property() { inside systemctl show -P "$1" shmd.service; }
active() { [ "$(property ActiveState)" = active ]; }
restarts_are() { [ "$(property NRestarts)" = "$1" ] && active; }

say "installing"
cp -a "$base" "$root"
install -D -m 755 "$binaries/shmd" "$binaries/shmctl" -t "$root/usr/bin"
install -D -m 644 "$here/shmd.service" -t "$root/usr/lib/systemd/system"
install -D -m 644 "$here/shmd.conf" -t "$root/usr/lib/sysusers.d"
mkdir -p "$root/etc/systemd/system/shmd.service.d" "$root/etc/shmd"
# Three seconds are long enough for a loaded machine and short enough to wait for.
printf '[Service]\nWatchdogSec=3\nSupplementaryGroups=video\n' >"$root/etc/systemd/system/shmd.service.d/test.conf"
cat >"$root/etc/shmd/shmd.toml" <<'TOML'
[[channel]]
name = "main"
group = "video"
write = ["writer"]
TOML
chroot "$root" systemd-sysusers
chroot "$root" useradd -M member -G video
chroot "$root" useradd -M outsider
chroot "$root" useradd -M writer
systemctl --root="$root" enable shmd.service >/dev/null 2>&1

say "booting"
systemd-nspawn -q -D "$root" --register=no --keep-unit --link-journal=no --private-network --console=pipe \
    --machine="$machine" /lib/systemd/systemd >"$work/console" 2>&1 </dev/null &
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

say "start"
until_so "shmd is active" active
pid=$(main_pid)
[ "$(inside ps -o user= -p "$pid")" = shmd ] || fail "shmd does not run as user shmd"
prints 'Status: "1 channel, 0 readers, 0 writers"' inside systemctl status --no-pager shmd.service ||
    fail "the status line is not in systemctl status"
inside test -S /run/shmd/shmd.sock || fail "no socket"
[ "$(inside stat -c '%U %G %a' /dev/shm/shmd.main)" = "shmd video 640" ] || fail "the object's owner, group or mode"

say "a member of the group reads, and the daemon sees who it is"
as member shmctl read -n 1 >"$work/read" &
reading=$!
until_so "the reader is attached" prints ' shmctl  *member ' inside shmctl --runtime-dir /run/shmd stat
until_so "the status line counts the reader" prints '1 channel, 1 reader, 0 writers' property StatusText
echo "across users" | as writer shmctl write
wait "$reading"
[ "$(cat "$work/read")" = "across users" ] || fail "the member read $(cat "$work/read")"

say "an outsider is refused"
set +e
said=$(as outsider shmctl read -n 1 2>&1)
code=$?
set -e
[ "$code" = 77 ] || fail "exit code $code instead of 77: $said"
grep -q outsider <<<"$said" || fail "the refusal does not name the user: $said"
as outsider shmctl reload 2>/dev/null && fail "an outsider may reload"

say "reload"
printf '[[channel]]\nname = "second"\nread = ["outsider"]\n' >"$work/second"
inside mkdir -p /etc/shmd/shmd.d
inside sh -c 'cat >/etc/shmd/shmd.d/second.toml' <"$work/second"
inside systemctl reload shmd.service
prints second as outsider shmctl list || fail "the new channel is not there"
[ "$(main_pid)" = "$pid" ] || fail "the reload restarted the daemon"
inside sh -c 'echo "mistake = 1" >/etc/shmd/shmd.d/second.toml'
inside systemctl reload shmd.service 2>/dev/null && fail "a broken configuration was taken"
active || fail "a broken configuration ended the service"
prints 'second.toml:1' inside journalctl --no-pager -u shmd || fail "the journal does not name the line"
prints reload-failed inside journalctl --no-pager -u shmd -p err || fail "the journal does not know the priority"
inside rm /etc/shmd/shmd.d/second.toml
inside systemctl reload shmd.service
inside test ! -e /dev/shm/shmd.second || fail "the removed channel's object is left"

say "SIGKILL and automatic restart"
inside kill -KILL "$pid"
until_so "shmd is back" restarts_are 1
prints main as member shmctl list || fail "no channel after the restart"

say "a hang and the watchdog"
inside kill -STOP "$(main_pid)"
until_so "the watchdog has restarted it" restarts_are 2
prints 'Watchdog timeout' inside journalctl --no-pager -u shmd || fail "the journal does not speak of the watchdog"
prints main as member shmctl list || fail "no channel after the watchdog's restart"

say "a bad configuration is not tried again"
inside systemctl stop shmd.service
inside sh -c 'echo "mistake = 1" >/etc/shmd/shmd.d/bad.toml'
inside systemctl start shmd.service 2>/dev/null && fail "started with a bad configuration"
[ "$(property ExecMainStatus)" = 78 ] || fail "exit code $(property ExecMainStatus) instead of 78"
[ "$(property ActiveState)" = failed ] || fail "state $(property ActiveState) instead of failed"
prints 'bad.toml:1' inside journalctl --no-pager -u shmd -p err || fail "the journal does not know the reason as an error"
inside rm /etc/shmd/shmd.d/bad.toml
inside systemctl reset-failed shmd.service
inside systemctl start shmd.service

say "stop"
inside systemctl stop shmd.service
[ "$(property Result)" = success ] || fail "stopping ended with $(property Result)"
left_behind() { inside sh -c 'ls -A /dev/shm; ls -d /run/shmd /run/shmd.pid 2>/dev/null || true'; }
[ -z "$(left_behind)" ] || fail "left behind: $(left_behind)"

say "in the background, with syslog"
background() { inside shmd --daemonize --pid-file /run/shmd.pid "$@"; }
background || fail "--daemonize ended with $?"
pid=$(inside cat /run/shmd.pid)
prints main inside shmctl list || fail "no channel in the background"
set +e
said=$(background 2>&1)
code=$?
set -e
[ "$code" = 1 ] && grep -q "another shmd (pid $pid," <<<"$said" || fail "a second one in the background: $code $said"
inside sh -c 'echo "mistake = 1" >/etc/shmd/shmd.d/bad.toml'
inside kill -HUP "$pid"
until_so "syslog has the failed reload as an error" prints reload-failed inside journalctl --no-pager -t shmd _PID="$pid" -p err
inside rm /etc/shmd/shmd.d/bad.toml
inside kill "$pid"
until_so "the background daemon has gone" inside test ! -e /run/shmd.pid
until_so "nothing is left behind" test -z "$(left_behind)"
say "passed"
