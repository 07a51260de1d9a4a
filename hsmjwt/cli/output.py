"""Everything that hsmjwt prints: results to stdout, the rest to stderr."""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from hsmjwt.errors import ConfigError, HsmjwtError

MESSAGES = "hsmjwt.messages"
"""The name under which `codecs` knows how messages are put into an encoding that lacks some of their characters."""

_USUAL_WIDTH = 80  # columns of a terminal that does not tell
_NO_END = 1_000_000  # columns: rich is to break no line


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
        """Print rows in columns, each as wide as it must be; control characters are escaped.

        No cell is cut or broken, so that a URI can be copied. A person at a terminal sees the heads in bold, and a
        line below them where the table is not wider than the terminal.
        """
        encoding = "ascii" if sys.stdout is None else sys.stdout.encoding
        cells = [
            [one_line(cell).encode(encoding, "backslashreplace").decode(encoding) for cell in row]
            for row in (heads, *rows)
        ]
        styled = _styled(cells, _columns(), encoding) if _shows_styles() else None
        self.result_bytes(styled or "".join(f"{line}\n" for line in _lines(cells)).encode(encoding))

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


def _shows_styles() -> bool:
    """Tell whether results go to a terminal that shows more than letters, and whose user wants more (no-color.org)."""
    if sys.stdout is None or not sys.stdout.isatty():
        return False
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in ("dumb", "unknown")


def _columns() -> int:
    """Return the terminal's width, 80 where it does not tell."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or _USUAL_WIDTH
    except OSError:
        return _USUAL_WIDTH


def _lines(cells: Sequence[Sequence[str]], length: Callable[[str], int] = len) -> list[str]:
    """Return rows as lines whose columns stand below each other; `length` counts a cell's columns of the terminal."""
    widths = [max(map(length, column)) for column in zip(*cells, strict=True)]
    padded = ([cell + " " * (width - length(cell)) for cell, width in zip(row, widths, strict=True)] for row in cells)
    return ["  ".join(row).rstrip() for row in padded]


def _styled(cells: Sequence[Sequence[str]], columns: int, encoding: str) -> bytes | None:
    """Return a table as rich writes it, no cell read as markup; None where there is no rich.

    Where it is wider than the terminal, that breaks the lines: such breaks are not there in what is copied from it.
    """
    try:
        from rich.box import SIMPLE_HEAD
        from rich.cells import cell_len
        from rich.console import Console as Writer
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return None
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    writer = Writer(
        file=file, width=_NO_END, force_terminal=True, markup=False, emoji=False, highlight=False, legacy_windows=False
    )
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in cells[0]:
        table.add_column(Text(head), no_wrap=True, overflow="ignore")
    for row in cells[1:]:
        table.add_row(*map(Text, row))
    width = writer.measure(table).maximum
    if width <= columns:
        writer.width = width
        writer.print(table)
    else:
        head, *rows = _lines(cells, cell_len)
        for line in (Text(head, style="bold"), *map(Text, rows)):
            writer.print(line, soft_wrap=True)
    data: bytes = file.buffer.getvalue()
    return data


def _apart(stream: TextIO) -> TextIO:
    """Return a stream on a copy of the descriptor, so that the descriptor itself can be given away."""
    copy = os.dup(stream.fileno())
    return open(copy, "w", encoding=stream.encoding, errors=stream.errors, closefd=False)


def one_line(text: str) -> str:
    """Escape what would break out of a line or drive a terminal (C0, C1, DEL, line separators, lone surrogates)."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in text)


def _put_otherwise(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks as an escape; not so the one such character of our own messages."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join("..." if char == "…" else _escaped(char) for char in missing), error.end


codecs.register_error(MESSAGES, _put_otherwise)


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
