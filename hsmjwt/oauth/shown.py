"""How somebody else's text is shown: in one line, not too long, and with a mark where something was left out."""

from __future__ import annotations

HIDDEN = "***"


def escaped(text: str) -> str:
    """Return `text` with what is not printable escaped, as repr does: line ends, terminal codes, bidi marks."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def cut(text: str, limit: int) -> str:
    """Return the first `limit` characters of `text`, the last of them an ellipsis where more followed."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
