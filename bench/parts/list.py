"""What a listing of a thousand keys costs beside a C loop that reads the same of them, and an audit beside a listing."""

from __future__ import annotations

import os

from place import HSMJWT, LABEL, LOOP, Place, Store
from rows import Bound, Row, compared
from runs import Command, in_turns

_KEYS = 1000
_ROUNDS = 21
_PEAKS = 5  # rounds of memory, which hardly differs from one run to the next


def measure(place: Place) -> list[Row]:
    """List and audit a thousand keys, and look at the memory that they take."""
    many, few = (place.make_store(f"list-{count}", count) for count in (_KEYS, 2))
    audit = _hsmjwt(place, many, "key", "audit", "--all", "--policy", "device-born")
    commands = {"list": _hsmjwt(place, many, "key", "list"), "loop": _loop(place, many), "audit": audit}
    times = in_turns(commands, _ROUNDS)
    return [
        compared(f"list: {_KEYS:,} keys", times["list"], "C loop", times["loop"], 1.5),
        compared(f"list: key audit --all of {_KEYS:,} keys", times["audit"], "key list", times["list"], 2.0),
        _memory(place, few, many),
    ]


def _hsmjwt(place: Place, store: Store, *words: str) -> Command:
    environ = place.environ(store=store)
    environ |= {"HSMJWT_MODULE": store.module, "HSMJWT_PIN_SOURCE": f"file:{store.pin_file}"}
    environ |= {"XDG_CONFIG_HOME": os.path.join(place.folder, "nothing")}
    return Command([HSMJWT, *words], environ)


def _loop(place: Place, store: Store) -> Command:
    return Command([LOOP, store.module, LABEL, store.pin_file, "list"], place.environ(store=store))


def _memory(place: Place, few: Store, many: Store) -> Row:
    """Compare what a thousand keys add to the memory of each program, most of which is SoftHSM's own."""
    added = []
    for make in (lambda store: _hsmjwt(place, store, "key", "list"), lambda store: _loop(place, store)):
        added.append([make(many).peak() - make(few).peak() for _ in range(_PEAKS)])
    ours, theirs = added
    shown = [f"{sorted(each)[_PEAKS // 2]:.1f} MiB" for each in added]
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return Row(f"list: memory that {_KEYS:,} keys add", ratios, Bound(2), shown[0], f"{shown[1]}, C loop")
