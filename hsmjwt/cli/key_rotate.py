"""`hsmjwt key rotate`: the next key of a profile, published, tried and put into use."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import msgspec

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Access, Flag, Patient, Word, command
from hsmjwt.cli.output import one_line
from hsmjwt.cli.prompt import confirm
from hsmjwt.cli.run import Run, duration
from hsmjwt.errors import UsageError

if TYPE_CHECKING:
    from hsmjwt.custody.rotation_state import State

_TIMEOUT = 300.0  # seconds: a card takes minutes for RSA-4096

_ROTATE = """Give a profile a new key: made, published, tried, put into use.

Makes a key like the present one, publishes both (JWK set, public key, certificate), and tries the new one at the
provider. Once that takes it, the config names the new key, and after the grace the old one is published no more. Run it
again to go on from where it ended: after an upload, an interruption, or the grace.

\b
Examples:
  hsmjwt key rotate adobe --out /srv/www/adobe --grace 2d
  hsmjwt key rotate adobe --delete-old
"""


@command(_ROTATE, "profile", access=Access, shared=Patient)
def rotate(
    run: Run,
    *,
    profile: Annotated[str | None, Word("PROFILE", "A profile of the config.", "profiles")] = None,
    grace: Annotated[
        str | None,
        Flag("--grace", metavar="DURATION", help="How long the old key stays published after the switch (1d)."),
    ] = None,
    to: Annotated[
        str | None,
        Flag("--to", metavar="KEY", help="Take this key, a pkcs11: URI or keys.NAME, and make none.", completes="keys"),
    ] = None,
    out: Annotated[
        str | None, Flag("--out", metavar="DIR", help="Publish in this folder (one beside the rotation's state).")
    ] = None,
    kid: Annotated[str | None, Flag("--kid", metavar="TEXT", help="What the provider calls the new key.")] = None,
    delete_old: Annotated[bool, Flag("--delete-old", help="Delete the old key once the grace is over.")] = False,
    yes: Annotated[bool, Flag("--yes", help="Do not ask before the old key is deleted.")] = False,
    anew: Annotated[
        bool, Flag("--next", help="Begin the next rotation though the last one's old key is there.")
    ] = False,
    abandon: Annotated[bool, Flag("--abandon", help="Give up a rotation that has not switched yet.")] = False,
    access: Access,
    shared: Patient,
) -> None:
    """Rotate a profile's key."""
    from hsmjwt.custody.rotation import Rotation, Wish
    from hsmjwt.oauth.profile import SigningFlags

    run.limit(shared.timeout, _TIMEOUT)
    if profile is None:
        raise UsageError("no profile is named", hint="hsmjwt key rotate PROFILE")
    others = anew or any(each is not None for each in (to, kid, grace, out))
    _refuse_contradictions(abandon=abandon, delete_old=delete_old, yes=yes, anew=anew, others=others)
    if out == "":
        raise UsageError("--out is empty", hint="--out DIR names a folder")
    seconds = None if grace is None else duration("--grace", grace)
    settings = devices.load_settings(shared)
    opened = devices.open_with(run, settings, access.device())
    target = None if to is None else devices.choose(run, settings, access.device(), named=to)
    flags = SigningFlags(module=access.module, pin_source=access.pin_source)
    wish = Wish(grace=seconds, to=target, out=out, kid=kid, finish=delete_old, anew=anew)
    rotation = Rotation(opened, flags, profile, wish)
    for warning in rotation.profile.warnings:
        run.console.warn(f"warning: {warning}")
    if abandon:
        last = run.wait(rotation.abandon)
        _tell(run, last, _given_up(last), as_json=shared.json)
        return
    state = run.wait(rotation.run)
    if delete_old and state.step == "retired":
        doomed = run.wait(lambda: rotation.doomed(state))
        if doomed is not None:
            run.console.warn(f"this deletes the old key: {doomed.uri}")
            question = f"Delete the key '{doomed.label}' for good?"
            if not yes and not confirm(run.deadline, question):
                raise UsageError("nobody said yes, and nothing was deleted", hint="--yes is for scripts")
        state = run.wait(lambda: rotation.delete(state, doomed))
    _tell(run, state, _next(state, profile, delete_old=delete_old), as_json=shared.json)


def _refuse_contradictions(*, abandon: bool, delete_old: bool, yes: bool, anew: bool, others: bool) -> None:
    """Raise UsageError for flags that do not go together."""
    if abandon and (delete_old or others):
        raise UsageError("--abandon goes with none of the other flags of a rotation", hint="leave them away")
    if yes and not delete_old:
        raise UsageError("--yes is for --delete-old", hint="leave it away: nothing else asks")
    if anew and delete_old:
        raise UsageError("--next keeps the old key, and --delete-old deletes it", hint="leave one of them away")


def _next(state: State, profile: str, *, delete_old: bool) -> str:
    """Say what comes next."""
    if state.step == "switched":
        kept = ", and is not deleted before" if delete_old else ""
        return f"the old key stays published until {state.grace_ends}{kept}: run it again after that"
    if state.old_deleted:
        return "nothing: the old key is deleted, and the next run begins the next rotation"
    return (
        f"hsmjwt key rotate {shlex.quote(profile)} --delete-old deletes the old key, for good; the next rotation "
        "begins after that, or with --next"
    )


def _given_up(state: State) -> str:
    told = "given up; nothing was switched"
    if state.label is None:  # the user's own key
        return told
    if state.new is None:
        return f"{told}; the key '{state.label}' may be there already: hsmjwt key list shows it"
    return f"{told}; hsmjwt key delete '{state.new.uri}' removes the new key"


def _tell(run: Run, state: State, comes_next: str, *, as_json: bool) -> None:
    """Print how far the rotation has come."""
    from hsmjwt.custody.rotation_files import paths

    files = paths(state.out, None if state.new is None else state.new.thumbprint)
    if as_json:
        run.console.result_json({**msgspec.to_builtins(state), "files": files, "next": comes_next})
        return
    rows = [
        ("step", state.step),
        ("old key", state.old.uri),
        ("new key", state.label if state.new is None else state.new.uri),
        ("thumbprint", None if state.new is None else state.new.thumbprint),
        *(("published", path) for path in files),
        ("next", comes_next),
    ]
    run.console.result("\n".join(one_line(f"{name:10}  {value}") for name, value in rows if value is not None))
