"""The transcript of a ceremony: on the disk before each step, signed by the new key at the end.

Until it is finished it says that the ceremony was aborted, and where: whatever ends the process, what is left is true.
"""

from __future__ import annotations

import json
import os
import pwd
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from hsmjwt import __version__, whole_file
from hsmjwt.compose.devices import DeviceChoice, Devices, open_signer
from hsmjwt.custody.ceremony_file import Ceremony
from hsmjwt.errors import ConfigError, HsmjwtError
from hsmjwt.guard.policy import TRANSCRIPT_TYP
from hsmjwt.jose.algorithms import Algorithm
from hsmjwt.jose.claims import rfc3339
from hsmjwt.jose.jwk import thumbprint
from hsmjwt.jose.jws import sign_jwt
from hsmjwt.private import make_folder

Verdict = Literal["passed", "audit failed", "aborted"]

READABLE: Final = "transcript.json"
SIGNED: Final = "transcript.jws"
_VERSION: Final = 1
_MODE: Final = 0o644  # nothing in it is secret, and it is made to be shown


class Transcript:
    """What is written down of a ceremony while it goes on."""

    def __init__(self, ceremony: Ceremony, clock: Callable[[], float] = time.time) -> None:
        """Begin; nothing is written yet. `clock` returns Unix time."""
        self._folder, self._clock = ceremony.out, clock
        self._steps: list[dict[str, Any]] = []
        self.about: dict[str, Any] = {
            "version": _VERSION,
            "verdict": "aborted",
            "ceremony": {"file": ceremony.path, "sha256": ceremony.sha256, "text": ceremony.text},
            "operator": ceremony.operator,
            "witnesses": list(ceremony.witnesses),
            "host": os.uname().nodename,
            "user": _user(),
            "hsmjwt": __version__,
            "began": self._now(),
            "steps": self._steps,
        }

    def make_folder(self) -> None:
        """Make the folder for all that comes of it, which `refuse_folder` has let pass; raises ConfigError."""
        try:
            make_folder(self._folder)
        except OSError as error:
            raise _unwritable(self._folder, error) from None

    def begin(self, step: str) -> None:
        """Write down that a step begins."""
        self._steps.append({"step": step, "began": self._now(), "result": "not finished"})
        self.write()

    def done(self, told: Mapping[str, Any], result: str = "done") -> None:
        """Write down what came of the step."""
        self._steps[-1].update({"ended": self._now(), "result": result, **told})
        self.write()

    def failed(self, error: HsmjwtError, told: Mapping[str, Any]) -> None:
        """Write down why the step failed, and with it the ceremony."""
        fault = {"code": error.code, "message": error.message, "ckr": error.ckr}
        self.done({**told, "error": fault}, "failed")

    def keep(self, name: str, data: bytes) -> str:
        """Write a file of results beside the transcript, which names its digest; returns its path."""
        path = os.path.join(self._folder, name)
        _write(path, data)
        return path

    def write(self) -> None:
        """Write the readable file as it stands; raises ConfigError."""
        data = json.dumps(self.about, indent=2, ensure_ascii=True) + "\n"
        _write(os.path.join(self._folder, READABLE), data.encode("ascii"))

    def finish(self, devices: Devices, choice: DeviceChoice, alg: Algorithm, verdict: Verdict) -> list[str]:
        """Set the verdict, have the new key sign all of it, and write both files; returns their paths.

        The signed one is a JWS (RFC 7515) whose payload holds what the readable one shows.
        """
        try:
            opened = open_signer(devices, choice, "transcript", alg.name)
            # as JSON has it: what is signed is what the readable file shows
            final = json.loads(json.dumps({**self.about, "verdict": verdict, "ended": self._now()}))
            header = {"typ": TRANSCRIPT_TYP, "alg": alg.name, "kid": thumbprint(opened.signer.public_key)}
            jws = sign_jwt(header, final, opened.signer, alg)
        except HsmjwtError as error:
            self.begin("sign the transcript")
            self.failed(error, {})
            raise
        signed = self.keep(SIGNED, jws.encode("ascii") + b"\n")
        self.about = final
        self.write()
        return [os.path.join(self._folder, READABLE), signed]

    def _now(self) -> str:
        return rfc3339(self._clock())


def refuse_folder(folder: str) -> None:
    """Raise ConfigError unless a folder is empty or not there: a ceremony writes over nobody's evidence."""
    try:
        there = os.listdir(folder)
    except FileNotFoundError:
        _refuse_closed(folder)
        return
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise ConfigError(f"the folder {folder!r} cannot be used: {reason}", hint=_ELSEWHERE) from None
    if there:
        raise ConfigError(
            f"the folder {folder!r} is not empty, and a ceremony writes over no evidence", hint=_found_in(folder)
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(f"the folder {folder!r} cannot be written to", hint=_ELSEWHERE)


_ELSEWHERE = "out in the ceremony file names another folder"


def _refuse_closed(folder: str) -> None:
    """Raise ConfigError where no folder can be made, before anything else is done."""
    above = os.path.dirname(folder.rstrip("/"))
    while above and not os.path.lexists(above) and os.path.dirname(above) != above:
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise ConfigError(f"the folder {folder!r} cannot be made: {above!r} is no folder", hint=_ELSEWHERE)
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"the folder {folder!r} cannot be made: {above!r} cannot be written to", hint=_ELSEWHERE)


def _found_in(folder: str) -> str:
    """Say what an earlier ceremony has left, and how to begin anew."""
    try:
        with open(os.path.join(folder, READABLE), "rb") as file:
            about = json.load(file)
        verdict, steps = about["verdict"], about["steps"]
        keys = [step["uri"] for step in steps if step["step"] == "generate" and "uri" in step]
        reached = steps[-1]["step"] if steps else "its beginning"
    except (OSError, ValueError, LookupError, TypeError):
        return _ELSEWHERE
    if verdict != "aborted":
        return f"it holds a ceremony that came to its end ({verdict}); {_ELSEWHERE}"
    if os.path.lexists(os.path.join(folder, SIGNED)):  # interrupted between the two files
        return f"it holds a ceremony that came to its end, as '{os.path.join(folder, SIGNED)}' says; {_ELSEWHERE}"
    remove = f"hsmjwt key delete '{keys[0]}'" if keys else "hsmjwt key delete, if the label is in use,"
    return (
        f"it holds a ceremony that was aborted at {reached!r}; a ceremony begins anew: {remove} removes its key; "
        f"keep this folder, and name another one as out"
    )


def _write(path: str, data: bytes) -> None:
    try:
        whole_file.replace(path, data, _MODE)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: str, error: OSError) -> ConfigError:
    reason = (error.strerror or "unknown reason").lower()
    return ConfigError(f"{path!r} cannot be written: {reason}", hint=_ELSEWHERE)


def _user() -> str:
    uid = os.geteuid()
    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:  # a container often runs under a user that no database knows
        return str(uid)
