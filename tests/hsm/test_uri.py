"""PKCS#11 URIs: each rule of RFC 7512 that we keep, what matches, what we write, and that no PIN is ever shown."""

from __future__ import annotations

import subprocess
import sys
import traceback
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hsmjwt.errors import UsageError
from hsmjwt.hsm import uri as module
from hsmjwt.hsm.uri import KeyUri, LibraryInfo, SlotInfo, TokenInfo, UriError, display, format_object_uri, parse

PIN = "S3cr3tPin-7461"
TOKEN = TokenInfo(label="cases", serial="3a55cfeb3ff43bc8", model="SoftHSM v2", manufacturer="SoftHSM project")
SLOT = SlotInfo(slot_id=7, description="SoftHSM slot ID 0x7", manufacturer="SoftHSM project")
LIBRARY = LibraryInfo(description="Implementation of PKCS11", manufacturer="SoftHSM", version=(2, 6))
TYPES = get_args(module.KeyType)

# Tables: as many to a line as fit.
# fmt: off
# What is said of a URI, and the URIs behind their `pkcs11:`.
REFUSED = {
    "'#' must be percent-encoded": ["object=a#b", "object=a#", "#", "object=a?module-name=b#c"],
    "'/' must be percent-encoded": ["object=a/b", "//object=a", "/"],
    "' ' must be percent-encoded": ["object=a b", "object=a ", " object=a", "id=% 1", "object=a?module-name=b c"],
    "must be percent-encoded": ["object=a\n", "object=a\0", "object=\x7f", "object=\x85", "token=\xa0", "token=\u202e"],
    "';' must be percent-encoded": ["object=a?module-name=b;type=private"],
    "no two hex digits": ["object=%", "object=%4", "id=%0g", "id=%+1", "id=%_1", "x=%z", "?module-path=%", "?x-v=%zz"],
    "not UTF-8": ["object=%ff", "token=%C3", "token=%C0%80", "token=%ED%A0%80", "x-vendor=%ff", "?module-path=%ff",
                  "object=\udcff", "object=\ud800", "id=\udcff", "?x-vendor=%ff"],
    "holds a NUL": ["object=%00", "token=a%00b", "?module-path=/a%00b", "?pin-source=/p%00"],
    "has no '='": ["object", "token=a;b", "?module-name=a&b", "?pin-source"],
    "no attribute name": ["=k", "ob%6Aect=k", "ob.ject=k", "?=k"],
    "an empty attribute": [";", ";object=k", "object=k;", "token=a;;object=k", "object=k;?x=1", "?x=1&&y=1", "?&x=1",
                           "?x=1&"],
    "repeats": ["object=a;object=b", "object=a;token=t;object=a", "id=%01;id=%01", "x-v=a;x-v=b",
                "?module-name=a&module-name=a", "?pin-source=/a&pin-source=/a"],
    "stands in the path": ["pin-source=env:P", "pin-value=1", "module-name=a", "object=k;module-path=a"],
    "stands in the query": ["?object=k", "?slot-id=1", "?x=1&type=private"],
    "one of public, private, cert, secret-key, data": ["type=", "type=Private", "type=pubkey", "type=private%20"],
    "a decimal number": ["slot-id=", "slot-id=0x1", "slot-id=-1", "slot-id=+1", "slot-id=1_0", "slot-id=%D9%A1",
                         "slot-id=1.0", "slot-id=18446744073709551616", "slot-id=" + "9" * 5000],
    "N or N.N": ["library-version=" + text for text in ("", "1.", ".1", "1.2.3", "256", "1.256", "a.b", "-1", "1,2")],
    "exclude each other": ["?pin-source=/p&pin-value=1", "?module-name=a&module-path=/b"],
    "pin-source must be": ["?pin-source=" + text for text in (
        "|/usr/lib/pinomatic", "%7C/usr/lib/pinomatic", "command:cat", "prompt", "fd:3", "credential:pin", "",
        "pin.txt", "./pin", "~/pin", "file:", "file:pin", "file:./pin", "file://host/pin", "file://localhost",
        "file:/p%2500", "file:/p%25ff", "file:/p%25zz", "env:", "env", "env:A=b", "https://host/pin")],
}
HINTS = {
    "object=my key;type=private": "write 'object=my%20key'", "token=t;object=a/b%20/": "write 'object=a%2Fb%20%2F'",
    "object=a\tb": "write 'object=a%09b'", "object=a\xa0b": "write 'object=a%C2%A0b'",
    "object=k#1": "write 'object=k%231'",
    "object=100%": "a '%' itself is written %25", "object=a;b": "a ';' inside a value is written %3B",
    "?module-path=/a&b": "a '&' inside a value is written %26", "?object=k": "it belongs before the '?'",
    "module-name=k": "it belongs behind the '?'",
}
ACCEPTED: dict[str, dict[str, Any]] = {
    "": {}, "?": {}, "object=k?": {"object": "k"}, "object=": {"object": ""}, "id=": {"id": b""},
    "id=01": {"id": b"01"}, "PKCS11=": {"unknown": (("PKCS11", ""),)},
    "id=%0001": {"id": b"\x0001"}, "id=%00%01": {"id": b"\0\1"}, "id=%fF%00%Fe": {"id": b"\xff\0\xfe"},
    "object=a=b:[]@!$'()*+,&c": {"object": "a=b:[]@!$'()*+,&c"}, "object=a&token=t": {"object": "a&token=t"},
    "object=%3B%2F%3F%23%20%25%26": {"object": ";/?# %&"}, "object=%EF%BF%BF": {"object": "\uffff"},
    "token=%C3%A1": {"token": "á"}, "token=á;object=<k>|": {"token": "á", "object": "<k>|"},
    "type=secret-key": {"type": "secret-key"}, "slot-id=0": {"slot_id": 0}, "slot-id=007": {"slot_id": 7},
    "slot-id=18446744073709551615": {"slot_id": 2**64 - 1}, "library-version=3": {"library_version": (3, 0)},
    "library-version=255.255": {"library_version": (255, 255)}, "library-version=2.06": {"library_version": (2, 6)},
    "object=k?module-path=/a|b?c/d": {"object": "k", "module_path": "/a|b?c/d"}, "?pin-value=": {"pin_value": ""},
    "?module-name=a%26b%3Bc": {"module_name": "a&b;c"}, "?pin-value=12%2634": {"pin_value": "12&34"},
    "object=k?x-vendor=666": {"object": "k"}, "object=k?x-vendor=1&x-vendor=2&y=": {"object": "k"},
    "x=1?x=2&x=3": {"unknown": (("x", "1"),)}, "Object=k": {"unknown": (("Object", "k"),)},
    "x-v=%20a;y_Z=": {"unknown": (("x-v", " a"), ("y_Z", ""))},
    # RFC 7512, section 3
    "token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;object=my-certificate;"
    "type=cert;id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin": {
        "token": "The Software PKCS#11 Softtoken", "manufacturer": "Snake Oil, Inc.", "model": "1.0", "type": "cert",
        "object": "my-certificate", "id": b"\x69\x95\x3e\x5c\xf4\xbd\xec\x91", "serial": "",
        "pin_source": "file:/etc/token_pin"},
    "slot-description=Sun%20Metaslot": {"slot_description": "Sun Metaslot"},
    "library-manufacturer=Snake%20Oil,%20Inc.;library-version=1.23": {
        "library_manufacturer": "Snake Oil, Inc.", "library_version": (1, 23)},
}
PIN_SOURCES = {
    "/etc/pin": "file:/etc/pin", "%2Fetc/pin": "file:/etc/pin", "/etc/a%20b%2541": "file:/etc/a b%41",
    "ENV:hsm": "env:hsm",
    "file:/etc/pin": "file:/etc/pin", "FILE:/etc/pin": "file:/etc/pin", "file:///etc/pin": "file:/etc/pin",
    "file://localhost/etc/pin": "file:/etc/pin", "file:///etc/a%20b": "file:/etc/a b",
    "file:///etc/a%2520b": "file:/etc/a b",
    "file:/etc/a?b|c": "file:/etc/a?b|c", "env:HSM_PIN": "env:HSM_PIN", "env%3AHSM_PIN": "env:HSM_PIN",
}
FITS = [
    "", "token=cases", "token=cases%20%20", "slot-id=7", "slot-description=SoftHSM%20slot%20ID%200x7", "?x-vendor=1",
    "serial=3a55cfeb3ff43bc8;model=SoftHSM%20v2;manufacturer=SoftHSM%20project;slot-manufacturer=SoftHSM%20project",
    "library-version=2.6;library-manufacturer=SoftHSM;library-description=Implementation%20of%20PKCS11",
]
FITS_NOT = [
    "token=case", "token=Cases", "token=%20cases", "token=", "token=cases" + "%20" * 28, "serial=", "model=x", "x=",
    "serial=3a55cfeb3ff43bc8%20", "manufacturer=x", "slot-id=8", "slot-description=x", "slot-manufacturer=",
    "library-version=2", "library-version=2.60", "library-description=", "library-manufacturer=x",
    "token=cases;obejct=k",
]
NEAREST = {"obejct": "object", "Object": "object", "tokn": "token", "slot_id": "slot-id", "label": "object",
           "slot": "slot-id", "manufactuer": "manufacturer", "libary-version": "library-version"}
