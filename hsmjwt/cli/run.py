"""One run of one command: where it prints, how long it may take, and how its work is waited for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from hsmjwt import deadline as deadlines
from hsmjwt.cli.ends import heed_lost
from hsmjwt.cli.output import Console
from hsmjwt.deadline import Deadline
from hsmjwt.errors import UsageError
from hsmjwt.jose.claims import parse_duration
from hsmjwt.jose.encoding import EncodingFault

T = TypeVar("T")

TIMEOUT = 30.0  # seconds, for the whole command


class Run:
    """What every command's function is handed."""

    def __init__(self, console: Console, argv: Sequence[str], command: Sequence[str] = ()) -> None:
        """Start without a limit; `limit` sets one. `command` is what follows `--`, where that is not ours to parse."""
        self.console = console
        self.argv = argv
        self.command = list(command)
        self.deadline = Deadline(None)

    def limit(self, text: str | None, default: float | None = TIMEOUT) -> Deadline:
        """Set the time for the whole command from `--timeout`, or the default in seconds; raises UsageError."""
        seconds = default if text is None else duration("--timeout", text)
        if seconds == 0:
            raise UsageError("--timeout: must be longer than 0", hint="for example 30s")
        self.deadline = Deadline(seconds)
        return self.deadline

    def wait(self, call: Callable[[], T]) -> T:
        """Do the work that may hang (token, server) and wait for it; Ctrl-C and the deadline end the wait at once.

        C code prints nothing among our results from here on.
        """
        self.console.divert()
        # python-pkcs11 has raised an error, and reports it once more when it clears up after a search (Cython, by both)
        sys.unraisablehook, sys.excepthook = heed_lost, _silent
        return deadlines.run(call, self.deadline, self.console.notice)

    def read(self, path: str, most: int, *, what: str, hint: str) -> bytes:
        """Read a file that the user named, `-` for stdin, which may be a pipe that nobody writes to.

        Raises UsageError where it cannot be read or holds more than `most` bytes; `what` is how messages call it.
        """
        self.deadline.enter(what)
        try:
            data = deadlines.run(lambda: _content(path, most + 1), self.deadline)
        except OSError as error:
            raise UsageError(f"{what} cannot be read: {(error.strerror or '').lower()}", hint=hint) from None
        if data is None:
            raise UsageError(f"{what} cannot be read: it is a terminal, or closed", hint=hint)
        if len(data) > most:
            raise UsageError(f"{what} holds more than {most} bytes", hint=hint)
        return data


def _content(path: str, most: int) -> bytes | None:
    """Return up to `most` bytes, None where a person would have to type them."""
    if path != "-":
        with open(path, "rb") as file:
            return file.read(most)
    if sys.stdin is None or sys.stdin.isatty():
        return None
    return sys.stdin.buffer.read(most)


def _silent(*_: object) -> None:
    """Report nothing."""


def duration(flag: str, text: str) -> float:
    """Parse the value of a flag that takes a DURATION; raises UsageError."""
    try:
        seconds = parse_duration(text)
    except EncodingFault as error:
        what, _, forms = str(error).partition(": write ")
        raise UsageError(f"{flag}: {what}", hint=f"write {forms}" if forms else None) from None
    return float(seconds)
