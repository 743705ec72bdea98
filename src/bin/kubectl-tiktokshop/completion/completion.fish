# Completion of kubectl-tiktokshop for fish: kubectl-tiktokshop completion fish | source
# The program itself says what fits; kubectl asks it for "kubectl tiktokshop" by kubectl_complete-tiktokshop.
function __kubectl_tiktokshop_complete
    set -l last (commandline -ct)
    set -l words (commandline -opc) $last
    set -l answer (kubectl-tiktokshop __complete $words[2..-1] 2>/dev/null)
    or return
    # Candidates for --flag=value are values alone; fish wants the flag before them.
    set -l flag (string match -r -- '^--[^=]*=' $last)
    if test "$answer[-1]" = ':0'
        __fish_complete_path (string replace -r -- '^--[^=]*=' '' $last) | string replace -r -- '^' "$flag"
        return
    end
    string match -rv -- '^:\d+$' $answer | string replace -r -- '^' "$flag"
end
complete -c kubectl-tiktokshop -f -a '(__kubectl_tiktokshop_complete)'