# {} is the PIN; each text is shown by somebody's mistake.
LEAKS = [
    *("pkcs11:" + text for text in (
        "object=k?pin-value={}", "?pin-value={}", "pin-value={}", "pin-value={};object=k",
        "object=k?pin-value={}&pin-value={}", "object=k?pin-value={}&pin-source=/p",
        "object=k?pin-source=/p&pin-value={}", "object=k?pin-source={}", "object=k?pin-source=|echo {}",
        "object=k?pin-source=|echo%20{}", "object=k?pin-source=command:{}",
        "object=k?pin-source=12&{}", "object=k?pin-value=1&{}", "object=k?pin-value=1;{}", "object=k?pin-value=1?{}",
        "object=k?pin-value=1#{}", "object=k?pin-value=1 {}", "object=k?pin-value=1%{}", "object=k?pin-value=%ff{}",
        "object=k?pin-value=1&x={}&{}", "object=k?pin-value=1&x=2;{}=3", "object=k?pin-value=\x00{}",
        "object=k?pin-value=\udcff{}", "object=k?pin-value {}", "object=k?pin-value{}", "object=k?pin-value%3D{}",
        "object=k?PIN-VALUE={}", "object=k?pin%2Dvalue={}", "object=k?%70in-value={}", "object=k?pin_value={}",
        "object=k?pinvalue={}", "object=k?pin-valeu={}&&", "object=k;pin={};pin={}", "object=k;pin-valeu={}",
        "object=k;pin-valeu=a;x={}", "object=k&pin-value={}", "object=k;?pin-value={}", "object=k??pin-value={}",
        "obj ect=k?pin-value={}")),
    "pkcs12:object=k?pin-value={}", "object=k?pin-value={}", "url=pkcs11%3Aobject%3Dk%3Fpin-value%3D{}",
    'uri = "pkcs11:object=k?pin-value={}"', "cannot read 'pkcs11:object=k?pin-value={}'",
]
SHOWN_WHOLE = [
    "", "nothing of that kind", "the URI's pin-source and object", "pkcs11:object=pinned-value?pin-source=env:PIN",
    "pkcs11:token=a;object=pin;id=%01?pin-source=file:/etc/pin&module-name=x", "pkcs11:object=pin=1",
    "pkcs11:object=k?pin-source=%2Fetc%2Fpin",
]
# fmt: on


