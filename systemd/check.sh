#!/bin/bash
# Checks the units: systemd-analyze verify must be silent, and the exposure of each service of the system 0.7 or better. The relay's may
# be 1.3, because a relay has to reach the network.
set -euo pipefail

dir=$(cd "$(dirname "$0")" && pwd)
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
        [ -e "$unit" ] || continue
        sed -E 's#^(Exec[A-Za-z]+)=/usr/bin/shm(d|ctl|ctl-relay)( |$)#\1=/bin/true\3#' "$unit" >"$to/${unit##*/}"
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
verified "$dir/relay"
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

# A daemon that starts before the directory service finds no such user, and is not started again.
for unit in shmd.service shmd@.service; do
    grep -q '^After=.*nss-user-lookup\.target' "$dir/$unit" || fail "$unit may start before its users can be looked up"
done

# The threshold is given in tenths.
for unit in "$dir"/*.service "$dir"/relay/*.service; do
    name=${unit##*/} from=${unit%/*} most=0.7
    [ "$from" = "$dir" ] || most=1.3
    said=$(systemd-analyze security --offline=true --threshold="$((10#${most/./}))" "$work/${from##*/}/${name/@./@example.}" 2>&1) || {
        echo "$said" >&2
        fail "the exposure of $name is over $most"
    }
    echo "check.sh: $(tail -n 1 <<<"$said" | sed 's/^[^A-Za-z]*//')"
done

if command -v systemd-sysusers >/dev/null; then
    mkdir -p "$work/root/etc"
    for user in shmd relay/shmd-relay; do
        systemd-sysusers --root="$work/root" "$dir/$user.conf"
        grep -q "^${user##*/}:" "$work/root/etc/passwd"
        echo "check.sh: ${user##*/}.conf makes the user"
    done
fi
