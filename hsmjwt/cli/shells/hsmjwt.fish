# Completion of hsmjwt for fish; in ~/.config/fish/config.fish:
#   hsmjwt --show-completion fish | source

function __hsmjwt_completion
    set -l words (commandline -opc)
    set -l token (commandline -ct)
    if test "$words[2]" = exec
        if set -l dashes (contains -i -- -- $words)
            # What stands behind the two hyphens is a command line of its own.
            set -e words[1..$dashes]
            complete -C (string join ' ' -- (string escape -- $words) $token)
            return
        end
    end
    set -lx _HSMJWT_COMPLETE complete_fish
    set -lx _TYPER_COMPLETE_ARGS (commandline -cp | string collect)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    for line in ($program 2>/dev/null)
        if test "$line" = \tfiles
            set -l flag (string match -r '^--[^=]+=' -- $token)
            for path in (__fish_complete_path (string replace -- "$flag" '' $token))
                printf '%s%s\n' "$flag" $path
            end
        else
            printf '%s\n' $line
        end
    end
end

complete -c hsmjwt -f -a '(__hsmjwt_completion)'
