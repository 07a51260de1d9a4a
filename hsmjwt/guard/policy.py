"""May it be signed: pure rules, asked after the bytes are made and before the key is used.

Five things reach a private key, and `check_message` tells them by their bytes: an assertion, which
`oauth/assertion.py` builds and `check_claims` lets through; what becomes a certificate or a request for one once it is
signed; the transcript of a ceremony; and the self-test of a key, over SELF_TEST and 32 random bytes, which can be no
signing input of a JWT: that one has a dot and no line end. None can be read as another one, and no command signs bytes
of the caller's choice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, assert_never

from hsmjwt.errors import ConfigError, PolicyError
from hsmjwt.jose.algorithms import Algorithm
from hsmjwt.jose.claims import rfc3339
from hsmjwt.jose.encoding import EncodingFault, b64u_decode, load_object
from hsmjwt.jose.jws import Signer
from hsmjwt.jose.keys import PublicKey

SKEW: Final = 60  # seconds that iat and nbf may lie ahead of the clock: what servers commonly tolerate
DEFAULT_MAX_LIFE: Final = 3600  # seconds, where neither provider nor key says: the longest that providers commonly take
EARLIEST: Final = 1_577_836_800  # 2020-01-01T00:00:00Z; an earlier clock was never set
SELF_TEST: Final = b"hsmjwt self-test v1\n"
RESERVED_TYP: Final = "hsmjwt-"  # types of our own: who may sign could otherwise forge a ceremony's transcript
TRANSCRIPT_TYP: Final = "hsmjwt-transcript+jws"
_RANDOM = 32  # bytes of a self-test
_BOTH = 'a key that is used with two has a table that lists both, such as alg = ["RS256", "PS256"]'

Purpose = Literal["assertion", "certificate", "request", "transcript", "self-test"]


class Bound(NamedTuple):
    """What the key table of that name binds a key to.

    `algs` names its algorithms, none where any will do, and `not_after` is the last second of its use as Unix time.
    """

    table: str
    algs: tuple[str, ...] = ()
    not_after: int | None = None


class Permitted:
    """A Signer for one purpose and within bounds: what is not of that kind does not reach the key."""

    def __init__(self, signer: Signer, purpose: Purpose, bounds: Sequence[Bound], clock: Callable[[], float]) -> None:
        """Wrap `signer`; `clock` returns Unix time."""
        self._signer = signer
        self._purpose = purpose
        self._bounds = bounds
        self._clock = clock

    @property
    def public_key(self) -> PublicKey:
        """The wrapped signer's key."""
        return self._signer.public_key

    def sign(self, message: bytes, alg: Algorithm) -> bytes:
        """Return the wrapped signer's signature; raises PolicyError as the checks of this file do."""
        check_message(self._purpose, message)
        check_alg(self._bounds, alg.name)
        check_end(self._bounds, self._clock())
        return self._signer.sign(message, alg)


def bound_to(bounds: Sequence[Bound]) -> tuple[str, ...]:
    """Return the algorithms that every table allows, in the order of the first one; none where no table names any.

    One key, one algorithm (RFC 8725, section 3.1), unless all that bind it agree on several. Raises PolicyError where
    they agree on none.
    """
    named = [each for each in bounds if each.algs]
    if not named:
        return ()
    agreed = functools.reduce(lambda left, each: tuple(alg for alg in left if alg in each.algs), named, named[0].algs)
    if not agreed:
        said = ", ".join(f"[keys.{each.table}] to {_either(each.algs)}" for each in named)
        raise refused(
            f"keys.{named[-1].table}.alg",
            f"key tables bind one key to different algorithms: {said}",
            hint=_BOTH,
        )
    return agreed


def check_alg(bounds: Sequence[Bound], alg: str) -> None:
    """Raise PolicyError, naming the rule, where a key table binds the key to other algorithms."""
    for each in bounds:
        if each.algs and alg not in each.algs:
            raise refused(
                f"keys.{each.table}.alg",
                f"{alg} is asked for, and the key table binds its key to {_either(each.algs)}",
                hint=_BOTH,
            )


def check_end(bounds: Sequence[Bound], clock: float) -> None:
    """Raise PolicyError, naming the rule, where a key table says that its key is used no more; `clock` is Unix time."""
    for each in bounds:
        if each.not_after is not None and int(clock) > each.not_after:
            raise refused(
                f"keys.{each.table}.not_after",
                f"the key is not used after {_utc(each.not_after)}, and the clock says {_utc(clock)}",
                hint="a new key takes its place, or its owner sets another not_after",
            )


def _either(algs: Sequence[str]) -> str:
    return " or ".join(algs)


