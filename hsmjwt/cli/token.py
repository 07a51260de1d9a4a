"""`hsmjwt token` and `hsmjwt header`: an access token on stdout, from the cache or the server."""

from __future__ import annotations

import math
import re
import time
from typing import Annotated, Any

from hsmjwt.bearer import AccessToken
from hsmjwt.cli import device as devices
from hsmjwt.cli import serving, signing
from hsmjwt.cli.flags import Claims, Device, Exchange, Flag, Shared, Word, command
from hsmjwt.cli.run import Run
from hsmjwt.cli.serving import Flags
from hsmjwt.errors import UsageError
from hsmjwt.jose.claims import rfc3339
from hsmjwt.oauth.broker import Served

ProfileArgument = Annotated[str | None, Word("PROFILE", "A profile of the config.", "profiles")]

OUTPUTS = ("raw", "json", "header", "env", "dotenv")

_BARE = re.compile(r"[A-Za-z0-9._+/-][A-Za-z0-9._~+/-]*=*")  # RFC 6750, section 2.1; a tilde at the start is a folder

_TOKEN = """Print an access token, from the cache or from the server.

The server gets an assertion that the key on the token has signed (RFC 7523).

\b
Examples:
  hsmjwt token adobe
  hsmjwt token --key 'pkcs11:token=prod;object=jwt' --iss client-1 --token-url https://as.example.com/token --json
"""
_HEADER = """Print the header field of an access token, for curl -H @-.

\b
Examples:
  hsmjwt header adobe | curl -H @- https://api.example.com/reports
  hsmjwt header --fresh adobe | curl -H @- https://api.example.com/reports
"""


@command(_TOKEN, "profile", claims=Claims, exchange=Exchange, device=Device, shared=Shared)
def token(
    run: Run,
    *,
    profile: ProfileArgument = None,
    output: Annotated[
        str | None, Flag("--output", metavar="|".join(OUTPUTS), help="The form of the result (raw).", completes=OUTPUTS)
    ] = None,
    dry_run: Annotated[bool, Flag("--dry-run", help="Print what would be signed and sent; load no module.")] = False,
    claims: Claims,
    exchange: Exchange,
    device: Device,
    shared: Shared,
) -> None:
    """Print an access token."""
    form = _form(output, as_json=shared.json)
    if dry_run and output not in (None, "json"):
        raise UsageError(f"--dry-run prints JSON, and --output asks for {output}", hint="leave one of them out")
    settings, wanted = signing.profile_of(run, profile, claims, device=device, shared=shared, exchange=exchange)
    if dry_run:
        signing.dry_run(run, wanted, exchanging=True)
        return
    opened = devices.open_with(run, settings, device)
    words = None if output is not None else [] if profile is None else [profile]
    served = serving.served(run, opened, wanted, flags=Flags(claims, exchange, device, shared), words=words)
    if form == "json":
        run.console.result_json(described(served, time.time()))
    else:
        run.console.result(written(served.token, form))


@command(_HEADER, "profile", claims=Claims, exchange=Exchange, device=Device, shared=Shared)
def header(
    run: Run, *, profile: ProfileArgument = None, claims: Claims, exchange: Exchange, device: Device, shared: Shared
) -> None:
    """Print a header field."""
    settings, wanted = signing.profile_of(run, profile, claims, device=device, shared=shared, exchange=exchange)
    opened = devices.open_with(run, settings, device)
    words = [] if profile is None else [profile]
    served = serving.served(run, opened, wanted, flags=Flags(claims, exchange, device, shared), words=words)
    if shared.json:
        run.console.result_json({"Authorization": f"Bearer {served.token.value}"})
    else:
        run.console.result(written(served.token, "header"))


def described(served: Served, now: float) -> dict[str, Any]:
    """Return the access token as JSON members: what the server sent, with its life in absolute and relative terms."""
    token = served.token
    about: dict[str, Any] = {"access_token": token.value, "token_type": token.token_type}
    if token.expires_at is not None:
        end = math.floor(token.expires_at)
        about["expires_in"] = max(0, math.floor(token.expires_at - now))
        about["expires_at"] = rfc3339(end)
    ours = {*about, "expires_in", "expires_at"}  # a server's own expires_at may be anything, and ours has one form
    others = {name: value for name, value in token.members.items() if name not in ours}
    return {**about, **others, "cached": served.cached}


def _form(output: str | None, *, as_json: bool) -> str:
    if output is not None and output not in OUTPUTS:
        raise UsageError(f"'{output}' is no form of output", hint=f"one of {', '.join(OUTPUTS)}")
    if as_json and output not in (None, "json"):
        raise UsageError(f"--json and --output {output} contradict each other", hint="leave one of them out")
    return "json" if as_json else output or "raw"


def written(token: AccessToken, form: str) -> str:
    """Return an access token in one of OUTPUTS but json; env and dotenv mean the same to a shell, whatever it holds."""
    value = token.value
    if form == "header":
        return f"Authorization: Bearer {value}"
    if form == "env":
        return f"export ACCESS_TOKEN={_quoted(value)}"
    if form == "dotenv":
        return f"ACCESS_TOKEN={_dotenv(value)}"
    return value


def _quoted(value: str) -> str:
    """Quote a value for shells, zsh included, which takes `=ls` for the path of ls."""
    return value if _BARE.fullmatch(value) else "'" + value.replace("'", "'\"'\"'") + "'"


def _dotenv(value: str) -> str:
    """Quote a value so that a shell and dotenv readers take it literally: bare, in single quotes, or with escapes.

    In single quotes a shell takes a backslash as it is, and some readers take two for one and the last for an escape.
    """
    if _BARE.fullmatch(value):
        return value
    if not re.search(r"'|\\(?:\\|$)", value):
        return f"'{value}'"
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'


VERBS = {"token": token, "header": header}
