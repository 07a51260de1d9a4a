"""A vendor's proof that a key was made on a device: the chain of an attestation certificate, and what it states.

Known is that of a YubiKey's PIV application (developers.yubico.com, PIV attestation): the certificate in slot F9, which
one of Yubico's authorities issued, issues one for a key that was made in another slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from hsmjwt.jose.keys import PublicKey
from hsmjwt.x509.certificate import Certificate
from hsmjwt.x509.der import INTEGER, DerFault, children, only, sequence

Issued = Callable[[bytes, bytes], bool]
"""Tells whether a certificate bears another one's signature, both as DER."""

_ARC: Final = "1.3.6.1.4.1.41482.3."
_FIRMWARE, _SERIAL, _POLICY, _FORM, _FIPS, _CSPN = (f"{_ARC}{number}" for number in (3, 7, 8, 9, 10, 11))
_PIN: Final = {
    1: "never",
    2: "once a session",
    3: "always",
    4: "fingerprint or PIN once",
    5: "fingerprint or PIN always",
}
_TOUCH: Final = {1: "never", 2: "always", 3: "cached for 15 seconds"}
_FORMS: Final = {
    1: "USB-A keychain",
    2: "USB-A nano",
    3: "USB-C keychain",
    4: "USB-C nano",
    5: "USB-C and Lightning",
    6: "USB-A keychain with fingerprint reader",
    7: "USB-C keychain with fingerprint reader",
}
_SERIES_FIPS: Final = 0x80  # of the form factor
_BASIC: Final = "2.5.29.19"
_MD5: Final = "1.2.840.113549.1.1.4"  # md5WithRSAEncryption
_KNOWN: Final = {  # extensions that may be critical: what they say was looked at, or binds nobody here
    *("2.5.29.14", "2.5.29.15", "2.5.29.17", "2.5.29.18", _BASIC, "2.5.29.35", "2.5.29.37"),
    *(_FIRMWARE, _SERIAL, _POLICY, _FORM, _FIPS, _CSPN),
}
_LONGEST: Final = 8  # certificates of a chain


class Proof(NamedTuple):
    """What became of a proof: `problem` says why it is none, None where it holds.

    `chain` are the subjects from the key's certificate to the root, `root` the SHA-256 of the root, and `states` what
    the certificates state of device and key.
    """

    problem: str | None
    chain: tuple[str, ...] = ()
    root: str | None = None
    states: tuple[tuple[str, str], ...] = ()


def examine(
    given: Sequence[Certificate], roots: Sequence[Certificate], key: PublicKey | None, now: float, issued: Issued
) -> Proof:
    """Say whether certificates prove that `key` was made on a device; `roots` are trusted, `now` is Unix time."""
    if key is None:
        return Proof("the public key of the key is not known, so that there is nothing to compare with")
    own = [each for each in given if each.public_key == key]
    if not own:
        return Proof("none of the certificates is for this key: its public key is another one")
    stating = [each for each in own if is_statement(each)]
    if not stating:
        return Proof("the certificate of this key attests nothing: it has none of the extensions of a YubiKey's")
    proofs = [_examine(leaf, given, roots, now, issued) for leaf in stating]
    return next((proof for proof in proofs if proof.problem is None), proofs[0])


def _examine(
    leaf: Certificate, given: Sequence[Certificate], roots: Sequence[Certificate], now: float, issued: Issued
) -> Proof:
    chain, problem = _chain(leaf, given, roots, issued)
    for at, each in enumerate(chain):
        problem = problem or _fault(each, chain[:at], now, above=len(chain) - 1 - at)
    states, fault = _states(chain)
    subjects = tuple(each.subject for each in chain)
    if problem or fault:
        return Proof(problem or fault, subjects)
    return Proof(None, subjects, chain[-1].sha256.hex(), states)


