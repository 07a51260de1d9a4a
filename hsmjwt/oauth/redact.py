"""What may be shown of text that a server wrote: short, in one line, and with nothing token-like in it.

An answer that is not understood is what a person needs to see, and it is also where an access token hides that we
failed to find. So members with a telling name are hidden by their name, what we sent is hidden in every usual
spelling, and of the rest whatever looks random. In doubt, hidden: an answer with 2xx (`wary`) is read more strictly
than an error.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote, quote_plus

from hsmjwt.jose import encoding
from hsmjwt.oauth.shown import HIDDEN, SECRET_NAMES, cut, escaped, telling

__all__ = ["HIDDEN", "SHOWN", "body_excerpt", "cut", "escaped", "excerpt", "secrets_in"]

SHOWN = 200  # characters of a server's text in a message

_LOOKED_AT = 16 * 1024  # characters of a body that are looked at for the first 200
_MOST_SECRET = 256 * 1024  # characters to compare with; each becomes a dozen pieces, and a token has a third of it
_SHORTEST = 4  # characters of a secret in an answer; less is a word that its text may hold anyhow
_PIECE = 8  # characters of something we sent that give it away: servers cut what they quote
# Compiled when they are needed, which is not in every run.
_JWT = r"(?:eyJ|eyAi|ewog|ewoJ|ew0K)[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)*"
_ASSIGNED = rf"""(?ixs)(?P<name>{SECRET_NAMES}["'\]\s]*(?:=>|[:=])\s*)
  (?: "(?:[^"\\]|\\.)*+"? | '(?:[^'\\]|\\.)*+'?
    | (?<=[:=])[^\s&,;<>"'}}\])]+ | (?=\S*\d)[^\s&,;<>"'}}\])]{{6,}} )"""  # prose follows a colon and a blank
_FOLLOWED = rf"(?i)(?P<name>{SECRET_NAMES}\s+[\"'(]?)(?=\S*\d)[\w.~+/=-]{{12,}}"
_TOKEN_NAME = r"(?i)(?:access|refresh|id)[_-]?token"
_TOKEN_ASSIGNED = r"(?i)(?:access|refresh|id)[_-]?token[\"'\]\s]*(?:=>|[:=>])"
_UUID = r"(?i)\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
_RUN = r"[A-Za-z0-9_+/=~-]{20,}"
_SHORT_RUN = r"[A-Za-z0-9_+/=~-]{10,}"
_WORD = r"[A-Za-z]*[0-9]*"
_HUMP = r"[a-z][A-Z]"


def excerpt(text: str, sent: Sequence[str] = (), *, limit: int = SHOWN, wary: bool = False) -> str:
    """Return at most `limit` characters of a server's `text` that are safe to show, in one line.

    `sent` are the secrets of the request; they are hidden however the server spells them, also in part.
    """
    if sum(map(len, sent)) > _MOST_SECRET:
        return HIDDEN
    return cut(escaped(_redacted(text[:_LOOKED_AT], _spellings(sent), wary=wary)), limit)


def body_excerpt(body: bytes, sent: Sequence[str] = (), *, wary: bool = False) -> str:
    """Return what may be shown of an answer's body, '' where it is empty."""
    if b"\0" in body:  # UTF-16 would pass every pattern below
        return f"{len(body)} bytes that are no text"
    if sum(map(len, sent)) > _MOST_SECRET:
        return HIDDEN
    spellings = _spellings(sent)
    try:
        value = encoding.load(body)
    except encoding.EncodingFault:
        text = body[:_LOOKED_AT].decode("utf-8", "backslashreplace").strip()
        return cut(escaped(_redacted(_before_token(text, wary=wary), spellings, wary=wary)), SHOWN)
    opaque = wary and not isinstance(value, dict)  # some servers answer with the bare token as a JSON string
    masked = encoding.dump(_masked(value, spellings, wary=wary, hide=opaque))
    return cut(escaped(masked[: 4 * _LOOKED_AT].decode("utf-8", "ignore")), SHOWN)


def secrets_in(value: object, *, below: bool = False) -> list[str]:
    """Return the texts that stand under a telling name, at any depth of an answer's JSON; all of them if `below`."""
    if isinstance(value, dict):
        return [text for name, item in value.items() for text in secrets_in(item, below=below or telling(name))]
    if isinstance(value, list):
        return [text for item in value for text in secrets_in(item, below=below)]
    return [value] if below and isinstance(value, str) and len(value) >= _SHORTEST else []


def _masked(value: object, spellings: Sequence[str], *, wary: bool, hide: bool = False) -> Any:
    if isinstance(value, dict):
        return {
            _redacted(name, spellings, wary=wary): _masked(item, spellings, wary=wary, hide=hide or telling(name))
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_masked(item, spellings, wary=wary, hide=hide) for item in value]
    if hide and isinstance(value, str | int | float) and not isinstance(value, bool):
        return HIDDEN if value != "" else ""
    return _redacted(value[:_LOOKED_AT], spellings, wary=wary) if isinstance(value, str) else value


def _before_token(text: str, *, wary: bool) -> str:
    """Return `text` up to where it seems to name an access token, if it does: what follows cannot be parsed."""
    found = re.search(_TOKEN_NAME if wary else _TOKEN_ASSIGNED, text)
    if found:
        return text[: found.start()] + HIDDEN
    return HIDDEN if wary and text and not re.search(r"[\s<{\[]", text) else text


def _redacted(text: str, spellings: Sequence[str], *, wary: bool) -> str:
    text = _without(text, spellings)
    text = re.sub(_JWT, HIDDEN, text)
    text = re.sub(_ASSIGNED, rf"\g<name>{HIDDEN}", text)
    text = re.sub(_FOLLOWED, rf"\g<name>{HIDDEN}", text)
    return re.sub(_SHORT_RUN if wary else _RUN, lambda run: HIDDEN if _random(run[0]) else run[0], text)


def _random(run: str) -> bool:
    """Tell whether a run of token characters looks random; a UUID (servers name an incident so) and words do not."""
    words = re.split(r"[_+/=~-]+", re.sub(_UUID, "-", run))
    return any(
        re.fullmatch(_WORD, word) is None or len(re.findall(_HUMP, word)) > max(2, len(word) // 4)
        for word in words
        if word
    )


def _without(text: str, spellings: Iterable[str]) -> str:
    """Hide in `text` whatever it shares with what we sent, from eight characters on."""
    pieces: dict[int, set[str]] = {}
    for spelling in spellings:
        size = min(_PIECE, len(spelling))
        pieces.setdefault(size, set()).update(spelling[i : i + size] for i in range(len(spelling) - size + 1))
    seen = bytearray(len(text))
    for size, known in pieces.items():
        for i in range(len(text) - size + 1):
            if text[i : i + size] in known:
                seen[i : i + size] = b"\1" * size
    if not any(seen):
        return text
    parts: list[str] = []
    for i, character in enumerate(text):
        if not seen[i]:
            parts.append(character)
        elif i == 0 or not seen[i - 1]:
            parts.append(HIDDEN)
    return "".join(parts)


def _spellings(sent: Iterable[str]) -> list[str]:
    """Return the ways in which a server may quote a secret: form, JSON, HTML, base64 at any offset, hexadecimal."""
    found: set[str] = set()
    for secret in sent:
        if not secret:
            continue
        raw = secret.encode("utf-8", "surrogatepass")
        form = quote(raw, safe="")
        found |= {secret, form, quote(raw), quote_plus(raw), re.sub("%..", lambda code: code[0].lower(), form)}
        found |= {json.dumps(secret)[1:-1], json.dumps(secret).replace("/", "\\/")[1:-1], html.escape(secret)}
        found |= {code for code in (raw.hex(), raw.hex().upper(), *_base64(raw)) if len(code) > 2}
    return sorted(found)


def _base64(raw: bytes) -> Iterable[str]:
    """Return the base64 of `raw` as it stands inside a longer text, whatever stands before it ('client:secret')."""
    for before in range(3):
        whole = base64.b64encode(bytes(before) + raw).decode("ascii").rstrip("=")
        inner = whole[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6]
        yield inner
        yield inner.replace("+", "-").replace("/", "_")
