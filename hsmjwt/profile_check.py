"""Lint of profiles: what would be refused before anything is signed, and what a person should look at.

Nothing live: no module is loaded, no secret read, no server asked. Files that a profile names are looked at from
outside; one that is missing is a warning, since a config may be checked elsewhere than where it is used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from hsmjwt.compose import halves
from hsmjwt.config import ProfileTable, Settings
from hsmjwt.errors import ConfigError, HsmjwtError, TokenError
from hsmjwt.hsm.discovery import find_module
from hsmjwt.jose.claims import When
from hsmjwt.keyrules import rules_of
from hsmjwt.oauth import provider as providers
from hsmjwt.oauth import proxy as proxies
from hsmjwt.oauth.assertion import draft
from hsmjwt.oauth.endpoint import parse_endpoint
from hsmjwt.oauth.failure import ProxyFault
from hsmjwt.oauth.profile import Profile, SigningFlags, resolve
from hsmjwt.secret import look
from hsmjwt.toml_tables import dotted

Verdict = Literal["ok", "warning", "no"]

_THERE = "it has to be there where the profile is used"


class Finding(NamedTuple):
    """What is said of a profile, or of the config where `profile` is None; no text where all is well."""

    profile: str | None
    verdict: Verdict
    text: str | None = None
    hint: str | None = None


def check(settings: Settings, names: Sequence[str], environ: Mapping[str, str], clock: float) -> Iterator[Finding]:
    """Yield what there is to say of the profiles `names`, of all and of unused keys where there are none.

    `settings` are those of a lenient reading: a table that is wrong is told whoever is asked for, as it keeps every
    command from reading the file. `clock` is Unix time. Raises ConfigError for a profile that is not there.
    """
    for name in names:
        if ("profiles", name) not in settings.broken:
            settings.profile(name)
    for path, fault in settings.broken.items():
        yield Finding(path[1] if path[0] == "profiles" else None, "no", fault.message, fault.hint)
    modules: dict[tuple[str | None, ...], Finding | None] = {}
    for name in dict.fromkeys(names) if names else settings.profiles:
        if name not in settings.profiles:  # told above
            continue
        found = list(_of_profile(settings, settings.profiles[name], environ, clock, modules))
        yield from found or [Finding(name, "ok")]
    if not names and not settings.broken:
        yield from _unused_keys(settings)


def _of_profile(
    settings: Settings,
    table: ProfileTable,
    environ: Mapping[str, str],
    clock: float,
    modules: dict[tuple[str | None, ...], Finding | None],
) -> Iterator[Finding]:
    try:
        profile = resolve(settings, SigningFlags(), table.name, environ, exchanging=None)
        draft(profile, profile.alg, clock)
    except HsmjwtError as error:
        yield Finding(table.name, "no", error.message, error.hint)
        return
    for text in (*profile.warnings, *filter(None, (profile.retired,))):
        yield Finding(table.name, "warning", text)
    if profile.key_uri.for_private().type != "private":
        text = f"the key's URI '{profile.key_uri.brief}' does not name a private key"
        yield Finding(table.name, "no", text, "leave type out, or write type=private")
    yield from _of_claims(profile)
    yield from _of_files(profile, environ)
    yield from _of_key(settings, profile)
    yield from _of_proxy(profile)
    chosen = (profile.module, profile.key_uri.module_path, profile.key_uri.module_name)
    if chosen not in modules:
        modules[chosen] = _of_module(settings, profile)
    if (finding := modules[chosen]) is not None:
        yield finding._replace(profile=table.name)


def _of_claims(profile: Profile) -> Iterator[Finding]:
    """Look for what is signed today and refused by a server, today or tomorrow."""
    name, claims = profile.name, profile.claims
    for claim in ("exp", "iat", "nbf"):
        moment = getattr(claims, claim)
        if moment is not None and (not isinstance(moment, When) or moment.absolute):
            yield Finding(
                name,
                "warning",
                f"{claim} is the same moment in every assertion",
                "a duration counts from the moment of signing",
            )
    if profile.jti_mode == "literal":
        yield Finding(
            name,
            "warning",
            "jti is the same in every assertion, and a server may refuse the second as a replay (RFC 7523, section 3)",
            'jti = "auto" makes one for each',
        )
    wanted = profile.client_id
    if wanted is None or not (profile.grant == "client-assertion" or _issued_by_client(profile)):
        return
    for claim in ("iss", "sub") if profile.grant == "client-assertion" else ("iss",):
        if getattr(claims, claim) != wanted:
            yield Finding(
                name, "warning", f"{claim} is not the client id, and the server expects that", "leave one of them out"
            )


def _issued_by_client(profile: Profile) -> bool:
    return providers.load(profile.provider).issuer == "client-id"


def _of_files(profile: Profile, environ: Mapping[str, str]) -> Iterator[Finding]:
    for source, purpose, mounted in (
        (profile.pin_source, "PIN", profile.mounted),
        (profile.client_secret, "client secret", False),
    ):
        if source is None:
            continue
        try:
            look(source, purpose=purpose, environ=environ, mounted=mounted)
        except OSError as error:
            text = f"the {purpose} file '{source.target}' cannot be looked at: {(error.strerror or '').lower()}"
            yield Finding(profile.name, "warning", text, _THERE)
        except ConfigError as error:
            yield Finding(profile.name, "no", error.message, error.hint)
    if profile.ca_file is not None and not os.path.exists(profile.ca_file):
        text = f"the CA file {profile.ca_file!r} is not there"
        yield Finding(profile.name, "warning", text, _THERE)


def _of_key(settings: Settings, profile: Profile) -> Iterator[Finding]:
    """Look at what the key table names beside its key."""
    for noun, path, read in halves.files_of(settings, profile.rules):
        if path is not None and not os.path.exists(path):
            yield Finding(profile.name, "warning", f"the {noun} {path!r} is not there", _THERE)
            continue
        try:
            read()
        except ConfigError as error:
            yield Finding(profile.name, "no", error.message, error.hint)


def _of_proxy(profile: Profile) -> Iterator[Finding]:
    if profile.proxy is None or profile.token_url is None:
        return
    try:
        proxies.choose(parse_endpoint(profile.token_url), profile.proxy, {})
    except ProxyFault as error:
        yield Finding(profile.name, "no", error.message, error.hint)


def _of_module(settings: Settings, profile: Profile) -> Finding | None:
    uri = profile.key_uri
    try:
        find_module(
            profile.module,
            profile.module_by,
            uri_path=uri.module_path,
            uri_name=uri.module_name,
            allowed=settings.allowed_modules,
        )
    except TokenError as error:
        return Finding(profile.name, "warning", error.message, error.hint)
    except ConfigError as error:
        return Finding(profile.name, "no", error.message, error.hint)
    return None


def _unused_keys(settings: Settings) -> Iterator[Finding]:
    used = {table.key for table in settings.profiles.values()}
    for name in settings.keys:
        if name not in used:
            try:
                rules_of(settings, settings.keys[name])
            except ConfigError as error:
                yield Finding(None, "no", error.message, error.hint)
            text = f"the key table [{dotted(('keys', name))}] is used by no profile"
            yield Finding(None, "warning", text, "remove it, unless --key names it now and then")
