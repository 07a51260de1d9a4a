"""From flags to a Profile: what `sign`, `token` and `header` share."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Claims, Device, Exchange, Shared
from hsmjwt.cli.run import Run
from hsmjwt.compose import access
from hsmjwt.config import Settings
from hsmjwt.errors import UsageError
from hsmjwt.oauth.profile import Profile, SigningFlags, resolve

_CLAIMS = {"--claim": "claim", "--claim-json": "claim_json", "--claims-file": "claims_file"}
_LONGEST_CLAIMS = 8 * 1024 * 1024  # bytes; far above the 1 MiB that is still signed whole


def profile_of(
    run: Run,
    name: str | None,
    claims: Claims,
    *,
    device: Device,
    shared: Shared,
    exchange: Exchange | None,
    settings: Settings | None = None,
    exchanging: bool | None = True,
) -> tuple[Settings, Profile]:
    """Merge flags, config and environment; `exchange` None is for `sign`.

    With `exchanging` None nothing is exchanged where no token URL is known. Sets the time limit and reads the config,
    unless `settings` says that both is done.
    """
    if settings is None:
        run.limit(shared.timeout)
    if name is not None and name.lower().startswith("pkcs11:"):  # which may hold a PIN
        raise UsageError("a URI stands where the name of a profile belongs", hint="--key URI names a key")
    if settings is None:
        settings = devices.load_settings(shared)
    given = msgspec.structs.asdict(claims)
    given["order"] = tuple(_CLAIMS[flag] for word in run.argv if (flag := word.partition("=")[0]) in _CLAIMS)
    path = given.pop("claims_file")
    for field in ("aud", "claim", "claim_json", "header"):
        given[field] = tuple(given[field] or ())
    if path is not None:
        name_of_file = "stdin" if path == "-" else path
        given["claims_file_name"] = name_of_file
        given["claims_file"] = run.read(
            path, _LONGEST_CLAIMS, what=f"claims file '{name_of_file}'", hint="it holds one JSON object in UTF-8"
        )
    if exchange is not None:
        given.update(
            {field: getattr(exchange, field) for field in ("grant", "token_url", "client_id", "min_ttl", "ca_file")}
        )
    flags = SigningFlags(
        key=device.key, module=device.module, pin_source=device.pin_source, timeout=shared.timeout, **given
    )
    profile = resolve(settings, flags, name, os.environ, exchanging=False if exchange is None else exchanging)
    run.deadline.extend_to(profile.timeout)
    for warning in profile.warnings:
        run.console.warn(f"warning: {warning}")
    return settings, profile


def dry_run(run: Run, profile: Profile, *, exchanging: bool) -> None:
    """Print what would be signed and sent; the module is not loaded."""
    value: dict[str, Any] = access.dry_run(profile, exchanging=exchanging)
    run.console.result_json(value)
