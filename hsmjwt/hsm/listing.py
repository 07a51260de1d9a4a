"""Keys as rows of a listing: the shape of `key list --json`.

A token may hold thousands. Each object is asked for no more than its row shows, and what belongs together is found by
what it is called, so that a listing grows with the number of keys and no faster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from hsmjwt.hsm import told
from hsmjwt.hsm.attributes import numbers, unpacked
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.direct import Direct, Question
from hsmjwt.hsm.faults import translated
from hsmjwt.hsm.objects import NAMES, KeyObject, Kind, read_attributes
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.uri import KeyUri, TokenInfo, format_object_uri

About = dict[str, Any]

_PRIVATE = int(pkcs11.ObjectClass.PRIVATE_KEY)
_PUBLIC = int(pkcs11.ObjectClass.PUBLIC_KEY)
_CERTIFICATE = int(pkcs11.ObjectClass.CERTIFICATE)
_KINDS: dict[Any, Kind] = {_PRIVATE: "private", _PUBLIC: "public"}
_FIRST = ("CLASS", *NAMES, "KEY_TYPE")
_FLAGS = ("SIGN", "SENSITIVE", "EXTRACTABLE", "NEVER_EXTRACTABLE", "LOCAL", "ALWAYS_AUTHENTICATE")
_OF_LONE = ("LOCAL",)  # of a public key that belongs to no private one
_SIZE: dict[Any, str] = {  # what tells a key's size, by its type
    int(pkcs11.KeyType.RSA): "MODULUS",
    int(pkcs11.KeyType.EC): "EC_PARAMS",
    int(pkcs11.KeyType.EC_EDWARDS): "EC_PARAMS",
}
_WHOLE = (*_FIRST, *_FLAGS, "MODULUS", "EC_PARAMS")
_OF_SOME = ("KEY_TYPE", *_FLAGS, "MODULUS", "EC_PARAMS")  # what no certificate has, or not every key
_SEVERAL = 4  # values that are told only to who asks for nothing else


class _Marks(NamedTuple):
    """What objects are called: their ids, and the labels of those that have none."""

    ids: set[bytes]
    labels: set[str | None]

    def add(self, about: About) -> None:
        """Put an object among them."""
        if about.get("ID"):
            self.ids.add(about["ID"])
        else:
            self.labels.add(about.get("LABEL"))

    def have(self, about: About) -> bool:
        """Tell whether one of them belongs to this object: the same id, or where there is none the same label."""
        return about["ID"] in self.ids if about.get("ID") else about.get("LABEL") in self.labels


class _Reader:
    """Asks objects by the shorter road where the module has it.

    One question an object, for all that any row shows: what an object does not have is not told. Some tokens tell
    nothing at all then, and from the first such answer on each is asked for what it has, in two questions.
    """

    def __init__(self, session: Any, direct: Direct | None) -> None:
        self._session, self._direct = session, direct
        self._questions: dict[tuple[str, ...], Question] = {}
        self._first = _FIRST if direct is None else _WHOLE

    def everything(self) -> Iterator[tuple[Any, About]]:
        """Yield all objects: a handle that `more` takes, and class, label, id, type, and whatever came with them.

        One search in place of one for each class: a token walks through all of its objects for each of them.
        """
        if self._direct is not None:
            handles: Iterable[Any] = self._direct.find(self._session.handle, ())
        else:
            with translated("C_FindObjects"):
                handles = list(self._session.get_objects({}))  # to the end before any is asked
        for handle in handles:
            yield handle, self._read(handle, self._first)

    def more(self, handle: Any, about: About, names: tuple[str, ...]) -> About:
        """Return what is known of a key with these attributes and what tells its size."""
        size = _SIZE.get(about.get("KEY_TYPE"))
        wanted = tuple(name for name in (*names, size) if name is not None and name not in about)
        return about | self._read(handle, wanted) if wanted else about

    def _read(self, handle: Any, names: tuple[str, ...]) -> About:
        """Return an object's attributes; what it does not tell is absent."""
        if self._direct is None:
            return read_attributes(handle, names)
        question = self._questions.get(names)
        if question is None:
            question = self._questions[names] = Question(numbers(names), numbers(_OF_SOME))
        before = question.apart
        about = unpacked(names, self._direct.read(self._session.handle, handle, question))
        if question.apart - before > _SEVERAL:
            self._first = _FIRST
        return about


