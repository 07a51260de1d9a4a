"""Keys on a token: from a URI to exactly one object, from an object to what it says of itself.

Every value is checked before a search template is built: python-pkcs11 frees memory that it never filled where a value
of a template fails to pack, and the process dies. A label is packed by what never fails, besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from hsmjwt.errors import HsmjwtError, KeyNotFoundError, KeyNotUniqueError, KeyUnfitError
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.faults import translated
from hsmjwt.hsm.uri import KeyUri, TokenInfo, format_object_uri, hex_hint, parse
from hsmjwt.jose.keys import PublicKey, RsaKey

Kind = Literal["private", "public"]

_CLASSES: dict[Kind, str] = {"private": "PRIVATE_KEY", "public": "PUBLIC_KEY"}
_KINDS: dict[Any, Kind] = {pkcs11.ObjectClass[name]: kind for kind, name in _CLASSES.items()}
_TYPES = {"RSA": "rsa", "EC": "ec", "EC_EDWARDS": "ed25519"}
_UNTOLD = (  # what tokens answer for an attribute that they will not tell; some do so for all with the error of one
    "CKR_ATTRIBUTE_TYPE_INVALID",
    "CKR_ATTRIBUTE_SENSITIVE",
    "CKR_ATTRIBUTE_VALUE_INVALID",
    "CKR_FUNCTION_FAILED",
)
_SHOWN = 20  # candidates in a hint; a token may hold thousands

NAMES = ("LABEL", "ID")
"""The attributes that tell a key from another one of its kind."""

_TO_SIGN = (*NAMES, "KEY_TYPE", "MODULUS", "PUBLIC_EXPONENT", "SIGN", "ALWAYS_AUTHENTICATE")
_ALL = (*_TO_SIGN, "SENSITIVE", "EXTRACTABLE", "NEVER_EXTRACTABLE", "LOCAL")


class KeyObject(msgspec.Struct, frozen=True):
    """A key on a token: `handle` is python-pkcs11's, `about` what it says of itself, by attribute name.

    An attribute that the token does not tell is absent from `about`.
    """

    handle: Any
    about: Mapping[str, Any]
    token: TokenInfo
    kind: Kind

    @property
    def label(self) -> str | None:
        """Return the label; None where the token tells none. Bytes that are no UTF-8 come as lone surrogates."""
        label: str | None = self.about.get("LABEL")
        return label

    @property
    def id(self) -> bytes | None:
        """Return CKA_ID; None where the token tells none."""
        value: bytes | None = self.about.get("ID")
        return value

    @property
    def type(self) -> str | None:
        """Return `rsa`, `ec`, `ed25519`, another PKCS#11 name in lower case, or None."""
        value = self.about.get("KEY_TYPE")
        if value is None:
            return None
        name = getattr(value, "name", f"0x{int(value):x}")
        return _TYPES.get(name, name.lower())

    @property
    def bits(self) -> int | None:
        """Return the length of an RSA modulus in bits."""
        modulus = self.about.get("MODULUS")
        return int.from_bytes(modulus, "big").bit_length() if modulus else None

    def uri(self, slot_id: int | None = None) -> str:
        """Return the full URI of this object."""
        return format_object_uri(self.token, label=self.label, id=self.id, type=self.kind, slot_id=slot_id)

    def public_key(self) -> PublicKey:
        """Return the public key that the object itself holds; raises KeyUnfitError where it does not."""
        modulus, exponent = self.about.get("MODULUS"), self.about.get("PUBLIC_EXPONENT")
        if self.type != "rsa":
            raise KeyUnfitError(
                f"the key is of type {self.type or 'unknown'}", hint="this version of hsmjwt uses RSA keys only"
            )
        if not modulus or not exponent:
            raise KeyUnfitError(
                "the token tells no modulus and public exponent for the key, and no public half fits it"
            )
        return RsaKey(int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big"))

    def sign(self, data: bytes, mechanism: str, pin: str | None = None) -> bytes:
        """Sign `data` by the mechanism of that name; `pin` is for a key that asks for one at each use."""
        if not hasattr(self.handle, "sign"):
            raise KeyUnfitError("the token does not say that the key may sign", hint="it tells no CKA_SIGN for it")
        with translated("C_SignInit or C_Sign" if pin is None else "C_SignInit, C_Login or C_Sign"):
            signature: bytes = self.handle.sign(data, mechanism=pkcs11.Mechanism[mechanism], pin=pin)
        return signature

    def rename(self, key_id: bytes) -> None:
        """Set CKA_ID."""
        with translated("C_SetAttributeValue"):
            self.handle[pkcs11.Attribute.ID] = key_id


def label_mapper() -> Any:
    """Return a mapper that survives what tokens hold: labels that are no UTF-8, types of a vendor's own."""
    mapper = pkcs11.attributes.AttributeMapper()
    mapper.register_handler(
        pkcs11.Attribute.LABEL,
        lambda text: str(text).encode("utf-8", "replace"),  # never fails: see the top of this file
        lambda data: data.decode("utf-8", "surrogateescape"),
    )
    for attribute, enum in (("CLASS", pkcs11.ObjectClass), ("KEY_TYPE", pkcs11.KeyType)):
        mapper.register_handler(pkcs11.Attribute[attribute], _pack_ulong, _known_or_number(enum))
    return mapper


def _pack_ulong(value: int) -> bytes:
    packed: bytes = pkcs11.attributes.handle_ulong[0](int(value))
    return packed


def _known_or_number(enum: Any) -> Any:
    def unpack(data: bytes) -> Any:
        number = pkcs11.attributes.handle_ulong[1](data)
        try:
            return enum(number)
        except ValueError:
            return number

    return unpack


def find_signing_key(session: Any, uri: KeyUri, token: TokenInfo, slot_id: int | None) -> KeyObject:
    """Return the one private key that the URI selects, with what signing needs to know of it.

    One search. Raises KeyNotFoundError and KeyNotUniqueError with the candidates' URIs, KeyUnfitError where the URI
    asks for another kind of object.
    """
    uri = uri.for_private()
    if uri.type != "private":
        raise KeyUnfitError(f"'{uri.brief}' does not name a private key", hint="leave type out, or write type=private")
    return _one(session, uri, token, slot_id, _TO_SIGN)


def find_object(session: Any, uri: KeyUri, token: TokenInfo, slot_id: int | None) -> KeyObject:
    """Return the one key, private or public, that the URI selects, with all that it says of itself.

    Raises KeyNotFoundError and KeyNotUniqueError with the candidates' URIs.
    """
    return _one(session, uri, token, slot_id, _ALL)


def _one(session: Any, uri: KeyUri, token: TokenInfo, slot_id: int | None, attributes: tuple[str, ...]) -> KeyObject:
    found = search(session, uri, token, attributes)
    if len(found) == 1:
        return found[0]
    raise _several(uri, slot_id, found) if found else _none(session, uri, token, slot_id)


def search(session: Any, uri: KeyUri, token: TokenInfo, attributes: Iterable[str] = _ALL) -> list[KeyObject]:
    """Return the keys that the URI's object attributes select; none where it asks for what no key can have."""
    if uri.unknown or uri.type not in (None, *_CLASSES) or not _encodes(uri.object or ""):
        return []
    template: dict[Any, Any] = {}
    if uri.type == "private" or uri.type == "public":  # noqa: PLR1714 - the type checker follows this form alone
        template[pkcs11.Attribute.CLASS] = pkcs11.ObjectClass[_CLASSES[uri.type]]
    if uri.object is not None:
        template[pkcs11.Attribute.LABEL] = uri.object
    if uri.id is not None:
        template[pkcs11.Attribute.ID] = bytes(uri.id)
    with translated("C_FindObjects"):
        handles = list(session.get_objects(template))  # to the end: the session does nothing else meanwhile
    names = tuple(attributes)
    found = []
    for handle in handles:
        kind = _KINDS.get(getattr(handle, "object_class", None))
        if kind is not None:
            found.append(KeyObject(handle, read_attributes(handle, names), token, kind))
    # Some tokens take a template as a hint; what does not fit it is not a match.
    return [item for item in found if uri.matches_object(item.label, item.id, item.kind)]


def _encodes(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def read_attributes(handle: Any, names: Iterable[str]) -> dict[str, Any]:
    """Read attributes by name; those that the token will not tell are left out."""
    wanted = {name: pkcs11.Attribute[name] for name in names}
    try:
        with translated("C_GetAttributeValue"):
            values = handle.get_attributes(list(wanted.values()))
        return {name: values[attribute] for name, attribute in wanted.items() if attribute in values}
    except HsmjwtError as error:
        if error.ckr not in _UNTOLD:
            raise
    about = {}
    for name, attribute in wanted.items():
        try:
            with translated("C_GetAttributeValue"):
                about[name] = handle[attribute]
        except HsmjwtError as error:
            if error.ckr not in _UNTOLD:
                raise
    return about


def public_half(session: Any, key: KeyObject) -> KeyObject | None:
    """Return the public object with the same id, else the same label; None where there is not exactly one."""
    for mark in (KeyUri(type="public", id=key.id), KeyUri(type="public", object=key.label)):
        found = search(session, mark, key.token) if mark.id or mark.object else []
        if found:
            return found[0] if len(found) == 1 else None
    return None


def certificate_ids(session: Any) -> set[bytes]:
    """Return the ids of the certificates on the token."""
    with translated("C_FindObjects"):
        handles = list(session.get_objects({pkcs11.Attribute.CLASS: pkcs11.ObjectClass.CERTIFICATE}))
    return {read_attributes(handle, ("ID",)).get("ID", b"") for handle in handles}


def _several(uri: KeyUri, slot_id: int | None, found: list[KeyObject]) -> KeyNotUniqueError:
    """Say that a URI is too wide, with URIs that select one key each; where there are none such, say that."""
    message = f"{len(found)} keys fit '{uri.brief}'"
    if all(_alone(key, found) for key in found[:_SHOWN]):
        return KeyNotUniqueError(message, hint=_listed("pick one of these:", found, slot_id))
    advice = "give one another label or id, for example with pkcs11-tool --set-id"
    return KeyNotUniqueError(
        f"{message}, and no URI tells some of them apart",
        hint=_listed(f"{advice}; these can be picked:", found, slot_id) or advice,
    )


def _none(session: Any, uri: KeyUri, token: TokenInfo, slot_id: int | None) -> KeyNotFoundError:
    """Say that no key fits: which part of the URI is to blame, and what is there."""
    if uri.type == "private" and search(session, msgspec.structs.replace(uri, type="public"), token, NAMES):
        return KeyNotFoundError(
            f"only the public half of '{uri.brief}' is there: the token shows no private key for it",
            hint="the private key may be on another token, or visible only after a login (--pin-source)",
        )
    there = search(session, KeyUri(type="private"), token, NAMES)
    parts = (
        uri.unknown_hint(),
        hex_hint(uri),
        _listed("these private keys are on the token:", there, slot_id)
        or "the token shows no private key; hsmjwt key generate makes one, and a login may be needed (--pin-source)",
    )
    return KeyNotFoundError(
        f"no key fits '{uri.brief}' on token '{token.label}'", hint="; ".join(part for part in parts if part)
    )


def _listed(first: str, keys: list[KeyObject], slot_id: int | None) -> str:
    """Return a hint with the URIs that select one of these keys each, one a line; empty where there is none."""
    lines = sorted(key.uri(slot_id) for key in keys[:_SHOWN] if _alone(key, keys))
    if len(keys) > _SHOWN:
        lines.append(f"and {len(keys) - _SHOWN} more: hsmjwt key list shows all")
    return "\n  ".join((first, *lines)) if lines else ""


def _alone(key: KeyObject, keys: list[KeyObject]) -> bool:
    """Tell whether the key's own URI selects it and no other one."""
    own = parse(key.uri())
    return sum(own.matches_object(other.label, other.id, other.kind) for other in keys) == 1
