#!/bin/bash
# The main job, once through: builds the programs, starts shmd on its defaults, sends a real stream through it to two
# readers while the channel is made larger and smaller, shows `shmctl stat`, stops the daemon, and checks that the readers
# got every byte and that nothing was left behind. If the Python package is installed, a program in Python reads the end. Touches no other daemon. Run it as `bash etc/demo.sh`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly lines=1500000
work=$(mktemp -d "${TMPDIR:-/tmp}/shmd-demo.XXXXXX")
daemon=

say() { printf '\n== %s\n' "$*"; }

fail() {
    printf '\ndemo: FAILED: %s\n' "$*" >&2
    if [[ -s $work/shmd.log ]]; then
        printf 'The log of shmd:\n' >&2
        tail -n 30 "$work/shmd.log" >&2
    fi
    exit 1
}

# await WHAT COMMAND...: waits until the command succeeds; gives up after 60 s, or when the daemon has ended.
await() {
    local what=$1 end=$((SECONDS + 60))
    shift
    until "$@"; do
        ((SECONDS < end)) || fail "waited 60 s for $what"
        kill -0 "$daemon" 2>"$work/kill.err" || fail "shmd ended while waiting for $what"
        sleep 0.02
    done
}

clean_up() {
    if [[ -n $daemon ]]; then
        kill "$daemon" 2>"$work/kill.err" || true
        wait "$daemon" || true
    fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

say "build"
cargo build --release --locked --bin shmd --bin shmctl
bin=${CARGO_TARGET_DIR:-target}/release
# A demonstration's own directory and object names: a daemon that is already running is not touched, and settings made for
# it are not taken over.
for variable in "${!SHMD_@}"; do unset "$variable"; done
export SHMD_RUNTIME_DIR=$work/run SHMD_PREFIX=shmd-demo-$$
shmctl() { "$bin/shmctl" "$@"; }

say "a stream: $lines lines, in three parts"
seq -f '%.0f the quick brown fox' "$lines" >"$work/input"
split --number=l/3 --numeric-suffixes=1 --suffix-length=1 "$work/input" "$work/part"
mkfifo "$work/stream"
ls -l "$work"/input "$work"/part? | awk '{ print $5, $NF }'

say "shmd, with a pipe as its standard input and defaults for everything"
# /dev/null in place of /etc/shmd/shmd.toml, which may be there for another daemon.
"$bin/shmd" --config /dev/null <"$work/stream" 2>"$work/shmd.log" &
daemon=$!
exec 3>"$work/stream"
await "shmd to answer" shmctl list >"$work/list" 2>"$work/list.err"
cat "$work/list"

say "two readers"
shmctl read --from oldest >"$work/output1" 2>"$work/reader1.err" &
reader1=$!
shmctl read --from oldest >"$work/output2" 2>"$work/reader2.err" &
reader2=$!
# A reader that is still joining has no place yet, and the writer does not wait for it.
readers_are() {
    local stat
    stat=$(shmctl stat --json)
    [[ $(grep -o '"reader":' <<<"$stat" | wc -l) == "$1" && $stat != *'"state":"joining"'* ]]
}
await "two readers to attach" readers_are 2

# While a part flows, the channel is resized; the next part flows through the new size.
resize() {
    local answer
    answer=$(shmctl resize --bytes "$1") || fail "the channel could not be resized to $1"
    printf '%s\n' "$answer"
    [[ $answer == *"-> $1"* ]] || fail "asked for $1, and the answer was: $answer"
}
say "the stream flows, and the channel becomes larger, then smaller"
cat "$work/part1" >&3 &
resize 32MiB
wait $! || fail "shmd did not take the stream"
cat "$work/part2" >&3 &
resize 256KiB
wait $! || fail "shmd did not take the stream"
cat "$work/part3" >&3 || fail "shmd did not take the stream"
exec 3>&-

received_by_both() { [[ $(shmctl stat --json | grep -o "\"received\":$lines,\"lost\":0" | wc -l) == 2 ]]; }
await "both readers to receive $lines messages" received_by_both
say "shmctl stat"
shmctl stat

say "a reader in Python"
python_reader='
import sys, shmd

last = int(sys.argv[1]) - 1
with shmd.Reader(start="oldest") as reader:
    message = reader.recv(timeout=60)
    print("from message", message.seq, "on, which is the oldest one that is still there")
    for message in reader:
        if message.seq == last:
            print("to message", message.seq, bytes(message).decode())
            break
'
# In another directory: here Python takes the directory shmd of the sources for a package of that name.
python() { (cd "$work" && python3 -c "$@"); }
if python 'import shmd' 2>"$work/python.err"; then
    python "$python_reader" "$lines" | tee "$work/python"
    grep -qx "to message $((lines - 1)) $(tail -n 1 "$work/input")" "$work/python" || fail "the reader in Python did not come to the end"
else
    printf 'left out: %s (pip install ./shm-proto/python)\n' "$(tail -n 1 "$work/python.err" | sed 's/.*line [0-9]*: //')"
fi

say "stop"
kill -TERM "$daemon"
status=0
wait "$daemon" || status=$?
daemon=
((status == 0)) || fail "shmd ended with exit code $status"
for reader in 1 2; do
    pid=reader$reader status=0
    wait "${!pid}" || status=$?
    ((status == 0)) || fail "reader $reader ended with exit code $status: $(cat "$work/reader$reader.err")"
done
grep -o 'event=.*' "$work/shmd.log"

sha256sum "$work/input" "$work/output1" "$work/output2"
for reader in 1 2; do
    cmp "$work/input" "$work/output$reader" || fail "reader $reader did not receive what was sent"
done
left=$(find /dev/shm -maxdepth 1 -name "$SHMD_PREFIX*")
[[ -z $left ]] || fail "left in /dev/shm: $left"
[[ ! -e $SHMD_RUNTIME_DIR ]] || fail "left of the runtime directory: $(ls -A "$SHMD_RUNTIME_DIR")"

printf '\nok: 2 readers received %s messages, %s bytes each, unchanged, through two resizes; nothing is left in /dev/shm\n' \
    "$lines" "$(stat --format=%s "$work/input")"
