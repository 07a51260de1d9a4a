"""Makes keys on a token: sensitive, not extractable, for signatures only."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from hsmjwt.errors import DeviceError, HsmjwtError, KeyFault, UsageError
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.faults import translated
from hsmjwt.hsm.objects import KeyObject, read_attributes, search
from hsmjwt.hsm.uri import KeyUri, TokenInfo

RSA_SIZES = (2048, 3072, 4096)
_LABEL_BYTES = 255  # PKCS#11 sets no limit; what SoftHSM, OpenSC and YubiKey take without harm lies below
_ID_BYTES = 255


class NewKey(msgspec.Struct, frozen=True):
    """What to make: bits of RSA, label and id; `id` None chooses one."""

    bits: int
    label: str
    id: bytes | None


def parse_new_key(kind: str, label: str, key_id: str | None) -> NewKey:
    """Check what a new key is asked to be: `kind` as `rsa:3072`, `key_id` in hex (colons allowed).

    Raises UsageError for what no token can hold.
    """
    name, _, size = kind.partition(":")
    if name != "rsa" or size not in {str(bits) for bits in RSA_SIZES}:
        sizes = ", ".join(f"rsa:{bits}" for bits in RSA_SIZES)
        raise UsageError(f"'{kind}' is no type of key that this version makes", hint=f"one of {sizes}")
    if any("\ud800" <= char <= "\udfff" for char in label):
        raise UsageError(f"the label {label!a} is not UTF-8 text")
    if not label or any(char < " " or char == "\x7f" for char in label):
        raise UsageError(f"the label {label!a} is empty or holds a control character")
    if len(label.encode()) > _LABEL_BYTES:
        raise UsageError(f"the label is longer than {_LABEL_BYTES} bytes", hint="labels are for people: keep it short")
    if key_id is None:
        return NewKey(int(size), label, None)
    try:
        value = bytes.fromhex(key_id.replace(":", ""))
    except ValueError:
        raise UsageError(f"the id {key_id!a} is not hexadecimal", hint="for example --id 0a1b") from None
    if not 0 < len(value) <= _ID_BYTES:
        raise UsageError(f"the id must have 1 to {_ID_BYTES} bytes, this one has {len(value)}")
    return NewKey(int(size), label, value)


def refuse_taken(session: Any, new: NewKey, token: TokenInfo) -> None:
    """Raise KeyFault where a key with this label, or this id, is there already."""
    taken = search(session, KeyUri(object=new.label), token, ("CLASS", "LABEL", "ID"))
    if not taken and new.id is not None:
        taken = search(session, KeyUri(id=new.id), token, ("CLASS", "LABEL", "ID"))
    if taken:
        raise KeyFault(
            f"there is a key with this label or id already: {taken[0].uri()}",
            hint="take another --label or --id; nothing was changed",
        )


def generate(session: Any, new: NewKey, token: TokenInfo) -> KeyObject:
    """Make an RSA key pair in a session that may write and is logged in; returns the private key.

    Raises DeviceError where the token made something else than was asked for; that pair is removed again.
    """
    attribute = pkcs11.Attribute
    with translated("C_GenerateKeyPair"):
        public, private = session.generate_keypair(
            pkcs11.KeyType.RSA,
            new.bits,
            id=new.id or os.urandom(20),
            label=new.label,
            store=True,
            mechanism=pkcs11.Mechanism.RSA_PKCS_KEY_PAIR_GEN,
            capabilities=pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
            private_template={attribute.SENSITIVE: True, attribute.EXTRACTABLE: False, attribute.PRIVATE: True},
        )
    about = read_attributes(
        private, ("LABEL", "ID", "KEY_TYPE", "MODULUS", "PUBLIC_EXPONENT", "SIGN", "SENSITIVE", "EXTRACTABLE", "LOCAL")
    )
    key = KeyObject(private, about, token, "private")
    if about.get("SENSITIVE") is not True or about.get("EXTRACTABLE") is not False or key.bits != new.bits:
        _remove(private, public)
        raise DeviceError(
            "the token did not make the key that was asked for (sensitive, not extractable)", hint="nothing was kept"
        )
    return key


def set_id(session: Any, key: KeyObject, key_id: bytes) -> KeyObject:
    """Give both halves of a new pair the id `key_id`; a token that does not let ids change keeps the first one."""
    old = key.id
    halves = search(session, KeyUri(id=old), key.token, ("CLASS", "LABEL", "ID"))
    try:
        for half in halves:
            half.rename(key_id)
    except HsmjwtError:
        for half in halves:
            if read_attributes(half.handle, ("ID",)).get("ID") != old and old is not None:
                half.rename(old)
        return key
    return msgspec.structs.replace(key, about={**key.about, "ID": key_id})


def _remove(*handles: Any) -> None:
    for handle in handles:
        with translated("C_DestroyObject"):
            handle.destroy()
