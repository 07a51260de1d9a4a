"""Everything that hsmjwt prints: results to stdout, the rest to stderr."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from hsmjwt.errors import ConfigError, HsmjwtError


class ClosedPipeError(Exception):
    """Whoever read our stdout has gone; nothing is to be said about it."""


def unwritable(error: OSError) -> ConfigError:
    """Return the error for a stdout that takes nothing."""
    reason = (error.strerror or "unknown reason").lower()
    return ConfigError(f"stdout cannot be written: {reason}", hint="it may be closed, or the disk full")


class Console:
    """What one command prints.

    `verbose` shows notes, `as_json` adds the error as JSON to the end of stderr. A module loaded later may print too:
    after `divert` its stdout and stderr go nowhere, with `--verbose` to our stderr.
    """

    def __init__(self, *, verbose: bool = False, as_json: bool = False) -> None:
        """Remember the two switches; the streams are looked up when something is printed."""
        self.verbose = verbose
        self.as_json = as_json
        self.final = True  # a command's one result ends it; the demo has many
        self._diverted = False
        self._said: set[str] = set()

    def result(self, text: str) -> None:
        """Print a command's result, the one thing that goes to stdout.

        Raises ClosedPipeError where nobody reads it, and ConfigError where it cannot be written.
        """
        line = text if text.endswith("\n") or not text else text + "\n"
        encoding = "ascii" if sys.stdout is None else sys.stdout.encoding
        self.result_bytes(line.encode(encoding, "backslashreplace"))

    def result_bytes(self, data: bytes) -> None:
        """Print a result that is no text; raises what `result` raises.

        Ctrl-C comes before the result or not at all: who has it must not be told that the command failed. A large one
        may have to wait for its reader, and is left to Ctrl-C.
        """
        stops = {signal.SIGINT, signal.SIGTERM} if len(data) <= select.PIPE_BUF else set()
        stops = {number for number in stops if callable(signal.getsignal(number))} if self.final else set()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, stops)
        try:
            if sys.stdout is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            for number in stops:
                signal.signal(number, signal.SIG_IGN)
        except BrokenPipeError:
            raise ClosedPipeError from None
        except OSError as error:
            raise unwritable(error) from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def result_json(self, value: Any) -> None:
        """Print a result as one line of JSON."""
        self.result(json.dumps(value, ensure_ascii=True, separators=(", ", ": ")))

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows in columns, each as wide as it must be; control characters are escaped."""
        cells = [[one_line(cell) for cell in row] for row in (heads, *rows)]
        widths = [max(len(row[place]) for row in cells) for place in range(len(heads))]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        )
        self.result("\n".join(lines))

    def warn(self, text: str) -> None:
        """Say something that the user should know, once."""
        if text not in self._said:
            self._said.add(text)
            _say(f"hsmjwt: {text}")

    @property
    def has_warned(self) -> bool:
        """Tell whether there was a warning."""
        return bool(self._said)

    def note(self, text: str) -> None:
        """Say something that only `--verbose` shows."""
        if self.verbose:
            _say(f"hsmjwt: {text}")

    def notice(self, stage: str) -> None:
        """Tell a person at a terminal what takes so long."""
        if sys.stderr is not None and sys.stderr.isatty():
            _say(f"hsmjwt: waiting for {stage} …")

    def error(self, error: HsmjwtError, notes: Sequence[str] = ()) -> None:
        """Print an error and its hint, notes where `--verbose` asks for them, and with `--json` the same at the end."""
        _say(f"hsmjwt: error: {error.message}")
        hint = error.hint or error.usual_hint
        if hint:
            head, *more = hint.split("\n")
            _say(f"hsmjwt: hint: {head}")
            for line in more:
                _say(line)
        for text in notes:
            self.note(text)
        if self.as_json:
            members = {
                "code": error.code,
                "exit": error.exit_code,
                "message": one_line(error.message),
                "hint": hint,
                "ckr": error.ckr,
                "oauth_error": error.oauth_error,
            }
            _say(json.dumps({"error": members}))

    def divert(self) -> None:
        """Keep what C code prints away from our results and messages."""
        if self._diverted:
            return
        self._diverted = True
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        if sys.stdout is not None:
            sys.stdout = _apart(sys.stdout)
        if self.verbose:
            os.dup2(2, 1)
            return
        if sys.stderr is not None:
            sys.stderr = _apart(sys.stderr)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)

    def restore(self) -> None:
        """Give the streams their descriptors back, for a program that takes our place."""
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            if stream is not None:
                stream.flush()
                if stream.fileno() != number:
                    os.dup2(stream.fileno(), number)


def _apart(stream: TextIO) -> TextIO:
    """Return a stream on a copy of the descriptor, so that the descriptor itself can be given away."""
    copy = os.dup(stream.fileno())
    return open(copy, "w", encoding=stream.encoding, errors="backslashreplace", closefd=False)


def one_line(text: str) -> str:
    """Escape what would break out of a line or drive a terminal (C0, C1, DEL, line separators, lone surrogates)."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def _say(text: str) -> None:
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(one_line(text) + "\n")
        sys.stderr.flush()
    except OSError:
        # Nobody can be told that nobody can be told.
        return
