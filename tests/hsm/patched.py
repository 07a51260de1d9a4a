"""Runs hsmjwt, or a script, with functions of the real module replaced: a token's faults without a compiler.

    python patched.py FAULT[,FAULT…] hsmjwt-arguments…
    python patched.py FAULT[,FAULT…] -c CODE arguments…
    python patched.py --serve

The last one does what the others do for each request on stdin, in a process forked for it: with everything imported
that takes a tenth of the time.

SoftHSM's function table is memory that may be written. Each fault puts a callback in place of one function, which calls
the real one and changes what comes back. `NAME=0xCODE` answers with a return code in place of the function NAME of
`FUNCTIONS`, and `NAME=0xCODE*2` does so twice; `NAME~SECONDS` delays it; `NAME!` kills the process in place of it, and
`NAME!!` after it; `NAME@FILE` notes each call there. The rest stands in `FAULTS`. `-` is no fault.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
import sys
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
    "login": (19, (U, U, P, U)),
    "logout": (20, (U,)),
    "destroy": (23, (U, U)),
    "attributes": (25, (U, U, P, U)),
    "setattribute": (26, (U, U, P, U)),
    "findinit": (27, (U, P, U)),
    "find": (28, (U, P, U, P)),
    "findfinal": (29, (U,)),
    "signinit": (43, (U, P, U)),
    "sign": (44, (U, P, U, P, P)),
    "keypair": (60, (U, P, P, U, P, U, P, P)),
}
FLAGS = {"low": 0x10000, "final": 0x20000, "locked": 0x40000, "change": 0x80000}
CLEARED = {"nopin": 0x8, "nologin": 0x4}
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


def flag(name, times):
    """Set a flag of CK_TOKEN_INFO, or take one away; `times` calls, then as it is."""
    left = [int(times or -1)]

    def make(before):
        def call(slot, info):
            result = before(slot, info)
            flags = ctypes.cast(info + 96, ULONGS)
            if left[0] != 0 and flags[0] & 0x400:  # CKF_TOKEN_INITIALIZED
                left[0] -= 1
                flags[0] = flags[0] | FLAGS[name] if name in FLAGS else flags[0] & ~CLEARED[name]
            return result

        return call

    replace("tokeninfo", make)


def serial(calls):
    """Another token is in the slot after so many calls: its serial number differs."""
    left = [int(calls)]

    def make(before):
        def call(slot, info):
            result = before(slot, info)
            left[0] -= 1
            if left[0] < 0:
                ctypes.memmove(info + 80, b"another-one-here", 16)
            return result

        return call

    replace("tokeninfo", make)


def signature(change):
    """Change what C_Sign returns, not what it says of its size beforehand."""

    def make(before):
        def call(session, data, size, out, length):
            result = before(session, data, size, out, length)
            if out and result == 0:
                change(ctypes.cast(out, ctypes.POINTER(ctypes.c_ubyte)), ctypes.cast(length, ULONGS))
            return result

        return call

    replace("sign", make)


def flip(out, _length):
    out[7] ^= 1


def length(value):
    return lambda _out, size: size.__setitem__(0, value)


def huge(value):
    """Answer the question for the signature's size with nonsense."""

    def make(before):
        def call(session, data, size, out, length):
            if out:
                return before(session, data, size, out, length)
            ctypes.cast(length, ULONGS)[0] = int(value, 0)
            return 0

        return call

    replace("sign", make)


def hide(mechanism):
    """Leave a mechanism out of the token's list."""

    def make(before):
        def call(slot, entries, amount):
            result = before(slot, entries, amount)
            if result == 0 and entries:
                size, listed = ctypes.cast(amount, ULONGS), ctypes.cast(entries, ULONGS)
                kept = [listed[i] for i in range(size[0]) if listed[i] != int(mechanism, 0)]
                for place, value in enumerate(kept):
                    listed[place] = value
                size[0] = len(kept)
            return result

        return call

    replace("mechanisms", make)


def refuse(mechanism):
    """List a mechanism, and refuse it in C_SignInit."""

    def make(before):
        def call(session, mech, key):
            if ctypes.cast(mech, ULONGS)[0] == int(mechanism, 0):
                return 0x70
            return before(session, mech, key)

        return call

    replace("signinit", make)


def logged_out(times):
    """Somebody logs out before C_SignInit."""
    left = [int(times or -1)]

    def make(before):
        def call(session, mech, key):
            if left[0]:
                left[0] -= 1
                real("logout")(session)
            return before(session, mech, key)

        return call

    replace("signinit", make)


def of_private(attributes, session, thing):
    """Tell whether an object is a private key."""
    value = U()
    template = (U * 3)(0, ctypes.addressof(value), 8)  # CKA_CLASS
    attributes(session, thing, ctypes.addressof(template), 1)
    return value.value == 3


def untold(attribute):
    """Do not tell an attribute of private keys."""

    def make(before):
        def call(session, thing, template, count):
            result = before(session, thing, template, count)
            rows = ctypes.cast(template, ULONGS)
            for row in range(count):
                if rows[3 * row] == int(attribute, 0) and of_private(before, session, thing):
                    rows[3 * row + 2] = 2**64 - 1
                    result = 0x12
            return result

        return call

    replace("attributes", make)


