"""`hsmjwt profile`: the profiles of the config, what each comes to, what is wrong with one, and a new one."""

from __future__ import annotations

import json
import os
import shlex
import time
from typing import Annotated, Any

import msgspec

from hsmjwt import config, folders
from hsmjwt import deadline as deadlines
from hsmjwt.cli import signing
from hsmjwt.cli.flags import Claims, Device, Exchange, Flag, Group, Shared, Word, command
from hsmjwt.cli.run import Run
from hsmjwt.config import Settings
from hsmjwt.config_append import place
from hsmjwt.errors import ConfigError, HsmjwtError, PolicyError
from hsmjwt.guard.policy import check_clock
from hsmjwt.oauth import provider as providers
from hsmjwt.oauth.origins import settings_of
from hsmjwt.oauth.profile import SigningFlags, resolve
from hsmjwt.profile_check import check as checked
from hsmjwt.profile_init import add_profile

_LIST = """List the profiles of the config.

One that cannot be used is listed, too, and stderr says what is wrong with it.

\b
Examples:
  hsmjwt profile list
  hsmjwt profile list --json
"""
_SHOW = """Show each setting of a profile, and who named it.

Takes the flags of token, shows what would be used with them, and loads no module. No secret is shown.

\b
Examples:
  hsmjwt profile show adobe
  hsmjwt profile show adobe --aud https://test.example.com
"""
_CHECK = """Check profiles without a token or a server.

All of them, or those named, against the rules of their providers. Signs nothing, reads no PIN, loads no module and asks
no server. The exit code is 8 where one cannot be used.

\b
Examples:
  hsmjwt profile check
  hsmjwt profile check adobe --json
"""
_INIT = """Add a profile to the end of the config.

Where --key is a URI a key table is added, too. What was there stays as it is. What is still to be filled in, and each
default, is written as a comment.

\b
Examples:
  hsmjwt profile init adobe-analytics --name adobe --client-id my-client --key 'pkcs11:token=prod;object=jwt'
  hsmjwt profile init generic --name ci --iss ci --token-url https://as.example.com/token --key adobe
"""


class Values(msgspec.Struct, frozen=True, kw_only=True):
    """Flags that become keys of the new profile."""

    issuer: Annotated[str | None, Flag("--iss", metavar="TEXT", help="The claim iss: who signs.")] = None
    subject: Annotated[str | None, Flag("--sub", metavar="TEXT", help="The claim sub: for whom.")] = None
    audience: Annotated[list[str] | None, Flag("--aud", metavar="TEXT", help="The claim aud; may be repeated.")] = None
    scope: Annotated[str | None, Flag("--scope", metavar="TEXT", help="The scope to ask for.")] = None
    lifetime: Annotated[str | None, Flag("--exp", metavar="DURATION", help="How long an assertion is good.")] = None
    jti: Annotated[str | None, Flag("--jti", metavar="auto|none", help="The claim jti.")] = None
    typ: Annotated[str | None, Flag("--typ", metavar="TEXT", help="The header field typ.")] = None
    kid: Annotated[str | None, Flag("--kid", metavar="TEXT", help="The header field kid.")] = None
    grant: Annotated[str | None, Flag("--grant", metavar="GRANT", help="jwt-bearer or client-assertion.")] = None
    token_url: Annotated[str | None, Flag("--token-url", metavar="URL", help="The token endpoint.")] = None
    client_id: Annotated[str | None, Flag("--client-id", metavar="ID", help="The form field client_id.")] = None
    environment: Annotated[
        str | None, Flag("--environment", metavar="NAME", help="One of the provider's environments.")
    ] = None
    ca_file: Annotated[str | None, Flag("--ca-file", metavar="FILE", help="Trust these certificates.")] = None


class KeyValues(msgspec.Struct, frozen=True, kw_only=True):
    """Flags that become keys of the new key table."""

    uri: Annotated[
        str | None,
        Flag(
            "--key", metavar="URI|NAME", help="A pkcs11: URI for a new key table, or a table's name.", completes="keys"
        ),
    ] = None
    module: Annotated[str | None, Flag("--module", metavar="PATH", help="The key's PKCS#11 module.")] = None
    pin_source: Annotated[str | None, Flag("--pin-source", metavar="SPEC", help="Where the key's PIN is.")] = None
    alg: Annotated[
        str | None, Flag("--alg", metavar="ALG", help="The key's one algorithm.", completes="algorithms")
    ] = None


@command(_LIST, shared=Shared)
def list_profiles(run: Run, *, shared: Shared) -> None:
    """List profiles."""
    run.limit(shared.timeout)
    settings = config.load(shared.config, os.environ, lenient=True)
    default = os.environ.get("HSMJWT_PROFILE") or settings.default_profile
    rows = [_row(settings, name, default) for name in settings.profiles]
    for path, fault in settings.broken.items():
        if path[0] == "profiles":
            row = dict.fromkeys(("name", "provider", "key", "token_url", "default", "problem"))
            rows.append({**row, "name": path[1], "default": path[1] == default, "problem": fault.message})
        else:
            run.console.warn(f"warning: {fault.message}")
    if settings.path is None:
        places = " and ".join(settings.searched)
        run.console.warn(f"there is no config file ({places}); hsmjwt profile init PROVIDER makes one")
    if shared.json:
        run.console.result_json(rows)
        return
    for row in rows:
        if row["problem"]:
            run.console.warn(f"warning: the profile '{row['name']}' cannot be used: {row['problem']}")
    if settings.broken:
        run.console.warn("warning: no profile can be used until that is put right")
    run.console.table(
        ("PROFILE", "PROVIDER", "KEY", "TOKEN URL", "STATE"),
        [(*(row[name] or "-" for name in ("name", "provider", "key", "token_url")), _mark(row)) for row in rows],
    )


