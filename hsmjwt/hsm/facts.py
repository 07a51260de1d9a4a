"""What a token tells of its private keys, in the terms that a policy asks in, and of itself.

What the token does not tell is None.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from hsmjwt.errors import KeyNotFoundError, KeyUnfitError
from hsmjwt.hsm import told
from hsmjwt.hsm.attributes import mechanism_name
from hsmjwt.hsm.inventory import FLAGS, FLAGS_OF_PUBLIC, Inventory, Survey, Thing
from hsmjwt.hsm.module import Module
from hsmjwt.hsm.objects import KeyObject
from hsmjwt.hsm.slots import Slot
from hsmjwt.jose.keys import PublicKey

Stated = dict[str, Any]
"""Facts by the names that policies use; None for what is not told."""

_UNAVAILABLE: Final = (1 << 8 * struct.calcsize("@L")) - 1  # CK_UNAVAILABLE_INFORMATION
_SHARED: Final = ("MODULUS", "PUBLIC_EXPONENT", "EC_PARAMS", "EC_POINT")  # attributes of both halves
_RAW: Final = {  # mechanisms that sign what is not hashed yet, or was hashed by somebody else
    "rsa": ("RSA_PKCS", "RSA_X_509", "RSA_PKCS_PSS", "RSA_9796", "RSA_X9_31", "RSA_PKCS_TPM_1_1"),
    "ec": ("ECDSA",),
    "ed25519": (),
}


class KeyFacts(NamedTuple):
    """What a token tells of one private key: `stated` by the names of policies, and certificates beside it in DER.

    Not `whole` is what the token shows before a login: what was not found may yet be there.
    """

    label: str | None
    id: bytes | None
    stated: Stated
    public_key: PublicKey | None
    certificates: tuple[bytes, ...]
    whole: bool


def of_token(module: Module, slot: Slot, session: Any) -> list[KeyFacts]:
    """Return the facts of every private key that the session shows, in the token's order."""
    inventory = Inventory(module, session)
    survey = inventory.everything()
    return _facts(inventory, survey, survey.private, frozenset(module.mechanisms(slot)), whole=module.shows_all(slot))


def of_key(module: Module, slot: Slot, session: Any, key: KeyObject) -> KeyFacts:
    """Return the facts of one private key that was found; raises KeyNotFoundError where it is gone meanwhile."""
    inventory = Inventory(module, session)
    survey = inventory.around(key)
    chosen = [thing for thing in survey.private if thing.number == key.handle.handle]
    if not chosen:
        raise KeyNotFoundError(f"the key '{key.uri(slot.needed_id)}' is gone")
    return _facts(inventory, survey, chosen, frozenset(module.mechanisms(slot)), whole=module.shows_all(slot))[0]


_Marked = dict[tuple[str, Any], list[Thing]]


def _marked(things: Iterable[Thing]) -> _Marked:
    """Return objects by their id, and by their label."""
    found: _Marked = defaultdict(list)
    for thing in things:
        for name in ("ID", "LABEL"):
            if thing.about.get(name):
                found[name, thing.about[name]].append(thing)
    return found


def _beside(thing: Thing, marked: _Marked) -> list[Thing]:
    """Return the objects with the same id, else those with the same label."""
    for name in ("ID", "LABEL"):
        found = marked.get((name, thing.about.get(name)), [])
        if found:
            return found
    return []


def _half(thing: Thing, public: _Marked) -> Thing | None:
    """Return the public half of a private key; None where there is not exactly one, or another key's."""
    found = [half for half in _beside(thing, public) if half.type == thing.type]
    if len(found) != 1 or (thing.material and thing.material != found[0].material):
        return None
    return found[0]


def _facts(
    inventory: Inventory, survey: Survey, chosen: Iterable[Thing], mechanisms: frozenset[str], *, whole: bool
) -> list[KeyFacts]:
    """Return the facts of the chosen keys among all that were looked at."""
    private, public, certificates = (_marked(things) for things in survey)
    halves = {thing.number: _half(thing, public) for thing in survey.private}
    pairs = {thing.number: _pair(inventory, thing, halves[thing.number]) for thing in survey.private}
    count = Counter(pair.material for pair in pairs.values() if pair is not None)
    hidden = {_kind(thing) for thing in survey.private if pairs[thing.number] is None}
    made = []
    for thing in chosen:
        half, pair = halves[thing.number], pairs[thing.number]
        flags = {} if half is None else {name: half.about.get(cka) for name, cka in FLAGS_OF_PUBLIC.items()}
        stated = {
            **_of_itself(pair or thing, mechanisms),
            "public_half": half is not None or (False if whole else None),
            **flags,
            "same_label": _others(private, "LABEL", thing) if whole else None,
            "same_id": _others(private, "ID", thing) if whole else None,
            "same_public_key": _copies(pair, count, hidden) if whole else None,
        }
        found = filter(None, map(inventory.certificate, _beside(thing, certificates)))
        label, key_id = (thing.about.get(name) for name in ("LABEL", "ID"))
        made.append(KeyFacts(label, key_id, stated, _public_key(pair), tuple(found), whole))
    return made


