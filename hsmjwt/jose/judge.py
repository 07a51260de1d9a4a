"""The verdict of `hsmjwt verify`: whether a key stands behind a token and its claims hold now (RFC 7519, 7.2).

Pure: the check of the signature is handed in, `now` is an argument, and nothing is fetched: `jku`, `x5u`, `jwk` and
`kid` in a header are data that whoever made the token chose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hsmjwt.jose.algorithms import ALGORITHMS, Algorithm, misfit
from hsmjwt.jose.claims import LAST_SECOND, rfc3339
from hsmjwt.jose.encoding import json_type, quoted
from hsmjwt.jose.jwkset import KeySet, SetKey, choose
from hsmjwt.jose.jws import Parts
from hsmjwt.jose.keys import PublicKey

SIGNATURE = 7  # exit codes: a signature that does not verify,
CLAIMS = 8  # and claims that do not hold

_UNSIGNED = "there is no signature"


class Verdict(NamedTuple):
    """What verification says: `exit_code` is 0, 7 (signature) or 8 (claims), `reason` says in words why not."""

    valid: bool
    exit_code: int
    reason: str | None


def judge(
    parts: Parts,
    key: PublicKey,
    *,
    check: Callable[[PublicKey, Algorithm, bytes, bytes], bool],
    now: float,
    aud: str | Sequence[str] | None = None,
    iss: str | None = None,
    typ: str | None = None,
    leeway: float = 0,
    check_time: bool = True,
) -> Verdict:
    """Verify the signature by `check(key, alg, message, signature)`, then the claims.

    `aud`, `iss` and `typ` are compared where given (of several audiences the token must name each), exp and nbf always
    but with `check_time` false; `now` and `leeway` are seconds. All claims that do not hold are named.
    """
    reason = _signature_fault(parts, key, check)
    if reason is not None:
        return Verdict(valid=False, exit_code=SIGNATURE, reason=reason)
    faults = [
        *_typ_faults(parts.header, typ),
        *_iss_faults(parts.claims, iss),
        *_aud_faults(parts.claims, (aud,) if isinstance(aud, str) else aud or ()),
        *(_time_faults(parts.claims, now, leeway) if check_time else ()),
    ]
    if faults:
        return Verdict(valid=False, exit_code=CLAIMS, reason="; ".join(faults))
    return Verdict(valid=True, exit_code=0, reason=None)


def judge_set(parts: Parts, keys: KeySet, judge_one: Callable[[PublicKey], Verdict]) -> tuple[Verdict, SetKey | None]:
    """Return the verdict on a token by a key set, and the key it was reached with, None where no one key was.

    `judge_one` judges the token by one key; where the set leaves several, the first that verifies the signature counts.
    """
    alg = _alg_of(parts.header)
    chosen = alg if isinstance(alg, str) else choose(keys, parts.header, alg)
    if isinstance(chosen, str):
        return Verdict(valid=False, exit_code=SIGNATURE, reason=chosen), None
    for one in chosen:
        verdict = judge_one(one.key)
        if verdict.exit_code != SIGNATURE or len(chosen) == 1:
            return verdict, one
    reason = f"the signature verifies with none of the {len(chosen)} keys that fit" if parts.signature else _UNSIGNED
    return Verdict(valid=False, exit_code=SIGNATURE, reason=reason), None


def judge_other_key(parts: Parts, kind: str) -> Verdict:
    """Return the verdict on a token where the key given is of a type (`kind`, such as EC) that is not supported."""
    alg = _alg_of(parts.header)
    reason = alg if isinstance(alg, str) else f"alg {alg.name} does not fit a key of type {kind}"
    return Verdict(valid=False, exit_code=SIGNATURE, reason=reason)


def same_media_type(one: str, other: str) -> bool:
    """Compare two `typ` values, with or without `application/` (RFC 7515, section 4.1.9) and whatever their case.

    The case of parameters counts, as that of some values does (RFC 2045, section 5.1).
    """
    return _media_type(one) == _media_type(other)


def _media_type(typ: str) -> str:
    name, semicolon, parameters = (typ if "/" in typ else f"application/{typ}").partition(";")
    if name.isascii():  # or the Kelvin sign would be a k
        name = name.lower()
    return name + semicolon + parameters


def _signature_fault(
    parts: Parts, key: PublicKey, check: Callable[[PublicKey, Algorithm, bytes, bytes], bool]
) -> str | None:
    alg = _alg_of(parts.header)
    if isinstance(alg, str):
        return alg
    reason = misfit(alg, key)
    if reason is not None:
        return reason
    if not parts.signature:
        return _UNSIGNED
    if not check(key, alg, parts.signing_input, parts.signature):
        return "the signature does not verify with this key"
    return None


def _alg_of(header: dict[str, Any]) -> Algorithm | str:
    """Return the header's algorithm, or in words why there is none to verify with."""
    if "crit" in header:
        return _crit_fault(header)
    if header.get("b64", True) is not True:
        return "the header's b64 asks for an unencoded payload (RFC 7797), which no JWT has"
    name = header.get("alg")
    alg = ALGORITHMS.get(name) if isinstance(name, str) else None
    return _alg_fault(header) if alg is None else alg


