"""What is known of a key, put together for a policy; and the policy that a key table requires before it signs."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from hsmjwt.errors import PolicyError, UsageError
from hsmjwt.jose.claims import rfc3339

if TYPE_CHECKING:
    from hsmjwt.config import Settings
    from hsmjwt.guard.keypolicy import Finding
    from hsmjwt.hsm.facts import KeyFacts
    from hsmjwt.hsm.module import Module
    from hsmjwt.hsm.objects import KeyObject
    from hsmjwt.hsm.slots import Slot
    from hsmjwt.hsm.uri import TokenInfo
    from hsmjwt.jose.keys import PublicKey
    from hsmjwt.keyrules import KeyRules
    from hsmjwt.x509.certificate import Certificate


class Configured(Protocol):
    """What knows the configuration, as Devices does, which opens signers with the help of this file."""

    @property
    def settings(self) -> Settings:
        """The configuration."""
        ...


_DAY = 86400
_checked: set[tuple[str, str, str, str | None, str]] = set()
_checking = threading.Lock()


def check(devices: Configured, module: Module, slot: Slot, key: KeyObject, session: Any, *, rules: KeyRules) -> None:
    """Raise PolicyError where a key does not keep the policy that its key table requires of it, if it does.

    The token is asked once a day, process and key, in a session that does nothing else meanwhile: what may change in
    the life of a process is that a certificate ends, or the key's own dates.
    """
    if rules.require is None:
        return
    from hsmjwt.compose.halves import policy_in
    from hsmjwt.guard.keypolicy import judge, passed
    from hsmjwt.hsm.facts import of_key, of_place

    uri, now = key.uri(slot.needed_id), time.time()
    mark = (module.choice.real, uri, rules.require, rules.certificate, _day(now))
    with _checking:
        if mark in _checked:
            return
        policy = policy_in(devices.settings, rules, rules.require)
        with module.library.turn:
            facts = of_key(module, slot, session, key)
            beside = certificates_named(devices, session, key.token, rules)
        digest = any(rule.attribute == "module_sha256" for rule in policy.rules)
        findings = judge(policy, stated_of(facts, of_place(module, slot, digest=digest), now, beside))
        if not passed(findings):
            raise _refusal(policy.name, findings, uri, rules.table)
        _checked.add(mark)


def _refusal(policy: str, findings: Iterable[Finding], uri: str, table: str | None) -> PolicyError:
    missed = [finding for finding in findings if finding.result != "pass"]
    shown = ", ".join(f"{each.attribute} is {each.found}, not {each.required}" for each in missed[:3])
    more = f", and {len(missed) - 3} more" if len(missed) > 3 else ""
    by = "" if table is None else f" of [keys.{table}]"
    return PolicyError(
        f"refused by the policy {policy}{by}: {shown}{more}",
        hint=f"hsmjwt key audit {'' if table is None else f'keys.{table}'}".rstrip() + f" says why; the key is '{uri}'",
    )


def stated_of(
    facts: KeyFacts, place: Mapping[str, Any], now: float, certificates: Iterable[bytes] = ()
) -> dict[str, Any]:
    """Return what is known of a key by the names that policies use, None for what is not.

    `place` is what module and token tell, `certificates` what lies elsewhere for this key; `now` is Unix time.
    """
    stated = {**facts.stated, **place}
    own, others = _certificates((*facts.certificates, *certificates), facts.public_key)
    best = max(own, key=lambda each: each.not_after, default=None)
    stated["certificate"] = _certificate(facts, best, others, now)
    if best is not None:
        stated["certificate_not_after"] = _day(best.not_after)
        stated["certificate_subject"] = best.subject
    stated["dates"] = _dates(stated["start_date"], stated["end_date"], _day(now))
    born = stated["start_date"]
    since = "CKA_START_DATE"
    if born in (None, "none"):
        born = min((_day(each.not_before) for each in own), default=None)
        since = "the certificate's first day"
    stated["born"] = None if born is None else f"{born} ({since})"
    return stated


def _certificates(ders: Iterable[bytes], key: PublicKey | None) -> tuple[list[Certificate], int]:
    """Return the certificates of a key, and how many are there that are not, or cannot be read.

    A vendor's proof is none: a YubiKey's module shows one beside each key, and its days are those of the device.
    """
    from hsmjwt.x509.attestation import is_statement
    from hsmjwt.x509.certificate import read

    own, others = [], 0
    for der in dict.fromkeys(ders):
        try:
            certificate = read(der)
        except UsageError:
            others += 1
            continue
        if is_statement(certificate):
            continue
        if key is not None and certificate.public_key == key:
            own.append(certificate)
        else:
            others += 1
    return own, others


def _certificate(facts: KeyFacts, best: Certificate | None, others: int, now: float) -> str | None:
    if best is None:
        if not others:
            return "none" if facts.whole else None
        return None if facts.public_key is None else "of another key"
    if now > best.not_after:
        return "expired"
    return "not yet valid" if now < best.not_before else "valid"


def _dates(start: str | None, end: str | None, today: str) -> str | None:
    """Tell where today lies; days compare as texts (ISO 8601)."""
    if start is None or end is None:
        return None
    if start == end == "none":
        return "none"
    if start != "none" and today < start:
        return "not yet"
    return "past" if end != "none" and today > end else "valid"


def by_table(rules: KeyRules, stated: Mapping[str, Any], now: float) -> tuple[Finding, ...]:
    """Return the findings that the key table itself asks for: `not_after` and `max_age`."""
    from hsmjwt.guard.keypolicy import Finding, Result

    made = []
    if rules.not_after is not None:
        made.append(
            Finding(
                attribute="not_after",
                found=f"today is {_day(now)}",
                required=f"{_day(rules.not_after)} at the latest",
                why="the key table says when the key ends",
                result="pass" if now <= rules.not_after else "fail",
            )
        )
    if rules.max_age is not None:
        born = stated.get("born")
        result: Result = "unknown"
        found = "unknown: neither CKA_START_DATE nor a certificate says since when the key is in use"
        if born is not None:
            first = datetime.datetime.fromisoformat(f"{born[:10]}T00:00:00+00:00").timestamp()
            result = "pass" if now - first <= rules.max_age else "fail"
            found = f"{max(0, int((now - first) // _DAY))} days, since {born}"
        made.append(
            Finding(
                attribute="max_age",
                found=found,
                required=f"{rules.max_age / _DAY:g} days at most",
                why="the key table says how old the key may become",
                result=result,
            )
        )
    return tuple(made)


def certificates_named(devices: Configured, session: Any, token: TokenInfo, rules: KeyRules) -> list[bytes]:
    """Return the certificates that a key table names, in a file or on this token, as DER; raises ConfigError."""
    from hsmjwt.compose.halves import load_public_file
    from hsmjwt.hsm.certificates import find_certificates
    from hsmjwt.x509.certificate import read_chain

    if rules.certificate_file is not None:
        return load_public_file(devices.settings, rules, "certificate", rules.certificate_file, read_chain)
    uri = rules.certificate_uri
    if uri is None or not uri.matches_token(token):
        return []
    return [found.der for found in find_certificates(session, token, uri)]


def _day(moment: float) -> str:
    """Return the day of Unix time in UTC; the last one that calendars have for what is later."""
    try:
        return rfc3339(moment)[:10]
    except ValueError:
        return "9999-12-31"
