"""Keys as rows of a listing: the shape of `key list --json`.

A token may hold thousands. Each object is asked for no more than its row shows, and what belongs together is found by
what it is called, so that a listing grows with the number of keys and no faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from hsmjwt.hsm import told
from hsmjwt.hsm.attributes import numbers, packed, unpacked
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.direct import Direct, Question
from hsmjwt.hsm.faults import translated
from hsmjwt.hsm.objects import NAMES, KeyObject, Kind, read_attributes
from hsmjwt.hsm.slots import Slot
from hsmjwt.hsm.uri import KeyUri, TokenInfo, format_object_uri

About = dict[str, Any]

_CLASSES = {
    "private": int(pkcs11.ObjectClass.PRIVATE_KEY),
    "public": int(pkcs11.ObjectClass.PUBLIC_KEY),
    "cert": int(pkcs11.ObjectClass.CERTIFICATE),
}
_NAMED = ("CLASS", *NAMES)
_FLAGS = ("SIGN", "SENSITIVE", "EXTRACTABLE", "NEVER_EXTRACTABLE", "LOCAL", "ALWAYS_AUTHENTICATE")
_OF_PRIVATE = (*_NAMED, "KEY_TYPE", *_FLAGS)
_OF_LONE = ("KEY_TYPE", "LOCAL")  # of a public key that belongs to no private one
_RSA = int(pkcs11.KeyType.RSA)
_ON_CURVES = frozenset({int(pkcs11.KeyType.EC), int(pkcs11.KeyType.EC_EDWARDS)})


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
    """Asks objects by the shorter road where the module has it."""

    def __init__(self, session: Any, direct: Direct | None) -> None:
        self._session, self._direct = session, direct
        self._questions: dict[tuple[str, ...], Question] = {}

    def objects(self, kind: str, names: tuple[str, ...]) -> Iterator[tuple[Any, About]]:
        """Yield the objects of a kind: a handle that `read` takes, and these attributes with their class."""
        number = _CLASSES[kind]
        for handle in self._handles(number):
            about = self.read(handle, names)
            if about.get("CLASS") == number:  # some tokens take a template as a hint
                yield handle, about

    def _handles(self, number: int) -> Iterable[Any]:
        if self._direct is not None:
            return self._direct.find(self._session.handle, packed({"CLASS": number}))
        with translated("C_FindObjects"):
            return list(self._session.get_objects({pkcs11.Attribute.CLASS: number}))  # to the end before it is used

    def read(self, handle: Any, names: tuple[str, ...]) -> About:
        """Ask an object for some attributes; what it does not tell is absent."""
        if self._direct is None:
            return read_attributes(handle, names)
        question = self._questions.get(names)
        if question is None:
            question = self._questions[names] = Question(numbers(names))
        with translated("C_GetAttributeValue"):
            return unpacked(names, self._direct.read(self._session.handle, handle, question))

    def with_size(self, handle: Any, about: About) -> About:
        """Add what tells a key's size; asked apart, since some tokens tell nothing where one attribute is absent."""
        kind = about.get("KEY_TYPE")
        if kind == _RSA:
            return about | self.read(handle, ("MODULUS",))
        return about | self.read(handle, ("EC_PARAMS",)) if kind in _ON_CURVES else about


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
            "label": None if label is None else label.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
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
    public, certificates, private = (_Marks(set(), set()) for _ in range(3))
    for _, about in reader.objects("cert", _NAMED):
        certificates.add(about)
    halves = list(reader.objects("public", _NAMED))
    for _, about in halves:
        public.add(about)
    made = _Rows(slot.token, slot.needed_id, public, certificates)
    found = []
    for handle, about in reader.objects("private", _OF_PRIVATE):
        private.add(about)
        if uri.matches_object(about.get("LABEL"), about.get("ID"), "private"):
            found.append(made.row("private", reader.with_size(handle, about)))
    for handle, about in halves:
        if not private.have(about) and uri.matches_object(about.get("LABEL"), about.get("ID"), "public"):
            more = about | reader.read(handle, _OF_LONE)
            found.append(made.row("public", reader.with_size(handle, more)))
    return sorted(found, key=lambda row: (row["label"] or "", row["id"] or "", row["uri"]))


def row(key: KeyObject, session: Any, slot_id: int | None, direct: Direct | None = None) -> dict[str, Any]:
    """Return the row of one key."""
    reader = _Reader(session, direct)
    public, certificates = _Marks(set(), set()), _Marks(set(), set())
    for marks, kind in ((public, "public"), (certificates, "cert")):
        for _, about in reader.objects(kind, _NAMED):
            marks.add(about)
    return _Rows(key.token, slot_id, public, certificates).row(key.kind, dict(key.about))
