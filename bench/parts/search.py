"""What the search for a key adds to the C loop's own, and how often a process searches."""

from __future__ import annotations

import json
import os
import statistics

from place import HERE, LABEL, LIBRARY, PYTHON, Place, Store
from rows import Bound, Row
from runs import Command

_SEARCHES = {1: 2000, 100: 400, 1000: 120}
"""How many keys the token holds, and how many searches are made among them."""


def measure(place: Place) -> list[Row]:
    """Search among 1, 100 and 1,000 keys; count the searches of a cold `sign` and of a second signature."""
    rows = [
        _added(place, place.make_store(f"store-{keys}", keys), keys, searches) for keys, searches in _SEARCHES.items()
    ]
    return [*rows, *_counted(place)]


def _added(place: Place, store: Store, keys: int, searches: int) -> Row:
    script = os.path.join(HERE, "workers", "searcher.py")
    argv = [PYTHON, script, LIBRARY, str(searches), store.module, LABEL, store.pin_file, "rsa", "RS256"]
    ours, theirs = json.loads(Command(argv, place.environ(store=store)).output())
    around = [[(whole - walk) / 1e6 for whole, walk in each] for each in (ours, theirs)]
    added = [one - other for one, other in zip(*around, strict=True)]
    shown = [f"{statistics.median(whole for whole, _ in each) / 1e6:.3f} ms" for each in (ours, theirs)]
    return Row(f"search: among {keys:,} keys, ms more than C", added, Bound(0.2), shown[0], f"{shown[1]}, C loop")


def _counted(place: Place) -> list[Row]:
    script = os.path.join(HERE, "workers", "count.py")
    store = place.store

    def counter(name: str, *words: str) -> tuple[str, Command]:
        path = os.path.join(place.folder, name)
        return path, Command([PYTHON, script, store.module, path, *words], place.environ())

    path, cold = counter("counted-cold", "sign", "bench")
    cold.output()
    _, twice = counter("counted-twice", "twice", LABEL, store.pin_file, "rsa")
    _, after = map(int, twice.output().split())
    return [
        Row("search: C_FindObjectsInit in a cold RSA sign P", [os.stat(path).st_size], Bound(1)),
        Row("search: C_FindObjectsInit in a second signature", [after], Bound(0)),
    ]
