"""How CPU time grows with the number of profiles and of cached tokens."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence

from place import HERE, PYTHON, Place
from rows import Bound, Row, ratios
from runs import Command, Fault, in_turns

_SIZES = (10, 1_000, 10_000)
_FLAT = 1.1  # of a hit, from the smallest to the largest
_LINEAR = 1.1  # as an exponent: large tables leave the processor's caches, and linear work grows a little faster
_HIT_ROUNDS = 40
_ROUNDS = 7
_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "token P --json, cached": ("token", "bench", "--json"),
    "token P --fresh": ("token", "bench", "--fresh"),
    "sign P": ("sign", "bench"),
    "profile list": ("profile", "list"),
    "cache list": ("cache", "list"),
}


def measure(place: Place) -> list[Row]:
    """Make a home of each size, and run the same commands in all."""
    homes = [_home(place, size) for size in _SIZES]
    times = in_turns({home: place.hsmjwt("token", "bench", home=home) for home in homes}, _HIT_ROUNDS)
    curve = [times[home] for home in homes]
    rows = [Row("growth: hit, 10,000 / 10", ratios(curve[-1], curve[0]), Bound(_FLAT), _shown(curve))]
    for name, words in _COMMANDS.items():
        try:
            curve = _curve([place.hsmjwt(*words, home=home) for home in homes])
        except Fault as fault:
            rows.append(Row(f"growth: {name}", fault=str(fault)))
            continue
        exponents = [_exponent(*point) for point in zip(*curve, strict=True)]
        rows.append(Row(f"growth: {name}, exponent", exponents, Bound(_LINEAR), _shown(curve)))
    return rows


def _home(place: Place, size: int) -> str:
    """Make a home with so many profiles, the cached token of each, and the note of each for the quick path."""
    others = [f"other-{number}" for number in range(size - 1)]
    middle = size // 2
    home = place.make_home(f"home-{size}", [*others[:middle], "bench", *others[middle:]])
    place.settle(home)
    place.hsmjwt("token", "bench", home=home).output()
    folder = os.path.join(home, "run", "hsmjwt")
    script = os.path.join(HERE, "workers", "fill_cache.py")
    Command([PYTHON, script, folder, str(size - 1)], place.environ(home=home)).output()
    return home


def _curve(commands: Sequence[Command]) -> list[list[float]]:
    """Return the CPU times at each size."""
    for command in commands:
        command.output()
    times = in_turns({str(number): command for number, command in enumerate(commands)}, _ROUNDS)
    return list(times.values())


def _exponent(small: float, middle: float, large: float) -> float:
    """Return how fast the time grows beyond what the smallest size costs: 1 is linear, 2 quadratic, 0 flat.

    The smallest is taken off, since a start-up of 80 ms would make anything look flat.
    """
    if large <= small * _FLAT:
        return 0.0
    first, second, third = _SIZES
    grown = (large - small) / max(middle - small, small / 100)
    return math.log(grown) / math.log((third - first) / (second - first))


def _shown(curve: Sequence[Sequence[float]]) -> str:
    return " → ".join(f"{statistics.median(times):.0f}" for times in curve) + " ms"
