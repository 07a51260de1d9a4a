"""The single decisions behind a Profile: which profile, grant, algorithm, endpoint and audience, and who may say so.

A rule of the provider or of a key table is asked here, and what breaks it is a PolicyError that names the rule.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, get_args

from hsmjwt.config import ProfileTable, Settings
from hsmjwt.errors import ConfigError, UsageError
from hsmjwt.guard.policy import DEFAULT_MAX_LIFE, bound_to, check_alg, refused
from hsmjwt.jose.encoding import quoted
from hsmjwt.keychoice import KeyChoice
from hsmjwt.keyrules import bounds, known_alg
from hsmjwt.nearest import did_you_mean
from hsmjwt.oauth import provider as providers
from hsmjwt.oauth import proxy as proxies
from hsmjwt.oauth.endpoint import is_loopback, parse_endpoint
from hsmjwt.oauth.failure import ProxyFault
from hsmjwt.oauth.merge import duration, profile_key
from hsmjwt.oauth.named import DEFAULT, Named, Origin, flag
from hsmjwt.oauth.provider import Environment, Grant, Provider
from hsmjwt.oauth.shown import telling
from hsmjwt.oauth.signing_flags import SigningFlags
from hsmjwt.secret import parse_source
from hsmjwt.toml_tables import Source, where

# Form fields that have a key of their own, or are what the exchange itself writes (RFC 6749, RFC 7521, section 4).
_FORM_KEYS = {
    "client_id": "client_id",
    "client_secret": "client_secret_source",
    "scope": "scope",
    "grant_type": "grant",
    "assertion": None,
    "client_assertion": None,
    "client_assertion_type": None,
}
_LISTED = 10  # profiles in a hint
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")
_DEFAULT_PROFILE = Origin("default", "default_profile")
_ANY_SERVER = parse_endpoint("https://as.example/token")


class Asked(NamedTuple):
    """What was asked for, before anything is decided."""

    flags: SigningFlags
    table: ProfileTable | None
    source: Source
    provider: Provider

    def pick(self, key: str) -> Named | None:
        """Return the flag of that name, else the profile's key, else None."""
        value = getattr(self.flags, key, None)
        if value is not None:
            return Named(value, flag("--" + key.replace("_", "-")))
        return self.configured(key)

    @property
    def by_provider(self) -> Origin:
        """The origin of what the provider's file says."""
        return Origin("provider", self.provider.name)

    def configured(self, key: str) -> Named | None:
        """Return the profile's key, which has no flag or none that counts."""
        value = getattr(self.table, key) if self.table is not None else None
        return None if self.table is None or value is None else Named(value, profile_key(self.source, self.table, key))

    def seconds(self, key: str, default: float, *, zero: bool) -> Named:
        """Return a duration; `zero` tells whether it may be 0."""
        named = self.pick(key)
        if named is None:
            return Named(default, DEFAULT)
        value = duration(named.value, named.origin)
        if value == 0 and not zero:
            raise named.origin.fault("must be longer than 0")
        return Named(value, named.origin)


def chosen_table(
    settings: Settings, flags: SigningFlags, argument: str | None, environ: Mapping[str, str]
) -> Named | None:
    """Return the profile's table to use: the argument, else HSMJWT_PROFILE, else default_profile.

    With --iss, --provider or --token-url and no argument it is none: whoever names these means no profile, and a stray
    variable must not add to what they say.
    """
    if argument is not None:
        return Named(settings.profile(argument), flag("PROFILE"))
    if flags.iss is not None or flags.provider is not None or flags.token_url is not None:
        return None
    name = environ.get("HSMJWT_PROFILE")
    if name:
        return Named(settings.profile(name, "HSMJWT_PROFILE"), Origin("environment", "HSMJWT_PROFILE"))
    name = settings.default_profile
    return None if name is None else Named(settings.profile(name, "default_profile"), _DEFAULT_PROFILE)


def chosen_provider(flags: SigningFlags, table: ProfileTable | None, source: Source) -> Named:
    """Return the provider: the flag's, the profile's, or generic. Raises ConfigError for one that nobody knows."""
    if flags.provider is not None:
        return Named(providers.load(flags.provider), flag("--provider"))
    if table is None or table.provider is None:
        return Named(providers.load("generic"), DEFAULT)
    origin = profile_key(source, table, "provider")
    try:
        return Named(providers.load(table.provider), origin)
    except ConfigError as error:
        raise origin.fault(error.message, hint=error.hint) from None


