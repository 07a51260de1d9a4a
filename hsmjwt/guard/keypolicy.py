"""What an audit asks of a key: policies as data, and whether what the token says of the key keeps them.

A policy is a TOML text: a description and, by attribute, what is required and why. What the token does not tell is
`unknown`, and that is never passed: a rule that could not be checked was not kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from hsmjwt.errors import ConfigError
from hsmjwt.nearest import did_you_mean
from hsmjwt.toml_lines import KeyPath
from hsmjwt.toml_tables import Source, dotted, loaded

Result = Literal["pass", "fail", "unknown"]
Value = bool | int | str | tuple[str, ...]
Kind = Literal["yes or no", "number", "text", "version", "list"]

ATTRIBUTES: Final[dict[str, Kind]] = {
    # of the private key (PKCS#11 3.1, sections 4.7 to 4.9)
    "type": "text",
    "bits": "number",
    "curve": "text",
    "public_exponent": "number",
    "sensitive": "yes or no",
    "always_sensitive": "yes or no",
    "extractable": "yes or no",
    "never_extractable": "yes or no",
    "local": "yes or no",
    "key_gen_mechanism": "text",
    "private": "yes or no",
    "modifiable": "yes or no",
    "copyable": "yes or no",
    "destroyable": "yes or no",
    "token_object": "yes or no",
    "sign": "yes or no",
    "sign_recover": "yes or no",
    "decrypt": "yes or no",
    "unwrap": "yes or no",
    "derive": "yes or no",
    "wrap_with_trusted": "yes or no",
    "always_authenticate": "yes or no",
    "allowed_mechanisms": "list",
    "hash_on_token": "yes or no",
    "start_date": "text",
    "end_date": "text",
    "dates": "text",
    # of its public half
    "public_half": "yes or no",
    "verify": "yes or no",
    "encrypt": "yes or no",
    "wrap": "yes or no",
    # of what else the token holds
    "same_label": "number",
    "same_id": "number",
    "same_public_key": "number",
    "certificate": "text",
    "certificate_subject": "text",
    "certificate_not_after": "text",
    # of the token and its module
    "token_label": "text",
    "token_serial": "text",
    "token_model": "text",
    "token_manufacturer": "text",
    "token_firmware": "version",
    "token_hardware": "version",
    "token_flags": "list",
    "module_path": "text",
    "module_sha256": "text",
    # of the key table, where the config has one for the key
    "not_after": "text",
    "max_age": "text",
}
"""What a policy may ask for, and what kind of value each has."""

BY_TABLE: Final = ("not_after", "max_age")
"""Attributes that the config's key table asks for, and no policy."""

