"""Public keys and tokens in the forms that files hold, read, verified and written in software."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hsmjwt.jose.judge import Verdict
    from hsmjwt.jose.jws import Parts
    from hsmjwt.jose.keys import PublicKey


def load_public(data: bytes, *, certified: bool = False) -> PublicKey:
    """Read a public key or the key of a certificate from a file's bytes; nothing but a certificate if `certified`."""
    from hsmjwt.x509 import public as x509

    return x509.load_certified(data) if certified else x509.load_public(data)


def judge(parts: Parts, key: PublicKey, **wanted: Any) -> Verdict:
    """Verify a token's signature in software, then its claims; see hsmjwt.jose.judge."""
    from hsmjwt import verify
    from hsmjwt.jose import judge as judging

    return judging.judge(parts, key, check=verify.valid, **wanted)


def public_pem(key: PublicKey) -> str:
    """Return a public key as PEM."""
    from hsmjwt.x509 import public as x509

    return x509.spki_pem(key)


def public_der(key: PublicKey) -> bytes:
    """Return a public key as DER."""
    from hsmjwt.x509 import public as x509

    return x509.spki_der(key)


def ssh_line(key: PublicKey, comment: str) -> str:
    """Return a public key as OpenSSH's line."""
    from hsmjwt.x509 import ssh

    return ssh.ssh_line(key, comment)