def _pair(inventory: Inventory, thing: Thing, half: Thing | None) -> Thing | None:
    """Return a private key with what its public half tells of both; None where the public key is told nowhere."""
    if thing.material is None and half is not None:
        thing = Thing(
            thing.number, {**{name: half.about[name] for name in _SHARED if name in half.about}, **thing.about}
        )
    elif thing.material is None and thing.type in ("ec", "ed25519"):
        thing = inventory.point(thing)
    return None if thing.material is None else thing


def _public_key(pair: Thing | None) -> PublicKey | None:
    """Return the public key; None where it is told nowhere, or is none that is used here."""
    try:
        return None if pair is None else told.public_key(pair.about)
    except KeyUnfitError:
        return None


def _others(private: _Marked, name: str, thing: Thing) -> int | None:
    """Return how many other private keys have the same label or id; an empty one is nobody's."""
    value = thing.about.get(name)
    return None if value is None else max(0, len(private.get((name, value), ())) - 1)


def _kind(thing: Thing) -> tuple[str | None, bytes | None]:
    return thing.type, thing.about.get("EC_PARAMS")


def _copies(pair: Thing | None, count: Counter[Any], hidden: set[tuple[str | None, bytes | None]]) -> int | None:
    """Return how many other private keys have the same public key.

    None where one of the `hidden` kinds, keys whose public key is told nowhere, could be this key once more.
    """
    if pair is None or hidden & {_kind(pair), (pair.type, None), (None, None)}:
        return None
    return count[pair.material] - 1


def _of_itself(thing: Thing, mechanisms: frozenset[str]) -> Stated:
    """Return what the private object tells."""
    about, kind = thing.about, thing.type
    allowed = told.allowed(about)
    stated: Stated = {"type": kind, "bits": told.bits(about)}
    if kind == "rsa":
        exponent = about.get("PUBLIC_EXPONENT")
        stated["public_exponent"] = int.from_bytes(exponent, "big") if exponent else None
    elif kind in ("ec", "ed25519"):
        curve = about.get("EC_PARAMS")
        stated["curve"] = (told.curve_name(about) or f"another one ({curve.hex()})") if curve else None
    return {
        **stated,
        **{name: about.get(cka) for name, cka in FLAGS.items()},
        "key_gen_mechanism": _made_by(about.get("KEY_GEN_MECHANISM")),
        "allowed_mechanisms": None if allowed is None else tuple(sorted(allowed)),
        "hash_on_token": _hashes(kind, allowed, mechanisms),
        "start_date": _date(about.get("START_DATE")),
        "end_date": _date(about.get("END_DATE")),
    }


def _made_by(mechanism: int | None) -> str | None:
    if mechanism is None:
        return None
    return "none" if mechanism == _UNAVAILABLE else mechanism_name(mechanism)


@functools.lru_cache(maxsize=64)  # most keys of a token are alike in this
def _hashes(kind: str | None, allowed: frozenset[str] | None, mechanisms: frozenset[str]) -> bool | None:
    """Tell whether whatever the key signs is hashed by the token: no mechanism that it may use takes a ready hash.

    A key that is bound to no mechanism may use all that the token has.
    """
    if kind not in _RAW:
        return None
    usable = {name for name in (allowed & mechanisms if allowed else mechanisms) if _signs(kind, name)}
    raw = usable.intersection(_RAW[kind])
    if usable == raw:
        return False
    strange = any(name.startswith("0x") for name in allowed or mechanisms)  # a vendor's own may sign what it will
    return None if (raw and allowed is None) or (strange and not raw) else not raw


def _signs(kind: str, mechanism: str) -> bool:
    """Tell whether a mechanism signs with a key of this type."""
    match kind:
        case "rsa":
            return mechanism in _RAW["rsa"] or (mechanism.startswith("SHA") and "_RSA_" in mechanism)
        case "ec":
            return mechanism == "ECDSA" or mechanism.startswith("ECDSA_SHA")
        case _:
            return mechanism == "EDDSA"


def _date(value: bytes | None) -> str | None:
    """Return a CK_DATE such as 2031-11-02; `none` where the key has none (PKCS#11 2.40, section 3.4)."""
    if value is None:
        return None
    text = value.strip(b"\0 ").decode("ascii", "replace")
    if not text:
        return "none"
    if len(text) != 8 or not text.isdecimal():
        return None
    try:
        return datetime.date(int(text[:4]), int(text[4:6]), int(text[6:])).isoformat()
    except ValueError:
        return None


def of_place(module: Module, slot: Slot, *, digest: bool = True) -> Stated:
    """Return what module and token tell of themselves, with `digest` the SHA-256 of the module's file, too."""
    token, library = slot.token, module.library.lib
    assert token is not None  # noqa: S101 - find_token returns no other
    return {
        "token_label": token.label,
        "token_serial": token.serial,
        "token_model": token.model,
        "token_manufacturer": token.manufacturer,
        "token_firmware": _version(slot.opener.firmware_version),
        "token_hardware": _version(slot.opener.hardware_version),
        "token_flags": slot.flags,
        "module_path": module.choice.real,
        "module_sha256": _digest(module.choice.real) if digest else None,
        "module_description": library.library_description,
        "module_manufacturer": library.manufacturer_id,
        "module_version": _version(library.library_version),
    }


def _digest(path: str) -> str | None:
    """Return the SHA-256 of a file; None where it is gone, as an update of the module leaves it."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _version(pair: Sequence[int]) -> str:
    return ".".join(map(str, pair))
