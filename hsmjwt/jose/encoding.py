"""base64url and JSON in the one spelling that JOSE allows, strict when reading and when writing.

Two readers of one token must never see two different things, so what RFC 8259 leaves open is closed here: a name
stands once in an object, a number is one that a double holds, text is UTF-8 without a byte order mark and without half
of a surrogate pair, and nesting ends at 32 levels. Messages name the member and never repeat the text that was read:
it may hold a secret.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 32

_URLSAFE = re.compile(r"[A-Za-z0-9_-]*")
# A whole string, or one that the text ends in, or a bracket outside of strings. Possessive, so that it is linear.
_BRACKETS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|([\[{])|([\]}])', re.DOTALL)
_DOUBLE_DIGITS = 309  # of the largest double; more is refused before int() looks at them, which takes 4300 at most
_SHOWN = 80  # characters of a name or a value in a message


class EncodingFault(ValueError):
    """Text or a value that is not what its RFC says; the message says what is wrong and never repeats the text."""


class _Refused:
    """Stands where the JSON parser met something that is refused, until the walk knows the path to it."""

    __slots__ = ("name", "why")

    def __init__(self, why: str, name: str | None = None) -> None:
        self.why = why
        self.name = name


def quoted(text: str, limit: int = _SHOWN) -> str:
    """Return `text` in single quotes for a message: control characters escaped, cut after `limit` characters."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    return f"'{repr(cut)[1:-1]}'"


def b64u_encode(data: bytes) -> str:
    """Return base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def b64u_decode(text: str) -> bytes:
    """Return the bytes of base64url text, taking the one spelling that `b64u_encode` writes and no other.

    Raises EncodingFault on padding, white space, `+` or `/`, anything else outside of the alphabet, an impossible
    length, and bits set that no byte uses.
    """
    try:
        data = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except (UnicodeEncodeError, binascii.Error):
        data = None
    if data is None or b64u_encode(data) != text:
        raise EncodingFault(_why_not_base64url(text))
    return data


def _why_not_base64url(text: str) -> str:
    good = _URLSAFE.match(text)
    at = good.end() if good else 0
    if at < len(text):
        character = text[at]
        if character == "=":
            return "base64url with padding ('=')"
        if character.isspace():
            return f"white space in base64url at character {at + 1}"
        if character in "+/":
            return f"{quoted(character)} at character {at + 1}: standard base64, not base64url"
        return f"{quoted(character)} at character {at + 1} is no base64url"
    if len(text) % 4 == 1:
        return "base64url that is cut short (one character too many, or too few)"
    return "base64url with unused bits that are not zero"


def dump(value: object, *, noun: str = "member") -> bytes:
    """Return compact JSON as UTF-8, members in the order given (RFC 8259).

    Raises EncodingFault, naming the member after `noun`, for NaN and Infinity, integers beyond a double, half a
    surrogate pair, names that are no text, types that JSON does not have, and nesting that `load` would refuse.
    """
    _walk(value, "", noun, MAX_DEPTH)
    return _ENCODER.encode(value).encode("utf-8")


def load(data: bytes | str, *, depth: int = MAX_DEPTH, noun: str = "member", root: str = "") -> Any:
    """Return the value of strict JSON text (RFC 8259, RFC 7493, section 2).

    Integers keep all their digits, other numbers become floats. A fault is named as `noun` and the path to it, which
    begins with `root` where one is given. Raises EncodingFault for a byte order mark, text that is not UTF-8, trailing
    data, a name twice in one object, NaN, Infinity, numbers that no double holds, half a surrogate pair, and nesting
    over `depth`.
    """
    text = _text(data)
    _limit_depth(text, depth)
    value, why = None, None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        reason = error.msg[:1].lower() + error.msg[1:].removesuffix(" at")
        why = f"not JSON: {reason} at line {error.lineno}, column {error.colno}"
    if why is not None:  # raised out here, where no context holds the whole text
        raise EncodingFault(why)
    _walk(value, quoted(root)[1:-1], noun, depth)
    return value


def load_object(data: bytes | str, *, depth: int = MAX_DEPTH, noun: str = "member", root: str = "") -> dict[str, Any]:
    """Return the members of a strict JSON object; as `load`, and EncodingFault for any other value."""
    value = load(data, depth=depth, noun=noun, root=root)
    if not isinstance(value, dict):
        raise EncodingFault(f"{json_type(value)} where a JSON object belongs")
    return value


def json_type(value: object) -> str:
    """Return what JSON calls the type of `value`, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "an object" if isinstance(value, dict) else "a list"


