"""Pkcs11Signer: a JOSE algorithm carried out by a key on a token."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Sequence

import msgspec

from hsmjwt.errors import DeviceError, HsmjwtError, KeyNotFoundError, KeyUnfitError
from hsmjwt.hsm.faults import REOPEN
from hsmjwt.hsm.module import Login, Module
from hsmjwt.hsm.objects import KeyObject, find_signing_key, public_half
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.jose.algorithms import Algorithm, misfit
from hsmjwt.jose.keys import PublicKey


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

    Several threads may use it; they take turns. The caller wraps it so that every signature is verified before it is
    used.
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
        self._recovering = threading.Lock()
        self._refused: set[str] = set()
        with module.library.turn:
            session, self._key = self._first_found(module.login(slot, login))
            self.uri = self._key.uri(slot.needed_id)
            self.public_key = self._public_key(session, self._key)
            if self._key.about.get("SIGN") is False:
                raise KeyUnfitError(f"the key '{self.uri}' may not sign", hint="its CKA_SIGN attribute is false")
            self._offered = frozenset(module.mechanisms(slot))

    def _first_found(self, session: object) -> tuple[object, KeyObject]:
        try:
            return session, self._find(session)
        except HsmjwtError as error:
            if error.ckr not in REOPEN:
                raise
            return self._find_anew(error.ckr)

    def _find(self, session: object) -> KeyObject:
        token = self._slot.token
        assert token is not None  # noqa: S101 - find_token returns no other
        return find_signing_key(session, self._uri, token, self._slot.needed_id)

    @staticmethod
    def _public_key(session: object, key: KeyObject) -> PublicKey:
        try:
            return key.public_key()
        except KeyUnfitError:
            half = public_half(session, key) if key.type == "rsa" else None
            if half is None:
                raise
            return half.public_key()

    def ways(self, alg: Algorithm) -> Sequence[Way]:
        """Return the ways that the token's list allows.

        Raises KeyUnfitError where the algorithm may not be used with the key, DeviceError where there is no way.
        """
        reason = misfit(alg, self.public_key)
        if reason is not None:
            raise KeyUnfitError(reason, hint="hsmjwt key generate --type rsa:3072 makes a new one")
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

        A mechanism that the token lists and then refuses is passed over; a session or a login that got lost is
        replaced once. Raises DeviceError, KeyUnfitError and what a login raises; UsageError in a forked process.
        """
        self._module.library.check_process()
        with self._module.library.turn:
            key = self._key
            try:
                return self._sign(key, message, alg)
            except HsmjwtError as error:
                if error.ckr not in REOPEN:
                    raise
                key = self._recovered(key, error.ckr)
            return self._sign(key, message, alg)

    def _recovered(self, lost: KeyObject, ckr: str | None) -> KeyObject:
        """Return the key as a new session shows it; of several threads that lost it one looks for it."""
        with self._recovering:
            if self._key is lost:
                found = self._find_anew(ckr)[1]
                if found.about.get("MODULUS") != lost.about.get("MODULUS"):
                    raise KeyUnfitError(f"another key took the place of '{self.uri}'", hint="start anew to use it")
                self._key = found
            return self._key

    def _find_anew(self, ckr: str | None) -> tuple[object, KeyObject]:
        """Open another session and search the key there; a key that was there is gone where the login is."""
        self._say(f"the session was lost ({ckr}); one more try with a new one")
        if ckr != "CKR_USER_NOT_LOGGED_IN":
            with contextlib.suppress(KeyNotFoundError):
                session = self._module.renew(self._slot)
                return session, self._find(session)
        session = self._module.login_again(self._slot, self._login)
        return session, self._find(session)

    def _sign(self, key: KeyObject, message: bytes, alg: Algorithm) -> bytes:
        while True:
            way = self.ways(alg)[0]
            try:
                signature = self._by(way, key, way.prepare(message, alg))
            except DeviceError as error:
                if error.ckr != "CKR_MECHANISM_INVALID":
                    raise
                self._refused.add(way.mechanism)
                self._say(f"the token lists CKM_{way.mechanism} and refuses it")
            else:
                self._say(f"signed by CKM_{way.mechanism}")
                return signature

    def _by(self, way: Way, key: KeyObject, data: bytes) -> bytes:
        if not key.about.get("ALWAYS_AUTHENTICATE"):
            return key.sign(data, way.mechanism)
        with self._module.context_login(self._slot, self._login) as pin:
            return key.sign(data, way.mechanism, pin)
