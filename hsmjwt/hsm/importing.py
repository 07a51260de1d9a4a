"""Puts a private key that was made elsewhere onto a token, wrapped where the token can unwrap, and its public half.

Wrapped, it never crosses the module's boundary in the clear: the token makes an RSA pair of its own for this one
transport, and what is handed over can be opened with that pair alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, assert_never

from hsmjwt.errors import DeviceError, HsmjwtError
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.faults import translated
from hsmjwt.hsm.keygen import removed
from hsmjwt.hsm.objects import NAMES, KeyObject, Kind, read_key
from hsmjwt.hsm.uri import TokenInfo
from hsmjwt.jose.keys import CURVES, ED25519_BYTES, EcKey, OkpKey, PublicKey, RsaKey

_READ = (*NAMES, "KEY_TYPE", "MODULUS", "PUBLIC_EXPONENT", "SENSITIVE", "EXTRACTABLE")
# CKA_EC_PARAMS of Ed25519: the OID of RFC 8410, or the name as a PrintableString (PKCS#11 3.0, section 2.3.10).
_EDWARDS = bytes.fromhex("06032b6570"), bytes.fromhex("130c") + b"edwards25519"
_TRANSPORT_BITS = 2048
_TRANSPORT = ("RSA_PKCS_KEY_PAIR_GEN", "RSA_PKCS_OAEP")  # mechanisms without which nothing is wrapped
_HASHES = ("sha1", "sha256")  # of OAEP: every token that has it takes the first, and some that alone
_FORMS = (  # mechanisms that unwrap, and how the key is wrapped for each; of two that share a name tokens mean either
    ("AES_KEY_WRAP_KWP", "kwp"),
    ("AES_KEY_WRAP_PAD", "kwp"),
    ("AES_KEY_WRAP_PKCS7", "pkcs7"),
    ("AES_KEY_WRAP_PAD", "pkcs7"),
    ("AES_CBC_PAD", "cbc"),
)
_PLAIN = "--allow-plain-import hands the key over in the clear, inside this process (C_CreateObject)"
_ALLOWED, _BEYOND = "ALLOWED_MECHANISMS", ("DECRYPT", "UNWRAP", "DERIVE")
_OPTIONAL = ((), (_ALLOWED,), _BEYOND, (_ALLOWED, *_BEYOND))
"""What each attempt leaves out of a template; never what makes the key sensitive and not extractable."""

_TEMPLATE = frozenset(  # a token's ways to say that it does not take a template
    {
        *("CKR_ATTRIBUTE_TYPE_INVALID", "CKR_ATTRIBUTE_VALUE_INVALID", "CKR_ATTRIBUTE_READ_ONLY"),
        *("CKR_TEMPLATE_INCONSISTENT", "CKR_GENERAL_ERROR"),
    }
)
_CANNOT = _TEMPLATE | {
    "CKR_ARGUMENTS_BAD",
    "CKR_CURVE_NOT_SUPPORTED",
    "CKR_DOMAIN_PARAMS_INVALID",
    "CKR_FUNCTION_FAILED",
    "CKR_FUNCTION_NOT_SUPPORTED",
    "CKR_KEY_FUNCTION_NOT_PERMITTED",
    "CKR_KEY_SIZE_RANGE",
    "CKR_KEY_TYPE_INCONSISTENT",
    "CKR_MECHANISM_INVALID",
    "CKR_MECHANISM_PARAM_INVALID",
    "CKR_TEMPLATE_INCOMPLETE",
    "CKR_UNWRAPPING_KEY_SIZE_RANGE",
    "CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT",
    "CKR_WRAPPED_KEY_INVALID",
    "CKR_WRAPPED_KEY_LEN_RANGE",
}


class Wrapped(Protocol):
    """A private key that the token alone can open: the key that wraps, by RSA-OAEP, and PKCS#8 wrapped by that."""

    @property
    def kek(self) -> bytes:
        """Return the AES key, encrypted for the transport key."""

    @property
    def iv(self) -> bytes:
        """Return the initialisation vector; empty where the form has none."""

    @property
    def body(self) -> bytes:
        """Return the wrapped key."""


