"""Keys on a token: from a URI to exactly one object, from an object to what it says of itself.

Every value is checked before a search template is built: python-pkcs11 frees memory that it never filled where a value
of a template fails to pack, and the process dies. A label is packed by what never fails, besides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from hsmjwt.errors import HsmjwtError, KeyFault, KeyNotFoundError, KeyNotUniqueError, KeyUnfitError
from hsmjwt.hsm.attributes import numbers, packed, unpacked
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.direct import Direct, Hand, Question
from hsmjwt.hsm.faults import UNTOLD, translated
from hsmjwt.hsm.uri import KeyType, KeyUri, TokenInfo, format_object_uri, hex_hint, parse
from hsmjwt.jose.keys import Curve, EcKey, PointFault, PublicKey, RsaKey, curve_of, read_token_point

Kind = Literal["private", "public"]
Told = dict[str, Any]

_CLASSES: dict[Kind, int] = {
    "private": int(pkcs11.ObjectClass.PRIVATE_KEY),
    "public": int(pkcs11.ObjectClass.PUBLIC_KEY),
}
_KINDS: dict[Any, Kind] = {number: kind for kind, number in _CLASSES.items()}
_TYPES = {"RSA": "rsa", "EC": "ec", "EC_EDWARDS": "ed25519"}
_HALVED = ("rsa", "ec")  # the types whose public half is looked for
_SHOWN = 20  # candidates in a hint; a token may hold thousands
_TAKEN = "this version of hsmjwt uses RSA and P-256 keys only"
_IMPORT = "every signature is verified: put the public key on the token, with the private key's CKA_ID"

NAMES = ("LABEL", "ID")
"""The attributes that tell a key from another one of its kind."""

_TO_SIGN = (*NAMES, "KEY_TYPE", "MODULUS", "PUBLIC_EXPONENT", "SIGN", "ALWAYS_AUTHENTICATE")
_ALL = (*_TO_SIGN, "SENSITIVE", "EXTRACTABLE", "NEVER_EXTRACTABLE", "LOCAL")
_EC = int(pkcs11.KeyType.EC)
_OF_CURVES = ("EC_PARAMS", "EC_POINT")  # asked of EC keys alone: some tokens tell nothing where one attribute is absent
_SEEN = ("CLASS", *_TO_SIGN)
_WHAT_IT_IS, _ITS_CURVE = Question(numbers(_SEEN)), Question(numbers(_OF_CURVES))


class Held(pkcs11._pkcs11.SignMixin):  # type: ignore[name-defined,misc]  # noqa: SLF001 - the only way in
    """A private key by its number, in any session of its token.

    Such a number is good in all sessions of a process (PKCS#11 2.40, section 3.4, CK_OBJECT_HANDLE), and python-pkcs11
    makes its own object of one in no other session than that which found it.
    """

    session = handle = key_type = None  # in place of the properties that would ask its own object, or the token

    def __init__(self, session: Any, handle: int) -> None:
        """Take the key by its number; `session` is python-pkcs11's."""
        self.session, self.handle = session, handle


class KeyObject(msgspec.Struct, frozen=True):
    """A key on a token: `handle` is python-pkcs11's object or a Held, `about` what it says of itself, by name.

    An attribute that the token does not tell is absent from `about`. `hand` signs by the shorter road.
    """

    handle: Any
    about: Mapping[str, Any]
    token: TokenInfo
    kind: Kind
    hand: Hand | None = None

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
        try:
            name = str(pkcs11.KeyType(value).name)
        except ValueError:  # a vendor's own
            name = f"0x{int(value):x}"
        return _TYPES.get(name, name.lower())

    @property
    def bits(self) -> int | None:
        """Return the length of an RSA modulus, or the size of the curve's field, in bits; None for other keys."""
        if self.curve is not None:
            return self.curve.bits
        modulus = self.about.get("MODULUS")
        return int.from_bytes(modulus, "big").bit_length() if modulus else None

    @property
    def curve(self) -> Curve | None:
        """Return the curve of an EC key, None where it is none that this version knows."""
        oid = self.about.get("EC_PARAMS")
        return curve_of(oid) if oid else None

    def uri(self, slot_id: int | None = None) -> str:
        """Return the full URI of this object."""
        return format_object_uri(self.token, label=self.label, id=self.id, type=self.kind, slot_id=slot_id)

    def public_key(self) -> PublicKey:
        """Return the public key that the object itself holds; raises KeyUnfitError where it does not."""
        match self.type:
            case "rsa":
                return self._rsa_key()
            case "ec":
                return self._ec_key()
            case other:
                raise KeyUnfitError(f"the key is of type {other or 'unknown'}", hint=_TAKEN)

    def _rsa_key(self) -> RsaKey:
        modulus, exponent = self.about.get("MODULUS"), self.about.get("PUBLIC_EXPONENT")
        if not modulus or not exponent:
            raise KeyUnfitError(
                "the token tells no modulus and public exponent for the key, and no public half fits it", hint=_IMPORT
            )
        return RsaKey(int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big"))

    def _ec_key(self) -> EcKey:
        point = self.about.get("EC_POINT")
        if self.curve is None:
            oid = self.about.get("EC_PARAMS")
            told = f"is on another curve than P-256 (its CKA_EC_PARAMS is {oid.hex()})" if oid else "tells no curve"
            raise KeyUnfitError(f"the key is of type ec and {told}", hint=_TAKEN)
        if not point:
            raise KeyUnfitError("the token tells no point for the key, and no public half fits it", hint=_IMPORT)
        try:
            return read_token_point(self.curve, point)
        except PointFault as error:
            raise KeyUnfitError(f"the token's CKA_EC_POINT is no public key: {error}", hint=_IMPORT) from None

    def sign(self, data: bytes, mechanism: str, pin: str | None = None) -> bytes:
        """Sign `data` by the mechanism of that name; `pin` is for a key that asks for one at each use.

        The key is one that may sign, and in a session that nobody else uses meanwhile.
        """
        if pin is None and self.hand is not None:
            return self.hand.sign(data, pkcs11.Mechanism[mechanism])
        with translated("C_SignInit or C_Sign" if pin is None else "C_SignInit, C_Login or C_Sign"):
            signature: bytes = self.handle.sign(data, mechanism=pkcs11.Mechanism[mechanism], pin=pin)
        return signature

    def within(self, session: Any, direct: Direct | None) -> KeyObject:
        """Return the key as another session of the same token uses it, by the shorter road where `direct` offers it."""
        number = self.handle.handle
        hand = None if direct is None else direct.hand(session.handle, number)
        return msgspec.structs.replace(self, handle=Held(session, number), hand=hand)

    def rename(self, key_id: bytes) -> None:
        """Set CKA_ID."""
        with translated("C_SetAttributeValue"):
            self.handle[pkcs11.Attribute.ID] = key_id


def find_signing_key(
    session: Any, uri: KeyUri, token: TokenInfo, slot_id: int | None, *, direct: Direct | None
) -> KeyObject:
    """Return the one private key that the URI selects, with what signing needs to know of it.

    One search, by the shorter road where `direct` offers it. Raises KeyNotFoundError and KeyNotUniqueError with the
    candidates' URIs, KeyUnfitError where the URI asks for another kind of object.
    """
    if uri.type not in (None, "private"):
        raise KeyUnfitError(f"'{uri.brief}' does not name a private key", hint="leave type out, or write type=private")
    if direct is None:
        found = search(session, uri.for_private(), token, _TO_SIGN)
    else:
        found = _private(direct, session, uri, token)
    if len(found) != 1:
        raise _not_one(found, session, uri.for_private(), token, slot_id)
    return found[0]


def find_object(session: Any, uri: KeyUri, token: TokenInfo, slot_id: int | None) -> KeyObject:
    """Return the one key, private or public, that the URI selects, with all that it says of itself.

    Raises KeyNotFoundError and KeyNotUniqueError with the candidates' URIs.
    """
    found = search(session, uri, token)
    if len(found) != 1:
        raise _not_one(found, session, uri, token, slot_id)
    return found[0]


def _not_one(found: list[KeyObject], session: Any, uri: KeyUri, token: TokenInfo, slot_id: int | None) -> KeyFault:
    return _several(uri, slot_id, found) if found else _none(session, uri, token, slot_id)


def search(session: Any, uri: KeyUri, token: TokenInfo, attributes: Iterable[str] = _ALL) -> list[KeyObject]:
    """Return the keys that the URI's object attributes select; none where it asks for what no key can have."""
    names, template = tuple(attributes), _template(uri, uri.type)
    if template is None:
        return []
    wanted = {pkcs11.Attribute[name]: value for name, value in template.items()}
    with translated("C_FindObjects"):
        handles = list(session.get_objects(wanted))  # to the end: the session does nothing else meanwhile
    found = []
    for handle in handles:
        kind = _KINDS.get(getattr(handle, "object_class", None))
        if kind is not None:
            key = KeyObject(handle, read_key(handle, names), token, kind)
            if uri.matches_object(key.label, key.id, kind):  # some tokens take a template as a hint
                found.append(key)
    return found


def _private(direct: Direct, session: Any, uri: KeyUri, token: TokenInfo) -> list[KeyObject]:
    """Search for private keys by the shorter road; what is found can sign, and nothing else."""
    template = _template(uri, "private")
    if template is None:
        return []
    found = []
    with translated("C_GetAttributeValue"):
        for number, told in direct.search(session.handle, packed(template), _WHAT_IT_IS):
            about = unpacked(_SEEN, told)
            fits = uri.matches_object(about.get("LABEL"), about.get("ID"), "private")
            if fits and about.pop("CLASS", None) == _CLASSES["private"]:
                if about.get("KEY_TYPE") == _EC:
                    about |= unpacked(_OF_CURVES, direct.read(session.handle, number, _ITS_CURVE))
                found.append(KeyObject(Held(session, number), about, token, "private"))
    return found


def _template(uri: KeyUri, kind: KeyType | None) -> Told | None:
    """Return the template of a search for objects of a kind; None where the URI asks for what no key can have."""
    if uri.unknown or not _encodes(uri.object or ""):
        return None
    template: Told = {}
    if kind is not None:
        if kind != "private" and kind != "public":  # noqa: PLR1714 - the type checker follows this form alone
            return None
        template["CLASS"] = _CLASSES[kind]
    if uri.object is not None:
        template["LABEL"] = uri.object
    if uri.id is not None:
        template["ID"] = bytes(uri.id)
    return template


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_key(handle: Any, names: Iterable[str]) -> dict[str, Any]:
    """Read a key's attributes by name, curve and point too where it turns out to have such."""
    about = read_attributes(handle, names)
    if about.get("KEY_TYPE") == pkcs11.KeyType.EC:
        about |= read_attributes(handle, _OF_CURVES)
    return about


def read_attributes(handle: Any, names: Iterable[str]) -> dict[str, Any]:
    """Read attributes by name; those that the token will not tell are left out."""
    wanted = {name: pkcs11.Attribute[name] for name in names}
    try:
        with translated("C_GetAttributeValue"):
            values = handle.get_attributes(list(wanted.values()))
        return {name: values[attribute] for name, attribute in wanted.items() if attribute in values}
    except HsmjwtError as error:
        if error.ckr not in UNTOLD:
            raise
    about = {}
    for name, attribute in wanted.items():
        try:
            with translated("C_GetAttributeValue"):
                about[name] = handle[attribute]
        except HsmjwtError as error:
            if error.ckr not in UNTOLD:
                raise
    return about


def public_key_of(session: Any, key: KeyObject) -> PublicKey:
    """Return the public key that an object holds itself, else that of a private key's public half.

    Of an RSA key the private object tells it, and nothing is searched; of an EC key most tell the curve alone. Raises
    KeyUnfitError where it is told nowhere, or is none.
    """
    try:
        return key.public_key()
    except KeyUnfitError:
        half = _public_half(session, key) if key.kind == "private" and key.type in _HALVED else None
        if half is None:
            raise
        return half.public_key()


def _public_half(session: Any, key: KeyObject) -> KeyObject | None:
    """Return the public object of the same type and id, else the same label; None where there is not exactly one."""
    for mark in (KeyUri(type="public", id=key.id), KeyUri(type="public", object=key.label)):
        found = search(session, mark, key.token) if mark.id or mark.object else []
        found = [half for half in found if half.type == key.type]
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
