"""Makes keys on a token: sensitive, not extractable, for signatures only."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from hsmjwt.errors import DeviceError, HsmjwtError, UsageError
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.creating import BEYOND, EDWARDS, MAY_BE_FULL, REFUSED_TEMPLATE, UNSAID, removed
from hsmjwt.hsm.faults import translated
from hsmjwt.hsm.objects import NAMES, KeyObject, read_key
from hsmjwt.hsm.told import KTY
from hsmjwt.hsm.uri import TokenInfo
from hsmjwt.hsm.ways import NEW_KEY, best_mechanism
from hsmjwt.jose.algorithms import ALGORITHMS, Algorithm
from hsmjwt.jose.keys import CURVES, ED25519, PublicKey, RsaKey
from hsmjwt.nearest import did_you_mean

_LABEL_BYTES, _ID_BYTES = 255, 255  # PKCS#11 sets no limit; SoftHSM takes these, and nobody needs more

_READ = (*NAMES, "KEY_TYPE", "MODULUS", "PUBLIC_EXPONENT", "SENSITIVE", "EXTRACTABLE", *BEYOND)

_ALLOWED, _MARK = "ALLOWED_MECHANISMS", "ID"
_ALLOWED_TOO = f"{_ALLOWED} of the public key"  # which tells without a login what the private one is for
_BOUND = ((_ALLOWED_TOO,), (_ALLOWED,))  # without the second the first is left out, too
_OPTIONAL = (
    *(("ENCRYPT", "WRAP"), ("DECRYPT", "UNWRAP", "DERIVE"), ("SIGN_RECOVER", "VERIFY_RECOVER")),
    *_BOUND,
)
"""What a token may refuse to read in a template, each row given up as one; fewer rows before more, in this order.

tpm2-pkcs11 refuses the first two, and after some dozen refusals its resource manager has no room for another attempt.
"""

_LACKS = frozenset(
    {
        *("CKR_MECHANISM_INVALID", "CKR_MECHANISM_PARAM_INVALID", "CKR_KEY_SIZE_RANGE", "CKR_DOMAIN_PARAMS_INVALID"),
        "CKR_CURVE_NOT_SUPPORTED",
    }
)


class Kind(NamedTuple):
    """A type of key that is made here: `type` as KeyObject has it, `crv` for a key on a curve."""

    type: Literal["rsa", "ec", "ed25519"]
    bits: int
    crv: str | None = None

    def takes(self, alg: Algorithm) -> bool:
        """Tell whether keys of this type sign by the algorithm."""
        return alg.kty == KTY[self.type] and alg.crv == self.crv and self.bits >= alg.min_bits

    def describes(self, key: PublicKey) -> bool:
        """Tell whether a public key is of this type and size."""
        if isinstance(key, RsaKey):
            return self.type == "rsa" and key.bits == self.bits
        return key.crv == self.crv

    @property
    def name(self) -> str:
        """Return the name by which `key generate --type` takes it."""
        return next(name for name, kind in KINDS.items() if kind == self)


KINDS = {
    **{f"rsa:{bits}": Kind("rsa", bits) for bits in (2048, 3072, 4096)},
    **{name.replace("-", "").lower(): Kind("ec", curve.bits, name) for name, curve in CURVES.items()},
    "ed25519": Kind("ed25519", 256, ED25519),
}
"""By the names that `key generate --type` takes."""


class NewKey(msgspec.Struct, frozen=True):
    """What to make: the type of key, label, id and algorithm; `id` None chooses one, `alg` None the type's usual one.

    `also` are further algorithms that the key is to allow.

    Raises UsageError for what no token can hold, whether it comes from a flag or from a URI, and for an algorithm that
    keys of the type do not sign by.
    """

    kind: Kind
    label: str
    id: bytes | None = None
    alg: str | None = None
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check all of it."""
        label = self.label
        if any("\ud800" <= char <= "\udfff" for char in label):
            raise UsageError(f"the label {label!a} is not UTF-8 text")
        if not label or any(char < " " or "\x7f" <= char <= "\x9f" for char in label):
            raise UsageError(f"the label {label!a} is empty or holds a control character")
        if len(label.encode()) > _LABEL_BYTES:
            raise UsageError(
                f"the label is longer than {_LABEL_BYTES} bytes", hint="labels are for people: keep it short"
            )
        if self.id is not None and not 0 < len(self.id) <= _ID_BYTES:
            raise UsageError(f"the id must have 1 to {_ID_BYTES} bytes, this one has {len(self.id)}")
        if self.alg is not None and not self.kind.takes(_named(self.alg)):
            names = ", ".join(row.name for row in ALGORITHMS.values() if self.kind.takes(row))
            raise UsageError(f"a key of the type {self.kind.name} makes no {self.alg}", hint=f"it makes {names}")

    @property
    def algorithm(self) -> Algorithm:
        """Return the algorithm that the key is made for: the table's first for its type where none is named."""
        if self.alg is not None:
            return ALGORITHMS[self.alg]
        return next(row for row in ALGORITHMS.values() if self.kind.takes(row))


