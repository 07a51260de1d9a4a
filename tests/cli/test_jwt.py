"""`hsmjwt inspect` and `hsmjwt verify`: what a JWT says, whether a key stands behind it, how it is read."""

from __future__ import annotations

import base64
import datetime
import json
import time

import pytest
from cli.checks import refused, told
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils
from cryptography.x509.oid import NameOID

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Issuer:
    """A key in software that signs anything, as a careless issuer would; its public half lies in a file."""

    def __init__(self, folder) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        self.pem = folder / "key.pem"
        spki = serialization.PublicFormat.SubjectPublicKeyInfo
        self.pem.write_bytes(self.key.public_key().public_bytes(serialization.Encoding.PEM, spki))

    def sign(self, claims: str, header: str = '{"alg":"RS256"}') -> str:
        data = f"{b64u(header.encode())}.{b64u(claims.encode())}"
        return f"{data}.{b64u(self.key.sign(data.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def token(self) -> str:
        """A good token whose signature has each character that an old alphabet writes otherwise."""
        for number in range(100):
            token = self.sign(json.dumps({"aud": "a", "n": number}))
            if {"-", "_"} <= set(token.rpartition(".")[2]):
                return token
        raise AssertionError


def certificate_of(key, signer) -> bytes:
    """A certificate as PEM, long out of date."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    moment = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    built = x509.CertificateBuilder(name, name, key, 1, moment, moment.replace(year=2021))
    return built.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture
def verify(quick, issuer):
    def run(token: str, *args: str):
        return quick("verify", "-", "--public-key", str(issuer.pem), *args, stdin=token.encode())

    return run


def test_verify_says_yes_to_each_form_of_the_key(quick, issuer, token, tmp_path):
    public = issuer.key.public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "k.der").write_bytes(der)
    (tmp_path / "c.pem").write_bytes(certificate_of(public, issuer.key))
    good = issuer.token()
    for flags in (("--public-key", str(issuer.pem)), ("--public-key", "k.der"), ("--certificate", "c.pem")):
        done = quick("verify", good, *flags)
        assert (done.code, done.out, done.err) == (0, f"valid: signed by {flags[1]}\n", "")
    refused(quick("verify", good), 7, "the signature does not verify")  # HSMJWT_KEY is another key
    signed = quick("sign", "--iss", "i", "--aud", "a").out
    assert quick("verify", "-", "--key", token.uri, stdin=signed.encode(), HSMJWT_KEY=None).code == 0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--aud", "b"), "aud"),
        (("--iss", "j"), "iss"),
        (("--typ", "JWT"), "typ"),
        (("--aud", "b", "--aud", "c"), "aud"),
    ],
)
def test_verify_compares_what_flags_name(verify, issuer, flags, reason):
    signed = issuer.sign('{"iss":"i","aud":["a","x"]}', '{"alg":"RS256","typ":"at+jwt"}')
    refused(verify(signed, *flags), 8, f"the token is not valid: {reason}")
    assert verify(signed, "--aud", "x", "--iss", "i", "--typ", "at+jwt").code == 0


def test_verify_judges_times_with_a_leeway_and_not_at_all_where_told_so(verify, issuer):
    now = int(time.time())
    expired, early = issuer.sign(f'{{"exp":{now - 5}}}'), issuer.sign(f'{{"nbf":{now + 50}}}')
    refused(verify(expired), 8, "it expired at")
    refused(verify(early), 8, "valid")
    assert verify(expired, "--leeway", "1m").code == verify(early, "--leeway", "1m").code == 0
    assert verify(expired, "--no-time").code == verify(early, "--no-time").code == 0


def test_a_verdict_in_json_is_on_stdout_whatever_it_is(verify, issuer):
    good = verify(issuer.token(), "--json")
    assert good.code == 0
    assert json.loads(good.out) == {
        "valid": True,
        "header": {"alg": "RS256"},
        "claims": json.loads(good.out)["claims"],
        "key": str(issuer.pem),
        "reason": None,
    }
    bad = verify(issuer.token()[:-4] + "AAAA", "--json")
    verdict = json.loads(bad.out)
    assert (bad.code, verdict["valid"]) == (7, False)
    assert told(bad)["message"] == f"the token is not valid: {verdict['reason']}"


@pytest.mark.parametrize("alg", ["none", "None", "HS256", "ES256", "RS512", "PS256", "", "rs256"])
def test_no_other_algorithm_fits_the_key(verify, issuer, alg):
    refused(verify(issuer.sign("{}", json.dumps({"alg": alg}))), 7, "the token is not valid: ")


def test_an_unsigned_token_and_one_with_crit_are_not_valid(verify, issuer):
    unsigned = b64u(b'{"alg":"none"}')
    assert verify(f"{unsigned}.e30.").code == 7
    header = '{"alg":"RS256","crit":["exp"],"exp":1}'
    refused(verify(issuer.sign("{}", header)), 7, "crit demands that 'exp' is understood")
    refused(verify(issuer.sign("{}", '{"alg":"RS256","crit":[]}')), 7, "crit is an empty list")


@pytest.mark.parametrize("header", ['{"alg":"RS256","alg":"none"}', "{}", "[]", '{"alg":7}', '{"alg":"RS256",}'])
def test_a_header_that_is_none_is_no_yes(verify, issuer, header):
    assert verify(issuer.sign("{}", header)).code in (2, 7)


def spellings(token: str) -> dict[str, str]:
    """The same bytes to a lenient reader, each as another text."""
    head, body, sig = token.split(".")
    middle = len(sig) // 2
    sibling = sig[:-1] + ALPHABET[ALPHABET.index(sig[-1]) ^ 1]
    signatures = {
        "padded": sig + "=" * (-len(sig) % 4),
        "padded much": sig + "====",
        "junk": f"{sig[:middle]}!{sig[middle:]}",
        "line end": f"{sig[:middle]}\n{sig[middle:]}",
        "blank": f"{sig[:middle]} {sig[middle:]}",
        "no-break space": f"{sig[:middle]}\u00a0{sig[middle:]}",
        "unused bits": sibling,
        "old alphabet": sig.replace("-", "+").replace("_", "/"),
        "percent": sig.replace("-", "%2D"),
        "fullwidth": sig.replace("A", "\uff21", 1),
    }
    named = {f"{name} in the signature": f"{head}.{body}.{text}" for name, text in signatures.items()}
    named["padded header"] = f"{head}=.{body}.{sig}"
    named["padded claims"] = f"{head}.{body}=.{sig}"
    named["a dot more"] = f"{token}."
    return named


def test_a_token_has_one_spelling(verify, issuer):
    good = issuer.token()
    assert verify(good, "--aud", "a").code == 0
    for name, text in spellings(good).items():
        done = verify(text, "--aud", "a")
        assert done.code in (2, 7), name
        refused(done, done.code)


PASTED = {
    "crlf": "{}\r\n",
    "blanks": "\n  {} \n\n",
    "bom": "\ufeff{}",
    "bearer": "Bearer {}",
    "field": "Authorization: Bearer {}",
    "quoted": '"{}"',
}


@pytest.mark.parametrize("around", PASTED.values(), ids=PASTED)
def test_what_stands_around_a_pasted_token_does_no_harm(quick, verify, issuer, around):
    pasted = around.format(issuer.token())
    for done in (quick("inspect", "-", stdin=pasted.encode()), quick("inspect", pasted), verify(pasted)):
        assert done.code == 0, done.err
        assert "\ufeff" not in done.out


def test_nothing_and_two_tokens_are_no_token(quick, verify, issuer):
    token = issuer.token()
    refused(quick("inspect", "-"), 2, "it is empty")
    refused(quick("inspect", ""), 2, "it is empty")
    refused(quick("inspect", "-", stdin=f"{token}\n{token}\n".encode()), 2, "there are 2 tokens")
    refused(verify(f"{token} {token}"), 2, "there are 2 tokens")
    refused(quick("inspect", "-", stdin=b"\xff\xfe"), 2, "stdin is not UTF-8")
    refused(quick("inspect", "-", stdin=b"x" * (4 * 1024 * 1024 + 1)), 2, "more than 4194304 bytes")


TIMES = {  # exp as it stands in the token: what `inspect --json` shows, and the verdicts that are right
    "1.683061093e+09": (1.683061093e9, {8}),
    "1683061093.5": (1683061093.5, {8}),
    "1683061093000": (1683061093000, {0, 8}),
    "1e26": (1e26, {2, 8}),
    "1" + "0" * 50: (10**50, {2, 8}),
    "-1": (-1, {8}),
    '"1683061093"': ("1683061093", {2, 8}),
    "null": (None, {2, 8}),
    "true": (True, {2, 8}),
    "[1683061093]": ([1683061093], {2, 8}),
    '{"a":1}': ({"a": 1}, {2, 8}),
    "0": (0, {8}),
}


@pytest.mark.parametrize("text", TIMES)
def test_a_time_is_shown_as_it_stands_and_judged_without_a_crash(quick, verify, issuer, text):
    value, verdicts = TIMES[text]
    token = issuer.sign(f'{{"iss":"i","exp":{text},"iat":1683060782}}')
    shown = quick("inspect", token)
    assert shown.code == 0, shown.err
    assert "exp: " in shown.out
    decoded = json.loads(quick("inspect", token, "--json").out)["claims"]["exp"]
    assert (decoded, type(decoded)) == (value, type(value))
    done = verify(token)
    assert done.code in verdicts, done.err
    if done.code:
        refused(done, done.code)


@pytest.mark.parametrize("text", ["1e400", "NaN", "-Infinity"])
def test_a_number_that_no_double_holds_is_no_json(quick, verify, issuer, text):
    token = issuer.sign(f'{{"exp":{text}}}')
    refused(quick("inspect", token), 2, "exp")
    refused(verify(token, "--json"), 2, "exp")


def test_inspect_drives_no_terminal(quick, issuer):
    token = issuer.sign('{"a\\u001b[31m":"\\u001b]0;x\\u0007","b":"line\\nend","c":"\u202e"}')
    shown = quick("inspect", token)
    assert shown.code == 0
    assert "\x1b" not in shown.out
    assert "\u202e" not in shown.out
    assert len(shown.out.splitlines()) == 7


def test_two_keys_at_once_are_refused_and_a_private_one_is_not_taken(quick, issuer, tmp_path):
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "private.pem").write_bytes(issuer.key.private_bytes(*pem))
    token = issuer.token()
    done = quick("verify", token, "--public-key", "private.pem")
    refused(done, 2, "'private.pem'", "private")
    assert "PRIVATE KEY-----\n" not in done.err
    refused(quick("verify", token, "--public-key", str(issuer.pem), "--key", "pkcs11:token=t1"), 2, "several keys")
    refused(quick("verify", token, "--jwks", "s", "--certificate", "c"), 2, "given: --certificate, --jwks", hint="one")


@pytest.mark.parametrize("kind", ["EC", "Ed448"])
def test_a_key_of_a_type_that_is_not_taken_is_a_verdict(quick, issuer, tmp_path, kind):
    private = ec.generate_private_key(ec.SECP256K1()) if kind == "EC" else ed448.Ed448PrivateKey.generate()
    key = private.public_key()
    pem, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "k.pem").write_bytes(key.public_bytes(pem, spki))
    (tmp_path / "c.pem").write_bytes(certificate_of(key, issuer.key))
    reason = f"alg RS256 does not fit a key of type {kind}"
    for flag, file in (("--public-key", "k.pem"), ("--certificate", "c.pem")):
        refused(quick("verify", issuer.token(), flag, file), 7, f"the token is not valid: {reason}")
        done = quick("verify", issuer.token(), flag, file, "--json")
        verdict = json.loads(done.out)
        assert (done.code, verdict["valid"], verdict["key"], verdict["reason"]) == (7, False, file, reason)
        assert told(done)["message"] == f"the token is not valid: {reason}"


@pytest.mark.parametrize(
    ("private", "reason"),
    [
        (ec.generate_private_key(ec.SECP384R1()), "RS256 takes RSA keys, and this one is EC"),
        (ec.generate_private_key(ec.SECP521R1()), "RS256 takes RSA keys, and this one is EC"),
        (ed25519.Ed25519PrivateKey.generate(), "RS256 takes RSA keys, and this one is OKP"),
    ],
)
def test_a_key_of_another_type_than_the_tokens_is_a_verdict(quick, issuer, tmp_path, private, reason):
    key = private.public_key()
    pem, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "k.pem").write_bytes(key.public_bytes(pem, spki))
    (tmp_path / "c.pem").write_bytes(certificate_of(key, issuer.key))
    for flag, file in (("--public-key", "k.pem"), ("--certificate", "c.pem")):
        refused(quick("verify", issuer.token(), flag, file), 7, f"the token is not valid: {reason}")


def test_a_key_that_is_too_short_is_a_verdict(quick, issuer, tmp_path):
    short = rsa.generate_private_key(65537, 1024).public_key()
    pem, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "short.pem").write_bytes(short.public_bytes(pem, spki))
    refused(quick("verify", issuer.token(), "--public-key", "short.pem"), 7, "2048 bits or more")
    (tmp_path / "none.pem").write_text("x")
    refused(quick("verify", issuer.token(), "--public-key", "none.pem"), 2, "'none.pem': no public key can be read")


def test_a_certificate_is_a_certificate(quick, issuer, tmp_path):
    key = issuer.key.public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "k.der").write_bytes(der)
    for name in (str(issuer.pem), "k.der"):
        done = quick("verify", issuer.token(), "--certificate", name)
        refused(done, 2, name, "it is a public key, and no certificate", hint="--public-key takes it")
    chain = x509.load_pem_x509_certificate(certificate_of(key, issuer.key))
    (tmp_path / "c.der").write_bytes(chain.public_bytes(serialization.Encoding.DER))
    assert quick("verify", issuer.token(), "--certificate", "c.der").code == 0


def test_the_first_certificate_of_a_chain_is_the_one_that_counts(quick, issuer, tmp_path):
    leaf = certificate_of(issuer.key.public_key(), issuer.key)
    above = certificate_of(ec.generate_private_key(ec.SECP256R1()).public_key(), issuer.key)
    chain = b"subject=CN = test\n" + leaf + b"\nissuer=CN = test\n" + above
    for name, data, code in (
        ("chain.pem", chain, 0),
        ("crlf.pem", chain.replace(b"\n", b"\r\n"), 0),
        ("cut.pem", chain.rstrip(b"\n"), 0),
        ("turned.pem", above + leaf, 7),
    ):
        (tmp_path / name).write_bytes(data)
        assert quick("verify", issuer.token(), "--certificate", name).code == code, name


class Publisher:
    """Two RSA keys and one on P-256, and the key sets that somebody may make of them."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.keys = {name: rsa.generate_private_key(65537, 2048) for name in ("a", "b")}
        self.keys["e"] = ec.generate_private_key(ec.SECP256R1())

    def jwk(self, name: str, **members) -> dict:
        numbers = self.keys[name].public_key().public_numbers()
        if name == "e":
            x, y = (b64u(each.to_bytes(32, "big")) for each in (numbers.x, numbers.y))
            return {"kty": "EC", "crv": "P-256", "x": x, "y": y, **members}
        return {"kty": "RSA", "n": b64u(numbers.n.to_bytes(256, "big")), "e": "AQAB", **members}

    def set_of(self, *keys: dict) -> str:
        """Write a set and return its file."""
        (self.folder / "set.json").write_text(json.dumps({"keys": keys}))
        return "set.json"

    def sign(self, name: str, **header) -> str:
        alg = "ES256" if name == "e" else "RS256"
        data = f"{b64u(json.dumps({'alg': alg, **header}).encode())}.e30"
        if name != "e":
            signature = self.keys[name].sign(data.encode(), padding.PKCS1v15(), hashes.SHA256())
        else:
            numbers = utils.decode_dss_signature(self.keys[name].sign(data.encode(), ec.ECDSA(hashes.SHA256())))
            signature = b"".join(number.to_bytes(32, "big") for number in numbers)
        return f"{data}.{b64u(signature)}"