_OPERATORS: Final[dict[Kind, tuple[str, ...]]] = {
    "yes or no": ("is",),
    "number": ("is", "one_of", "min", "max", "odd"),
    "text": ("is", "is_not", "one_of"),
    "version": ("is", "one_of", "min"),
    "list": ("only", "has"),
}
_TYPES: Final = ("rsa", "ec", "ed25519")
_LONG: Final = 10**18  # a number that is nearer to its power of two than to a person
_NOUN: Final = "policy file"
_VERSION: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})*")


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What is required of one attribute, and why; `wanted` by operator, `types` those of keys that it is for.

    `required` says it for a person.
    """

    attribute: str
    wanted: dict[str, Any]
    required: str
    why: str
    types: tuple[str, ...] = ()


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A named policy; `extends` is the policy whose rules come before its own, `source` the file it was read from."""

    name: str
    description: str
    rules: tuple[Rule, ...]
    extends: str | None = None
    source: str | None = None

    def on_top_of(self, base: Policy) -> Policy:
        """Return this policy with the base's rules before its own; an own rule takes the place of the base's."""
        own = {rule.attribute for rule in self.rules}
        rules = (*(rule for rule in base.rules if rule.attribute not in own), *self.rules)
        return msgspec.structs.replace(self, rules=rules, extends=None)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an audit: what was found, what is required and why that matters."""

    attribute: str
    found: str
    required: str
    why: str
    result: Result


def judge(policy: Policy, stated: Mapping[str, Value | None]) -> tuple[Finding, ...]:
    """Return a finding for each rule that is for keys of this type; `stated` is what is known, None where it is not.

    A rule that is for certain types counts for a key of unknown type, too. A key that no rule is for fails.
    """
    kind = stated.get("type")
    findings = tuple(
        _finding(rule, stated.get(rule.attribute))
        for rule in policy.rules
        if not rule.types or kind is None or kind in rule.types
    )
    return findings or (_not_for(policy, kind),)


def passed(findings: tuple[Finding, ...]) -> bool:
    """Tell whether each finding is a pass; an unknown one is not, and an audit that found nothing did not pass."""
    return bool(findings) and all(finding.result == "pass" for finding in findings)


def _not_for(policy: Policy, kind: object) -> Finding:
    return Finding(
        attribute="type",
        found=in_words(kind),
        required=" or ".join(each for each in _TYPES if any(each in rule.types for rule in policy.rules)),
        why="the policy asks nothing of a key of another type, so that such a key shows nothing",
        result="fail",
    )


def _finding(rule: Rule, value: Value | None) -> Finding:
    result: Result = "unknown"
    if value is not None:
        kept = all(_holds(operator, wanted, value) for operator, wanted in rule.wanted.items())
        result = "pass" if kept else "fail"
    return Finding(
        attribute=rule.attribute,
        found=described(rule.attribute, value),
        required=rule.required,
        why=rule.why,
        result=result,
    )


def _holds(operator: str, wanted: Any, value: Value) -> bool:
    match operator, value:
        case "is", _:
            return bool(value == wanted)
        case "is_not", _:
            return bool(value != wanted)
        case "one_of", _:
            return value in wanted
        case "odd", int():
            return (value % 2 == 1) is wanted
        case "max", int():
            return bool(value <= wanted)
        case "min", int():
            return bool(value >= wanted)
        case "min", str():
            found = _VERSION.fullmatch(value)
            return found is not None and _numbers(value) >= _numbers(wanted)
        case "only", tuple():
            return bool(value) and set(value) <= set(wanted)  # an empty list of a token's restricts nothing
        case "has", tuple():
            return set(wanted) <= set(value)
    return False


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def described(attribute: str, value: object) -> str:
    """Return what was found of an attribute as reports show it."""
    if attribute == "allowed_mechanisms" and value == ():
        return "no list, so all that the token has"
    return in_words(value)


def in_words(value: object) -> str:
    """Return a value as reports show it."""
    match value:
        case None:
            return "unknown"
        case bool():
            return "yes" if value else "no"
        case tuple() | list():
            return ", ".join(map(str, value)) or "none"
        case int() if value > _LONG:
            return f"2^{value.bit_length()} - 1" if value & (value + 1) == 0 else f"0x{value:x}"
        case _:
            return str(value)


def _in_words(operator: str, value: Any) -> str:
    words = in_words(value)
    match operator:
        case "is":
            return words
        case "is_not":
            return f"any but {words}"
        case "one_of":
            return " or ".join(map(in_words, value))
        case "min":
            return f"{words} or more" if isinstance(value, int) else f"{words} or later"
        case "max":
            return f"{words} or less"
        case "odd":
            return "odd" if value else "even"
        case "has":
            return f"{words} among others"
        case _:
            return f"nothing but {words}"


def parse(text: str, name: str, path: str) -> Policy:
    """Read a policy's text, which came from the file at `path`; raises ConfigError with its line."""
    return _Reader(Source(path, text, _NOUN), path).policy(name, loaded(text, path, _NOUN))