def _text(data: bytes | str) -> str:
    if isinstance(data, bytes):
        if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
            raise EncodingFault("not UTF-8 (it looks like UTF-16 or UTF-32)")
        text, broken_at = "", None
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            broken_at = error.start + 1
        if broken_at is not None:  # raised out here, where no context holds the whole text
            raise EncodingFault(f"not UTF-8 at byte {broken_at}")
    else:
        text = data
        if not _well_formed(text):
            raise EncodingFault("not UTF-8 (half a surrogate pair)")
    if text.startswith("\ufeff"):
        raise EncodingFault("begins with a byte order mark (BOM)")
    if not text.strip(" \t\r\n"):
        raise EncodingFault("not JSON: it is empty")
    return text


def _limit_depth(text: str, depth: int) -> None:
    """Refuse nesting before the parser runs, which would recurse as deep as the text asks for."""
    level = 0
    for found in _BRACKETS.finditer(text):
        if found[1]:
            level += 1
            if level > depth:
                raise EncodingFault(f"nested deeper than {depth} levels at character {found.start() + 1}")
        elif found[2]:
            level -= 1


def _well_formed(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Refused:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            return _Refused("occurs twice", name)
        members[name] = value
    return members


def _integer(text: str) -> int | _Refused:
    if len(text.lstrip("-")) > _DOUBLE_DIGITS:
        return _Refused("is a number that no double holds")
    return int(text)  # whether a double holds it is for the walk to see


def _decimal(text: str) -> float | _Refused:
    value = float(text)
    return value if math.isfinite(value) else _Refused("is a number that no double holds")


def _constant(text: str) -> _Refused:
    return _Refused(f"is {text}, which is no JSON")


def _refuse(path: str, noun: str, why: str) -> NoReturn:
    raise EncodingFault(f"{noun} '{path}' {why}" if path else f"the value {why}")


def _child(path: str, name: str) -> str:
    shown = quoted(name)[1:-1]
    return f"{path}.{shown}" if path else shown


def _walk(value: object, path: str, noun: str, left: int) -> None:
    """Raise EncodingFault, with its path, for what JSON text between programs must not hold."""
    if isinstance(value, dict | list | tuple):
        if left == 0:
            _refuse(path, noun, "is nested too deep")
        if isinstance(value, dict):
            _walk_object(value, path, noun, left - 1)
        else:
            for index, item in enumerate(value):
                _walk(item, f"{path}[{index}]", noun, left - 1)
    elif isinstance(value, _Refused):
        _refuse(path if value.name is None else _child(path, value.name), noun, value.why)
    else:
        why = _why_no_scalar(value)
        if why is not None:
            _refuse(path, noun, why)


def _why_no_scalar(value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return None if _well_formed(value) else "holds half a surrogate pair, which is no Unicode text"
    if isinstance(value, float):
        return None if math.isfinite(value) else "is NaN or infinite, which is no JSON"
    if isinstance(value, int):
        try:
            float(value)
        except OverflowError:
            return "is a number that no double holds"
        return None
    return f"is of the type {type(value).__name__}, which JSON does not have"


def _walk_object(members: dict[Any, Any], path: str, noun: str, left: int) -> None:
    for name, value in members.items():
        if not isinstance(name, str):
            _refuse(path, noun, f"has a name of the type {type(name).__name__}, where JSON has text")
        below = _child(path, name)
        if not _well_formed(name):
            _refuse(below, noun, "has half a surrogate pair in its name, which is no Unicode text")
        _walk(value, below, noun, left)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_decimal, parse_constant=_constant
)
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)
