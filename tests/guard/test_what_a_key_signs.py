"""What reaches a private key: five kinds of message, none of which is another one, and one road to it."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import get_args

import pytest
from cli.checks import refused
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.errors import PolicyError
from hsmjwt.guard.policy import SELF_TEST, TRANSCRIPT_TYP, Permitted, Purpose, check_message
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.jose.encoding import b64u_encode
from hsmjwt.jose.jws import signing_input
from hsmjwt.jose.keys import RsaKey
from hsmjwt.x509.request import Holder, Validity, certificate_to_sign, request_to_sign

PACKAGE = Path(__file__).parents[2] / "hsmjwt"
PURPOSES = get_args(Purpose)
KEY = RsaKey((1 << 2047) | 1, 65537)
HOLDER = Holder("CN=svc,O=Example Inc.,C=NO", ("dns:svc.example",), ("digitalSignature",))
GOOD = {
    "assertion": signing_input({"typ": "JWT", "alg": "RS256"}, {"iss": "i"}),
    "transcript": signing_input({"typ": TRANSCRIPT_TYP, "alg": "RS256"}, {"version": 1}),
    "certificate": certificate_to_sign(
        HOLDER, KEY, ALGORITHMS["RS256"], 1 << 158, Validity(1_700_000_000, 1_800_000_000)
    ),
    "request": request_to_sign(HOLDER, KEY),
    "self-test": SELF_TEST + os.urandom(32),
}


def fits(message: bytes) -> list[str]:
    """Return the purposes for which a message may be signed."""
    found = []
    for purpose in PURPOSES:
        try:
            check_message(purpose, message)
        except PolicyError:
            continue
        found.append(purpose)
    return found


def test_each_purpose_has_its_message_and_no_other_one():
    assert {purpose: fits(message) for purpose, message in GOOD.items()} == {each: [each] for each in PURPOSES}


def test_a_message_with_a_bit_more_or_less_is_of_no_other_kind():
    for purpose, message in GOOD.items():
        for other in (message[:-1], message + b"\0", message[1:], b"\0" + message, message + b"\n", message + message):
            assert fits(other) in ([], [purpose]), (purpose, other[:40])


PLAIN = st.text('abcAB01-_ .\n\r"{}:,', max_size=30)
HEADERS = st.dictionaries(
    st.sampled_from(["typ", "alg", "TYP", "x", "kid"]),
    st.one_of(
        st.none(),
        st.integers(),
        st.sampled_from(
            [
                TRANSCRIPT_TYP,
                "hsmjwt-",
                "application/hsmjwt-transcript+jws",
                "application/ hsmjwt-x",
                "HSMJWT-x",
                "JWT",
                "",
            ]
        ),
    ),
    max_size=4,
)


@st.composite
def jws_like(draw) -> bytes:
    header = json.dumps(draw(HEADERS)).encode()
    return (b64u_encode(header) + draw(st.sampled_from([".", "", "..", "\n.", ". "])) + draw(PLAIN)).encode()


@st.composite
def der_like(draw) -> bytes:
    start = draw(
        st.sampled_from([b"\xa0\x03\x02\x01\x02", b"\x02\x01\x00\x30", b"\xa0\x03\x02\x01\x00", b"", b"\x02\x01"])
    )
    content = start + draw(st.binary(max_size=40))
    head = draw(
        st.sampled_from([bytes([0x30, len(content)]), b"\x30\x81" + bytes([len(content)]), b"\x30\x80", b"0", b""])
    )
    return head + content


@given(
    st.one_of(
        st.binary(max_size=200),
        jws_like(),
        der_like(),
        st.binary(max_size=64).map(lambda tail: SELF_TEST + tail),
        st.binary(min_size=32, max_size=32).map(lambda tail: SELF_TEST + tail),
    )
)
def test_no_bytes_may_be_signed_for_two_purposes(message):
    assert len(fits(message)) <= 1


@given(st.binary(min_size=32, max_size=32))
def test_a_self_test_is_no_signing_input_of_a_jws_whatever_its_random_bytes(tail):
    assert fits(SELF_TEST + tail) == ["self-test"]


@given(HEADERS)
def test_a_header_with_a_type_of_ours_is_never_an_assertions(header):
    typ = header.get("typ")
    message = signing_input(header, {})
    ours = isinstance(typ, str) and "hsmjwt-" in typ.lower()
    assert ("assertion" in fits(message)) is ("typ" not in header or (isinstance(typ, str) and not ours))


class Spy:
    """A Signer that notes what reaches it."""

    public_key = KEY

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def sign(self, message, _alg):
        self.seen.append(message)
        return b"s"


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_signer_for_one_purpose_passes_nothing_else_on(purpose):
    spy = Spy()
    signer = Permitted(spy, purpose, (), lambda: 1_800_000_000.0)
    for other, message in GOOD.items():
        if other == purpose:
            assert signer.sign(message, ALGORITHMS["RS256"]) == b"s"
        else:
            with pytest.raises(PolicyError, match=rf"the bytes are no {purpose}|no signing input"):
                signer.sign(message, ALGORITHMS["RS256"])
    assert spy.seen == [GOOD[purpose]]


# One road: who may call what, read off the code itself.

TREES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}


def calls(name: str) -> dict[str, list[ast.Call]]:
    """Return the calls of a function or method of that name, by the module that they stand in."""
    found: dict[str, list[ast.Call]] = {}
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = node.func
                if name in (getattr(called, "id", None), getattr(called, "attr", None)):
                    found.setdefault(module, []).append(node)
    return found


def names(name: str) -> set[str]:
    """Return the modules in which a name is used at all, to be called or handed on, but for types and imports."""
    found = set()
    for module, tree in TREES.items():
        types = {
            id(inner)
            for node in ast.walk(tree)
            for field in ("annotation", "returns")
            if isinstance(getattr(node, field, None), ast.AST)
            for inner in ast.walk(getattr(node, field))
        }
        if any(
            name in (getattr(node, "id", None), getattr(node, "attr", None)) and id(node) not in types
            for node in ast.walk(tree)
        ):
            found.add(module)
    return found


def test_a_signer_of_the_token_is_made_in_one_place():
    assert names("Pkcs11Signer") == {"compose.devices"}
    assert set(calls("find_signer")) == {"compose.devices", "cli.doctor"}  # doctor looks, and signs nothing
    assert len(calls("Pkcs11Signer")["compose.devices"]) == 1


def test_that_place_hands_out_signers_for_one_purpose_alone():
    (function,) = [
        node
        for node in ast.walk(TREES["compose.devices"])
        if isinstance(node, ast.FunctionDef) and node.name == "open_signer"
    ]
    (last,) = [node for node in ast.walk(function) if isinstance(node, ast.Return) and "OpenKey" in ast.unparse(node)]
    assert ast.unparse(last).startswith("return OpenKey(Permitted(signer, purpose, ")


def test_a_purpose_is_written_where_the_signer_is_opened():
    """Nobody else decides it: neither a flag nor a variable."""
    purposes = {
        module: {ast.literal_eval(call.args[2]) for call in found} for module, found in calls("open_signer").items()
    }
    assert purposes == {
        "compose.access": {"assertion"},
        "custody.certificates": {"certificate", "request"},
        "custody.proof": {"self-test"},
        "custody.rotation": {"self-test"},
        "custody.rotation_old": {"self-test"},
        "custody.transcript": {"transcript"},
    }


def test_bytes_are_signed_where_they_are_made_and_by_no_command():
    makers = {"jose.jws", "custody.certificates", "custody.proof"}
    wrappers = {"verify", "guard.policy", "compose.halves"}
    token = {"hsm.signer", "hsm.objects"}
    assert set(calls("sign")) == makers | wrappers | token
    assert set(calls("sign_jwt")) == {"oauth.assertion", "custody.transcript"}
    spoken = {module for module, tree in TREES.items() if "C_Sign" in ast.unparse(tree)}
    assert {module for module in spoken if not module.startswith("hsm.")} == set()


@pytest.mark.parametrize("typ", [TRANSCRIPT_TYP, "application/HSMJWT-x"])
@pytest.mark.parametrize("verb", ["sign", "token", "header"])
def test_no_command_signs_a_type_of_ours(hsmjwt, verb, typ):
    url = () if verb == "sign" else ("--token-url", "http://127.0.0.1:9/token")
    call = (verb, "--iss", "i", "--aud", "a", *url, "--typ", typ)
    refused(hsmjwt(*call), 2, "is reserved for what hsmjwt itself signs")
    refused(hsmjwt(*call[:-2], "--header", f"typ={typ}"), 2, "is reserved for what hsmjwt itself signs")


def test_no_profile_signs_a_type_of_ours(hsmjwt, tmp_path):
    for entry in (f'typ = "{TRANSCRIPT_TYP}"', f'headers = {{ typ = "{TRANSCRIPT_TYP}" }}'):
        config = tmp_path / "config.toml"
        config.write_text(f'[profiles.p]\nissuer = "i"\naudience = "a"\n{entry}\n')
        config.chmod(0o600)
        refused(hsmjwt("sign", "p", HSMJWT_CONFIG=str(config)), 3, "reserved for what hsmjwt itself signs", "line 4")
