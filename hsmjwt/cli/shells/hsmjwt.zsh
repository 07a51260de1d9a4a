#compdef hsmjwt
# Completion of hsmjwt for zsh; in ~/.zshrc, behind compinit:
#   eval "$(hsmjwt --show-completion zsh)"

_hsmjwt() {
    local -a offered
    local line value about typed
    local -i dashes=${words[(i)--]} files=0
    if [[ $words[2] == exec ]] && (( dashes < CURRENT )); then
        # What stands behind the two hyphens is a command line of its own.
        shift $dashes words
        (( CURRENT -= dashes ))
        _normal
        return
    fi
    typed="${(j: :)${(@q)${(@Q)words[1,CURRENT-1]}}} ${(q)${(Q)PREFIX}}"
    for line in "${(@f)$(_TYPER_COMPLETE_ARGS=$typed _HSMJWT_COMPLETE=complete_zsh "${words[1]/#\~\//$HOME/}" 2>/dev/null)}"; do
        value=${line%%$'\t'*}
        about=${line#$value}
        about=${about#$'\t'}
        if [[ -n $value ]]; then
            offered+=("${${value//\\/\\\\}//:/\\:}${about:+:$about}")
        elif [[ $about == files ]]; then
            files=1
        fi
    done
    if (( files )); then
        compset -P '--*='
        _files
    else
        _describe -t values hsmjwt offered
    fi
}

if [[ $funcstack[1] == _hsmjwt ]]; then
    _hsmjwt "$@"
else
    compdef _hsmjwt hsmjwt
fi
