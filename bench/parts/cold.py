"""A cold `sign` as a whole process, beside the shortest script that signs the same."""

from __future__ import annotations

import base64
import json
from typing import Any

from place import AUDIENCE, Place
from rows import Row, compared
from runs import Command, Fault, in_turns

_ROUNDS = 60


def measure(place: Place) -> list[Row]:
    """Sign by flags and by profile."""
    commands = {
        "script": place.reference("sign.py", *place.key_words, "client", AUDIENCE),
        "flags": place.hsmjwt("sign", *place.key_flags, "--iss", "client", "--aud", AUDIENCE),
        "profile": place.hsmjwt("sign", "bench"),
    }
    _check(place, {**commands, "bash": place.bash("sign.sh"), "tight bash": place.bash("tight.sh")})
    times = in_turns(commands, _ROUNDS)
    return [
        compared("cold: sign --key …", times["flags"], "typer script", times["script"], 1.15),
        compared("cold: sign P", times["profile"], "typer script", times["script"], 0.85),
    ]


def _check(place: Place, commands: dict[str, Command]) -> None:
    """Raise Fault unless all sign the same, clock and jti apart: a comparison of different work would be worthless."""
    signed = {name: command.output().strip() for name, command in commands.items()}
    for jwt in signed.values():
        place.hsmjwt("verify", jwt, *place.key_flags, "--aud", AUDIENCE).output()
    if len({_parts(jwt) for jwt in signed.values()}) != 1:
        raise Fault(f"these do not sign the same: {signed}")


def _parts(jwt: str) -> str:
    header, claims, _ = jwt.split(".")
    said: dict[str, Any] = json.loads(_decoded(claims))
    said = {**said, "iat": 0, "exp": said["exp"] - said["iat"], "jti": len(said["jti"])}
    return f"{_decoded(header).decode()} {json.dumps(said)}"


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
