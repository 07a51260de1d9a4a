"""Keys on the curves of ECDSA: made on the token, signing ES256, and verified by other people's libraries."""

import base64
import hashlib
import json
import re

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from joserfc import jwk
from joserfc import jwt as rfc_jwt

from hsmjwt.demo import Client, DemoServer
from hsmjwt.hsm.uri import parse

CURVE = "pkcs11:token=t1;object=curve"
GENERATE = ("key", "generate", "--key", "pkcs11:token=t1", "--type", "p256", "--label")

MAKE = """
import os, pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters
session = pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(rw=True, user_pin="31415926")
def curve(label, key_id, name="secp256r1", **private):
    more = {Attribute[name]: value for name, value in private.items()}
    params = {Attribute.EC_PARAMS: encode_named_curve_parameters(name)}
    return session.create_domain_parameters(KeyType.EC, params, local=True).generate_keypair(store=True, id=key_id,
        label=label, capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY, private_template=more)
"""


@pytest.fixture
def run(patched):
    """Run hsmjwt on a key named `curve`, with faults: run("flip", "sign", …)."""
    return lambda faults, *args, **environ: patched(faults, *args, **{"HSMJWT_KEY": CURVE, **environ})


@pytest.fixture
def sign(run):
    """Sign with faults by the key named `curve`."""
    return lambda faults="-", *args, **environ: run(faults, "sign", "--iss", "i", "--aud", "a", *args, **environ)


@pytest.fixture
def make(in_process):
    """Run code that makes keys as other tools do: `curve(label, id, name of the curve, **attributes)`."""
    return lambda code: in_process(MAKE + code)


@pytest.fixture
def generated(patched):
    """The URI of a key `curve` that hsmjwt made."""
    made = patched("-", *GENERATE, "curve")
    assert (made.code, made.err) == (0, "")
    return made.out.strip()


@pytest.fixture
def pem(generated, run):
    """The public half of `curve`."""
    return run("-", "key", "export", generated, HSMJWT_KEY=None).out


def verified(token, pem):
    """Verify by both libraries, and return the signature."""
    assert jwt.decode(token.strip(), pem, ["ES256"], audience="a")["iss"] == "i"
    read = rfc_jwt.decode(token.strip(), jwk.ECKey.import_key(pem), algorithms=["ES256"])
    assert read.header == {"typ": "JWT", "alg": "ES256"}
    signature = token.strip().rpartition(".")[2]
    return base64.urlsafe_b64decode(signature + "==")


def test_a_new_key_is_sensitive_stays_inside_and_signs_es256(generated, run, sign, pem):
    about = json.loads(run("-", "key", "show", generated, "--json", HSMJWT_KEY=None).out)
    truths = {"sensitive": True, "extractable": False, "never_extractable": True, "local": True, "sign": True}
    assert {name: about[name] for name in truths} == truths
    assert (about["label"], about["type"], about["bits"], about["has_public"]) == ("curve", "ec", 256, True)
    assert about["uri"] == generated
    done = sign("-", HSMJWT_KEY=generated)
    assert done.code == 0, done.err
    assert len(verified(done.out, pem)) == 64


def test_its_names_come_from_the_public_key(generated, run, pem):
    public = load_pem_public_key(pem.encode())
    assert isinstance(public.curve, ec.SECP256R1)
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert parse(generated).id == hashlib.sha256(point).digest()[:20]
    about = json.loads(run("-", "key", "show", generated, "--json", HSMJWT_KEY=None).out)
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert about["spki_sha256"] == hashlib.sha256(spki).hexdigest()
    assert about["thumbprint"] == jwk.ECKey.import_key(pem).thumbprint()


def test_it_may_sign_and_nothing_else(generated, make):
    private, public = make("""
for found in sorted(session.get_objects({Attribute.LABEL: "curve"}), key=lambda found: found.object_class.name):
    asked = ("SIGN", "DECRYPT", "UNWRAP", "DERIVE", "VERIFY", "ENCRYPT", "WRAP")
    told = found.get_attributes([Attribute[name] for name in asked])
    print(*(name for name in asked if told.get(Attribute[name])))
""").splitlines()
    assert (private, public) == ("SIGN", "VERIFY")


