"""Attributes between Python's values and a token's bytes, for python-pkcs11 and for the road without it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hsmjwt.hsm.binding import pkcs11

_ULONG = struct.Struct("@L")


def _number(data: bytes) -> int:
    value: int = _ULONG.unpack(data)[0]
    return value


def mechanism_numbers(data: bytes) -> tuple[int, ...] | None:
    """Return an array of CK_ULONG; None for bytes that are none."""
    return struct.unpack(f"@{len(data) // _ULONG.size}L", data) if len(data) % _ULONG.size == 0 else None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


_READ: dict[str, Callable[[bytes], Any]] = {
    "CLASS": _number,
    "KEY_TYPE": _number,
    "LABEL": _text,
    "ID": bytes,
    "MODULUS": bytes,
    "PUBLIC_EXPONENT": bytes,
    "EC_PARAMS": bytes,
    "EC_POINT": bytes,
    "SIGN": any,  # CK_BBOOL: a byte
    "ALWAYS_AUTHENTICATE": any,
    "SENSITIVE": any,
    "EXTRACTABLE": any,
    "NEVER_EXTRACTABLE": any,
    "LOCAL": any,
    "ALLOWED_MECHANISMS": mechanism_numbers,
}


def numbers(names: Iterable[str]) -> tuple[int, ...]:
    """Return the numbers of attributes."""
    return tuple(int(pkcs11.Attribute[name]) for name in names)


def packed(template: Mapping[str, int | str | bytes]) -> list[tuple[int, bytes]]:
    """Return a search template in a token's terms; a text is one that UTF-8 can hold."""
    rows = []
    for name, value in template.items():
        data = value if isinstance(value, bytes) else value.encode() if isinstance(value, str) else _ULONG.pack(value)
        rows.append((int(pkcs11.Attribute[name]), data))
    return rows


def unpacked(names: Iterable[str], values: Iterable[bytes | None]) -> dict[str, Any]:
    """Return by name what a token told of attributes; a number that stands for a name stays one."""
    return {name: _READ[name](data) for name, data in zip(names, values, strict=True) if data is not None}


def mechanism_name(mechanism: int) -> str:
    """Return a mechanism's name without CKM_, an unknown one's number as eight digits of hexadecimal."""
    try:
        return str(pkcs11.Mechanism(mechanism).name).lstrip("_")  # one that python-pkcs11 does not offer itself
    except ValueError:
        return f"0x{mechanism:08x}"


_ENUMS = (
    ("CLASS", pkcs11.ObjectClass),
    ("KEY_TYPE", pkcs11.KeyType),
    ("KEY_GEN_MECHANISM", pkcs11.Mechanism),
)


def label_mapper() -> Any:
    """Return a mapper that survives what tokens hold: labels that are no UTF-8, types of a vendor's own.

    It has the array of mechanisms too that a key allows, in templates as python-pkcs11's Mechanism or by number.
    """
    mapper = pkcs11.attributes.AttributeMapper()
    mapper.register_handler(
        pkcs11.Attribute.LABEL,
        lambda text: str(text).encode("utf-8", "replace"),  # never fails: see the top of objects.py
        _text,
    )
    mapper.register_handler(
        pkcs11.Attribute.ALLOWED_MECHANISMS,
        lambda mechanisms: b"".join(_ULONG.pack(int(each)) for each in mechanisms),
        mechanism_numbers,
    )
    for name in ("START_DATE", "END_DATE"):  # most keys have an empty one, which python-pkcs11 cannot read
        mapper.register_handler(pkcs11.Attribute[name], bytes, bytes)
    for name, enum in _ENUMS:
        mapper.register_handler(pkcs11.Attribute[name], lambda value: _ULONG.pack(int(value)), _known_or_number(enum))
    return mapper


def _known_or_number(enum: Any) -> Callable[[bytes], Any]:
    def unpack(data: bytes) -> Any:
        number = _number(data)
        try:
            return enum(number)
        except ValueError:
            return number

    return unpack
