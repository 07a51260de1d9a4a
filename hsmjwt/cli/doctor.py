"""`hsmjwt doctor`: one line for each step from the module to the server, a hint for each that fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from typer import Argument, Typer

from hsmjwt import compose
from hsmjwt.cli import device as devices
from hsmjwt.cli import signing
from hsmjwt.cli.flags import Claims, Device, Exchange, Shared, takes
from hsmjwt.cli.output import one_line
from hsmjwt.cli.run import Run
from hsmjwt.compose import DeviceChoice, Devices
from hsmjwt.errors import ConfigError, HsmjwtError
from hsmjwt.jose.algorithms import ALGORITHMS, by_default
from hsmjwt.oauth.profile import Profile

_CLOCKS_AGREE = 5.0  # seconds


class Finding(msgspec.Struct, frozen=True):
    """One check: `ok` is None where it was not tried; `exit` is what a failure would end a command with."""

    check: str
    ok: bool | None
    detail: str
    hint: str | None = None
    exit: int = 0


def add(app: Typer) -> None:
    """Add the verb."""
    app.command("doctor", help=_DOCTOR)(doctor)


_DOCTOR = """Look at each step from the module to the server, and say what to do about those that fail.

Logs in once, signs nothing, and sends no assertion.

\b
Examples:
  hsmjwt doctor adobe
  hsmjwt doctor --key 'pkcs11:token=prod;object=jwt' --token-url https://as.example.com/token
"""


@takes(device=Device, shared=Shared)
def doctor(
    run: Run,
    *,
    profile: Annotated[str | None, Argument(metavar="[PROFILE]", help="A profile of the config.")] = None,
    token_url: Annotated[str | None, signing.TokenUrl] = None,
    device: Device,
    shared: Shared,
) -> int:
    """Look at everything."""
    run.limit(shared.timeout)
    settings = devices.load_settings(shared)
    wanted = _profile(run, profile, device, shared, settings)
    if wanted is not None:
        choice = compose.choice_of(wanted)
        token_url = token_url or wanted.token_url
    else:
        choice = devices.choose(run, settings, device, needed=False)
    opened = devices.open_with(run, settings, device)
    findings = run.wait(lambda: _on_the_token(opened, choice, wanted))
    findings += run.wait(lambda: _at_the_server(opened, wanted, token_url))
    if shared.json:
        rows: list[dict[str, Any]] = [
            {"check": each.check, "ok": each.ok, "detail": each.detail, "hint": each.hint} for each in findings
        ]
        run.console.result_json(rows)
    else:
        run.console.result("\n".join(line for each in findings for line in _lines(each)))
    return next((each.exit for each in findings if each.ok is False), 0)


def _profile(run: Run, name: str | None, device: Device, shared: Shared, settings: Any) -> Profile | None:
    """Return the profile that is asked for, None where there is none and flags or environment name the key."""
    if name is None and not os.environ.get("HSMJWT_PROFILE") and settings.default_profile is None:
        return None
    return signing.profile_of(run, name, Claims(), device=device, shared=shared, exchange=Exchange())[1]


class _Steps:
    """Runs checks that build on each other: after a failure the rest is not tried."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self._failed = False

    def do(self, check: str, step: Callable[[], str]) -> None:
        if self._failed:
            self.findings.append(Finding(check, None, "not tried"))
            return
        try:
            self.findings.append(Finding(check, ok=True, detail=step()))
        except HsmjwtError as error:
            self._failed = True
            self.findings.append(Finding(check, ok=False, detail=error.message, hint=error.hint, exit=error.exit_code))


def _on_the_token(opened: Devices, choice: DeviceChoice, profile: Profile | None) -> list[Finding]:
    from hsmjwt.hsm.login import decide_flags
    from hsmjwt.hsm.signer import Pkcs11Signer

    found: dict[str, Any] = {}
    credentials = opened.login(choice)  # one for both uses: its PIN is read once
    steps = _Steps()

    def module() -> str:
        found["module"] = opened.module(choice)
        about = found["module"].library.lib
        return f"{found['module'].choice.path}: {about.library_description}, {about.manufacturer_id}"

    def token() -> str:
        found["slot"] = found["module"].find_token(choice.uri)
        return str(found["module"].token_uris([found["slot"]])[0])

    def flags() -> str:
        slot = found["slot"]
        warning = decide_flags(slot.login, slot.token.label, opened.rules) if slot.login.login_required else None
        return warning or ", ".join(slot.flags)

    def login() -> str:
        found["module"].login(found["slot"], credentials)
        if not found["slot"].login.login_required:
            return "the token needs none"
        return f"with the PIN from {choice.pin_source.noted}"

    def key() -> str:
        found["signer"] = Pkcs11Signer(found["module"], found["slot"], choice.uri, credentials, opened.around.note)
        return f"{found['signer'].uri}, {found['signer'].public_key.bits} bits"

    def mechanism() -> str:
        signer = found["signer"]
        name = profile.alg if profile is not None else None
        alg = ALGORITHMS[name] if name else by_default(signer.public_key)
        return f"{alg.name} by " + " or ".join(f"CKM_{way.mechanism}" for way in signer.ways(alg))

    for check in (module, token, flags, login, key, mechanism):
        steps.do(check.__name__, check)
    if "module" in found:
        found["module"].settle()
    return steps.findings


def _at_the_server(opened: Devices, profile: Profile | None, token_url: str | None) -> list[Finding]:
    if token_url is None:
        return [Finding("endpoint", None, "no token URL is known"), Finding("clock", None, "not tried")]
    found: dict[str, Any] = {}
    steps = _Steps()

    def endpoint() -> str:
        status, found["difference"] = compose.probe(opened, profile, token_url)
        return f"{token_url} answers ({status} to a GET without an assertion)"

    def clock() -> str:
        difference = found["difference"]
        if difference is None:
            return "the server tells no time"
        if abs(difference) > _CLOCKS_AGREE:
            side = "behind" if difference > 0 else "ahead of"
            raise ConfigError(
                f"this clock is {abs(difference):.0f} s {side} the server's", hint="timedatectl set-ntp true"
            )
        return f"within {abs(difference):.0f} s of the server's"

    steps.do("endpoint", endpoint)
    steps.do("clock", clock)
    return steps.findings


def _lines(finding: Finding) -> list[str]:
    word = {True: "ok  ", False: "FAIL", None: "-   "}[finding.ok]
    lines = [one_line(f"{word}  {finding.check:9}  {finding.detail}")]
    if finding.hint and finding.ok is False:
        lines += [f"                 {one_line(line)}" for line in finding.hint.split("\n")]
    return lines
