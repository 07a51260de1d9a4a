"""Ways for a private key onto a token on which nobody sees it in the clear: what the token can unwrap, and by what.

The token makes an RSA pair of its own for this one transport. A key that wraps is encrypted for it, and wraps the
private key: what is handed over can be opened with that pair alone, and nothing of it outlives the session.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple, Protocol

from hsmjwt.errors import DeviceError, HsmjwtError
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.creating import MAY_BE_FULL, REFUSED_TEMPLATE, UNSAID
from hsmjwt.hsm.faults import translated
from hsmjwt.jose.keys import PublicKey, RsaKey

CANNOT = REFUSED_TEMPLATE | {
    *("CKR_ARGUMENTS_BAD", "CKR_CURVE_NOT_SUPPORTED", "CKR_DOMAIN_PARAMS_INVALID", "CKR_FUNCTION_FAILED"),
    *("CKR_FUNCTION_NOT_SUPPORTED", "CKR_KEY_FUNCTION_NOT_PERMITTED", "CKR_KEY_SIZE_RANGE"),
    *("CKR_KEY_TYPE_INCONSISTENT", "CKR_MECHANISM_INVALID", "CKR_MECHANISM_PARAM_INVALID", "CKR_TEMPLATE_INCOMPLETE"),
    *("CKR_UNWRAPPING_KEY_SIZE_RANGE", "CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT"),
    *("CKR_WRAPPED_KEY_INVALID", "CKR_WRAPPED_KEY_LEN_RANGE"),
}
"""A token's ways to say that it cannot do such a thing, and not that it is broken, full or gone."""

_PAIR, _OAEP = "RSA_PKCS_KEY_PAIR_GEN", "RSA_PKCS_OAEP"
_ONE_STEP = "0x00001054"  # CKM_RSA_AES_KEY_WRAP, as a list of mechanisms shows what python-pkcs11 does not know
_TRANSPORT_BITS = 2048
_KEK_BITS = 256
_HASHES = ("sha1", "sha256")  # of OAEP: every token that has it takes the first, and some that alone
_FORMS = (  # mechanisms that unwrap, and how the key is wrapped for each; by one of the names tokens mean either form
    ("AES_KEY_WRAP_KWP", "kwp"),
    ("AES_KEY_WRAP_PAD", "kwp"),
    ("AES_KEY_WRAP_PKCS7", "pkcs7"),
    ("AES_KEY_WRAP_PAD", "pkcs7"),
    ("AES_CBC_PAD", "cbc"),
)
_SPECIFIED = 1  # CKZ_DATA_SPECIFIED
_PLAIN = "--allow-plain-import hands the key over in the clear, inside this process (C_CreateObject)"


class Wrapped(Protocol):
    """A private key that the token alone can open: the key that wraps, by RSA-OAEP, and PKCS#8 wrapped by that."""

    @property
    def kek(self) -> bytes:
        """Return the AES-256 key, encrypted for the transport key."""

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


class CannotUnwrapError(DeviceError):
    """The token does not take this key wrapped."""


class Door(NamedTuple):
    """One way in: the key on the token that unwraps, python-pkcs11's mechanism, its parameter, and the wrapped key."""

    key: Any
    mechanism: Any
    parameter: bytes | None
    body: bytes


def cannot(why: str, ckr: str | None) -> CannotUnwrapError:
    """Return the error for a token that does not take this key wrapped."""
    hint = f"{MAY_BE_FULL}; else {_PLAIN}" if ckr in UNSAID else _PLAIN
    return CannotUnwrapError(f"the token cannot unwrap the key: {why}", hint=hint, ckr=ckr)


