"""Makes keys on a token: sensitive, not extractable, for signatures only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, assert_never

import msgspec

from hsmjwt.errors import DeviceError, HsmjwtError, KeyFault, UsageError
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.faults import translated
from hsmjwt.hsm.objects import NAMES, KeyObject, read_key, search
from hsmjwt.hsm.uri import KeyUri, TokenInfo
from hsmjwt.jose.keys import CURVES, PublicKey

_LABEL_BYTES, _ID_BYTES = 255, 255  # PKCS#11 sets no limit; SoftHSM takes these, and nobody needs more
_READ = (*NAMES, "KEY_TYPE", "MODULUS", "PUBLIC_EXPONENT", "SENSITIVE", "EXTRACTABLE")


class Kind(NamedTuple):
    """A type of key that is made here: `type` as KeyObject has it, `crv` for a key on a curve."""

    type: Literal["rsa", "ec"]
    bits: int
    crv: str | None = None


KINDS = {
    **{f"rsa:{bits}": Kind("rsa", bits) for bits in (2048, 3072, 4096)},
    "p256": Kind("ec", 256, "P-256"),
}
"""By the names that `key generate --type` takes."""


class NewKey(msgspec.Struct, frozen=True):
    """What to make: the type of key, label and id; `id` None chooses one.

    Raises UsageError for what no token can hold, whether it comes from a flag or from a URI.
    """

    kind: Kind
    label: str
    id: bytes | None

    def __post_init__(self) -> None:
        """Check label and id."""
        label = self.label
        if any("\ud800" <= char <= "\udfff" for char in label):
            raise UsageError(f"the label {label!a} is not UTF-8 text")
        if not label or any(char < " " or char == "\x7f" for char in label):
            raise UsageError(f"the label {label!a} is empty or holds a control character")
        if len(label.encode()) > _LABEL_BYTES:
            raise UsageError(
                f"the label is longer than {_LABEL_BYTES} bytes", hint="labels are for people: keep it short"
            )
        if self.id is not None and not 0 < len(self.id) <= _ID_BYTES:
            raise UsageError(f"the id must have 1 to {_ID_BYTES} bytes, this one has {len(self.id)}")


def parse_new_key(kind: str, label: str, key_id: str | None) -> NewKey:
    """Read what a new key is asked to be: `kind` as `rsa:3072` or `p256`, `key_id` in hex (colons allowed).

    Raises UsageError for what is neither, and as NewKey does.
    """
    if kind not in KINDS:
        raise UsageError(f"'{kind}' is no type of key that this version makes", hint=f"one of {', '.join(KINDS)}")
    try:
        value = None if key_id is None else bytes.fromhex(key_id.replace(":", ""))
    except ValueError:
        raise UsageError(f"the id {key_id!a} is not hexadecimal", hint="for example --id 0a1b") from None
    return NewKey(KINDS[kind], label, value)


def refuse_taken(session: Any, new: NewKey, token: TokenInfo) -> None:
    """Raise KeyFault where a key with this label, or this id, is there already."""
    taken = search(session, KeyUri(object=new.label), token, NAMES)
    if not taken and new.id is not None:
        taken = search(session, KeyUri(id=new.id), token, NAMES)
    if taken:
        raise KeyFault(
            f"there is a key with this label or id already: {min(taken, key=lambda key: key.kind).uri()}",
            hint="take another --label or --id; nothing was changed",
        )


class NewPair(NamedTuple):
    """A pair that was just made."""

    private: KeyObject
    public: KeyObject

    def removed(self, error: HsmjwtError) -> HsmjwtError:
        """Take both halves off the token again; return `error`, which says so where one of them stays behind."""
        return _removed((self.private.handle, self.public.handle), error, str(self.private.label))


def generate(session: Any, new: NewKey, token: TokenInfo, id_of: Callable[[PublicKey], bytes]) -> NewPair:
    """Make a key pair in a session that may write and is logged in.

    Both halves have their label from the start, so that no nameless one stays behind if the process dies. Where no id
    is asked for they get `id_of` the public key once that is known. Raises DeviceError where the token made something
    else than was asked for; that pair is removed again.
    """
    with translated("C_GenerateKeyPair"):
        public, private = _generate(session, new)
    try:
        pair = NewPair(
            KeyObject(private, read_key(private, _READ), token, "private"),
            KeyObject(public, read_key(public, _READ), token, "public"),
        )
    except HsmjwtError as error:
        raise _removed((private, public), error, new.label) from None
    about = pair.private.about
    made = pair.public.type, pair.public.bits
    if about.get("SENSITIVE") is not True or about.get("EXTRACTABLE") is not False or made != new.kind[:2]:
        raise pair.removed(
            DeviceError(
                "the token did not make the key that was asked for (sensitive, not extractable)",
                hint="nothing was kept",
            )
        )
    if new.id is not None:
        return pair
    try:
        key_id = id_of(pair.public.public_key())
    except HsmjwtError as error:
        raise pair.removed(error) from None
    return _with_id(pair, key_id)


def _generate(session: Any, new: NewKey) -> tuple[Any, Any]:
    """Return the handles of a new pair, the public one first."""
    attribute, mechanism = pkcs11.Attribute, pkcs11.Mechanism
    common: dict[str, Any] = {
        "id": new.id or os.urandom(20),
        "label": new.label,
        "store": True,
        "capabilities": pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
        "private_template": {attribute.SENSITIVE: True, attribute.EXTRACTABLE: False, attribute.PRIVATE: True},
    }
    match new.kind.type:
        case "rsa":
            public, private = session.generate_keypair(
                pkcs11.KeyType.RSA, new.kind.bits, mechanism=mechanism.RSA_PKCS_KEY_PAIR_GEN, **common
            )
        case "ec":
            oid = CURVES[str(new.kind.crv)].oid
            curve = session.create_domain_parameters(pkcs11.KeyType.EC, {attribute.EC_PARAMS: oid}, local=True)
            public, private = curve.generate_keypair(mechanism=mechanism.EC_KEY_PAIR_GEN, **common)
        case _:
            assert_never(new.kind.type)
    return public, private


def _with_id(pair: NewPair, key_id: bytes) -> NewPair:
    """Give both halves another id; on a token that does not let ids change both keep the first one."""
    renamed = []
    try:
        for half in pair:
            half.rename(key_id)
            renamed.append(half)
    except HsmjwtError:
        for half in renamed:
            half.rename(half.id or b"")
        return pair
    return NewPair(*(msgspec.structs.replace(half, about={**half.about, "ID": key_id}) for half in pair))


def _removed(halves: Iterable[Any], error: HsmjwtError, label: str) -> HsmjwtError:
    left = False
    for half in halves:
        try:
            with translated("C_DestroyObject"):
                half.destroy()
        except HsmjwtError:
            left = True
    if not left:
        return error
    hint = f"the key '{label}' is still on the token: remove it with the token's own tool"
    return type(error)(error.message, hint=hint, ckr=error.ckr)
