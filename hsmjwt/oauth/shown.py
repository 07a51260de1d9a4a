"""How somebody else's text is shown: in one line, not too long, and with a mark where something was left out."""

from __future__ import annotations

import re

HIDDEN = "***"
SECRET_NAMES = r"(?:token|secret|passw(?:or)?d|assertion|jwt|api[_-]?key|credential|cookie|authorization|signature)s?"

_TELLING = re.compile(SECRET_NAMES, re.IGNORECASE)
_PUBLIC = re.compile(  # form fields of RFC 6749, 7521, 8693 and 8707, and what names a place or a kind
    r"client_id|scopes?|audience|resource|realm|tenant|account|organi[sz]ation|requested_token_use"
    r"|(?:\w+_)?(?:type|ur[il]|format|method|version)s?",
    re.IGNORECASE,
)
_HARMLESS = re.compile(r"(?:types?|uris?|urls?|endpoint|_in|_at|_alg|methods?|supported|description)$", re.IGNORECASE)


def telling(name: str) -> bool:
    """Tell whether a form field or a JSON member of this name holds a secret."""
    return _TELLING.search(name) is not None and _HARMLESS.search(name) is None


def known_harmless(name: str) -> bool:
    """Tell whether a form field of this name holds what everybody may see; of any other nobody can say that."""
    return _PUBLIC.fullmatch(name) is not None


def escaped(text: str) -> str:
    """Return `text` with what is not printable escaped, as repr does: line ends, terminal codes, bidi marks."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def cut(text: str, limit: int) -> str:
    """Return the first `limit` characters of `text`, the last of them an ellipsis where more followed."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
