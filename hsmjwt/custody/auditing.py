"""The audit of keys: what the token says of them against a policy, and a vendor's proof where there is one.

All of it is as the module states it. What a module says of a key cannot be checked through the module; a proof that the
device itself signed can.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from hsmjwt.compose import policies
from hsmjwt.compose.devices import DeviceChoice, Devices
from hsmjwt.compose.halves import policy_in, rules_for
from hsmjwt.compose.requirements import by_table, certificates_named, stated_of
from hsmjwt.custody.proof import self_test
from hsmjwt.errors import DeviceError, KeyFault, KeyNotFoundError, PolicyError
from hsmjwt.guard.keypolicy import ATTRIBUTES, Finding, Policy, described, judge, passed
from hsmjwt.guard.policy import check_clock
from hsmjwt.hsm.facts import KeyFacts, of_key, of_place, of_token
from hsmjwt.hsm.listing import shown_label
from hsmjwt.hsm.module import Module
from hsmjwt.hsm.objects import find_signing_key
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.uri import format_object_uri
from hsmjwt.jose.claims import rfc3339
from hsmjwt.jose.jwk import thumbprint
from hsmjwt.jose.keys import PublicKey
from hsmjwt.keyrules import KeyRules, named_first

if TYPE_CHECKING:
    from hsmjwt.x509.attestation import Proof

UNPROVEN = "no cryptographic proof is available: all of this is what the module says, and nothing else vouches for it"
_TOKEN_PART = ("token_label", "token_serial", "token_model", "token_manufacturer", "token_firmware", "token_hardware")
_MODULE_PART = ("module_path", "module_sha256", "module_description", "module_manufacturer", "module_version")
_OF_PLACE = frozenset({*_TOKEN_PART, *_MODULE_PART, "token_flags"})


class KeyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about one key; `stated` by the names of policies, `proof` where one was given."""

    uri: str
    label: str | None
    id: str | None
    public_key: PublicKey | None
    policy: Policy
    stated: Mapping[str, Any]
    findings: tuple[Finding, ...]
    proof: Proof | None = None

    @property
    def passed(self) -> bool:
        """Tell whether every finding is a pass, and the proof holds where one was given."""
        return passed(self.findings) and (self.proof is None or self.proof.problem is None)

    @property
    def worst_first(self) -> list[Finding]:
        """Return the findings, what failed before what is unknown, and that before what passed."""
        return sorted(self.findings, key=lambda finding: ("fail", "unknown", "pass").index(finding.result))

    @property
    def thumbprint(self) -> str | None:
        """Return the public key's thumbprint (RFC 7638)."""
        return None if self.public_key is None else thumbprint(self.public_key)

    @property
    def attested(self) -> str:
        """Say what the proof is worth, for a person."""
        if self.proof is None:
            return UNPROVEN
        if self.proof.problem is not None:
            return f"the proof does not hold: {self.proof.problem}"
        return f"proven up to the root with SHA-256 {self.proof.root}"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """An audit of one key, or of all that tokens show; `at` is Unix time."""

    at: float
    keys: tuple[KeyReport, ...]

    @property
    def passed(self) -> bool:
        """Tell whether every key passed."""
        return all(key.passed for key in self.keys)


def audit(
    devices: Devices,
    choice: DeviceChoice,
    *,
    policy: str | None = None,
    every: bool = False,
    prove: Callable[[PublicKey | None], Proof] | None = None,
) -> Report:
    """Audit the chosen key, or every private key of the tokens that the URI leaves; logs in first.

    `policy` is a name or a path; without one each key's own table says (`require`), else it is `device-born`. `prove`
    examines a vendor's proof for the chosen key (see attesting.py), which then signs a self-test. Where several tokens
    are left nothing is logged in to. Raises KeyNotFoundError where there is nothing to audit, ConfigError for a policy
    that cannot be read.
    """
    now = time.time()
    check_clock(now)
    named = None if policy is None else policies.load(policy)
    desk = _Desk(devices, choice, named, now)
    module = devices.module(choice)
    if not every:
        place = _logged_in(devices, choice, module)
        key = find_signing_key(
            place.session, choice.uri, place.token, place.slot.needed_id, direct=module.library.direct
        )
        report = desk.report(place, of_key(module, place.slot, place.session, key))
        if prove is not None:
            proof = prove(report.public_key)
            if proof.problem is None:
                proof = proof._replace(problem=_unbound(devices, choice, report))
            report = msgspec.structs.replace(report, proof=proof)
        return Report(at=now, keys=(report,))
    reports = [
        desk.report(place, facts)
        for place in _opened(devices, choice, module)
        for facts in of_token(module, place.slot, place.session)
        if choice.uri.for_private().matches_object(facts.label, facts.id, "private")
    ]
    if not reports:
        raise KeyNotFoundError(
            "there is no private key to audit",
            hint="private keys show themselves after a login: --key 'pkcs11:token=…' leaves one token, --pin-source",
        )
    return Report(at=now, keys=tuple(sorted(reports, key=lambda each: (each.label or "", each.id or "", each.uri))))


class _Place:
    """A token with a session, and what it and its module tell of themselves."""

    def __init__(self, module: Module, slot: Slot, session: Any) -> None:
        assert slot.token is not None  # noqa: S101 - find_token returns no other
        self.module, self.slot, self.token, self.session = module, slot, slot.token, session
        self.stated = of_place(module, slot)