def parse_new_key(
    kind: str | None, label: str, key_id: str | None, alg: str | None = None, listed: Sequence[str] = ()
) -> NewKey:
    """Read what a new key is asked to be: `kind` as `rsa:3072` or `p256`, `key_id` in hex (colons allowed).

    Without a type it is that of the algorithm, else of the first that the key table has `listed`, and rsa:3072 where
    that takes RSA keys or there is none. Raises UsageError for what is neither, and as NewKey does.
    """
    if kind is None:
        first = alg or next(iter(listed), None)
        kind = NEW_KEY[None if first is None else _named(first).crv]
    if kind not in KINDS:
        raise UsageError(f"'{kind}' is no type of key that this version makes", hint=f"one of {', '.join(KINDS)}")
    try:
        value = None if key_id is None else bytes.fromhex(key_id.replace(":", ""))
    except ValueError:
        hint = "two digits a byte, for example --id 0a1b"
        raise UsageError(f"the id {key_id!a} is not hexadecimal", hint=hint) from None
    return NewKey(KINDS[kind], label, value, alg)


def _named(alg: str) -> Algorithm:
    if alg not in ALGORITHMS:
        hint = did_you_mean(alg, ALGORITHMS, noun="algorithms")
        raise UsageError(f"{alg!a} is no signature algorithm that this version makes", hint=hint)
    return ALGORITHMS[alg]


def chosen_mechanisms(new: NewKey, offered: Iterable[str]) -> tuple[str, ...]:
    """Return the mechanisms that the new key is to allow, one an algorithm.

    Hash and signature on the token where that is offered; `offered` names the token's mechanisms. Raises DeviceError
    where it makes no such keys or no such signatures.
    """
    offered, how = frozenset(offered), _mechanism(new.kind).name.lstrip("_")
    if how not in offered:
        raise _lacking(new, f"it has no CKM_{how}")
    algs = (new.algorithm.name, *new.also)
    return tuple(dict.fromkeys(best_mechanism(alg, offered) for alg in algs))


class NewPair(NamedTuple):
    """A pair that was just made; `dropped` names the attributes that the token did not take.

    `marked` tells whether it has the id that it was to have for the time being.
    """

    private: KeyObject
    public: KeyObject
    dropped: tuple[str, ...]
    marked: bool

    @property
    def beyond(self) -> tuple[str, ...]:
        """Return the names of what the token lets the private key do besides to sign."""
        return tuple(f"CKA_{name}" for name in BEYOND if self.private.about.get(name) is True)

    def named(self, key_id: bytes) -> NewPair:
        """Return the pair as it is after `rename`."""
        private, public = (
            msgspec.structs.replace(half, about={**half.about, "ID": key_id}) for half in (self.private, self.public)
        )
        return self._replace(private=private, public=public)

    def removed(self, error: HsmjwtError) -> HsmjwtError:
        """Take both halves off the token again; return `error`, which says so where one of them stays behind."""
        return removed((self.private.handle, self.public.handle), error, str(self.private.label))


def generate(
    session: Any, new: NewKey, token: TokenInfo, mark: bytes | None, mechanisms: Sequence[str] = ()
) -> NewPair:
    """Make a key pair in a session that may write and is logged in; the key allows `mechanisms` alone.

    Both halves have their label from the start, so that no nameless one stays behind if the process dies, and for their
    id `mark` until `rename`; without one, or where the token does not take it, the id that is asked for. What a token
    does not take in a template is left out, but never what makes the key sensitive and not extractable. Raises
    DeviceError where the token made something else; that pair is removed again.
    """
    dropped, (public, private) = _first_taken(session, new, mark, mechanisms)
    try:
        pair = NewPair(
            KeyObject(private, read_key(private, _READ), token, "private"),
            KeyObject(public, read_key(public, _READ), token, "public"),
            tuple(f"CKA_{name}" for name in dropped if name != _MARK),
            marked=mark is not None and _MARK not in dropped,
        )
        made = pair.public.public_key()
    except HsmjwtError as error:
        raise removed((private, public), error, new.label) from None
    about = pair.private.about
    if about.get("SENSITIVE") is not True or about.get("EXTRACTABLE") is not False or not new.kind.describes(made):
        raise pair.removed(
            DeviceError(
                "the token did not make the key that was asked for (sensitive, not extractable)",
                hint="nothing was kept",
            )
        )
    return pair


