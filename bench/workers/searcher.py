"""Searches for a key in turns, by hsmjwt's own function and by loop.c, loaded as a library, in the same process.

searcher.py LIBRARY COUNT MODULE TOKEN-LABEL PIN-FILE KEY-LABEL ALG

In two processes the search of SoftHSM itself differs by more than what is to be measured: malloc works otherwise in a
process that never had a second thread. Prints two JSON lists, hsmjwt's first: for each search its CPU time in
nanoseconds, and how much of it SoftHSM spent on its walk through all objects, which is the same for both.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable

from opening import open_key

from hsmjwt.hsm.direct import Direct
from hsmjwt.hsm.objects import find_signing_key
from hsmjwt.hsm.uri import parse


def spent(call: Callable[[], object], loop: ctypes.CDLL) -> tuple[int, int]:
    """Return the CPU time of one call, and of the walk in it."""
    began = time.thread_time_ns()
    call()
    return time.thread_time_ns() - began, loop.walked()


def main(library: str, count: str, *key_words: str) -> None:
    """Search in turns: each finds the processor's caches as the other's walk through all keys left them."""
    opened = open_key(*key_words)
    module, token, _, key, alg = key_words
    session, slot = opened.session, opened.slot
    uri, seen = parse(f"pkcs11:token={token};object={key}"), slot.token
    if seen is None:
        raise SystemExit("the slot is empty")

    def find() -> object:
        return find_signing_key(session, uri, seen, slot.needed_id, direct=direct)

    loop = ctypes.CDLL(library)
    loop.attach(*(word.encode() for word in (module, token, key, alg)))
    loop.walked.restype = ctypes.c_int64
    # The signer's own has the function from before it was timed.
    direct = Direct(opened.module.library._functions)  # noqa: SLF001 - there is no public way to a module's table
    ours, theirs = [], []
    for number in range(-3, int(count)):
        pair = spent(find, loop), spent(loop.search, loop)
        if number >= 0:
            ours.append(pair[0])
            theirs.append(pair[1])
    print(json.dumps([ours, theirs]))


main(*sys.argv[1:])