def _opened(devices: Devices, choice: DeviceChoice, module: Module) -> list[_Place]:
    """Return the tokens that the URI leaves with a session; one alone is logged in to."""
    tokens = module.find_tokens(choice.uri)
    if len(tokens) <= 1:
        return [_logged_in(devices, choice, module)]
    module.settle()
    devices.around.warn(
        f"{len(tokens)} tokens fit, so nothing was logged in to: keys that a login would show are not audited"
    )
    return [_Place(module, slot, module.session(slot)) for slot in tokens]


def _logged_in(devices: Devices, choice: DeviceChoice, module: Module) -> _Place:
    """Return the one token that the URI leaves, logged in to; says so where no PIN was to be had."""
    slot = module.find_token(choice.uri)  # which looks twice before it says that there is none
    place = _Place(module, slot, module.login(slot, devices.login(choice)))
    if not module.shows_all(slot):
        devices.around.warn("nothing was logged in to: what only a login would show counts as unknown")
    return place


def _unbound(devices: Devices, choice: DeviceChoice, report: KeyReport) -> str | None:
    """Say why a proof for a public key is none for the private key: a test signature, which only the right one makes.

    What stands on the token as its public half may be another key's.
    """
    try:
        made_by = self_test(devices, choice, report.uri)
    except (DeviceError, KeyFault, PolicyError) as error:
        return f"the private key does not show that it is the one which was attested: {error.message}"
    return None if made_by == report.public_key else "the private key is another one than that which was attested"


class _Desk:
    """Where the report of each key is made up."""

    def __init__(self, devices: Devices, choice: DeviceChoice, named: Policy | None, now: float) -> None:
        self._devices, self._choice, self._named, self._now = devices, choice, named, now
        self._policies: dict[str, Policy] = {}

    def report(self, place: _Place, facts: KeyFacts) -> KeyReport:
        """Return what is found about one key, without a proof."""
        tables = self._rules(place, facts)
        certificates = [
            der for rules in tables for der in certificates_named(self._devices, place.session, place.token, rules)
        ]
        stated = stated_of(facts, place.stated, self._now, certificates)
        policy = self._named or self._required(tables)
        findings = judge(policy, stated)
        for rules in tables:
            findings += tuple(each for each in by_table(rules, stated, self._now) if each not in findings)
        public = facts.public_key
        return KeyReport(
            uri=format_object_uri(
                place.token, label=facts.label, id=facts.id, type="private", slot_id=place.slot.needed_id
            ),
            label=facts.label,
            id=None if facts.id is None else facts.id.hex(),
            public_key=public,
            policy=policy,
            stated=stated,
            findings=findings,
        )

    def _rules(self, place: _Place, facts: KeyFacts) -> tuple[KeyRules, ...]:
        """Return what the tables say that mean the key, the one that was named first."""
        found = rules_for(self._devices.settings, place.module, place.slot, facts.label, facts.id)
        return named_first(self._choice.rules, found)

    def _required(self, tables: Iterable[KeyRules]) -> Policy:
        rules = next((each for each in tables if each.require is not None), KeyRules(require=policies.DEFAULT))
        name = rules.require or policies.DEFAULT
        if name not in self._policies:
            self._policies[name] = policy_in(self._devices.settings, rules, name)
        return self._policies[name]


def as_json(report: Report) -> list[dict[str, Any]]:
    """Return a report as JSON has it, an object for each key."""
    return [_as_json(key, report.at) for key in report.keys]


def _as_json(key: KeyReport, at: float) -> dict[str, Any]:
    stated, proof = key.stated, key.proof
    return {
        "as_stated_by": "the module",
        "at": rfc3339(at),
        "module": {name.removeprefix("module_"): stated[name] for name in _MODULE_PART},
        "token": {
            **{name.removeprefix("token_"): stated[name] for name in _TOKEN_PART},
            "flags": stated["token_flags"],
        },
        "key": {
            "uri": key.uri,
            "label": None if key.label is None else shown_label(key.label),
            "id": key.id,
            "type": stated.get("type"),
            "bits": stated.get("bits"),
            "thumbprint": key.thumbprint,
        },
        "policy": {"name": key.policy.name, "description": key.policy.description},
        "attributes": attributes(key),
        "findings": [msgspec.structs.asdict(finding) for finding in key.findings],
        "attestation": None
        if proof is None
        else {
            "holds": proof.problem is None,
            "problem": proof.problem,
            "chain": proof.chain,
            "root_sha256": proof.root,
            "states": dict(proof.states),
        },
        "proof": key.attested,
        "verdict": "pass" if key.passed else "fail",
    }


def attributes(key: KeyReport) -> dict[str, Any]:
    """Return what the module says of the key itself, in the order of ATTRIBUTES; None for what is unknown."""
    return {name: key.stated[name] for name in ATTRIBUTES if name in key.stated and name not in _OF_PLACE}


def facts_in_words(key: KeyReport) -> list[tuple[str, str]]:
    """Return what the module says of the key itself as a report for a person shows it."""
    return [(name.replace("_", " "), described(name, value)) for name, value in attributes(key).items()]
