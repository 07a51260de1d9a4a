"""Subjects and alternative names: read strictly, written as others read them, and a word for what is wrong."""

from __future__ import annotations

import ipaddress
import subprocess

import pytest
from cryptography import x509 as pyca
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hsmjwt.errors import UsageError
from hsmjwt.x509.alternatives import alternative_texts, alternatives_der
from hsmjwt.x509.der import DerFault, encoded, only
from hsmjwt.x509.names import KINDS, name_der, name_text, parse_name, read_name, same_name

TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)


def of_pyca(name: pyca.Name) -> bytes:
    return name.public_bytes()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (r"CN=svc,O=Example\, Inc.,C=NO", [("C", "NO"), ("O", "Example, Inc."), ("CN", "svc")]),
        ("CN = svc , O = Example AS", [("O", "Example AS"), ("CN", "svc")]),
        (r"CN=M\C3\BCller \+ Søn,O=a\=b=c", [("O", "a=b=c"), ("CN", "Müller + Søn")]),
        (r"CN=\ two \ ", [("CN", " two  ")]),
        (r"CN=\#1\\\"\;\<\>", [("CN", '#1\\";<>')]),
        ("commonName=a,2.5.4.10=b,OID.2.5.4.11=c", [("OU", "c"), ("O", "b"), ("CN", "a")]),
        ("cn=a,e=x@example.com,s=Oslo", [("ST", "Oslo"), ("emailAddress", "x@example.com"), ("CN", "a")]),
        ("CN=a,organizationIdentifier=NTRNO-1", [("organizationIdentifier", "NTRNO-1"), ("CN", "a")]),
    ],
)
def test_text_is_read_as_its_writer_meant_it(text, values):
    name = parse_name(text)
    assert [(part.oid, only(part.value).content.decode()) for (part,) in name] == [
        (KINDS[kind].oid, value) for kind, value in values
    ]
    assert parse_name(name_text(name)) == name
    assert read_name(only(name_der(name))) == name


def test_the_other_way_round_is_how_der_has_it_and_openssl_reads_it(tmp_path):
    der = name_der(parse_name(r"CN=svc+serialNumber=1,O=Example\, Inc.,C=NO"))
    (tmp_path / "name").write_bytes(der)
    done = subprocess.run(
        ["openssl", "asn1parse", "-inform", "DER", "-in", tmp_path / "name"], capture_output=True, text=True, check=True
    )
    found = [line.split("prim:")[1].split(":") for line in done.stdout.splitlines() if "STRING" in line]
    assert [(kind.split()[0], value) for kind, value in found] == [
        ("PRINTABLESTRING", "NO"),
        ("UTF8STRING", "Example, Inc."),
        ("PRINTABLESTRING", "1"),  # of one relative name in the order of their bytes (X.690, 11.6)
        ("UTF8STRING", "svc"),
    ]


@given(
    st.lists(st.tuples(st.sampled_from(["CN", "O", "OU", "L", "ST", "STREET", "UID"]), TEXTS), min_size=1, max_size=4)
)
@example([("CN", " "), ("O", "# "), ("OU", '\\,+"<>;=')])
def test_a_name_is_written_as_cryptography_reads_it(values):
    kinds = {"L": "L", "ST": "ST"}
    name = parse_name(",".join(f"{kind}={_all_escaped(value)}" for kind, value in values))
    text = name_text(name)
    assert text.isprintable()
    assert parse_name(text) == name
    theirs = pyca.Name.from_rfc4514_string(text)
    assert [(each.rfc4514_attribute_name, each.value) for each in theirs] == [
        (kinds.get(kind, kind), value) for kind, value in reversed(values)
    ]
    back = parse_name(theirs.rfc4514_string())
    assert back == name


def _all_escaped(value: str) -> str:
    return "".join(f"\\{byte:02x}" for byte in value.encode())


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_refused_in_words(text):
    try:
        name = parse_name(text)
    except UsageError:
        return
    assert parse_name(name_text(name)) == name
    assert read_name(only(name_der(name))) is not None


@given(st.binary(max_size=80))
def test_any_bytes_are_a_name_or_a_fault(data):
    try:
        name = read_name(only(encoded(16, data)))
    except DerFault:
        return
    assert name_text(name).isprintable() or not name


@pytest.mark.parametrize(
    ("text", "piece", "why"),
    [
        ("CN=svc,O=Example, Inc.,C=NO", "' Inc.'", "no attribute with a value"),
        ("CN=svc,C=Norway", "'C=Norway'", "two capital letters"),
        ("CN=svc,C=no", "'C=no'", "two capital letters"),
        ("CN=svc,,C=NO", "''", "is empty"),
        ("CN=svc,", "''", "is empty"),
        ("CN=svc+", "''", "is empty"),
        (",", "''", "is empty"),
        ("svc", "'svc'", "no attribute with a value"),
        ("CN=", "'CN='", "has no value"),
        ("=x", "'=x'", "names the attribute ''"),
        ("CM=svc", "'CM=svc'", "names the attribute 'CM', which is not known"),
        ("3.1.2=x", "'3.1.2=x'", "is not known"),
        ('O="Example, Inc."', "'O=\"Example'", "in quotes"),
        ("CN=a;b", "'CN=a;b'", "';' that is not escaped"),
        ("CN=a\\", "'CN=a\\\\'", "escapes nothing"),
        ("CN=\\zz", "'CN=\\\\zz'", "escapes nothing"),
        ("CN=\\ff", "'CN=\\\\ff'", "no UTF-8"),
        ("CN=a\\0ab", "'CN=a\\\\0ab'", "control character"),
        ("CN=a\nb", "'CN=a\\nb'", "control character"),
        ("CN=#0c", "'CN=#0c'", "no DER"),
        ("CN=#xyz", "'CN=#xyz'", "no DER"),
        ("CN=#0403414243", "'CN=#0403414243'", "no text, and CN is one"),
        ("CN=#0c00", "'CN=#0c00'", "no text, and CN is one"),
        ("C=#0c034e4f52", "'C=#0c034e4f52'", "two capital letters"),
        ("CN=" + "x" * 65, "'CN=xxx", "longer than the 64 characters"),
        ("serialNumber=ä", "'serialNumber=ä'", "may not have"),
        ("DC=ä", "'DC=ä'", "beyond ASCII"),
        ("CN=a+CN=b", "'CN=b'", "twice"),
    ],
)
def test_what_is_wrong_is_named_by_its_piece(text, piece, why):
    with pytest.raises(UsageError) as caught:
        parse_name(text)
    assert piece in caught.value.message
    assert why in caught.value.message


