"""From flags to a Profile: what `sign`, `token` and `header` share."""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec
from typer import Option

from hsmjwt import compose
from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Claims, Device, Exchange, Shared
from hsmjwt.cli.run import Run
from hsmjwt.config import Settings
from hsmjwt.errors import UsageError
from hsmjwt.oauth.profile import Profile, SigningFlags, resolve

TokenUrl = Option("--token-url", metavar="URL", help="The token endpoint.")

_LONGEST_CLAIMS = 8 * 1024 * 1024  # bytes; far above the 1 MiB that is still signed whole


def profile_of(
    run: Run, name: str | None, claims: Claims, *, device: Device, shared: Shared, exchange: Exchange | None
) -> tuple[Settings, Profile]:
    """Merge flags, config and environment, and set the time limit; `exchange` None is for `sign`."""
    run.limit(shared.timeout)
    settings = devices.load_settings(shared)
    given = msgspec.structs.asdict(claims)
    path = given.pop("claims_file")
    for field in ("aud", "claim", "claim_json", "header"):
        given[field] = tuple(given[field] or ())
    if path is not None:
        given["claims_file"] = _claims_file(path)
        given["claims_file_name"] = "stdin" if path == "-" else path
    if exchange is not None:
        given.update(
            {field: getattr(exchange, field) for field in ("grant", "token_url", "client_id", "min_ttl", "ca_file")}
        )
    flags = SigningFlags(
        key=device.key, module=device.module, pin_source=device.pin_source, timeout=shared.timeout, **given
    )
    profile = resolve(settings, flags, name, os.environ, exchanging=exchange is not None)
    run.deadline.extend_to(profile.timeout)
    for warning in profile.warnings:
        run.console.warn(f"warning: {warning}")
    return settings, profile


def dry_run(run: Run, profile: Profile, *, exchanging: bool) -> None:
    """Print what would be signed and sent; the module is not loaded."""
    value: dict[str, Any] = compose.dry_run(profile, exchanging=exchanging)
    run.console.result_json(value)


def _claims_file(path: str) -> bytes:
    try:
        if path == "-":
            if sys.stdin is None or sys.stdin.isatty():
                raise UsageError("--claims-file -: there is nothing on stdin", hint="pipe a JSON object into hsmjwt")
            data = sys.stdin.buffer.read(_LONGEST_CLAIMS + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(_LONGEST_CLAIMS + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its name holds a NUL"
        raise UsageError(f"claims file '{path}' cannot be read: {reason}") from None
    if len(data) > _LONGEST_CLAIMS:
        raise UsageError(f"claims file '{path}' is larger than {_LONGEST_CLAIMS} bytes")
    return data
