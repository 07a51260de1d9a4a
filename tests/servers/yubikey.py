"""The certificates of a YubiKey's PIV attestation, made here: root, device (slot F9) and statement (a key's slot)."""

from __future__ import annotations

import datetime
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier

ARC = "1.3.6.1.4.1.41482.3."
LATE = datetime.datetime(2052, 4, 17, tzinfo=datetime.UTC)
EARLY = datetime.datetime(2016, 3, 14, tzinfo=datetime.UTC)
STATED = {  # as developers.yubico.com describes them: firmware 5.4.3, a serial number, PIN and touch, form factor
    "3": b"\x05\x04\x03",
    "7": b"\x02\x04\x00\xbc\x61\x4e",
    "8": b"\x02\x01",
    "9": b"\x81",
}


class Made(NamedTuple):
    """A certificate and the key in it, where that is ours."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)


def make(name, issuer=None, public=None, *, ca=None, path=None, usage=None, stated=None, dates=(EARLY, LATE), **more):
    """Make a certificate; `issuer` is a Made or None for one that signs itself, `public` the key of somebody else."""
    key = None
    if public is None:
        key = more.get("private") or ec.generate_private_key(more.get("curve", ec.SECP256R1()))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(public if key is None else key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dates[0])
        .not_valid_after(dates[1])
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path), critical=True)
    if usage is not None:
        fields = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
        flags = dict.fromkeys((*fields, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
        builder = builder.add_extension(x509.KeyUsage(**{**flags, usage: True}), critical=True)
    for number, value in (stated or {}).items():
        oid = number if number.count(".") > 3 else ARC + number
        builder = builder.add_extension(
            x509.UnrecognizedExtension(ObjectIdentifier(oid), value), critical=number in more.get("critical", ())
        )
    signer = key if issuer is None else issuer.key
    return Made(builder.sign(signer, more.get("hash", hashes.SHA256())), key)


def root(name="Yubico PIV Root CA", **changed):
    """A root as devices have it: it allows no authority below itself, though there is one."""
    return make(name, ca=True, path=0, usage="key_cert_sign", **changed)


def device(above, **changed):
    """The certificate of slot F9, which does not say on many devices that it is one of an authority."""
    return make("Yubico PIV Attestation", above, **changed)


def statement(above, public=None, **changed):
    """What slot F9 issues for a key that was made in another slot."""
    return make("YubiKey PIV Attestation 9a", above, public, **{"stated": STATED, **changed})
