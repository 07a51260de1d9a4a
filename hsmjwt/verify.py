"""Checks every signature before it is released.

A token that fails may give a wrong signature, and a wrong one can betray the key: from a single faulty RSA signature
made with the Chinese remainder theorem the modulus can be factored (Boneh, DeMillo and Lipton, 1997).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, assert_never

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from hsmjwt.errors import DeviceError, KeyUnfitError
from hsmjwt.jose.algorithms import Algorithm, misfit
from hsmjwt.jose.jws import Signer
from hsmjwt.jose.keys import CURVES, EcKey, OkpKey, PublicKey, RsaKey, signature_bytes

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_CURVES: dict[str, ec.EllipticCurve] = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
}

_Check: TypeAlias = Callable[[Algorithm, bytes, bytes], object]  # of message and signature; raises InvalidSignature


def valid(key: PublicKey, alg: Algorithm, message: bytes, signature: bytes) -> bool:
    """Tell whether `signature`, in JOSE's form, is that of `message` by the key (RFC 8017, 8.2.2; RFC 7518, 3.4).

    Whether the algorithm may be used with a key of this size is the caller's question (`algorithms.misfit`). Raises
    KeyUnfitError for numbers that are no public key.
    """
    return _fits(_loaded(key), key, alg, message, signature)


class Verified:
    """A Signer that verifies what another one signed, and lets nothing else through."""

    def __init__(self, signer: Signer) -> None:
        """Wrap `signer`; raises KeyUnfitError where its public key is none."""
        self._signer = signer
        self._key = signer.public_key
        self._check = _loaded(self._key)

    @property
    def public_key(self) -> PublicKey:
        """The key that every signature was verified with."""
        return self._key

    def sign(self, message: bytes, alg: Algorithm) -> bytes:
        """Return the wrapped signer's signature; raises DeviceError where it is not one by the public key.

        Where the algorithm may not be used with the key it raises KeyUnfitError, and nothing is signed.
        """
        reason = misfit(alg, self._key)
        if reason is not None:
            raise KeyUnfitError(reason)
        signature = self._signer.sign(message, alg)
        if _fits(self._check, self._key, alg, message, signature):
            return signature
        wanted = signature_bytes(self._key)
        if not signature:
            reason = "the token returned an empty signature"
        elif len(signature) != wanted:
            reason = f"the token returned a signature of {len(signature)} bytes, where the key makes {wanted}"
        else:
            reason = f"the token's {alg.name} signature does not verify with the key's public half"
        raise DeviceError(
            reason,
            hint="nothing was released; if it stays so, the token is faulty or shows another key's public half",
        )


def _loaded(key: PublicKey) -> _Check:
    try:
        match key:
            case RsaKey():
                return _rsa(key)
            case EcKey():
                return _ec(key)
            case OkpKey():
                return _okp(key)
            case _:
                assert_never(key)
    except (ValueError, OverflowError) as error:
        raise KeyUnfitError(f"the numbers of {key.bits} bits are no usable {key.kty} public key") from error


def _rsa(key: RsaKey) -> _Check:
    loaded = rsa.RSAPublicNumbers(key.e, key.n).public_key()

    def check(alg: Algorithm, message: bytes, signature: bytes) -> None:
        function = _HASHES[alg.hash_name]
        way: padding.AsymmetricPadding = padding.PKCS1v15()
        if alg.pss:  # RFC 7518, section 3.5: no other length of the salt will do
            way = padding.PSS(padding.MGF1(function), function.digest_size)
        loaded.verify(signature, message, way, function)

    return check


def _ec(key: EcKey) -> _Check:
    loaded = ec.EllipticCurvePublicNumbers(key.x, key.y, _CURVES[key.crv]).public_key()
    width = CURVES[key.crv].width

    def check(alg: Algorithm, message: bytes, signature: bytes) -> None:
        r, s = (int.from_bytes(half, "big") for half in (signature[:width], signature[width:]))
        if not r or not s:  # FIPS 186-4, section 6.4; that both are less than the order is OpenSSL's check
            raise InvalidSignature
        loaded.verify(utils.encode_dss_signature(r, s), message, ec.ECDSA(_HASHES[alg.hash_name]))

    return check


def _okp(key: OkpKey) -> _Check:
    loaded = ed25519.Ed25519PublicKey.from_public_bytes(key.x)

    def check(_alg: Algorithm, message: bytes, signature: bytes) -> None:
        loaded.verify(signature, message)

    return check


def _fits(check: _Check, key: PublicKey, alg: Algorithm, message: bytes, signature: bytes) -> bool:
    if alg.kty != key.kty or (alg.crv is not None and alg.crv != getattr(key, "crv", None)):
        return False
    if len(signature) != signature_bytes(key):  # RFC 8017, section 8.2.2, step 1; RFC 7518, section 3.4
        return False
    try:
        check(alg, message, signature)
    except InvalidSignature:
        return False
    return True