def chosen_environment(asked: Asked) -> Named | None:
    """Return the name of the provider's environment that the profile names, else its first, None where it has none."""
    known = asked.provider.environments
    named = asked.configured("environment")
    if named is None:
        first = next(iter(known), None)
        return None if first is None else Named(first, asked.by_provider)
    if named.value not in known:
        raise named.origin.fault(
            f"the provider {asked.provider.name!r} has no environment {named.value!r}",
            hint=did_you_mean(named.value, known, noun="environments"),
        )
    return named


def chosen_grant(asked: Asked) -> Named:
    """Return the grant; one that the provider does not take breaks its rule."""
    named = asked.pick("grant")
    if named is None:
        return Named(asked.provider.grants[0], asked.by_provider)
    if named.value in asked.provider.grants:
        return named
    if named.value not in get_args(Grant):
        raise named.origin.fault(
            f"unknown grant {quoted(named.value)}", hint=did_you_mean(named.value, get_args(Grant), noun="grants")
        )
    raise refused(
        f"{asked.provider.name}.grant",
        f"{named.origin.label} is {named.value!r}, and the provider takes {' or '.join(asked.provider.grants)} alone",
    )


def chosen_algs(asked: Asked, key: KeyChoice) -> Named | None:
    """Return the algorithms that may sign, the best first; None where the key decides alone.

    Key tables bind a key to theirs (RFC 8725, section 3.1): the table that was named, and those whose URI asks for the
    same. A provider may take some only.
    """
    bound = bounds([key.rules, *key.alike])
    names, origin = bound_to(bound), DEFAULT
    if names:
        table = next(each.table for each in bound if each.algs)
        origin = Origin("key table", f"alg in [keys.{table}]", asked.source, ("keys", table, "alg"))
    if asked.flags.alg is not None:
        origin = flag("--alg")
        names = (_known_alg(asked.flags.alg, origin),)
        check_alg(bound, names[0])
    allowed = asked.provider.algs
    if not allowed:
        return Named(names, origin) if names else None
    if not names:
        return Named(allowed, asked.by_provider)
    taken = tuple(name for name in names if name in allowed)
    if not taken:
        raise refused(
            f"{asked.provider.name}.alg",
            f"{origin.label} is {' or '.join(names)}, and the provider takes {' or '.join(allowed)} alone",
        )
    return Named(taken, origin)


def _known_alg(name: str, origin: Origin) -> str:
    try:
        return known_alg(name)
    except UsageError as error:
        raise origin.fault(error.message, hint=error.hint) from None


def chosen_token_url(asked: Asked, environment: Environment | None) -> Named | None:
    """Return the token endpoint, checked; a provider's is always a default."""
    named = asked.pick("token_url")
    if named is None:
        return None if environment is None else Named(environment.token_url, asked.by_provider)
    try:
        parse_endpoint(named.value)
    except UsageError as error:
        raise named.origin.fault(error.message, hint=error.hint) from None
    return named


def chosen_audience(
    asked: Asked, named: Named | None, environment: Environment | None, token_url: Named | None
) -> Named | None:
    """Return the audience and who says so: flags and profile, the provider's file, else the token URL."""
    own = environment.audience if environment is not None else None
    if asked.provider.audience != "token-url" and own is not None:
        if named is None:
            return Named(own, asked.by_provider)
        if asked.provider.audience == "fixed" and named.value != own:
            raise refused(
                f"{asked.provider.name}.audience", f"{named.origin.label} names another audience than {own!r}"
            )
        return named
    if named is not None:
        return named
    return token_url


def check_stranger(asked: Asked, audience: Named | None) -> None:
    """Refuse a --token-url that would hand what one server is to get to another.

    The assertion is good at whoever its audience names: where that comes from provider or profile, or a secret from the
    profile goes along (the client's, or a form field with such a name), the flag's host must be one of theirs or this
    machine.
    """
    flags, table = asked.flags, asked.table
    if flags.token_url is None:
        return
    ours = audience is not None and audience.origin.level in ("profile", "provider")
    secret = None if table is None else _secret_of(table)
    if not ours and secret is None:
        return
    host = parse_endpoint(flags.token_url).host
    known = asked.provider.hosts()
    if table is not None and table.token_url is not None:
        known |= {_host(table.token_url)}
    if is_loopback(host) or host.rstrip(".") in {name.rstrip(".") for name in known}:
        return
    what = "the audience comes from provider or profile" if ours else f"the profile's {secret} would go along"
    raise refused(
        "token-url-of-a-stranger",
        f"--token-url leads to {quoted(host)}, and {what}: a stranger would get what is good elsewhere",
        hint="--aud names the audience that the server itself expects" if ours else "put token_url into the profile",
    )


