"""`hsmjwt doctor`: one line for each step from the module to the server, a hint for each that fails."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

import msgspec

from hsmjwt.cli import device as devices
from hsmjwt.cli import signing
from hsmjwt.cli.flags import Claims, Device, Endpoint, Shared, Word, command
from hsmjwt.cli.output import one_line
from hsmjwt.cli.run import Run
from hsmjwt.compose import access
from hsmjwt.compose.devices import DeviceChoice, Devices, check_usable, choice_of, find_signer
from hsmjwt.config import Settings
from hsmjwt.errors import ConfigError, HsmjwtError, NetworkError, ServerError, UsageError
from hsmjwt.guard.policy import check_alg, check_clock
from hsmjwt.jose.algorithms import by_default, preferred
from hsmjwt.oauth.endpoint import check_endpoint
from hsmjwt.oauth.exchange import Answer, clock_difference
from hsmjwt.oauth.failure import RETRIED
from hsmjwt.oauth.named import flag
from hsmjwt.oauth.profile import Profile

_CLOCKS_AGREE = 5.0  # seconds
_HINTS = {  # where the error has none
    "module": "--module names a PKCS#11 library",
    "token": "hsmjwt slot list shows what is there",
    "flags": "hsmjwt slot list shows what the token says of itself",
    "login": "--pin-source names where the PIN is",
    "key": "hsmjwt key list shows what is there",
    "mechanism": "hsmjwt slot list --json names the token's mechanisms",
    "certificate": "hsmjwt cert show tells more of it",
    "endpoint": "look at the token URL, the network and the proxy",
    "clock": "timedatectl set-ntp true",
}
_NOTHING = {  # what is said where a check has nothing to look at
    "certificate": "the key has none",
    "clock": "nothing to compare with",
}


class Finding(msgspec.Struct, frozen=True):
    """One check: `ok` is None where it was not tried; `exit` is what a failure would end a command with."""

    check: str
    ok: bool | None
    detail: str
    hint: str | None = None
    exit: int = 0


_DOCTOR = """Look at each step from the module to the server.

Says what to do about each that fails. Logs in once, signs nothing, and sends no assertion.

\b
Examples:
  hsmjwt doctor adobe
  hsmjwt doctor --key 'pkcs11:token=prod;object=jwt' --token-url https://as.example.com/token