@pytest.fixture
def publisher(tmp_path):
    return Publisher(tmp_path)


def test_a_key_set_verifies_by_the_kid_and_without_one_by_each_key_that_fits(quick, publisher):
    file = publisher.set_of(*(publisher.jwk(name, kid=name, use="sig") for name in "abe"))
    for name in "abe":
        for header in ({"kid": name}, {}):
            done = quick("verify", publisher.sign(name, **header), "--jwks", file)
            assert (done.code, done.out, done.err) == (0, f"valid: signed by set.json, kid '{name}'\n", "")
    done = quick("verify", publisher.sign("a"), "--jwks", file, "--json")
    assert json.loads(done.out)["key"] == "set.json, kid 'a'"
    refused(quick("verify", publisher.sign("a", kid="b"), "--jwks", file), 7, "the signature does not verify")
    refused(quick("verify", publisher.sign("a", kid="e"), "--jwks", file), 7, "the key with the kid 'e' does not fit")
    refused(quick("verify", publisher.sign("a"), "--jwks", file, "--aud", "x"), 8, "there is no aud")


def test_a_kid_that_the_set_does_not_have_is_a_verdict_that_names_those_it_has(quick, publisher):
    file = publisher.set_of(publisher.jwk("a", kid="a"), publisher.jwk("b", kid="b\x1b[31m"))
    done = quick("verify", publisher.sign("a", kid="\u202ex"), "--jwks", file, "--json")
    verdict = json.loads(done.out)
    assert (done.code, verdict["valid"], verdict["key"]) == (7, False, "set.json")
    assert verdict["reason"] == r"no key has the token's kid '\u202ex': there are 'a', 'b\x1b[31m'"
    assert told(done)["message"] == f"the token is not valid: {verdict['reason']}"


