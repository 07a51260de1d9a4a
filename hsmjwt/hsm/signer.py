"""Pkcs11Signer: a JOSE algorithm carried out by a key on a token."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from hsmjwt.errors import DeviceError, HsmjwtError, KeyNotFoundError, KeyUnfitError
from hsmjwt.hsm.faults import KEY_LOST, REOPEN
from hsmjwt.hsm.module import Login, Module
from hsmjwt.hsm.objects import KeyObject, find_signing_key, public_key_of
from hsmjwt.hsm.pool import Found, Place
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.hsm.ways import NEW_KEY, WAYS, Way
from hsmjwt.jose.algorithms import Algorithm, misfit, usable_with
from hsmjwt.jose.keys import HiddenKey, PublicKey

Half = Callable[[Any, KeyObject, KeyUnfitError], PublicKey | HiddenKey | None]
"""Asked for the public half of a key with its session and why the token's keys tell none; None keeps that error."""

_HIDDEN = 'a certificate on the token, or public_key = "FILE" in the key table, tells it'
_SHOWN = 8  # mechanisms in a message; a key may allow dozens
_REFUSED = frozenset({"CKR_MECHANISM_INVALID", "CKR_MECHANISM_PARAM_INVALID"})
_UNFIT = frozenset({"CKR_KEY_FUNCTION_NOT_PERMITTED", "CKR_KEY_TYPE_INCONSISTENT"})


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
        *,
        half: Half | None = None,
    ) -> None:
        """Log in and find the key; raises what either raises, KeyUnfitError for a key that must not sign.

        `half` is asked for the public half where the token's keys do not tell it.
        """
        self._module, self._slot, self._uri, self._login, self._say = module, slot, uri, login, say
        self._half = half
        self._refused: set[Way] = set()
        self._proven: dict[str, Way] = {}
        with module.library.turn:
            module.log_in(slot, login)
            self._pool = module.pool(slot)
            self._found = self._pool.found.get(uri) or self._first_found()
            self.known = self._found.public_key
            self.key = key = self._found.key
            self.uri = key.uri(slot.needed_id)
            if key.about.get("SIGN") is False:
                raise KeyUnfitError(f"the key '{self.uri}' may not sign", hint="its CKA_SIGN attribute is false")
            if not key.about.get("SIGN"):
                raise KeyUnfitError("the token does not say that the key may sign", hint="it tells no CKA_SIGN for it")
            self._allowed = key.allowed
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
            return self._keep(key, self._told(place.session, key))

    @property
    def public_key(self) -> PublicKey:
        """The public half of the key; raises KeyUnfitError where nobody knows it."""
        if isinstance(self.known, HiddenKey):
            raise KeyUnfitError(f"nobody knows the public half of the key '{self.uri}'", hint=_HIDDEN)
        return self.known

    def _told(self, session: object, key: KeyObject) -> PublicKey | HiddenKey:
        """Return the public half, or what is known of a key whose public half is nowhere."""
        try:
            return public_key_of(session, key)
        except KeyUnfitError as error:
            known = None if self._half is None else self._half(session, key, error)
            if known is None:
                raise
            return known

    def _keep(self, key: KeyObject, public_key: PublicKey | HiddenKey) -> Found:
        found = self._pool.found[self._uri] = Found(key, public_key, self._module.library.direct)
        return found

    def _find(self, session: object) -> KeyObject:
        token = self._slot.token
        assert token is not None  # noqa: S101 - find_token returns no other
        direct = self._module.library.direct
        return find_signing_key(session, self._uri, token, self._slot.needed_id, direct=direct)

    @property
    def algs(self) -> tuple[Algorithm, ...]:
        """Return the algorithms that key, allowed mechanisms and token leave, the best first; it may be empty."""
        return tuple(alg for alg in usable_with(self.known) if self._usable(alg))

    def ways(self, alg: Algorithm) -> Sequence[Way]:
        """Return the ways that the key's allowed mechanisms and the token's list leave.

        Raises KeyUnfitError where the algorithm may not be used with the key, DeviceError where there is no way.
        """
        reason = misfit(alg, self.known)
        if reason is not None:
            raise KeyUnfitError(reason, hint=f"hsmjwt key generate --type {NEW_KEY[alg.crv]} makes a new one")
        usable = self._usable(alg)
        if not usable:
            raise self._no_way(alg)
        return usable

    def _usable(self, alg: Algorithm) -> list[Way]:
        return [way for way in WAYS[alg.name] if self._against(way) is None]

    def _against(self, way: Way) -> str | None:
        """Return in words what is known to keep a way from being gone; None where nothing is."""
        if self._allowed and way.mechanism not in self._allowed:  # an empty list allows all
            return "the key does not allow it"
        if way.mechanism not in self._offered:
            return "the token does not list it"
        return "the token refused it" if way in self._refused else None

    def _no_way(self, alg: Algorithm) -> HsmjwtError:
        allowed = self._allowed
        names = " or ".join(f"CKM_{way.mechanism}" for way in WAYS[alg.name])
        if allowed and allowed.isdisjoint(way.mechanism for way in WAYS[alg.name]):
            only = ", ".join(sorted(f"CKM_{name}" for name in allowed)[:_SHOWN])
            only += f" and {len(allowed) - _SHOWN} more" if len(allowed) > _SHOWN else ""
            able = [other.name for other in self.algs]
            return KeyUnfitError(
                f"the key allows only {only}, and {alg.name} takes {names}",
                hint=f"it signs {' or '.join(able)}" if able else "its CKA_ALLOWED_MECHANISMS attribute says so",
            )
        return DeviceError(
            f"the token cannot make {alg.name}: it has no {names}",
            hint="hsmjwt slot list --json names its mechanisms, and --verbose says what was passed over",
            ckr="CKR_MECHANISM_INVALID",
        )

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
            self._refuse_another(self._told(place.session, key))
            return self._keep(key, self.known)

    def _refuse_another(self, public_key: PublicKey | HiddenKey) -> None:
        if public_key != self.known:
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
        way = self._proven.get(alg.name)
        if way is not None:
            try:
                return way.finish(self._by(way, key, way.prepare(message, alg)), alg)
            except HsmjwtError as error:
                if not self._passed_over(way, error):
                    raise
                self._proven.pop(alg.name, None)
        return self._first(key, message, alg)

    def _first(self, key: KeyObject, message: bytes, alg: Algorithm) -> bytes:
        """Sign by the first way that the token takes, and keep to it from then on."""
        usable = self.ways(alg)
        for way in WAYS[alg.name]:
            if way not in usable:
                self._say(f"CKM_{way.mechanism} is passed over: {self._against(way)}")
        unfit: HsmjwtError | None = None
        for way in usable:
            try:
                signature = way.finish(self._by(way, key, way.prepare(message, alg)), alg)
            except HsmjwtError as error:
                if not self._passed_over(way, error):
                    raise unfit or error from None  # the first one says more than what became of it
                unfit = error if way not in self._refused else unfit
            else:
                self._proven[alg.name] = way
                self._say(f"signed by CKM_{way.mechanism}")
                return signature
        raise unfit or self._no_way(alg)

    def _passed_over(self, way: Way, error: HsmjwtError) -> bool:
        """Tell whether an answer is about the mechanism, so that another one may do, and say so.

        What is about the mechanism alone is remembered. What may be about the key is not: the key's file may be
        damaged, and then no other way does either.
        """
        if error.ckr in _REFUSED:
            self._refused.add(way)
        elif error.ckr not in _UNFIT:
            return False
        self._say(f"the token lists CKM_{way.mechanism} and refuses it ({error.ckr})")
        return True

    def _by(self, way: Way, key: KeyObject, data: bytes) -> bytes:
        if not key.about.get("ALWAYS_AUTHENTICATE"):
            return key.sign(data, way)
        with self._module.context_login(self._slot, self._login) as pin:
            return key.sign(data, way, pin)