def _chain(
    leaf: Certificate, given: Iterable[Certificate], roots: Sequence[Certificate], issued: Issued
) -> tuple[list[Certificate], str | None]:
    """Return the certificates from the leaf to a root as far as they go, and why they do not reach one."""
    chain, left = [leaf], [each for each in given if each.der != leaf.der]
    while len(chain) < _LONGEST:
        below = chain[-1]
        if below.signature_alg == _MD5 or "sha1" in below.signature_alg.lower():
            return chain, f"'{below.subject}' is signed over SHA-1 or MD5, which proves nothing any more"
        for each in roots:
            if each.der != below.der and issued(below.der, each.der):  # what vouches for itself proves nothing
                return [*chain, each], None
        above = next((each for each in left if issued(below.der, each.der)), None)
        if above is None:
            return chain, f"'{below.subject}' is signed by none of the given certificates and roots"
        left.remove(above)
        chain.append(above)
    return chain, f"the chain is longer than {_LONGEST} certificates"


def _fault(each: Certificate, below: Sequence[Certificate], now: float, *, above: int) -> str | None:
    """Say what is wrong with one certificate of a chain (RFC 5280, section 6.1), `above` others being above it.

    Devices sold for years have a certificate in slot F9 that does not say that it is one of an authority. Such a one is
    taken where a root signed it, and where it does not itself state something about a key: else whoever has a key with
    an attestation could attest any other one with it. Of a root counts its key alone; some limit the length of a chain
    to less than the devices need.
    """
    name = f"'{each.subject}'"
    if not each.not_before <= now <= each.not_after:
        return f"{name} is not valid now"
    unknown = [extension.oid for extension in each.extensions if extension.critical and extension.oid not in _KNOWN]
    if unknown:
        return f"{name} has the critical extension {unknown[0]}, which is not known here"
    if not below or not above:
        return None
    if each.authority is False or (each.key_usage and "keyCertSign" not in each.key_usage):
        return f"{name} may not issue certificates, and issued '{below[-1].subject}'"
    if each.authority is None and (is_statement(each) or above > 1):
        return f"{name} does not say that it may issue certificates, and issued '{below[-1].subject}'"
    most = _path_length(each)
    if most is not None and len(below) - 1 > most:
        return f"{name} allows {most} authorities below it, and there are {len(below) - 1}"
    return None


def _path_length(each: Certificate) -> int | None:
    """Return how many authorities may follow below one (RFC 5280, section 4.2.1.9); None where it does not say."""
    for extension in each.extensions:
        if extension.oid == _BASIC:
            fields = children(sequence(only(extension.value)))
            if fields and fields[-1].tag == INTEGER:
                return int.from_bytes(fields[-1].content, "big", signed=True)
    return None


def is_statement(each: Certificate) -> bool:
    """Tell whether a certificate states something about its key, as that of a slot does and that of F9 does not."""
    return any(extension.oid == _POLICY for extension in each.extensions)


def _states(chain: Sequence[Certificate]) -> tuple[tuple[tuple[str, str], ...], str | None]:
    """Return what leaf and device certificate state, in words; and what of it cannot be read."""
    found = {extension.oid: extension.value for each in chain[1:2] for extension in each.extensions}
    found |= {extension.oid: extension.value for extension in chain[0].extensions}
    readers = {
        _FIRMWARE: ("firmware", _version),
        _SERIAL: ("serial number", _integer),
        _POLICY: ("PIN and touch", _policy),
        _FORM: ("form factor", _form),
        _FIPS: ("FIPS series", lambda _: "yes"),
        _CSPN: ("CSPN series", lambda _: "yes"),
    }
    states = [("subject", chain[0].subject)]
    for oid, (name, read) in readers.items():
        if oid in found:
            text = read(found[oid])
            if text is None:
                return (), f"the extension {oid} ({name}) cannot be read"
            states.append((name, text))
    return tuple(states), None


def _version(value: bytes) -> str | None:
    return ".".join(map(str, value)) if len(value) == 3 else None


def _integer(value: bytes) -> str | None:
    try:
        node = only(value)
    except DerFault:
        return None
    return str(int.from_bytes(node.content, "big")) if node.tag == INTEGER and node.content else None


def _policy(value: bytes) -> str | None:
    if len(value) != 2:
        return None
    pin, touch = (names.get(byte, f"policy {byte}") for names, byte in zip((_PIN, _TOUCH), value, strict=True))
    return f"PIN {pin}, touch {touch}"


def _form(value: bytes) -> str | None:
    if len(value) != 1:
        return None
    kind = value[0] & ~_SERIES_FIPS
    return _FORMS.get(kind, f"form {kind}") + (", FIPS series" if value[0] & _SERIES_FIPS else "")
