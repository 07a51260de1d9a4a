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
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
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


@pytest.fixture(scope="module")
def issuer(tmp_path_factory):
    return Issuer(tmp_path_factory.mktemp("issuer"))


@pytest.fixture
def verify(quick, issuer):
    def run(token: str, *args: str):
        return quick("verify", "-", "--public-key", str(issuer.pem), *args, stdin=token.encode())

    return run


def test_verify_says_yes_to_each_form_of_the_key(quick, issuer, token, tmp_path):
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    moment = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    public = issuer.key.public_key()
    built = x509.CertificateBuilder(name, name, public, 1, moment, moment.replace(year=2021))
    certificate = built.sign(issuer.key, hashes.SHA256())
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "k.der").write_bytes(der)
    (tmp_path / "c.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
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
    refused(verify(issuer.sign("{}", header)), 7, "crit")


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


@pytest.mark.parametrize("kind", ["EC", "Ed25519"])
def test_a_key_of_another_type_is_a_verdict(quick, issuer, tmp_path, kind):
    private = ec.generate_private_key(ec.SECP256R1()) if kind == "EC" else ed25519.Ed25519PrivateKey.generate()
    key = private.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    moment = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    built = x509.CertificateBuilder(name, name, key, 1, moment, moment.replace(year=2021))
    pem, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "k.pem").write_bytes(key.public_bytes(pem, spki))
    (tmp_path / "c.pem").write_bytes(built.sign(issuer.key, hashes.SHA256()).public_bytes(pem))
    reason = f"alg RS256 does not fit a key of type {kind}"
    for flag, file in (("--public-key", "k.pem"), ("--certificate", "c.pem")):
        refused(quick("verify", issuer.token(), flag, file), 7, f"the token is not valid: {reason}")
        done = quick("verify", issuer.token(), flag, file, "--json")
        verdict = json.loads(done.out)
        assert (done.code, verdict["valid"], verdict["key"], verdict["reason"]) == (7, False, file, reason)
        assert told(done)["message"] == f"the token is not valid: {reason}"


def test_a_key_that_is_too_short_is_a_verdict(quick, issuer, tmp_path):
    short = rsa.generate_private_key(65537, 1024).public_key()
    pem, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "short.pem").write_bytes(short.public_bytes(pem, spki))
    refused(quick("verify", issuer.token(), "--public-key", "short.pem"), 7, "2048 bits or more")
    (tmp_path / "none.pem").write_text("x")
    refused(quick("verify", issuer.token(), "--public-key", "none.pem"), 2, "'none.pem': no public key can be read")
