"""The known name that a misspelt one was meant to be, two letters that changed places counting as one slip."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST = 64  # characters; a longer name is no slip of the finger
_STEM = 3  # characters that two names must share to be one cut short
_LISTED = 20  # names in a hint


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that takes the fewest slips to become `name`, None where none is near.

    A slip is a character too many, too few, another one, or two that changed places; near is a third of the length. A
    name cut short or drawn out (`aud` for `audience`) counts as one slip.
    """
    wanted = _plain(name)
    if len(wanted) > _LONGEST:
        return None
    ranked = sorted((_slips(wanted, _plain(candidate)), candidate) for candidate in known)
    if not ranked:
        return None
    slips, best = ranked[0]
    longest = max(len(wanted), len(best))
    return best if slips <= max(1, longest // 3) and slips < longest else None


def did_you_mean(name: str, known: Iterable[str], *, noun: str) -> str:
    """Return a hint: the nearest known name, else all of them (`noun` is their plural)."""
    names = sorted(known)
    best = nearest(name, names)
    if best is not None:
        return f"did you mean {best!r}?"
    if not names:
        return f"there are no {noun} at all"
    listed = ", ".join(repr(name)[1:-1] for name in names[:_LISTED])
    return f"the {noun} are {listed}" + (" …" if len(names) > _LISTED else "")


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _slips(one: str, other: str) -> int:
    """Return the edit distance in which two neighbours may change places (optimal string alignment)."""
    if min(len(one), len(other)) >= _STEM and one != other and (one.startswith(other) or other.startswith(one)):
        return 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one):
        older, before, row = before, row, [i + 1]
        for j, b in enumerate(other):
            cost = min(before[j + 1] + 1, row[j] + 1, before[j] + (a != b))
            if i and j and a == other[j - 1] and b == one[i - 1]:
                cost = min(cost, older[j - 1] + 1)
            row.append(cost)
    return row[-1]
