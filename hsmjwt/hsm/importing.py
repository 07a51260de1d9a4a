"""Puts a private key that was made elsewhere onto a token, wrapped where the token can unwrap, and its public half.

How it is wrapped, and what a token must have for that, stands in unwrapping.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, assert_never

from hsmjwt.errors import DeviceError, HsmjwtError
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.creating import BEYOND, EDWARDS, REFUSED_TEMPLATE, UNSAID, created, removed
from hsmjwt.hsm.faults import translated
from hsmjwt.hsm.objects import NAMES, KeyObject, Kind, read_key
from hsmjwt.hsm.unwrapping import CANNOT, CannotUnwrapError, Door, Material, cannot, doors
from hsmjwt.hsm.uri import TokenInfo
from hsmjwt.jose.keys import CURVES, ED25519_BYTES, EcKey, OkpKey, PublicKey, RsaKey

_READ = (*NAMES, "KEY_TYPE", "MODULUS", "PUBLIC_EXPONENT", "SENSITIVE", "EXTRACTABLE")
_ALLOWED = "ALLOWED_MECHANISMS"
_OPTIONAL = ((), (_ALLOWED,), BEYOND, (_ALLOWED, *BEYOND))
"""What each attempt leaves out of a template; never what makes the key sensitive and not extractable."""


class NewObjects(NamedTuple):
    """What both halves are called, and the mechanisms by name that they are to be bound to."""

    label: str
    id: bytes
    allowed: Sequence[str]


class Imported(NamedTuple):
    """A private key that was just put on a token; `dropped` names what the token did not take of its template."""

    private: KeyObject
    unwrapped: bool
    dropped: tuple[str, ...]


def put_public(session: Any, token: TokenInfo, new: NewObjects, public_key: PublicKey) -> KeyObject:
    """Write a public half that verifies, in a session that may write and is logged in; anybody may see it.

    Where the token takes that it is bound to what the private half allows, which it tells without a login.
    """
    attribute = pkcs11.Attribute
    template = {
        attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY,
        attribute.KEY_TYPE: _key_type(public_key),
        attribute.TOKEN: True,
        attribute.PRIVATE: False,
        attribute.VERIFY: True,
        attribute.LABEL: new.label,
        attribute.ID: new.id,
    }
    narrow = {attribute[name]: False for name in ("ENCRYPT", "WRAP", "VERIFY_RECOVER")}
    bound = {attribute[_ALLOWED]: [pkcs11.Mechanism[name] for name in new.allowed]} if new.allowed else {}

    def create(more: Mapping[Any, Any]) -> Any:
        return created(session, {**template, **_point(public_key), **more})

    forms = [{**less, **params} for less in ({**narrow, **bound}, narrow, bound, {}) for params in _params(public_key)]
    with _told_as_a_whole():
        handle = _first_taken(create, forms)
    return _read(handle, token, "public")


def put_private(
    session: Any,
    token: TokenInfo,
    new: NewObjects,
    material: Material,
    mechanisms: Collection[str],
    *,
    plain: bool,
) -> Imported:
    """Write the private half: sensitive, not extractable, for signatures only; `mechanisms` are the token's, by name.

    It is handed over wrapped; with `plain` in the clear where the token cannot unwrap it. Raises CannotUnwrapError
    where it cannot and that is not allowed, DeviceError where the token keeps the key another way than was asked for;
    nothing of it stays behind then.
    """
    dropped: tuple[str, ...] = ()
    unwrapped = True
    try:
        handle, dropped = _unwrap(session, new, material, mechanisms)
    except CannotUnwrapError:
        if not plain:
            raise
        unwrapped = False
        with _told_as_a_whole():
            handle, dropped = _create(session, new, material)
    try:
        private = _read(handle, token, "private")
        if private.about.get("SENSITIVE") is not True or private.about.get("EXTRACTABLE") is not False:
            raise DeviceError(
                "the token does not keep the key as was asked for (sensitive, not extractable)",
                hint="nothing was kept",
            )
    except HsmjwtError as error:
        raise removed([handle], error, new.label) from None
    return Imported(private, unwrapped, dropped)


def _unwrap(
    session: Any, new: NewObjects, material: Material, mechanisms: Collection[str]
) -> tuple[Any, tuple[str, ...]]:
    """Have the token unwrap the key in the first of the ways that it takes."""
    refused: HsmjwtError | None = None
    with doors(session, material, mechanisms) as ways:
        for door in ways:
            try:
                return _unwrapped(door, material, new)
            except HsmjwtError as error:
                if error.ckr not in CANNOT:
                    raise
                refused = refused or error
    if refused is None:
        raise cannot("it does not open a key that is encrypted by RSA-OAEP", "CKR_MECHANISM_PARAM_INVALID")
    raise cannot(f"C_UnwrapKey gave {refused.ckr}", refused.ckr)


def _unwrapped(door: Door, material: Material, new: NewObjects) -> tuple[Any, tuple[str, ...]]:
    left_out, attribute = pkcs11.constants.DEFAULT, pkcs11.Attribute
    foreign = {attribute[name]: left_out for name in ("ENCRYPT", "VERIFY", "WRAP")}  # no private key has them

    def unwrap(template: Mapping[Any, Any]) -> Any:
        with translated("C_UnwrapKey"):
            return door.key.unwrap_key(
                pkcs11.ObjectClass.PRIVATE_KEY,
                _key_type(material.public_key),
                door.body,
                id=new.id,
                label=new.label,
                mechanism=door.mechanism,
                mechanism_param=door.parameter,
                store=True,
                capabilities=pkcs11.MechanismFlag.SIGN,
                template={**foreign, **template},
            )

    return _with_less(unwrap, new)


def _create(session: Any, new: NewObjects, material: Material) -> tuple[Any, tuple[str, ...]]:
    """Hand the key over in the clear."""
    attribute = pkcs11.Attribute
    base = {
        attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY,
        attribute.KEY_TYPE: _key_type(material.public_key),
        attribute.TOKEN: True,
        attribute.LABEL: new.label,
        attribute.ID: new.id,
        attribute.SIGN: True,
        **{attribute[name]: value for name, value in material.attributes().items()},
    }

    def create(template: Mapping[Any, Any]) -> Any:
        whole = {**base, **template}
        given = {name: value for name, value in whole.items() if value is not pkcs11.constants.DEFAULT}

        def create_with(params: Mapping[Any, Any]) -> Any:
            return created(session, {**given, **params})

        return _first_taken(create_with, _params(material.public_key))

    return _with_less(create, new)


@contextlib.contextmanager
def _told_as_a_whole() -> Iterator[None]:
    """Say what it means where a token refuses every form of an object that was made elsewhere."""
    try:
        yield
    except HsmjwtError as error:
        if error.ckr not in CANNOT - UNSAID:
            raise
        raise DeviceError(
            f"the token takes no such key that was made elsewhere (C_CreateObject gave {error.ckr})",
            hint="hsmjwt key generate makes one on it; nothing was changed",
            ckr=error.ckr,
        ) from None


def _with_less(attempt: Callable[[Mapping[Any, Any]], Any], new: NewObjects) -> tuple[Any, tuple[str, ...]]:
    """Try what a private key is to have, then less of it; return the handle, and the names of what was left out."""
    attribute = pkcs11.Attribute
    allowed = [pkcs11.Mechanism[name] for name in new.allowed]
    optional = {_ALLOWED: allowed} if allowed else {}
    whole = {"SENSITIVE": True, "EXTRACTABLE": False, "PRIVATE": True, **dict.fromkeys(BEYOND, False), **optional}
    refused: HsmjwtError | None = None
    for dropped in _OPTIONAL:
        if _ALLOWED in dropped and not allowed:
            continue
        left_out = dict.fromkeys(dropped, pkcs11.constants.DEFAULT)
        try:
            handle = attempt({attribute[name]: value for name, value in (whole | left_out).items()})
        except HsmjwtError as error:
            if error.ckr not in REFUSED_TEMPLATE:
                raise
            refused = refused or error
        else:
            return handle, tuple(f"CKA_{name}" for name in dropped)
    assert refused is not None  # noqa: S101 - there is one attempt at least
    raise refused


def _first_taken(create: Callable[[Mapping[Any, Any]], Any], params: Sequence[Mapping[Any, Any]]) -> Any:
    """Try the spellings of a curve's name until the token takes one."""
    for further, template in enumerate(params, 1):
        try:
            return create(template)
        except HsmjwtError as error:
            if error.ckr not in CANNOT or further == len(params):
                raise
    raise AssertionError("unreachable")  # pragma: no cover


