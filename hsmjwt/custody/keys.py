"""What the custodian of keys does: list them, see what the token says of one, hand out its public half."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec

from hsmjwt.compose import halves
from hsmjwt.compose.devices import DeviceChoice, Devices
from hsmjwt.errors import KeyNotFoundError, KeyUnfitError
from hsmjwt.hsm import listing
from hsmjwt.hsm.objects import KeyObject, find_object, public_key_of
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.uri import KeyType
from hsmjwt.hsm.ways import ways_left
from hsmjwt.jose.algorithms import Algorithm, usable_with
from hsmjwt.jose.keys import HiddenKey, PublicKey


class FoundKey(NamedTuple):
    """One key on a token, the session that it was found in, and the token's slot."""

    key: KeyObject
    session: Any
    slot: Slot


def list_keys(devices: Devices, choice: DeviceChoice) -> list[dict[str, Any]]:
    """Return a row for each key of the tokens that the URI leaves; logs in only where that is exactly one."""
    module = devices.module(choice)
    direct = module.library.direct
    tokens = module.find_tokens(choice.uri)
    if len(tokens) <= 1:
        slot = module.find_token(choice.uri)  # which looks twice before it says that there is none
        return listing.rows(slot, module.login(slot, devices.login(choice)), choice.uri, direct)
    module.settle()
    devices.around.warn(
        f"{len(tokens)} tokens fit, so nothing was logged in to; this is what is visible without a login"
    )
    return [row for slot in tokens for row in listing.rows(slot, module.session(slot), choice.uri, direct)]


def public_key(devices: Devices, choice: DeviceChoice) -> PublicKey:
    """Return the public half of one key; either object will do, and most tokens show the public one to anybody."""
    return labelled_key(devices, choice)[0]


def labelled_key(devices: Devices, choice: DeviceChoice) -> tuple[PublicKey, str]:
    """Return the public half of one key and the key's label, empty where it has none; see `public_key`."""
    there = found(devices, choice, "public", "private")
    return half_of(devices, choice, there), there.key.label or ""


def half_of(devices: Devices, choice: DeviceChoice, there: FoundKey) -> PublicKey:
    """Return the public half of a key: its own or its public object's, else a certificate's or what key tables name.

    Raises KeyUnfitError where it is told nowhere.
    """
    try:
        return public_key_of(there.session, there.key)
    except KeyUnfitError as error:
        half = halves.half_for(devices.settings, devices.module(choice), there.slot)
        known = half(there.session, there.key, error)
        if known is None or isinstance(known, HiddenKey):
            raise
        return known


def algorithms(key: KeyObject, public: PublicKey, offered: Collection[str] | None = None) -> tuple[Algorithm, ...]:
    """Return what a key can sign with by its size, by the mechanisms that it allows, and by those that a token offers.

    The best first. `offered` is None where the token is not asked.
    """
    return tuple(alg for alg in usable_with(public) if ways_left(alg.name, key.allowed, offered))


def found(devices: Devices, choice: DeviceChoice, *kinds: KeyType) -> FoundKey:
    """Return the one key that is chosen; it is looked for without a login, and with one where nothing is found.

    `kinds` are what will do for a key URI, which without a type means the private key; the best first. Raises
    KeyUnfitError for a URI of another kind of object, KeyNotFoundError and KeyNotUniqueError with the candidates.
    """
    if choice.uri.type not in (None, "private", "public"):
        hint = "leave type out, or write type=public"
        if choice.uri.type == "cert":
            hint += "; hsmjwt cert show takes a certificate's URI"
        raise KeyUnfitError(f"'{choice.uri.brief}' does not name a key", hint=hint)
    module = devices.module(choice)
    slot = module.find_token(choice.uri)
    assert slot.token is not None  # noqa: S101 - find_token returns no other
    uris = [choice.uri]
    if choice.uri.type in (None, "private"):
        uris = [msgspec.structs.replace(choice.uri, type=kind) for kind in kinds]
    session = module.session(slot)
    for uri in uris:
        with contextlib.suppress(KeyNotFoundError):
            key = find_object(session, uri, slot.token, slot.needed_id)
            module.settle()
            return FoundKey(key, session, slot)
    session = module.login(slot, devices.login(choice))
    for uri in uris[:-1]:
        with contextlib.suppress(KeyNotFoundError):
            return FoundKey(find_object(session, uri, slot.token, slot.needed_id), session, slot)
    return FoundKey(find_object(session, uris[-1], slot.token, slot.needed_id), session, slot)
