"""Pkcs11Signer: a JOSE algorithm carried out by a key on a token."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec

from hsmjwt.errors import DeviceError, HsmjwtError, KeyUnfitError
from hsmjwt.hsm.faults import REOPEN
from hsmjwt.hsm.module import Login, Module, Slot
from hsmjwt.hsm.objects import KeyObject, find_signing_key, public_half
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.jose.algorithms import Algorithm
from hsmjwt.jose.keys import PublicKey
from hsmjwt.secret import Resolved

_LEAST_BITS = 2048  # RFC 7518, section 3.3


class Way(msgspec.Struct, frozen=True):
    """One way to carry out an algorithm: a mechanism, and what is handed to it."""

    mechanism: str
    prepare: Callable[[bytes, Algorithm], bytes]


def _whole(message: bytes, alg: Algorithm) -> bytes:
    del alg
    return message


def _digest_info(message: bytes, alg: Algorithm) -> bytes:
    """Return the DER DigestInfo over the hash, which CKM_RSA_PKCS pads and signs (RFC 8017, section 9.2)."""
    return alg.digest_info + hashlib.new(alg.hash_name, message).digest()


WAYS: dict[str, tuple[Way, ...]] = {
    "RS256": (Way("SHA256_RSA_PKCS", _whole), Way("RSA_PKCS", _digest_info)),
}
"""For each algorithm the ways in order of preference: hash and signature on the token first."""


class Pkcs11Signer:
    """Signs with one key on one token; the key is searched once and found again only after a lost session.

    The caller wraps it so that every signature is verified before it is used.
    """

    def __init__(
        self,
        module: Module,
        slot: Slot,
        uri: KeyUri,
        login: Login,
        say: Callable[[str], None],
    ) -> None:
        """Log in and find the key; raises what either raises, KeyUnfitError for a key that must not sign."""
        self._module, self._slot, self._uri, self._login, self._say = module, slot, uri, login, say
        self._presented: Resolved | None = None
        session = module.login(slot, msgspec.structs.replace(login, read=self._read_pin))
        self._key = self._find(session)
        self.uri = self._key.uri(module.slot_id_needed(slot))
        self.public_key = self._public_key(session)
        if self._key.about.get("SIGN") is False:
            raise KeyUnfitError(f"the key '{self.uri}' may not sign", hint="its CKA_SIGN attribute is false")
        if self.public_key.bits < _LEAST_BITS:
            raise KeyUnfitError(
                f"the key has {self.public_key.bits} bits, and RS256 needs {_LEAST_BITS} (RFC 7518, section 3.3)",
                hint="hsmjwt key generate --type rsa:3072 makes a new one",
            )
        self._offered = frozenset(module.mechanisms(slot))
        self._refused: set[str] = set()

    def _read_pin(self, token: object) -> Resolved:
        self._presented = self._login.read(token)  # type: ignore[arg-type]
        return self._presented

    def _find(self, session: object) -> KeyObject:
        token = self._slot.token
        assert token is not None  # noqa: S101 - find_token returns no other
        return find_signing_key(session, self._uri, token, self._module.slot_id_needed(self._slot))

    def _public_key(self, session: object) -> PublicKey:
        try:
            return self._key.public_key()
        except KeyUnfitError:
            half = public_half(session, self._key) if self._key.type == "rsa" else None
            if half is None:
                raise
            return half.public_key()

    def ways(self, alg: Algorithm) -> Sequence[Way]:
        """Return the ways that the token's list allows; raises DeviceError where there is none."""
        known = WAYS.get(alg.name, ())
        usable = [way for way in known if way.mechanism in self._offered and way.mechanism not in self._refused]
        if not usable:
            names = " or ".join(f"CKM_{way.mechanism}" for way in known)
            raise DeviceError(
                f"the token cannot make {alg.name}: it has no {names}",
                hint="hsmjwt slot list --json names its mechanisms",
                ckr="CKR_MECHANISM_INVALID",
            )
        return usable

    def sign(self, message: bytes, alg: Algorithm) -> bytes:
        """Return the signature over `message` in JOSE form.

        A mechanism that the token lists and then refuses is passed over; a session that got lost is replaced once.
        """
        for recovered in (False, True):
            try:
                return self._sign(message, alg)
            except HsmjwtError as error:
                if recovered or error.ckr not in REOPEN:
                    raise
                self._say(f"the session was lost ({error.ckr}); one more try with a new one")
                self._key = self._find(self._module.renew(self._slot))
        raise AssertionError("unreachable")  # pragma: no cover

    def _sign(self, message: bytes, alg: Algorithm) -> bytes:
        self._module.library.check_process()
        for way in self.ways(alg):
            try:
                signature = self._by(way, way.prepare(message, alg))
            except DeviceError as error:
                if error.ckr != "CKR_MECHANISM_INVALID":
                    raise
                self._refused.add(way.mechanism)
                self._say(f"the token lists CKM_{way.mechanism} and refuses it")
                continue
            self._say(f"signed by CKM_{way.mechanism}")
            return signature
        self.ways(alg)
        raise AssertionError("unreachable")  # pragma: no cover

    def _by(self, way: Way, data: bytes) -> bytes:
        if not self._key.about.get("ALWAYS_AUTHENTICATE") or self._slot.login is None:
            return self._key.sign(data, way.mechanism)
        token = self._slot.token
        assert token is not None  # noqa: S101
        presented = self._presented or self._read_pin(token)
        with self._module.context_login(self._slot, self._login, presented) as pin:
            return self._key.sign(data, way.mechanism, pin)
