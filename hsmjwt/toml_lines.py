"""Where in a TOML text each key stands, which tomllib does not tell.

The text has been read by tomllib before, so nothing is checked here; what is not understood is passed over.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

KeyPath = tuple[str, ...]

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR: Final = re.compile(r"[^,\]}\n#]*")


class _Stop(Exception):
    """Something that is not understood."""


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line (from 1) on which each key or table is named first.

    Keys of inline tables count; those of tables in arrays stand under the array's own path. Never raises: a text that
    is no TOML gives what stands before the fault.
    """
    finder = _Finder(text)
    try:
        finder.document()
    except (_Stop, IndexError, RecursionError, ValueError):
        pass  # a missing line number is no reason to fail
    return finder.lines


def value_spans(text: str) -> dict[KeyPath, tuple[int, int]]:
    """Return where in the text each key's value begins and ends, of what `key_lines` understands.

    The end of a number or a date may have blanks before it. Never raises.
    """
    finder = _Finder(text)
    try:
        finder.document()
    except (_Stop, IndexError, RecursionError, ValueError):
        pass  # whoever edits looks at what became of it
    return finder.spans


class _Finder:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self.spans: dict[KeyPath, tuple[int, int]] = {}
        self._counted_to = 0
        self._line = 1

    def document(self) -> None:
        """Walk over the whole text."""
        table: KeyPath = ()
        while True:
            self.skip(_BLANK)
            if self.at >= len(self.text):
                return
            if self.text[self.at] == "[":
                brackets = 2 if self.text.startswith("[[", self.at) else 1
                self.at += brackets
                table = self.key(())
                self.expect("]" * brackets)
            else:
                self.pair(table)

    def pair(self, table: KeyPath) -> None:
        """Walk over `key = value`."""
        path = self.key(table)
        self.expect("=")
        self.skip(_BLANK)
        start = self.at
        self.value(path)
        self.spans.setdefault(path, (start, self.at))

    def key(self, table: KeyPath) -> KeyPath:
        """Walk over a dotted key, note its line for each part, and return its path."""
        path = table
        while True:
            self.skip(_SPACE)
            self.note(path := (*path, self.part()))
            self.skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return path
            self.at += 1

    def part(self) -> str:
        """Walk over one part of a key and return its name."""
        found = _STRING.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
            name = tomllib.loads(f"x = {found[0]}")["x"]
            return str(name)
        return self.skip(BARE_KEY, some=True)

    def value(self, path: KeyPath) -> None:
        """Walk over a value, into inline tables and arrays."""
        self.skip(_BLANK)
        opening = self.text[self.at]
        if opening not in "[{":
            if (found := _STRING.match(self.text, self.at)) is not None:
                self.at = found.end()
            else:
                self.skip(_SCALAR)
            return
        closing = "]" if opening == "[" else "}"
        self.at += 1
        while True:
            self.skip(_BLANK)
            if self.text[self.at] == closing:
                self.at += 1
                return
            if opening == "[":
                self.value(path)
            else:
                self.pair(path)
            self.skip(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1
            elif self.text[self.at] != closing:
                raise _Stop

    def note(self, path: KeyPath) -> None:
        """Keep the present line for a path that has none yet; lines are counted on as the walk goes on."""
        self._line += self.text.count("\n", self._counted_to, self.at)
        self._counted_to = self.at
        self.lines.setdefault(path, self._line)

    def skip(self, pattern: re.Pattern[str], *, some: bool = False) -> str:
        found = pattern.match(self.text, self.at)
        if found is None or (some and not found[0]):
            raise _Stop
        self.at = found.end()
        return found[0]

    def expect(self, token: str) -> None:
        self.skip(_SPACE)
        if not self.text.startswith(token, self.at):
            raise _Stop
        self.at += len(token)
