"""What lies on a token, asked once for all that an audit wants to know: private keys, public halves, certificates.

Many keys are read in one pass, and one key with what could be taken for it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from hsmjwt.errors import DeviceError
from hsmjwt.hsm import told
from hsmjwt.hsm.attributes import mechanism_numbers, numbers, packed
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.direct import Question
from hsmjwt.hsm.faults import translated
from hsmjwt.hsm.module import Module
from hsmjwt.hsm.objects import KeyObject, read_attributes

FLAGS: Final = {  # by the names that policies use (PKCS#11 2.40, sections 4.4, 4.7 and 4.9)
    "sensitive": "SENSITIVE",
    "always_sensitive": "ALWAYS_SENSITIVE",
    "extractable": "EXTRACTABLE",
    "never_extractable": "NEVER_EXTRACTABLE",
    "local": "LOCAL",
    "private": "PRIVATE",
    "modifiable": "MODIFIABLE",
    "copyable": "COPYABLE",
    "destroyable": "DESTROYABLE",
    "token_object": "TOKEN",
    "sign": "SIGN",
    "sign_recover": "SIGN_RECOVER",
    "decrypt": "DECRYPT",
    "unwrap": "UNWRAP",
    "derive": "DERIVE",
    "wrap_with_trusted": "WRAP_WITH_TRUSTED",
    "always_authenticate": "ALWAYS_AUTHENTICATE",
}
FLAGS_OF_PUBLIC: Final = {"verify": "VERIFY", "encrypt": "ENCRYPT", "wrap": "WRAP"}

_ULONG: Final = struct.Struct("@L")
_NUMBERS: Final = frozenset({"CLASS", "KEY_TYPE", "KEY_GEN_MECHANISM"})
_BOOLEANS: Final = frozenset({*FLAGS.values(), *FLAGS_OF_PUBLIC.values()})
_NEWER: Final = "ALLOWED_MECHANISMS"  # since PKCS#11 2.20: many a token does not know it
_IDENTITY: Final = ("CLASS", "LABEL", "ID", "KEY_TYPE")
_RSA: Final = ("MODULUS", "PUBLIC_EXPONENT")
_CURVE: Final = ("EC_PARAMS", "EC_POINT")
_DATES: Final = ("START_DATE", "END_DATE")
_PRIVATE: Final = (
    *(*_IDENTITY, *FLAGS.values(), "KEY_GEN_MECHANISM", *_DATES),
    *(*_RSA, "EC_PARAMS", _NEWER),  # most private objects tell no point
)
_PUBLIC: Final = (*_IDENTITY, *FLAGS_OF_PUBLIC.values(), *_RSA, *_CURVE)
_CERTIFICATE: Final = ("CLASS", "LABEL", "ID")
_RARE: Final = (*_RSA, *_CURVE, _NEWER)  # what many keys lack
_CLASSES: Final = {
    "private": (int(pkcs11.ObjectClass.PRIVATE_KEY), _PRIVATE),
    "public": (int(pkcs11.ObjectClass.PUBLIC_KEY), _PUBLIC),
    "certificate": (int(pkcs11.ObjectClass.CERTIFICATE), _CERTIFICATE),
}


class Thing(NamedTuple):
    """An object on a token: its number, and what it says of itself, by PKCS#11's names; what is not told is absent."""

    number: int
    about: Mapping[str, Any]

    @property
    def type(self) -> str | None:
        """Return the type as KeyObject does."""
        return told.type_of(self.about)

    @property
    def material(self) -> tuple[str, bytes] | None:
        """Return what tells this key pair from every other one; None where the object does not tell it."""
        for name in ("MODULUS", "EC_POINT"):
            if self.about.get(name):
                return name, self.about[name]
        return None


class Survey(NamedTuple):
    """The objects that were looked at: all of the token, or those that one key could be taken for."""

    private: list[Thing]
    public: list[Thing]
    certificates: list[Thing]


