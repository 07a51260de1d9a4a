"""Pkcs11Signer: a JOSE algorithm carried out by a key on a token."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from hsmjwt.errors import DeviceError, HsmjwtError, KeyNotFoundError, KeyUnfitError
from hsmjwt.hsm.faults import KEY_LOST, REOPEN
from hsmjwt.hsm.module import Login, Module
from hsmjwt.hsm.objects import KeyObject, find_signing_key, public_key_of
from hsmjwt.hsm.pool import Found, Place
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.hsm.ways import NEW_KEY, WAYS, Way
from hsmjwt.jose.algorithms import Algorithm, misfit
from hsmjwt.jose.keys import PublicKey


class Pkcs11Signer:
    """Signs with one key on one token; the key is searched once and found again only after a lost session.

    Several threads may use it, each with a session of the token's pool. The caller wraps it so that every signature is
    verified before it is used.
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
        self._refused: set[str] = set()
        self._proven: dict[Algorithm, Way] = {}
        with module.library.turn:
            module.log_in(slot, login)
            self._pool = module.pool(slot)
            self._found = self._pool.found.get(uri) or self._first_found()
            self.public_key = self._found.public_key
            key = self._found.key
            self.uri = key.uri(slot.needed_id)
            if key.about.get("SIGN") is False:
                raise KeyUnfitError(f"the key '{self.uri}' may not sign", hint="its CKA_SIGN attribute is false")
            if not key.about.get("SIGN"):
                raise KeyUnfitError("the token does not say that the key may sign", hint="it tells no CKA_SIGN for it")
            self._offered = frozenset(module.mechanisms(slot))

    def _first_found(self) -> Found:
        place = self._pool.place()
        with place.turn, self._pool.finding:
            known = self._pool.found.get(self._uri)  # by another thread meanwhile
            if known is not None:
                return known
            try:
                key = self._find(place.session)
            except HsmjwtError as error:
                if error.ckr not in REOPEN:
                    raise
                key = self._find_anew(place, error.ckr)
            return self._keep(key, public_key_of(place.session, key))

    def _keep(self, key: KeyObject, public_key: PublicKey) -> Found:
        found = self._pool.found[self._uri] = Found(key, public_key, self._module.library.direct)
        return found

    def _find(self, session: object) -> KeyObject:
        token = self._slot.token
        assert token is not None  # noqa: S101 - find_token returns no other
        direct = self._module.library.direct
        return find_signing_key(session, self._uri, token, self._slot.needed_id, direct=direct)

    def ways(self, alg: Algorithm) -> Sequence[Way]:
        """Return the ways that the token's list allows.

        Raises KeyUnfitError where the algorithm may not be used with the key, DeviceError where there is no way.
        """
        reason = misfit(alg, self.public_key)
        if reason is not None:
            raise KeyUnfitError(reason, hint=f"hsmjwt key generate --type {NEW_KEY[alg.kty]} makes a new one")
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
        place = self._pool.place()
        with place.turn:
            found = self._found
            try:
                return self._sign(found.within(place), message, alg)
            except HsmjwtError as error:
                if error.ckr not in REOPEN:
                    raise
                self._found = self._recovered(place, found, error.ckr)
            return self._sign(self._found.within(place), message, alg)

    def _recovered(self, place: Place, lost: Found, ckr: str | None) -> Found:
        """Put a new session in a place, and return the key as it shows it there.

        Of several threads that lost the key one looks for it. Where another one has done so meanwhile, only a session
        that is lost itself is replaced.
        """
        with self._pool.finding:
            known = self._pool.found.get(self._uri)
            if known is not None and known is not lost:
                self._refuse_another(known.public_key)
                if ckr not in KEY_LOST:
                    place.session = self._module.renew(self._slot)
                return known
            self._pool.found.pop(self._uri, None)
            key = self._find_anew(place, ckr)
            self._refuse_another(public_key_of(place.session, key))
            return self._keep(key, self.public_key)

    def _refuse_another(self, public_key: PublicKey) -> None:
        if public_key != self.public_key:
            raise KeyUnfitError(f"another key took the place of '{self.uri}'", hint="start anew to use it")

    def _find_anew(self, place: Place, ckr: str | None) -> KeyObject:
        """Open another session and search the key there; a key that was there is gone where the login is."""
        self._say(f"the session was lost ({ckr}); one more try with a new one")
        if ckr != "CKR_USER_NOT_LOGGED_IN":
            with contextlib.suppress(KeyNotFoundError):
                place.session = self._module.renew(self._slot)
                return self._find(place.session)
        place.session = self._module.login_again(self._slot, self._login)
        return self._find(place.session)

    def _sign(self, key: KeyObject, message: bytes, alg: Algorithm) -> bytes:
        while True:
            way = self._proven.get(alg) or self.ways(alg)[0]
            try:
                signature = way.finish(self._by(way, key, way.prepare(message, alg)), alg)
            except DeviceError as error:
                if error.ckr != "CKR_MECHANISM_INVALID":
                    raise
                self._proven.pop(alg, None)
                self._refused.add(way.mechanism)
                self._say(f"the token lists CKM_{way.mechanism} and refuses it")
            else:
                if alg not in self._proven:
                    self._proven[alg] = way
                    self._say(f"signed by CKM_{way.mechanism}")
                return signature

    def _by(self, way: Way, key: KeyObject, data: bytes) -> bytes:
        if not key.about.get("ALWAYS_AUTHENTICATE"):
            return key.sign(data, way.mechanism)
        with self._module.context_login(self._slot, self._login) as pin:
            return key.sign(data, way.mechanism, pin)