class _Reader:
    """Turns a TOML document into a Policy, or into an error that names the line."""

    def __init__(self, source: Source, path: str) -> None:
        self.source = source
        self.path = path

    def fault(self, key: KeyPath, problem: str, hint: str | None = None) -> ConfigError:
        return self.source.fault(key, problem, hint=hint)

    def policy(self, name: str, document: dict[str, Any]) -> Policy:
        """Check the whole document."""
        known = ("description", "extends", "rules")
        for key in document:
            if key not in known:
                raise self.fault((key,), f"unknown key {key!r}", did_you_mean(key, known, noun="keys"))
        texts = {key: document.get(key, "") for key in ("description", "extends")}
        for key, text in texts.items():
            if not isinstance(text, str):
                raise self.fault((key,), f"{key} must be text")
        rules = document.get("rules", {})
        if not isinstance(rules, dict) or not (rules or texts["extends"]):
            raise self.fault(("rules",), "a policy has rules", 'such as [rules.sensitive] with is = true and why = "…"')
        return Policy(
            name=name,
            description=texts["description"],
            rules=tuple(self.rule(attribute, table) for attribute, table in rules.items()),
            extends=texts["extends"] or None,
            source=self.path,
        )

    def rule(self, attribute: str, table: object) -> Rule:
        """Check the table of one attribute."""
        path = ("rules", attribute)
        if attribute in BY_TABLE:
            raise self.fault(path, f"{attribute} is asked for by the config's key table, and by no policy")
        if attribute not in ATTRIBUTES:
            known = [name for name in ATTRIBUTES if name not in BY_TABLE]
            raise self.fault(
                path, f"unknown attribute {attribute!r}", did_you_mean(attribute, known, noun="attributes")
            )
        if not isinstance(table, dict):
            raise self.fault(path, f"{dotted(path)} must be a table", f"such as [rules.{attribute}] with is = …")
        kind = ATTRIBUTES[attribute]
        operators = _OPERATORS[kind]
        for key in table:
            if key not in (*operators, "why", "types"):
                hint = did_you_mean(
                    key, (*operators, "why", "types"), noun=f"keys of an attribute of this kind ({kind})"
                )
                raise self.fault((*path, key), f"unknown key {key!r} in [{dotted(path)}]", hint)
        wanted = {key: self.wanted((*path, key), kind, table[key]) for key in operators if key in table}
        if not wanted:
            raise self.fault(path, f"[{dotted(path)}] requires nothing", f"one of {', '.join(operators)} belongs there")
        why, types = table.get("why"), table.get("types", [])
        if not isinstance(why, str) or not why.strip():
            raise self.fault((*path, "why"), f"[{dotted(path)}] does not say why", 'why = "…" is part of each finding')
        if not isinstance(types, list) or not all(each in _TYPES for each in types):
            raise self.fault((*path, "types"), f"types in [{dotted(path)}] is a list of {', '.join(_TYPES)}")
        required = " and ".join(_in_words(operator, value) for operator, value in wanted.items())
        return Rule(attribute=attribute, wanted=wanted, required=required, why=why.strip(), types=tuple(types))

    def wanted(self, path: KeyPath, kind: Kind, value: object) -> Any:
        """Check what an operator compares with."""
        operator = path[-1]
        single = {"yes or no": bool, "number": int, "text": str, "version": str, "list": str}[kind]
        if operator in ("one_of", "only", "has"):
            if isinstance(value, list) and value and all(_is(single, each) for each in value):
                return tuple(value)
            raise self.fault(path, f"{dotted(path)} must be a list of {_PLURALS[kind]}")
        if operator == "odd":
            single, kind = bool, "yes or no"
        fits = _is(single, value) and (kind != "version" or _VERSION.fullmatch(str(value)) is not None)
        if not fits:
            raise self.fault(path, f"{dotted(path)} must be {_SINGULARS[kind]}")
        return value


_PLURALS: Final = {
    "yes or no": "true or false",
    "number": "numbers",
    "text": "texts",
    "version": "versions",
    "list": "texts",
}
_SINGULARS: Final = {
    "yes or no": "true or false",
    "number": "a number",
    "text": "text",
    "version": 'a version such as "5.7"',
    "list": "text",
}


def _is(single: type, value: object) -> bool:
    return isinstance(value, single) and isinstance(value, bool) is (single is bool)
