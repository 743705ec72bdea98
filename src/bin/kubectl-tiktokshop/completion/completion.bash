# Completion of kubectl-tiktokshop for bash: source <(kubectl-tiktokshop completion bash)
# The program itself says what fits; kubectl asks it for "kubectl tiktokshop" by kubectl_complete-tiktokshop.
# It is written for bash 3.2 as well, which macOS has.
_kubectl_tiktokshop() {
    local answer candidate word words before files last=-1
    COMPREPLY=() words=()
    # Bash parts words at = and : as well; the program takes them whole.
    for word in "${COMP_WORDS[@]:1:COMP_CWORD}"; do
        if ((last >= 0)) && [[ $word == [=:]* || ${words[last]} == *[=:] ]] &&
            [[ -n $word || ${COMP_LINE:COMP_POINT-1:1} == [=:] ]]; then
            words[last]=${words[last]}$word
        else
            last=$((last + 1))
            words[last]=$word
        fi
    done
    answer=$(kubectl-tiktokshop __complete "${words[@]}" 2>/dev/null) || return
    # What stands before the last = or : is on the line already.
    word=${words[last]}
    [[ $word == --*=* ]] && word=${word#*=}
    before=
    [[ $word == *:* && $COMP_WORDBREAKS == *:* ]] && before=${word%"${word##*:}"}
    files=
    while IFS=$'\t' read -r candidate _; do
        case $candidate in
            :0) files=yes ;;
            :*) ;;
            *) COMPREPLY+=("${candidate#"$before"}") ;;
        esac
    done <<<"$answer"
    [[ -n $files ]] || return
    compopt -o filenames 2>/dev/null
    while IFS= read -r candidate; do
        COMPREPLY+=("$candidate")
    done < <(compgen -f -- "$word")
}
complete -F _kubectl_tiktokshop kubectl-tiktokshop
