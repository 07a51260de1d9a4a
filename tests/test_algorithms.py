"""Every algorithm in software: the vectors of the RFCs, the forms of keys and signatures, and what fits what."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from hsmjwt import verify
from hsmjwt.hsm.ways import WAYS
from hsmjwt.jose.algorithms import ALGORITHMS, by_default, misfit, preferred, usable_with
from hsmjwt.jose.encoding import b64u_decode, b64u_encode
from hsmjwt.jose.jwk import thumbprint, to_jwk
from hsmjwt.jose.jwkset import load_set
from hsmjwt.jose.keys import CURVES, EcKey, OkpKey, RsaKey, read_token_okp, read_token_point, signature_bytes
from hsmjwt.x509.public import load_public, spki_der, spki_pem

VECTORS = Path(__file__).parent / "vectors"
RFC = {
    name: json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    for name in ("rfc8037-ed25519", "rfc7515-a4-es512", "rfc7520-42-ps384", "rfc7520-43-es512")
}
ZEROS = {
    crv: json.loads((VECTORS / f"{crv.replace('-', '').lower()}-leading-zeros.json").read_text(encoding="utf-8"))
    for crv in CURVES
}
ORDERS = {  # FIPS 186-4, D.1.2.4 and D.1.2.5
    "P-384": 2**384 - 0x389CB27E0BC8D220A7E5F24DB74F58851313E695333AD68D,
    "P-521": 2**521 - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
}
OPENSSL = {
    "P-256": (ec.SECP256R1(), hashes.SHA256()),
    "P-384": (ec.SECP384R1(), hashes.SHA384()),
    "P-521": (ec.SECP521R1(), hashes.SHA512()),
}
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
RSA_KEY = RsaKey(RSA.public_key().public_numbers().n, 65537)
ED = ed25519.Ed25519PrivateKey.from_private_bytes(b64u_decode(RFC["rfc8037-ed25519"]["d"]))
ED_KEY = OkpKey("Ed25519", b64u_decode(RFC["rfc8037-ed25519"]["jwk"]["x"]))
PSS = [alg for alg in ALGORITHMS.values() if alg.pss]


def of_jwk(jwk):
    """Read a JWK the way a key set is read."""
    (one,) = load_set(json.dumps({name: jwk[name] for name in jwk if name != "d"}).encode()).keys
    return one.key


KEYS = {
    "RSA": RSA_KEY,
    **{crv: of_jwk(vectors["jwk"]) for crv, vectors in ZEROS.items()},
    "Ed25519": ED_KEY,
}
TAKEN = {  # RFC 7518, section 3.1; RFC 8037, section 3.1; RFC 9864, section 2.2
    "RSA": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
    "P-256": ["ES256"],
    "P-384": ["ES384"],
    "P-521": ["ES512"],
    "Ed25519": ["EdDSA", "Ed25519"],
}


@pytest.mark.parametrize("name", RFC)
def test_the_signatures_of_the_rfcs_verify_with_the_keys_of_their_jwks(name):
    vector = RFC[name]
    message, _, tail = vector["jws"].rpartition(".")
    key, alg, signature = of_jwk(vector["jwk"]), ALGORITHMS[vector["alg"]], b64u_decode(tail)
    assert json.loads(b64u_decode(message.partition(".")[0]))["alg"] == alg.name
    assert to_jwk(key) == vector["jwk"]
    assert verify.valid(key, alg, message.encode(), signature)
    assert not verify.valid(key, alg, message.encode() + b"A", signature)
    for at in (0, len(signature) // 2, len(signature) - 1):
        changed = bytearray(signature)
        changed[at] ^= 1
        assert not verify.valid(key, alg, message.encode(), bytes(changed))


def test_key_thumbprint_and_signature_of_rfc_8037():
    vector = RFC["rfc8037-ed25519"]
    assert thumbprint(ED_KEY) == vector["thumbprint"]
    message, _, tail = vector["jws"].rpartition(".")
    assert b64u_encode(ED.sign(message.encode())) == tail
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    assert ED.public_key().public_bytes(*raw) == ED_KEY.x


@pytest.mark.parametrize("crv", ORDERS)
def test_the_vectors_with_leading_zeros_are_made_as_their_files_say(crv):
    curve, function = OPENSSL[crv]
    width = CURVES[crv].width

    def private(number):
        seed = hashlib.sha512(f"hsmjwt {crv} {number}".encode()).digest()
        return ec.derive_private_key(int.from_bytes(seed, "big") % ORDERS[crv], curve)

    zeros = 1 if crv == "P-384" else 2
    for name, at in (("x", 0), ("y", 1)):
        made = private(ZEROS[crv][name]["n"]).private_numbers()
        key = EcKey(crv, made.public_numbers.x, made.public_numbers.y)
        d = b64u_encode(made.private_value.to_bytes(width, "big"))
        assert {**to_jwk(key), "d": d} == ZEROS[crv][name]["jwk"]
        assert key.coordinates[at].startswith(bytes(zeros))
    for name, signature in ZEROS[crv]["signatures"].items():
        made = private(0).sign(signature["message"].encode(), ec.ECDSA(function, deterministic_signing=True))
        assert made.hex() == signature["der"], name


@pytest.mark.parametrize(("crv", "name"), list(itertools.product(CURVES, ("x", "y"))))
def test_a_coordinate_with_leading_zeros_keeps_them_in_every_form(crv, name):
    jwk = {member: value for member, value in ZEROS[crv][name]["jwk"].items() if member != "d"}
    key, width = of_jwk(jwk), CURVES[crv].width
    assert to_jwk(key) == jwk
    x, y = (b64u_decode(jwk[half]) for half in ("x", "y"))
    assert (len(x), len(y)) == (width, width)
    assert {"x": x, "y": y}[name][0] == 0
    assert key.point == b"\x04" + x + y
    assert load_public(spki_der(key)) == load_public(spki_pem(key).encode()) == key
    numbers = serialization.load_der_public_key(spki_der(key)).public_numbers()
    assert (numbers.x, numbers.y, numbers.curve.name) == (key.x, key.y, OPENSSL[crv][0].name)
    head = bytes((4, 2 * width + 1)) if width < 63 else bytes((4, 0x81, 2 * width + 1))
    assert read_token_point(CURVES[crv], head + key.point) == read_token_point(CURVES[crv], key.point) == key
    assert jwt.PyJWK(jwk, ALGORITHM_OF[crv]).key.public_numbers() == numbers


ALGORITHM_OF = {alg.crv: alg.name for alg in ALGORITHMS.values() if alg.kty == "EC"}
SIGNATURES = [(crv, name) for crv, vectors in ZEROS.items() for name in vectors["signatures"]]


@pytest.mark.parametrize(("crv", "name"), SIGNATURES)
def test_leading_zeros_of_r_and_s_belong_to_the_signature(crv, name):
    vector, alg, width = ZEROS[crv]["signatures"][name], ALGORITHMS[ALGORITHM_OF[crv]], CURVES[crv].width
    message = vector.get("message", ZEROS[crv].get("message")).encode()
    jose, der = bytes.fromhex(vector["jose"]), bytes.fromhex(vector["der"])
    key = KEYS[crv]
    assert len(jose) == signature_bytes(key) == 2 * width
    for way in WAYS[alg.name]:
        assert way.finish(der, alg) == way.finish(jose, alg) == jose
    assert verify.valid(key, alg, message, jose)
    pyjwt = jwt.get_algorithm_by_name(alg.name)
    assert pyjwt.verify(message, serialization.load_der_public_key(spki_der(key)), jose)
    r, s = jose[:width], jose[width:]
    for wrong in (r.lstrip(b"\0") + s, r + s.lstrip(b"\0"), r.lstrip(b"\0") + s.lstrip(b"\0"), b"\0" + jose, der):
        assert wrong == jose or not verify.valid(key, alg, message, wrong)


@pytest.mark.parametrize(("kind", "name"), list(itertools.product(KEYS, ALGORITHMS)))
def test_an_algorithm_is_used_with_its_own_type_and_curve_alone(kind, name):
    key, alg = KEYS[kind], ALGORITHMS[name]
    fits = name in TAKEN[kind]
    assert (misfit(alg, key) is None) == fits
    if not fits:
        message = b"m"
        private = {"RSA": RSA, "Ed25519": ED}.get(kind)
        made = private.sign(message) if kind == "Ed25519" else b"\1" * signature_bytes(key)
        assert not verify.valid(key, alg, message, made)


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_has_its_algorithms_in_the_order_of_the_table_and_the_first_by_default(kind):
    assert [alg.name for alg in usable_with(KEYS[kind])] == TAKEN[kind]
    assert by_default(KEYS[kind]).name == TAKEN[kind][0]


@pytest.mark.parametrize(("crv", "other"), list(itertools.permutations(CURVES, 2)))
def test_an_algorithm_of_another_curve_says_no_to_a_signature_that_is_right_on_its_own(crv, other):
    curve, function = OPENSSL[crv]
    private = ec.generate_private_key(curve)
    numbers, width = private.public_key().public_numbers(), CURVES[crv].width
    r, s = utils.decode_dss_signature(private.sign(b"m", ec.ECDSA(function)))
    signature = r.to_bytes(width, "big") + s.to_bytes(width, "big")
    key = EcKey(crv, numbers.x, numbers.y)
    assert verify.valid(key, ALGORITHMS[ALGORITHM_OF[crv]], b"m", signature)
    alg = ALGORITHMS[ALGORITHM_OF[other]]
    assert not verify.valid(key, alg, b"m", signature)
    assert (
        misfit(alg, key) == f"{alg.name} takes keys on {other}, and this one is on {crv} (RFC 7518, 3.4; RFC 8037, 3.1)"
    )


@pytest.mark.parametrize("alg", PSS, ids=lambda alg: alg.name)
def test_a_pss_signature_has_a_salt_as_long_as_its_hash_and_that_hash_throughout(alg):
    functions = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
    right = functions[alg.hash_name]

    def signed(salt, function=right, mask=right):
        return RSA.sign(b"m", padding.PSS(padding.MGF1(mask), salt), function)

    assert verify.valid(RSA_KEY, alg, b"m", signed(right.digest_size))
    longest = padding.PSS.MAX_LENGTH
    for salt in {0, 20, 32, 48, 64, right.digest_size - 1, right.digest_size + 1, longest} - {right.digest_size}:
        assert not verify.valid(RSA_KEY, alg, b"m", signed(salt)), salt
    for other in functions.values():
        if other is not right:
            assert not verify.valid(RSA_KEY, alg, b"m", signed(right.digest_size, mask=other))
            assert not verify.valid(RSA_KEY, alg, b"m", signed(right.digest_size, other, other))
    assert not verify.valid(RSA_KEY, alg, b"m", RSA.sign(b"m", padding.PKCS1v15(), right))


@pytest.mark.parametrize("name", ["RS256", "RS384", "RS512"])
def test_an_rs_signature_is_of_its_own_hash_and_is_no_ps_one(name):
    functions = {"RS256": hashes.SHA256(), "RS384": hashes.SHA384(), "RS512": hashes.SHA512()}
    signature = RSA.sign(b"m", padding.PKCS1v15(), functions[name])
    taken = [
        alg.name for alg in ALGORITHMS.values() if alg.kty == "RSA" and verify.valid(RSA_KEY, alg, b"m", signature)
    ]
    assert taken == [name]


def test_both_names_of_ed25519_mean_the_same_signature():
    signature = ED.sign(b"m")
    assert [name for name, alg in ALGORITHMS.items() if verify.valid(ED_KEY, alg, b"m", signature)] == TAKEN["Ed25519"]


def test_an_ed25519_signature_has_one_form_alone():
    eddsa, signature = ALGORITHMS["EdDSA"], ED.sign(b"m")
    order = 2**252 + 27742317777372353535851937790883648493  # RFC 8032, section 5.1
    s = int.from_bytes(signature[32:], "little")
    for wrong in (
        b"",
        signature[:-1],
        signature + b"\0",
        signature[32:] + signature[:32],
        signature[:32] + (s + order).to_bytes(32, "little"),  # RFC 8032, section 5.1.7: S is less than the order
        bytes(64),
        ED.sign(hashlib.sha512(b"m").digest()),  # as if it were Ed25519ph
    ):
        assert not verify.valid(ED_KEY, eddsa, b"m", wrong)


def test_a_tokens_ed25519_point_stands_in_an_octet_string_a_bit_string_or_alone():
    for told in (b"\x04\x20" + ED_KEY.x, b"\x03\x21\x00" + ED_KEY.x, ED_KEY.x):
        assert read_token_okp(told) == ED_KEY


def test_the_spki_of_an_ed25519_key_is_that_of_rfc_8410():
    der = spki_der(ED_KEY)
    assert der == bytes.fromhex("302a300506032b6570032100") + ED_KEY.x
    assert load_public(der) == load_public(spki_pem(ED_KEY).encode()) == ED_KEY
    assert load_public(base64.b64decode("MCowBQYDK2VwAyEA") + ED_KEY.x) == ED_KEY


@pytest.mark.parametrize(
    ("named", "able", "chosen"),
    [
        (("ES256", "PS256"), ("RS256", "PS256"), "PS256"),
        (("PS256", "RS256"), ("RS256", "PS256"), "PS256"),
        (("ES256",), ("RS256", "PS256"), "ES256"),
        ((), ("RS256", "PS256"), "RS256"),
        (("PS256",), (), "PS256"),
        ((), (), None),
    ],
)
def test_the_first_that_is_named_and_can_be_done_signs(named, able, chosen):
    found = preferred(named, [ALGORITHMS[name] for name in able])
    assert (found and found.name) == chosen
