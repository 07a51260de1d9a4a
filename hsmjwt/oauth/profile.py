"""Profile: provider, profile, key table, flags and environment merged once, checked and frozen; nobody merges after it.

Which value wins: flag, profile, key table, environment, the provider's default,
ours. What a provider or a key table fixes is a rule: naming something else is refused before anything is signed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from hsmjwt.config import Settings
from hsmjwt.guard.policy import Bound
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.jose.claims import NOW, REGISTERED, ClaimsTemplate, Computed, When
from hsmjwt.keychoice import KeyChoice, choose_key
from hsmjwt.keyrules import KeyRules, bounds
from hsmjwt.oauth import rules
from hsmjwt.oauth.merge import merged_claims, merged_header, profile_key, when
from hsmjwt.oauth.named import DEFAULT, Named, Origin, flag
from hsmjwt.oauth.provider import Grant, Provider
from hsmjwt.oauth.signing_flags import SigningFlags
from hsmjwt.secret import SecretSource
from hsmjwt.toml_tables import where

__all__ = ["DEFAULT_MIN_TTL", "DEFAULT_TIMEOUT", "Profile", "SigningFlags", "resolve"]

DEFAULT_TIMEOUT = 30.0  # seconds for a whole command
DEFAULT_MIN_TTL = 60.0  # seconds of life that a cached token must have left


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides what is signed and where it goes; times in seconds.

    `header` holds what stands beside alg. `token_url` may be None where nothing is exchanged, `alg` where the key
    decides, among `algs` if there are any: those that may sign, the best first. `rules` is what the key table says,
    `bounds` what it and the tables with the same URI bind the key to. `module_by` tells who named the module. `retired`
    is a warning that the provider's grant has ended, None where the token URL is loopback. `origins` tells who named
    each value, by the config's name for it (`client_id`, `claims.NAME`); what is not there nobody has named.
    """

    name: str | None
    provider: str
    environment: str | None
    retired: str | None
    warnings: tuple[str, ...]
    key_table: str | None
    key_uri: KeyUri
    module: str | None
    module_by: str
    pin_source: SecretSource | None
    mounted: bool
    rules: KeyRules
    bounds: tuple[Bound, ...]
    alg: str | None
    algs: tuple[str, ...]
    grant: Grant
    client_id: str | None
    token_url: str | None
    claims: ClaimsTemplate
    header: dict[str, Any]
    form: dict[str, str]
    scope: str | None
    client_secret: SecretSource | None
    ca_file: str | None
    proxy: str | None
    timeout: float
    min_ttl: float
    max_life: int
    now: When | None
    origins: dict[str, Origin]

    def __repr__(self) -> str:
        """Show the name only: a proxy's URL may hold a password."""
        return f"Profile(name={self.name!r}, provider={self.provider!r})"

    def claims_now(self, clock: float) -> int:
        """Return the claims' own now at the real time `clock`, both Unix time."""
        return int(clock) if self.now is None else self.now.at(int(clock))

    @property
    def jti_mode(self) -> Literal["auto", "none", "literal"]:
        """Whether each assertion gets an identifier of its own, none, or the one that was given."""
        if self.claims.jti is None:
            return "none"
        return "auto" if self.claims.jti is Computed.NEW_ID else "literal"

    @property
    def unresolved(self) -> tuple[str, ...]:
        """The header fields that only the token can tell."""
        return ("alg",) if self.alg is None else ()

    def header_with(self, alg: str | None) -> dict[str, Any]:
        """Return the header of an assertion that is signed with `alg`: typ, alg, then the others."""
        rest = {name: value for name, value in self.header.items() if name != "typ"}
        return {"typ": self.header["typ"], "alg": alg, **rest}

    def cache_key_material(self) -> str:
        """Return text that differs wherever another access token would come of it; no secret is part of it.

        The module is part of it, since the same URI may select another key there. Where the PIN comes from, time
        limits, proxy and trusted certificates do not change what the token is.
        """
        uri = msgspec.structs.replace(self.key_uri, pin_source=None, pin_value=None)
        parts = {
            "format": 1,
            "profile": self.name,  # `cache clear NAME` must find all that the profile is served
            "provider": self.provider,
            "key": str(uri),
            "module": None if self.module is None else ascii(self.module),
            "alg": self.alg,
            "grant": self.grant,
            "client_id": self.client_id,
            "token_url": self.token_url,
            "scope": self.scope,
            "claims": [[name, *_tagged(getattr(self.claims, name))] for name in REGISTERED],
            "extra": [list(pair) for pair in self.claims.extra],
            "header": self.header,
            "form": self.form,
            "now": _tagged(self.now),
        }
        return json.dumps(parts, separators=(",", ":"))