class Material(Protocol):
    """A private key in this process, as a token takes it."""

    @property
    def public_key(self) -> PublicKey:
        """Return the public half."""

    def sealed(self, transport: RsaKey, hash_name: str, form: str) -> Wrapped:
        """Wrap the key for a token; `form` is `kwp`, `pkcs7` or `cbc`."""

    def attributes(self) -> dict[str, bytes]:
        """Return the numbers of the private key, in the clear, by their names as attributes."""


class NewObjects(NamedTuple):
    """What both halves are called, and the mechanisms by name that the private one is to be bound to."""

    label: str
    id: bytes
    allowed: Sequence[str]


class CannotUnwrapError(DeviceError):
    """The token does not take this key wrapped."""


class Imported(NamedTuple):
    """A private key that was just put on a token; `dropped` names what the token did not take of its template."""

    private: KeyObject
    unwrapped: bool
    dropped: tuple[str, ...]


def put_public(session: Any, token: TokenInfo, new: NewObjects, public_key: PublicKey) -> KeyObject:
    """Write a public half that verifies, in a session that may write and is logged in; anybody may see it."""
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

    def create(params: Mapping[Any, Any]) -> Any:
        with translated("C_CreateObject"):
            return session.create_object({**template, **_point(public_key), **params})

    return _read(_first_taken(create, _params(public_key)), token, "public")


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
    """Have the token unwrap the key in the first of the forms that it takes."""
    forms = [row for row in _FORMS if row[0] in mechanisms]
    missing = [name for name in _TRANSPORT if name not in mechanisms]
    if missing or not forms:
        lacks = ", ".join(f"CKM_{name}" for name in missing or dict(_FORMS))
        raise CannotUnwrapError(f"the token cannot unwrap a key: it has none of {lacks}", hint=_PLAIN)
    refused: HsmjwtError | None = None
    with contextlib.ExitStack() as stack:
        private, transport = stack.enter_context(_transport_pair(session))
        for hash_name in _HASHES:
            for mechanism, form in forms:
                sealed = material.sealed(transport, hash_name, form)
                try:
                    kek = stack.enter_context(_opened(private, sealed.kek, hash_name))
                except CannotUnwrapError as error:
                    refused = error
                    break
                try:
                    return _unwrapped(kek, mechanism, sealed, material, new)
                except HsmjwtError as error:
                    if error.ckr not in _CANNOT:
                        raise
                    refused = error
    ckr = None if refused is None else refused.ckr
    raise CannotUnwrapError(f"the token does not unwrap this key (C_UnwrapKey gave {ckr})", hint=_PLAIN, ckr=ckr)


@contextlib.contextmanager
def _transport_pair(session: Any) -> Iterator[tuple[Any, RsaKey]]:
    """Hand out an RSA pair for the time of the block: the private handle, and the public half in numbers."""
    attribute, flag = pkcs11.Attribute, pkcs11.MechanismFlag
    with _or_cannot("C_GenerateKeyPair"):
        public, private = session.generate_keypair(
            pkcs11.KeyType.RSA,
            _TRANSPORT_BITS,
            mechanism=pkcs11.Mechanism.RSA_PKCS_KEY_PAIR_GEN,
            store=False,
            capabilities=flag.WRAP | flag.UNWRAP,
            private_template={attribute.SENSITIVE: True, attribute.EXTRACTABLE: False, attribute.PRIVATE: True},
        )
    with _for_a_while(private, public):
        with _or_cannot("C_GetAttributeValue"):
            about = public.get_attributes([attribute.MODULUS, attribute.PUBLIC_EXPONENT])
            n, e = (int.from_bytes(about[each], "big") for each in (attribute.MODULUS, attribute.PUBLIC_EXPONENT))
        yield private, RsaKey(n, e)


