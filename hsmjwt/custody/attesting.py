"""A vendor's proof for a key: certificates and roots from the user, looked at when the key is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hsmjwt import verify_chain
from hsmjwt.jose.keys import PublicKey
from hsmjwt.x509.attestation import Proof, examine
from hsmjwt.x509.certificate import read


def prover(attestation: Sequence[bytes], roots: Sequence[bytes]) -> Callable[[PublicKey | None], Proof]:
    """Return what examines a proof for a public key; both are certificates as DER, and the roots are trusted."""
    given, trusted = ([read(der) for der in ders] for ders in (attestation, roots))
    return lambda key: examine(given, trusted, key, time.time(), verify_chain.issued)
