"""A `token` that is not in the cache, as a whole process, beside the shortest script that fetches one.

The server is a thread of this process, so that its time counts for nobody.
"""

from __future__ import annotations

import contextlib
import os

from place import Place
from rows import Row, compared
from runs import Command, Fault, in_turns

_ROUNDS = 40


def measure(place: Place) -> list[Row]:
    """Fetch by flags and by profile, over http and over https."""
    http, https, trust = place.http.url, place.https.url, place.trust
    commands = {
        "http script": _script(place, http),
        "http flags": _flags(place, http),
        "http profile": place.hsmjwt("token", "bench", before=lambda: _empty(place)),
        "file script": _with(_script(place, https), REQUESTS_CA_BUNDLE=trust.ca_file),
        "file flags": _flags(place, https, "--ca-file", trust.ca_file),
        "system script": _with(_script(place, https), REQUESTS_CA_BUNDLE=trust.bundle),
        "system flags": _with(_flags(place, https), SSL_CERT_DIR=trust.hashed),
    }
    for command in commands.values():
        command.output()
    _check(place)
    times = in_turns(commands, _ROUNDS)

    def row(name: str, ours: str, script: str, most: float) -> Row:
        return compared(f"miss: {name}", times[ours], "requests script", times[f"{script} script"], most)

    return [
        row("token --key …, http", "http flags", "http", 1.1),
        row("token P, http", "http profile", "http", 1.1),
        row("token --key …, https, a CA file", "file flags", "file", 1.0),
        row("token --key …, https, many CAs", "system flags", "system", 1.0),
    ]


def _script(place: Place, url: str) -> Command:
    return place.reference("fetch.py", *place.key_words, "client", url, url)


def _flags(place: Place, url: str, *more: str) -> Command:
    words = ("--iss", "client", "--client-id", "client", "--token-url", url, *more)
    return place.hsmjwt("token", *place.key_flags, *words, "--no-cache")


def _with(command: Command, **variables: str) -> Command:
    return command._replace(environ={**command.environ, **variables})


def _empty(place: Place) -> None:
    folder = os.path.join(place.home, "run", "hsmjwt")
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))


def _check(place: Place) -> None:
    """Stop unless all asked for the same: an exchange that asks for less is no measure."""
    asked = {tuple(sorted(form)) for form in (*place.http.forms, *place.https.forms)}
    if len(asked) != 1:
        raise Fault(f"the exchanges differ in their fields: {asked}")
