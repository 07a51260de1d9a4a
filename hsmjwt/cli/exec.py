"""`hsmjwt exec`: run a command with access tokens in its environment."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Annotated, NamedTuple, NoReturn

from hsmjwt.bearer import AccessToken
from hsmjwt.cli import device as devices
from hsmjwt.cli import quick, serving, signing
from hsmjwt.cli.ends import become
from hsmjwt.cli.flags import Claims, Device, Exchange, Flag, Shared, Word, command
from hsmjwt.cli.run import Run
from hsmjwt.cli.serving import Flags
from hsmjwt.cli.usage import shown
from hsmjwt.compose.devices import Devices
from hsmjwt.errors import HsmjwtError, UsageError
from hsmjwt.hsm.uri import display
from hsmjwt.oauth.profile import Profile

_EXEC = """Run a command with an access token in its environment.

The command takes the place of hsmjwt: signals and exit code are its own. It finds the token in ACCESS_TOKEN, or where
--env says so, and no PIN, nor a variable that a PIN or client secret comes from.

\b
Examples:
  hsmjwt exec adobe -- ./report.sh
  hsmjwt exec --env ADOBE_TOKEN=adobe --env OTHER_TOKEN=other -- ./report.sh
"""
_LISTED = "HSMJWT_EXEC"  # what the environment holds already, as PROFILE:NAME with a blank between two
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_HOW = "hsmjwt exec PROFILE -- CMD ARG …"


class NotRunError(HsmjwtError):
    """The system cannot run the command; exit codes are those of a shell (POSIX, Shell Command Language, 2.8.2)."""

    exit_code, code = 126, "exec"


class NotThereError(NotRunError):
    """There is no such command."""

    exit_code = 127


class _Wanted(NamedTuple):
    """A variable, and the profile whose access token goes into it; None for the one of the argument and the flags."""

    name: str
    profile: str | None


@command(_EXEC, "profile", claims=Claims, exchange=Exchange, device=Device, shared=Shared)
def execute(
    run: Run,
    *,
    profile: Annotated[str | None, Word("PROFILE", "A profile of the config.", "profiles")] = None,
    cmd: Annotated[list[str] | None, Word("-- CMD [ARG]...", "The command and its arguments.")] = None,
    env: Annotated[
        list[str] | None,
        Flag(
            "--env",
            metavar="NAME[=PROFILE]",
            help="The variable for the token (ACCESS_TOKEN); may be repeated.",
            completes="variables",
        ),
    ] = None,
    claims: Claims,
    exchange: Exchange,
    device: Device,
    shared: Shared,
) -> NoReturn:
    """Run a command."""
    inherited = _descriptors()
    if cmd:
        where = "too many arguments before --: " if run.command else "-- is missing before "
        raise UsageError(f"{where}{shown(cmd[0])}", hint=_HOW)
    if not run.command:
        raise UsageError("no command is given", hint=_HOW)
    flags = Flags(claims, exchange, device, shared)
    wanted = [_wanted(text) for text in env or ()] or [_Wanted(quick.VARIABLE, None)]
    _check(wanted, profile, flags)
    words = None if env else [] if profile is None else [profile]
    run.limit(shared.timeout)
    opened = devices.open_with(run, devices.load_settings(shared), device)
    tokens: dict[str | None, tuple[Profile, AccessToken]] = {}
    for named in dict.fromkeys(each.profile for each in wanted):
        name, of_this = (profile, flags) if named is None else (named, _any_profile(flags))
        tokens[named] = _token(run, opened, name, flags=of_this, words=words)
    got = [(each.name, *tokens[each.profile]) for each in wanted]
    for name, _, token in got:
        if token.expires_at is not None and sys.stderr is not None and sys.stderr.isatty():
            run.console.warn(quick.ending(name, token.expires_at, time.time()))
    run.console.restore()
    profiles = [used for _, used, _ in got]
    _keep_from_command(_descriptors() - inherited, profiles)
    environ = quick.passed_on(os.environ, [name for used in profiles for name in serving.removed(used)])
    if display(key := environ.get("HSMJWT_KEY", "")) != key:  # it holds a PIN
        del environ["HSMJWT_KEY"]
    environ.update({name: token.value for name, _, token in got})
    listed = (environ.get(_LISTED, ""), *(f"{serving.label(used)}:{name}" for name, used, _ in got))
    environ[_LISTED] = " ".join(filter(None, listed))
    _become(run.command, environ)


def _wanted(text: str) -> _Wanted:
    """Parse the value of --env; raises UsageError."""
    name, equals, profile = text.partition("=")
    if not _NAME.fullmatch(name):
        raise UsageError(f"--env: {shown(name)} is no name of a variable", hint="--env NAME, or --env NAME=PROFILE")
    if name.startswith("HSMJWT_"):
        raise UsageError(f"--env: {name} is one of hsmjwt's own variables", hint="choose another name")
    if equals and not profile:
        raise UsageError(f"--env {name}= names no profile", hint="is a shell variable unset?")
    return _Wanted(name, profile or None)


def _check(wanted: Sequence[_Wanted], profile: str | None, flags: Flags) -> None:
    """Refuse variables that are named twice or hold another token already, and a profile or flags for nothing."""
    names = [each.name for each in wanted]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--env names {name} {names.count(name)} times", hint="leave all but one out")
    held = re.findall(r":([A-Za-z_][A-Za-z0-9_]*)(?: |$)", os.environ.get(_LISTED, ""))
    for name in names:
        if name in held:
            raise UsageError(
                f"{name} holds the token of another hsmjwt exec around this one",
                hint=f"--env NAME chooses another variable; {_LISTED} lists those in use",
            )
    if not all(each.profile for each in wanted):
        return
    if profile is not None:
        raise UsageError(f"no --env takes the token of the profile {shown(profile)}", hint="--env NAME does")
    if flags != Flags(Claims(), _any_profile(flags).exchange, _any_profile(flags).device, flags.shared):
        raise UsageError("flags say what to sign, and each --env names a profile", hint="--env NAME takes their token")


def _any_profile(flags: Flags) -> Flags:
    """Return those flags that mean the same for every profile."""
    exchange, device = flags.exchange, flags.device
    return Flags(
        Claims(),
        Exchange(fresh=exchange.fresh, no_cache=exchange.no_cache, min_ttl=exchange.min_ttl, ca_file=exchange.ca_file),
        Device(
            module=device.module,
            pin_source=device.pin_source,
            allow_last_try=device.allow_last_try,
            retry_pin=device.retry_pin,
        ),
        flags.shared,
    )


def _token(
    run: Run, opened: Devices, profile: str | None, *, flags: Flags, words: list[str] | None
) -> tuple[Profile, AccessToken]:
    """Return the profile that is used, and its access token."""
    _, used = signing.profile_of(
        run,
        profile,
        flags.claims,
        device=flags.device,
        shared=flags.shared,
        exchange=flags.exchange,
        settings=opened.settings,
    )
    return used, serving.served(run, opened, used, flags=flags, words=words).token


def _descriptors() -> set[int]:
    """Return the open descriptors that a command would get."""
    try:
        return {number for number in map(int, os.listdir("/proc/self/fd")) if _is_handed_on(number)}
    except OSError:  # no /proc: Python's own descriptors are not handed on anyway
        return set()


def _is_handed_on(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:  # that of the look itself
        return False


def _keep_from_command(left_open: set[int], profiles: Sequence[Profile]) -> None:
    """Keep from a command what was opened since the start, as in a closed stdout's place, and sources of secrets."""
    sources = {number for used in profiles for number in serving.descriptors(used)}
    for number in left_open | sources - {0}:
        with contextlib.suppress(OSError):  # closed already
            os.set_inheritable(number, False)
    if 0 in sources:  # a command expects that there is one
        nowhere = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nowhere, 0)
        os.close(nowhere)


def _become(command: list[str], environ: dict[str, str]) -> NoReturn:
    """Have the command take the place of this process; raises NotRunError."""
    name = shown(command[0])
    try:
        become(command, environ)
    except (FileNotFoundError, NotADirectoryError):
        hint = "is it on the PATH? the program that the first line of a script names may be missing, too"
        raise NotThereError(f"there is no command {name}", hint=hint) from None
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        line = "a script needs a first line such as #!/bin/sh" if error.errno == errno.ENOEXEC else None
        raise NotRunError(f"the command {name} cannot be run: {reason}", hint=line) from None
    raise AssertionError("the process was replaced")


VERBS = {"exec": execute}