def test_text_in_hexadecimal_is_written_as_its_attribute_has_it():
    assert parse_name("C=#0c024e4f,CN=#1303737663") == parse_name("C=NO,CN=svc")


def test_hints_say_how_it_is_written():
    for text, hint in (
        ("O=Example, Inc.", r"a comma or a plus sign in a value is written \, or \+"),
        ("CM=svc", "the attributes are C, CN, DC, GN, "),
        ("organisationIdentifier=x", "did you mean 'organizationIdentifier'?"),
        ("CN=a;b", r"it is written \;"),
        ("CN=\\q", r"a backslash itself is written \\"),
    ):
        with pytest.raises(UsageError) as caught:
            parse_name(text)
        assert hint in (caught.value.hint or "")


def test_names_are_the_same_whatever_their_case_and_kind_of_text():
    one = parse_name("CN=Example  CA,C=NO")
    printable = tuple(tuple(part._replace(value=encoded(19, b"EXAMPLE ca")) for part in rdn) for rdn in one[1:])
    assert same_name(one, one[:1] + printable)
    assert not same_name(one, parse_name("CN=Example CB,C=NO"))
    assert not same_name(one, parse_name("O=Example CA,C=NO"))


def test_what_is_no_text_is_shown_as_its_bytes():
    odd = parse_name("1.2.3=#0403010203")
    assert name_text(odd) == "1.2.3=#0403010203"
    broken = read_name(only(bytes.fromhex("300d310b3009060355040 30c02c328".replace(" ", ""))))
    assert name_text(broken) == "CN=#0c02c328"


GOOD = [
    ("dns:example.com", pyca.DNSName("example.com")),
    ("dns:*.example.com", pyca.DNSName("*.example.com")),
    ("DNS:xn--mller-kva.example", pyca.DNSName("xn--mller-kva.example")),
    ("email:a.b+c@example.com", pyca.RFC822Name("a.b+c@example.com")),
    ("uri:spiffe://td/ns/x?y=%20", pyca.UniformResourceIdentifier("spiffe://td/ns/x?y=%20")),
    ("url:urn:uuid:f81d4fae", pyca.UniformResourceIdentifier("urn:uuid:f81d4fae")),
    ("ip:192.0.2.1", pyca.IPAddress(ipaddress.ip_address("192.0.2.1"))),
    ("ip:2001:db8::1", pyca.IPAddress(ipaddress.ip_address("2001:db8::1"))),
]


def test_alternative_names_are_those_of_cryptography():
    texts = [text for text, _ in GOOD]
    der = alternatives_der(texts)
    assert der == pyca.SubjectAlternativeName([name for _, name in GOOD]).public_bytes()
    shown = alternative_texts(only(der))
    assert shown[0] == texts[0]
    assert alternatives_der(shown) == der


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("example.com", "write dns:, email:, uri: or ip: before it"),
        ("dn:example.com", "did you mean 'dns'?"),
        ("dns:müller.example", "A-label"),
        ("dns:", None),
        ("dns:a..b", None),
        ("dns:-a.example", None),
        ("dns:a_b.example", None),
        ("dns:a.example.", None),
        ("dns:a.*.example", None),
        ("dns:" + "a" * 64, None),
        ("dns:" + "a." * 127 + "a", None),
        ("dns:192.0.2.1", "ip:192.0.2.1"),
        ("email:example.com", None),
        ("email:Ann <a@example.com>", None),
        ("email:a@", None),
        ("uri:/relative", "absolute" and "for example"),
        ("uri:https://a b", "for example"),
        ("uri:https://a/%2", "for example"),
        ("uri:https://ä/", "%XX"),
        ("ip:192.0.2.0/24", "without a mask"),
        ("ip:192.0.2.256", None),
        ("ip:fe80::1%eth0", None),
    ],
)
def test_a_wrong_alternative_name_is_quoted(text, hint):
    with pytest.raises(UsageError) as caught:
        alternatives_der([text])
    assert f"the alternative name '{text[:20]}" in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


def test_an_alternative_name_stands_once():
    with pytest.raises(UsageError, match="'dns:a' stands there twice"):
        alternatives_der(["dns:a", "dns:a"])


@given(st.binary(min_size=1, max_size=60))
def test_alternative_names_of_any_bytes_are_shown_or_a_fault(data):
    assume(data)
    try:
        shown = alternative_texts(only(encoded(16, data)))
    except DerFault:
        return
    assert all(isinstance(text, str) and text for text in shown)
