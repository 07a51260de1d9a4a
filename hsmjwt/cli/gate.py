"""The gate: builds the command that argv names, runs it, and turns every error into a message and an exit code."""

from __future__ import annotations

import errno
import importlib
import itertools
import os
import sys
from collections.abc import Mapping, Sequence

from hsmjwt import __version__
from hsmjwt.cli.ends import INTERRUPTED, TERMINATED, StoppedError
from hsmjwt.cli.flags import Action, Command, Group
from hsmjwt.cli.output import MESSAGES, ClosedPipeError, Console
from hsmjwt.cli.run import Run
from hsmjwt.errors import BusyError, HsmjwtError

VERBS = {
    "sign": "hsmjwt.cli.sign",
    "token": "hsmjwt.cli.token",
    "header": "hsmjwt.cli.token",
    "exec": "hsmjwt.cli.exec",
    "inspect": "hsmjwt.cli.jwt",
    "verify": "hsmjwt.cli.jwt",
    "doctor": "hsmjwt.cli.doctor",
    "demo": "hsmjwt.cli.demo",
    "slot": "hsmjwt.cli.slot",
    "key": "hsmjwt.cli.key",
    "cert": "hsmjwt.cli.cert",
    "jwks": "hsmjwt.cli.jwks",
    "profile": "hsmjwt.cli.profile",
    "provider": "hsmjwt.cli.provider",
    "cache": "hsmjwt.cli.cache",
    "softhsm": "hsmjwt.cli.softhsm",
}
"""Every verb and the file that adds it, as help lists them; only the one that is called is loaded."""

_COMPLETION = "_HSMJWT_COMPLETE"  # by which a shell asks what may stand at the cursor; see hsmjwt.cli.completion
_SHOWS_LAST = ("--json", "--output=json")
_CLOSED_PIPE = 141  # what a shell shows for a death by SIGPIPE


def gate(argv: Sequence[str]) -> int:
    """Run `argv` and return the exit code; every error is printed here and nowhere else."""
    for stream, errors in ((sys.stdout, "backslashreplace"), (sys.stderr, MESSAGES)):
        if stream is not None:
            stream.reconfigure(errors=errors)  # type: ignore[union-attr]
    argv, command = _cut(argv)
    console = Console(verbose="--verbose" in argv, as_json=_wants_json(argv))
    run = Run(console, argv, command)
    try:
        return _run(list(argv), run)
    except HsmjwtError as error:
        console.error(error)
        return error.exit_code
    except ClosedPipeError:
        return _CLOSED_PIPE
    except (KeyboardInterrupt, StoppedError) as stop:
        return _stopped(stop, run)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a traceback could show secrets
        behind = _behind(error)
        if behind is not None:
            return _stopped(behind, run)
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            console.error(BusyError("no file can be opened any more", hint="ulimit -n allows this process too few"))
            return BusyError.exit_code
        _report_bug(console, error)
        return 1
    finally:
        run.deadline.abandon()


def _cut(argv: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return our own words and the command of `exec`, which typer must not see: it would read its flags as ours."""
    if argv[:1] != ["exec"] or "--" not in argv:
        return argv, ()
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def _run(argv: list[str], run: Run) -> int:
    if not argv and _COMPLETION in os.environ:
        from hsmjwt.cli.completion import answer

        answer(os.environ[_COMPLETION], run.console, os.environ, VERBS, declared)
        return 0
    verb = argv[0] if argv else "--help"
    if verb in VERBS:
        found = declared(verb)
        action = _plain(found, argv[1:]) or _typed({verb: found}, argv)
        return action if isinstance(action, int) else action(run) or 0
    if verb.startswith("-") and "--help" in (verb, *argv):
        return _typed({verb: declared(verb) for verb in VERBS}, ["--help"])  # type: ignore[return-value]
    if verb == "--version" and set(argv[1:]) <= {"--json"}:
        if run.console.as_json:
            from hsmjwt.cli.version import about

            run.console.result_json(about())
        else:
            run.console.result(f"hsmjwt {__version__}")
        return 0
    if verb.partition("=")[0] == "--show-completion":
        from hsmjwt.cli.completion import script

        run.console.result(script(argv, os.environ))
        return 0
    from hsmjwt.cli.usage import unknown_verb

    raise unknown_verb(argv, VERBS)


def _behind(error: BaseException | None) -> BaseException | None:
    """Return the Ctrl-C or SIGTERM that an error was made of: what is raised while a class is made comes so."""
    while error is not None and not isinstance(error, KeyboardInterrupt | StoppedError):
        error = error.__cause__ or error.__context__
    return error


def _stopped(stop: BaseException, run: Run) -> int:
    run.deadline.abandon()
    if isinstance(stop, KeyboardInterrupt):
        run.console.error(_Interrupted("interrupted"))
        return INTERRUPTED
    run.console.error(_Terminated("terminated"))
    return TERMINATED


class _Interrupted(HsmjwtError):
    exit_code, code = 130, "interrupted"


class _Terminated(HsmjwtError):
    exit_code, code = 143, "interrupted"


def declared(verb: str) -> Command | Group:
    """Return what a verb's file declares."""
    found: Command | Group = importlib.import_module(VERBS[verb]).VERBS[verb]
    return found


def _plain(found: Command | Group, words: list[str]) -> Action | None:
    """Return the work of a call without flags; see hsmjwt.cli.flags."""
    if isinstance(found, Command):
        return found.plain(words)
    inner = found.commands.get(words[0]) if words else None
    return None if inner is None else inner.plain(words[1:])


def _typed(verbs: Mapping[str, Command | Group], argv: list[str]) -> Action | int:
    from hsmjwt.cli.typed import parse

    return parse(verbs, argv)


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
