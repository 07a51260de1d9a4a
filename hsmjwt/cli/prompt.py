"""Asks a person, for a PIN or a yes, on the terminal itself: stdin and stdout may be pipes that carry data."""

from __future__ import annotations

import contextlib
import os
import termios
from collections.abc import Callable

from hsmjwt.cli.output import one_line
from hsmjwt.deadline import Deadline
from hsmjwt.errors import LoginError, UsageError

_LONGEST = 4096
_NAMED_BY = {  # by the first word of the question
    "PIN": "--pin-source, pin_source in the key table, or HSMJWT_PIN_SOURCE",
    "passphrase": "--passphrase-source",
}
_OTHERWISE = "client_secret_source in the profile"
_YES = ("y", "yes")


def terminal_prompt(deadline: Deadline) -> Callable[[str], str]:
    """Return a function that asks a question on /dev/tty without echo and returns the answer.

    It raises LoginError where the process has no terminal. The terminal is put back as it was however the process
    ends, Ctrl-C included.
    """

    def ask(question: str) -> str:
        try:
            fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            raise LoginError(
                f"there is no terminal to ask for the {question}",
                hint=f"{_NAMED_BY.get(question.partition(' ')[0], _OTHERWISE)} names a source that needs no person: "
                "file:PATH, env:NAME, credential:NAME, fd:N or command:PROGRAM",
            ) from None
        gone = LoginError(f"the terminal went away before the {question} was typed", hint="name a source instead")
        try:
            before = termios.tcgetattr(fd)
            quiet = list(before)
            quiet[3] &= ~termios.ECHO
            with deadline.on_abandon(lambda: _restore(fd, before)):
                try:
                    termios.tcsetattr(fd, termios.TCSAFLUSH, quiet)
                    os.write(fd, f"{one_line(question)}: ".encode("utf-8", "backslashreplace"))
                    return _line(fd)
                finally:
                    _restore(fd, before)
        except (OSError, termios.error):
            raise gone from None
        finally:
            os.close(fd)

    return ask


def confirm(deadline: Deadline, question: str) -> bool:
    """Ask for a yes on /dev/tty, and return whether it was given; anything else is a no.

    Raises UsageError where the process has no terminal, or it went away.
    """
    hint = "--yes is for scripts, where nobody can be asked"
    try:
        fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise UsageError("there is no terminal on which to ask whether this is meant", hint=hint) from None
    try:
        termios.tcflush(fd, termios.TCIFLUSH)  # what was typed before the question is no answer to it
        with deadline.paused():
            os.write(fd, f"{one_line(question)} [y/N] ".encode("utf-8", "backslashreplace"))
            return _line(fd).strip().lower() in _YES
    except (OSError, termios.error):
        raise UsageError("the terminal went away before anybody said yes", hint=hint) from None
    finally:
        os.close(fd)


def _line(fd: int) -> str:
    typed = b""
    while not typed.endswith(b"\n") and len(typed) < _LONGEST:
        more = os.read(fd, 512)
        if not more:  # Ctrl-D, or a terminal that went away, which then tells nothing any more
            termios.tcgetattr(fd)
            break
        typed += more
    return typed.decode("utf-8", "surrogateescape").removesuffix("\n")


def _restore(fd: int, before: list[object]) -> None:
    with contextlib.suppress(OSError, termios.error):  # a terminal that went away needs nothing
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)  # type: ignore[arg-type]
        os.write(fd, b"\n")
