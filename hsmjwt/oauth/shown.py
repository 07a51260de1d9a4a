"""How somebody else's text is shown: in one line, not too long, and with a mark where something was left out."""

from __future__ import annotations

import re

HIDDEN = "***"
SECRET_NAMES = r"(?:token|secret|passw(?:or)?d|assertion|jwt|api[_-]?key|credential|cookie|authorization|signature)s?"

_HARMLESS = r"(?i)(?:types?|uris?|urls?|endpoint|_in|_at|_alg|methods?|supported|description)$"
_PUBLIC = frozenset(  # form fields of RFC 6749, 7521, 8693 and 8707, and others that name a place
    ("client_id", "scope", "scopes", "audience", "resource", "realm", "tenant", "account", "organization")
)
_PUBLIC_KINDS = frozenset(("type", "uri", "url", "format", "method", "version"))


def telling(name: str) -> bool:
    """Tell whether a form field or a JSON member of this name holds a secret."""
    return re.search(f"(?i){SECRET_NAMES}", name) is not None and re.search(_HARMLESS, name) is None


def known_harmless(name: str) -> bool:
    """Tell whether a form field of this name holds what everybody may see; of any other nobody can say that."""
    plain = name.lower()
    return plain in _PUBLIC or plain.rpartition("_")[2] in _PUBLIC_KINDS


def escaped(text: str) -> str:
    """Return `text` with what is not printable escaped, as repr does: line ends, terminal codes, bidi marks."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def cut(text: str, limit: int) -> str:
    """Return the first `limit` characters of `text`, the last of them an ellipsis where more followed."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
