"""One run of one command: where it prints, how long it may take, and how its work is waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hsmjwt import deadline as deadlines
from hsmjwt.cli.output import Console
from hsmjwt.deadline import Deadline
from hsmjwt.errors import UsageError
from hsmjwt.jose.claims import parse_duration
from hsmjwt.jose.encoding import EncodingFault

T = TypeVar("T")

TIMEOUT = 30.0  # seconds, for the whole command


class Run:
    """What every command's function is handed."""

    def __init__(self, console: Console) -> None:
        """Start without a limit; `limit` sets one."""
        self.console = console
        self.deadline = Deadline(None)

    def limit(self, text: str | None, default: float | None = TIMEOUT) -> Deadline:
        """Set the time for the whole command from `--timeout`, or the default in seconds; raises UsageError."""
        self.deadline = Deadline(default if text is None else duration("--timeout", text))
        return self.deadline

    def wait(self, call: Callable[[], T]) -> T:
        """Do the work that may hang (token, server) and wait for it; Ctrl-C and the deadline end the wait at once.

        C code prints nothing among our results from here on.
        """
        self.console.divert()
        return deadlines.run(call, self.deadline, self.console.notice)


def duration(flag: str, text: str) -> float:
    """Parse the value of a flag that takes a DURATION; raises UsageError."""
    try:
        seconds = parse_duration(text)
    except EncodingFault as error:
        raise UsageError(f"{flag}: {error}", hint="for example 90, 90s, 5m, 1h or 1d") from None
    return float(seconds)
