"""What is wrong with a command line, said our way: typer's own words quote whatever was given, a PIN among it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from hsmjwt.cli.output import one_line
from hsmjwt.errors import UsageError
from hsmjwt.hsm.uri import display
from hsmjwt.nearest import nearest

_JWT = re.compile(r"eyJ[\w-]{4,}(?:\.[\w-]*)*")
_PEM = re.compile(r"(-----BEGIN [A-Z0-9 ]*-----).*", re.DOTALL)
_EXTRA = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", re.DOTALL)
_LONGEST_SHOWN = 80


def shown(text: str) -> str:
    """Return an argument in quotes as a message may show it: no PIN, token or key, one line, not too long."""
    text = one_line(_JWT.sub("***", _PEM.sub(r"\1 ***", display(text))))
    return f"'{text}'" if len(text) <= _LONGEST_SHOWN else f"'{text[:_LONGEST_SHOWN]}…'"


def unknown_verb(argv: Sequence[str], verbs: Collection[str]) -> UsageError:
    """Return the error for a first word that is no command."""
    word = argv[0]
    if word == "--version":
        return UsageError("--version stands alone, or before --json", hint="hsmjwt --help shows more")
    if not word.startswith("-"):
        return UsageError(f"there is no command {shown(word)}", hint=_near(word, verbs, "hsmjwt --help lists them"))
    verb = next((other for other in argv if other in verbs), None)
    if verb is not None:
        flag = shown(word.partition("=")[0])  # its value may be anything
        return UsageError(
            f"the flag {flag} stands before the command", hint=f"flags stand behind it: hsmjwt {verb} {flag[1:-1]} …"
        )
    return UsageError(
        f"there is no flag {shown(word.partition('=')[0])}",
        hint=_near(word, ("--help", "--version", "--show-completion"), "hsmjwt --help lists the commands"),
    )


def of_typer(error: Any, command: Any, argv: Sequence[str]) -> UsageError:
    """Return our error for one that typer raised while it parsed `argv`; its attributes tell which one it is."""
    path, rest = "hsmjwt", list(argv)
    while rest and rest[0] in getattr(command, "commands", ()):
        command = command.commands[rest[0]]
        path += f" {rest.pop(0)}"
    hint = f"{path} --help shows the flags"
    flag = getattr(error, "option_name", None)
    if flag is not None:
        return _about_flag(error, flag, _near(flag, _flags(command), hint), hint)
    if hasattr(command, "commands"):
        return _no_command(path, rest, list(command.commands))
    message = str(getattr(error, "message", ""))
    if extra := _EXTRA.fullmatch(message):
        return UsageError(f"too many arguments: {shown(extra[1])}", hint=hint)
    if hasattr(error, "param_type") and error.param is not None:
        return UsageError(f"the argument {error.param.metavar} is missing", hint=hint)
    text = one_line(error.format_message().split("\n")[0].strip().rstrip("."))
    return UsageError(text[:1].lower() + text[1:], hint=hint)


def _about_flag(error: Any, flag: str, near: str, hint: str) -> UsageError:
    if hasattr(error, "possibilities"):
        return UsageError(f"there is no flag {shown(flag)}", hint=near)
    return UsageError(f"{flag} {'takes no value' if 'does not take' in str(error) else 'needs a value'}", hint=hint)


def _no_command(path: str, rest: Sequence[str], known: Sequence[str]) -> UsageError:
    listed = f"{path} has {', '.join(known)}"
    if not rest:
        return UsageError(f"'{path}' needs a command", hint=listed)
    return UsageError(f"'{path}' has no command {shown(rest[0])}", hint=_near(rest[0], known, listed))


def _flags(command: Any) -> list[str]:
    return [name for param in command.params for name in param.opts if name.startswith("--")] + ["--help"]


def _near(word: str, known: Iterable[str], otherwise: str) -> str:
    best = nearest(word, known)
    return f"did you mean '{best}'?" if best else otherwise
