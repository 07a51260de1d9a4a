"""Checked tables of a TOML text: known keys, a type for each value, and errors that name file and line."""

from __future__ import annotations

import datetime
import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from hsmjwt.errors import ConfigError
from hsmjwt.nearest import did_you_mean
from hsmjwt.toml_lines import BARE_KEY, KeyPath, key_lines

# What a value may be, in words. "secret" is text that no message quotes; a duration may be a bare number too.
KINDS: Final = {
    "text": "text",
    "secret": "text",
    "secret or empty": "text",
    "path": "text",
    "texts": "text or a list of texts",
    "paths": "a list of texts",
    "duration": 'text such as "90s"',
    "moment": 'a date, a time with an offset, or text such as "2031-11-02T01:30:00Z"',
    "yes or no": "true or false",
    "count": "a whole number above 0",
    "table": "a table",
    "tables": "tables",
}
_PLAIN_NUMBER: Final = 10**18  # a larger one is described, not shown


class Source:
    """The text of a config file, kept for the line numbers of errors and never shown."""

    def __init__(self, path: str | None = None, text: str = "", noun: str = "config file") -> None:
        """Keep path and text; no path stands for a configuration that no file holds. `noun` says what the file is."""
        self._path = path
        self._noun = noun
        self._text = text
        self._lines: dict[KeyPath, int] | None = None  # found for the first fault

    def place(self, key: KeyPath) -> str:
        """Return such as `config file 'PATH', line N`: the line of the key, else of the nearest table around it."""
        if self._path is None:
            return "the configuration"
        if self._lines is None:
            self._lines = key_lines(self._text)
        while key and key not in self._lines:
            key = key[:-1]
        return f"{self._noun} {self._path!r}" + (f", line {self._lines[key]}" if key else "")

    def fault(self, key: KeyPath, problem: str, *, hint: str | None = None) -> ConfigError:
        """Return the error for what is wrong with a key."""
        return ConfigError(f"{self.place(key)}: {problem}", hint=hint)

    def table(self, path: KeyPath, table: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
        """Return the values of a table, each of the kind that `known` gives its key. Raises ConfigError."""
        values: dict[str, Any] = {}
        for name, value in table.items():
            key = (*path, name)
            if name not in known:
                raise self.fault(
                    key, f"unknown key {name!r} {where(path)}", hint=did_you_mean(name, known, noun="keys")
                )
            values[name] = self._value(key, value, known[name])
        return values

    def _value(self, key: KeyPath, value: object, kind: str) -> object:
        """Return one value, or raise for its type; an empty one says nothing and is refused."""
        if kind == "duration" and _is_number(value) and abs(value) < _PLAIN_NUMBER:  # type: ignore[arg-type]
            value = str(value)
        for name, item in value.items() if kind == "tables" and isinstance(value, dict) else ():
            if not isinstance(item, dict):
                inner = (*key, name)
                raise self.fault(inner, f"{_name(inner)} must be a table, not {_described(item, show=False)}")
        good = {
            "tables": isinstance(value, dict),
            "table": isinstance(value, dict),
            "paths": _is_texts(value),
            "texts": isinstance(value, str) or _is_texts(value),
            "moment": isinstance(value, str | datetime.date),
            "yes or no": isinstance(value, bool),
            "count": isinstance(value, int) and not isinstance(value, bool) and value > 0,
        }.get(kind, isinstance(value, str))
        if not good:
            raise self.fault(
                key,
                f"{_name(key)} must be {KINDS[kind]}, not {_described(value, show=not kind.startswith('secret'))}",
                hint=f'write {key[-1]} = "{value}"' if kind == "text" and _is_short(value) else None,
            )
        if value in ("", []) and kind != "secret or empty":
            raise self.fault(key, f"{_name(key)} is empty", hint="remove it, or give it a value")
        for path in [value] if kind == "path" else value if kind == "paths" and isinstance(value, list) else []:
            if not os.path.isabs(str(path)):
                raise self.fault(key, f"{_name(key)}: the path {path!r} is relative", hint="write the whole path")
        return value


def decoded(data: bytes, path: str, noun: str = "config file") -> str:
    """Return the text of a TOML file, UTF-8, as tomllib takes it: without a BOM and carriage returns.

    Raises ConfigError, which holds nothing of the file.
    """
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    raise ConfigError(f"{noun} {path!r}, line {line}: not UTF-8", hint="save the file as UTF-8 (a BOM does no harm)")


def loaded(text: str, path: str, noun: str = "config file") -> dict[str, Any]:
    """Return what TOML says; raises ConfigError, which holds nothing of the text but what tomllib quotes."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        fault = _not_toml(path, text, error, noun)
    raise fault  # out here, where no context holds the text


def _not_toml(path: str, text: str, error: Exception, noun: str) -> ConfigError:
    """Return the error for bad TOML; tomllib tells the place at the end of its message."""
    if isinstance(error, RecursionError):
        return ConfigError(f"{noun} {path!r} is nested too deep")
    message = str(error)
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if found is None:  # int() takes 4300 digits at most
        return ConfigError(f"{noun} {path!r}: a number has too many digits")
    what = message[: found.start()]
    what = what[:1].lower() + what[1:]
    line = found[1] or str(text.rstrip("\n").count("\n") + 1)
    column = f", column {found[2]}" if found[2] else " at the end of the file"
    return ConfigError(
        f"{noun} {path!r}, line {line}{column}: not TOML: {what}",
        hint='texts stand in quotes: name = "value"; https://toml.io/en/v1.0.0 has the rules',
    )


def dotted(path: KeyPath) -> str:
    """Return a key as TOML writes it, such as `profiles.adobe`; control characters escaped."""
    return ".".join(part if BARE_KEY.fullmatch(part) else repr(part) for part in path)


def where(path: KeyPath) -> str:
    """Return where a key stands, for a message."""
    return f"in [{dotted(path)}]" if path else "at the top level"


def _name(key: KeyPath) -> str:
    return f"{key[-1]} {where(key[:-1])}"


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_short(value: object) -> bool:
    return _is_number(value) and abs(value) < _PLAIN_NUMBER  # type: ignore[arg-type]


def _described(value: object, *, show: bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}" if show and _is_short(value) else "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "a list" if all(isinstance(item, str) and item for item in value) else "a list of other things"
    return "a table" if isinstance(value, dict) else "a date or time"
