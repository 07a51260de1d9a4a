"""What a listing of a thousand keys costs beside a C loop that reads the same, and an audit beside a listing."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from place import HSMJWT, LABEL, LOOP, Place, Store
from rows import Bound, Row, compared, ratios
from runs import Command, in_turns

_KEYS, _MORE_KEYS = 1000, 3000
_ROUNDS = 21
_PEAKS = 5  # rounds of memory, which hardly differs from one run to the next
_VERDICTS = (0, 8)  # exit codes of an audit: the keys are copies of two, which no policy takes for good


def measure(place: Place) -> list[Row]:
    """List and audit a thousand keys, and look at the memory that more of them take."""
    few, many = (place.make_store(f"list-{count}", count) for count in (_KEYS, _MORE_KEYS))
    audit = _hsmjwt(place, few, "key", "audit", "--all")._replace(ends=_VERDICTS)
    commands = {"list": _hsmjwt(place, few, "key", "list"), "loop": _loop(place, few), "audit": audit}
    times = in_turns(commands, _ROUNDS)
    return [
        compared(f"list: {_KEYS:,} keys", times["list"], "C loop", times["loop"], 1.5),
        compared(f"list: key audit --all of {_KEYS:,} keys", times["audit"], "key list", times["list"], 2.0),
        _memory(place, few, many),
    ]


def _hsmjwt(place: Place, store: Store, *words: str) -> Command:
    environ = place.environ(store=store)
    environ |= {"HSMJWT_MODULE": store.module, "HSMJWT_PIN_SOURCE": f"file:{store.pin_file}"}
    return Command([HSMJWT, *words], environ)


def _loop(place: Place, store: Store) -> Command:
    return Command([LOOP, store.module, LABEL, store.pin_file, "list"], place.environ(store=store))


def _memory(place: Place, few: Store, many: Store) -> Row:
    """Compare what more keys add to the memory of each program, most of which is SoftHSM's own.

    Both numbers of keys are large: a program that is started by posix_spawn is told to have had as much memory as the
    bench itself, where it had less.
    """

    def added(command: Callable[..., Command], *words: str) -> list[float]:
        small, large = (command(place, store, *words) for store in (few, many))
        return [large.peak() - small.peak() for _ in range(_PEAKS)]

    ours, theirs = added(_hsmjwt, "key", "list"), added(_loop)
    shown = [f"{statistics.median(each):.1f} MiB" for each in (ours, theirs)]
    name = f"list: memory that {_MORE_KEYS - _KEYS:,} more keys add"
    return Row(name, ratios(ours, theirs), Bound(2), shown[0], f"{shown[1]}, C loop")
