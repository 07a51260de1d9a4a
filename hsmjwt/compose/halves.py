"""What key tables and certificates tell of a key that was found: its public half where the key objects do not show it.

Every signature is verified before it is used, and a key that nobody knows the public half of signs only where its table
says that this may be left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from hsmjwt.errors import ConfigError, KeyUnfitError, UsageError

if TYPE_CHECKING:
    from hsmjwt.config import KeyTable, Settings
    from hsmjwt.guard.keypolicy import Policy
    from hsmjwt.hsm.module import Module
    from hsmjwt.hsm.objects import KeyObject
    from hsmjwt.hsm.signer import Half, Pkcs11Signer
    from hsmjwt.hsm.slots import Slot
    from hsmjwt.jose.algorithms import Algorithm
    from hsmjwt.jose.keys import HiddenKey, PublicKey
    from hsmjwt.keyrules import KeyRules

T = TypeVar("T")

_LARGEST = 1024 * 1024  # bytes of a file with a public key or certificates
_WHERE_FROM = (
    "every signature is verified: put the public key on the token, with the private key's CKA_ID, or name its file in "
    "the key table, public_key"
)


class Unverified:
    """A Signer whose signatures nobody can verify, since its key's public half is nowhere; it says so each time."""

    def __init__(self, signer: Pkcs11Signer, warn: Callable[[str], None]) -> None:
        """Wrap `signer`."""
        self._signer = signer
        self._warn = warn

    @property
    def public_key(self) -> PublicKey:
        """The key's public half; raises KeyUnfitError, as nobody knows it."""
        return self._signer.public_key

    def sign(self, message: bytes, alg: Algorithm) -> bytes:
        """Return the wrapped signer's signature as it is."""
        self._warn(
            f"warning: the signature is not verified (unverified = true): nobody knows the public half of the key "
            f"'{self._signer.uri}'"
        )
        return self._signer.sign(message, alg)


def tables_for(
    settings: Settings, module: Module, slot: Slot, label: str | None, key_id: bytes | None
) -> list[KeyTable]:
    """Return the key tables that mean a key of a slot's token, however their URIs are written."""
    from hsmjwt.keyrules import tables_of

    assert slot.token is not None  # noqa: S101 - a key lies on one
    return tables_of(settings, slot.token, slot.info, label, key_id, module=module.choice.real)


def rules_for(
    settings: Settings, module: Module, slot: Slot, label: str | None, key_id: bytes | None
) -> tuple[KeyRules, ...]:
    """Return what these tables say."""
    from hsmjwt.keyrules import rules_of

    return tuple(rules_of(settings, table) for table in tables_for(settings, module, slot, label, key_id))


def half_for(settings: Settings, module: Module, slot: Slot) -> Half:
    """Return what a signer asks for the public half of a key that the token's keys do not tell.

    It is a certificate's with the same CKA_ID, else the same label, then that of the key table's `certificate` or
    `public_key`. Where there is none, and the table lets signatures be unverified, it is what is known of the key.
    """

    def half(session: Any, key: KeyObject, error: KeyUnfitError) -> PublicKey | HiddenKey | None:
        kind = _kind(key)
        if kind is None:
            return None
        rules = rules_for(settings, module, slot, key.label, key.id)
        for group in (*_beside(session, key), *_named(settings, session, key, rules)):
            fitting = {each for each in group if _is_of_kind(each, kind)}
            if len(fitting) == 1:
                return fitting.pop()
        for each in rules:
            if each.public_key is not None:
                raise _another_key(each, key.uri(slot.needed_id))
        if any(each.unverified for each in rules):
            return kind
        raise KeyUnfitError(error.message, hint=_WHERE_FROM)

    return half


def check_halves(settings: Settings, rules: Sequence[KeyRules], signer: Pkcs11Signer) -> None:
    """Raise KeyUnfitError where a key is not the one that a key table's `public_key` says it is."""
    for each in rules:
        if each.public_key is not None and public_key_in(settings, each) != signer.known:
            raise _another_key(each, signer.uri)


def _another_key(rules: KeyRules, uri: str) -> KeyUnfitError:
    return KeyUnfitError(
        f"'{rules.public_key}', the public_key of [keys.{rules.table}], is not the public half of the key '{uri}'",
        hint="hsmjwt key export prints the key's own, where the token shows it; is another key behind the URI?",
    )


def check_thumbprint(rules: KeyRules, public_key: PublicKey, uri: str) -> None:
    """Raise KeyUnfitError where a key is another one than that of a key table's `thumbprint`, if it has one."""
    from hsmjwt.jose.jwk import thumbprint

    found = thumbprint(public_key)
    if rules.thumbprint not in (None, found):
        raise KeyUnfitError(
            f"another key is behind the URI of [keys.{rules.table}]: its thumbprint is {found}, not {rules.thumbprint}",
            hint=f"the key is '{uri}'; where it is the right one, change the table's thumbprint",
        )