def test_two_keys_of_one_kid_are_named_unless_their_types_tell_them_apart(quick, publisher):
    file = publisher.set_of(*(publisher.jwk(name, kid="k") for name in "abe"))
    refused(quick("verify", publisher.sign("a", kid="k"), "--jwks", file), 7, "'k' is ambiguous: keys[0] and keys[1]")
    assert quick("verify", publisher.sign("e", kid="k"), "--jwks", file).code == 0


def test_keys_without_a_kid_are_told_by_their_thumbprint(quick, publisher, tmp_path):
    file = publisher.set_of(publisher.jwk("a"), publisher.jwk("b"))
    assert "set.json, thumbprint " in quick("verify", publisher.sign("b"), "--jwks", file).out
    refused(quick("verify", publisher.sign("e"), "--jwks", file), 7, "none of the 2 keys fits alg ES256")
    (tmp_path / "one.json").write_text(json.dumps(publisher.jwk("b")))
    assert quick("verify", publisher.sign("b", kid="any"), "--jwks", "one.json").code == 0


def test_keys_that_cannot_be_used_are_passed_over_and_damaged_ones_named(quick, publisher):
    damaged = [{**publisher.jwk("a", kid="a"), "n": 7}, {"kty": "oct", "k": "c2VjcmV0"}]
    foreign = [{"kty": "OKP", "crv": "Ed448", "x": "AA", "kid": "o"}, publisher.jwk("a", use="enc")]
    file = publisher.set_of(*damaged, *foreign, publisher.jwk("b", kid="b"))
    done = quick("verify", publisher.sign("b", kid="b"), "--jwks", file)
    assert done.code == 0
    assert done.err.splitlines() == [
        "hsmjwt: warning: 'set.json': keys[0].n is a number, not text; the key is passed over",
        "hsmjwt: warning: 'set.json': keys[1] is a shared secret (kty oct), and no public key; the key is passed over",
    ]
    assert "keys[3] is for the use 'enc'" in quick("verify", publisher.sign("b"), "--jwks", file, "--verbose").err
    refused(
        quick("verify", publisher.sign("a", kid="a"), "--jwks", file), 7, "of the kid 'a' can be used: keys[0].n is"
    )
    refused(quick("verify", publisher.sign("a", kid="o"), "--jwks", file), 7, "keys[2] is on the curve 'Ed448'")
    many = quick("verify", publisher.sign("b"), "--jwks", publisher.set_of(*damaged * 50, publisher.jwk("b")))
    assert many.code == 0
    assert len(many.err.splitlines()) == 6
    assert "95 more keys are passed over" in many.err