def test_its_public_half_is_exported_in_every_form(generated, run, pem):
    exported = json.loads(run("-", "key", "export", generated, "--jwk", HSMJWT_KEY=None).out)
    there = jwk.ECKey.import_key(pem).as_dict(private=False)
    assert exported == {
        **{name: there[name] for name in ("kty", "crv", "x", "y")},
        "kid": jwk.ECKey.import_key(pem).thumbprint(),
        "use": "sig",
        "alg": "ES256",
    }
    # The public half is there for everybody, without a login.
    anybody = run("-", "key", "export", CURVE, "--pin-source", "none", HSMJWT_KEY=None)
    assert (anybody.code, anybody.out) == (0, pem)


def test_a_listing_tells_both_types(generated, run):
    rows = json.loads(run("-", "key", "list", "--key", "pkcs11:token=t1", "--json", HSMJWT_KEY=None).out)
    assert [(row["label"], row["type"], row["bits"], row["has_public"]) for row in rows] == [
        ("curve", "ec", 256, True),
        ("k1", "rsa", 2048, True),
    ]
    assert rows[0]["uri"] == generated


def test_doctor_names_algorithm_and_mechanism(generated, run):
    said = run("-", "doctor").out
    assert re.search(r"mechanism +ES256 by CKM_ECDSA\n", said)
    assert f"{generated}, 256 bits" in said


def test_the_token_hashes_where_it_can(make, sign, run):
    make('curve("curve", b"5")')  # which allows every mechanism
    pem = run("-", "key", "export", CURVE, HSMJWT_KEY=None).out
    here, there = sign("-", "--verbose"), sign("hashes", "--verbose")
    assert "signed by CKM_ECDSA\n" in here.err
    assert "signed by CKM_ECDSA_SHA256\n" in there.err
    for done in (here, there):
        verified(done.out, pem)
    refused = sign("hashes,refuse=0x1044", "--verbose")
    assert "the token lists CKM_ECDSA_SHA256 and refuses it" in refused.err
    verified(refused.out, pem)


@pytest.mark.parametrize("faults", ["hide=0x1041", "refuse=0x1041"])
def test_a_token_without_any_way_is_a_device_fault(generated, sign, faults):
    done = sign(faults)
    assert (done.code, done.out) == (7, "")
    assert "the token cannot make ES256: it has no CKM_ECDSA_SHA256 or CKM_ECDSA" in done.err


def test_a_der_signature_becomes_one_of_fixed_width(generated, sign, pem):
    for faults in ("der", "hashes,der"):
        done = sign(faults)
        assert done.code == 0, done.err
        assert len(verified(done.out, pem)) == 64


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ("flip", "the token's ES256 signature does not verify"),
        ("flip,der", "the token's ES256 signature does not verify"),
        ("der,flip", "the token's ES256 signature does not verify"),
        ("der,length=60", "a signature of 60 bytes, where the key makes 64"),  # DER that is cut short
        ("length=63", "a signature of 63 bytes, where the key makes 64"),
        ("length=0", "an empty signature"),
        ("length=96", "a signature of 96 bytes"),
    ],
)
def test_a_wrong_signature_is_never_printed(generated, sign, faults, said):
    done = sign(faults)
    assert (done.code, done.out) == (7, "")
    assert said in done.err


@pytest.mark.parametrize(("faults", "code"), [("flip", 7), ("point=0!", 6), ("point=1", 6), ("tell=0x162:1", 7)])
@pytest.mark.parametrize("more", [(), ("--id", "05")])
def test_a_new_key_that_does_not_sign_or_is_not_what_was_asked_for_is_removed(patched, make, faults, code, more):
    done = patched(faults, *GENERATE, "curve", *more)
    assert (done.code, done.out) == (code, "")
    left = make('print([found[Attribute.LABEL] for found in session.get_objects() if found[Attribute.LABEL] != "k1"])')
    assert left == "[]\n"


@pytest.mark.parametrize("mechanism", ["0x140", "0x70"])
def test_a_token_that_makes_no_such_key_says_so(patched, mechanism):
    done = patched(f"keypair={mechanism}", *GENERATE, "curve")
    assert (done.code, done.out) == (7, "")
    assert "C_GenerateKeyPair gave CKR_" in done.err


