"""Runs hsmjwt with functions of the real module replaced: a token's faults without a compiler.

    python patched.py FAULT[=ARGUMENT][,FAULT…] hsmjwt-arguments…

SoftHSM's function table is memory that may be written. Each fault puts a callback in place of one function, which
calls the real one and changes what comes back. `calls:FILE` appends a line to FILE at each C_Login.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time

U, P = ctypes.c_ulong, ctypes.c_void_p
INITIALIZE, TOKEN_INFO, MECHANISM_LIST, LOGIN, SIGN_INIT, SIGN = 1, 7, 8, 19, 43, 44  # after the version
SIGNATURES = {
    INITIALIZE: (P,),
    TOKEN_INFO: (U, P),
    MECHANISM_LIST: (U, P, P),
    LOGIN: (U, U, P, U),
    SIGN_INIT: (U, P, U),
    SIGN: (U, P, U, P, P),
}
FLAGS = {"low": 0x10000, "final": 0x20000, "locked": 0x40000, "change": 0x80000, "nopin": 0x8, "nologin": 0x4}
_keep = []  # callbacks that C code may call at any time


def table():
    module = ctypes.CDLL(os.path.realpath(os.environ["HSMJWT_MODULE"]))
    pointer = ctypes.POINTER(P)()
    module.C_GetFunctionList(ctypes.byref(pointer))
    return pointer


def replace(functions, place, make):
    kind = ctypes.CFUNCTYPE(U, *SIGNATURES[place])
    real = kind(functions[place])
    callback = kind(make(real))
    _keep.append((real, callback))
    functions[place] = ctypes.cast(callback, P).value


def add_flag(bit):
    def make(real):
        def call(slot, info):
            result = real(slot, info)
            flags = ctypes.cast(info + 96, ctypes.POINTER(U))
            flags[0] = flags[0] & ~bit if bit in (0x8, 0x4) else flags[0] | bit
            return result

        return call

    return TOKEN_INFO, make


def answer(place, value, times):
    """Answer with a return code; `times` calls, then the real function."""
    left = [times]

    def make(real):
        def call(*args):
            if left[0] == 0:
                return real(*args)
            left[0] -= 1
            return value

        return call

    return place, make


def flip():
    def make(real):
        def call(session, data, size, signature, length):
            result = real(session, data, size, signature, length)
            if signature:
                ctypes.cast(signature, ctypes.POINTER(ctypes.c_ubyte))[7] ^= 1
            return result

        return call

    return SIGN, make


def short():
    def make(real):
        def call(session, data, size, signature, length):
            result = real(session, data, size, signature, length)
            if signature:
                ctypes.cast(length, ctypes.POINTER(U))[0] = 10
            return result

        return call

    return SIGN, make


def sleep(place, seconds):
    def make(real):
        def call(*args):
            time.sleep(seconds)
            return real(*args)

        return call

    return place, make


def count(file):
    def make(real):
        def call(*args):
            with open(file, "a") as lines:
                lines.write(f"{args[1]}\n")
            return real(*args)

        return call

    return LOGIN, make


def hide(mechanism):
    """Leave a mechanism out of the token's list."""

    def make(real):
        def call(slot, entries, amount):
            result = real(slot, entries, amount)
            if result == 0 and entries:
                size = ctypes.cast(amount, ctypes.POINTER(U))
                listed = ctypes.cast(entries, ctypes.POINTER(U))
                kept = [listed[i] for i in range(size[0]) if listed[i] != mechanism]
                for place, value in enumerate(kept):
                    listed[place] = value
                size[0] = len(kept)
            return result

        return call

    return MECHANISM_LIST, make


def refuse_mechanism(mechanism):
    def make(real):
        def call(session, mech, key):
            if ctypes.cast(mech, ctypes.POINTER(U))[0] == mechanism:
                return 0x70
            return real(session, mech, key)

        return call

    return SIGN_INIT, make


def die(place):
    def make(real):
        def call(*args):
            os.kill(os.getpid(), 9)
            return 0

        return call

    return place, make


def fault(text):
    name, _, argument = text.partition("=")
    if name in FLAGS:
        return add_flag(FLAGS[name])
    places = {"init": INITIALIZE, "login": LOGIN, "signinit": SIGN_INIT, "sign": SIGN, "tokeninfo": TOKEN_INFO}
    if name in places:  # sign=0x30 always, sign=0x30*1 once
        value, _, times = argument.partition("*")
        return answer(places[name], int(value, 0), int(times or -1))
    return {
        "flip": flip,
        "short": short,
        "sleep": lambda: sleep(SIGN, float(argument)),
        "slowlogin": lambda: sleep(LOGIN, float(argument)),
        "calls": lambda: count(argument),
        "hide": lambda: hide(int(argument, 0)),
        "refuse": lambda: refuse_mechanism(int(argument, 0)),
        "dieinlogin": lambda: die(LOGIN),
        "dieinsign": lambda: die(SIGN),
    }[name]()


if __name__ == "__main__":
    functions = table()
    for each in sys.argv[1].split(","):
        replace(functions, *fault(each))
    sys.argv = ["hsmjwt", *sys.argv[2:]]
    from hsmjwt.cli.main import entry

    entry()