def refused(text: str) -> UriError:
    with pytest.raises(UriError) as caught:
        parse(text)
    said = caught.value.message
    assert isinstance(caught.value, UsageError)
    assert caught.value.exit_code == 2
    assert (said + (caught.value.hint or "")).isprintable()
    assert not said.endswith(".")
    return caught.value


@pytest.mark.parametrize(("said", "rest"), [(said, rest) for said, texts in REFUSED.items() for rest in texts])
def test_broken_uri_is_refused_with_the_reason(said: str, rest: str) -> None:
    assert said in refused("pkcs11:" + rest).message


@pytest.mark.parametrize("text", ["", "pkcs11", "object=k", " pkcs11:object=k", "pkcs12:a=b", "pkcs11%3Aa=b", "\udcff"])
def test_text_without_the_scheme_is_refused(text: str) -> None:
    assert "does not begin with 'pkcs11:'" in refused(text).message


@pytest.mark.parametrize(("rest", "hint"), HINTS.items())
def test_refusal_hints_at_the_form_that_is_meant(rest: str, hint: str) -> None:
    assert refused("pkcs11:" + rest).hint == hint


def test_encoded_form_in_the_hint_parses_to_what_was_meant() -> None:
    hint = refused("pkcs11:object=a/b c#\x7fé").hint or ""
    assert parse("pkcs11:" + hint.removeprefix("write '").removesuffix("'")).object == "a/b c#\x7fé"