def test_an_rsa_key_of_the_same_id_is_not_taken_for_the_public_half(make, sign, run):
    make('curve("curve", b"\\1")')  # the id of k1
    done = sign(HSMJWT_KEY="pkcs11:object=curve;id=%01")
    assert done.code == 0, done.err
    verified(done.out, run("-", "key", "export", "pkcs11:object=curve;id=%01", HSMJWT_KEY=None).out)
    assert sign(HSMJWT_KEY="pkcs11:object=k1;id=%01").code == 0


def test_the_public_half_goes_by_its_id_before_its_label(make, sign, run):
    make("""
public, private = curve("curve", b"5")
public[Attribute.LABEL] = "renamed"
other, gone = curve("other", b"6")
gone.destroy()
other[Attribute.LABEL] = "curve"
""")
    done = sign()
    assert done.code == 0, done.err
    verified(done.out, run("-", "key", "export", "pkcs11:object=renamed", HSMJWT_KEY=None).out)
    shown = json.loads(run("-", "key", "show", CURVE, "--json", HSMJWT_KEY=None).out)
    exported = json.loads(run("-", "key", "export", "pkcs11:object=renamed", "--jwk", HSMJWT_KEY=None).out)
    assert shown["thumbprint"] == exported["kid"]


def test_the_public_half_goes_by_its_label_where_none_has_the_id(make, sign, run):
    make('public, private = curve("curve", b"5"); public[Attribute.ID] = b"6"')
    done = sign()
    assert done.code == 0, done.err
    verified(done.out, run("-", "key", "export", CURVE, HSMJWT_KEY=None).out)


def test_a_key_without_a_public_half_signs_nothing(make, sign, run):
    make('public, private = curve("curve", b"5"); public.destroy()')
    for done in (sign(), run("-", "key", "export", CURVE, HSMJWT_KEY=None)):
        assert (done.code, done.out) == (6, "")
        assert "the token tells no point for the key, and no public half fits it" in done.err
        assert "hint: every signature is verified: put the public key on the token" in done.err
    shown = run("-", "key", "show", CURVE, "--json", HSMJWT_KEY=None)
    about = json.loads(shown.out)
    assert (about["type"], about["bits"], about["has_public"]) == ("ec", 256, False)
    assert about.get("thumbprint") is None


def test_two_public_halves_are_none(make, sign):
    make('curve("curve", b"5"); curve("more", b"5")[1].destroy()')
    done = sign()
    assert (done.code, done.out) == (6, "")
    assert "no public half fits it" in done.err


def test_a_public_half_of_another_key_releases_nothing(make, sign):
    make('curve("curve", b"5")[0].destroy(); curve("more", b"5")[1].destroy()')
    done = sign()
    assert (done.code, done.out) == (7, "")
    assert "does not verify with the key's public half" in done.err
    assert "shows another key's public half" in done.err


def test_a_point_that_stands_alone_is_read_and_one_that_is_none_refused(generated, sign, run, pem):
    done = sign("point=2")
    assert done.code == 0, done.err
    verified(done.out, pem)
    for faults, said in (
        ("point=0!", "the token's CKA_EC_POINT is no public key: the point is not on the curve P-256"),
        ("point=1", "CKA_EC_POINT is no public key: the point is not written as 04, x and y"),
        ("point=3", "CKA_EC_POINT is no public key: the point is not written as 04, x and y"),
    ):
        for wrong in (sign(faults), run(faults, "key", "export", CURVE, HSMJWT_KEY=None)):
            assert (wrong.code, wrong.out) == (6, "")
            assert said in wrong.err


@pytest.mark.parametrize(("name", "oid"), [("secp224r1", "06052b81040021"), ("secp256k1", "06052b8104000a")])
def test_a_key_on_another_curve_is_listed_and_refused(make, sign, run, name, oid):
    make(f'curve("curve", b"5", "{name}")')
    said = f"the key is of type ec and is on another curve than P-256, P-384 and P-521 (its CKA_EC_PARAMS is {oid})"
    for done in (sign(), run("-", "key", "export", CURVE, HSMJWT_KEY=None)):
        assert (done.code, done.out) == (6, "")
        assert said in done.err
    for command in (("list", "--key", CURVE), ("show", CURVE)):
        shown = run("-", "key", *command, "--json", HSMJWT_KEY=None)
        assert shown.code == 0, shown.err
        about = json.loads(shown.out)
        about = about[0] if command[0] == "list" else about
        assert (about["type"], about["bits"]) == ("ec", None)
        assert about.get("thumbprint") is None


