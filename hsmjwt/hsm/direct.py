"""The shorter road to a key and to its signature, straight through a module's function table.

python-pkcs11 asks four questions about each object that a search finds before anybody may look at it, makes a class for
it, and asks for the length of each signature before the signature. To find a key and what a signer wants to know of it
is five calls here in place of eight, and to sign two in place of three, which counts where each of them goes over a
network; elsewhere it is half of the time that Python adds.

A search among many objects leaves the processor's caches cold, so that it counts how much memory is touched around it:
what can be made once is.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Container, Sequence
from typing import Any

from hsmjwt.errors import DeviceError
from hsmjwt.hsm.faults import UNTOLD, fault, rv_name, translated

_ULONG, _POINTER, _BYTES = ctypes.c_ulong, ctypes.c_void_p, ctypes.c_char_p
_UNAVAILABLE = _ULONG(-1).value  # CK_UNAVAILABLE_INFORMATION
_BATCH = 16
_MOST = 1 << 20  # objects that one search may find; no token holds as many
_ROOM = 1040  # bytes for a value whose length is not known: a modulus of 8192 bits, and no attribute has just as many
_LONGEST = 1 << 20  # bytes of a value; no attribute of a key has as many
_SIGNATURE = 8192  # bytes; no key that JOSE knows makes as many
_OF_ONE = frozenset({"CKR_ATTRIBUTE_TYPE_INVALID", "CKR_ATTRIBUTE_SENSITIVE"})  # of several: the others are told

Values = Sequence[bytes | None]
"""What an object tells, in the order in which it was asked; None for what it will not tell."""


class _Attribute(ctypes.Structure):
    """CK_ATTRIBUTE (PKCS#11 2.40, section 3.4) in a search template."""

    _fields_ = (("type", _ULONG), ("pValue", _BYTES), ("ulValueLen", _ULONG))


class Question(threading.local):
    """What objects are asked for, with the memory for an answer.

    Each thread has memory of its own, so that a call which hangs keeps nobody else from asking.
    """

    def __init__(self, attributes: Sequence[int], rare: Container[int] = ()) -> None:
        """Take the attributes by number; `rare` are those that many objects lack. This runs once in each thread.

        `apart` counts the values that a token told, or did not tell, when it was asked for nothing else.
        """
        self.apart = 0
        self._attributes = attributes
        self._rare = rare
        self._room: Any = (ctypes.c_char * (_ROOM * len(attributes)))()
        start = ctypes.addressof(self._room)
        wanted: list[int] = []
        for index, kind in enumerate(attributes):  # CK_ATTRIBUTE: type, place and length
            wanted += kind, start + _ROOM * index, _ROOM
        self._rows = (_ULONG * len(wanted))(*wanted)
        self._wanted = bytes(self._rows)

    def answer(self, ask: Any, session: int, thing: int) -> Values:
        """Ask for all at once, and once more for each that is longer, not told or left alone.

        A token that does not tell one is to tell the others nevertheless (PKCS#11 2.40, section 5.7), and some tell
        none then. That a rare one is not told beside others that are is believed.
        """
        rows, room = self._rows, self._room
        ctypes.memmove(rows, self._wanted, len(self._wanted))
        result = ask(session, thing, rows, len(self._attributes))
        lengths = rows[2::3]
        if result == 0 and max(lengths) <= _ROOM:
            return [
                room[start : start + length] for start, length in zip(range(0, len(room), _ROOM), lengths, strict=True)
            ]
        told = result == 0 or rv_name(result) in _OF_ONE
        there = [told and length < _ROOM for length in lengths]
        values: list[bytes | None] = []
        for index, kind in enumerate(self._attributes):
            start = _ROOM * index
            if there[index]:
                values.append(room[start : start + lengths[index]])
            elif kind in self._rare and any(there) and lengths[index] == _UNAVAILABLE:
                values.append(None)
            else:
                self.apart += 1
                values.append(_answer_of_one(ask, session, thing, kind))
        return values


def _answer_of_one(ask: Any, session: int, thing: int, attribute: int) -> bytes | None:
    """Ask for the length of a value and then for the value; None where the token tells either not."""
    rows = (_ULONG * 3)(attribute, 0, 0)
    room: Any = None
    with translated("C_GetAttributeValue"):
        for _ in range(2):
            result = ask(session, thing, rows, 1)
            if rv_name(result) in UNTOLD or rows[2] == _UNAVAILABLE:
                return None
            _check("C_GetAttributeValue", result)
            if rows[2] > _LONGEST:
                raise DeviceError(f"C_GetAttributeValue gave a value of {rows[2]} bytes, which makes no sense")
            if room is None:
                room = ctypes.create_string_buffer(rows[2] or 1)
                rows[1] = ctypes.addressof(room)
        return bytes(room[: rows[2]])


def _function(place: int, *arguments: Any) -> Any:
    """Return a property: the function in that place of CK_FUNCTION_LIST (PKCS#11 2.40, section 3.6)."""
    kind = ctypes.CFUNCTYPE(_ULONG, *arguments)
    return functools.cached_property(lambda self: kind(self._functions[place]))


class Direct:
    """What a module's function table offers; sessions, objects and attributes are numbers here.

    The caller sees to it that nothing else happens in the session meanwhile.
    """

    _destroy = _function(23, _ULONG, _ULONG)  # C_DestroyObject
    _ask = _function(25, _ULONG, _ULONG, _POINTER, _ULONG)  # C_GetAttributeValue
    _find_init = _function(27, _ULONG, _POINTER, _ULONG)
    _find_some = _function(28, _ULONG, _POINTER, _ULONG, _POINTER)
    _find_final = _function(29, _ULONG)
    _sign_init = _function(43, _ULONG, _POINTER, _ULONG)
    _sign = _function(44, _ULONG, _BYTES, _ULONG, _POINTER, _POINTER)

    def __init__(self, functions: Any) -> None:
        """Keep the function table."""
        self._functions = functions

    def search(
        self, session: int, template: Sequence[tuple[int, bytes]], question: Question
    ) -> list[tuple[int, Values]]:
        """Return the objects that have the template's values, each with its answer to the question; see `find`."""
        return [(thing, question.answer(self._ask, session, thing)) for thing in self.find(session, template)]

    def find(self, session: int, template: Sequence[tuple[int, bytes]]) -> list[int]:
        """Return the objects that have the template's values, by number; the search has ended when this returns.

        Raises what the module gives, and DeviceError where it finds no end.
        """
        rows = (_Attribute * len(template))(*(_Attribute(kind, value, len(value)) for kind, value in template))
        batch, count = (_ULONG * _BATCH)(), _ULONG(_BATCH)
        at_count = ctypes.addressof(count)
        _check("C_FindObjectsInit", self._find_init(session, rows, len(template)))
        found: list[int] = []
        result = 0
        while result == 0 and count.value and len(found) < _MOST:
            result = self._find_some(session, batch, _BATCH, at_count)
            found += batch[: count.value] if result == 0 else ()
        final = self._find_final(session)
        _check("C_FindObjects", result)
        _check("C_FindObjectsFinal", final)
        if len(found) >= _MOST:
            raise DeviceError(f"C_FindObjects found {len(found)} objects and no end")
        return found

    def destroy(self, session: int, thing: int) -> None:
        """Remove an object; raises what the module gives."""
        _check("C_DestroyObject", self._destroy(session, thing))

    def read(self, session: int, thing: int, question: Question) -> Values:
        """Return an object's answer to a question."""
        return question.answer(self._ask, session, thing)

    def hand(self, session: int, key: int) -> Hand:
        """Return what signs with a key in a session."""
        return Hand(self._sign_init, self._sign, session, key)


class Hand:
    """A private key in one session; for one thread at a time, since the memory that its calls take is made once."""

    __slots__ = ("_init", "_key", "_length", "_mechanism", "_parameter", "_places", "_session", "_sign", "_signature")

    def __init__(self, init: Any, sign: Any, session: int, key: int) -> None:
        """Take both functions; session and key are numbers."""
        self._init, self._sign, self._session, self._key = init, sign, session, key
        self._mechanism = (_ULONG * 3)()  # CK_MECHANISM: type, place and length of its parameter (section 3.5)
        self._parameter: tuple[bytes, Any] = b"", None
        self._length = _ULONG()
        self._signature: Any = (ctypes.c_char * _SIGNATURE)()
        self._places = tuple(ctypes.addressof(each) for each in (self._mechanism, self._signature, self._length))

    def sign(self, data: bytes, mechanism: int, parameter: bytes = b"") -> bytes:
        """Return the token's signature; `parameter` is the mechanism's C struct. Raises what the module gives."""
        at_mechanism, at_signature, at_length = self._places
        self._mechanism[0] = mechanism
        if parameter is not self._parameter[0]:
            self._take(parameter)
        result = self._init(self._session, at_mechanism, self._key)
        if result:
            raise fault("C_SignInit", rv_name(result))
        self._length.value = _SIGNATURE
        result = self._sign(self._session, data, len(data), at_signature, at_length)
        if result:
            raise fault("C_Sign", rv_name(result))
        signature: bytes = self._signature[: self._length.value]  # not longer than the memory, whatever the token says
        return signature

    def _take(self, parameter: bytes) -> None:
        """Put another parameter behind the mechanism."""
        room = ctypes.create_string_buffer(parameter, len(parameter))
        self._mechanism[1:] = [ctypes.addressof(room) if parameter else 0, len(parameter)]
        self._parameter = parameter, room


def _check(operation: str, result: int) -> None:
    if result:
        raise fault(operation, rv_name(result))
