# Completion of kubectl-tiktokshop for bash: source <(kubectl-tiktokshop completion bash)
# The program itself says what fits; kubectl asks it for "kubectl tiktokshop" by kubectl_complete-tiktokshop.
_kubectl_tiktokshop() {
    local answer candidate
    COMPREPLY=()
    answer=$(kubectl-tiktokshop __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null) || return
    while IFS=$'\t' read -r candidate _; do
        case $candidate in
            :0) compopt -o default 2>/dev/null ;;
            :*) ;;
            *) COMPREPLY+=("$candidate") ;;
        esac
    done <<<"$answer"
}
complete -F _kubectl_tiktokshop kubectl-tiktokshop
