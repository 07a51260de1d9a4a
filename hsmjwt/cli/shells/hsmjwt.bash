# Completion of hsmjwt for bash 4.4 or later; in ~/.bashrc:
#   eval "$(hsmjwt --show-completion bash)"

_hsmjwt_completion() {
    local at helper line
    COMPREPLY=()
    if [[ ${COMP_WORDS[1]} == exec ]]; then
        for ((at = 2; at < COMP_CWORD; at++)); do
            [[ ${COMP_WORDS[at]} == -- ]] || continue
            # What stands behind the two hyphens is a command line of its own.
            for helper in _comp_command_offset _command_offset; do
                if declare -F "$helper" >/dev/null; then
                    "$helper" "$((at + 1))"
                    return
                fi
            done
            if ((COMP_CWORD == at + 1)) && [[ $2 != */* ]]; then
                mapfile -t COMPREPLY < <(compgen -c -- "$2")
            else
                compopt -o default
            fi
            return
        done
    fi
    while IFS= read -r line; do
        if [[ $line == $'\tfiles' ]]; then
            compopt -o default
        else
            COMPREPLY+=("$line")
        fi
    done < <(
        # COMP_WORDS is cut at the word breaks as well, the line is not.
        [[ -z $COMP_LINE ]] || export _TYPER_COMPLETE_ARGS="${COMP_LINE:0:COMP_POINT}"
        IFS=$'\n'
        COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _HSMJWT_WORDBREAKS=$COMP_WORDBREAKS \
            _HSMJWT_COMPLETE=complete_bash "${1/#\~\//"$HOME/"}" 2>/dev/null
    )
}

complete -F _hsmjwt_completion hsmjwt
