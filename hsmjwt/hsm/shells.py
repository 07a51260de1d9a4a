"""What a killed process leaves on a token beyond what a label tells: objects that are no keys yet.

SoftHSM writes a key's file attribute by attribute, and the process that dies meanwhile is the one that writes it. Such
an object has neither label nor id nor any part of a key, or tells nothing at all.
"""

from __future__ import annotations

from hsmjwt.hsm.attributes import numbers, unpacked
from hsmjwt.hsm.binding import pkcs11
from hsmjwt.hsm.direct import Direct, Question
from hsmjwt.hsm.faults import translated
from hsmjwt.hsm.uri import TokenInfo

_CONTENT = ("LABEL", "ID", "MODULUS", "EC_PARAMS", "EC_POINT")
_ASKED = ("CLASS", "KEY_TYPE", *_CONTENT)
_QUESTION = Question(numbers(_ASKED), numbers(_CONTENT))
_CLASSES = frozenset(int(each) for each in (pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.ObjectClass.PUBLIC_KEY))
_TYPES = frozenset(int(each) for each in (pkcs11.KeyType.RSA, pkcs11.KeyType.EC, pkcs11.KeyType.EC_EDWARDS))


def may_hold_shells(token: TokenInfo) -> bool:
    """Tell whether a token is one whose keys this very process writes into files."""
    return token.model.startswith("SoftHSM")


def shells(direct: Direct, session: int) -> list[int]:
    """Return the numbers of objects that are no keys yet; `session` is a number too, and nothing else uses it."""
    found = []
    with translated("C_GetAttributeValue"):
        for number, values in direct.search(session, (), _QUESTION):
            about = unpacked(_ASKED, values)
            key = about.get("CLASS") in _CLASSES and about.get("KEY_TYPE") in _TYPES
            if not about or (key and not any(about.get(name) for name in _CONTENT)):
                found.append(number)
    return found
