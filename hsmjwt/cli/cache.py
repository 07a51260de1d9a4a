"""`hsmjwt cache`: what is kept of access tokens, and an end to it."""

from __future__ import annotations

import datetime as dt
import time
from typing import Annotated, Any

from typer import Argument, Typer

from hsmjwt import compose
from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Shared, takes
from hsmjwt.cli.run import Run
from hsmjwt.oauth.profile import DEFAULT_MIN_TTL


def add(app: Typer) -> None:
    """Add the verb's commands."""
    group = Typer(help="Cached access tokens.")
    group.command("list", help=_LIST)(list_tokens)
    group.command("clear", help=_CLEAR)(clear)
    app.add_typer(group, name="cache")


_LIST = """List the cached access tokens; no part of one is shown.

\b
Examples:
  hsmjwt cache list
  hsmjwt cache list --json
"""
_CLEAR = """Remove cached access tokens, all or those of a profile: from then on the device is needed again.

\b
Examples:
  hsmjwt cache clear
  hsmjwt cache clear adobe
"""


@takes(shared=Shared)
def list_tokens(run: Run, *, shared: Shared) -> None:
    """List tokens."""
    run.limit(shared.timeout)
    store = compose.file_store(devices.surroundings(run))
    now = time.time()
    rows: list[dict[str, Any]] = [
        {
            "profile": entry.profile,
            "scope": entry.scope,
            "expires_at": dt.datetime.fromtimestamp(int(entry.expires_at), tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "fresh": entry.fresh(now, DEFAULT_MIN_TTL),
        }
        for entry in (store.entries() if store else [])
    ]
    if shared.json:
        run.console.result_json(rows)
        return
    run.console.table(
        ("PROFILE", "SCOPE", "EXPIRES", "FRESH"),
        [
            (row["profile"] or "-", row["scope"] or "-", row["expires_at"], "yes" if row["fresh"] else "no")
            for row in rows
        ],
    )


@takes(shared=Shared)
def clear(
    run: Run,
    *,
    profile: Annotated[str | None, Argument(metavar="[PROFILE]", help="Only this profile's tokens.")] = None,
    shared: Shared,
) -> None:
    """Remove tokens."""
    run.limit(shared.timeout)
    store = compose.file_store(devices.surroundings(run))
    count = store.clear(profile) if store else 0
    if shared.json:
        run.console.result_json({"removed": count})
    else:
        run.console.note(f"removed {count}")
