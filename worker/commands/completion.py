"""rowmill completion: the script that makes a shell ask us what comes next."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

# Each asks for "value<Tab>help" lines, as typer prints them for fish: nothing is evaluated. Bash cuts
# words at colons, which lanes and workers have: what stands before the last one is cut off, too.
BASH = r"""
_rowmill_completion() {
    local line before="${COMP_LINE:0:COMP_POINT}" cut=""
    local word="${before##*[[:space:]]}"
    if [[ $word == *[:=]* ]]; then cut="${word%"${word##*[:=]}"}"; fi
    COMPREPLY=()
    while IFS= read -r line; do
        line="${line%%$'\t'*}"
        if [[ -n $line ]]; then COMPREPLY+=("${line#"$cut"}"); fi
    done < <(_ROWMILL_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
        _TYPER_COMPLETE_ARGS="$before" "$1" 2>/dev/null)
}
complete -o default -F _rowmill_completion rowmill
"""

ZSH = r"""
#compdef rowmill
_rowmill() {
    local line about
    local -a offered
    for line in "${(@f)$(_ROWMILL_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
            _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" "${words[1]}" 2>/dev/null)}"; do
        about=""
        [[ $line == *$'\t'* ]] && about=":${line#*$'\t'}"
        [[ -n $line ]] && offered+=("${${line%%$'\t'*}//:/\\:}$about")
    done
    if (( $#offered )); then _describe rowmill offered; else _files; fi
}
if [[ $funcstack[1] == _rowmill ]]; then _rowmill "$@"; else compdef _rowmill rowmill; fi
"""

FISH = r"""
function __rowmill_complete
    set -lx _ROWMILL_COMPLETE complete_fish
    set -lx _TYPER_COMPLETE_FISH_ACTION get-args
    set -lx _TYPER_COMPLETE_ARGS (commandline -cp)
    rowmill 2>/dev/null
end
complete --command rowmill --no-files --arguments '(__rowmill_complete)'
"""


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


SCRIPTS = {Shell.BASH: BASH, Shell.ZSH: ZSH, Shell.FISH: FISH}


def completion(shell: Annotated[Shell, typer.Argument(help="Whose script to print.")]) -> None:
    """
    Print the script that lets a shell complete commands, options, and names of the database.

    Lanes, tables, workers, platforms, and jobs that wait, run or failed lately are looked up in the
    database of ROWMILL_DATABASE_URL; one that doesn't answer within a second offers nothing.

    rowmill completion bash > ~/.local/share/bash-completion/completions/rowmill

    rowmill completion zsh > "${fpath[1]}/_rowmill"

    rowmill completion fish > ~/.config/fish/completions/rowmill.fish
    \f
    For the shell that runs: `source <(rowmill completion bash)`, `source <(rowmill completion zsh)` after `compinit`, or `rowmill completion fish | source`. `rowmill` has to be on the path. Names with characters
    that a shell could read anything into aren't offered.
    """
    typer.echo(SCRIPTS[shell].strip())
