#!/bin/bash
# Checks the units: systemd-analyze verify must be silent, and the exposure of each service of the system 0.7 or better.
set -euo pipefail

dir=$(cd "$(dirname "$0")" && pwd)
most=0.7
command -v systemd-analyze >/dev/null || {
    echo "check.sh: systemd-analyze is missing; install it with: apt-get install systemd" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "check.sh: $*" >&2
    exit 1
}

# verified DIRECTORY WORD...: `systemd-analyze verify WORD...` has nothing to say about the units of the directory. It looks for the
# programs, which are installed nowhere where this is run. A template is checked as an instance.
verified() {
    local from=$1 to=$work/${1##*/} unit said units=()
    shift
    mkdir "$to"
    for unit in "$from"/*.{service,socket}; do
        sed -E 's#^(Exec[A-Za-z]+)=/usr/bin/shm(d|ctl)#\1=/bin/true#' "$unit" >"$to/${unit##*/}"
        unit=$to/${unit##*/}
        units+=("${unit/@./@example.}")
    done
    # Without --recursive-errors an unknown key is a warning and the exit code 0.
    if ! said=$(XDG_RUNTIME_DIR=$work systemd-analyze verify --man=no --recursive-errors=yes "$@" "${units[@]}" 2>&1) || [ -n "$said" ]; then
        fail "systemd-analyze verify says: $said"
    fi
    echo "check.sh: verify is clean for ${#units[@]} units in ${from##*/}"
}
verified "$dir"
verified "$dir/user" --user

# The templates say what shmd.service and shmd.socket say, with the instance's name in it.
settings() { grep -vE '^(#|$)' "$1"; }
for kind in service socket; do
    instance=$(settings "$dir/shmd.$kind" | sed -E \
        -e 's#^Description=.*#& (%i)#' -e 's#=shmd\.socket#=shmd@%i.socket#' -e 's#=/usr/bin/shmd$#& --config /etc/shmd/%i.toml#' \
        -e 's#/run/shmd\b#&-%i#g' -e 's#(PREFIX|^RuntimeDirectory|^StateDirectory)=shmd$#&-%i#')
    differences=$(diff <(echo "$instance") <(settings "$dir/shmd@.$kind")) ||
        fail "shmd@.$kind (>) is not what shmd.$kind says (<): $differences"
done

# The threshold is given in tenths.
for unit in "$dir"/*.service; do
    name=${unit##*/}
    said=$(systemd-analyze security --offline=true --threshold="$((10#${most/./}))" "$work/${dir##*/}/${name/@./@example.}" 2>&1) || {
        echo "$said" >&2
        fail "the exposure of $name is over $most"
    }
    echo "check.sh: $(tail -n 1 <<<"$said" | sed 's/^[^A-Za-z]*//')"
done

if command -v systemd-sysusers >/dev/null; then
    mkdir -p "$work/root/etc"
    systemd-sysusers --root="$work/root" "$dir/shmd.conf"
    grep -q '^shmd:' "$work/root/etc/passwd"
    echo "check.sh: shmd.conf makes the user"
fi
