"""What the custodian of keys does: list them, make one, see what the token says of it, hand out its public half."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from hsmjwt.compose.devices import DeviceChoice, Devices
from hsmjwt.custody.proof import self_test
from hsmjwt.errors import HsmjwtError, KeyNotFoundError, KeyUnfitError
from hsmjwt.hsm import keygen, listing
from hsmjwt.hsm.keygen import NewKey
from hsmjwt.hsm.objects import KeyObject, find_object, public_key_of
from hsmjwt.hsm.uri import KeyType
from hsmjwt.jose.jwk import thumbprint
from hsmjwt.jose.keys import PublicKey
from hsmjwt.x509 import public as x509


def list_keys(devices: Devices, choice: DeviceChoice) -> list[dict[str, Any]]:
    """Return a row for each key of the tokens that the URI leaves; logs in only where that is exactly one."""
    module = devices.module(choice)
    tokens = module.find_tokens(choice.uri)
    if len(tokens) <= 1:
        slot = module.find_token(choice.uri)  # which looks twice before it says that there is none
        return listing.rows(slot, module.login(slot, devices.login(choice)), choice.uri)
    module.settle()
    devices.around.warn(
        f"{len(tokens)} tokens fit, so nothing was logged in to; this is what is visible without a login"
    )
    return [row for slot in tokens for row in listing.rows(slot, module.session(slot), choice.uri)]


def generate_key(devices: Devices, choice: DeviceChoice, new: NewKey) -> str:
    """Make a key pair and return the private key's URI; its id comes from the public key unless one is given.

    The new key signs once, and is taken off the token again where that signature does not verify.
    """
    module = devices.module(choice)
    slot = module.find_token(choice.uri)
    login = devices.login(choice)
    module.log_in(slot, login)
    assert slot.token is not None  # noqa: S101 - find_token returns no other
    session = module.session(slot, write=True)
    with module.alone():  # or of two that start together both would find the label free
        keygen.refuse_taken(session, new, slot.token)
        devices.around.deadline.enter("the token, which makes the key")
        pair = keygen.generate(session, new, slot.token, x509.key_identifier)
    uri = pair.private.uri(slot.needed_id)
    try:
        self_test(devices, choice, uri)
    except HsmjwtError as error:
        raise pair.removed(error) from None
    return uri


def show_key(devices: Devices, choice: DeviceChoice) -> dict[str, Any]:
    """Return what the token says of one key; logs in only where it is not visible without."""
    key, session, slot_id = _found(devices, choice, "private")
    row = listing.row(key, session, slot_id)
    with contextlib.suppress(KeyUnfitError):  # a type that is not used here, or a half that is not there
        public = public_key_of(session, key)
        row["thumbprint"] = thumbprint(public)
        row["spki_sha256"] = x509.spki_sha256(public).hex()
    return row


def public_key(devices: Devices, choice: DeviceChoice) -> PublicKey:
    """Return the public half of one key; either object will do, and most tokens show the public one to anybody."""
    key, session, _ = _found(devices, choice, "public", "private")
    return public_key_of(session, key)


def _found(devices: Devices, choice: DeviceChoice, *kinds: KeyType) -> tuple[KeyObject, Any, int | None]:
    """Look for an object without a login, and with one where nothing is found; return it, its session and slot id.

    `kinds` are what will do for a key URI, which without a type means the private key; the best first.
    """
    if choice.uri.type not in (None, "private", "public"):
        raise KeyUnfitError(f"'{choice.uri}' does not name a key", hint="leave type out, or write type=public")
    module = devices.module(choice)
    slot = module.find_token(choice.uri)
    assert slot.token is not None  # noqa: S101 - find_token returns no other
    uris = [choice.uri]
    if choice.uri.type in (None, "private"):
        uris = [msgspec.structs.replace(choice.uri, type=kind) for kind in kinds]
    slot_id = slot.needed_id
    session = module.session(slot)
    for uri in uris:
        with contextlib.suppress(KeyNotFoundError):
            key = find_object(session, uri, slot.token, slot_id)
            module.settle()
            return key, session, slot_id
    session = module.login(slot, devices.login(choice))
    for uri in uris[:-1]:
        with contextlib.suppress(KeyNotFoundError):
            return find_object(session, uri, slot.token, slot_id), session, slot_id
    return find_object(session, uris[-1], slot.token, slot_id), session, slot_id
