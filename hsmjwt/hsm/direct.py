"""The shorter road to a key and to its signature, straight through a module's function table.

python-pkcs11 asks four questions about each object that a search finds before anybody may look at it, makes a class for
it, and asks for the length of each signature before the signature. To find a key and what a signer wants to know of it
is five calls here in place of eight, and to sign two in place of three, which counts where each of them goes over a
network; elsewhere it is half of the time that Python adds.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any

from hsmjwt.hsm.faults import UNTOLD, fault, rv_name, translated

_ULONG, _POINTER, _BYTES = ctypes.c_ulong, ctypes.c_void_p, ctypes.c_char_p
_UNAVAILABLE = _ULONG(-1).value  # CK_UNAVAILABLE_INFORMATION
_BATCH = 16
_ROOM = 512  # bytes for a value that is asked for without its length being known: a modulus of 4096 bits
_SIGNATURE = 8192  # bytes; no key that JOSE knows makes as many

# Places in CK_FUNCTION_LIST, and the types of what stands there (PKCS#11 2.40, section 3.6)
_C_GET_ATTRIBUTE_VALUE = 25, ctypes.CFUNCTYPE(_ULONG, _ULONG, _ULONG, _POINTER, _ULONG)
_C_FIND_OBJECTS_INIT = 27, ctypes.CFUNCTYPE(_ULONG, _ULONG, _POINTER, _ULONG)
_C_FIND_OBJECTS = 28, ctypes.CFUNCTYPE(_ULONG, _ULONG, _POINTER, _ULONG, _POINTER)
_C_FIND_OBJECTS_FINAL = 29, ctypes.CFUNCTYPE(_ULONG, _ULONG)
_C_SIGN_INIT = 43, ctypes.CFUNCTYPE(_ULONG, _ULONG, _POINTER, _ULONG)
_C_SIGN = 44, ctypes.CFUNCTYPE(_ULONG, _ULONG, _BYTES, _ULONG, _POINTER, _POINTER)


class _Attribute(ctypes.Structure):
    """CK_ATTRIBUTE (section 3.4) in a search template."""

    _fields_ = (("type", _ULONG), ("pValue", _BYTES), ("ulValueLen", _ULONG))


class Direct:
    """What a module's function table offers; sessions, objects and attributes are numbers here.

    The caller sees to it that nothing else happens in the session meanwhile.
    """

    def __init__(self, functions: Any) -> None:
        """Keep the function table."""
        self._functions = functions
        self._questions: dict[Sequence[int], _Question] = {}

    def _function(self, function: tuple[int, Any]) -> Any:
        place, kind = function
        return kind(self._functions[place])

    def search(
        self, session: int, template: Sequence[tuple[int, bytes]], attributes: tuple[int, ...]
    ) -> list[tuple[int, dict[int, bytes]]]:
        """Return the objects that have the template's values, each with its own values of some attributes.

        Those that the token will not tell are left out. Raises what the module gives.
        """
        begin, find = self._function(_C_FIND_OBJECTS_INIT), self._function(_C_FIND_OBJECTS)
        end = self._function(_C_FIND_OBJECTS_FINAL)
        rows = (_Attribute * len(template))(*(_Attribute(kind, value, len(value)) for kind, value in template))
        batch, count = (_ULONG * _BATCH)(), _ULONG(_BATCH)
        at_count = ctypes.addressof(count)
        _check("C_FindObjectsInit", begin(session, rows, len(template)))
        found: list[int] = []
        result = 0
        while result == 0 and count.value:
            result = find(session, batch, _BATCH, at_count)
            found += batch[: count.value] if result == 0 else ()
        final = end(session)
        _check("C_FindObjects", result)
        _check("C_FindObjectsFinal", final)
        return [(thing, self.read(session, thing, attributes)) for thing in found]

    def read(self, session: int, thing: int, attributes: tuple[int, ...]) -> dict[int, bytes]:
        """Return an object's values of some attributes, without those that the token will not tell."""
        question = self._questions.get(attributes)
        if question is None:
            question = self._questions[attributes] = _Question(attributes)
        return question.answer(self._function(_C_GET_ATTRIBUTE_VALUE), session, thing)

    def hand(self, session: int, key: int) -> Hand:
        """Return what signs with a key in a session."""
        return Hand(self._function(_C_SIGN_INIT), self._function(_C_SIGN), session, key)


class _Question:
    """What objects are asked for, with the memory for an answer."""

    def __init__(self, attributes: Sequence[int]) -> None:
        self._attributes, self._turn = attributes, threading.Lock()
        self._room: Any = (ctypes.c_char * (_ROOM * len(attributes)))()
        start = ctypes.addressof(self._room)
        self._wanted: list[ctypes.c_ulong | int] = []
        for index, kind in enumerate(attributes):  # CK_ATTRIBUTE: type, place and length
            self._wanted += kind, start + _ROOM * index, _ROOM
        self._rows = (_ULONG * len(self._wanted))()

    def answer(self, ask: Any, session: int, thing: int) -> dict[int, bytes]:
        """Ask for all at once; one by one where one is longer or not told, since some tokens tell none then."""
        with self._turn:
            self._rows[:] = self._wanted
            result = ask(session, thing, self._rows, len(self._attributes))
            lengths = self._rows[2::3]
            if result == 0 and max(lengths) <= _ROOM:
                told, start = {}, 0
                for kind, length in zip(self._attributes, lengths, strict=True):
                    told[kind] = self._room[start : start + length]
                    start += _ROOM
                return told
        each = ((kind, _answer_of_one(ask, session, thing, kind)) for kind in self._attributes)
        return {kind: value for kind, value in each if value is not None}


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
            if room is None:
                room = ctypes.create_string_buffer(rows[2] or 1)
                rows[1] = ctypes.addressof(room)
        return bytes(room[: rows[2]])


class Hand:
    """A private key in one session; for one thread at a time, since the memory that its calls take is made once."""

    __slots__ = ("_init", "_key", "_length", "_mechanism", "_places", "_session", "_sign", "_signature")

    def __init__(self, init: Any, sign: Any, session: int, key: int) -> None:
        """Take both functions; session and key are numbers."""
        self._init, self._sign, self._session, self._key = init, sign, session, key
        self._mechanism = (_ULONG * 3)()  # CK_MECHANISM: type, place and length of its parameter (section 3.5)
        self._length = _ULONG()
        self._signature: Any = (ctypes.c_char * _SIGNATURE)()
        self._places = tuple(ctypes.addressof(each) for each in (self._mechanism, self._signature, self._length))

    def sign(self, data: bytes, mechanism: int) -> bytes:
        """Return the token's signature; raises what the module gives."""
        at_mechanism, at_signature, at_length = self._places
        self._mechanism[0] = mechanism
        result = self._init(self._session, at_mechanism, self._key)
        if result:
            raise fault("C_SignInit", rv_name(result))
        self._length.value = _SIGNATURE
        result = self._sign(self._session, data, len(data), at_signature, at_length)
        if result:
            raise fault("C_Sign", rv_name(result))
        signature: bytes = self._signature[: self._length.value]  # not longer than the memory, whatever the token says
        return signature


def _check(operation: str, result: int) -> None:
    if result:
        raise fault(operation, rv_name(result))
