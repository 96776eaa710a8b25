# Completes shmctl and shmd in fish. `shmctl complete` knows what may stand at the cursor: it asks the running daemon for the names of
# its channels and the numbers of their readers.
function __shmctl_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l shmctl shmctl
    # The program that is typed may not be the one in PATH.
    if string match -q '*/shmctl' -- $words[1]; and test -x $words[1]
        set shmctl $words[1]
    end
    set -l lines ($shmctl complete -- $words "$current" 2>/dev/null)
    set -l before (string match -r '^--[^=]*=' -- "$current")
    set -l typed (string replace -r '^--[^=]*=' '' -- "$current")
    switch "$lines[1]"
        case ':files'
            printf '%s\n' "$before"(__fish_complete_path "$typed")
        case ':directories'
            printf '%s\n' "$before"(__fish_complete_directories "$typed")
        case '*'
            printf '%s\n' $lines
    end
end
complete -c shmctl -f -a '(__shmctl_complete)'
complete -c shmd -f -a '(__shmctl_complete)'
