"""A profile's settings as a list: each with its value, in the form that the config takes, and who named it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from hsmjwt.errors import ConfigError
from hsmjwt.jose.claims import NOW, When, rfc3339
from hsmjwt.keyrules import KeyRules
from hsmjwt.oauth import proxy as proxies
from hsmjwt.oauth.endpoint import parse_endpoint
from hsmjwt.oauth.failure import ProxyFault
from hsmjwt.oauth.named import DEFAULT, Origin
from hsmjwt.oauth.profile import Profile
from hsmjwt.oauth.shown import HIDDEN, known_harmless

_ANY_SERVER = "https://as.example/token"


class Setting(NamedTuple):
    """One setting: `origin` is the level that named it, `by` the flag, the config's key, the variable or the file."""

    name: str
    value: Any
    origin: str
    by: str


def settings_of(profile: Profile, environ: Mapping[str, str]) -> list[Setting]:
    """Return every setting of a profile, always in the same order; None is what nobody names and nothing fills.

    `environ` is asked for the proxy alone, which the profile leaves to it. No secret is among the values.
    """
    rows = []
    for name, value in _values(profile):
        origin = profile.origins.get(name, DEFAULT)
        rows.append(Setting(name, value, origin.level, origin.by))
    proxy, origin = _proxy(profile, environ)
    rows.append(Setting("proxy", proxy, origin.level, origin.by))
    return rows


def _values(profile: Profile) -> Iterator[tuple[str, Any]]:
    claims, header = profile.claims, profile.header
    yield "profile", profile.name
    yield "provider", profile.provider
    yield "environment", profile.environment
    yield "key", profile.key_table
    yield "uri", str(profile.key_uri)
    yield "module", profile.module
    yield "pin_source", "prompt" if profile.pin_source is None else profile.pin_source.noted
    yield "alg", list(profile.algs) if len(profile.algs) > 1 else profile.alg
    yield from _of_key(profile.rules)
    yield "grant", profile.grant
    yield "client_id", profile.client_id
    yield "token_url", profile.token_url
    yield "issuer", claims.iss
    yield "subject", claims.sub
    yield "audience", claims.aud
    yield "scope", profile.scope
    yield "lifetime", _written(claims.exp)
    yield "max_lifetime", _seconds(profile.max_life)
    yield "nbf", _written(claims.nbf)
    yield "now", _written(profile.now)
    yield "jti", claims.jti if profile.jti_mode == "literal" else profile.jti_mode
    yield "typ", header["typ"]
    yield "kid", header.get("kid")
    if claims.iat != NOW:
        yield "claims.iat", _written(claims.iat)
    yield from ((f"claims.{name}", value) for name, value in claims.extra)
    yield from ((f"headers.{name}", value) for name, value in header.items() if name not in ("typ", "kid"))
    for name, value in profile.form.items():
        yield f"form.{name}", value if not value or known_harmless(name) else HIDDEN
    yield "client_secret_source", None if profile.client_secret is None else profile.client_secret.noted
    yield "timeout", _seconds(profile.timeout)
    yield "min_ttl", _seconds(profile.min_ttl)
    yield "ca_file", profile.ca_file


def _of_key(rules: KeyRules) -> Iterator[tuple[str, Any]]:
    """Yield what a key table says of its key beside its algorithms."""
    yield "certificate", rules.certificate
    yield "public_key", rules.public_key
    yield "thumbprint", rules.thumbprint
    yield "require", rules.require
    end = rules.not_after
    yield "not_after", None if end is None else rfc3339(end)
    yield "max_age", None if rules.max_age is None else _seconds(rules.max_age)
    yield "protected", rules.protected
    yield "unverified", rules.unverified


def _written(moment: When | float | None) -> str | None:
    """Return a moment as --exp takes it: a duration from now, or @ and Unix time."""
    if moment is None:
        return None
    if not isinstance(moment, When):
        return f"@{moment}"
    return f"@{moment.seconds}" if moment.absolute else _seconds(moment.seconds)


def _seconds(seconds: float) -> str:
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def _proxy(profile: Profile, environ: Mapping[str, str]) -> tuple[str | None, Origin]:
    """Return the proxy that a request would take, without its password; '' where the profile wants none."""
    origin = profile.origins.get("proxy", DEFAULT)
    if profile.proxy is None and profile.token_url is None:
        return None, origin
    if profile.proxy is not None and not profile.proxy.strip():
        return "", origin
    server = parse_endpoint(_ANY_SERVER if profile.proxy is not None else profile.token_url or _ANY_SERVER)
    try:
        chosen = proxies.choose(server, profile.proxy, environ)
    except (ProxyFault, ConfigError) as error:  # told in the list; whoever exchanges gets it as an error
        return f"({error.message})", origin if profile.proxy is not None else Origin("environment", "environment")
    if chosen is None:
        return None, origin
    if profile.proxy is None:
        origin = Origin("environment", chosen.source)
    scheme, _, host = chosen.url.partition("://")
    return f"{scheme}://{HIDDEN}@{host}" if chosen.authorization else chosen.url, origin