def tell(text):
    """Tell another value for an attribute of private keys: ATTRIBUTE:NUMBER."""
    attribute, _, value = text.partition(":")

    def make(before):
        def call(session, thing, template, count):
            result = before(session, thing, template, count)
            rows = ctypes.cast(template, ULONGS)
            for row in range(count):
                if rows[3 * row] == int(attribute, 0) and rows[3 * row + 1] and of_private(before, session, thing):
                    ctypes.memmove(rows[3 * row + 1], int(value, 0).to_bytes(8, sys.byteorder), rows[3 * row + 2])
            return result

        return call

    replace("attributes", make)


def context(code):
    """Answer to context-specific logins alone."""

    def make(before):
        return lambda session, user, pin, size: int(code, 0) if user == 2 else before(session, user, pin, size)

    replace("login", make)


def read_only(_):
    """Refuse sessions that may write, as a write-protected token does."""

    def make(before):
        return lambda slot, flags, *rest: 0xE2 if flags & 2 else before(slot, flags, *rest)

    replace("open", make)


def any_object(_):
    """Take a search template for a hint: every object is found."""
    replace("findinit", lambda before: lambda session, template, count: before(session, None, 0))


def chatter(_):
    """Print from inside C_Sign, as C code does."""

    def make(before):
        def call(*args):
            for fd in (1, 2):
                os.write(fd, b"the module says hello\n")
            return before(*args)

        return call

    replace("sign", make)


def already(_):
    """Somebody else in the process has initialised the module."""
    real("init")(None)


FAULTS = {
    "flip": lambda _: signature(flip),
    "length": lambda value: signature(length(int(value))),
    "huge": huge,
    "hide": hide,
    "refuse": refuse,
    "loggedout": logged_out,
    "untold": untold,
    "tell": tell,
    "anyobject": any_object,
    "context": context,
    "readonly": read_only,
    "chatter": chatter,
    "already": already,
    "serial": serial,
}


def arrange(text):
    """Arrange for one fault."""
    name, sign, argument = re.fullmatch(r"(\w+)(!!|[=~!@*]?)(.*)", text).groups()
    if name in FUNCTIONS:
        {
            "=": lambda: answer(name, argument),
            "~": lambda: delay(name, argument),
            "!": lambda: die(name, after=False),
            "!!": lambda: die(name, after=True),
            "@": lambda: note(name, argument),
        }[sign]()
    elif name in FLAGS or name in CLEARED:
        flag(name, argument)
    else:
        FAULTS[name](argument)


def signer(deadline=30.0, say=lambda _: None, rules=None):
    """Open a signer the way the CLI does, for a script; the key is HSMJWT_KEY's."""
    from hsmjwt.deadline import Deadline
    from hsmjwt.hsm.discovery import find_module
    from hsmjwt.hsm.login import LoginRules
    from hsmjwt.hsm.module import Login, Module
    from hsmjwt.hsm.signer import Pkcs11Signer
    from hsmjwt.hsm.uri import parse
    from hsmjwt.secret import parse_source, resolve

    clock = Deadline(deadline)
    source = parse_source(os.environ["HSMJWT_PIN_SOURCE"])
    folder = os.path.join(os.environ["HOME"], "state")
    os.makedirs(folder, mode=0o700, exist_ok=True)

    def read(_token):
        return resolve(source, purpose="PIN", question="PIN", prompt=None, environ=os.environ, deadline=clock)

    module = Module(find_module(os.environ["HSMJWT_MODULE"], "the test"), folder, clock, print)
    try:
        uri = parse(os.environ["HSMJWT_KEY"])
        return Pkcs11Signer(module, module.find_token(uri), uri, Login(source, read, rules or LoginRules()), say)
    finally:
        module.settle()


def serve():
    """Fork a process for each request, a line of JSON, and answer with its exit code; returns in the new process."""
    import hsmjwt.cli.sign
    import hsmjwt.custody
    import hsmjwt.hsm.signer
    import hsmjwt.verify  # noqa: F401 - what a command would import, once for all

    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            for fd, path in enumerate(request["streams"]):
                os.dup2(os.open(path, os.O_RDWR), fd)
            os.environ.clear()
            os.environ.update(request["environ"])
            return request["argv"]
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, flush=True)
    os._exit(0)


def main(faults, *argv):
    """Arrange for the faults, then run hsmjwt or the code."""
    for each in faults.split(","):
        if each != "-":
            arrange(each)
    sys.modules["patched"] = sys.modules["__main__"]
    if argv[0] == "-c":
        sys.argv = ["-c", *argv[2:]]
        exec(argv[1], {"__name__": "__main__"})
    else:
        sys.argv = ["hsmjwt", *argv]
        from hsmjwt.cli.main import entry

        entry()


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # as `python -m hsmjwt` has it
    main(*(serve() if sys.argv[1:] == ["--serve"] else sys.argv[1:]))