def _params(key: PublicKey) -> Sequence[Mapping[Any, Any]]:
    """Return what names the curve, in each of its spellings."""
    match key:
        case RsaKey():
            return ({},)
        case EcKey():
            return ({pkcs11.Attribute.EC_PARAMS: CURVES[key.crv].oid},)
        case OkpKey():
            return tuple({pkcs11.Attribute.EC_PARAMS: each} for each in EDWARDS)
        case _:
            assert_never(key)


def _point(key: PublicKey) -> Mapping[Any, Any]:
    """Return the numbers of a public key; a point is a DER OCTET STRING (PKCS#11 3.0, section 2.3.3)."""
    attribute = pkcs11.Attribute
    match key:
        case RsaKey():
            n, e = (number.to_bytes((number.bit_length() + 7) // 8, "big") for number in key)
            return {attribute.MODULUS: n, attribute.PUBLIC_EXPONENT: e}
        case EcKey():
            size = len(key.point)
            head = bytes((4, size) if size < 0x80 else (4, 0x81, size))
            return {attribute.EC_POINT: head + key.point}
        case OkpKey():
            return {attribute.EC_POINT: bytes((4, ED25519_BYTES)) + key.x}
        case _:
            assert_never(key)


def _key_type(key: PublicKey) -> Any:
    return pkcs11.KeyType[{"RSA": "RSA", "EC": "EC", "OKP": "EC_EDWARDS"}[key.kty]]


def _read(handle: Any, token: TokenInfo, kind: Kind) -> KeyObject:
    return KeyObject(handle, read_key(handle, _READ), token, kind)
