"""A new profile as the text of commented TOML tables: what was given as it stands, what is missing or a default beside.

Pure: values and a provider's file in, text out. A line `# KEY = …` is TOML once its `# ` is taken away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from hsmjwt.oauth.provider import Provider
from hsmjwt.toml_lines import BARE_KEY

Value = str | list[str]

_GAP = "…"  # stands where a value is to be written
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class NewProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written: `values` by the names that the config has for a profile's keys, `key` for a key table's.

    `key` is None where the profile uses a table that is there, or none yet; its table has the profile's name then.
    """

    name: str
    provider: Provider
    values: Mapping[str, Value]
    key: Mapping[str, str] | None = None

    def text(self) -> str:
        """Return the tables with a line end after each line."""
        lines = [f"# {self.provider.title}"]
        if self.provider.retired is not None:
            lines.append(f"# {self.provider.retired}")
        if self.key is not None:
            lines += [f"[keys.{key_name(self.name)}]", *_key_lines(self.key, self.provider), ""]
        lines += [f"[profiles.{key_name(self.name)}]", *_profile_lines(self)]
        return "".join(f"{line}\n" for line in lines)


def key_name(name: str) -> str:
    """Return a name as a key of TOML: bare where it can be, else in quotes."""
    return name if BARE_KEY.fullmatch(name) else quoted(name)


def quoted(text: str) -> str:
    """Return a basic string of TOML 1.0 that holds `text`, which must have no lone surrogates.

    What does not print is escaped: control characters must be, and a reader of the file should see the others.
    """
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def _pair(key: str, value: Value) -> str:
    text = quoted(value) if isinstance(value, str) else f"[{', '.join(map(quoted, value))}]"
    return f"{key} = {text}"


def _gap(key: str, value: str, why: str) -> str:
    return f"# {_pair(key, value)}  # {why}"


def _key_lines(given: Mapping[str, str], provider: Provider) -> Iterator[str]:
    yield _pair("uri", given["uri"])
    for key, example, why in (
        ("module", "/usr/lib/softhsm/libsofthsm2.so", "where left out: HSMJWT_MODULE, else one at the usual places"),
        ("pin_source", "file:/etc/hsmjwt/hsm-pin", "where left out: HSMJWT_PIN_SOURCE, else a prompt"),
        ("alg", provider.algs[0] if provider.algs else "RS256", "binds the key to one algorithm"),
    ):
        yield _pair(key, given[key]) if key in given else _gap(key, example, why)


def _profile_lines(new: NewProfile) -> Iterator[str]:
    yield _pair("provider", new.provider.name)
    rest = dict(new.values)
    for key, example, why in _wishes(new.provider, new.values):
        value = rest.pop(key, None)
        yield _gap(key, example, why) if value is None else _pair(key, value)
    for key, value in rest.items():
        yield _pair(key, value)


def missing(provider: Provider, given: Mapping[str, Value]) -> dict[str, str]:
    """Return the profile's keys that only the user can fill in and has not, each with what it means."""
    wanted = {}
    grant = given.get("grant", provider.grants[0])
    if provider.issuer == "client-id" or grant == "client-assertion":
        if "issuer" not in given:
            wanted["client_id"] = "the client id, which is iss as well"
    else:
        wanted["issuer"] = "the claim iss: who signs"
    if provider.subject == "named":
        wanted["subject"] = "the claim sub: for whom"
    if not provider.environments and "audience" not in given:
        wanted["token_url"] = "the token endpoint; a profile that only signs has an audience instead"
    wanted["key"] = 'a key table, such as [keys.NAME] with uri = "pkcs11:…"; or HSMJWT_KEY names a key'
    return {key: why for key, why in wanted.items() if key not in given}


def _wishes(provider: Provider, given: Mapping[str, Value]) -> Iterator[tuple[str, str, str]]:
    """Yield the keys worth a line in every profile: key, example or default, and what it means."""
    wanted = {key: f"needed: {why}" for key, why in missing(provider, given).items()}
    yield "key", _GAP, wanted.get("key", "")
    if len(provider.grants) > 1:
        yield "grant", provider.grants[0], f"the default; or {', '.join(provider.grants[1:])}"
    yield "client_id", _GAP, wanted.get("client_id", "the form field client_id, where the server wants one")
    if "issuer" in wanted or "issuer" in given:
        yield "issuer", _GAP, wanted.get("issuer", "")
    yield "subject", _GAP, wanted.get("subject", "the claim sub, where it is not iss")
    names = list(provider.environments)
    if len(names) > 1:
        yield "environment", names[0], f"the default; or {', '.join(names[1:])}"
    server = provider.environments[str(given.get("environment", names[0]))] if names else None
    if server is None:
        yield "token_url", f"https://{_GAP}", wanted.get("token_url", "the token endpoint, where there is an exchange")
    else:
        yield "token_url", server.token_url, "the default"
    if provider.audience == "token-url":
        yield "audience", _GAP, "where it is not the token URL"
    elif provider.audience == "default" and server is not None:
        yield "audience", server.audience or "", "the default"
    yield "scope", _GAP, "what to ask for, where the server wants to be told"
    most = "" if provider.max_lifetime is None else f"; {provider.max_lifetime}s at most"
    yield "lifetime", f"{provider.lifetime}s", f"the default{most}"
    yield "jti", provider.jti, f"the default; or {'none' if provider.jti == 'auto' else 'auto'}"
    grant = given.get("grant", provider.grants[0])
    yield "typ", next(typ for each, typ in provider.typ.items() if each == grant), "the default"
