"""Public keys in the one line of OpenSSH's own format, as `authorized_keys` and git hosts take it (sshd(8))."""

from __future__ import annotations

import base64
from typing import assert_never

from hsmjwt.jose.keys import EcKey, OkpKey, PublicKey, RsaKey

_CURVES = {"P-256": "nistp256", "P-384": "nistp384", "P-521": "nistp521"}  # RFC 5656, section 10.1


def ssh_line(key: PublicKey, comment: str = "") -> str:
    """Return the key's type, its bytes in base64 and a comment, without a line end.

    Of the comment only what prints stays, so that it neither begins another line nor drives a terminal.
    """
    kind, *values = _parts(key)
    blob = base64.b64encode(b"".join(map(_string, (kind.encode(), *values)))).decode("ascii")
    printed = "".join(char if char.isprintable() else "_" for char in comment).strip()
    return " ".join(filter(None, (kind, blob, printed)))


def _parts(key: PublicKey) -> tuple[str, *tuple[bytes, ...]]:
    """Return the type and the values behind it (RFC 4253, section 6.6; RFC 5656, 3.1; RFC 8709, 4)."""
    match key:
        case RsaKey():
            return "ssh-rsa", _mpint(key.e), _mpint(key.n)
        case EcKey():
            curve = _CURVES[key.crv]
            return f"ecdsa-sha2-{curve}", curve.encode(), key.point
        case OkpKey():
            return "ssh-ed25519", key.x
        case _:
            assert_never(key)


def _string(data: bytes) -> bytes:
    """Return bytes behind their count (RFC 4251, section 5)."""
    return len(data).to_bytes(4, "big") + data


def _mpint(value: int) -> bytes:
    """Return a positive number in two's complement, as short as can be (RFC 4251, section 5)."""
    return value.to_bytes(value.bit_length() // 8 + 1, "big")
