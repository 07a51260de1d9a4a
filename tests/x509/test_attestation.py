"""Proofs of a vendor: whether certificates lead from a key to a given root, and what they state."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from servers import yubikey
from servers.yubikey import EARLY, STATED, device, make, root, statement

from hsmjwt.verify_chain import issued
from hsmjwt.x509.attestation import examine
from hsmjwt.x509.certificate import read
from hsmjwt.x509.public import load_certified

NOW = 1_790_000_000
PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def proof(given, roots, key=None, now=NOW):
    own = load_certified(given[0].der) if key is None else load_certified(key.der)
    return examine([read(each.der) for each in given], [read(each.der) for each in roots], own, now, issued)


def chain(**changed):
    """Root, device and statement; `changed` goes to the device."""
    top = root()
    f9 = device(top, **changed)
    return top, f9, statement(f9)


def test_a_chain_to_the_given_root_is_a_proof_that_states_the_device():
    top, f9, leaf = chain(ca=True, path=0)
    found = proof([leaf, f9], [top])
    assert found.problem is None
    assert found.chain == ("CN=YubiKey PIV Attestation 9a", "CN=Yubico PIV Attestation", "CN=Yubico PIV Root CA")
    assert found.root == top.certificate.fingerprint(hashes.SHA256()).hex()
    assert dict(found.states) == {
        "subject": "CN=YubiKey PIV Attestation 9a",
        "firmware": "5.4.3",
        "serial number": "12345678",
        "PIN and touch": "PIN once a session, touch never",
        "form factor": "USB-A keychain, FIPS series",
    }


def test_what_the_device_certificate_states_is_shown_too():
    top, f9, leaf = chain(stated={"10": b"\x05\x00", "11": b"\x05\x00"})
    states = dict(proof([leaf, f9], [top]).states)
    assert (states["FIPS series"], states["CSPN series"]) == ("yes", "yes")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_the_order_of_the_file_does_not_matter_nor_a_stranger_in_it(order):
    top, f9, leaf = chain()
    given = [(leaf, f9, root("A stranger"))[at] for at in order]
    assert proof(given, [root("Another"), top], key=leaf).problem is None


def test_an_authority_between_root_and_device_is_taken():
    top = make("Yubico Attestation Root 1", ca=True)
    between = make("Yubico Attestation Intermediate", top, ca=True, curve=ec.SECP384R1())
    f9 = device(between, ca=True, path=0)  # its signature: P-384 with SHA-256, which JOSE does not have
    assert proof([statement(f9), f9, between], [top]).problem is None


def test_the_device_certificate_itself_may_be_the_root():
    _, f9, leaf = chain()
    assert proof([leaf], [f9]).problem is None


@pytest.mark.parametrize("own_name", [True, False])
def test_another_root_proves_nothing_not_even_of_the_same_name(own_name):
    _, f9, leaf = chain()
    other = root() if own_name else root("Another Root")
    found = proof([leaf, f9], [other])
    assert "is signed by none of the given certificates and roots" in found.problem
    assert (found.root, found.states) == (None, ())


def test_a_root_among_the_given_certificates_is_not_trusted():
    top, f9, leaf = chain()
    assert "is signed by none" in proof([leaf, f9, top], [root("Another Root")]).problem


def test_a_proof_of_another_key_is_none():
    top, f9, leaf = chain()
    other = statement(f9)
    assert "is for this key" in proof([leaf, f9], [top], key=other).problem


def test_an_ordinary_certificate_of_the_key_attests_nothing():
    top = root()
    leaf = make("a service", top)
    assert "attests nothing" in proof([leaf], [top]).problem


def test_a_key_with_an_attestation_cannot_attest_another_one():
    """Where slot F9 need not say that it is an authority, the certificate of a slot must not be taken for it."""
    top, f9, mine = chain()
    forged = statement(mine)
    assert "does not say that it may issue certificates" in proof([forged, mine, f9], [top]).problem
    assert "does not say that it may issue certificates" in proof([forged, mine], [f9]).problem


def test_only_what_a_root_signed_may_issue_without_saying_so():
    top = make("Root", ca=True)
    between = make("Intermediate", top, ca=True)
    f9 = device(between)
    assert "does not say that it may issue" in proof([statement(f9), f9, between], [top]).problem


@pytest.mark.parametrize("changed", [{"ca": False}, {"ca": True, "usage": "digital_signature"}])
def test_a_device_certificate_that_may_not_issue_issues_nothing(changed):
    top, f9, leaf = chain(**changed)
    assert "may not issue certificates" in proof([leaf, f9], [top]).problem


def test_an_authority_allows_no_more_below_it_than_it_says():
    """As a root of such an authority only: of a root of ours counts its key alone."""
    top = make("Root", ca=True, path=0)
    between = make("Intermediate", top, ca=True, path=0)
    f9 = device(between, ca=True)
    assert "'CN=Intermediate' allows 0 authorities below it" in proof([statement(f9), f9, between], [top]).problem
    between = make("Intermediate", top, ca=True, path=1)
    f9 = device(between, ca=True, path=0)
    assert proof([statement(f9), f9, between], [top]).problem is None


def test_a_statement_that_a_key_makes_of_itself_proves_nothing_even_as_a_root():
    own = make("YubiKey PIV Attestation 9a", ca=True, stated=STATED)
    assert "is signed by none" in proof([own], [own]).problem


@pytest.mark.parametrize("number", [4, 5])  # md5WithRSAEncryption, sha1WithRSAEncryption (RFC 8017, appendix C)
def test_a_signature_over_a_broken_hash_proves_nothing(number):
    top = root()
    f9 = device(top, private=rsa.generate_private_key(65537, 2048))
    leaf = statement(f9)
    assert proof([leaf, f9], [top]).problem is None
    sha256 = bytes.fromhex("2a864886f70d01010b")
    assert leaf.der.count(sha256) == 2
    weak = yubikey.Made(x509.load_der_x509_certificate(leaf.der.replace(sha256, sha256[:-1] + bytes([number]))), None)
    assert "is signed over SHA-1 or MD5" in proof([weak, f9], [top]).problem


@pytest.mark.parametrize("which", ["root", "device", "statement"])
def test_an_expired_certificate_anywhere_in_the_chain_is_no_proof(which):
    dates = {which: {"dates": (EARLY, PAST)}}
    top = root(**dates.get("root", {}))
    f9 = device(top, **dates.get("device", {}))
    leaf = statement(f9, **dates.get("statement", {}))
    assert "is not valid now" in proof([leaf, f9], [top]).problem
    assert proof([leaf, f9], [top], now=PAST.timestamp() - 1).problem is None


def test_a_critical_extension_that_nobody_here_knows_is_refused():
    top, f9, _ = chain()
    leaf = statement(f9, stated={**STATED, "1.2.3.4.5": b"\x05\x00"}, critical=("1.2.3.4.5",))
    assert "critical extension 1.2.3.4.5" in proof([leaf, f9], [top]).problem


@pytest.mark.parametrize(
    ("number", "value"), [("3", b"\x05\x04"), ("7", b"\x04\x01\x05"), ("7", b"\x02"), ("8", b"\x02"), ("9", b"")]
)
def test_a_statement_that_cannot_be_read_is_no_proof(number, value):
    top, f9, _ = chain()
    leaf = statement(f9, stated={**STATED, number: value})
    found = proof([leaf, f9], [top])
    assert f"{yubikey.ARC}{number} " in found.problem
    assert "cannot be read" in found.problem


def test_policies_that_came_later_are_shown_by_number():
    top, f9, _ = chain()
    leaf = statement(f9, stated={**STATED, "8": b"\x20\x09", "9": b"\x2a"})
    states = dict(proof([leaf, f9], [top]).states)
    assert states["PIN and touch"] == "PIN policy 32, touch policy 9"
    assert states["form factor"] == "form 42"


def test_a_key_whose_public_half_is_unknown_has_no_proof():
    top, f9, leaf = chain()
    found = examine([read(leaf.der), read(f9.der)], [read(top.der)], None, NOW, issued)
    assert "public key of the key is not known" in found.problem
