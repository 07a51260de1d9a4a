"""Every algorithm signed by a key on a real token, and verified by other people's libraries and by hsmjwt itself."""

from __future__ import annotations

import base64
import json
import struct

import jwt
import pytest
from joserfc import jwk as rfc_jwk
from joserfc import jwt as rfc_jwt

from hsmjwt.demo import Client, DemoServer
from hsmjwt.hsm.ways import WAYS
from hsmjwt.jose.algorithms import ALGORITHMS

# joserfc warns of the name that RFC 9864 gives up, which servers know best.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")

MAKE = """
import os, pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag
from hsmjwt.hsm.attributes import label_mapper
from hsmjwt.jose.keys import CURVES
token = pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1")
session = token.open(rw=True, user_pin="31415926", attribute_mapper=label_mapper())
common = {"store": True, "capabilities": MechanismFlag.SIGN | MechanismFlag.VERIFY}
ED25519 = bytes.fromhex("06032b6570")
def rsa(label, **private):
    more = {Attribute[name]: value for name, value in private.items()}
    return session.generate_keypair(KeyType.RSA, 2048, label=label, id=label.encode(), private_template=more, **common)
def curve(label, name, **private):
    kind, params = (KeyType.EC, CURVES[name].oid) if name in CURVES else (KeyType.EC_EDWARDS, ED25519)
    more = {Attribute[name]: value for name, value in private.items()}
    domain = session.create_domain_parameters(kind, {Attribute.EC_PARAMS: params}, local=True)
    return domain.generate_keypair(label=label, id=label.encode(), private_template=more, **common)
"""
LABELS = {None: "k1", "P-256": "p256", "P-384": "p384", "P-521": "p521", "Ed25519": "ed25519"}
BYTES = {"P-256": 64, "P-384": 96, "P-521": 132, "Ed25519": 64, None: 256}
ON_CURVES = [alg.name for alg in ALGORITHMS.values() if alg.kty == "EC"]
RAW_TOO = [name for name, ways in WAYS.items() if len(ways) == 2]


@pytest.fixture
def make(in_process):
    """Run code that makes keys as other tools do: `rsa(label, **attributes)`, `curve(label, name, **attributes)`."""
    return lambda code: in_process(MAKE + code)


@pytest.fixture
def keys(make):
    """A key on each curve, by its name in small letters; the RSA key `k1` is there anyway."""
    make('for name in ("P-256", "P-384", "P-521", "Ed25519"): curve(name.replace("-", "").lower(), name)')


@pytest.fixture
def run(patched, keys):
    """Run hsmjwt with faults on the key that an algorithm takes: run("-", "ES384", "sign", …)."""

    def call(faults, name, *args, **environ):
        uri = f"pkcs11:token=t1;object={LABELS[ALGORITHMS[name].crv]}"
        return patched(faults, *args, **{"HSMJWT_KEY": uri, **environ})

    return call


@pytest.fixture
def sign(run):
    """Sign by an algorithm, with faults: sign("ES384", "der"); by the key's own one with `named` false."""

    def call(name, faults="-", *args, named=True, **environ):
        flags = ("--alg", name) if named else ()
        return run(faults, name, "sign", "--iss", "i", "--aud", "a", *flags, *args, **environ)

    return call


def segments(token):
    return [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.strip().split(".")]


def exported(run, name, *form):
    done = run("-", name, "key", "export", f"pkcs11:object={LABELS[ALGORITHMS[name].crv]}", *form, HSMJWT_KEY=None)
    assert done.code == 0, done.err
    return done.out


