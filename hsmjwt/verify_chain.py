"""Whether a certificate was signed by another one's key, whatever algorithm authorities sign with.

`verify` knows the algorithms of JOSE, which a vendor's authority need not keep to.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm


def issued(der: bytes, issuer: bytes) -> bool:
    """Tell whether a certificate names `issuer`, both as DER, as its issuer and bears a signature by its key."""
    try:
        above = x509.load_der_x509_certificate(issuer)
        x509.load_der_x509_certificate(der).verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