def test_a_private_key_in_a_set_is_refused_loudly_and_not_shown(quick, publisher):
    private = publisher.jwk("a", d="c2VjcmV0LW51bWJlcg")
    for flags in ((), ("--json",), ("--verbose",)):
        file = publisher.set_of(publisher.jwk("b"), private)
        done = quick("verify", publisher.sign("b"), "--jwks", file, *flags)
        err = refused(done, 2, "'set.json': keys[1] is a private key (it has the member d)", hint="replace it")
        assert "c2VjcmV0" not in err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("[]", "a list where"),
        ("{}", "neither keys"),
        ('{"keys":[],"keys":[]}', "occurs twice"),
        ('{"jwks_uri":"https://as.example"}', "metadata"),
        ("-----BEGIN PUBLIC KEY-----", "PEM"),
        ('{"kty":"RSA","n":"AQ==","e":"AQAB"}', "its n is not base64url"),
    ],
)
def test_a_file_that_is_no_key_set_is_named_for_what_is_wrong_with_it(quick, issuer, tmp_path, text, reason):
    (tmp_path / "set.json").write_text(text)
    done = quick("verify", issuer.token(), "--jwks", "set.json", "--json")
    refused(done, 2, "'set.json': no key set can be read: ", reason, hint="a JWK set belongs there")
    assert told(done)["code"] == "usage"


