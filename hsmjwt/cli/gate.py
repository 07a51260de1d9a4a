"""The gate: builds the command that argv names, runs it, and turns every error into a message and an exit code."""

from __future__ import annotations

import errno
import importlib
import itertools
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any

from hsmjwt import __version__
from hsmjwt.cli.output import ClosedPipeError, Console, one_line, unwritable
from hsmjwt.cli.run import Run
from hsmjwt.errors import HsmjwtError, UsageError

VERBS = {
    "cache": "hsmjwt.cli.cache",
    "demo": "hsmjwt.cli.demo",
    "doctor": "hsmjwt.cli.doctor",
    "header": "hsmjwt.cli.token",
    "inspect": "hsmjwt.cli.jwt",
    "key": "hsmjwt.cli.key",
    "sign": "hsmjwt.cli.sign",
    "slot": "hsmjwt.cli.slot",
    "softhsm": "hsmjwt.cli.softhsm",
    "token": "hsmjwt.cli.token",
    "verify": "hsmjwt.cli.jwt",
}
"""Every verb and the file that adds it; only the one that is called is loaded."""

_SHOWS_LAST = ("--json", "--output=json")


class TerminatedError(BaseException):
    """SIGTERM: raised in the main thread, so that it ends like Ctrl-C does."""


def gate(argv: Sequence[str]) -> int:
    """Run `argv` and return the exit code; every error is printed here and nowhere else."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    console = Console(verbose="--verbose" in argv, as_json=_wants_json(argv))
    run = Run(console)
    try:
        signal.signal(signal.SIGTERM, _terminate)
        return _run(list(argv), run)
    except HsmjwtError as error:
        console.error(error)
        return error.exit_code
    except ClosedPipeError:
        return 141
    except KeyboardInterrupt:
        run.deadline.abandon()
        console.error(_Interrupted("interrupted"))
        return 130
    except TerminatedError:
        run.deadline.abandon()
        console.error(_Terminated("terminated"))
        return 143
    except Exception as error:  # noqa: BLE001 - the last line of defence: a traceback could show secrets
        console.error(_bug(error))
        if console.verbose:
            for place in traceback.extract_tb(error.__traceback__):
                console.note(f"at {place.filename}:{place.lineno} in {place.name}")
        return 1
    finally:
        run.deadline.abandon()


def _run(argv: list[str], run: Run) -> int:
    console = run.console
    if not argv or argv == ["--help"]:
        return _typer(list(VERBS), ["--help"], run)
    if argv[0] == "--version" and set(argv[1:]) <= {"--json"}:
        if console.as_json:
            from hsmjwt.cli.version import about

            console.result_json(about())
        else:
            console.result(f"hsmjwt {__version__}")
        return 0
    verb = argv[0]
    if verb not in VERBS:
        raise _unknown(verb)
    return _typer([verb], argv, run)


def _typer(verbs: list[str], argv: list[str], run: Run) -> int:
    import typer

    app = typer.Typer(
        name="hsmjwt",
        help="Sign OAuth assertions with a key that never leaves its PKCS#11 token.",
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
        action = command(argv, prog_name="hsmjwt", standalone_mode=False)
    except HsmjwtError:
        raise
    except SystemExit:  # typer's answer to a closed pipe
        raise ClosedPipeError from None
    except OSError as error:  # it printed help
        raise unwritable(error) from None
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        raise _usage(error) from None
    if isinstance(action, int):
        if sys.stdout is None:
            raise unwritable(OSError(errno.EBADF, os.strerror(errno.EBADF)))
        return action
    return (action(run) or 0) if callable(action) else 0


def _root() -> None:
    """Sign OAuth assertions with a key that never leaves its PKCS#11 token, and exchange them for access tokens."""


class _Interrupted(HsmjwtError):
    exit_code, code = 130, "interrupted"


class _Terminated(HsmjwtError):
    exit_code, code = 143, "interrupted"


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise TerminatedError


def _bug(error: Exception) -> HsmjwtError:
    """Name the place of an error nobody foresaw, and nothing of its text, which may hold anything."""
    places = [place for place in traceback.extract_tb(error.__traceback__) if "hsmjwt" in place.filename]
    where = f" at {os.path.basename(places[-1].filename)}:{places[-1].lineno}" if places else ""
    return HsmjwtError(
        f"a bug in hsmjwt {__version__}: {type(error).__name__}{where}",
        hint="please report this line and what you did; --verbose adds the way that led there, and no values",
    )


def _usage(error: Any) -> UsageError:
    """Say what typer found wrong, our way."""
    text = one_line(error.format_message().split("\n")[0].strip().rstrip("."))
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "hsmjwt"
    return UsageError(text[:1].lower() + text[1:], hint=f"{path} --help shows the flags")


def _unknown(verb: str) -> UsageError:
    from hsmjwt.nearest import nearest

    near = nearest(verb, VERBS)
    hint = f"did you mean '{near}'?" if near else "hsmjwt --help lists them"
    kind = "flag" if verb.startswith("-") else "command"
    return UsageError(f"there is no {kind} '{one_line(verb)}'", hint=hint)


def _wants_json(argv: Sequence[str]) -> bool:
    return any(word in _SHOWS_LAST for word in argv) or any(
        pair == ("--output", "json") for pair in itertools.pairwise(argv)
    )
