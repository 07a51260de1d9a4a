"""What can be wrong with a token, each as a callback in the place of one function of its module."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import sys

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from function_table import ULONGS, U, real, replace

FLAGS = {"low": 0x10000, "final": 0x20000, "locked": 0x40000, "change": 0x80000}
CLEARED = {"nopin": 0x8, "nologin": 0x4}


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


def der(_):
    """Answer with a DER ECDSA-Sig-Value, as some tokens do, in place of r and s of one width."""

    def make(before):
        def call(session, data, size, out, length):
            told = ctypes.cast(length, ULONGS)
            if out is None:
                told[0] = 139  # the longest, of P-521
                return 0
            result = before(session, data, size, out, length)
            raw, half = ctypes.string_at(out, told[0]), told[0] // 2
            whole = encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
            ctypes.memmove(out, whole, len(whole))
            told[0] = len(whole)
            return result

        return call

    replace("sign", make)


def hashes(bits):
    """The token has CKM_ECDSA_SHA256 (or 384, 512) too, which SoftHSM 2.6.1 lacks, and hashes before it signs."""
    own = {"256": 0x1044, "384": 0x1045, "512": 0x1046}[bits or "256"]
    function = getattr(hashlib, f"sha{bits or 256}")

    def make_list(before):
        def call(slot, entries, amount):
            result = before(slot, entries, amount)
            size = ctypes.cast(amount, ULONGS)
            if result == 0 and entries:
                ctypes.cast(entries, ULONGS)[size[0]] = own
            size[0] += 1
            return result

        return call

    def make_init(before):
        def call(session, mech, key):
            mechanism = ctypes.cast(mech, ULONGS)
            hashing[:] = [mechanism[0] == own]
            mechanism[0] = 0x1041 if hashing[0] else mechanism[0]
            return before(session, mech, key)

        return call

    def make_sign(before):
        def call(session, data, size, out, length):
            if not hashing[0]:
                return before(session, data, size, out, length)
            hashed = function(ctypes.string_at(data, size)).digest()
            digest = ctypes.create_string_buffer(hashed, len(hashed))
            return before(session, ctypes.addressof(digest), len(hashed), out, length)

        return call

    hashing = [False]
    replace("mechanisms", make_list)
    replace("signinit", make_init)
    replace("sign", make_sign)


def point(text):
    """Tell another CKA_EC_POINT: with so many bytes cut off in front, and where `!` stands the last one changed."""
    cut, changed = int(text.rstrip("!")), text.endswith("!")

    def make(before):
        def call(session, thing, template, count):
            rows, asked, whole = ctypes.cast(template, ULONGS), {}, ctypes.create_string_buffer(67)
            for row in range(count):
                if rows[3 * row] == 0x181 and rows[3 * row + 1]:
                    asked[row] = rows[3 * row + 1]
                    rows[3 * row + 1], rows[3 * row + 2] = ctypes.addressof(whole), len(whole)
            result = before(session, thing, template, count)
            for row in range(count):
                if rows[3 * row] == 0x181 and rows[3 * row + 2] != 2**64 - 1:
                    rows[3 * row + 2] -= cut
            for row, where in asked.items():
                told = bytearray(whole.raw[cut:])
                told[-1] ^= changed
                ctypes.memmove(where, bytes(told), len(told))
                rows[3 * row + 1] = where
            return result

        return call

    replace("attributes", make)


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


def show(mechanism):
    """List one more mechanism."""

    def make(before):
        def call(slot, entries, amount):
            result = before(slot, entries, amount)
            size = ctypes.cast(amount, ULONGS)
            if result == 0 and entries:
                ctypes.cast(entries, ULONGS)[size[0]] = int(mechanism, 0)
            size[0] += 1
            return result

        return call

    replace("mechanisms", make)


def refuse(text):
    """List a mechanism, and refuse it in C_SignInit: MECHANISM, or MECHANISM:CODE."""
    mechanism, _, code = text.partition(":")

    def make(before):
        def call(session, mech, key):
            if ctypes.cast(mech, ULONGS)[0] == int(mechanism, 0):
                return int(code or "0x70", 0)
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


def untold(attribute, result_then=0x12):
    """Do not tell an attribute of private keys."""

    def make(before):
        def call(session, thing, template, count):
            result = before(session, thing, template, count)
            rows = ctypes.cast(template, ULONGS)
            for row in range(count):
                if rows[3 * row] == int(attribute, 0) and of_private(before, session, thing):
                    rows[3 * row + 2] = 2**64 - 1
                    result = result_then
            return result

        return call

    replace("attributes", make)


def bulk(code):
    """Tell nothing where several attributes are asked for at once."""

    def make(before):
        return lambda session, thing, rows, count: int(code, 0) if count > 1 else before(session, thing, rows, count)

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


def long(text, *, written=False):
    """Say that an attribute of private keys is so long, in a search and alone: ATTRIBUTE:BYTES.

    With `written` only where a value was written, and not where the size alone was asked for.
    """
    attribute, _, length = text.partition(":")

    def make(before):
        def call(session, thing, template, count):
            result = before(session, thing, template, count)
            rows = ctypes.cast(template, ULONGS)
            for row in range(count):
                asked = rows[3 * row] == int(attribute, 0) and (rows[3 * row + 1] or not written)
                if asked and of_private(before, session, thing):
                    rows[3 * row + 2] = int(length, 0)
            return result

        return call

    replace("attributes", make)


def endless(_):
    """Find objects without an end."""

    def make(before):
        def call(session, batch, most, count):
            result = before(session, batch, most, count)
            ctypes.cast(count, ULONGS)[0] = most
            return result

        return call

    replace("find", make)


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


def altered(_):
    """Keep another last byte of the value of what is created."""

    def make(before):
        def call(session, template, count, out):
            size = ctypes.sizeof(ctypes.c_ulong) * 3 * count
            rows = (ctypes.c_ulong * (3 * count)).from_buffer_copy(ctypes.string_at(template, size))
            for row in range(count):
                if rows[3 * row] == 0x11:  # CKA_VALUE
                    data = bytearray(ctypes.string_at(rows[3 * row + 1], rows[3 * row + 2]))
                    data[-1] ^= 1
                    value = (ctypes.c_char * len(data)).from_buffer(data)
                    rows[3 * row + 1] = ctypes.addressof(value)
            return before(session, ctypes.addressof(rows), count, out)

        return call

    replace("create", make)


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


def p11_kit(where):
    """Have p11-kit find its modules in a folder and nowhere else; where is LIBRARY:FOLDER.

    The configuration in a home would do, but p11-kit reads none where it runs as root.
    """
    library, folder = where.split(":")
    none = os.fsencode(os.path.join(folder, "none"))
    p11_kit.kept = [none, none, os.fsencode(folder), none, none]  # as long as p11-kit has the pointers
    ctypes.CDLL(library).p11_kit_override_system_files(*p11_kit.kept)


FAULTS = {
    "flip": lambda _: signature(flip),
    "der": der,
    "hashes": hashes,
    "point": point,
    "length": lambda value: signature(length(int(value))),
    "huge": huge,
    "hide": hide,
    "show": show,
    "refuse": refuse,
    "loggedout": logged_out,
    "untold": untold,
    "unsaid": lambda attribute: untold(attribute, 0),
    "bulk": bulk,
    "tell": tell,
    "long": long,
    "cut": functools.partial(long, written=True),
    "endless": endless,
    "altered": altered,
    "anyobject": any_object,
    "context": context,
    "readonly": read_only,
    "chatter": chatter,
    "already": already,
    "serial": serial,
    "p11kit": p11_kit,
}
