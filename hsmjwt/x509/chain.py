"""Chains: the certificates of a file in order, leaf first, whatever the file's order and whatever else it holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hsmjwt.jose.keys import PublicKey
from hsmjwt.x509.attestation import is_statement
from hsmjwt.x509.certificate import Certificate, read
from hsmjwt.x509.names import same_name


def leaf_of(every: Iterable[Certificate], key: PublicKey) -> Certificate | None:
    """Return the certificate of a key; of several that which is valid longest, of these the one from the latest day.

    A vendor's statement about the key is none: a YubiKey's module shows one beside each key.
    """
    own = [each for each in every if each.public_key == key and not is_statement(each)]
    return max(own, key=lambda each: (each.not_after, each.not_before), default=None)


def ends(every: Sequence[Certificate]) -> list[Certificate]:
    """Return the certificates that issued none of the others, so that they are no chain above one of them.

    One that a key issued to itself is nobody else's work, and so two such of one name are both ends.
    """
    issued = [each for each in every if not each.self_signed]
    return [each for each in every if not any(may_have_issued(each, other) for other in issued if other is not each)]


def ordered(ders: Iterable[bytes], key: PublicKey) -> list[bytes]:
    """Return the certificate of `key` and above each the one that issued it, as far as they are there.

    Issuers are told by name and key identifier; no signature is looked at. Strangers are left out, and empty is the
    list where there is no certificate of the key. Raises UsageError for what is no certificate.
    """
    left = [read(der) for der in ders]
    at = leaf_of(left, key)
    chain = []
    while at is not None:
        chain.append(at.der)
        left.remove(at)
        at = None if at.self_signed else _issuer(at, left)
    return chain


def _issuer(below: Certificate, among: Iterable[Certificate]) -> Certificate | None:
    """Return who may have issued a certificate; of one name and key, the certificate that is valid longest."""
    fitting = [each for each in among if may_have_issued(each, below)]
    return max(fitting, key=lambda each: (each.not_after, each.not_before), default=None)


def may_have_issued(above: Certificate, below: Certificate) -> bool:
    """Tell whether names and key identifiers say so (RFC 5280, 6.1.3 and 4.2.1.1), and it may be an authority."""
    wanted = below.authority_key_id
    of_key = wanted is None or above.key_id is None or wanted == above.key_id
    return of_key and above.authority is not False and same_name(above.names[0], below.names[1])
