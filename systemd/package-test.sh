#!/bin/bash
# Installs the Debian packages in a Debian that systemd has booted, and looks at what an administrator would see: the service runs,
# members of group shmd read and write, an upgrade does not disturb them, a removal stops everything and takes neither the configuration
# nor the channels that are kept, and a purge leaves nothing.
#
# Usage: package-test.sh [--install] [DIRECTORY-OF-PACKAGES]      (default: target/debian beside this directory)
#
# container.sh says what --install does, what is needed, and what happens without it. `bash etc/package` makes the packages.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
test=package-test.sh
. "$here/container.sh"
packages=${1:-${CARGO_TARGET_DIR:-$here/../target}/debian}
for tool in dpkg-deb cc; do command -v "$tool" >/dev/null || skip "$tool is missing (apt-get install dpkg gcc)"; done
# newest PACKAGE: its file.
newest() { find "$packages" -maxdepth 1 -name "$1_*.deb" -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-; }
shmd=$(newest shmd) library=$(newest libshmd0) headers=$(newest libshmd-dev)
for package in "$shmd" "$library" "$headers"; do
    [ -e "$package" ] || skip "$packages has no packages (bash etc/package)"
done

say "a package of a higher version, and a program that was built with the library's"
make_root
dpkg-deb -R "$shmd" "$work/upgrade"
sed -i 's/^Version: .*/&+upgrade/' "$work/upgrade/DEBIAN/control"
dpkg-deb --root-owner-group -Znone -b "$work/upgrade" "$root/root/upgrade.deb" >/dev/null
cp "$shmd" "$root/root/shmd.deb"
cp "$library" "$root/root/libshmd0.deb"
cp "$headers" "$root/root/libshmd-dev.deb"
dpkg-deb -x "$library" "$work/libraries"
dpkg-deb -x "$headers" "$work/libraries"
libraries=$(dirname "$work"/libraries/usr/lib/*/libshmd.so)
cc -Wall -Werror "$here/../shm-proto/capi/examples/hello.c" -I"$work/libraries/usr/include" -L"$libraries" -lshmd -o "$root/usr/bin/hello"
for user in member outsider; do chroot "$root" useradd -M "$user"; done
# Otherwise said by pam_systemd, which this root lacks.
mkdir -p "$root/etc/systemd/system/user@.service.d"
printf '[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%%i\n' >"$root/etc/systemd/system/user@.service.d/test.conf"
boot

# Everything that a package may leave. What useradd and ldconfig write at any time is not the package's.
files() {
    inside find /etc /opt /srv /usr /var/lib/systemd /var/lib/dpkg/info /var/lib/shmd /var/lib/shmd-cam /dev/shm /run/shmd /run/shmd-cam \
        /run/shmd-metrics.sock -xdev 2>/dev/null |
        grep -vE '^/etc/(passwd|group|shadow|gshadow)-$|^/etc/\.pwd\.lock$|/ld\.so\.cache$|^/var/lib/systemd/(timers|random-seed)' |
        sort || true
}
files >"$work/before"
grep -q "^/usr/bin/hello$" "$work/before" || fail "the list of files lacks /usr/bin/hello: $(head "$work/before")"

say "install"
inside dpkg -i /root/shmd.deb /root/libshmd0.deb /root/libshmd-dev.deb >"$work/install" 2>&1 || fail "dpkg -i: $(cat "$work/install")"
until_so "shmd is active" active
active shmd.socket || fail "shmd.socket is not active"
for unit in shmd.service shmd.socket; do
    [ "$(property UnitFileState "$unit")" = enabled ] || fail "$unit is $(property UnitFileState "$unit")"
done
[ "$(property UnitFileState shmd-metrics.socket)" = disabled ] || fail "the metrics are served unasked"
for package in shmd libshmd0 libshmd-dev; do
    [ -z "$(inside dpkg --verify "$package")" ] || fail "$package: $(inside dpkg --verify "$package")"
    inside test -s "/usr/share/doc/$package/copyright" || fail "$package has no copyright file"
done
# What the programs and units need is seen below.
for file in man/man1/shmctl.1.gz man/man1/shmctl-read.1.gz man/man5/shmd.toml.5.gz man/man8/shmd.8.gz bash-completion/completions/shmctl \
    zsh/vendor-completions/_shmctl fish/vendor_completions.d/shmctl.fish doc/shmd/README.md doc/shmd/changelog.gz doc/shmd/schemas/stat.json; do
    inside test -s "/usr/share/$file" || fail "shmd has no /usr/share/$file"
done
prints ' /etc/shmd/shmd.toml ' inside dpkg-query -W -f '${Conffiles}' shmd || fail "/etc/shmd/shmd.toml is no conffile"
version=$(inside dpkg-query -W -f '${Version}' libshmd0)
[ "$(inside dpkg-query -W -f '${Depends}' libshmd-dev)" = "libshmd0 (= $version)" ] || fail "libshmd-dev takes any libshmd0"
documents=$(inside sh -c 'cat /usr/lib/systemd/system/shmd* /usr/lib/systemd/user/shmd*' | sed -n 's/^Documentation=//p' | tr ' ' '\n' | sort -u)
[ -n "$documents" ] || fail "the units name no documents"
for document in $documents; do
    inside test -s "${document#file://}" || fail "a unit names $document, which is not there"
done
pid=$(main_pid)
[ "$(inside ps -o user= -p "$pid")" = shmd ] || fail "shmd does not run as user shmd"
inside shmctl doctor || fail "the doctor finds something"

say "a member of the group reads and writes, and an outsider does neither"
ends_with 77 as member shmctl read -n 1
inside usermod -aG shmd member
as member shmctl read -n 1 >"$work/read" &
reading=$!
until_so "the reader is attached" prints ' shmctl  *member ' inside shmctl stat
echo hello | as member shmctl write
wait "$reading"
[ "$(cat "$work/read")" = hello ] || fail "the member read $(cat "$work/read")"
ends_with 77 as outsider sh -c 'echo hello | shmctl write'
prints '^message 1: hello$' as member hello || fail "the program with the library says $(as member hello 2>&1)"

say "an instance, and a stopped daemon that a client starts"
inside sh -c 'printf "[[channel]]\nname = \"cam\"\nread = [\"*\"]\n" >/etc/shmd/cam.toml'
inside systemctl enable --now shmd@cam.service >/dev/null 2>&1 || fail "shmd@cam.service does not start"
camera=$(main_pid shmd@cam.service)
cam() { as outsider shmctl --runtime-dir /run/shmd-cam "$@"; }
prints '^cam ' cam list || fail "the instance has no channel: $(cam list 2>&1)"
inside test -e /dev/shm/shmd-cam.cam || fail "the instance has other objects"
for unit in shmd shmd-cam; do
    inside shmctl --runtime-dir "/run/$unit" create kept --keep >/dev/null || fail "$unit keeps no channel"
    [ "$(inside stat -c '%U %a' "/var/lib/$unit")" = "shmd 700" ] || fail "/var/lib/$unit: owner or mode"
done
inside systemctl stop shmd.service
prints main as member shmctl list || fail "a client does not start the daemon"
until_so "shmd is active" active
is_kept() { prints '^kept ' inside shmctl list; }
is_kept || fail "the channel that was to be kept is gone after a stop"
pid=$(main_pid)

say "a user's own daemon, which lingers"
number=$(inside id -u outsider)
inside loginctl enable-linger outsider || fail "loginctl enable-linger"
own() { as outsider env "XDG_RUNTIME_DIR=/run/user/$number" "$@"; }
until_so "the user's manager runs" own systemctl --user is-system-running
own systemctl --user start shmd.socket || fail "the user's shmd.socket does not start"
prints '^main .*read,write,admin' own shmctl list || fail "the user's own daemon says $(own shmctl list 2>&1)"
[ "$(inside stat -c '%U %a' "/run/user/$number/shmd")" = "outsider 700" ] || fail "the user's runtime directory"
inside test -e "/dev/shm/shmd-$number.main" || fail "the user's daemon has other objects"
own systemctl --user stop shmd.socket shmd.service
inside test ! -e "/run/user/$number/shmd" || fail "the user's runtime directory is left"
own systemctl --user start shmd.socket shmd.service || fail "the user's daemon does not start again"
own systemctl --user stop shmd.socket
own systemctl --user stop shmd.service
inside test ! -e "/run/user/$number/shmd" || fail "the user's runtime directory is left when the socket stops first"
inside loginctl disable-linger outsider

say "upgrade with a reader attached"
as member shmctl read main -n 2 >"$work/both" &
reading=$!
until_so "the reader is attached" prints ' shmctl  *member ' inside shmctl stat main
echo before | as member shmctl write main
inside dpkg -i /root/upgrade.deb >"$work/upgrade.log" 2>&1 || fail "dpkg -i: $(cat "$work/upgrade.log")"
for unit in shmd.service shmd@cam.service; do
    grep -q "^$unit: shmd .* -> .*, pid " "$work/upgrade.log" || fail "the upgrade says nothing of $unit: $(cat "$work/upgrade.log")"
done
inside dpkg-query -W -f '${Version}' shmd | grep -q upgrade || fail "the version is $(inside dpkg-query -W shmd)"
[ "$(main_pid)" = "$pid" ] && [ "$(main_pid shmd@cam.service)" = "$camera" ] || fail "the upgrade has restarted a daemon"
for process in "$pid" "$camera"; do
    inside ls -l "/proc/$process/exe" | grep -q '/usr/bin/shmd$' || fail "the program is not the new file"
done
restarts_are 0 || fail "systemd has restarted the daemon"
is_kept || fail "the upgrade has lost a channel"
echo after | as member shmctl write main
wait "$reading"
[ "$(tr '\n' ' ' <"$work/both")" = "before after " ] || fail "the reader got $(cat "$work/both")"

say "an upgrade that the configuration prevents leaves the daemon as it is, and says so"
inside mkdir /etc/shmd/shmd.d
inside sh -c 'echo "mistake = 1" >/etc/shmd/shmd.d/bad.toml'
inside dpkg -i /root/upgrade.deb >"$work/upgrade.log" 2>&1 || fail "dpkg -i: $(cat "$work/upgrade.log")"
grep -q 'shmd.service: .*bad.toml:1' "$work/upgrade.log" && grep -q 'systemctl restart shmd.service' "$work/upgrade.log" ||
    fail "the upgrade says: $(cat "$work/upgrade.log")"
active && [ "$(main_pid)" = "$pid" ] || fail "the daemon is not what it was"
inside rm /etc/shmd/shmd.d/bad.toml
inside shmctl reexec >/dev/null || fail "reexec after the mistake was mended"

say "remove"
as member shmctl read main >"$work/last" 2>&1 &
reading=$!
until_so "the reader is attached" prints ' shmctl  *member ' inside shmctl stat main
inside dpkg -r shmd >"$work/remove" 2>&1 || fail "dpkg -r: $(cat "$work/remove")"
wait "$reading" || fail "the reader ended with $?: $(cat "$work/last")"
left() { inside sh -c 'ls -A /dev/shm; ls -d /run/shmd* 2>/dev/null; pgrep -a -u shmd' || true; }
[ -z "$(left)" ] || fail "left after the removal: $(left)"
inside test -e /etc/shmd/shmd.toml || fail "the removal took the configuration with it"

say "install again, and purge"
inside dpkg -i /root/shmd.deb >"$work/install" 2>&1 || fail "dpkg -i: $(cat "$work/install")"
until_so "shmd is active" active
is_kept || fail "the removal took the channel that is kept with it"
# What a daemon that was killed for good would leave.
inside runuser -u shmd -- sh -c 'touch /dev/shm/shmd.killed /run/shmd/killed'
# And what the package shmd-relay would have there.
inside sh -c 'mkdir /etc/shmd/relay; touch /etc/shmd/relay/cam.conf'
inside dpkg -P shmd libshmd-dev libshmd0 >"$work/purge" 2>&1 || fail "dpkg -P: $(cat "$work/purge")"
[ -z "$(left)" ] || fail "left after the purge: $(left)"
inside rm /etc/shmd/relay/cam.conf || fail "the purge took the relays' configuration with it"
inside rmdir /etc/shmd/relay /etc/shmd || fail "left after the purge: $(inside find /etc/shmd)"
files >"$work/after"
differences=$(diff "$work/before" "$work/after") || fail "left after the purge: $differences"
say "passed"
