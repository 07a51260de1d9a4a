"""The file of a ceremony: read strictly, for it is followed to the letter."""

from __future__ import annotations

import pytest

from hsmjwt.custody.ceremony_file import LARGEST, parse
from hsmjwt.errors import ConfigError

WHOLE = """\
operator = "Ada Example"
witnesses = ["Grace Example", "Alan Example"]
out = "2026-12-01"

[key]
token = "pkcs11:token=prod"
label = "adobe-2026-12"
type = "rsa:3072"
alg = "PS256"

[certificate]
kind = "self-signed"
subject = 'CN=adobe-jwt,O=Example\\, Inc.,C=NO'
days = 730
san = ["dns:jwt.example.com"]

[export]
formats = ["pem", "jwk", "pem"]

[audit]
policy = "policies/ours.toml"
"""
LEAST = """\
operator = "Ada"
witnesses = "Grace"
out = "/var/o"
key = { token = "pkcs11:serial=1", label = "l", type = "p256" }
"""


def read(text=WHOLE, path="/etc/c/ceremony.toml"):
    return parse(text if isinstance(text, bytes) else text.encode(), path)


def test_a_whole_file_says_what_is_to_be_done():
    found = read()
    assert (found.operator, found.witnesses) == ("Ada Example", ("Grace Example", "Alan Example"))
    assert (found.out, found.policy) == ("/etc/c/2026-12-01", "/etc/c/policies/ours.toml")
    assert (str(found.token), found.new.label, found.new.kind.name) == (
        "pkcs11:token=prod",
        "adobe-2026-12",
        "rsa:3072",
    )
    assert found.new.algorithm.name == "PS256"
    assert (found.certificate.kind, found.certificate.wanted.days) == ("self-signed", 730)
    assert found.certificate.wanted.san == ("dns:jwt.example.com",)
    assert found.formats == ("pem", "jwk")
    assert found.text == WHOLE
    assert len(found.sha256) == 64


def test_what_may_be_left_out_has_a_default():
    found = read(LEAST)
    assert (found.certificate, found.formats, found.policy, found.out) == (None, ("pem",), "device-born", "/var/o")
    assert found.new.algorithm.name == "ES256"


def test_line_ends_of_another_system_change_nothing_but_the_digest():
    assert read(WHOLE.replace("\n", "\r\n")).new == read().new
    assert read(WHOLE.replace("\n", "\r\n")).sha256 != read().sha256


@pytest.mark.parametrize(
    ("old", "new", "line", "words", "hint"),
    [
        ("operator", "operater", 1, "unknown key 'operater' at the top level", "did you mean 'operator'?"),
        ("label =", "lable =", 7, "unknown key 'lable' in [key]", "did you mean 'label'?"),
        ("days =", "pin =", 14, "unknown key 'pin' in [certificate]", "kind"),
        ("[audit]", "[audits]", 20, "unknown key 'audits'", "did you mean 'audit'?"),
        ('"Ada Example"', "7", 1, "operator at the top level must be text, not the number 7", 'write operator = "7"'),
        ('"Ada Example"', '" "', 1, "operator at the top level is blank, or has control characters", ""),
        ('"Ada Example"', '"A\\u001bda"', 1, "is blank, or has control characters", ""),
        ('["Grace Example", "Alan Example"]', "[]", 2, "witnesses at the top level is empty", ""),
        ('"Alan Example"]', '"Grace  EXAMPLE"]', 2, "operator and witnesses are not all different people", ""),
        ('"Alan Example"]', '"Ada Example"]', 2, "operator and witnesses are not all different people", ""),
        ("pkcs11:token=prod", "token=prod", 6, "token in [key]: ", ""),
        ("token=prod", "token=prod?pin-value=31415", 6, "token in [key] names a PIN or a module", "--pin-source"),
        ("token=prod", "token=prod?pin-source=file:/p", 6, "token in [key] names a PIN or a module", "--pin-source"),
        ("token=prod", "token=prod?module-path=/m.so", 6, "token in [key] names a PIN or a module", "--module"),
        ("token=prod", "token=prod;object=o", 6, "token in [key] says more than which token it is", "label"),
        ("token=prod", "tokn=prod", 6, "token in [key] says more than which token it is", ""),
        ("pkcs11:token=prod", "pkcs11:", 6, "token in [key] fits every token", "pkcs11:token=prod"),
        ("rsa:3072", "rsa:1024", 8, "type in [key]: ", ""),
        ("rsa:3072", "p256", 9, "alg in [key]: a key of the type p256 makes no PS256", "it makes ES256"),
        ("PS256", "HS256", 9, "alg in [key]: ", ""),
        ("self-signed", "selfsigned", 12, "certificate.kind: 'selfsigned' is unknown", "did you mean 'self-signed'?"),
        ("self-signed", "csr", 14, "a request says no days", "remove it"),
        ("CN=adobe-jwt,", "adobe-jwt,", 13, "subject in [certificate]: ", ""),
        ("730", "0", 14, "days in [certificate] must be a whole number above 0", ""),
        ("730", '"730"', 14, "days in [certificate] must be a whole number above 0, not text", ""),
        ("730", "730000", 14, "days in [certificate]: ", ""),
        ("dns:jwt.example.com", "dns:jwt example", 15, "san in [certificate]: ", ""),
        ('"jwk", ', '"jwks", ', 18, "export.formats: 'jwks' is unknown", "did you mean 'jwk'?"),
        ('operator = "Ada Example"\n', "", None, "operator is missing at the top level", 'operator = "Ada Example"'),
        ('label = "adobe-2026-12"\n', "", 5, "label is missing in [key]", "label"),
        ("subject = ", "# ", 11, "subject is missing in [certificate]", "CN="),
        ("[key]", "[key", 5, "not TOML", "quotes"),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_line(old, new, line, words, hint):
    assert old in WHOLE
    with pytest.raises(ConfigError) as caught:
        read(WHOLE.replace(old, new, 1))
    place = "ceremony file '/etc/c/ceremony.toml'" + (f", line {line}" if line else "")
    assert caught.value.message.startswith(place), caught.value.message
    assert words in caught.value.message
    assert hint in (caught.value.hint or "")
    assert "31415" not in f"{caught.value.message} {caught.value.hint}"


def test_a_file_that_is_no_text_or_too_long_is_refused():
    with pytest.raises(ConfigError, match="line 2: not UTF-8"):
        read(b'operator = "A"\nwitnesses = ["\xff"]\n')
    with pytest.raises(ConfigError, match="longer than"):
        read(b"#" * (LARGEST + 1))