class Inventory:
    """Searches for objects in one session, by the shorter road where the module has it."""

    def __init__(self, module: Module, session: Any) -> None:
        """Take a session that nobody else uses meanwhile."""
        self._session, self._direct = session, module.library.direct
        self._questions: dict[tuple[str, ...], Question] = {}
        self._handles: dict[int, Any] = {}  # python-pkcs11's objects, where there is no shorter road

    def everything(self) -> Survey:
        """Return all that the session shows."""
        return Survey(self._search("private"), self._search("public"), self._search("certificate"))

    def around(self, key: KeyObject) -> Survey:
        """Return a key and what shares label, id or public key with it.

        All is returned where it has neither label nor id, and where it does not tell its public key itself: other
        private keys do not either then, and which of them are this one shows when all have their public halves.
        """
        marks: list[dict[str, Any]] = [{"LABEL": key.label}] if _is_text(key.label) else []
        marks += [{"ID": key.id}] if key.id else []
        material = Thing(key.handle.handle, key.about).material
        if material is None or not marks:
            return self.everything()
        certificates = self._each("certificate", marks)
        marks.append(dict([material]))
        return Survey(self._each("private", marks), self._each("public", marks), certificates)

    def point(self, thing: Thing) -> Thing:
        """Ask a private key for its point, which most do not tell."""
        return self._more(thing, "EC_POINT")

    def certificate(self, thing: Thing) -> bytes | None:
        """Return a certificate's bytes."""
        value: bytes | None = self._more(thing, "VALUE").about.get("VALUE")
        return value

    def _each(self, kind: str, marks: Iterable[Mapping[str, Any]]) -> list[Thing]:
        return list({thing.number: thing for mark in marks for thing in self._search(kind, **mark)}.values())

    def _search(self, kind: str, **template: Any) -> list[Thing]:
        number, names = _CLASSES[kind]
        found = self._by_direct if self._direct is not None else self._by_binding
        things = found({"CLASS": number, **template}, names)
        things = [thing for thing in things if thing.about.get("CLASS", number) == number]  # some ignore a template
        return things if kind == "certificate" else [self._whole(kind, thing) for thing in things]

    def _by_direct(self, template: Mapping[str, Any], names: tuple[str, ...]) -> list[Thing]:
        direct = self._direct
        assert direct is not None  # noqa: S101 - _search sees to it
        with translated("C_FindObjects"):
            found = direct.find(self._session.handle, packed(template))
        return [Thing(number, self._told(number, names)) for number in found]

    def _by_binding(self, template: Mapping[str, Any], names: tuple[str, ...]) -> list[Thing]:
        with translated("C_FindObjects"):
            handles = list(self._session.get_objects({pkcs11.Attribute[name]: it for name, it in template.items()}))
        self._handles |= {handle.handle: handle for handle in handles}
        return [Thing(handle.handle, self._told(handle.handle, names)) for handle in handles]

    def _told(self, number: int, names: tuple[str, ...]) -> dict[str, Any]:
        """Ask an object; dates apart where asking for them fails, which SoftHSM does for those of a private object."""
        try:
            return self._answer(number, names)
        except DeviceError as error:
            if error.ckr != "CKR_GENERAL_ERROR" or not set(_DATES) & set(names):
                raise
        about = self._answer(number, tuple(name for name in names if name not in _DATES))
        for name in _DATES:
            try:
                about |= self._answer(number, (name,))
            except DeviceError as error:
                if error.ckr != "CKR_GENERAL_ERROR":
                    raise
        return about

    def _answer(self, number: int, names: tuple[str, ...]) -> dict[str, Any]:
        if self._direct is None:
            return read_attributes(self._handles[number], names)
        with translated("C_GetAttributeValue"):
            values = self._direct.read(self._session.handle, number, self._question(names))
        return _unpacked(names, values)

    def _whole(self, kind: str, thing: Thing) -> Thing:
        """Ask for what only a key of this type has."""
        if "MODULUS" in thing.about or "EC_PARAMS" in thing.about:
            return thing
        match thing.type:
            case "rsa":
                return self._more(thing, *_RSA)
            case "ec" | "ed25519":
                return self._more(thing, *(_CURVE if kind == "public" else _CURVE[:1]))
            case _:
                return thing

    def _more(self, thing: Thing, *names: str) -> Thing:
        return Thing(thing.number, {**thing.about, **self._answer(thing.number, names)})

    def _question(self, names: tuple[str, ...]) -> Question:
        if names not in self._questions:
            self._questions[names] = Question(numbers(names), numbers(_RARE))
        return self._questions[names]


def _is_text(label: str | None) -> bool:
    """Tell whether a label can be searched for; bytes that are no UTF-8 cannot."""
    return bool(label) and label is not None and not any("\ud800" <= char <= "\udfff" for char in label)


def _unpacked(names: Iterable[str], values: Iterable[bytes | None]) -> dict[str, Any]:
    """Return by name what was told; what is no value of its kind was not told."""
    about: dict[str, Any] = {}
    for name, data in zip(names, values, strict=True):
        if data is None:
            continue
        if name in _BOOLEANS:
            if len(data) == 1:
                about[name] = data != b"\0"
        elif name in _NUMBERS:
            if len(data) == _ULONG.size:
                about[name] = _ULONG.unpack(data)[0]
        elif name == _NEWER:
            about[name] = mechanism_numbers(data)
        else:
            about[name] = data.decode("utf-8", "surrogateescape") if name == "LABEL" else data
    return about