def files_of(settings: Settings, rules: KeyRules) -> Iterator[tuple[str, str | None, Callable[[], object]]]:
    """Yield what a key table names beside its key: what it is, its path, and how to read it, which raises ConfigError.

    The path of an audit policy that comes with hsmjwt is None.
    """
    from hsmjwt.keyrules import is_policy_file

    if rules.public_key is not None:
        yield "public key", rules.public_key, lambda: public_key_in(settings, rules)
    named = rules.certificate_file
    if named is not None:
        yield "certificate", named, lambda: _certified_in(settings, rules, named)
    policy = rules.require
    if policy is not None:
        yield "audit policy", policy if is_policy_file(policy) else None, lambda: policy_in(settings, rules, policy)


def public_key_in(settings: Settings, rules: KeyRules) -> PublicKey:
    """Return the public key in the file that a key table names; raises ConfigError that names the table's line."""
    from hsmjwt.x509.public import load_public

    return load_public_file(settings, rules, "public_key", rules.public_key or "", load_public)


def policy_in(settings: Settings, rules: KeyRules, named: str) -> Policy:
    """Return the audit policy that a key table requires; raises ConfigError that names the table's line."""
    from hsmjwt.compose import policies

    try:
        return policies.load(named, trusted=True)
    except ConfigError as error:
        message, hint = error.message, error.hint
    place = ("keys", rules.table or "", "require")
    raise settings.source.fault(place, f"require in [keys.{rules.table}]: {message}", hint=hint)


def load_public_file(settings: Settings, rules: KeyRules, entry: str, path: str, load: Callable[[bytes], T]) -> T:
    """Return what `load` makes of a file that an entry of a key table names; raises ConfigError with its line."""
    place = ("keys", rules.table or "", entry)
    try:
        with open(path, "rb", opener=_opened) as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise _unreadable(settings, place, path, f"cannot be read: {reason}") from None
    if len(data) > _LARGEST:
        raise _unreadable(settings, place, path, f"is longer than {_LARGEST} bytes")
    try:
        return load(data)
    except UsageError as error:
        raise _unreadable(settings, place, path, f"cannot be used: {error.message}", error.hint) from None


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)  # not to wait for the writer of a FIFO


def _unreadable(
    settings: Settings, place: tuple[str, ...], path: str, why: str, hint: str | None = None
) -> ConfigError:
    return settings.source.fault(place, f"{place[-1]} in [keys.{place[1]}]: '{path}' {why}", hint=hint)


def _kind(key: KeyObject) -> HiddenKey | None:
    """Return what the private half alone tells; None where that is not enough to sign with it."""
    from hsmjwt.hsm.told import KTY
    from hsmjwt.jose.keys import HiddenKey

    kty, bits = KTY.get(key.type or ""), key.bits
    if kty is None or not bits or (kty != "RSA" and key.crv is None):
        return None
    return HiddenKey(kty, key.crv, bits)


def _is_of_kind(public: PublicKey, kind: HiddenKey) -> bool:
    return (public.kty, getattr(public, "crv", None), public.bits) == kind


def _beside(session: Any, key: KeyObject) -> Iterator[Iterable[PublicKey]]:
    """Yield the public keys of the certificates with the key's id, then of those with its label."""
    from hsmjwt.hsm.certificates import certificates_beside

    for found in certificates_beside(session, key):
        yield _certified(each.der for each in found)


def _named(
    settings: Settings, session: Any, key: KeyObject, rules: Sequence[KeyRules]
) -> Iterator[Iterable[PublicKey]]:
    """Yield the public keys that key tables name, as a certificate or alone."""
    from hsmjwt.hsm.certificates import find_certificates

    for each in rules:
        if each.certificate_file is not None:
            yield _certified_in(settings, each, each.certificate_file)
        elif (uri := each.certificate_uri) is not None and uri.matches_token(key.token):
            yield _certified(found.der for found in find_certificates(session, key.token, uri))
    for each in rules:
        if each.public_key is not None:
            yield [public_key_in(settings, each)]


def _certified_in(settings: Settings, rules: KeyRules, path: str) -> list[PublicKey]:
    """Return the public keys of the certificates in the file that a key table names, without the chain above them."""
    return load_public_file(settings, rules, "certificate", path, _ends)


def _ends(data: bytes) -> list[PublicKey]:
    from hsmjwt.x509.certificate import read, read_chain
    from hsmjwt.x509.chain import ends
    from hsmjwt.x509.public import TAKEN

    found = ends([read(der) for der in read_chain(data)])
    keys = [each.public_key for each in found if each.public_key is not None]
    if not keys:
        raise UsageError("it holds no certificate of a key that signs here", hint=TAKEN)
    return keys


def _certified(ders: Iterable[bytes]) -> Iterator[PublicKey]:
    """Yield the public keys of certificates; what is none, or of a type that is not used here, is passed over."""
    from hsmjwt.x509.public import load_certified

    for der in ders:
        try:
            yield load_certified(der)
        except UsageError:
            continue