class _Template(NamedTuple):
    """One attempt: id, form of CKA_EC_PARAMS, the mechanisms that the key is to allow, and what is left out."""

    id: bytes | None
    params: bytes | None
    mechanisms: Sequence[str]
    dropped: tuple[str, ...]

    def of(self, **template: bool) -> dict[Any, Any]:
        """Return these attributes without those that are left out, which python-pkcs11 would put in by itself."""
        left_out = pkcs11.constants.DEFAULT
        return {pkcs11.Attribute[name]: left_out if name in self.dropped else value for name, value in template.items()}

    @property
    def private(self) -> dict[Any, Any]:
        """Return the private key's template."""
        template = self.of(SENSITIVE=True, EXTRACTABLE=False, PRIVATE=True, **dict.fromkeys(BEYOND, False))
        return template | self._bound_unless(_ALLOWED)

    @property
    def public(self) -> dict[Any, Any]:
        """Return the public key's template."""
        return self.of(ENCRYPT=False, WRAP=False, VERIFY_RECOVER=False) | self._bound_unless(_ALLOWED, _ALLOWED_TOO)

    def _bound_unless(self, *dropped: str) -> dict[Any, Any]:
        if not self.mechanisms or not set(dropped).isdisjoint(self.dropped):
            return {}
        return {pkcs11.Attribute[_ALLOWED]: [pkcs11.Mechanism[name] for name in self.mechanisms]}


def _first_taken(
    session: Any, new: NewKey, mark: bytes | None, mechanisms: Sequence[str]
) -> tuple[tuple[str, ...], Any]:
    """Try templates until the token takes one; return what that leaves out, and the pair's handles."""
    refused: HsmjwtError | None = None
    passable = REFUSED_TEMPLATE | _LACKS if new.kind.type == "ed25519" else REFUSED_TEMPLATE
    for dropped in _attempts(marked=mark is not None and new.id is not None, bound=bool(mechanisms)):
        key_id = new.id if _MARK in dropped or mark is None else mark
        for params in _params(new.kind):
            try:
                with translated("C_GenerateKeyPair"):
                    return dropped, _generate(session, new, _Template(key_id, params, mechanisms, dropped))
            except HsmjwtError as error:
                if error.ckr not in passable:
                    raise _explained(error, new) from None
                refused = error
    assert refused is not None  # noqa: S101 - there is one attempt at least
    raise _explained(refused, new) from None


def _attempts(*, marked: bool, bound: bool) -> Iterator[tuple[str, ...]]:
    """Yield what each attempt leaves out: nothing first."""
    rows = [row for row in _OPTIONAL if bound or row not in _BOUND] + [(_MARK,)] * marked
    for size in range(len(rows) + 1):
        for chosen in itertools.combinations(rows, size):
            if not set(_BOUND).issubset(chosen):
                yield tuple(name for row in chosen for name in row)


def _params(kind: Kind) -> tuple[bytes | None, ...]:
    """Return the forms of CKA_EC_PARAMS to try."""
    match kind.type:
        case "rsa":
            return (None,)
        case "ec":
            return (CURVES[str(kind.crv)].oid,)
        case "ed25519":
            return EDWARDS


def _mechanism(kind: Kind) -> Any:
    names = {"rsa": "RSA_PKCS_KEY_PAIR_GEN", "ec": "EC_KEY_PAIR_GEN", "ed25519": "EC_EDWARDS_KEY_PAIR_GEN"}
    return pkcs11.Mechanism[names[kind.type]]


def _generate(session: Any, new: NewKey, template: _Template) -> Any:
    """Return the handles of a new pair, the public one first."""
    common: dict[str, Any] = {
        "id": template.id,
        "label": new.label,
        "store": True,
        "capabilities": pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
        "mechanism": _mechanism(new.kind),
        "public_template": template.public,
        "private_template": template.private,
    }
    if template.params is None:
        return session.generate_keypair(pkcs11.KeyType.RSA, new.kind.bits, **common)
    kind = pkcs11.KeyType.EC if new.kind.type == "ec" else pkcs11.KeyType.EC_EDWARDS
    params = {pkcs11.Attribute.EC_PARAMS: template.params}
    return session.create_domain_parameters(kind, params, local=True).generate_keypair(**common)


def _explained(error: HsmjwtError, new: NewKey) -> HsmjwtError:
    """Say what a refusal means for who wants a key."""
    if error.ckr in _LACKS:
        return _lacking(new, f"C_GenerateKeyPair gave {error.ckr}", error.ckr)
    if error.ckr in UNSAID:
        return DeviceError(error.message, hint=f"{MAY_BE_FULL}; nothing was kept", ckr=error.ckr)
    return error


def _lacking(new: NewKey, why: str, ckr: str | None = "CKR_MECHANISM_INVALID") -> DeviceError:
    hint = "hsmjwt slot list --json names its mechanisms; --type takes another type"
    return DeviceError(f"the token makes no {new.kind.name} keys: {why}", hint=hint, ckr=ckr)


def rename(halves: Iterable[KeyObject], key_id: bytes) -> bool:
    """Give the halves of a pair another id, one after the other; return False where the token does not let ids change.

    All of them have the one that they had then.
    """
    renamed: list[KeyObject] = []
    try:
        for half in halves:
            half.rename(key_id)
            renamed.append(half)
    except HsmjwtError:
        for half in renamed:
            half.rename(half.id or b"")
        return False
    return True