@contextlib.contextmanager
def _opened(transport: Any, kek: bytes, hash_name: str) -> Iterator[Any]:
    """Have the token open the key that wraps, for the time of the block."""
    attribute, mechanism = pkcs11.Attribute, pkcs11.Mechanism
    way = {
        "sha1": (mechanism.SHA_1, pkcs11.MGF.SHA1, None),
        "sha256": (mechanism.SHA256, pkcs11.MGF.SHA256, None),
    }
    with _or_cannot("C_UnwrapKey"):
        handle = transport.unwrap_key(
            pkcs11.ObjectClass.SECRET_KEY,
            pkcs11.KeyType.AES,
            kek,
            mechanism=mechanism.RSA_PKCS_OAEP,
            mechanism_param=way[hash_name],
            store=False,
            capabilities=pkcs11.MechanismFlag.UNWRAP,
            template={attribute.SENSITIVE: True, attribute.EXTRACTABLE: False},
        )
    with _for_a_while(handle):
        yield handle


@contextlib.contextmanager
def _for_a_while(*handles: Any) -> Iterator[None]:
    """Destroy session objects after the block; one that cannot be goes with the session, at the latest."""
    try:
        yield
    finally:
        for handle in handles:
            with contextlib.suppress(HsmjwtError), translated("C_DestroyObject"):
                handle.destroy()


@contextlib.contextmanager
def _or_cannot(operation: str) -> Iterator[None]:
    """Turn what a token says that cannot do this into CannotUnwrapError; other faults stay what they are."""
    try:
        with translated(operation):
            yield
    except HsmjwtError as error:
        if error.ckr not in _CANNOT:
            raise
        raise CannotUnwrapError(error.message, hint=_PLAIN, ckr=error.ckr) from None


def _unwrapped(
    kek: Any, mechanism: str, sealed: Wrapped, material: Material, new: NewObjects
) -> tuple[Any, tuple[str, ...]]:
    left_out, attribute = pkcs11.constants.DEFAULT, pkcs11.Attribute
    foreign = {attribute[name]: left_out for name in ("ENCRYPT", "VERIFY", "WRAP")}  # no private key has them

    def unwrap(template: Mapping[Any, Any]) -> Any:
        with translated("C_UnwrapKey"):
            return kek.unwrap_key(
                pkcs11.ObjectClass.PRIVATE_KEY,
                _key_type(material.public_key),
                sealed.body,
                id=new.id,
                label=new.label,
                mechanism=pkcs11.Mechanism[mechanism],
                mechanism_param=sealed.iv or None,
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
            with translated("C_CreateObject"):
                return session.create_object({**given, **params})

        return _first_taken(create_with, _params(material.public_key))

    return _with_less(create, new)


def _with_less(attempt: Callable[[Mapping[Any, Any]], Any], new: NewObjects) -> tuple[Any, tuple[str, ...]]:
    """Try what a private key is to have, then less of it; return the handle, and the names of what was left out."""
    attribute = pkcs11.Attribute
    allowed = [pkcs11.Mechanism[name] for name in new.allowed]
    optional = {_ALLOWED: allowed} if allowed else {}
    whole = {"SENSITIVE": True, "EXTRACTABLE": False, "PRIVATE": True, **dict.fromkeys(_BEYOND, False), **optional}
    refused: HsmjwtError | None = None
    for dropped in _OPTIONAL:
        if _ALLOWED in dropped and not allowed:
            continue
        left_out = dict.fromkeys(dropped, pkcs11.constants.DEFAULT)
        try:
            handle = attempt({attribute[name]: value for name, value in (whole | left_out).items()})
        except HsmjwtError as error:
            if error.ckr not in _TEMPLATE:
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
            if error.ckr not in _CANNOT or further == len(params):
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
            return tuple({pkcs11.Attribute.EC_PARAMS: each} for each in _EDWARDS)
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
