"""How a rotation names what it makes: the next key's label, and whom its certificate is about."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any, Final

from hsmjwt.x509.certificate import read
from hsmjwt.x509.names import escaped

_DATED: Final = re.compile(r"-\d{4}-\d{2}-\d{2}(\.\d+)?$")
_LONGEST_NAME: Final = 64  # characters of a CN (RFC 5280, appendix A.1)


def dated(label: str, day: str) -> str:
    """Return a label with a day behind it, in the place of an earlier one."""
    return f"{_DATED.sub('', label)}-{day}"


def free(label: str, taken: Callable[[str], bool]) -> str:
    """Return the label, with a number behind it where it is taken."""
    number, found = 1, label
    while taken(found):
        number += 1
        found = f"{label}.{number}"
    return found


def subject(old: dict[str, Any], label: str) -> str:
    """Return whom the new certificate is about: as the one in the old key's JWK says, else by the label (RFC 4514)."""
    chain = old.get("x5c")
    named = read(base64.b64decode(chain[0])).subject if chain else ""
    return named or "CN=" + escaped(label[:_LONGEST_NAME].strip() or "key")