def resolve(
    settings: Settings,
    flags: SigningFlags,
    argument: str | None,
    environ: Mapping[str, str],
    *,
    exchanging: bool | None,
) -> Profile:
    """Merge everything into a Profile; `argument` is the profile's name.

    `exchanging` is False for `sign`; with None there is an exchange where a token URL is known. Raises UsageError for
    bad or missing flags, ConfigError for what the config says, and PolicyError, naming the rule, for what provider or
    key table do not allow.
    """
    flags.check()
    made = _decide(settings, flags, argument, environ, exchanging=exchanging)
    provider, key = made.asked.provider, made.key
    token_url = made.value("token_url")
    algs: tuple[str, ...] = made.value("alg") or ()
    if key.uri is None:  # for the type checker: _decide has seen to it
        raise AssertionError
    return Profile(
        name=None if made.asked.table is None else made.asked.table.name,
        provider=provider.name,
        environment=made.value("environment"),
        retired=provider.retired if token_url is None or not rules.leads_here(token_url) else None,
        warnings=key.warnings,
        key_table=key.table,
        key_uri=key.uri,
        module=key.module,
        module_by=key.module_by,
        pin_source=key.pin_source,
        mounted=key.mounted,
        rules=key.rules,
        bounds=bounds([key.rules, *key.alike]),
        alg=algs[0] if len(algs) == 1 else None,
        algs=algs,
        grant=made.value("grant"),
        client_id=made.value("client_id"),
        token_url=token_url,
        claims=_template(made.claims),
        header={name: item.value for name, item in made.header.items()},
        form={name: item.value for name, item in made.form.items()},
        scope=made.value("scope"),
        client_secret=made.value("client_secret_source"),
        ca_file=made.value("ca_file"),
        proxy=made.value("proxy"),
        timeout=made.value("timeout"),
        min_ttl=made.value("min_ttl"),
        max_life=made.value("max_lifetime"),
        now=made.value("now"),
        origins=_origins(made),
    )


class _Decisions(NamedTuple):
    """Every value with who named it: claims, header and form by their own names, the others by the config's."""

    asked: rules.Asked
    key: KeyChoice
    claims: dict[str, Named]
    header: dict[str, Named]
    form: dict[str, Named]
    others: dict[str, Named | None]

    def value(self, name: str) -> Any:
        """Return one of the others' values, None where nobody names it."""
        named = self.others[name]
        return None if named is None else named.value


def _decide(
    settings: Settings,
    flags: SigningFlags,
    argument: str | None,
    environ: Mapping[str, str],
    *,
    exchanging: bool | None,
) -> _Decisions:
    chosen = rules.chosen_table(settings, flags, argument, environ)
    table = None if chosen is None else chosen.value
    provider = rules.chosen_provider(flags, table, settings.source)
    asked = rules.Asked(flags, table, settings.source, provider.value)
    key = choose_key(
        settings,
        environ,
        table=None if table is None else table.key,
        key=flags.key,
        module=flags.module,
        pin_source=flags.pin_source,
    )
    grant = rules.chosen_grant(asked)
    algs = rules.chosen_algs(asked, key)
    environment = rules.chosen_environment(asked)
    server = None if environment is None else asked.provider.environments[environment.value]
    token_url = rules.chosen_token_url(asked, server)
    claims = merged_claims(flags, table, settings.source)
    audience = rules.chosen_audience(asked, claims.get("aud"), server, token_url)
    rules.check_stranger(asked, audience)
    iss, sub, client_id = _parties(asked, grant.value, claims)
    parts = {"uri": key.uri, "iss": iss, "sub": sub, "token_url": token_url, "aud": audience}
    rules.check_missing(_wanted(asked.provider, parts, exchanging=exchanging), table, settings.profiles)
    typ = Named(asked.provider.typ[grant.value], asked.by_provider)
    others = {
        "profile": chosen,
        "provider": provider,
        "environment": environment,
        "grant": grant,
        "alg": algs,
        "client_id": client_id,
        "token_url": token_url,
        "scope": rules.chosen_scope(asked),
        "client_secret_source": rules.chosen_client_secret(asked),
        "ca_file": rules.chosen_ca_file(asked, settings.path),
        "proxy": rules.chosen_proxy(asked),
        "timeout": asked.seconds("timeout", DEFAULT_TIMEOUT, zero=False),
        "min_ttl": asked.seconds("min_ttl", DEFAULT_MIN_TTL, zero=True),
        "max_lifetime": rules.longest_life(asked.provider),
        "now": None if flags.now is None else Named(when(flags.now, flag("--now")), flag("--now")),
    }
    return _Decisions(
        asked=asked,
        key=key,
        claims=_completed(claims, asked, {"iss": iss, "sub": sub, "aud": audience}),
        header={"typ": typ, **merged_header(flags, table, settings.source)},
        form=rules.chosen_form(asked),
        others=others,
    )


