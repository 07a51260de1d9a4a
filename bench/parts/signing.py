"""Signatures by an open key, beside a C loop on the same key. Wall time of blocks in turns."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from loops import Loop, block, started
from place import Place
from rows import Bound, Row, ratios

_BLOCK = 30_000_000  # nanoseconds of a C block
_ROUNDS = 60
_LONGEST = 60  # seconds for more rounds on a busy machine
_ENOUGH = 30  # rounds of two that count
_REAL_PAIR = 1.8  # what the C loop's own two must reach of its one: less, and somebody else had the other core


class _Way(NamedTuple):
    """One kind of block."""

    loops: Sequence[Loop]
    verb: str
    threads: int = 1


def measure(place: Place) -> list[Row]:
    """Sign with RSA-2048 in one thread, two threads and two processes, and with P-256 in one thread."""
    with started(place, place.store, "rsa", "RS256", 2) as (c_loops, python):
        rows = _rsa(c_loops, python)
    with started(place, place.store, "ec", "ES256", 1) as (c_loops, python):
        ways = {
            "C": _Way(c_loops, "sign"),
            "hsmjwt": _Way(python, "sign"),
            "verified": _Way(python, "verified"),
        }
        times = _in_turns(ways, _ROUNDS)
    rows.append(_row("signing: P-256, one thread", times, "hsmjwt", "C", Bound(0.75, least=True)))
    rows.append(_row("signing: P-256, one thread, verified", times, "verified", "C", None))
    return rows


def _rsa(c_loops: Sequence[Loop], python: Sequence[Loop]) -> list[Row]:
    ways = {
        "C": _Way(c_loops[:1], "sign"),
        "C threads": _Way(c_loops[:1], "sign", 2),
        "C processes": _Way(c_loops, "sign"),
    }
    for name, verb in (("plain", "sign"), ("verified", "verified")):
        ways[name] = _Way(python[:1], verb)
        ways[f"{name} threads"] = _Way(python[:1], verb, 2)
        ways[f"{name} processes"] = _Way(python, verb)
    times = _in_turns(ways, _ROUNDS)
    end = time.monotonic() + _LONGEST
    while time.monotonic() < end and min(len(_real(times, pair)) for pair in _PAIRS) < _ENOUGH:
        for name, more in _in_turns(ways, 5).items():
            times[name] += more
    rows = [
        _row("signing: RSA-2048, one thread", times, "plain", "C", Bound(0.95, least=True)),
        _row("signing: RSA-2048, one thread, verified", times, "verified", "C", Bound(0.9, least=True)),
    ]
    for pair in _PAIRS:
        counted = _real(times, pair)
        some = {name: [values[number] for number in counted] for name, values in times.items()}
        title = f"signing: RSA-2048, two {pair}"
        rows.append(_row(title, some, f"plain {pair}", f"C {pair}", Bound(0.92, least=True)))
        rows.append(_row(f"{title}, verified", some, f"verified {pair}", f"C {pair}", None))
    return rows


_PAIRS = ("threads", "processes")


def _real(times: dict[str, list[float]], pair: str) -> list[int]:
    """Return the rounds in which the machine had two cores for us."""
    usual = statistics.median(times["C"])  # the one of a round alone may have been disturbed itself
    return [number for number, two in enumerate(times[f"C {pair}"]) if usual / two >= _REAL_PAIR]


def _in_turns(ways: dict[str, _Way], rounds: int) -> dict[str, list[float]]:
    """Return the time of one signature in nanoseconds for each way and round."""
    first = next(iter(ways.values()))
    count = max(10, round(_BLOCK / block(first.loops, first.verb, 1, 20)))
    order = list(ways)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(-1, rounds):  # the first round opens sessions
        random.shuffle(order)
        for name in order:
            way = ways[name]
            spent = block(way.loops, way.verb, way.threads, count)
            if number >= 0:
                times[name].append(spent)
    return times


def _row(title: str, times: dict[str, list[float]], ours: str, theirs: str, bound: Bound | None) -> Row:
    """Compare rates: the C loop's time by ours."""
    if not times[ours]:
        return Row(title, bound=bound)
    beside = f"{_rate(times[theirs])}, C loop"
    return Row(title, ratios(times[theirs], times[ours]), bound, _rate(times[ours]), beside)


def _rate(times: Sequence[float]) -> str:
    return f"{1e9 / statistics.median(times):.0f}/s"
