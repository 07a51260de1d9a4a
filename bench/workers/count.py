"""Counts C_FindObjectsInit: in a command of hsmjwt, or in two signatures of one process.

count.py MODULE FILE sign …                                  one byte in FILE a search, then the command's own end
count.py MODULE FILE twice TOKEN-LABEL PIN-FILE KEY-LABEL    prints the searches up to the first signature, and after it

SoftHSM's function table is memory that may be written: a callback takes the function's place.
"""

from __future__ import annotations

import ctypes
import os
import sys

_FIND_OBJECTS_INIT = 27  # its place in CK_FUNCTION_LIST, whose first is the version (PKCS#11 2.40, section 3.6)
_Function = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong)
_kept: list[object] = []  # what C code may call at any time


def count_in(path: str, module: str) -> None:
    """Have each search write a byte: the process ends without a word to us."""
    counted = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    table = ctypes.POINTER(ctypes.c_void_p)()
    ctypes.CDLL(os.path.realpath(module)).C_GetFunctionList(ctypes.byref(table))
    before = _Function(table[_FIND_OBJECTS_INIT] or 0)

    def search(session: int, template: int, count: int) -> int:
        os.write(counted, b"1")
        return int(before(session, template, count))

    callback = _Function(search)
    _kept.append(callback)
    table[_FIND_OBJECTS_INIT] = ctypes.cast(callback, ctypes.c_void_p).value


def sign_twice(path: str, module: str, token: str, pin_file: str, key: str) -> None:
    """Sign twice with one open key."""
    from opening import open_key  # noqa: PLC0415 - the table is patched first

    from hsmjwt.jose.algorithms import ALGORITHMS  # noqa: PLC0415

    signer = open_key(module, token, pin_file, key, "RS256").signer
    signer.sign(b"first", ALGORITHMS["RS256"])
    first = os.stat(path).st_size
    signer.sign(b"second", ALGORITHMS["RS256"])
    print(first, os.stat(path).st_size - first)


def main(module: str, path: str, verb: str, *words: str) -> None:
    """Count."""
    count_in(path, module)
    if verb == "twice":
        sign_twice(path, module, *words)
        return
    from hsmjwt.cli.main import entry  # noqa: PLC0415 - the table is patched first

    sys.argv = ["hsmjwt", verb, *words]
    entry()


main(*sys.argv[1:])