"""


@command(_DOCTOR, "profile", endpoint=Endpoint, device=Device, shared=Shared)
def doctor(
    run: Run,
    *,
    profile: Annotated[str | None, Word("PROFILE", "A profile of the config.", "profiles")] = None,
    endpoint: Endpoint,
    device: Device,
    shared: Shared,
) -> int:
    """Look at everything."""
    run.limit(shared.timeout)
    settings = devices.load_settings(shared)
    wanted = None
    default = os.environ.get("HSMJWT_PROFILE") or settings.default_profile
    if profile is not None or (endpoint.token_url is None and default):
        settings, wanted = signing.profile_of(run, profile, Claims(), device=device, shared=shared, exchange=None)
        choice = choice_of(wanted)
    else:
        choice = _choice(run, settings, device)
    if endpoint.token_url is not None:
        try:
            check_endpoint(endpoint.token_url)
        except UsageError as error:
            raise flag("--token-url").fault(error.message, hint=error.hint) from None
    opened = devices.open_with(run, settings, device)
    findings = _on_the_token(run, opened, choice, wanted)
    findings += _at_the_server(run, opened, wanted, endpoint)
    if shared.json:
        rows: list[dict[str, Any]] = [
            {"check": each.check, "ok": each.ok, "detail": each.detail, "hint": each.hint} for each in findings
        ]
        run.console.result_json(rows)
    else:
        run.console.result("\n".join(line for each in findings for line in _lines(each)))
    return next((each.exit for each in findings if each.ok is False), 0)


def _choice(run: Run, settings: Settings, device: Device) -> DeviceChoice:
    """Choose by flags and environment alone; where they name no key, every token and key is meant."""
    named = device.key is not None or bool(os.environ.get("HSMJWT_KEY"))
    return devices.choose(run, settings, device, needed=named)


class _Steps:
    """Runs checks that build on each other: after a failure, the end of the time included, the rest is not tried."""

    def __init__(self, run: Run) -> None:
        self.findings: list[Finding] = []
        self._run = run
        self._failed = False

    def do(self, check: str, step: Callable[[], str | None]) -> None:
        """Run a check; it returns what was seen, None where nothing can be said."""
        if self._failed or self._run.deadline.over():
            self.findings.append(Finding(check, None, "not tried" if self._failed else "not tried: no time was left"))
            return
        try:
            detail = self._run.wait(step)
            ok = None if detail is None else True
            self.findings.append(Finding(check, ok, detail or _NOTHING[check]))
        except HsmjwtError as error:
            self._failed = True
            hint = error.hint or _HINTS[check]
            self.findings.append(Finding(check, ok=False, detail=error.message, hint=hint, exit=error.exit_code))


def _on_the_token(run: Run, opened: Devices, choice: DeviceChoice, profile: Profile | None) -> list[Finding]:
    from hsmjwt.custody.certified import certificate_state
    from hsmjwt.custody.keys import FoundKey
    from hsmjwt.hsm.login import decide_flags

    found: dict[str, Any] = {}
    credentials = opened.login(choice)  # one for both uses: its PIN is read once

    def module() -> str:
        found["module"] = opened.module(choice)
        return f"{found['module'].choice.path} ({found['module'].choice.why})"

    def token() -> str:
        found["slot"] = found["module"].find_token(choice.uri)
        return str(found["module"].token_uris([found["slot"]])[0])

    def flags() -> str:
        slot = found["slot"]
        warning = decide_flags(slot.login, slot.token.label, opened.rules) if slot.login.login_required else None
        return warning or ", ".join(slot.flags)

    def login() -> str:
        found["module"].log_in(found["slot"], credentials)
        if not found["slot"].login.login_required:
            return "the token needs none"
        if choice.pin_source.kind == "none":
            return "left out, as the PIN source 'none' asks for"
        if choice.pin_source.kind == "prompt":
            return "with the PIN that was typed"
        return f"with the PIN from {choice.pin_source.noted}"

    def key() -> str:
        found["key"] = find_signer(opened, choice, found["module"], found["slot"], credentials)
        check_usable(opened, found["module"], found["slot"], found["key"])
        signer = found["key"].signer
        return f"{signer.uri}, {signer.known.bits} bits"

    def mechanism() -> str:
        signer, able = found["key"].signer, found["key"].algs
        alg = preferred(() if profile is None else profile.algs, able) or by_default(signer.known)
        check_alg(found["key"].bounds, alg.name)
        return f"{alg.name} by " + " or ".join(f"CKM_{way.mechanism}" for way in signer.ways(alg))

    def certificate() -> str | None:
        signer, slot = found["key"].signer, found["slot"]
        there = FoundKey(signer.key, found["module"].session(slot), slot)
        return certificate_state(opened, choice, there, signer.known)

    steps = _Steps(run)
    for check in (module, token, flags, login, key, mechanism, certificate):
        steps.do(check.__name__, check)
    if "module" in found:
        found["module"].settle()
    return steps.findings


def _at_the_server(run: Run, opened: Devices, profile: Profile | None, named: Endpoint) -> list[Finding]:
    url = named.token_url
    if url is None and profile is not None:
        url = profile.token_url
    seen: list[Answer] = []

    def endpoint() -> str:
        answer = access.probe(opened, profile, url or "", named.ca_file)
        said = f"{answer.status} ({_phrase(answer.status)})"
        if answer.status in RETRIED:
            raise NetworkError(f"{url} answers {said}", hint="the server, or what stands before it, asks for patience")
        if answer.status in (HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.PERMANENT_REDIRECT):
            where = one_line(answer.header("Location") or "nowhere")
            hint = "an assertion is never sent on: the token URL must be the one that answers"
            raise ServerError(f"{url} answers {said}, to '{where}'", hint=hint)
        seen.append(answer)
        return f"{url} answers a GET without an assertion: {said}"

    def clock() -> str | None:
        check_clock(time.time())
        difference = clock_difference(seen[0]) if seen else None
        if difference is None:
            return None
        if abs(difference) > _CLOCKS_AGREE:
            side = "behind" if difference > 0 else "ahead of"
            hint = "if this one is wrong: timedatectl set-ntp true"
            raise ConfigError(f"this clock is {abs(difference):.0f} s {side} the server's", hint=hint)
        return f"within {max(1, math.ceil(abs(difference)))} s of the server's"

    steps, others = _Steps(run), _Steps(run)
    if url is None:
        steps.findings.append(Finding("endpoint", None, "no token URL is known"))
    else:
        steps.do("endpoint", endpoint)
    others.do("clock", clock)  # whose year can be wrong without any server
    return steps.findings + others.findings


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower()
    except ValueError:
        return "no status that HTTP knows"


def _lines(finding: Finding) -> list[str]:
    word = {True: "ok  ", False: "FAIL", None: "-   "}[finding.ok]
    lines = [one_line(f"{word}  {finding.check:11}  {finding.detail}")]
    if finding.hint and finding.ok is False:
        lines += [f"                   {one_line(line)}" for line in finding.hint.split("\n")]
    return lines


VERBS = {"doctor": doctor}
