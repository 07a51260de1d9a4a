"""Signatures as certificates hold them, and as JOSE does: how algorithms are named, and the form of ECDSA's."""

from __future__ import annotations

import functools

from asn1crypto import algos, core

from hsmjwt.jose.algorithms import Algorithm, usable_with
from hsmjwt.jose.keys import CURVES, EcKey, PublicKey
from hsmjwt.x509.certificate import Certificate
from hsmjwt.x509.der import INTEGER, DerFault, children, only, sequence


@functools.cache
def identifier(alg: Algorithm) -> bytes:
    """Return how a certificate names an algorithm, as DER (RFC 4055, 3.1 and 5; RFC 5758, 3.2; RFC 8410, 3)."""
    der: bytes = _identifier(alg).dump()
    return der


def _identifier(alg: Algorithm) -> algos.SignedDigestAlgorithm:
    if not alg.hash_name:
        return algos.SignedDigestAlgorithm({"algorithm": "ed25519"})
    if alg.kty == "EC":
        return algos.SignedDigestAlgorithm({"algorithm": f"{alg.hash_name}_ecdsa"})
    if not alg.pss:
        return algos.SignedDigestAlgorithm({"algorithm": f"{alg.hash_name}_rsa", "parameters": core.Null()})
    digest = {"algorithm": alg.hash_name, "parameters": core.Null()}
    parameters = {
        "hash_algorithm": digest,
        "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": digest},
        "salt_length": int(alg.hash_name.removeprefix("sha")) // 8,
    }
    return algos.SignedDigestAlgorithm({"algorithm": "rsassa_pss", "parameters": algos.RSASSAPSSParams(parameters)})


def to_der(alg: Algorithm, signature: bytes) -> bytes:
    """Return a signature in JOSE's form as certificates hold it: ECDSA's as a SEQUENCE of r and s (RFC 3279, 2.2.3)."""
    if alg.kty != "EC":
        return signature
    der: bytes = algos.DSASignature.from_p1363(signature).dump()
    return der


def signature_of(certificate: Certificate, key: PublicKey) -> tuple[Algorithm, bytes] | None:
    """Return algorithm and signature in JOSE's form, as if `key` had made it; None for an algorithm that JOSE has not.

    So that `verify.valid` can say whether `key` did. A damaged ECDSA signature comes as an empty one.
    """
    for alg in usable_with(key):
        if identifier(alg) == certificate.algorithm:
            return alg, _halves(key, certificate.signature) if isinstance(key, EcKey) else certificate.signature
    return None


def _halves(key: EcKey, der: bytes) -> bytes:
    width = CURVES[key.crv].width
    try:
        numbers = children(sequence(only(der)))
        if [each.tag for each in numbers] != [INTEGER, INTEGER]:
            return b""
        halves = [int.from_bytes(each.content, "big", signed=True).to_bytes(width, "big") for each in numbers]
    except (DerFault, OverflowError):
        return b""
    return b"".join(halves)