@pytest.mark.parametrize(("rest", "fields"), ACCEPTED.items())
@pytest.mark.parametrize("scheme", ["pkcs11:", "PkCS11:"])
def test_accepted_uri_gives_its_decoded_values(scheme: str, rest: str, fields: dict[str, Any]) -> None:
    assert parse(scheme + rest) == KeyUri(**fields)


@pytest.mark.parametrize(("source", "spec"), PIN_SOURCES.items())
def test_pin_source_becomes_our_own_spec(source: str, spec: str) -> None:
    assert module.pin_source_spec(parse("pkcs11:?pin-source=" + source)) == spec


def test_pin_source_that_is_absent_or_that_no_parser_saw() -> None:
    assert module.pin_source_spec(parse("pkcs11:object=k")) is None
    with pytest.raises(UriError):
        module.pin_source_spec(KeyUri(pin_source="command:cat"))


@pytest.mark.parametrize(("rest", "fits"), [(rest, True) for rest in FITS] + [(rest, False) for rest in FITS_NOT])
def test_uri_matches_the_token_that_it_describes_and_no_other(rest: str, fits: bool) -> None:
    uri = parse("pkcs11:" + rest)
    assert (uri.matches_library(LIBRARY) and uri.matches_slot(SLOT) and uri.matches_token(TOKEN)) is fits


def test_padding_is_cut_before_fields_compare() -> None:
    padded = TokenInfo(label="cases".ljust(32), serial="1\0\0\0", model=" " * 16, manufacturer="\0" * 32)
    assert parse("pkcs11:token=cases;serial=1;model=;manufacturer=").matches_token(padded)
    slot = SlotInfo(slot_id=1, description="d".ljust(64), manufacturer="m".ljust(32))
    assert parse("pkcs11:slot-description=d;slot-manufacturer=m").matches_slot(slot)
    library = LibraryInfo(description="d".ljust(32), manufacturer="m".ljust(32), version=(1, 0))
    assert parse("pkcs11:library-description=d;library-manufacturer=m;library-version=1").matches_library(library)


