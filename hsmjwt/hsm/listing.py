"""Keys as rows of a listing: the shape of `key list --json`."""

from __future__ import annotations

from typing import Any

import msgspec

from hsmjwt.hsm.objects import KeyObject, certificate_ids, search
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.uri import KeyUri


def rows(slot: Slot, session: Any, uri: KeyUri) -> list[dict[str, Any]]:
    """Return a row for each private key that the URI leaves, and for each public key that has no private one."""
    if slot.token is None:
        return []
    every = search(session, KeyUri(), slot.token)
    private = [key for key in every if key.kind == "private"]
    public = [key for key in every if key.kind == "public"]
    certificates = certificate_ids(session)
    shown = private + [key for key in public if not any(_pair(key, half) for half in private)]
    made = [
        _row(key, public, certificates, slot.needed_id)
        for key in shown
        if uri.matches_object(key.label, key.id, key.kind)
    ]
    return sorted(made, key=lambda row: (row["label"] or "", row["id"] or "", row["uri"]))


def row(key: KeyObject, session: Any, slot_id: int | None) -> dict[str, Any]:
    """Return the row of one key."""
    public = search(session, KeyUri(type="public"), key.token)
    return _row(key, public, certificate_ids(session), slot_id)


def _row(key: KeyObject, public: list[KeyObject], certificates: set[bytes], slot_id: int | None) -> dict[str, Any]:
    about = key.about
    return {
        "uri": key.uri(slot_id),
        "label": None if key.label is None else key.label.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
        "id": None if key.id is None else key.id.hex(),
        "type": key.type,
        "bits": key.bits,
        "token": msgspec.structs.asdict(key.token),
        "private": key.kind == "private",
        "sign": about.get("SIGN") if key.kind == "private" else False,
        "sensitive": about.get("SENSITIVE"),
        "extractable": about.get("EXTRACTABLE"),
        "never_extractable": about.get("NEVER_EXTRACTABLE"),
        "local": about.get("LOCAL"),
        "always_authenticate": about.get("ALWAYS_AUTHENTICATE"),
        "has_public": key.kind == "public" or any(_pair(half, key) for half in public),
        "has_certificate": bool(key.id) and key.id in certificates,
    }


def _pair(one: KeyObject, other: KeyObject) -> bool:
    """Tell whether two objects are halves of one pair: the same id, or where there is none the same label."""
    if one.id or other.id:
        return one.id == other.id
    return one.label == other.label