@contextlib.contextmanager
def doors(session: Any, material: Material, mechanisms: Collection[str]) -> Iterator[Iterator[Door]]:
    """Hand out the ways in that the token's mechanisms allow, the best first; they are open while the block runs.

    Raises CannotUnwrapError where there is none, at once or once none is left.
    """
    forms = [row for row in _FORMS if row[0] in mechanisms] if _OAEP in mechanisms else []
    if _PAIR not in mechanisms or not (forms or _ONE_STEP in mechanisms):
        named = ", ".join(f"CKM_{name}" for name in (_PAIR, _OAEP, *dict(_FORMS)) if name not in mechanisms)
        raise cannot(f"it lacks {named}", "CKR_MECHANISM_INVALID")
    with contextlib.ExitStack() as stack:
        private, transport = stack.enter_context(_transport_pair(session))
        ways = _Ways(stack, private, transport, material)
        yield (door for each in (ways.in_two_steps(forms), ways.in_one_step(_ONE_STEP in mechanisms)) for door in each)


class _Ways:
    """The ways in with one transport key."""

    def __init__(self, stack: contextlib.ExitStack, private: Any, transport: RsaKey, material: Material) -> None:
        self._stack, self._private, self._transport, self._material = stack, private, transport, material

    def in_two_steps(self, forms: list[tuple[str, str]]) -> Iterator[Door]:
        """Yield ways with the key that wraps on the token, too, from the first hash on that the token takes."""
        taken: str | None = None
        for mechanism, form in forms:
            for hash_name in _HASHES if taken is None else (taken,):
                sealed = self._material.sealed(self._transport, hash_name, form)
                try:
                    kek = self._stack.enter_context(_opened(self._private, sealed.kek, hash_name))
                except CannotUnwrapError:
                    continue
                taken = hash_name
                yield Door(kek, pkcs11.Mechanism[mechanism], sealed.iv or None, sealed.body)
                break
            if taken is None:  # no hash will do for another form either
                return

    def in_one_step(self, offered: bool) -> Iterator[Door]:  # noqa: FBT001 - told by the list of mechanisms
        """Yield ways by CKM_RSA_AES_KEY_WRAP (PKCS#11 2.40, section 2.1.21), which takes both parts at once."""
        for hash_name in _HASHES if offered else ():
            sealed = self._material.sealed(self._transport, hash_name, "kwp")
            oaep = _OaepParams(*_way(hash_name), _SPECIFIED, None, 0)
            parameter = bytes(_RsaAesParams(_KEK_BITS, ctypes.addressof(oaep)))
            yield Door(self._private, _unlisted(_ONE_STEP), parameter, sealed.kek + sealed.body)
            del oaep  # which the parameter points to


def _unlisted(number: str) -> Any:
    """Return a mechanism that python-pkcs11 has no name for; it takes nothing but members of its enumeration."""
    mechanism: Any = int.__new__(pkcs11.Mechanism, int(number, 0))
    mechanism._name_, mechanism._value_ = number, int(number, 0)
    return mechanism


class _OaepParams(ctypes.Structure):
    """CK_RSA_PKCS_OAEP_PARAMS (PKCS#11 2.40, section 2.1.7)."""

    _fields_ = (
        ("hashAlg", ctypes.c_ulong),
        ("mgf", ctypes.c_ulong),
        ("source", ctypes.c_ulong),
        ("pSourceData", ctypes.c_void_p),
        ("ulSourceDataLen", ctypes.c_ulong),
    )


class _RsaAesParams(ctypes.Structure):
    """CK_RSA_AES_KEY_WRAP_PARAMS (section 2.1.22)."""

    _fields_ = (("ulAESKeyBits", ctypes.c_ulong), ("pOAEPParams", ctypes.c_void_p))


def _way(hash_name: str) -> tuple[Any, Any]:
    """Return hash and mask of OAEP."""
    name = {"sha1": ("SHA_1", "SHA1"), "sha256": ("SHA256", "SHA256")}[hash_name]
    return pkcs11.Mechanism[name[0]], pkcs11.MGF[name[1]]


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
    attribute = pkcs11.Attribute
    with _or_cannot("C_UnwrapKey"):
        handle = transport.unwrap_key(
            pkcs11.ObjectClass.SECRET_KEY,
            pkcs11.KeyType.AES,
            kek,
            mechanism=pkcs11.Mechanism.RSA_PKCS_OAEP,
            mechanism_param=(*_way(hash_name), None),
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
        if error.ckr not in CANNOT:
            raise
        raise cannot(f"{operation} gave {error.ckr}", error.ckr) from None