@pytest.mark.parametrize(("name", "width"), [("token", 32), ("manufacturer", 32), ("model", 16), ("serial", 16)])
def test_value_longer_than_its_field_in_bytes_matches_nothing(name: str, width: int) -> None:
    for text, fits in (("x" * width, True), ("é" * (width // 2), True), ("x" * (width - 1) + "é", False)):
        info = TokenInfo(label=text, serial=text, model=text, manufacturer=text)
        assert parse(f"pkcs11:{name}={text}").matches_token(info) is fits
    slot = SlotInfo(slot_id=0, description="x" * 65, manufacturer="")
    assert parse("pkcs11:slot-description=" + "x" * 64).matches_slot(replace(slot, description="x" * 64))
    assert not parse("pkcs11:slot-description=" + "x" * 65).matches_slot(slot)


def test_object_attributes_compare_to_the_letter() -> None:
    for rest in ("", "object=k1;id=%01;type=private", "token=other"):
        assert parse("pkcs11:" + rest).matches_object("k1", b"\1", "private")
    for rest in ("object=k1%20", "object=", "object=K1", "id=01", "id=", "id=%01%00", "type=public", "object=k1;x="):
        assert not parse("pkcs11:" + rest).matches_object("k1", b"\1", "private")


def test_empty_value_matches_an_empty_one_and_not_an_untold_one() -> None:
    assert parse("pkcs11:object=;id=").matches_object("", b"", "private")
    assert not parse("pkcs11:object=").matches_object(None, b"", "private")
    assert not parse("pkcs11:id=").matches_object("", None, "private")
    assert parse("pkcs11:").matches_object(None, None, "data")


def test_key_uri_without_type_means_the_private_key() -> None:
    assert parse("pkcs11:object=k").for_private() == KeyUri(object="k", type="private")
    assert [parse("pkcs11:type=" + name).for_private().type for name in TYPES] == list(TYPES)


@pytest.mark.parametrize(("name", "near"), NEAREST.items())
def test_misspelt_attribute_matches_nothing_and_names_the_nearest(name: str, near: str) -> None:
    uri = parse(f"pkcs11:token=cases;{name}=k9")
    assert not any([uri.matches_token(TOKEN), uri.matches_slot(SLOT), uri.matches_library(LIBRARY)])
    assert not uri.matches_object("k9", b"", "private")
    assert f"the attribute {name!r} is unknown" in (uri.unknown_hint() or "")
    assert f"did you mean {near!r}?" in (uri.unknown_hint() or "")


def test_attribute_that_is_near_nothing_gets_no_proposal() -> None:
    assert "did you mean" not in (parse("pkcs11:x-" + "q" * 100_000 + "=1").unknown_hint() or "")
    assert parse("pkcs11:object=k").unknown_hint() is None


def test_id_of_hex_digits_and_no_other_gets_the_encoded_form_offered() -> None:
    for text, offer in {"01": "%01", "0001": "%00%01", "aBcD": "%AB%CD", "1": "%01", "abc": "%0A%BC"}.items():
        hint = module.hex_hint(parse("pkcs11:id=" + text)) or ""
        assert hint.endswith(f"write 'id={offer}'")
        assert text.encode().hex(" ") in hint
    for rest in ("", "id=", "id=%01", "id=0g", "id=%0001"):
        assert module.hex_hint(parse("pkcs11:" + rest)) is None


def test_written_uri_has_its_parts_in_the_order_of_the_rules() -> None:
    start = "pkcs11:token=cases;serial=3a55cfeb3ff43bc8"
    written = format_object_uri(TOKEN, label="k1", id=b"\1a", type="private")
    assert written == start + ";object=k1;id=%01%61;type=private"
    assert format_object_uri(TOKEN, label="k1", id=None, type=None, slot_id=7) == start + ";slot-id=7;object=k1"
    assert module.format_token_uri(TOKEN) == start
    assert module.format_token_uri(TOKEN, 0) == start + ";slot-id=0"
    strange = TokenInfo(label="Rutoken <no label>; pkcs11:m=1%?", serial="", model="", manufacturer="")
    assert format_object_uri(strange, label="a'b/c&é", id=b"", type="private") == (
        "pkcs11:token=Rutoken%20%3Cno%20label%3E%3B%20pkcs11:m=1%25%3F;serial=;"
        "object=a%27b%2Fc%26%C3%A9;id=;type=private"
    )


def test_value_that_no_uri_can_ask_for_is_left_out() -> None:
    token = TokenInfo(label="a\0b", serial="\udcff", model="", manufacturer="")
    assert format_object_uri(token, label="x\0", id=b"\0", type=None) == "pkcs11:id=%00"
    assert format_object_uri(token, label="\ud800", id=None, type=None) == "pkcs11:"
    assert module.format_token_uri(replace(token, label="\ufffd" * 11, serial="1")) == "pkcs11:serial=1"


def texts(most: int | None = None) -> st.SearchStrategy[str]:
    spicy = st.sampled_from(["%", ";", "&", "?", "/", "#", "=", "'", " ", "\n", "\x7f", "pin-", "é", "\uffff", "%41"])
    anything = st.lists(st.characters(exclude_categories=["Cs"], exclude_characters="\0") | spicy).map("".join)
    return anything if most is None else anything.filter(lambda text: len(text.encode()) <= most)


tokens = st.builds(TokenInfo, label=texts(32), serial=texts(16), model=texts(16), manufacturer=texts(32))
slot_ids = st.none() | st.integers(0, 2**64 - 1)
neighbours = st.tuples(
    st.sampled_from(["", "a", "a ", "A", "é", "%61", "a;b"]),
    st.sampled_from([b"", b"\0", b"\1", b"01", b"\0\1"]),
    st.sampled_from(["private", "public"]),
)
key_uris = st.builds(
    KeyUri,
    **{name: st.none() | texts() for name in ("token", "serial", "model", "object", "slot_description", "module_path")},
    id=st.none() | st.binary(max_size=20),
    type=st.none() | st.sampled_from(TYPES),
    slot_id=slot_ids,
    library_version=st.none() | st.tuples(st.integers(0, 255), st.integers(0, 255)),
    unknown=st.sampled_from([(), (("x", ""),), (("x", "a;b"), ("y-z", "é"))]),
    pin_source=st.sampled_from([None, "/a b&c", "file:/%41", "env:P"]),
)


@settings(deadline=None)
@given(tokens, texts(), st.binary(max_size=40), st.sampled_from(TYPES), slot_ids)
def test_written_uri_selects_what_it_was_written_for(
    token: TokenInfo, label: str, key_id: bytes, key_type: module.KeyType, slot_id: int | None
) -> None:
    written = format_object_uri(token, label=label, id=key_id, type=key_type, slot_id=slot_id)
    assert not set(written) - set("%:;=@+,-._~") - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    uri = parse(written)
    assert uri.matches_token(token)
    assert (uri.object, uri.id, uri.type, uri.slot_id) == (label, key_id, key_type, slot_id)


@settings(deadline=None, max_examples=50)
@given(neighbours, neighbours, tokens, tokens)
def test_written_uri_selects_no_neighbour(one: Any, other: Any, here: TokenInfo, there: TokenInfo) -> None:
    uri = parse(format_object_uri(here, label=one[0], id=one[1], type=one[2]))
    same = all(getattr(here, name).rstrip(" ") == getattr(there, name).rstrip(" ") for name in ("label", "serial"))
    assert uri.matches_object(*other) is (one == other)
    assert uri.matches_token(there) is same


@settings(deadline=None)
@given(key_uris)
def test_canonical_form_parses_to_the_same_uri(uri: KeyUri) -> None:
    text = str(uri)
    assert "***" in text or parse(text) == uri  # an id that spells `pinvalue=` is masked like a PIN


@settings(deadline=None)
@given(texts() | st.text(st.characters()))
def test_any_text_is_parsed_or_refused_and_nothing_else(text: str) -> None:
    for candidate in (text, "pkcs11:" + text, "pkcs11:object=" + text, "pkcs11:?pin-source=" + text):
        try:
            parse(str(parse(candidate)))
        except UriError as error:
            assert (error.message + (error.hint or "")).isprintable()  # noqa: PT017  either outcome is right


@pytest.mark.parametrize("leak", LEAKS)
def test_pin_in_any_uri_is_shown_nowhere(leak: str) -> None:
    text, shown = leak.replace("{}", PIN), ""
    try:
        uri = parse(text)
        shown = f"{uri} {uri!r} {uri.unknown_hint()} {uri.__rich_repr__()} {uri.for_private()!r}"
    except UriError as error:
        shown = "".join(traceback.format_exception(error)[-1:]) + repr(error) + str(error.hint)
        assert error.__context__ is None  # noqa: PT017  a decoding error would carry the bytes
    assert PIN not in shown + display(text)
    assert "***" in display(text)


@settings(deadline=None)
@given(st.text(alphabet="%&;?# =a\x00\udcff", max_size=12))
def test_no_part_of_a_raw_pin_gets_into_messages(noise: str) -> None:
    text = f"pkcs11:object=k?pin-value={PIN}{noise}{PIN}"
    assert display(text) == "pkcs11:object=k?pin-value=***"
    try:
        parse(text)
    except UriError as error:
        assert PIN not in error.message + str(error.hint)  # noqa: PT017  either outcome is right


def test_display_ends_a_secret_at_the_next_known_attribute() -> None:
    text = f"pkcs11:object=k?pin-value={PIN}&{PIN}&module-name=softhsm2"
    assert display(text) == "pkcs11:object=k?pin-value=***&module-name=softhsm2"


@pytest.mark.parametrize("text", SHOWN_WHOLE)
def test_display_leaves_a_text_without_secret_as_it_is(text: str) -> None:
    assert display(text) == text


def test_pin_value_is_kept_for_the_login_and_hidden_in_the_canonical_form() -> None:
    uri = parse(f"pkcs11:object=k?pin-value={PIN}&module-name=softhsm2")
    assert uri.pin_value == PIN
    assert repr(uri) == "KeyUri('pkcs11:object=k?module-name=softhsm2&pin-value=***')"


def test_huge_uri_is_read_in_linear_time_and_quoted_in_part() -> None:
    assert parse("pkcs11:object=" + "%41" * 100_000).object == "A" * 100_000
    assert len(refused("pkcs11:" + ";".join(f"a{i}=b" for i in range(20_000)) + ";").message) < 400


def test_module_loads_neither_pkcs11_nor_requests_nor_dataclasses() -> None:
    code = "import sys, hsmjwt.hsm.uri; print([m for m in ('pkcs11', 'requests', 'dataclasses') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
