#compdef kubectl-tiktokshop
# Completion of kubectl-tiktokshop for zsh: source <(kubectl-tiktokshop completion zsh)
# The program itself says what fits; kubectl asks it for "kubectl tiktokshop" by kubectl_complete-tiktokshop.
_kubectl_tiktokshop() {
    local -a lines candidates
    local line
    lines=("${(@f)$(kubectl-tiktokshop __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    # Candidates for --flag=value are values alone: what stands before them is on the line already.
    [[ $words[CURRENT] == --*=* ]] && compset -P 1 '*='
    if [[ $lines[-1] == :0 ]]; then
        _files
        return
    fi
    for line in "${(@)lines[1,-2]}"; do
        [[ $line == *$'\t'* ]] || line+=$'\t'
        candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    _describe 'kubectl-tiktokshop' candidates
}
compdef _kubectl_tiktokshop kubectl-tiktokshop
