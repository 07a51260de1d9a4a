"""`hsmjwt key delete`: a key off its token, for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Device, Flag, Shared, Word, command
from hsmjwt.cli.output import one_line
from hsmjwt.cli.prompt import confirm
from hsmjwt.cli.run import Run
from hsmjwt.errors import UsageError

if TYPE_CHECKING:
    from hsmjwt.custody.deleting import Doomed

_DELETE = """Delete both halves of a key, and print the URIs of what is gone.

Names who needs the key, and asks on the terminal; --yes is for scripts. Nothing brings a key back that has no backup. A
key whose table in the config says protected = true is never deleted.

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
    named: Annotated[str | None, Word("KEY", "A pkcs11: URI or keys.NAME of the config.", "keys")] = None,
    yes: Annotated[bool, Flag("--yes", help="Do not ask.")] = False,
    with_certificate: Annotated[
        bool, Flag("--with-certificate", help="Delete the certificates beside the key, too.")
    ] = False,
    device: Device,
    shared: Shared,
) -> None:
    """Delete a key."""
    from hsmjwt.custody.deleting import delete_key, doomed_key

    run.limit(shared.timeout)
    if named is None and device.key is None:
        raise UsageError("no key is named", hint="name it, as an argument or with --key: HSMJWT_KEY deletes nothing")
    settings = devices.load_settings(shared)
    choice = devices.choose(run, settings, device, named=named, needed=False)
    opened = devices.open_with(run, settings, device)
    doomed = run.wait(lambda: doomed_key(opened, choice))
    _tell(run, doomed, with_certificate=with_certificate)
    question = f"Delete the key '{doomed.label}' for good?"
    if not yes and not confirm(run.deadline, question):
        raise UsageError("nobody said yes, and nothing was deleted", hint="y deletes the key; --yes is for scripts")
    gone = run.wait(lambda: delete_key(doomed, certificates=with_certificate))
    run.console.warn(_CACHED)
    if shared.json:
        run.console.result_json(
            {
                "deleted": gone,
                "profiles": list(doomed.needed_by.profiles),
                "keys": list(doomed.needed_by.tables),
                "certificates": [] if with_certificate else list(doomed.certificates),
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
        run.console.warn(f"named by {', '.join(f'[keys.{one_line(name)}]' for name in tables)} of the config")
    if profiles:
        run.console.warn(f"needed by the profiles {', '.join(map(one_line, profiles))}: they will sign no more")
    for uri in doomed.certificates:
        fate = "goes with it" if with_certificate else "stays (--with-certificate deletes it, too)"
        run.console.warn(f"its certificate {fate}: {uri}")
