"""SoftHSM's function table: memory that may be written. Callbacks put in place of the module's own functions."""

from __future__ import annotations

import ctypes
import functools
import os
import time

U, P = ctypes.c_ulong, ctypes.c_void_p
ULONGS = ctypes.POINTER(U)
FUNCTIONS = {  # the place in CK_FUNCTION_LIST, whose first is its version, and the types of the arguments
    "init": (1, (P,)),
    "finalize": (2, (P,)),
    "slotlist": (5, (ctypes.c_ubyte, P, P)),
    "tokeninfo": (7, (U, P)),
    "mechanisms": (8, (U, P, P)),
    "open": (13, (U, U, P, P, P)),
    "close": (14, (U,)),
    "login": (19, (U, U, P, U)),
    "logout": (20, (U,)),
    "create": (21, (U, P, U, P)),
    "destroy": (23, (U, U)),
    "attributes": (25, (U, U, P, U)),
    "setattribute": (26, (U, U, P, U)),
    "findinit": (27, (U, P, U)),
    "find": (28, (U, P, U, P)),
    "findfinal": (29, (U,)),
    "signinit": (43, (U, P, U)),
    "sign": (44, (U, P, U, P, P)),
    "keypair": (60, (U, P, P, U, P, U, P, P)),
    "unwrap": (62, (U, P, U, P, U, P, U, P)),
}
_keep = []  # callbacks that C code may call at any time


@functools.cache
def table():
    """The module's function table; nothing is initialised by asking for it."""
    module = ctypes.CDLL(os.path.realpath(os.environ["HSMJWT_MODULE"]))
    pointer = ctypes.POINTER(P)()
    module.C_GetFunctionList(ctypes.byref(pointer))
    return pointer


def real(name):
    """The module's own function, as it stands now."""
    place, types = FUNCTIONS[name]
    return ctypes.CFUNCTYPE(U, *types)(table()[place])


def replace(name, make):
    """Put `make(the function so far)` in a function's place."""
    place, types = FUNCTIONS[name]
    before = real(name)
    callback = ctypes.CFUNCTYPE(U, *types)(make(before))
    _keep.append((before, callback))
    table()[place] = ctypes.cast(callback, P).value


def answer(name, text):
    value, _, times = text.partition("*")
    left = [int(times or -1)]

    def make(before):
        def call(*args):
            if left[0] == 0:
                return before(*args)
            left[0] -= 1
            return int(value, 0)

        return call

    replace(name, make)


def delay(name, seconds):
    replace(name, lambda before: lambda *args: (time.sleep(float(seconds)), before(*args))[1])


def die(name, after):
    def call(before, args):
        if after:
            before(*args)
        os.kill(os.getpid(), 9)
        return 0

    replace(name, lambda before: lambda *args: call(before, args))


def note(name, file):
    """One line a call: the name, and of a login whose it is (1 the user's, 2 context-specific)."""

    def call(before, args):
        with open(file, "a") as lines:
            lines.write(f"{name} {args[1]}\n" if name == "login" else f"{name}\n")
        return before(*args)

    replace(name, lambda before: lambda *args: call(before, args))