def _secret_of(table: ProfileTable) -> str | None:
    """Name a secret that a profile sends along, None where it has none."""
    if table.client_secret_source is not None:
        return "client secret"
    return next((f"form field {quoted(name)}" for name, value in table.form.items() if value and telling(name)), None)


def _host(url: str) -> str:
    try:
        return parse_endpoint(url).host
    except UsageError:
        return ""  # which no host is


def chosen_form(asked: Asked) -> dict[str, Named]:
    """Return the profile's extra form fields; none may be one that the exchange writes."""
    table = asked.table
    if table is None:
        return {}
    form: dict[str, Named] = {}
    for name, value in table.form.items():
        origin = profile_key(asked.source, table, "form", name)
        if name in _FORM_KEYS:
            instead = _FORM_KEYS[name]
            raise origin.fault(
                "this form field is written by hsmjwt itself", hint=f"use the profile's {instead}" if instead else None
            )
        if not isinstance(value, str):
            raise origin.fault("must be text", hint="quote the value")
        form[name] = Named(value, origin)
    return form


def chosen_client_secret(asked: Asked) -> Named | None:
    """Return where the profile's client secret is to be read."""
    named = asked.configured("client_secret_source")
    if named is None:
        return None
    try:
        source = parse_source(named.value)
    except UsageError as error:
        raise named.origin.fault(error.message, hint=error.hint) from None
    if source.kind == "none":
        raise named.origin.fault("'none' gives no client secret", hint="leave the key out where there is none")
    return Named(source, named.origin)


def chosen_scope(asked: Asked) -> Named | None:
    """Return the scope as it is sent: a list's members with a blank between (RFC 6749, section 3.3)."""
    named = asked.pick("scope")
    if named is None:
        return None
    scope = " ".join(named.value) if isinstance(named.value, list) else str(named.value)
    if _SCOPE.fullmatch(scope) is None:
        raise named.origin.fault(
            f"{quoted(scope)} is no scope (RFC 6749, section 3.3)",
            hint='names of printable ASCII without " and \\, one blank between two of them',
        )
    return Named(scope, named.origin)


def chosen_ca_file(asked: Asked, config: str | None) -> Named | None:
    """Return the file of trusted certificates; a relative one in the config lies beside the config file."""
    named = asked.pick("ca_file")
    if named is None:
        return None
    if "\0" in named.value:
        raise named.origin.fault("a file name holds no NUL")
    beside = os.path.dirname(config) if config is not None and named.origin.level == "profile" else ""
    return Named(os.path.join(beside, named.value), named.origin)


def chosen_proxy(asked: Asked) -> Named | None:
    """Return the profile's proxy, '' where it wants none; it may hold a password, so no message quotes it."""
    named = asked.configured("proxy")
    if named is None:
        return None
    try:
        proxies.choose(_ANY_SERVER, named.value, {})
    except ConfigError as error:
        raise named.origin.fault(error.message, hint=error.hint) from None
    except ProxyFault:
        pass  # a kind of proxy that is not supported matters to whoever exchanges
    return named


def longest_life(provider: Provider) -> Named:
    """Return the longest life of an assertion in seconds that the provider takes, an hour where its file says none."""
    if provider.max_lifetime is None:
        return Named(DEFAULT_MAX_LIFE, DEFAULT)
    return Named(provider.max_lifetime, Origin("provider", provider.name))


def leads_here(url: str) -> bool:
    """Tell whether a checked token URL leads to this machine: a demo or a test, not the provider."""
    return parse_endpoint(url).loopback


def check_missing(
    wanted: Sequence[tuple[str, str, object]], table: ProfileTable | None, profiles: Iterable[str]
) -> None:
    """Raise UsageError that names what is None in `wanted`: rows of flag, profile key and value."""
    rows = [row for row in wanted if row[2] is None]
    if not rows:
        return
    flags = [row[0] for row in rows]
    listed = " and ".join(filter(None, (", ".join(flags[:-1]), flags[-1])))
    verb = "are" if len(flags) > 1 else "is"
    if table is None:
        names = sorted(profiles)
        known = f" (there {'are' if len(names) > 1 else 'is'} {', '.join(map(repr, names[:_LISTED]))})" if names else ""
        raise UsageError(
            f"no profile is used, and {listed} {verb} missing",
            hint=f"name a profile{known}, or give all of it as flags",
        )
    raise UsageError(
        f"the profile {table.name!r} does not say all, and {listed} {verb} missing",
        hint=f"{where(('profiles', table.name))} that is {', '.join(row[1] for row in rows)}",
    )
