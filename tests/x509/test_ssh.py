"""OpenSSH's line: what other programs read of it is the key, and its comment is one."""

from __future__ import annotations

import base64
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from hsmjwt.jose.keys import RsaKey
from hsmjwt.x509.public import load_public
from hsmjwt.x509.ssh import ssh_line

MADE = {
    "ssh-rsa": lambda: rsa.generate_private_key(65537, 2048),
    "ecdsa-sha2-nistp256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-sha2-nistp384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ecdsa-sha2-nistp521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ssh-ed25519": ed25519.Ed25519PrivateKey.generate,
}


def spki(public) -> bytes:
    return public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(params=MADE)
def made(request):
    """A type by OpenSSH's name, and a key of it as DER."""
    return request.param, spki(MADE[request.param]().public_key())


def test_cryptography_reads_the_same_key(made):
    kind, der = made
    line = ssh_line(load_public(der), "a label")
    assert line.split(" ", 2)[::2] == [kind, "a label"]
    assert spki(serialization.load_ssh_public_key(line.encode())) == der


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_ssh_keygen_reads_it(made):
    line = ssh_line(load_public(made[1]), "adobe-jwt")
    done = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=line.encode(), capture_output=True, check=True)
    assert b" adobe-jwt (" in done.stdout


@pytest.mark.parametrize("bits", [1, 7, 8, 9, 2047, 2048])
def test_a_number_is_as_short_as_it_can_be_and_never_negative(bits):
    """RFC 4251, section 5: a leading zero byte where the first bit is set, and only there."""
    line = ssh_line(RsaKey((1 << bits) - 1, 3))
    blob = base64.b64decode(line.split()[1])
    number = blob[len(b"\0\0\0\7ssh-rsa" + b"\0\0\0\1\3") + 4 :]
    assert int.from_bytes(number, "big", signed=True) == (1 << bits) - 1
    assert len(number) == bits // 8 + 1


@pytest.mark.parametrize(
    ("comment", "shown"),
    [
        ("", ""),
        ("  ", ""),
        ("a\nssh-rsa AAAA evil", " a_ssh-rsa AAAA evil"),
        ("a\r\x1b[31mb\0", " a__[31mb_"),
        ("\u2028\ud800x", " __x"),
        ("prod æ€😀", " prod æ€😀"),
    ],
)
def test_a_comment_never_leaves_its_line(comment, shown):
    line = ssh_line(RsaKey(2**2047 + 1, 65537), comment)
    kind, blob, *rest = line.split(" ", 2)
    assert (kind, "".join(f" {each}" for each in rest)) == ("ssh-rsa", shown)
    assert line.isprintable()
    assert blob.isascii()