def _mark(row: dict[str, Any]) -> str:
    words = ["default"] if row["default"] else []
    return ", ".join(words + ["broken"] * bool(row["problem"])) or "-"


def _row(settings: Settings, name: str, default: str | None) -> dict[str, Any]:
    """Describe a profile, as far as it can be used here and now."""
    table = settings.profiles[name]
    key = None if table.key is None else f"keys.{table.key}"
    row = {"name": name, "provider": table.provider or "generic", "key": key, "token_url": table.token_url}
    problem = None
    try:
        profile = resolve(settings, SigningFlags(), name, os.environ, exchanging=None)
    except HsmjwtError as error:
        problem = error.message
    else:
        row |= {"key": key or profile.origins["uri"].by, "token_url": profile.token_url}
    return {**row, "default": name == default, "problem": problem}


@command(_SHOW, "profile", claims=Claims, exchange=Exchange, device=Device, shared=Shared)
def show(
    run: Run,
    *,
    profile: Annotated[str | None, Word("PROFILE", "A profile of the config.", "profiles")] = None,
    claims: Claims,
    exchange: Exchange,
    device: Device,
    shared: Shared,
) -> None:
    """Show settings."""
    run.limit(shared.timeout)
    settings = config.load(shared.config, os.environ)
    _, wanted = signing.profile_of(
        run, profile, claims, device=device, shared=shared, exchange=exchange, settings=settings, exchanging=None
    )
    rows = settings_of(wanted, os.environ)
    if shared.json:
        run.console.result_json([row._asdict() for row in rows])
        return
    run.console.table(("SETTING", "VALUE", "FROM"), [(row.name, _written(row.value), row.by) for row in rows])


def _written(value: object) -> str:
    """Return a setting's value for a person."""
    if value is None:
        return "-"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


@command(_CHECK, shared=Shared)
def check(
    run: Run,
    *,
    profiles: Annotated[list[str] | None, Word("PROFILE...", "Profiles of the config (all).", "profiles")] = None,
    shared: Shared,
) -> int:
    """Check profiles."""
    run.limit(shared.timeout)
    now = time.time()
    check_clock(now)
    settings = config.load(shared.config, os.environ, lenient=True)
    if settings.path is None:
        raise ConfigError(
            f"there is no config file: looked for {' and '.join(map(repr, settings.searched))}",
            hint="--config FILE or HSMJWT_CONFIG names one; hsmjwt profile init PROVIDER makes one",
        )
    run.deadline.enter("the files that the profiles name")
    found = deadlines.run(lambda: list(checked(settings, profiles or (), os.environ, now)), run.deadline)
    if shared.json:
        names = ("profile", "verdict", "finding", "hint")
        run.console.result_json([dict(zip(names, each, strict=True)) for each in found])
    else:
        run.console.table(
            ("PROFILE", "VERDICT", "FINDING", "HINT"),
            [(each.profile or "-", each.verdict, each.text or "-", each.hint or "-") for each in found],
        )
    return PolicyError.exit_code if any(each.verdict == "no" for each in found) else 0


@command(_INIT, "provider", values=Values, key=KeyValues, shared=Shared)
def init(
    run: Run,
    *,
    provider: Annotated[str, Word("PROVIDER", "A built-in provider, such as generic.", "providers")],
    name: Annotated[str | None, Flag("--name", metavar="NAME", help="The profile's name (the provider's).")] = None,
    values: Values,
    key: KeyValues,
    shared: Shared,
) -> None:
    """Add a profile."""
    run.limit(shared.timeout)
    of_profile = {field: value for field, value in msgspec.structs.asdict(values).items() if value is not None}
    if len(of_profile.get("audience", ())) == 1:
        of_profile["audience"] = of_profile["audience"][0]
    if values.ca_file is not None:
        of_profile["ca_file"] = folders.whole(values.ca_file, "the CA file", "--ca-file")
    added = add_profile(
        place(shared.config, os.environ),
        providers.load(provider),
        provider if name is None else name,
        of_profile,
        {field: value for field, value in msgspec.structs.asdict(key).items() if value is not None},
        deadline=run.deadline,
        clock=time.time(),
    )
    for warning in added.warnings:
        run.console.warn(f"warning: {warning}")
    if added.missing:
        run.console.warn(f"still to be filled in: {', '.join(added.missing)}")
    words = ["hsmjwt", "profile", "check", added.profile, *(() if shared.config is None else ("--config", added.path))]
    run.console.warn(f"next: {shlex.join(words)}")
    if shared.json:
        run.console.result_json({"config": added.path, "profile": added.profile, "key": added.key})
    else:
        run.console.result(added.path)


VERBS = {
    "profile": Group("The profiles of the config.", {"list": list_profiles, "show": show, "check": check, "init": init})
}
