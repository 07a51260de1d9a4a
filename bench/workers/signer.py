"""What hsmjwt makes of a key: signs in a loop, and speaks as loop.c does, which see.

signer.py MODULE TOKEN-LABEL PIN-FILE KEY-LABEL ALG

Beside `sign` it knows `verified`: it verifies each signature, as every command does.
"""

from __future__ import annotations

import sys
import threading
import time

from opening import open_key

from hsmjwt.jose.algorithms import ALGORITHMS, Algorithm
from hsmjwt.jose.jws import Signer
from hsmjwt.verify import Verified

_MESSAGE = b"x" * 400


def sign(signer: Signer, alg: Algorithm, threads: int, count: int, start: int) -> tuple[int, int]:
    """Sign `count` times in each thread, none before `start`; return begin and end, all in monotonic nanoseconds."""
    begins, ends = [0] * threads, [0] * threads

    def work(seat: int) -> None:
        time.sleep(max(0, start - time.monotonic_ns()) / 1e9)
        begins[seat] = time.monotonic_ns()
        for _ in range(count):
            signer.sign(_MESSAGE, alg)
        ends[seat] = time.monotonic_ns()

    workers = [threading.Thread(target=work, args=(seat,)) for seat in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return min(begins), max(ends)


def main(module: str, token: str, pin_file: str, key: str, alg: str) -> None:
    """Open the key and answer."""
    signer = open_key(module, token, pin_file, key, alg).signer
    signers: dict[str, Signer] = {"sign": signer, "verified": Verified(signer)}
    print("ready", flush=True)
    for line in sys.stdin:
        verb, threads, count, start = line.split()
        print(*sign(signers[verb], ALGORITHMS[alg], int(threads), int(count), int(start)), flush=True)


main(*sys.argv[1:])
