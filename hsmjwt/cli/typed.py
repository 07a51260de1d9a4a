"""The road through typer: whatever has flags, asks for help or is wrong; the one importer of typer.

The commands themselves run later, outside typer: it turns Ctrl-C into a return value and a closed pipe into exit code
1.
"""

from __future__ import annotations

import errno
import inspect
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from hsmjwt.cli.ends import INTERRUPTED
from hsmjwt.cli.flags import Action, Command, Flag, Group, Word
from hsmjwt.cli.output import ClosedPipeError, unwritable
from hsmjwt.errors import HsmjwtError, UsageError

_UNSET = "give it a value; is a shell variable unset?"

HELP = """Sign OAuth assertions with a key that never leaves its PKCS#11 token, and exchange them for access tokens.

\b
Examples:
  hsmjwt demo
  hsmjwt header adobe | curl -H @- https://api.example.com/reports

\b
hsmjwt COMMAND --help      explains a command
hsmjwt --version           tells the version; --json adds Python's and more
hsmjwt --show-completion   prints a script for completion in bash, zsh or fish
"""


def application(verbs: Mapping[str, Command | Group]) -> Any:
    """Return what parses command lines of these verbs."""
    app = _typer("hsmjwt", HELP)
    app.callback()(_root)  # a Typer of one command would swallow the verb's name
    for name, verb in verbs.items():
        if isinstance(verb, Command):
            app.command(name, help=verb.about)(_collector(verb))
            continue
        group = _typer(name, verb.about)
        for inner, each in verb.commands.items():
            group.command(inner, help=each.about)(_collector(each))
        app.add_typer(group, name=name)
    return typer.main.get_command(app)


def parse(verbs: Mapping[str, Command | Group], argv: Sequence[str]) -> Action | int:
    """Parse `argv` and return the work to do, or the exit code where there is none left: help was printed.

    Raises UsageError for what is wrong, ClosedPipeError and ConfigError where help cannot be printed.
    """
    app = application(verbs)
    try:
        action = app(list(argv), prog_name="hsmjwt", standalone_mode=False, complete_var="")
    except HsmjwtError:
        raise
    except SystemExit:  # typer's answer to a closed pipe
        raise ClosedPipeError from None
    except OSError as error:  # it printed help
        raise unwritable(error) from None
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        from hsmjwt.cli.usage import of_typer

        raise of_typer(error, app, argv) from None
    if callable(action):
        work: Action = action
        return work
    if action == INTERRUPTED:  # typer's answer to Ctrl-C
        raise KeyboardInterrupt
    if sys.stdout is None:  # it printed help, and does not see that nobody got it
        raise unwritable(OSError(errno.EBADF, os.strerror(errno.EBADF)))
    return int(action or 0)


def _typer(name: str, about: str) -> Any:
    return typer.Typer(
        name=name,
        help=about,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help"]},
    )


def _root() -> None:
    """Nothing that concerns all commands comes before one."""


def _collector(command: Command) -> Callable[..., Action]:
    """Return what typer calls: a function with the command's words and all its flags as parameters."""
    parameters = _own_parameters(command)
    fields: dict[str, list[str]] = {}
    for group, struct in command.groups.items():
        kinds = get_type_hints(struct, include_extras=True)
        fields[group] = list(struct.__struct_fields__)
        unset = struct()  # each field has a default; msgspec.structs.fields would take milliseconds to tell them
        parameters += [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=getattr(unset, name), annotation=kinds[name]
            )
            for name in fields[group]
        ]
    labels = {each.name: flag.name for each in parameters if isinstance(flag := _declared(each.annotation), Flag)}
    single = {name for name in labels if _kind_of(parameters, name) == str | None}

    def collect(**values: Any) -> Action:
        for name, value in values.items():
            _refuse_flag(labels.get(name, name), value, (*labels.values(), "--help"))
        for name in single:
            values[name] = _one(labels[name], values[name])
        built = {
            group: struct(**{name: values.pop(name) for name in fields[group]})
            for group, struct in command.groups.items()
        }
        return lambda run: command.function(run, **values, **built)

    seen = [each.replace(annotation=_for_typer(each.annotation, repeat=each.name in single)) for each in parameters]
    collect.__signature__ = inspect.Signature(seen)  # type: ignore[attr-defined]
    collect.__annotations__ = {parameter.name: parameter.annotation for parameter in seen}
    return collect


def _own_parameters(command: Command) -> list[inspect.Parameter]:
    """Return the function's words and flags, without the Run and the Structs."""
    hints = get_type_hints(command.function, include_extras=True)
    return [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command.function).parameters.items()
        if name not in command.groups and name != "run"
    ]


def _declared(annotation: Any) -> Flag | Word:
    """Return the declaration inside an annotation."""
    return next(extra for extra in get_args(annotation) if isinstance(extra, Flag | Word))


def _kind_of(parameters: Sequence[inspect.Parameter], name: str) -> Any:
    return next(get_args(each.annotation)[0] for each in parameters if each.name == name)


def _for_typer(annotation: Any, *, repeat: bool) -> Any:
    """Return the annotation as typer reads it.

    With `repeat` typer collects every value of a flag: by itself it keeps the last of two and says nothing.
    """
    kind, declared = get_args(annotation)[0], _declared(annotation)
    info: OptionInfo | ArgumentInfo
    if isinstance(declared, Flag):
        info = typer.Option(declared.name, metavar=declared.metavar, help=declared.help)
    else:
        info = typer.Argument(metavar=declared.metavar, help=declared.help, show_default=False)
    return Annotated[(list[str] | None if repeat else kind, info)]


def _refuse_flag(label: str, value: object, flags: Collection[str]) -> None:
    """Refuse a flag as the value of another: an unquoted empty variable makes `--iss $X --aud b` of what was meant."""
    for text in value if isinstance(value, list) else (value,):
        if text in flags:
            raise UsageError(f"{label} needs a value, and {text} is a flag", hint=_UNSET)


def _one(label: str, values: list[str] | None) -> str | None:
    if not values:
        return None
    if len(values) > 1:
        raise UsageError(f"{label} is given {len(values)} times", hint="leave all but one out")
    if not values[0]:
        raise UsageError(f"{label} is empty", hint=_UNSET)
    return values[0]