def verified(token, name, pem):
    """Verify by both libraries (PyJWT does not know the name Ed25519), and return the signature."""
    kind = {"RSA": rfc_jwk.RSAKey, "EC": rfc_jwk.ECKey, "OKP": rfc_jwk.OKPKey}[ALGORITHMS[name].kty]
    read = rfc_jwt.decode(token.strip(), kind.import_key(pem), algorithms=[name])
    assert (read.header["alg"], read.claims["iss"]) == (name, "i")
    if name != "Ed25519":
        assert jwt.decode(token.strip(), pem, [name], audience="a")["iss"] == "i"
    header, _, signature = segments(token)
    assert json.loads(header) == {"typ": "JWT", "alg": name}
    assert len(signature) == BYTES[ALGORITHMS[name].crv]
    return signature


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_is_signed_on_the_token_and_verified_by_everybody(sign, run, name, tmp_path):
    done = sign(name)
    assert done.code == 0, done.err
    pem = exported(run, name)
    verified(done.out, name, pem)
    public, jwks = tmp_path / "public.pem", tmp_path / "jwks.json"
    public.write_text(pem)
    jwk = json.loads(exported(run, name, "--jwk"))
    jwks.write_text(json.dumps({"keys": [{member: jwk[member] for member in jwk if member not in ("alg", "kid")}]}))
    uri = f"pkcs11:object={LABELS[ALGORITHMS[name].crv]}"
    for flags in (("--public-key", str(public)), ("--jwks", str(jwks)), ("--key", uri)):
        told = run("-", name, "verify", done.out.strip(), *flags, "--aud", "a", HSMJWT_KEY=None)
        assert (told.code, told.out[:17]) == (0, "valid: signed by "), told.err
    head, body, tail = done.out.strip().split(".")
    wrong = f"{head}.{body}.{tail[:20]}{'A' if tail[20] != 'A' else 'B'}{tail[21:]}"
    assert run("-", name, "verify", wrong, "--public-key", str(public), HSMJWT_KEY=None).code == 7


@pytest.mark.parametrize("crv", LABELS)
def test_the_exported_jwk_is_that_of_other_peoples_libraries(run, crv):
    name = next(name for name, alg in ALGORITHMS.items() if alg.crv == crv)
    pem, jwk = exported(run, name), json.loads(exported(run, name, "--jwk"))
    kind = {"RSA": rfc_jwk.RSAKey, "EC": rfc_jwk.ECKey, "OKP": rfc_jwk.OKPKey}[ALGORITHMS[name].kty]
    theirs = kind.import_key(pem)
    own = {
        member: jwk[member] for member in theirs.as_dict(private=False) if member in ("kty", "crv", "n", "e", "x", "y")
    }
    assert own == {member: theirs.as_dict(private=False)[member] for member in own}
    assert jwk["kid"] == theirs.thumbprint()
    assert jwk["crv"] == crv if crv else "crv" not in jwk


@pytest.mark.parametrize("crv", LABELS)
def test_a_key_signs_its_own_algorithm_where_nobody_names_one(sign, run, crv):
    name = next(name for name, alg in ALGORITHMS.items() if alg.crv == crv)  # the first: EdDSA before Ed25519
    done = sign(name, named=False)
    assert done.code == 0, done.err
    verified(done.out, name, exported(run, name))


@pytest.mark.parametrize("name", RAW_TOO)
def test_what_the_token_does_not_hash_is_hashed_before(sign, run, name):
    whole, raw = WAYS[name]
    faults = f"hashes={name[2:]}" if name in ON_CURVES else "-"
    there = sign(name, faults, "--verbose")
    assert f"signed by CKM_{whole.mechanism}\n" in there.err
    here = sign(name, f"hide={whole.number}", "--verbose")
    assert f"CKM_{whole.mechanism} is passed over: the token does not list it\n" in here.err
    assert f"signed by CKM_{raw.mechanism}\n" in here.err
    pem = exported(run, name)
    for done in (there, here):
        assert done.code == 0, done.err
        verified(done.out, name, pem)


@pytest.mark.parametrize("name", RAW_TOO)
def test_a_mechanism_that_is_refused_is_passed_over(sign, run, name):
    whole, raw = WAYS[name]
    faults = f"hashes={name[2:]}," if name in ON_CURVES else ""
    done = sign(name, f"{faults}refuse={whole.number}", "--verbose")
    assert done.code == 0, done.err
    assert f"the token lists CKM_{whole.mechanism} and refuses it (CKR_MECHANISM_INVALID)\n" in done.err
    assert f"signed by CKM_{raw.mechanism}\n" in done.err
    verified(done.out, name, exported(run, name))


