"""Private keys out of files: what is read, what is refused and by which words, and how a key is wrapped."""

from __future__ import annotations

import copy
import json
import pickle
import random
import subprocess

import keyfiles
import pytest
from cryptography.hazmat.primitives import hashes, keywrap, padding
from cryptography.hazmat.primitives.asymmetric import padding as asymmetric
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import load_der_private_key
from keyfiles import TAKEN, der, pem, private, public, public_pem, shreds

from hsmjwt.errors import ConfigError, UsageError
from hsmjwt.jose.keys import RsaKey
from hsmjwt.secret import Secret
from hsmjwt.softkey import read_private

PASSPHRASE = "correct horse, bättery"
FORMS = [(kind, form) for kind in TAKEN for form in ("pkcs8", "old", "ssh") if (kind, form) != ("ed25519", "old")]


def never() -> Secret:
    pytest.fail("a key that is not encrypted needs no passphrase")


def given(text: str = PASSPHRASE):
    return lambda: Secret(text)


def refusal(data: bytes, passphrase=never) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_private(data, passphrase)
    return caught.value


def openssl(*args: str, data: bytes) -> bytes:
    return subprocess.run(["openssl", *args], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_a_key_is_read_from_pem(kind, form):
    assert read_private(pem(kind, form), never).public_key == public(kind)


@pytest.mark.parametrize(("kind", "form"), [each for each in FORMS if each[1] != "ssh"])
def test_a_key_is_read_from_der(kind, form):
    assert read_private(der(kind, form), never).public_key == public(kind)


COMPANY = {
    "crlf without a last line end": lambda text: text.replace(b"\n", b"\r\n")[:-2],
    "line ends spelt out": lambda text: text.strip().replace(b"\n", b"\\n"),
    "line ends spelt out as on Windows": lambda text: text.strip().replace(b"\n", b"\\r\\n"),
    "byte order mark, blank lines, indented": lambda text: b"\xef\xbb\xbf\n\n  " + text.replace(b"\n", b"\n  "),
    "line ends lost": lambda text: text.replace(b"\n", b" "),
    "bag attributes": lambda text: b"Bag Attributes\n    friendlyName: x\nKey Attributes: <No Attributes>\n" + text,
    "public half before it": lambda text: public_pem("rsa") + text,
    "the same key twice": lambda text: text + pem("rsa", "old"),
    "parameters of a curve before it": lambda text: (
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n" + text
    ),
    "a service account's json": lambda text: json.dumps(
        {"type": "service_account", "private_key_id": "1", "private_key": text.decode(), "client_email": "a@b"}
    ).encode(),
    "json that escapes what it need not": lambda text: (
        json.dumps({"private_key": text.decode()}).replace("=", "\\u003d").replace("/", "\\/").encode()
    ),
}


@pytest.mark.parametrize("change", COMPANY.values(), ids=COMPANY)
def test_a_key_is_found_in_whatever_company_it_arrives(change):
    assert read_private(change(pem("rsa")), never).public_key == public("rsa")


def test_old_pem_is_read_with_line_ends_lost_to_windows_and_to_variables():
    text = openssl("rsa", "-traditional", "-aes128", "-passout", f"pass:{PASSPHRASE}", data=pem("rsa"))
    assert b"DEK-Info" in text
    for changed in (text, text.replace(b"\n", b"\r\n"), text.strip().replace(b"\n", b"\\n"), b"\xef\xbb\xbf " + text):
        assert read_private(changed, given()).public_key == public("rsa")


ENCRYPTED = {
    "pbes2": lambda: pem("rsa", passphrase=PASSPHRASE.encode()),
    "pbes2 der": lambda: der("p256", passphrase=PASSPHRASE.encode()),
    "scrypt": lambda: openssl("pkcs8", "-topk8", "-scrypt", "-passout", f"pass:{PASSPHRASE}", data=pem("rsa")),
    "pbes1": lambda: openssl(
        "pkcs8", "-topk8", "-v1", "PBE-SHA1-3DES", "-passout", f"pass:{PASSPHRASE}", data=pem("rsa")
    ),
    **{
        f"old {cipher}": lambda cipher=cipher: openssl(
            "rsa", "-traditional", f"-{cipher}", "-passout", f"pass:{PASSPHRASE}", data=pem("rsa")
        )
        for cipher in ("aes128", "aes256", "des3")
    },
    "old ec": lambda: pem("p384", "old", PASSPHRASE.encode()),
}


@pytest.mark.parametrize("make", ENCRYPTED.values(), ids=ENCRYPTED)
def test_an_encrypted_key_is_read_with_its_passphrase_and_no_other(make):
    data = make()
    asked = []

    def ask() -> Secret:
        asked.append(1)
        return Secret(PASSPHRASE)

    assert read_private(data, ask).public_key in {public(kind) for kind in ("rsa", "p256", "p384")}
    assert len(asked) == 1
    for wrong in ("", "Correct horse", "x" * 4000):
        error = refusal(data, given(wrong))
        assert error.message == "the passphrase does not open the private key"
        assert not wrong or wrong not in str(error.hint)


def test_one_passphrase_is_asked_for_once_for_all_blocks():
    asked = []

    def ask() -> Secret:
        asked.append(1)
        return Secret("one")

    data = pem("rsa", passphrase=b"one") + pem("rsa", passphrase=b"one")
    assert read_private(data, ask).public_key == public("rsa")
    assert asked == [1]


def test_what_the_source_of_the_passphrase_says_is_passed_on():
    def broken() -> Secret:
        raise ConfigError("no such file")

    with pytest.raises(ConfigError, match="no such file"):
        read_private(pem("rsa", passphrase=b"one"), broken)


def altered_label(label: str) -> bytes:
    return pem("rsa").replace(b"PRIVATE KEY", label.encode())


def mixed() -> bytes:
    """A PKCS#1 file whose last number is not that of the key, so that signatures would be wrong."""
    data = bytearray(der("rsa", "old"))
    data[-1] ^= 1
    return bytes(data)


REFUSED = {
    "empty": (lambda: b" \n", "it is empty"),
    "public pem": (lambda: public_pem("rsa"), "PEM of PUBLIC KEY, a public half alone"),
    "public der": (lambda: openssl("pkey", "-pubout", "-outform", "DER", data=pem("rsa")), "it is a public key"),
    "public pkcs1 der": (
        lambda: openssl("rsa", "-RSAPublicKey_out", "-outform", "DER", data=pem("rsa")),
        "it is an RSA public key",
    ),
    "certificate request": (
        lambda: openssl("req", "-new", "-key", "/dev/stdin", "-subj", "/CN=a", data=pem("rsa")),
        "PEM of CERTIFICATE REQUEST",
    ),
    "json": (lambda: b'{"client_email": "a@b"}', "JSON without a private_key"),
    "jwk": (lambda: b'{"kty": "RSA", "d": "AAAA"}', "it is a JWK"),
    "damaged json": (lambda: b'{"private_key": ', "JSON that is damaged"),
    "json with something else": (lambda: b'{"private_key": "AAAA"}', "neither PEM nor DER"),
    "cut pem": (lambda: pem("rsa")[:900], "cut short: it has no END line"),
    "cut der": (lambda: der("rsa")[:900], "cut short, damaged, or no key at all"),
    "der and more": (lambda: der("rsa") + b"x", "cut short, damaged, or no key at all"),
    "not base64": (lambda: pem("rsa").replace(b"M", b"%"), "is not base64"),
    "two keys": (lambda: pem("rsa") + pem("p256"), "2 different private keys"),
    "1024 bits": (lambda: pem("rsa1024"), "its modulus has 1024 bits"),
    "dsa": (lambda: pem("dsa"), "it is a DSA key"),
    "old dsa": (lambda: pem("dsa", "old"), "it is a DSA key"),
    "ed448": (lambda: pem("ed448"), "it is an Ed448 key"),
    "x25519": (lambda: pem("x25519"), "it is an X25519 key"),
    "secp256k1": (lambda: pem("secp256k1"), "it is an EC key on secp256k1"),
    "another curve": (
        lambda: openssl("ecparam", "-name", "sect283k1", "-genkey", "-noout", data=b""),
        "of a type or on a curve that is not known here",
    ),
    "rsa-pss": (
        lambda: openssl("genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048", data=b""),
        "an RSA key for RSASSA-PSS alone",
    ),
    "camellia": (
        lambda: openssl("rsa", "-traditional", "-camellia128", "-passout", "pass:x", data=pem("rsa")),
        "encrypted in a way that is not known here ('CAMELLIA-128-CBC')",
    ),
    "puttys": (lambda: b"PuTTY-User-Key-File-3: ssh-rsa\nEncryption: none\n", "PuTTY's own format"),
    "java key store": (lambda: b"\xfe\xed\xfe\xed\x00\x00\x00\x02", "a Java key store"),
    "ssh public": (lambda: b"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ me", "a public key, in OpenSSH's own format"),
    "utf-16": (lambda: pem("rsa").decode().encode("utf-16"), "UTF-16"),
    "words": (lambda: b"this is no key", "neither PEM nor DER"),
    "pgp": (lambda: b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n-----END PGP PRIVATE KEY BLOCK-----\n", "PGP"),
    "numbers of two keys": (mixed, "no key that is sound"),
}


@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_key_to_sign_with_is_named(make, words):
    error = refusal(make())
    assert words in error.message
    assert error.message.startswith("no private key can be read: ")
    assert not any(piece in f"{error.message} {error.hint}" for piece in shreds(pem("rsa")))


@pytest.mark.parametrize("kind", ["rsa1024", "secp256k1", "ed448", "dsa"])
def test_whoever_has_a_key_that_signs_nothing_hears_which_do(kind):
    assert "takes RSA keys, P-256, P-384, P-521 and Ed25519" in (refusal(pem(kind)).hint or "")


def test_pkcs12_is_named_with_the_way_out(tmp_path):
    certificate = openssl("req", "-x509", "-key", "/dev/stdin", "-subj", "/CN=a", data=pem("rsa"))
    (tmp_path / "c.pem").write_bytes(certificate)
    command = ("pkcs12", "-export", "-inkey", "/dev/stdin", "-in", str(tmp_path / "c.pem"), "-passout", "pass:x")
    data = openssl(*command, data=pem("rsa"))
    error = refusal(data)
    assert "it is a PKCS#12 file" in error.message
    assert "openssl pkcs12 -in FILE -nocerts" in error.hint


def test_a_damaged_file_is_refused_in_our_words_wherever_it_is_damaged():
    chance = random.Random(1)
    whole = {"pem": pem("p256"), "der": der("p256"), "old": der("p256", "old"), "ssh": pem("ed25519", "ssh")}
    for data in whole.values():
        for _ in range(150):
            damaged = bytearray(data[: chance.randrange(1, len(data) + 1)])
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            try:
                read_private(bytes(damaged), given())
            except UsageError as error:
                text = f"{error.message} {error.hint}"
                assert not any(piece in text for piece in (*shreds(pem("p256")), *shreds(pem("ed25519", "ssh"))))


def test_an_enormous_value_is_refused_at_once():
    error = refusal(b"\x30\x84\x00\x10\x00\x00" + bytes(1 << 20))
    assert "bytes are too many for a key" in error.message


def test_a_key_shows_nothing_of_itself_and_is_not_copied():
    soft = read_private(pem("rsa"), never)
    assert repr(soft) == "SoftKey(RSA, 2048 bits)"
    assert f"{soft}" == repr(soft)
    for move in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be pickled"):
            move(soft)


@pytest.mark.parametrize("hash_name", ["sha1", "sha256"])
@pytest.mark.parametrize("form", ["kwp", "pkcs7", "cbc"])
@pytest.mark.parametrize("kind", TAKEN)
def test_a_wrapped_key_is_opened_by_the_transport_key_alone_and_is_the_key(kind, form, hash_name):
    transport = keyfiles.private("rsa-again")
    numbers = transport.public_key().public_numbers()
    soft = read_private(pem(kind), never)
    sealed = soft.sealed(RsaKey(numbers.n, numbers.e), hash_name, form)
    function = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}[hash_name]
    kek = transport.decrypt(sealed.kek, asymmetric.OAEP(asymmetric.MGF1(function), function, None))
    assert len(kek) == 32
    inner = unwrapped(form, kek, sealed)
    loaded = load_der_private_key(inner, None)
    assert loaded.public_key() == private(kind).public_key()
    again = soft.sealed(RsaKey(numbers.n, numbers.e), hash_name, form)
    assert again.body != sealed.body
    assert der(kind) not in sealed.body


def unwrapped(form: str, kek: bytes, sealed) -> bytes:
    if form == "kwp":
        return keywrap.aes_key_unwrap_with_padding(kek, sealed.body)
    if form == "pkcs7":
        unpadder, padded = padding.PKCS7(64).unpadder(), keywrap.aes_key_unwrap(kek, sealed.body)
    else:
        decryptor = Cipher(algorithms.AES(kek), modes.CBC(sealed.iv)).decryptor()
        unpadder, padded = padding.PKCS7(128).unpadder(), decryptor.update(sealed.body) + decryptor.finalize()
    return unpadder.update(padded) + unpadder.finalize()


def test_the_numbers_in_the_clear_are_those_of_pkcs11():
    told = {name: int.from_bytes(value, "big") for name, value in read_private(pem("rsa"), never).attributes().items()}
    numbers = private("rsa").private_numbers()
    public_numbers = rsa.RSAPublicNumbers(told["PUBLIC_EXPONENT"], told["MODULUS"])
    assert numbers == rsa.RSAPrivateNumbers(
        told["PRIME_1"],
        told["PRIME_2"],
        told["PRIVATE_EXPONENT"],
        told["EXPONENT_1"],
        told["EXPONENT_2"],
        told["COEFFICIENT"],
        public_numbers,
    )
    for kind, width in (("p256", 32), ("p384", 48), ("p521", 66)):
        value = read_private(pem(kind), never).attributes()["VALUE"]
        assert (len(value), int.from_bytes(value, "big")) == (width, private(kind).private_numbers().private_value)
    assert read_private(pem("ed25519"), never).attributes() == {"VALUE": private("ed25519").private_bytes_raw()}
