#!/bin/bash
# Boots a Debian root in systemd-nspawn with shmd installed as its service, and looks at what an operator would see: start,
# status, a reader of the right group, an outsider, reload, sources, reexec, SIGKILL and a hang with automatic restart, stop, leftovers;
# then the same daemon without systemd, in the background.
#
# Usage: boot-test.sh [--install] [DIRECTORY-OF-BINARIES]      (default: target/release beside this directory)
#   --install   get what is missing with apt-get first, and fail where the test cannot run (for CI)
#
# container.sh says what is needed, and what happens without it.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
test=boot-test.sh
. "$here/container.sh"
binaries=${1:-${CARGO_TARGET_DIR:-$here/../target}/release}
for program in shmd shmctl; do
    [ -x "$binaries/$program" ] || skip "$binaries/$program is missing (cargo build --release)"
done

say "installing"
make_root
install -D -m 755 "$binaries/shmd" "$binaries/shmctl" -t "$root/usr/bin"
install -D -m 644 "$here"/*.{service,socket} -t "$root/usr/lib/systemd/system"
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
# The service brings its socket with it.
systemctl --root="$root" enable shmd.service shmd-metrics.socket >/dev/null 2>&1

say "booting"
boot

say "start"
until_so "shmd is active" active
pid=$(main_pid)
[ "$(inside ps -o user= -p "$pid")" = shmd ] || fail "shmd does not run as user shmd"
prints 'Status: "1 channel, 0 readers, 0 writers"' inside systemctl status --no-pager shmd.service ||
    fail "the status line is not in systemctl status"
[ "$(inside stat -c '%F %U %G %a' /run/shmd/shmd.sock)" = "socket shmd shmd 666" ] || fail "the socket's owner, group or mode"
active shmd.socket || fail "shmd.socket is not active"
prints kept_by=systemd inside journalctl --no-pager -u shmd || fail "the daemon has not taken systemd's socket"
[ "$(inside stat -c '%U %G %a' /dev/shm/shmd.main)" = "shmd video 640" ] || fail "the object's owner, group or mode"

say "metrics over TCP and over a Unix socket, from a service without network"
scrape() {
    inside bash -c 'exec 3<>/dev/tcp/127.0.0.1/9837 && printf "GET /metrics HTTP/1.1\r\n\r\n" >&3 && cat <&3'
}
until_so "the metrics are served" prints '^shmd_up 1' scrape
prints '^shmd_channel_capacity_bytes{channel="main"}' scrape || fail "no channel in the metrics: $(scrape)"
[ "$(inside stat -c '%U %G %a' /run/shmd-metrics.sock)" = "root shmd 660" ] || fail "the metrics' socket: owner, group or mode"

say "a member of the group reads, and the daemon sees who it is"
as member shmctl read -n 1 >"$work/read" &
reading=$!
until_so "the reader is attached" prints ' shmctl  *member ' inside shmctl --runtime-dir /run/shmd stat
until_so "the status line counts the reader" prints '1 channel, 1 reader, 0 writers' property StatusText
echo "across users" | as writer shmctl write
wait "$reading"
[ "$(cat "$work/read")" = "across users" ] || fail "the member read $(cat "$work/read")"

say "an outsider is refused"
ends_with 77 as outsider shmctl read -n 1
grep -q outsider <<<"$said" || fail "the refusal does not name the user: $said"
ends_with 77 as outsider shmctl reload

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

say "sources in the sandbox"
inside sh -c 'echo "before its time" >/var/log/fed.log'
cat >"$work/sources.toml" <<'TOML'
[[channel]]
name = "fifo"
source = "fifo:/run/shmd/in"
write = ["@video"]

[[channel]]
name = "socket"
source = "unix:/run/shmd/in.sock"
write = ["writer"]

[[channel]]
name = "packets"
source = "unix-seqpacket:/run/shmd/packets.sock"
write = ["writer"]

[[channel]]
name = "program"
source = "exec:/bin/sh -c 'id -un; exec sleep 1000'"

[[channel]]
name = "file"
source = "tail:/var/log/fed.log"

[[channel]]
name = "handed"
mode = "handoff"
source = "fifo:/run/shmd/hand"
write = ["@video"]
TOML
inside sh -c 'cat >/etc/shmd/shmd.d/sources.toml' <"$work/sources.toml"
inside systemctl reload shmd.service
input_is() { prints "^  input .*$2" inside shmctl --runtime-dir /run/shmd stat --channel "$1"; }
# receives CHANNEL LINE: the oldest message there is.
receives() {
    local got
    got=$(inside timeout 60 shmctl --runtime-dir /run/shmd read --channel "$1" --from oldest -n 1) || true
    [ "$got" = "$2" ] || fail "channel $1 gave \"$got\" instead of \"$2\""
}
# says USER PATH KIND: sends the user's name to a listening socket, and waits until it has been read or refused.
client='use Socket; socket(S, PF_UNIX, $ARGV[1] eq "packets" ? SOCK_SEQPACKET : SOCK_STREAM, 0) or die;
    connect(S, pack_sockaddr_un($ARGV[0])) or die; $SIG{PIPE} = "IGNORE"; $me = getpwuid($<);
    send(S, $ARGV[1] eq "packets" ? $me : "$me\n", 0) or die; shutdown(S, 1); sysread(S, $end, 1); '
says() { as "$1" perl -e "$client" "$2" "$3"; }
fed_by_sources() {
    until_so "the FIFO is open" input_is fifo "waiting for a writer"
    as outsider sh -c 'echo no >/run/shmd/in' 2>/dev/null && fail "an outsider may write to the FIFO"
    as member sh -c 'echo member >/run/shmd/in' || fail "a member may not write to the FIFO"
    receives fifo member
    until_so "the socket listens" input_is socket listening
    # It may be closed before it has said anything.
    says outsider /run/shmd/in.sock stream 2>/dev/null || true
    says writer /run/shmd/in.sock stream || fail "the writer may not use the socket"
    receives socket writer
    until_so "the outsider was counted" prints 'turned away' inside shmctl --runtime-dir /run/shmd stat --channel socket
    until_so "the socket of packets listens" input_is packets listening
    says writer /run/shmd/packets.sock packets || fail "the writer may not send packets"
    receives packets writer
    until_so "the program runs" input_is program "running pid"
    receives program shmd
    until_so "the file is followed" input_is file following
    inside sh -c 'echo appended >>/var/log/fed.log'
    receives file appended
    as member sh -c 'echo by hand >/run/shmd/hand'
    until_so "the message is on offer" prints 'on offer  a message of 7' inside shmctl --runtime-dir /run/shmd stat --channel handed
    receives handed "by hand"
}
fed_by_sources

say "reexec: the same process, and nobody misses anything"
ends_with 77 as outsider shmctl reexec
as member timeout 60 shmctl read --channel main -n 2 >"$work/both" &
reading=$!
until_so "the reader is attached" prints ' shmctl  *member ' inside shmctl --runtime-dir /run/shmd stat --channel main
echo before | as writer shmctl write --channel main
# A line that is finished by the time that another program runs.
as member sh -c 'exec 3>/run/shmd/in; printf "one " >&3; until [ -e /tmp/go ]; do sleep 0.1; done; echo two >&3' &
until_so "the FIFO's writer has begun" input_is fifo "open"
child=$(inside pgrep -u shmd sleep)
inside sh -c 'cp /usr/bin/shmd /usr/bin/shmd.new && mv /usr/bin/shmd.new /usr/bin/shmd'
inside sh -c "echo 'mistake = 1' >/etc/shmd/shmd.d/bad.toml"
ends_with 78 inside shmctl --runtime-dir /run/shmd reexec
grep -q bad.toml <<<"$said" || fail "a reexec with a bad configuration does not name the file: $said"
inside rm /etc/shmd/shmd.d/bad.toml
for _ in 1 2 3; do
    inside shmctl --runtime-dir /run/shmd reexec >"$work/reexec" || fail "reexec ended with $?"
    grep -q "^shmd .* -> .*, pid $pid$" "$work/reexec" || fail "reexec said $(cat "$work/reexec")"
done
inside ls -l "/proc/$pid/exe" | grep -q '/usr/bin/shmd$' || fail "the program is not the new file"
inside touch /tmp/go
echo after | as writer shmctl write --channel main
wait "$reading"
[ "$(tr '\n' ' ' <"$work/both")" = "before after " ] || fail "the reader got $(cat "$work/both")"
until_so "the line is whole" prints '^one two$' inside timeout 60 shmctl --runtime-dir /run/shmd read --channel fifo --from oldest -n 2
[ "$(inside pgrep -u shmd sleep)" = "$child" ] || fail "the source's program is another one"
until_so "systemd sees that it is ready" active
restarts_are 0 && [ "$(main_pid)" = "$pid" ] || fail "systemd has restarted it"
inside rm /tmp/go

say "SIGKILL and automatic restart, with the same socket"
socket=$(inside stat -c %i /run/shmd/shmd.sock)
inside sh -c "kill -KILL $pid; while [ -e /proc/$pid ]; do sleep 0.01; done"
# Nobody is refused meanwhile.
prints main as member shmctl list || fail "no channel during the restart"
until_so "shmd is back" restarts_are 1
[ "$(inside stat -c %i /run/shmd/shmd.sock)" = "$socket" ] || fail "the socket is another one"
say "sources after the restart, with what the killed daemon has left"
fed_by_sources
inside rm /etc/shmd/shmd.d/sources.toml
inside systemctl reload shmd.service
until_so "the sources have cleaned up" inside sh -c '[ "$(ls /run/shmd | sort | tr "\\n" " ")" = "shmd.lock shmd.operations shmd.sock " ]'
until_so "the program has ended" inside sh -c '! pgrep -u shmd sleep'

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

say "stop: the socket stays, and the next client starts the daemon"
inside systemctl stop shmd.service
[ "$(property Result)" = success ] || fail "stopping ended with $(property Result)"
[ "$(inside sh -c 'ls -A /dev/shm /run/shmd')" = "$(printf '/dev/shm:\n\n/run/shmd:\nshmd.sock')" ] ||
    fail "left behind: $(inside ls -A /dev/shm /run/shmd)"
prints main as member shmctl list || fail "a client does not start the daemon"
until_so "shmd is active" active

left_behind() { inside sh -c 'ls -A /dev/shm; ls -d /run/shmd /run/shmd.pid 2>/dev/null || true'; }
# stops_with COMMAND...: the units that each command stops, one command after the other.
stops_with() {
    say "stop for good: $*"
    inside systemctl start shmd.socket shmd.service
    until_so "shmd is active" active
    local units
    for units in "$@"; do
        # shellcheck disable=SC2086 # several units
        inside systemctl stop $units 2>/dev/null || fail "systemctl stop $units"
    done
    [ -z "$(left_behind)" ] || fail "left behind: $(left_behind)"
}
# The daemon stops with its socket. `systemctl stop` asks for one unit after the other, so that the order counts.
stops_with shmd.socket
stops_with shmd.socket shmd.service
stops_with shmd.service shmd.socket
stops_with "shmd.socket shmd.service"
prints '^shmd_up 0' scrape || fail "the metrics do not say that the daemon is down: $(scrape)"

say "in the background, with syslog"
background() { inside shmd --daemonize --pid-file /run/shmd.pid "$@"; }
background || fail "--daemonize ended with $?"
pid=$(inside cat /run/shmd.pid)
prints main inside shmctl list || fail "no channel in the background"
inside shmctl reexec >/dev/null || fail "reexec in the background ended with $?"
[ "$(inside cat /run/shmd.pid)" = "$pid" ] && inside kill -0 "$pid" || fail "reexec in the background: another process"
ends_with 1 background
grep -q "another shmd (pid $pid," <<<"$said" || fail "a second daemon in the background does not name the first: $said"
inside sh -c 'echo "mistake = 1" >/etc/shmd/shmd.d/bad.toml'
inside kill -HUP "$pid"
until_so "syslog has the failed reload as an error" prints reload-failed inside journalctl --no-pager -t shmd _PID="$pid" -p err
inside rm /etc/shmd/shmd.d/bad.toml
inside kill "$pid"
until_so "the background daemon has gone" inside test ! -e /run/shmd.pid
until_so "nothing is left behind" test -z "$(left_behind)"
say "passed"
