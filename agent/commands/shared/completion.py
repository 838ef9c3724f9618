"""Completion of `llamarm` in bash: commands and recipes from here, options from tyro.

tyro prints a function for one command, which is loaded when that command's options are first completed in a shell.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.recipes import RECIPES
from envs.make import WORLDS

_SCRIPT = r"""# Completion of llamarm in bash: source <(llamarm --completion)
_llamarm() {
    local words=1 function
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "help @COMMANDS@" -- "${COMP_WORDS[1]}"))
        return
    fi
    case ${COMP_WORDS[1]} in
        help) COMPREPLY=($(compgen -W "@COMMANDS@" -- "${COMP_WORDS[COMP_CWORD]}")); return ;;
        train | collect | scale) words=2 ;;
    esac
    if ((COMP_CWORD == words)); then
        case ${COMP_WORDS[1]} in
            collect) COMPREPLY=($(compgen -W "@FROM_DEMONSTRATIONS@ @WORLDS@" -- "${COMP_WORDS[2]}")) ;;
            scale) COMPREPLY=($(compgen -W "@FROM_DEMONSTRATIONS@" -- "${COMP_WORDS[2]}")) ;;
            train) COMPREPLY=($(compgen -W "@RECIPES@" -- "${COMP_WORDS[2]}")) ;;
        esac
        return
    fi
    function=_tyro_llamarm_$(IFS=_; echo "${COMP_WORDS[*]:1:words}")
    function=${function//[^a-zA-Z0-9_]/_}
    if ! declare -F "$function" > /dev/null; then
        # Without the end, which would register it for `llamarm` in place of this function.
        source <("$1" "${COMP_WORDS[@]:1:words}" --tyro-print-completion bash 2> /dev/null | sed '/^# Register/,$d')
    fi
    if declare -F "$function" > /dev/null; then
        COMP_WORDS=("$1" "${COMP_WORDS[@]:words + 1}")
        COMP_CWORD=$((COMP_CWORD - words))
        "$function"
        # Lines of descriptions come too; and an empty word is a value, so files are completed in place of options.
        local word found=("${COMPREPLY[@]}") cur=${COMP_WORDS[COMP_CWORD]}
        COMPREPLY=()
        for word in "${found[@]}"; do
            [[ $word == "$cur"* && $word != *" "* && (-n $cur || $word != -*) ]] && COMPREPLY+=("$word")
        done
    fi
}
complete -o default -F _llamarm llamarm
"""


def bash_completion(commands: Sequence[str]) -> str:
    """A script that a shell sources.

    Args:
        commands: names of all.
    """
    names = {
        "COMMANDS": commands,
        "RECIPES": RECIPES,
        "FROM_DEMONSTRATIONS": [name for name, recipe in RECIPES.items() if recipe().loop == "train"],
        "WORLDS": WORLDS,
    }
    script = _SCRIPT
    for name, words in names.items():
        script = script.replace(f"@{name}@", " ".join(words))
    return script