def test_a_key_set_is_read_from_a_file_or_stdin_and_never_fetched(quick, publisher, tmp_path):
    file = publisher.set_of(publisher.jwk("a"))
    text, token = (tmp_path / file).read_bytes(), publisher.sign("a")
    assert quick("verify", token, "--jwks", "-", stdin=text).code == 0
    refused(quick("verify", "-", "--jwks", "-", stdin=text), 2, "the token and --jwks are both", hint="a file")
    refused(quick("verify", "-", "--public-key", "-", stdin=text), 2, "the token and --public-key are both")
    done = quick("verify", token, "--jwks", "https://user:pw@as.example/jwks")
    assert "pw@" not in refused(done, 2, "--jwks names a file", hint="curl")
    refused(quick("verify", token, "--jwks", "none"), 2, "'none' cannot be read: no such file")
    refused(quick("verify", token, "--jwks", "."), 2, "'.' cannot be read")
    (tmp_path / "large").write_bytes(text + b" " * 1024 * 1024)
    refused(quick("verify", token, "--jwks", "large"), 2, "'large' holds more than 1048576 bytes")


OTHERS = {
    "JWE": ("eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..AA.AA.AA", "five parts: an encrypted token (JWE)"),
    "nested by cty": ("eyJhbGciOiIiLCJjdHkiOiJqd3QifQ.ZTMwLmUzMC5BQQ.AA", "a nested token"),
    "nested": (f"e30.{b64u(b'eyJhIjoxfQ.e30.AA')}.AA", "the payload is itself a token: a nested one"),
    "nested JWE": (f"e30.{b64u(b'eyJhIjoxfQ.AA.AA.AA.AA')}.AA", "the payload is itself a token: a nested one"),
    "detached": ("eyJhbGciOiJSUzI1NiJ9..AA", "the payload is empty: a detached signature"),
    "JWS in JSON": ('{"payload":"e30","protected":"e30","signature":"AA"}', "a JWS in its JSON form"),
    "JWS in JSON, general": ('{\n "payload": "e30",\n "signatures": []\n}', "a JWS in its JSON form"),
    "JWE in JSON": (
        '{"protected":"e30","iv":"AA","ciphertext":"AA","tag":"AA"}',
        "an encrypted token (JWE) in its JSON",
    ),
    "answer": ('{"access_token": "x", "token_type": "bearer"}', "a token endpoint's answer"),
    "sign --json": ('{"jwt": "e30.e30.AA", "header": {}}', "the member jwt is the token"),
    "broken JSON": ('{"payload":', "it is JSON: a JWT has the compact form"),
    "opaque": ("2YotnFZFEjr1zCsicMWpAA", "an opaque token or no token"),
}


@pytest.mark.parametrize(("text", "reason"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_signed_jwt_is_named_for_what_it_is(quick, issuer, text, reason):
    for args in (("inspect",), ("verify", "--public-key", str(issuer.pem))):
        refused(quick(args[0], text, *args[1:]), 2, "this is no JWT that can be read: ", reason)
        done = quick(args[0], "-", *args[1:], "--json", stdin=f"{text}\r\n".encode())
        refused(done, 2, reason)
        assert told(done)["exit"] == 2


def test_what_key_export_prints_verifies_what_sign_prints(quick, token, tmp_path):
    exported = quick("key", "export", token.uri, "--jwk", HSMJWT_KEY=None)
    (tmp_path / "one.json").write_text(exported.out)
    kid = json.loads(exported.out)["kid"]
    for flags, code in (((), 0), (("--kid", kid), 0), (("--kid", "other"), 7)):
        signed = quick("sign", "--iss", "i", "--aud", "a", *flags)
        done = quick("verify", "-", "--jwks", "one.json", "--aud", "a", stdin=signed.out.encode())
        assert done.code == code, done.err
    assert f"there is '{kid}'" in done.err
