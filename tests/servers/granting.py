"""What the tests of an exchange by the command line share: answers that grant a token, flags, what was asserted."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from servers.scripted import Reply, Request, json_reply

MARK = "AT-marker-51c2"


def granted(value: str = MARK, **members: object) -> Reply:
    """Answer with an access token that lives an hour, and further members; None leaves one out."""
    answer = {"access_token": value, "token_type": "Bearer", "expires_in": 3600, **members}
    return json_reply({name: member for name, member in answer.items() if member is not None})


def flags(url: str, *more: str) -> tuple[str, ...]:
    """The flags that are enough for an exchange with any server."""
    return ("--iss", "i", "--client-id", "cid", "--token-url", url, *more)


def header_of(request: Request) -> dict[str, Any]:
    """Read the header of a request's assertion."""
    return _segment(request, 0)


def claims_of(request: Request) -> dict[str, Any]:
    """Read the claims of a request's assertion."""
    return _segment(request, 1)


def _segment(request: Request, place: int) -> dict[str, Any]:
    form = request.form
    part = (form.get("assertion") or form["client_assertion"]).split(".")[place]
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return value


def write_config(folder: Path, text: str) -> str:
    """Write a config file and return its path."""
    path = os.path.join(folder, "config.toml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o600)
    return path