def _crit_fault(header: dict[str, Any]) -> str:
    """Say no to crit whatever it holds: no extension is understood here (RFC 7515, section 4.1.11)."""
    crit = header["crit"]
    if not isinstance(crit, list):
        return f"the header's crit is {json_type(crit)}, where a list of names belongs"
    if not crit:
        return "the header's crit is an empty list"
    name = crit[0]
    if not isinstance(name, str):
        return f"the header's crit is a list with {json_type(name)}, where names belong"
    if name not in header:
        return f"the header's crit names {quoted(name)}, which the header does not have"
    return f"the header's crit demands that {quoted(name)} is understood, and hsmjwt has no such extension"


def _alg_fault(header: dict[str, Any]) -> str:
    if "alg" not in header:
        return "the header names no alg"
    name = header["alg"]
    if not isinstance(name, str):
        return f"the header's alg is {json_type(name)}, not text"
    if name.lower() == "none":
        return f"alg {quoted(name)}: the token is not signed"
    if name.upper().startswith("HS"):
        return f"alg {quoted(name)} is made with a shared secret, and no public key verifies it"
    return f"alg {quoted(name)} does not fit this key or is not supported by this version"


def _typ_faults(header: dict[str, Any], wanted: str | None) -> list[str]:
    if wanted is None:
        return []
    if "typ" not in header:
        return [f"there is no typ, where {_shown(wanted)} is wanted"]
    typ = header["typ"]
    if not isinstance(typ, str):
        return [f"typ is {json_type(typ)}, not text"]
    return [] if same_media_type(typ, wanted) else [f"typ is {_shown(typ)}, not {_shown(wanted)}"]


def _iss_faults(claims: dict[str, Any], wanted: str | None) -> list[str]:
    if wanted is None:
        return []
    if "iss" not in claims:
        return [f"there is no iss, where {_shown(wanted)} is wanted"]
    iss = claims["iss"]
    if not isinstance(iss, str):
        return [f"iss is {json_type(iss)}, not text"]
    return [] if iss == wanted else [f"iss is {_shown(iss)}, not {_shown(wanted)}"]


def _aud_faults(claims: dict[str, Any], wanted: Sequence[str]) -> list[str]:
    if not wanted:
        return []
    if "aud" not in claims:
        return [f"there is no aud, where {_shown(wanted[0])} is wanted"]
    aud = claims["aud"]
    named = [aud] if isinstance(aud, str) else aud
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        return [f"aud is {'a list of more than text' if isinstance(aud, list) else json_type(aud)}"]
    missing = [one for one in wanted if one not in named]
    if isinstance(aud, str):
        return [f"aud is {_shown(aud)}, not {_shown(one)}" for one in missing]
    return [f"aud is a list without {_shown(one)}" for one in missing]


def _time_faults(claims: dict[str, Any], now: float, leeway: float) -> list[str]:
    faults = []
    for name in ("exp", "nbf"):
        if name not in claims:
            continue
        value = claims[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            faults.append(f"{name} is {json_type(value)}, not a number of seconds")
        elif not value <= LAST_SECOND:  # NaN, which no JSON gives, ends here too
            faults.append(f"{name} lies after the year 9999 (milliseconds, where seconds belong?)")
        elif name == "exp" and value <= now - leeway:
            faults.append(f"it expired {_moment(value)}")
        elif name == "nbf" and value > now + leeway:
            faults.append(f"it becomes valid {_moment(value)}")
    return faults


def _shown(text: str) -> str:
    return quoted(text, 200)  # issuers and audiences are URLs, and may differ at their ends alone


def _moment(seconds: float) -> str:
    """Return a Unix time for a person: as RFC 3339 in UTC where there is a calendar for it."""
    if seconds < 0:
        return "before 1970"
    return f"at {rfc3339(seconds)}"
