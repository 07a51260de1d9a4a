"""A cache hit as a whole process, beside an interpreter that does nothing and the bash script that signs each time."""

from __future__ import annotations

from collections.abc import Mapping

from place import PYTHON, Place
from rows import Row, compared
from runs import Command, Fault, in_turns

_ROUNDS = 80
_VERBS: Mapping[str, tuple[str, ...]] = {
    "token P": ("token", "bench"),
    "header P": ("header", "bench"),
    "exec P -- /bin/true": ("exec", "bench", "--", "/bin/true"),
}


def measure(place: Place) -> list[Row]:
    """Fetch a token once, then have it served."""
    place.settle()
    place.hsmjwt("token", "bench").output()
    rows, commands = [], {}
    for name, words in _VERBS.items():
        try:
            commands[name] = _served(place, place.hsmjwt(*words))
        except Fault as fault:
            rows.append(Row(f"hit: {name}", fault=str(fault)))
    others = {
        "python": Command([PYTHON, "-c", "pass"], place.environ()),
        "true": Command(["/bin/true"], place.environ()),
        "script": place.bash("sign.sh"),
        "tight": place.bash("tight.sh"),
    }
    for command in others.values():
        command.output()
    times = in_turns({**commands, **others}, _ROUNDS)
    for name in commands:
        # exec becomes CMD, whose own time stands on both sides.
        beside, theirs = "python -c pass", times["python"]
        if name.startswith("exec"):
            beside, theirs = f"{beside} + true", [sum(pair) for pair in zip(theirs, times["true"], strict=True)]
        rows.append(compared(f"hit: {name}", times[name], beside, theirs, 1.2))
    rows += [compared(f"hit: {name}", times[name], "bash script", times["script"], 0.4) for name in commands]
    rows += [compared(f"hit: {name}", times[name], "tight bash script", times["tight"], None) for name in commands]
    return rows


def _served(place: Place, command: Command) -> Command:
    """Return the command once it has answered without a word to the server."""
    command.output()
    before = len(place.http.forms)
    command.output()
    if len(place.http.forms) != before:
        raise Fault(f"'{' '.join(command.argv[1:])}' asked the server, so that it is no hit")
    return command