@pytest.mark.parametrize("name", ["RS256", "RS384", "RS512"])
def test_both_ways_of_rs_give_the_same_bytes(sign, name):
    fixed = ("--now", "@1395327936", "--jti", "none")
    assert sign(name, "-", *fixed).out == sign(name, f"hide={WAYS[name][0].number}", *fixed).out != ""


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_token_without_any_way_is_a_device_fault(sign, name):
    faults = ",".join(f"hide={way.number}" for way in WAYS[name])
    done = sign(name, faults)
    assert (done.code, done.out) == (7, "")
    assert f"the token cannot make {name}: it has no CKM_{WAYS[name][0].mechanism}" in done.err


@pytest.mark.parametrize("name", ON_CURVES)
def test_der_from_the_token_becomes_r_and_s_of_fixed_width_on_every_curve(sign, run, name):
    pem = exported(run, name)
    for faults in ("der", f"hashes={name[2:]},der"):
        done = sign(name, faults)
        assert done.code == 0, done.err
        verified(done.out, name, pem)


@pytest.mark.parametrize("name", ON_CURVES)
@pytest.mark.parametrize("faults", ["der,flip", "flip,der", "der,length=40", "length=63", "length=133", "length=0"])
def test_a_signature_on_a_curve_that_is_wrong_or_malformed_is_never_printed(sign, name, faults):
    done = sign(name, faults)
    assert (done.code, done.out) == (7, "")
    assert "nothing was released" in done.err


@pytest.mark.parametrize("name", ["PS256", "PS384", "PS512", "EdDSA", "Ed25519", "RS512"])
@pytest.mark.parametrize("faults", ["flip", "length=63", "length=0"])
def test_a_wrong_signature_of_any_other_kind_is_never_printed(sign, name, faults):
    done = sign(name, faults)
    assert (done.code, done.out) == (7, "")
    assert "nothing was released" in done.err


SEEN = """
import ctypes, patched, sys
from hsmjwt.jose.algorithms import ALGORITHMS
seen = []
def see(before):
    def call(session, mechanism, key):
        number, place, size = ctypes.cast(mechanism, patched.ULONGS)[:3]
        seen.append((number, ctypes.string_at(place, size).hex() if size else bool(place)))
        return before(session, mechanism, key)
    return call
patched.replace("signinit", see)
signer = patched.signer()
for name in sys.argv[1:]:
    signer.sign(b"x", ALGORITHMS[name])
print(seen)
"""


@pytest.mark.parametrize("road", ["direct", "python-pkcs11"])
def test_the_parameter_goes_with_its_mechanism_on_both_roads_and_with_no_other(patched, make, road):
    make('rsa("asks", ALWAYS_AUTHENTICATE=True)')  # a key that asks for its PIN goes by python-pkcs11
    order = ("PS256", "RS256", "PS512", "PS384", "PS384", "RS512", "PS256")
    key = "pkcs11:token=t1;object=" + ("k1" if road == "direct" else "asks")
    done = patched("-", "-c", SEEN, *order, HSMJWT_KEY=key)
    assert done.code == 0, done.err
    parameters = {"PS256": (0x250, 2, 32), "PS384": (0x260, 3, 48), "PS512": (0x270, 4, 64)}
    numbers = {"PS256": 0x43, "PS384": 0x44, "PS512": 0x45, "RS256": 0x40, "RS512": 0x42}
    wanted = [
        (numbers[name], struct.pack("@LLL", *parameters[name]).hex() if name in parameters else False) for name in order
    ]
    assert done.out == f"{wanted}\n"


@pytest.mark.parametrize("name", ["PS256", "ES384", "EdDSA"])
def test_a_key_that_asks_for_its_pin_each_time_signs_by_every_kind_of_mechanism(sign, run, make, name):
    crv = ALGORITHMS[name].crv
    made = f'curve("asks", "{crv}", ALWAYS_AUTHENTICATE=True)' if crv else 'rsa("asks", ALWAYS_AUTHENTICATE=True)'
    make(made)
    done = sign(name, HSMJWT_KEY="pkcs11:token=t1;object=asks")
    assert done.code == 0, done.err
    verified(done.out, name, run("-", name, "key", "export", "pkcs11:object=asks", HSMJWT_KEY=None).out)