def check_message(purpose: Purpose, message: bytes) -> None:
    """Raise PolicyError where the bytes are not what may be signed for that purpose."""
    match purpose:
        case "assertion":
            fits = not is_reserved_typ(_typ(message))
        case "transcript":
            fits = _typ(message) == TRANSCRIPT_TYP
        case "certificate":
            fits = _inside(message).startswith(b"\xa0\x03\x02\x01\x02")  # RFC 5280, section 4.1: [0] version v3
        case "request":
            fits = _inside(message).startswith(b"\x02\x01\x00\x30")  # RFC 2986, section 4.1: version, then a name
        case "self-test":
            fits = message.startswith(SELF_TEST) and len(message) == len(SELF_TEST) + _RANDOM
        case _:
            assert_never(purpose)
    if not fits:
        raise refused("what-a-key-signs", f"the bytes are no {purpose}")


def _typ(message: bytes) -> str:
    """Return the typ of a JWS signing input (RFC 7515, section 5.1), empty where it has none.

    Raises PolicyError for bytes that are no signing input.
    """
    head, dot, payload = message.partition(b".")
    try:
        header = load_object(b64u_decode(head.decode("ascii")))
        b64u_decode(payload.decode("ascii"))
    except (EncodingFault, UnicodeDecodeError):
        dot = b""
        header = {}
    typ = header.get("typ", "")
    if not dot or not isinstance(typ, str):
        raise refused("what-a-key-signs", "the bytes are no signing input of a JWS")
    return typ


def _inside(message: bytes) -> bytes:
    """Return what a DER SEQUENCE holds that is all of the message (X.690, section 8.1.3); empty for anything else."""
    if message[:1] != b"\x30" or len(message) < 2:
        return b""
    if message[1] < 0x80:
        start, size = 2, message[1]
    else:
        start = 2 + (message[1] & 0x7F)
        size = int.from_bytes(message[2:start], "big")
    return message[start:] if len(message) == start + size else b""


def refused(rule: str, why: str, *, hint: str | None = None) -> PolicyError:
    """Return the error for a broken rule, which its message names first."""
    return PolicyError(f"refused by the rule {rule}: {why}", hint=hint)


def is_reserved_typ(typ: str) -> bool:
    """Tell whether a header `typ` is one of ours.

    Media types ignore case, and `application/` before one is the same type (RFC 7515, section 4.1.9). So is whatever
    else stands there, blanks included: nobody knows what all verifiers pass over.
    """
    return any(part.strip().startswith(RESERVED_TYP) for part in typ.lower().split("/"))


def check_clock(clock: float) -> None:
    """Raise ConfigError for a system clock before 2020, which was never set; `clock` is Unix time."""
    if clock < EARLIEST:
        raise ConfigError(
            f"the system clock says {_utc(clock)}, and nothing is signed before 2020",
            hint="set the clock (timedatectl set-ntp true)",
        )


def check_claims(claims: Mapping[str, Any], *, clock: float, claims_now: int, max_life: int) -> None:
    """Raise PolicyError where the claims' times break a rule, whoever asked for them.

    `clock` is the real time, `claims_now` the claims' own now (`--now`, else the clock), both Unix time; `max_life` is
    the longest life in seconds that provider or key allow. Claims may lie in the past, never in the future: an
    assertion that is good later is one that nobody can call back.
    """
    for name in ("iat", "nbf"):
        moment = _moment(claims, name)
        if moment is not None and moment > clock + SKEW:
            raise refused(
                f"{name}-in-the-future",
                f"{name} {_utc(moment)} is later than the clock, {_utc(clock)}, by more than {SKEW} s",
                hint="claims may lie in the past, never in the future; is the clock right?",
            )
    exp = _moment(claims, "exp")
    if exp is None:
        raise refused("exp-missing", "an assertion without exp would be good for ever")
    if exp <= claims_now:
        raise refused(
            "exp-not-later-than-now",
            f"exp {_utc(exp)} is not later than the claims' own now, {_utc(claims_now)}",
            hint="--exp DURATION says how long the assertion is good",
        )
    iat = _moment(claims, "iat")
    if iat is not None and exp <= iat:
        raise refused("exp-not-later-than-iat", f"exp {_utc(exp)} is not later than iat {_utc(iat)}")
    if exp > clock + max_life:
        raise refused(
            "exp-too-late",
            f"exp {_utc(exp)} is more than {max_life} s after the clock, {_utc(clock)}",
            hint=f"{max_life} s is the longest life that provider and key allow",
        )


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refused(f"{name}-is-no-number", f"{name} must be a number of seconds (RFC 7519, section 2)")
    return value


def _utc(moment: float) -> str:
    """Return a moment for a person, and the bare number where no calendar holds it."""
    try:
        return rfc3339(moment)
    except ValueError:
        return f"@{moment:.6g}"
