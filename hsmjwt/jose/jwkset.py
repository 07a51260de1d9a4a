"""JSON Web Key sets, read (RFC 7517, section 5), and which of their keys a token asks for (RFC 7515, section 4.1.4).

A set is its publisher's, and may hold keys that are not for us: those are passed over, as section 5 wants it, and so
are damaged ones; the reason is kept. No message repeats a number of a key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from hsmjwt.jose.algorithms import Algorithm, misfit
from hsmjwt.jose.encoding import EncodingFault, b64u_decode, json_type, load_object, quoted
from hsmjwt.jose.jwk import thumbprint
from hsmjwt.jose.keys import CURVES, ED25519, EcKey, OkpKey, PointFault, PublicKey, RsaKey, read_okp, read_point

MAX_BYTES = 1024 * 1024
"""Of a file that holds a set."""

_MAX_BITS = 16384  # what OpenSSL verifies with
_KIDS_SHOWN = 8
_SECRET = ("d", "priv")  # RFC 7518, sections 6.2.2 and 6.3.2; RFC 8037, section 2; RFC 9964, section 3
_SECRET_OF_RSA = ("p", "q", "dp", "dq", "qi", "oth")


class SetKey(NamedTuple):
    """A key of a set that may be used to verify; `alg` is the one algorithm it is for, where the set says so."""

    key: PublicKey
    kid: str | None
    alg: str | None
    place: str

    @property
    def name(self) -> str:
        """Return what tells the key from others, for a person: its kid, else its thumbprint (RFC 7638)."""
        return f"thumbprint {thumbprint(self.key)}" if self.kid is None else f"kid {quoted(self.kid, 200)}"


class PassedOver(NamedTuple):
    """A key of a set that is not used, and why not; `faulty` where it should not be in any set as it stands."""

    kid: str | None
    reason: str
    faulty: bool


class KeySet(NamedTuple):
    """The keys of a set in its order; `lone` where the file was one JWK without a set around it."""

    keys: tuple[SetKey, ...]
    passed_over: tuple[PassedOver, ...]
    lone: bool


class SecretFault(EncodingFault):
    """A private key, where public ones belong."""


class _Unusable(Exception):
    """A key that is to be passed over."""

    def __init__(self, reason: str, *, faulty: bool = True) -> None:
        super().__init__(reason)
        self.faulty = faulty


def load_set(data: bytes) -> KeySet:
    """Return the keys of a JWK set, or of one JWK, which is taken for a set of one.

    Raises EncodingFault for what is neither, for a lone JWK that is damaged, and SecretFault where any private key is
    among them.
    """
    if data.lstrip().startswith(b"-----BEGIN "):
        raise EncodingFault("it is PEM, not JSON")
    top = load_object(data)
    if "keys" not in top:
        return _lone(top)
    if "kty" in top:
        raise EncodingFault("it has both kty and keys: a key, or a set of keys")
    rows = top["keys"]
    if not isinstance(rows, list):
        raise EncodingFault(f"keys is {json_type(rows)}, where a list of keys belongs")
    for place, jwk in enumerate(rows):
        _refuse_secret(jwk, f"keys[{place}]")
    keys, passed_over = [], []
    for place, jwk in enumerate(rows):
        read = _read(jwk, f"keys[{place}]")
        if isinstance(read, SetKey):
            keys.append(read)
        else:
            passed_over.append(read)
    return KeySet(tuple(keys), tuple(passed_over), lone=False)


def choose(keys: KeySet, header: Mapping[str, Any], alg: Algorithm) -> Sequence[SetKey] | str:
    """Return the keys that may have signed a token with this header, or in words why there is none.

    With a kid in the header it is the one key of that name that fits `alg`; a lone JWK that has no kid goes by any.
    Without, it is every key that fits (RFC 7515, appendix D). Two different keys of one name cannot be told apart.
    """
    kid = header.get("kid")
    if "kid" in header and not isinstance(kid, str):
        return f"the header's kid is {json_type(kid)}, not text"
    named = [one for one in keys.keys if kid is None or one.kid == kid or (keys.lone and one.kid is None)]
    if not named:
        return _why_none(keys, kid)
    fitting: dict[PublicKey, SetKey] = {}
    for one in named:
        if _misfit(one, alg) is None:
            fitting.setdefault(one.key, one)  # the same key twice is one key
    if not fitting:
        if len(named) == 1:
            return f"the key with the {named[0].name} does not fit: {_misfit(named[0], alg)}"
        return f"none of the {len(named)} keys{_of(kid)} fits alg {alg.name}"
    if kid is not None and len(fitting) > 1:
        first, second = [one.place for one in fitting.values()][:2]
        more = f" and {len(fitting) - 2} more" if len(fitting) > 2 else ""
        return f"the kid {quoted(kid)} is ambiguous: {first} and {second}{more} are different keys of that name"
    return tuple(fitting.values())


def _misfit(one: SetKey, alg: Algorithm) -> str | None:
    if one.alg not in (None, alg.name):
        return f"it is for alg {quoted(one.alg or '')}, and the header says {alg.name}"
    return misfit(alg, one.key)


def _why_none(keys: KeySet, kid: str | None) -> str:
    """Say why no key can be used that goes by the kid of the token, where it has one."""
    if not keys.keys and not keys.passed_over:
        return "the set has no keys"
    over = [one.reason for one in keys.passed_over if kid is None or one.kid == kid or keys.lone]
    if over:
        more = f", and {len(over) - 1} more" if len(over) > 1 else ""
        return f"no key{'' if keys.lone else _of(kid)} can be used: {over[0]}{more}"
    kids = [one.kid for one in keys.keys] + [one.kid for one in keys.passed_over]
    there = [kid for kid in dict.fromkeys(kids) if kid is not None]
    if not there:
        return f"no key has the token's kid {quoted(kid or '')}, or any"
    more = f" and {len(there) - _KIDS_SHOWN} more" if len(there) > _KIDS_SHOWN else ""
    shown = ", ".join(quoted(one) for one in there[:_KIDS_SHOWN])
    return f"no key has the token's kid {quoted(kid or '')}: there {'is' if len(there) == 1 else 'are'} {shown}{more}"


def _of(kid: str | None) -> str:
    return "" if kid is None else f" of the kid {quoted(kid)}"


def _lone(jwk: dict[str, Any]) -> KeySet:
    if "kty" not in jwk:
        if "jwks_uri" in jwk:
            raise EncodingFault("it is a server's metadata: its jwks_uri says where the keys are")
        raise EncodingFault("it has neither keys, as a key set does, nor kty, as a key does")
    _refuse_secret(jwk, "it")
    read = _read(jwk, "the key")
    if isinstance(read, SetKey):
        return KeySet((read,), (), lone=True)
    if read.faulty:
        raise EncodingFault(read.reason)
    return KeySet((), (read,), lone=True)


def _refuse_secret(jwk: object, place: str) -> None:
    if not isinstance(jwk, dict):
        return
    names = (*_SECRET, *_SECRET_OF_RSA) if jwk.get("kty") == "RSA" else _SECRET
    for name in names:
        if name in jwk:
            raise SecretFault(f"{place} is a private key (it has the member {name}), where only public ones belong")


def _read(jwk: object, place: str) -> SetKey | PassedOver:
    if not isinstance(jwk, dict):
        return PassedOver(None, f"{place} is {json_type(jwk)}, where an object belongs", faulty=True)
    kid = jwk.get("kid")
    try:
        kid = _optional_text(jwk, "kid", place)
        _refuse_use(jwk, place)
        alg = _optional_text(jwk, "alg", place)
        return SetKey(_key(jwk, place), kid, alg, place)
    except _Unusable as error:
        return PassedOver(kid if isinstance(kid, str) else None, str(error), faulty=error.faulty)


def _refuse_use(jwk: dict[str, Any], place: str) -> None:
    """Pass over a key that is not for verifying (RFC 7517, sections 4.2 and 4.3)."""
    use = _optional_text(jwk, "use", place)
    if use not in (None, "sig"):
        raise _Unusable(f"{place} is for the use {quoted(use or '')}, not for signatures", faulty=False)
    if "key_ops" not in jwk:
        return
    operations = jwk["key_ops"]
    if not isinstance(operations, list) or not all(isinstance(one, str) for one in operations):
        _fault(place, "key_ops", "is no list of texts")
    if len(set(operations)) != len(operations):
        _fault(place, "key_ops", "names an operation twice")
    if "verify" not in operations:
        raise _Unusable(f"{place} is not for verifying: its key_ops say so", faulty=False)


def _key(jwk: dict[str, Any], place: str) -> PublicKey:
    kty = _text(jwk, "kty", place)
    if kty == "oct":
        raise _Unusable(f"{place} is a shared secret (kty oct), and no public key")
    reader = _READERS.get(kty)
    if reader is None:
        raise _Unusable(f"{place} is of the type {quoted(kty)}, which this version does not take", faulty=False)
    return reader(jwk, place)


def _rsa(jwk: dict[str, Any], place: str) -> RsaKey:
    """Read RFC 7518, section 6.3.1."""
    n, e = _uint(jwk, "n", place), _uint(jwk, "e", place)
    if n.bit_length() > _MAX_BITS:
        _fault(place, "n", f"has {n.bit_length()} bits, and {_MAX_BITS} are the limit")
    if not (3 <= e < n and n % 2 and e % 2):  # RFC 8017, section 3.1
        raise _Unusable(f"{place} has an n and an e that are no RSA key")
    return RsaKey(n, e)


def _ec(jwk: dict[str, Any], place: str) -> EcKey:
    """Read RFC 7518, section 6.2.1."""
    crv = _text(jwk, "crv", place)
    if crv not in CURVES:
        raise _Unusable(f"{place} is on the curve {quoted(crv)}, which this version does not take", faulty=False)
    curve = CURVES[crv]
    halves = {name: _bytes(jwk, name, place) for name in ("x", "y")}
    for name, half in halves.items():
        if len(half) != curve.width:
            _fault(place, name, f"has not the {curve.width} bytes that {curve.name} asks for")
    try:
        return read_point(curve, b"\x04" + halves["x"] + halves["y"])
    except PointFault as error:
        raise _Unusable(f"{place} is no key: {error}") from None


def _okp(jwk: dict[str, Any], place: str) -> OkpKey:
    """Read RFC 8037, section 2."""
    crv = _text(jwk, "crv", place)
    if crv != ED25519:
        raise _Unusable(f"{place} is on the curve {quoted(crv)}, which this version does not take", faulty=False)
    try:
        return read_okp(_bytes(jwk, "x", place))
    except PointFault as error:
        raise _Unusable(f"{place} is no key: {error}") from None


def _uint(jwk: dict[str, Any], name: str, place: str) -> int:
    """Read a Base64urlUInt (RFC 7518, section 2)."""
    data = _bytes(jwk, name, place)
    if not data:
        _fault(place, name, "is empty")
    if data[0] == 0 and len(data) > 1:
        _fault(place, name, "begins with a zero byte, which RFC 7518, section 2, leaves out")
    return int.from_bytes(data, "big")


def _bytes(jwk: dict[str, Any], name: str, place: str) -> bytes:
    text = _text(jwk, name, place)
    try:
        return b64u_decode(text)
    except EncodingFault as error:
        _fault(place, name, f"is not base64url: {error}")


def _text(jwk: dict[str, Any], name: str, place: str) -> str:
    text = _optional_text(jwk, name, place)
    if text is None:
        raise _Unusable(f"{place} has no {name}")
    return text


def _optional_text(jwk: dict[str, Any], name: str, place: str) -> str | None:
    if name not in jwk:
        return None
    value = jwk[name]
    if not isinstance(value, str):
        _fault(place, name, f"is {json_type(value)}, not text")
    return value


def _fault(place: str, name: str, what: str) -> NoReturn:
    raise _Unusable(f"{place}.{name} {what}" if place.startswith("keys") else f"its {name} {what}")


_READERS: dict[str, Callable[[dict[str, Any], str], PublicKey]] = {"RSA": _rsa, "EC": _ec, "OKP": _okp}
