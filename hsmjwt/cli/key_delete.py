"""`hsmjwt key delete`: a key or a certificate off its token, for good."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Device, Flag, KeyArgument, Shared, command
from hsmjwt.cli.output import one_line
from hsmjwt.cli.prompt import confirm
from hsmjwt.cli.run import Run
from hsmjwt.errors import UsageError
from hsmjwt.jose.claims import rfc3339

if TYPE_CHECKING:
    from hsmjwt.compose.devices import DeviceChoice, Devices
    from hsmjwt.custody.deleting import Doomed, DoomedCertificate
    from hsmjwt.custody.dependents import Dependents

_DELETE = """Delete both halves of a key, and print the URIs of what is gone.

Names who needs the key, and asks on the terminal; --yes is for scripts. Nothing brings a key back that has no backup. A
key whose table in the config says protected = true is never deleted. A URI with type=cert deletes a certificate alone.

\b
Examples:
  hsmjwt key delete 'pkcs11:token=prod;object=adobe-jwt'
  hsmjwt key delete keys.old --with-certificate --yes
"""
_CACHED = (
    "access tokens that were fetched with it stay good until they expire; hsmjwt cache clear removes those kept here"
)


@command(_DELETE, "named", device=Device, shared=Shared)
def delete(
    run: Run,
    *,
    named: KeyArgument = None,
    yes: Annotated[bool, Flag("--yes", help="Do not ask.")] = False,
    with_certificate: Annotated[
        bool, Flag("--with-certificate", help="Delete the certificates beside the key, too.")
    ] = False,
    device: Device,
    shared: Shared,
) -> None:
    """Delete a key."""
    run.limit(shared.timeout)
    if named is None and device.key is None:
        raise UsageError("no key is named", hint="name it, as an argument or with --key: HSMJWT_KEY deletes nothing")
    settings = devices.load_settings(shared)
    choice = devices.choose(run, settings, device, named=named, needed=False)
    opened = devices.open_with(run, settings, device)
    if choice.uri.type == "cert":
        if with_certificate:
            raise UsageError("--with-certificate goes with a key, and the URI names a certificate", hint="leave it out")
        _delete_certificate(run, opened, choice, yes=yes, json=shared.json)
    else:
        _delete_key(run, opened, choice, yes=yes, json=shared.json, with_certificate=with_certificate)


def _delete_key(
    run: Run, opened: Devices, choice: DeviceChoice, *, yes: bool, json: bool, with_certificate: bool
) -> None:
    from hsmjwt.custody.deleting import delete_key, doomed_key

    doomed = run.wait(lambda: doomed_key(opened, choice))
    _tell(run, doomed, with_certificate=with_certificate)
    _ask(run, f"Delete the key '{doomed.label}' for good?", yes=yes)
    gone = run.wait(lambda: delete_key(doomed, certificates=with_certificate))
    run.console.warn(_CACHED)
    _print(run, gone, doomed.needed_by, () if with_certificate else doomed.certificates, json=json)


def _delete_certificate(run: Run, opened: Devices, choice: DeviceChoice, *, yes: bool, json: bool) -> None:
    from hsmjwt.custody.deleting import delete_certificate, doomed_certificate

    doomed = run.wait(lambda: doomed_certificate(opened, choice))
    _tell_certificate(run, doomed)
    _ask(run, f"Delete the certificate '{doomed.name}' for good?", yes=yes)
    gone = run.wait(lambda: delete_certificate(doomed))
    _print(run, gone, doomed.needed_by, (), json=json)


def _ask(run: Run, question: str, *, yes: bool) -> None:
    if not yes and not confirm(run.deadline, question):
        raise UsageError("nobody said yes, and nothing was deleted", hint="y deletes it; --yes is for scripts")


def _print(run: Run, gone: Sequence[str], needed_by: Dependents, left: Sequence[str], *, json: bool) -> None:
    """Print what is gone; `left` are the certificates that stayed."""
    if json:
        run.console.result_json(
            {
                "deleted": gone,
                "profiles": list(needed_by.profiles),
                "keys": list(needed_by.tables),
                "certificates": list(left),
            }
        )
    else:
        run.console.result("\n".join(gone))


def _tell(run: Run, doomed: Doomed, *, with_certificate: bool) -> None:
    """Say which key is meant, what belongs to it and who needs it."""
    what = "only the public half of the key is there" if doomed.half else "this deletes the key"
    run.console.warn(f"{what}: {doomed.uri}")
    tables, profiles = doomed.needed_by
    if tables:
        run.console.warn(f"named by {_listed(tables)} of the config")
    if profiles:
        run.console.warn(f"needed by the profiles {', '.join(map(one_line, profiles))}: they will sign no more")
    for uri in doomed.certificates:
        fate = "goes with it" if with_certificate else "stays (--with-certificate deletes it, too)"
        run.console.warn(f"its certificate {fate}: {uri}")


def _tell_certificate(run: Run, doomed: DoomedCertificate) -> None:
    """Say which certificate is meant, what it says, and who goes by it."""
    run.console.warn(f"this deletes the certificate: {doomed.uri}")
    said = doomed.said
    if said is None:
        run.console.warn("what it says cannot be read")
    else:
        ends = "expired on" if time.time() > said.not_after else "expires on"
        run.console.warn(f"it is of '{one_line(said.subject)}', and {ends} {rfc3339(said.not_after)}")
    for uri in doomed.keys:
        run.console.warn(f"the key of its id stays: {uri}")
    tables, profiles = doomed.needed_by
    if tables:
        run.console.warn(f"it, or a key of its label or id, is named by {_listed(tables)} of the config")
    if profiles:
        run.console.warn(f"used by the profiles {', '.join(map(one_line, profiles))}")


def _listed(tables: Sequence[str]) -> str:
    return ", ".join(f"[keys.{one_line(name)}]" for name in tables)