@pytest.mark.parametrize(
    ("key", "alg", "said"),
    [
        ("p384", "ES256", "ES256 takes keys on P-256, and this one is on P-384"),
        ("p256", "ES512", "ES512 takes keys on P-521, and this one is on P-256"),
        ("p521", "ES384", "ES384 takes keys on P-384, and this one is on P-521"),
        ("p256", "PS256", "PS256 takes RSA keys, and this one is EC"),
        ("ed25519", "ES256", "ES256 takes EC keys, and this one is OKP"),
        ("k1", "EdDSA", "EdDSA takes OKP keys, and this one is RSA"),
    ],
)
def test_curve_and_algorithm_must_agree(sign, key, alg, said):
    done = sign(alg, HSMJWT_KEY=f"pkcs11:token=t1;object={key}")
    assert (done.code, done.out) == (6, "")
    assert said in done.err


def test_keys_of_every_type_are_shown_with_type_and_size(run):
    rows = json.loads(run("-", "RS256", "key", "list", "--key", "pkcs11:token=t1", "--json", HSMJWT_KEY=None).out)
    assert [(row["label"], row["type"], row["bits"]) for row in rows] == [
        ("ed25519", "ed25519", 256),
        ("k1", "rsa", 2048),
        ("p256", "ec", 256),
        ("p384", "ec", 384),
        ("p521", "ec", 521),
    ]


def test_an_ed25519_key_without_a_public_half_signs_nothing(sign, make):
    make('curve("half", "Ed25519")[0].destroy()')
    done = sign("EdDSA", HSMJWT_KEY="pkcs11:object=half")
    assert (done.code, done.out) == (6, "")
    assert "the token tells no point for the key, and no public half fits it" in done.err


def test_the_public_half_of_an_ed25519_key_is_no_ec_key_of_the_same_id(sign, run, make):
    make("""
public, private = curve("mine", "Ed25519")
other, gone = curve("other", "P-256")
gone.destroy()
other[Attribute.ID] = b"mine"
""")
    done = sign("EdDSA", HSMJWT_KEY="pkcs11:object=mine")
    assert done.code == 0, done.err
    verified(done.out, "EdDSA", run("-", "EdDSA", "key", "export", "pkcs11:object=mine", HSMJWT_KEY=None).out)


def test_a_key_of_every_type_is_found_by_both_roads_with_the_same_answers(patched, keys):
    code = """
import patched
from hsmjwt.hsm.objects import find_signing_key
from hsmjwt.hsm.uri import parse
signer = patched.signer()
session, token, direct = signer._module.session(signer._slot), signer._slot.token, signer._module.library.direct
for label in ("k1", "p256", "p384", "p521", "ed25519"):
    uri = parse(f"pkcs11:object={label}")
    one, other = (find_signing_key(session, uri, token, None, direct=road) for road in (direct, None))
    print(label, one.about == other.about, one.type, one.bits, one.crv, sorted(one.allowed))
"""
    done = patched("-", "-c", code)
    assert done.out.splitlines() == [
        "k1 True rsa 2048 None []",
        "p256 True ec 256 P-256 []",
        "p384 True ec 384 P-384 []",
        "p521 True ec 521 P-521 []",
        "ed25519 True ed25519 256 Ed25519 []",
    ], done


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_server_gives_a_token_for_an_assertion_by_every_algorithm(run, name):
    with DemoServer([Client(client_id="ci", public_key_pem=exported(run, name))]) as server:
        for grant in ("jwt-bearer", "client-assertion"):
            flags = (
                "--token-url",
                server.token_url,
                "--client-id",
                "ci",
                "--grant",
                grant,
                "--iss",
                "ci",
                "--sub",
                "ci",
            )
            done = run("-", name, "token", *flags, "--aud", server.token_url, "--alg", name, "--fresh")
            assert (done.code, done.err) == (0, ""), done.err
            assert done.out.startswith("demo_")
        if name != "ES256":
            other = run("-", "ES256", "token", *flags, "--aud", server.token_url, "--alg", "ES256", "--fresh")
            assert (other.code, other.out) == (10, "")
            assert "alg is not for the registered key" in other.err
