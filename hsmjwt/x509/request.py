"""Certificates and requests to be made: the bytes that a key signs, and the whole once it has signed.

RFC 5280, section 4, for certificates; RFC 2986 for requests (PKCS#10). Each is one function for the bytes to be signed
and `signed`, which puts the signature behind them.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import NamedTuple

from asn1crypto import algos, core, csr, keys, x509

from hsmjwt.errors import UsageError
from hsmjwt.jose.algorithms import Algorithm
from hsmjwt.jose.encoding import quoted
from hsmjwt.jose.keys import PublicKey
from hsmjwt.nearest import did_you_mean
from hsmjwt.x509.alternatives import alternatives_der
from hsmjwt.x509.der import BIT_STRING, SEQUENCE, encoded
from hsmjwt.x509.names import name_der, parse_name
from hsmjwt.x509.public import key_identifier, spki_der
from hsmjwt.x509.signature import identifier, to_der

NEW_USAGES = {"digitalSignature": "digital_signature", "nonRepudiation": "non_repudiation"}
"""What a certificate may say that its key is for, by the names of RFC 5280, and by asn1crypto's."""

_MOST_NAMES = 24576  # bytes; a certificate with more would be one that nobody reads, see certificate.MAX_DER
_FIRST_GENERALIZED = 2050  # the year from which on UTCTime is ambiguous


class Holder(NamedTuple):
    """Whom a certificate is about: RFC 4514 text, alternative names as `dns:…`, and what the key is for."""

    subject: str
    san: Sequence[str]
    key_usage: Sequence[str]


class Validity(NamedTuple):
    """From when until when, in Unix time, both moments included."""

    not_before: int
    not_after: int


def check_holder(holder: Holder) -> None:
    """Raise UsageError where a certificate cannot say so; quotes the piece that is wrong."""
    name = parse_name(holder.subject)
    size = 2 * len(name_der(name)) + len(alternatives_der(holder.san))  # its own issuer, too
    if size > _MOST_NAMES:
        raise UsageError(
            f"subject and alternative names are too long: {size} bytes of a certificate, {_MOST_NAMES} are the limit"
        )
    _usages(holder.key_usage)
    if not name and not holder.san:
        raise UsageError(
            "the subject is empty", hint="--subject 'CN=…,O=…,C=…', or --san for a certificate without one"
        )


def _usages(names: Sequence[str]) -> set[str]:
    """Return key usages by asn1crypto's names."""
    known = {name.lower(): name for name in NEW_USAGES}
    for name in names:
        if name.lower() not in known:
            raise UsageError(
                f"the key usage {quoted(name)} is none that a key for signatures has (RFC 5280, 4.2.1.3)",
                hint=did_you_mean(name, NEW_USAGES, noun="key usages"),
            )
    return {NEW_USAGES[known[name.lower()]] for name in names}


def certificate_to_sign(holder: Holder, key: PublicKey, alg: Algorithm, serial: int, validity: Validity) -> bytes:
    """Return a TBSCertificate that `key` issues to itself, as an end entity, not an authority; raises UsageError."""
    key_id = key_identifier(key)
    name = x509.Name.load(name_der(parse_name(holder.subject)))
    extensions = [
        ("key_identifier", False, core.OctetString(key_id)),
        ("authority_key_identifier", False, x509.AuthorityKeyIdentifier({"key_identifier": key_id})),
        ("basic_constraints", True, x509.BasicConstraints({"ca": False})),
        *_of_holder(holder),
    ]
    made = x509.TbsCertificate(
        {
            "version": "v3",
            "serial_number": serial,
            "signature": algos.SignedDigestAlgorithm.load(identifier(alg)),
            "issuer": name,
            "validity": {"not_before": _time(validity.not_before), "not_after": _time(validity.not_after)},
            "subject": name,
            "subject_public_key_info": keys.PublicKeyInfo.load(spki_der(key)),
            "extensions": _extensions(extensions),
        }
    )
    der: bytes = made.dump()
    return der


def request_to_sign(holder: Holder, key: PublicKey) -> bytes:
    """Return a CertificationRequestInfo, which asks for the extensions that are `key`'s to ask; raises UsageError."""
    wanted = _extensions(_of_holder(holder))
    made = csr.CertificationRequestInfo(
        {
            "version": "v1",
            "subject": x509.Name.load(name_der(parse_name(holder.subject))),
            "subject_pk_info": keys.PublicKeyInfo.load(spki_der(key)),
            "attributes": [{"type": "extension_request", "values": [wanted]}] if wanted else [],
        }
    )
    der: bytes = made.dump()
    return der


def signed(to_be_signed: bytes, alg: Algorithm, signature: bytes) -> bytes:
    """Return certificate or request whole; `signature` is in JOSE's form (RFC 7518, section 3)."""
    return encoded(SEQUENCE, to_be_signed + identifier(alg) + encoded(BIT_STRING, b"\0" + to_der(alg, signature)))


Extensions = list[tuple[str, bool, core.Asn1Value]]


def _of_holder(holder: Holder) -> Extensions:
    found: Extensions = []
    if holder.key_usage:
        found.append(("key_usage", True, x509.KeyUsage(_usages(holder.key_usage))))
    if holder.san:  # critical where there is no other name (RFC 5280, section 4.2.1.6)
        names = x509.GeneralNames.load(alternatives_der(holder.san))
        found.append(("subject_alt_name", not holder.subject.strip(), names))
    return found


def _extensions(found: Extensions) -> list[dict[str, object]]:
    return [{"extn_id": name, "critical": critical, "extn_value": value} for name, critical, value in found]


def _time(moment: int) -> x509.Time:
    """Return a moment as certificates write it (RFC 5280, section 4.1.2.5)."""
    at = datetime.datetime.fromtimestamp(moment, datetime.UTC)
    if at.year < _FIRST_GENERALIZED:
        return x509.Time("utc_time", core.UTCTime(at))
    return x509.Time("general_time", core.GeneralizedTime(at))