def shown_label(label: str) -> str:
    """Return a label with what is no UTF-8 in it replaced."""
    return label.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class _Rows:
    """Makes rows of one token's keys, with what they have in common made once."""

    def __init__(self, token: TokenInfo, slot_id: int | None, public: _Marks, certificates: _Marks) -> None:
        self._token, self._slot_id = token, slot_id
        self._shown = msgspec.structs.asdict(token)
        self._public, self._certificates = public, certificates

    def row(self, kind: Kind, about: About) -> dict[str, Any]:
        """Return the row of one key."""
        label, key_id = about.get("LABEL"), about.get("ID")
        return {
            "uri": format_object_uri(self._token, label=label, id=key_id, type=kind, slot_id=self._slot_id),
            "label": None if label is None else shown_label(label),
            "id": None if key_id is None else key_id.hex(),
            "type": told.type_of(about),
            "bits": told.bits(about),
            "token": self._shown,
            "private": kind == "private",
            "sign": about.get("SIGN") if kind == "private" else False,
            "sensitive": about.get("SENSITIVE"),
            "extractable": about.get("EXTRACTABLE"),
            "never_extractable": about.get("NEVER_EXTRACTABLE"),
            "local": about.get("LOCAL"),
            "always_authenticate": about.get("ALWAYS_AUTHENTICATE"),
            "has_public": kind == "public" or self._public.have(about),
            "has_certificate": self._certificates.have(about),
        }


def rows(slot: Slot, session: Any, uri: KeyUri, direct: Direct | None = None) -> list[dict[str, Any]]:
    """Return a row for each private key that the URI leaves, and for each public key that has no private one.

    Objects are read by the shorter road where `direct` offers it.
    """
    if slot.token is None:
        return []
    reader = _Reader(session, direct)
    marks: dict[Any, _Marks] = defaultdict(lambda: _Marks(set(), set()))
    keys: list[tuple[Any, About]] = []
    found: list[dict[str, Any]] = []
    with translated("C_GetAttributeValue"):
        for handle, about in reader.everything():
            marks[about.get("CLASS")].add(about)
            kind = _KINDS.get(about.get("CLASS"))
            if kind is not None and uri.matches_object(about.get("LABEL"), about.get("ID"), kind):
                keys.append((handle, about))
        made = _Rows(slot.token, slot.needed_id, marks[_PUBLIC], marks[_CERTIFICATE])
        for handle, about in keys:
            if about["CLASS"] == _PRIVATE:
                found.append(made.row("private", reader.more(handle, about, _FLAGS)))
            elif not marks[_PRIVATE].have(about):
                found.append(made.row("public", reader.more(handle, about, _OF_LONE)))
    return sorted(found, key=lambda row: (row["label"] or "", row["id"] or "", row["uri"]))


def row(key: KeyObject, session: Any, slot_id: int | None, direct: Direct | None) -> dict[str, Any]:
    """Return the row of one key; other objects are read by the shorter road where `direct` offers it."""
    reader = _Reader(session, direct)
    public, certificates = _Marks(set(), set()), _Marks(set(), set())
    with translated("C_GetAttributeValue"):
        for _, about in reader.everything():
            if about.get("CLASS") == _PUBLIC:
                public.add(about)
            elif about.get("CLASS") == _CERTIFICATE:
                certificates.add(about)
    return _Rows(key.token, slot_id, public, certificates).row(key.kind, dict(key.about))
