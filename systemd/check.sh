#!/bin/bash
# Checks the units: systemd-analyze verify must be silent, and the exposure of each service 2.0 or better.
set -euo pipefail

dir=$(cd "$(dirname "$0")" && pwd)
most=2.0
command -v systemd-analyze >/dev/null || {
    echo "check.sh: systemd-analyze is missing; install it with: apt-get install systemd" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# verify looks for the programs, which are installed nowhere where this is run.
for unit in shmd.service shmd-metrics.service shmd-metrics.socket; do
    sed -E 's#^(Exec[A-Za-z]+)=/usr/bin/shm(d|ctl)#\1=/bin/true#' "$dir/$unit" >"$work/$unit"
done
# Without --recursive-errors an unknown key is a warning and the exit code 0.
if ! said=$(systemd-analyze verify --man=no --recursive-errors=yes "$work"/shmd* 2>&1) || [ -n "$said" ]; then
    echo "check.sh: systemd-analyze verify says:" >&2
    echo "$said" >&2
    exit 1
fi
echo "check.sh: verify is clean"

# The threshold is given in tenths.
for unit in shmd.service shmd-metrics.service; do
    if ! said=$(systemd-analyze security --offline=true --threshold="${most/./}" "$work/$unit" 2>&1); then
        echo "$said" >&2
        echo "check.sh: the exposure of $unit is over $most" >&2
        exit 1
    fi
    echo "check.sh: $(tail -n 1 <<<"$said" | sed 's/^[^A-Za-z]*//')"
done

if command -v systemd-sysusers >/dev/null; then
    mkdir -p "$work/root/etc"
    systemd-sysusers --root="$work/root" "$dir/shmd.conf"
    grep -q '^shmd:' "$work/root/etc/passwd"
    echo "check.sh: shmd.conf makes the user"
fi