def _wanted(
    provider: Provider, parts: Mapping[str, object], *, exchanging: bool | None
) -> tuple[tuple[str, str, object], ...]:
    """Return what must not be missing, as rows of flag, profile key and value."""
    by_client = provider.issuer == "client-id"
    goal = ("--aud", "audience", parts["aud"])
    if exchanging:
        goal = ("--token-url", "token_url", parts["token_url"])
    elif exchanging is None and parts["token_url"] is None:
        goal = ("--aud (or --token-url)", "audience (or token_url)", parts["aud"])
    return (
        ("--key", "key", parts["uri"]),
        (
            "--client-id" if by_client and exchanging is not False else "--iss",
            "client_id" if by_client else "issuer",
            parts["iss"],
        ),
        ("--sub", "subject", parts["sub"] if provider.subject == "named" else ""),
        goal,
    )


def _parties(
    asked: rules.Asked, grant: Grant, named: Mapping[str, Named]
) -> tuple[Named | None, Named | None, Named | None]:
    """Return iss, sub and the form field client_id.

    A client's own assertion is by the client about itself (RFC 7523, section 3, points 1 and 2), and some providers
    use the client id as iss everywhere.
    """
    client_id = asked.pick("client_id")
    by_client = asked.provider.issuer == "client-id"
    iss = named.get("iss", client_id if by_client or grant == "client-assertion" else None)
    sub = named.get("sub", iss if asked.provider.subject == "issuer" else None)
    return iss, sub, client_id or (iss if by_client else None)


def _completed(
    claims: Mapping[str, Named], asked: rules.Asked, parties: Mapping[str, Named | None]
) -> dict[str, Named]:
    """Return the claims with what the provider's file gives for those that nobody names."""
    provider = asked.provider
    return {
        "exp": Named(When(provider.lifetime, absolute=False), asked.by_provider),
        "jti": Named(Computed.NEW_ID if provider.jti == "auto" else None, asked.by_provider),
        **claims,
        **{name: each for name, each in parties.items() if each is not None},
    }


def _template(named: Mapping[str, Named]) -> ClaimsTemplate:
    given = {name: item.value for name, item in named.items()}
    return ClaimsTemplate(
        iss=given["iss"],
        sub=given["sub"],
        aud=given.get("aud"),
        exp=given["exp"],
        iat=given.get("iat", NOW),
        nbf=given.get("nbf"),
        jti=given["jti"],
        extra=tuple((name, value) for name, value in given.items() if name not in REGISTERED),
    )


_CLAIM_KEYS = {"iss": "issuer", "sub": "subject", "aud": "audience", "exp": "lifetime", "nbf": "nbf", "jti": "jti"}


def _origins(made: _Decisions) -> dict[str, Origin]:
    """Return who named each value, by the name that the config has for it."""
    key, table = made.key, made.asked.table
    by = flag("--key")  # which may name another table than the profile does
    if table is not None and table.key is not None and table.key == key.table:
        by = profile_key(made.asked.source, table, "key")
    return {
        **{name: each.origin for name, each in made.others.items() if each is not None},
        **{_CLAIM_KEYS.get(name, f"claims.{name}"): each.origin for name, each in made.claims.items()},
        **{name if name in ("typ", "kid") else f"headers.{name}": each.origin for name, each in made.header.items()},
        **{f"form.{name}": each.origin for name, each in made.form.items()},
        "key": DEFAULT if key.table is None else by,
        **_of_table(made),
        **{name: Origin(each.level, each.label) for name, each in key.named.items()},
    }


def _of_table(made: _Decisions) -> dict[str, Origin]:
    """Return who named what a key table says of its key beside its algorithms."""
    rules, source, origins = made.key.rules, made.asked.source, {}
    for name in rules.__struct_fields__:
        path = ("keys", rules.table or "", name)
        if name not in ("table", "algs") and getattr(rules, name) not in (None, False):
            origins[name] = Origin("key table", f"{name} {where(path[:-1])}", source, path)
    return origins


def _tagged(value: object) -> list[Any]:
    """Return a claim's value so that what is computed differs from a text that reads the same."""
    if isinstance(value, When):
        return ["at" if value.absolute else "from now", value.seconds]
    return ["computed", value.value] if isinstance(value, Computed) else ["as is", value]
