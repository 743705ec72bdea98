# Completion of kubectl-tiktokshop for fish: kubectl-tiktokshop completion fish | source
# The program itself says what fits; kubectl asks it for "kubectl tiktokshop" by kubectl_complete-tiktokshop.
function __kubectl_tiktokshop_complete
    set -l words (commandline -opc) (commandline -ct)
    kubectl-tiktokshop __complete $words[2..-1] 2>/dev/null | string match -rv '^:\d+$'
end
complete -c kubectl-tiktokshop -f -a '(__kubectl_tiktokshop_complete)'
