"""What the text of a secret may be: one line of UTF-8 without control characters, as somebody could have typed it.

No token or server takes anything else, and a wrong PIN burns a try.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_LINE_ENDINGS = (b"\r\n", b"\n")
_ONE_LINE = "only one line ending at the very end is cut"
_NEVER = (
    ("\ufeff", "holds a byte order mark", "an editor put it there: save as UTF-8 without BOM"),
    ("\0", "holds a NUL character", "give one line of text in UTF-8; UTF-16 and binary data hold these"),
    ("\n", "holds a line end inside", _ONE_LINE),
    ("\r", "holds a carriage return (\\r)", _ONE_LINE),
)
# C0, DEL and C1 (U+0085, next line, among them), and Unicode's separators of lines and paragraphs
_CONTROL = "[\x00-\x1f\x7f-\x9f\u2028\u2029]"


class Unfit(NamedTuple):
    """Why bytes are no secret, and what to do about it; tells nothing of the bytes."""

    what: str
    hint: str


def text_of(raw: bytes, max_bytes: int) -> str | Unfit:
    """Return the text in what a source gave, one line ending cut, or why it can be no secret; never raises."""
    for ending in _LINE_ENDINGS:
        if raw.endswith(ending):
            raw = raw[: -len(ending)]
            break
    if not raw:
        return Unfit("is empty", "give it on one line; an empty one is never tried")
    if len(raw) > max_bytes:
        return Unfit(f"is longer than {max_bytes} bytes", "check the source: it is to give this secret alone")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return Unfit("is not UTF-8", "save or set it as UTF-8 text")
    for mark, what, hint in _NEVER:
        if mark in text:
            return Unfit(what, hint)
    if not text.isprintable() and re.search(_CONTROL, text):
        return Unfit("holds a control character", "type or save it again, without keys such as Tab, Escape or arrows")
    return text
