# Completes shmctl and shmd in bash. `shmctl complete` knows what may stand at the cursor: it asks the running daemon for the names of
# its channels and the numbers of their readers.
_shmctl() {
    local words=() last=-1 line=$COMP_LINE word i
    # Bash splits words at = and :, and the programs do not: what no blank separates belongs together.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((i > 0)) && [[ $line != [[:blank:]]* ]]; then
            words[last]+=$word
        else
            line=${line#"${line%%[![:blank:]]*}"}
            words[++last]=$word
        fi
        line=${line#"$word"}
    done

    # The program that is typed may not be the one in PATH.
    local shmctl=shmctl lines
    [[ ${words[0]} == */shmctl && -x ${words[0]} ]] && shmctl=${words[0]}
    mapfile -t lines < <("$shmctl" complete -- "${words[@]}" 2>/dev/null)

    COMPREPLY=()
    case ${lines[0]-} in
        :files) compopt -o default 2>/dev/null; return 0 ;;
        :directories) compopt -o dirnames 2>/dev/null; return 0 ;;
    esac
    # Bash replaces only what stands behind the last of its own breaks.
    local breaks=${COMP_WORDBREAKS//[^=:]/} kept=
    [[ -n $breaks ]] && kept=${words[last]%"${words[last]##*[$breaks]}"}
    for line in "${lines[@]}"; do
        line=${line%%$'\t'*}
        COMPREPLY+=("${line#"$kept"}")
    done
    # More is to be typed behind these.
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=:] ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -F _shmctl shmctl shmd
