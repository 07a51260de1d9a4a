"""The gate: builds the command that argv names, runs it, and turns every error into a message and an exit code."""

from __future__ import annotations

import errno
import importlib
import itertools
import os
import sys
from collections.abc import Sequence
from typing import Any

from hsmjwt import __version__
from hsmjwt.cli.ends import INTERRUPTED, TERMINATED, StoppedError
from hsmjwt.cli.output import ClosedPipeError, Console, unwritable
from hsmjwt.cli.run import Run
from hsmjwt.errors import BusyError, HsmjwtError

VERBS = {
    "sign": "hsmjwt.cli.sign",
    "token": "hsmjwt.cli.token",
    "header": "hsmjwt.cli.token",
    "inspect": "hsmjwt.cli.jwt",
    "verify": "hsmjwt.cli.jwt",
    "doctor": "hsmjwt.cli.doctor",
    "demo": "hsmjwt.cli.demo",
    "slot": "hsmjwt.cli.slot",
    "key": "hsmjwt.cli.key",
    "cache": "hsmjwt.cli.cache",
    "softhsm": "hsmjwt.cli.softhsm",
}
"""Every verb and the file that adds it, as help lists them; only the one that is called is loaded."""

_HELP = """Sign OAuth assertions with a key that never leaves its PKCS#11 token, and exchange them for access tokens.

\b
Examples:
  hsmjwt demo
  hsmjwt header adobe | curl -H @- https://api.example.com/reports

\b
hsmjwt COMMAND --help   explains a command
hsmjwt --version        tells the version; --json adds Python's and more
"""
_SHOWS_LAST = ("--json", "--output=json")
_CLOSED_PIPE = 141  # what a shell shows for a death by SIGPIPE


def gate(argv: Sequence[str]) -> int:
    """Run `argv` and return the exit code; every error is printed here and nowhere else."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    console = Console(verbose="--verbose" in argv, as_json=_wants_json(argv))
    run = Run(console, argv)
    try:
        return _run(list(argv), run)
    except HsmjwtError as error:
        console.error(error)
        return error.exit_code
    except ClosedPipeError:
        return _CLOSED_PIPE
    except KeyboardInterrupt:
        run.deadline.abandon()
        console.error(_Interrupted("interrupted"))
        return INTERRUPTED
    except StoppedError:
        run.deadline.abandon()
        console.error(_Terminated("terminated"))
        return TERMINATED
    except Exception as error:  # noqa: BLE001 - the last line of defence: a traceback could show secrets
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            console.error(BusyError("no file can be opened any more", hint="ulimit -n allows this process too few"))
            return BusyError.exit_code
        _report_bug(console, error)
        return 1
    finally:
        run.deadline.abandon()


def _run(argv: list[str], run: Run) -> int:
    verb = argv[0] if argv else "--help"
    if verb in VERBS:
        return _typer([verb], argv, run)
    if verb.startswith("-") and "--help" in (verb, *argv):
        return _typer(list(VERBS), ["--help"], run)
    if verb == "--version" and set(argv[1:]) <= {"--json"}:
        if run.console.as_json:
            from hsmjwt.cli.version import about

            run.console.result_json(about())
        else:
            run.console.result(f"hsmjwt {__version__}")
        return 0
    from hsmjwt.cli.usage import unknown_verb

    raise unknown_verb(argv, VERBS)


def _typer(verbs: list[str], argv: list[str], run: Run) -> int:
    import typer

    app = typer.Typer(
        name="hsmjwt",
        help=_HELP,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help"]},
    )
    app.callback()(_root)  # a Typer of one command would swallow the verb's name
    for path in dict.fromkeys(VERBS[verb] for verb in verbs):
        importlib.import_module(path).add(app)
    command: Any = typer.main.get_command(app)
    try:
        action = command(argv, prog_name="hsmjwt", standalone_mode=False, complete_var="")
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

        raise of_typer(error, command, argv) from None
    if callable(action):
        return action(run) or 0
    if action == INTERRUPTED:  # typer's answer to Ctrl-C
        raise KeyboardInterrupt
    if sys.stdout is None:  # it printed help, and does not see that nobody got it
        raise unwritable(OSError(errno.EBADF, os.strerror(errno.EBADF)))
    return int(action or 0)


def _root() -> None:
    """Nothing that concerns all commands comes before one."""


class _Interrupted(HsmjwtError):
    exit_code, code = 130, "interrupted"


class _Terminated(HsmjwtError):
    exit_code, code = 143, "interrupted"


def _report_bug(console: Console, error: Exception) -> None:
    """Name the place of an error nobody foresaw, and nothing of its text, which may hold anything."""
    import traceback

    ways = traceback.extract_tb(error.__traceback__)
    ours = [place for place in ways if f"{os.sep}hsmjwt{os.sep}" in place.filename]
    where = f" at {os.path.basename(ours[-1].filename)}:{ours[-1].lineno}" if ours else ""
    console.error(
        HsmjwtError(
            f"a bug in hsmjwt {__version__}: {type(error).__name__}{where}",
            hint="please report this line and what you did; --verbose adds the way that led there, and no values",
        ),
        [f"at {place.filename}:{place.lineno} in {place.name}" for place in ways],
    )


def _wants_json(argv: Sequence[str]) -> bool:
    return any(word in _SHOWS_LAST for word in argv) or any(
        pair == ("--output", "json") for pair in itertools.pairwise(argv)
    )
