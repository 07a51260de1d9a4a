"""How somebody else's text is shown: in one line, not too long, and with a mark where something was left out."""

from __future__ import annotations

import re

HIDDEN = "***"
SECRET_NAMES = r"(?:token|secret|passw(?:or)?d|assertion|jwt|api[_-]?key|credential|cookie|authorization|signature)s?"

_TELLING = re.compile(SECRET_NAMES, re.IGNORECASE)
_HARMLESS = re.compile(r"(?:types?|uris?|urls?|endpoint|_in|_at|_alg|methods?|supported|description)$", re.IGNORECASE)


def telling(name: str) -> bool:
    """Tell whether a form field or a JSON member of this name holds a secret."""
    return _TELLING.search(name) is not None and _HARMLESS.search(name) is None


def escaped(text: str) -> str:
    """Return `text` with what is not printable escaped, as repr does: line ends, terminal codes, bidi marks."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def cut(text: str, limit: int) -> str:
    """Return the first `limit` characters of `text`, the last of them an ellipsis where more followed."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
