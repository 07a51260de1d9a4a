"""Profile: provider, profile, key table, flags and environment merged once, checked and frozen; nobody merges after it.

Which value wins: flag, profile, key table, environment, the provider's default,
ours. What a provider or a key table fixes is a rule: naming something else is refused before anything is signed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from hsmjwt.config import Settings
from hsmjwt.guard.policy import DEFAULT_MAX_LIFE
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.jose.claims import NOW, REGISTERED, ClaimsTemplate, Computed, When
from hsmjwt.keychoice import KeyChoice, choose_key
from hsmjwt.oauth import rules
from hsmjwt.oauth.merge import merged_claims, merged_header, when
from hsmjwt.oauth.named import Named, flag
from hsmjwt.oauth.provider import Grant, Provider
from hsmjwt.oauth.signing_flags import SigningFlags
from hsmjwt.secret import SecretSource

__all__ = ["DEFAULT_MIN_TTL", "DEFAULT_TIMEOUT", "Profile", "SigningFlags", "resolve"]

DEFAULT_TIMEOUT = 30.0  # seconds for a whole command
DEFAULT_MIN_TTL = 60.0  # seconds of life that a cached token must have left


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides what is signed and where it goes; times in seconds.

    `header` holds what stands beside alg. `token_url` may be None where nothing is exchanged, `alg` where the key
    decides. `module_by` tells who named the module. `retired` is a warning that the provider's grant
    has ended, None where the token URL is loopback.
    """

    name: str | None
    provider: str
    retired: str | None
    warnings: tuple[str, ...]
    key_uri: KeyUri
    module: str | None
    module_by: str
    pin_source: SecretSource | None
    mounted: bool
    alg: str | None
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
    settings: Settings, flags: SigningFlags, argument: str | None, environ: Mapping[str, str], *, exchanging: bool
) -> Profile:
    """Merge everything into a Profile; `argument` is the profile's name, `exchanging` False for `sign`.

    Raises UsageError for bad or missing flags, ConfigError for what the config says, and PolicyError, naming the rule,
    for what provider or key table do not allow.
    """
    flags.check()
    table = rules.chosen_table(settings, flags, argument, environ)
    provider = rules.chosen_provider(flags, table, settings.source)
    asked = rules.Asked(flags, table, settings.source, provider)
    key = choose_key(
        settings,
        environ,
        table=None if table is None else table.key,
        key=flags.key,
        module=flags.module,
        pin_source=flags.pin_source,
    )
    grant = rules.chosen_grant(asked)
    alg = rules.chosen_alg(asked, key)
    environment = rules.chosen_environment(asked)
    token_url = rules.chosen_token_url(asked, environment)
    named = merged_claims(flags, table, settings.source)
    audience = rules.chosen_audience(asked, named.get("aud"), environment, token_url)
    rules.check_stranger(asked, audience)
    iss, sub, client_id = _parties(asked, grant, named)
    by_client = provider.issuer == "client-id"
    wanted = (
        ("--key", "key", key.uri),
        ("--client-id" if by_client and exchanging else "--iss", "client_id" if by_client else "issuer", iss),
        ("--sub", "subject", sub if provider.subject == "named" else ""),
        ("--token-url", "token_url", token_url if exchanging else ""),
        ("--aud", "audience", "" if exchanging else audience),
    )
    rules.check_missing(wanted, table, settings.profiles)
    if key.uri is None or iss is None or sub is None:  # for the type checker: check_missing has seen to it
        raise AssertionError
    header = {name: item.value for name, item in merged_header(flags, table, settings.source).items()}
    return Profile(
        name=None if table is None else table.name,
        provider=provider.name,
        retired=provider.retired if token_url is None or not rules.leads_here(token_url.value) else None,
        warnings=key.warnings,
        key_uri=key.uri,
        alg=alg,
        grant=grant,
        client_id=client_id,
        token_url=None if token_url is None else token_url.value,
        claims=_template(provider, named, iss=iss, sub=sub, aud=None if audience is None else audience.value),
        header={"typ": provider.typ[grant], **header},
        max_life=DEFAULT_MAX_LIFE if provider.max_lifetime is None else provider.max_lifetime,
        now=None if flags.now is None else when(flags.now, flag("--now")),
        **_login(key),
        **_sending(asked, settings.path),
    )


def _login(key: KeyChoice) -> dict[str, Any]:
    """Return the fields that say how the key is reached."""
    return {
        "module": key.module,
        "module_by": key.module_by,
        "pin_source": key.pin_source,
        "mounted": key.mounted,
    }


def _sending(asked: rules.Asked, config: str | None) -> dict[str, Any]:
    """Return the fields that say how the assertion is sent."""
    return {
        "form": rules.chosen_form(asked),
        "scope": rules.chosen_scope(asked),
        "client_secret": rules.chosen_client_secret(asked),
        "ca_file": rules.chosen_ca_file(asked, config),
        "proxy": rules.chosen_proxy(asked),
        "timeout": asked.seconds("timeout", DEFAULT_TIMEOUT, zero=False),
        "min_ttl": asked.seconds("min_ttl", DEFAULT_MIN_TTL, zero=True),
    }


def _parties(asked: rules.Asked, grant: Grant, named: Mapping[str, Named]) -> tuple[str | None, str | None, str | None]:
    """Return iss, sub and the form field client_id.

    A client's own assertion is by the client about itself (RFC 7523, section 3, points 1 and 2), and some providers
    use the client id as iss everywhere.
    """
    given = {name: item.value for name, item in named.items()}
    picked = asked.pick("client_id")
    client_id = None if picked is None else str(picked.value)
    by_client = asked.provider.issuer == "client-id"
    iss = given.get("iss", client_id if by_client or grant == "client-assertion" else None)
    sub = given.get("sub", iss if asked.provider.subject == "issuer" else None)
    return iss, sub, client_id or (iss if by_client else None)


def _template(
    provider: Provider, named: Mapping[str, Named], *, iss: str, sub: str, aud: str | list[str] | None
) -> ClaimsTemplate:
    given = {name: item.value for name, item in named.items()}
    return ClaimsTemplate(
        iss=iss,
        sub=sub,
        aud=aud,
        exp=given.get("exp", When(provider.lifetime, absolute=False)),
        iat=given.get("iat", NOW),
        nbf=given.get("nbf"),
        jti=given.get("jti", Computed.NEW_ID if provider.jti == "auto" else None),
        extra=tuple((name, value) for name, value in given.items() if name not in REGISTERED),
    )


def _tagged(value: object) -> list[Any]:
    """Return a claim's value so that what is computed differs from a text that reads the same."""
    if isinstance(value, When):
        return ["at" if value.absolute else "from now", value.seconds]
    return ["computed", value.value] if isinstance(value, Computed) else ["as is", value]
