"""`hsmjwt cache`: what is kept of access tokens, and an end to it."""

from __future__ import annotations

import time
from typing import Annotated, Any

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Group, Plain, Word, command
from hsmjwt.cli.run import Run
from hsmjwt.compose import access
from hsmjwt.errors import ConfigError
from hsmjwt.jose.claims import rfc3339
from hsmjwt.oauth.profile import DEFAULT_MIN_TTL

_LIST = """List cached access tokens, all or those of a profile.

No part of one is shown.

\b
Examples:
  hsmjwt cache list
  hsmjwt cache list adobe --json
"""
_CLEAR = """Remove cached access tokens, all or those of a profile.

From then on the device is needed again.

\b
Examples:
  hsmjwt cache clear
  hsmjwt cache clear adobe
"""


@command(_LIST, "profile", plain=Plain)
def list_tokens(
    run: Run,
    *,
    profile: Annotated[str | None, Word("PROFILE", "Only this profile's tokens.", "profiles")] = None,
    plain: Plain,
) -> None:
    """List tokens."""
    run.limit(plain.timeout)
    now = time.time()
    rows: list[dict[str, Any]] = [
        {
            "profile": entry.profile,
            "scope": entry.scope,
            "expires_at": rfc3339(entry.expires_at),
            "fresh": entry.fresh(now, DEFAULT_MIN_TTL),
        }
        for store in access.file_stores(devices.surroundings(run))
        for entry in store.entries()
        if profile is None or entry.profile == profile
    ]
    if plain.json:
        run.console.result_json(rows)
        return
    run.console.table(
        ("PROFILE", "SCOPE", "EXPIRES", "FRESH"),
        [
            (row["profile"] or "-", row["scope"] or "-", row["expires_at"], "yes" if row["fresh"] else "no")
            for row in rows
        ],
    )


@command(_CLEAR, "profile", plain=Plain)
def clear(
    run: Run,
    *,
    profile: Annotated[str | None, Word("PROFILE", "Only this profile's tokens.", "profiles")] = None,
    plain: Plain,
) -> None:
    """Remove tokens."""
    run.limit(plain.timeout)
    count = 0
    failure = None
    for store in access.file_stores(devices.surroundings(run)):
        try:
            count += store.clear(profile)
        except ConfigError as error:  # the other folders are cleared all the same
            failure = failure or error
    if failure is not None:
        raise failure
    if plain.json:
        run.console.result_json({"removed": count})
    elif profile is not None and count == 0:
        run.console.warn(f"no token of the profile '{profile}' is cached")
    else:
        run.console.note(f"removed {count}")


VERBS = {"cache": Group("Cached access tokens.", {"list": list_tokens, "clear": clear})}
