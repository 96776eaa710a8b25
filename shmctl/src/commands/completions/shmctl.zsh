#compdef shmctl shmd
# Completes shmctl and shmd in zsh. `shmctl complete` knows what may stand at the cursor: it asks the running daemon for the names of
# its channels and the numbers of their readers.
_shmctl() {
    local -a lines whole begun
    local shmctl=shmctl line entry
    # The program that is typed may not be the one in PATH.
    [[ ${words[1]} == */shmctl && -x ${words[1]} ]] && shmctl=${words[1]}
    lines=("${(@f)$("$shmctl" complete -- "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    case ${lines[1]} in
        :files) compset -P '*='; _files; return ;;
        :directories) compset -P '*='; _files -/; return ;;
    esac
    for line in $lines; do
        [[ -n $line ]] || continue
        entry=${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}
        # More is to be typed behind some.
        if [[ ${line%%$'\t'*} == *[=:] ]]; then begun+=("$entry"); else whole+=("$entry"); fi
    done
    _describe 'shmd' whole
    _describe 'shmd' begun -S ''
}
if [[ ${funcstack[1]} == _shmctl ]]; then
    _shmctl "$@"
else
    compdef _shmctl shmctl shmd
fi
