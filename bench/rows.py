"""What a bench says: a row a question, each with its samples, its bound and a verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal, NamedTuple

Verdict = Literal["pass", "FAIL", "close", "unsaid", "-"]

_SURE = 1.96  # standard deviations on either side hold 95 of 100 medians


class Bound(NamedTuple):
    """What a figure must keep to; `least` turns it round."""

    limit: float
    least: bool = False

    def kept_by(self, value: float) -> bool:
        """Tell whether a figure keeps to it."""
        return value >= self.limit if self.least else value <= self.limit

    def __str__(self) -> str:
        """Show it as the table does."""
        return f"{'≥' if self.least else '≤'} {self.limit:g}"


class Row(NamedTuple):
    """One question: the figures of all rounds, and the two medians that they came from, as text with their unit.

    `fault` says why there is no figure: a command that failed, for one. Without a bound the row only tells.
    """

    name: str
    samples: Sequence[float] = ()
    bound: Bound | None = None
    ours: str = ""
    theirs: str = ""
    fault: str = ""

    @property
    def verdict(self) -> Verdict:
        """Judge the median.

        FAIL only where the bound is missed beyond noise: where the whole interval that holds the true median with 95 %
        lies on the wrong side. A median that misses within that interval is `close`. `unsaid` is what a busy machine
        left without a figure.
        """
        if self.fault:
            return "FAIL"
        if not self.samples:
            return "unsaid"
        if self.bound is None:
            return "-"
        if self.bound.kept_by(statistics.median(self.samples)):
            return "pass"
        return "close" if any(map(self.bound.kept_by, interval(self.samples))) else "FAIL"


def interval(samples: Sequence[float]) -> tuple[float, float]:
    """Return the interval of the median at 95 %, by order statistics: no assumption on how the noise is spread."""
    ordered = sorted(samples)
    count = len(ordered)
    away = _SURE * math.sqrt(count) / 2
    low = max(0, math.floor(count / 2 - away) - 1)
    high = min(count - 1, math.ceil(count / 2 + away))
    return ordered[low], ordered[high]


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    """Return the first and the third quartile."""
    if len(samples) < 2:
        return samples[0], samples[0]
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, high


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Compare within each round, so that a slow minute of the machine slows both."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def milliseconds(samples: Sequence[float]) -> str:
    """Show the median of some times in milliseconds."""
    return f"{statistics.median(samples):.1f} ms"


def compared(name: str, ours: Sequence[float], beside: str, theirs: Sequence[float], most: float | None) -> Row:
    """Return the row of two commands' CPU times in milliseconds, ours at most `most` times those of `beside`."""
    bound = None if most is None else Bound(most)
    return Row(name, ratios(ours, theirs), bound, milliseconds(ours), f"{milliseconds(theirs)}, {beside}")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table of plain text, which is Markdown as well."""
    head = ("measurement", "hsmjwt", "beside", "figure", "quartiles", "bound", "verdict")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    figure = spread = ""
    if row.samples:
        low, high = quartiles(row.samples)
        figure = _number(statistics.median(row.samples))
        spread = f"{_number(low)} to {_number(high)}" if len(row.samples) > 1 else ""
    bound = "" if row.bound is None else str(row.bound)
    return row.name, row.ours, row.theirs, figure, spread, bound, row.verdict


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
