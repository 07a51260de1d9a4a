"""`hsmjwt sign`: build an assertion and have the token sign it."""

from __future__ import annotations

from typing import Annotated

from hsmjwt.cli import device as devices
from hsmjwt.cli import signing
from hsmjwt.cli.flags import Claims, Device, Flag, Shared, Word, command
from hsmjwt.cli.run import Run
from hsmjwt.compose import access

_SIGN = """Build an assertion, sign it on the token, print the JWT.

\b
Examples:
  hsmjwt sign adobe
  hsmjwt sign --key 'pkcs11:token=prod;object=jwt' --iss client-1 --aud https://as.example.com/token
"""


@command(_SIGN, "profile", claims=Claims, device=Device, shared=Shared)
def sign(
    run: Run,
    *,
    profile: Annotated[str | None, Word("PROFILE", "A profile of the config.", "profiles")] = None,
    dry_run: Annotated[bool, Flag("--dry-run", help="Print what would be signed; load no module.")] = False,
    claims: Claims,
    device: Device,
    shared: Shared,
) -> None:
    """Sign an assertion."""
    settings, wanted = signing.profile_of(run, profile, claims, device=device, shared=shared, exchange=None)
    if claims.scope is not None:
        run.console.warn("warning: --scope goes into the token request, so it changes nothing in the assertion itself")
    if dry_run:
        signing.dry_run(run, wanted, exchanging=False)
        return
    asserter = access.asserter(devices.open_with(run, settings, device), wanted)
    made = run.wait(asserter.assertion)
    if shared.json:
        run.console.result_json({"jwt": made.jwt, "header": made.header, "claims": made.claims, "key": made.key})
    else:
        run.console.result(made.jwt)


VERBS = {"sign": sign}