def test_an_algorithm_for_another_type_of_key_is_refused(generated, sign):
    done = sign("-", "--alg", "RS256")
    assert (done.code, done.out) == (6, "")
    assert "RS256 takes RSA keys, and this one is EC" in done.err
    other = sign("-", "--alg", "ES256", HSMJWT_KEY="pkcs11:object=k1")
    assert (other.code, other.out) == (6, "")
    assert "ES256 takes EC keys, and this one is RSA" in other.err


def test_a_key_that_is_found_is_searched_once_and_so_is_its_public_half(generated, sign, calls):
    assert sign(f"findinit@{calls.file}", HSMJWT_KEY="pkcs11:object=k1").code == 0
    assert calls() == ["findinit"]
    assert sign(f"findinit@{calls.file}").code == 0
    assert calls() == ["findinit"] * 3


def test_a_lost_session_is_replaced(generated, sign, pem):
    done = sign("sign=0xb3*1", "--verbose")
    assert done.code == 0, done.err
    assert "one more try" in done.err
    verified(done.out, pem)


def test_another_key_under_the_same_name_is_refused(generated, patched):
    """The key is deleted and made anew, with label and id as before, between two signatures."""
    code = """
import patched
from hsmjwt.errors import KeyUnfitError
from hsmjwt.hsm import keygen
from hsmjwt.hsm.objects import search
from hsmjwt.hsm.uri import KeyUri
from hsmjwt.jose.algorithms import ALGORITHMS
signer = patched.signer()
signer.sign(b"x", ALGORITHMS["ES256"])
module, slot = signer._module, signer._slot
session = module.session(slot, write=True)
(*_, old) = [key for key in search(session, KeyUri(object="curve"), slot.token) if not key.handle.destroy()]
keygen.generate(session, keygen.NewKey(keygen.KINDS["p256"], "curve", old.id), slot.token, None)
try:
    signer.sign(b"x", ALGORITHMS["ES256"])
except KeyUnfitError as error:
    print(error.exit_code, error.message)
"""
    done = patched("-", "-c", code, HSMJWT_KEY=CURVE)
    assert re.match(r"6 another key took the place of 'pkcs11:token=t1;.*object=curve", done.out), done


def test_a_key_that_asks_for_the_pin_each_time_signs(make, sign, run):
    make('curve("curve", b"5", ALWAYS_AUTHENTICATE=True)')
    done = sign()
    assert done.code == 0, done.err
    verified(done.out, run("-", "key", "export", CURVE, HSMJWT_KEY=None).out)


def test_what_it_signed_is_verified_by_hsmjwt_too(generated, sign, run, pem, tmp_path):
    file = tmp_path / "curve.pem"
    file.write_text(pem)
    token = sign().out.strip()
    assert run("-", "verify", token, "--public-key", str(file)).code == 0
    assert run("-", "verify", token, "--key", CURVE).code == 0
    other = run("-", "verify", token, "--key", "pkcs11:object=k1")
    assert other.code == 7
    assert "ES256 takes EC keys, and this one is RSA" in other.err
    header, claims, signature = token.split(".")
    swapped = f"{header}.{claims}.{signature[43:]}{signature[:43]}"
    assert run("-", "verify", swapped, "--public-key", str(file)).code in (2, 7)


@pytest.mark.parametrize("grant", ["jwt-bearer", "client-assertion"])
def test_a_server_gives_a_token_for_its_assertion(generated, run, pem, grant):
    with DemoServer([Client(client_id="ci", public_key_pem=pem)]) as server:
        flags = ("--token-url", server.token_url, "--client-id", "ci", "--grant", grant, "--iss", "ci", "--sub", "ci")
        done = run("-", "token", *flags, "--aud", server.token_url)
        assert (done.code, done.err) == (0, ""), done.err
        assert done.out.startswith("demo_")
        other = run("-", "token", *flags, "--aud", server.token_url, HSMJWT_KEY="pkcs11:object=k1")
        assert (other.code, other.out) == (10, "")
        assert "alg is not for the registered key" in other.err
