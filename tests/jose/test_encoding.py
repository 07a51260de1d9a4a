"""base64url and JSON: one spelling, and a message that says where."""

from __future__ import annotations

import base64
import json
import math
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.jose.encoding import EncodingFault, b64u_decode, b64u_encode, dump, load, load_object, quoted

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
SECRET = "hunter2-marker"

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**308), 10**308)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(st.binary(max_size=300))
def test_base64url_round_trip(data):
    text = b64u_encode(data)
    assert b64u_decode(text) == data
    assert text == base64.urlsafe_b64encode(data).decode().rstrip("=")


@given(st.binary(min_size=1, max_size=40), st.data())
def test_no_bytes_have_a_second_spelling(data, draw):
    text = b64u_encode(data)
    at = draw.draw(st.integers(0, len(text) - 1))
    other = draw.draw(st.characters())
    changed = text[:at] + other + text[at + 1 :]
    try:
        decoded = b64u_decode(changed)
    except EncodingFault:
        return
    assert (decoded == data) == (changed == text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("QQ==", "padding"),
        ("QUI=", "padding"),
        ("=", "padding"),
        ("QUJD\n", "white space in base64url at character 5"),
        (" QUJD", "white space in base64url at character 1"),
        ("QU JD", "white space"),
        ("QU\u00a0JD", "white space"),
        ("-_+/", "'+' at character 3: standard base64"),
        ("QU/D", "standard base64"),
        ("QU!D", "'!' at character 3"),
        ("QU\x00D", r"'\x00' at character 3"),
        ("QUÄD", "'Ä'"),
        ("QU\ud800D", r"'\ud800'"),
        ("\uff11\uff11\uff11\uff11", "is no base64url"),
        ("QUJDR", "cut short"),
        ("Q", "cut short"),
        ("QR", "unused bits"),
        ("QUJ", "unused bits"),
    ],
)
def test_base64url_in_another_spelling_is_refused_with_the_reason(text, reason):
    with pytest.raises(EncodingFault) as caught:
        b64u_decode(text)
    assert reason in str(caught.value)


def test_one_of_sixteen_last_characters_is_right_where_four_bits_are_unused():
    taken = [last for last in ALPHABET if _decodes("Q" + last)]
    assert taken == ["A", "Q", "g", "w"]


def _decodes(text):
    try:
        b64u_decode(text)
    except EncodingFault:
        return False
    return True


@given(VALUES)
def test_what_dump_writes_load_reads_back(value):
    text = dump(value)
    assert load(text) == value
    assert json.loads(text) == value
    assert load(text.decode()) == value


def test_dump_is_compact_utf8_in_the_order_given():
    assert dump({"z": 1, "a": ["é", 1.5, None, True], "m": {}}) == '{"z":1,"a":["é",1.5,null,true],"m":{}}'.encode()


def test_a_tuple_is_an_array():
    assert dump({"aud": ("a", "b")}) == b'{"aud":["a","b"]}'


def test_integers_keep_all_their_digits():
    assert load("12345678901234567890123") == 12345678901234567890123
    assert dump(load('{"x":12345678901234567890123}')) == b'{"x":12345678901234567890123}'
    assert load(str(10**308)) == 10**308


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"x": math.nan}, "claim 'x' is NaN"),
        ({"x": {"a": [math.inf]}}, "claim 'x.a[0]' is NaN or infinite"),
        ({"x": -math.inf}, "claim 'x'"),
        ({"x": [1, 10**400]}, "claim 'x[1]' is a number that no double holds"),
        ({"x": -(10**309)}, "no double holds"),
        ({"x": "a\ud800"}, "claim 'x' holds half a surrogate pair"),
        ({"x": {"\udfff": 1}}, r"claim 'x.\udfff' has half a surrogate pair in its name"),
        ({"x": {1: 2}}, "claim 'x' has a name of the type int"),
        ({"x": b"bytes"}, "claim 'x' is of the type bytes"),
        ({"x": {1}}, "of the type set"),
        ({"x": object()}, "of the type object"),
    ],
)
def test_dump_names_the_claim_that_json_cannot_hold(value, reason):
    with pytest.raises(EncodingFault) as caught:
        dump(value, noun="claim")
    assert reason in str(caught.value)


def test_a_value_that_holds_itself_is_refused_by_its_depth():
    value: list = []
    value.append(value)
    with pytest.raises(EncodingFault, match="nested too deep"):
        dump({"x": value})


def _nested(levels):
    return "[" * levels + "]" * levels


def test_32_levels_are_read_and_written_33_are_not():
    value = load(_nested(32))
    assert dump(value) == _nested(32).encode()
    with pytest.raises(EncodingFault, match="deeper than 32 levels at character 33"):
        load(_nested(33))
    with pytest.raises(EncodingFault, match="nested too deep"):
        dump([value])
    assert load(_nested(2), depth=2) == [[]]
    with pytest.raises(EncodingFault, match="deeper than 2"):
        load(_nested(3), depth=2)


@pytest.mark.parametrize("text", ["[" * 1_000_000, '{"a":' * 200_000, "[{" * 5000 + "}]" * 5000])
def test_nesting_beyond_pythons_stack_is_refused_like_any_other(text):
    with pytest.raises(EncodingFault, match="nested deeper"):
        load(text)


def test_brackets_in_text_are_no_nesting():
    deep = "[{" * 100
    assert load(json.dumps({"x": deep, "y": '\\"[' * 50, deep: 1})) == {"x": deep, "y": '\\"[' * 50, deep: 1}


@pytest.mark.parametrize(
    "text", ['"' + '\\"' * 400_000, '"' * 800_001, "[" + "1," * 300_000 + "1]", '{"x":"' + "\\" * 600_001]
)
def test_long_text_takes_linear_time(text):
    began = time.process_time()
    try:
        load(text)
    except EncodingFault:
        pass
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a":1,"a":2}', "claim 'a' occurs twice"),
        ('{"a":1,"\\u0061":2}', "claim 'a' occurs twice"),
        ('{"x":[{"b":{},"b":{}}]}', "claim 'x[0].b' occurs twice"),
        ('{"x":NaN}', "claim 'x' is NaN"),
        ('{"x":[-Infinity]}', "claim 'x[0]' is -Infinity"),
        ("Infinity", "the value is Infinity"),
        ('{"x":1e400}', "claim 'x' is a number that no double holds"),
        ('{"x":{"a":[-1e999]}}', "claim 'x.a[0]' is a number"),
        ('{"x":' + "9" * 400 + "}", "claim 'x' is a number"),
        ('{"x":-' + "9" * 5000 + "}", "claim 'x' is a number"),
        ('{"x":' + "9" * 309 + "}", "claim 'x' is a number"),
        ('{"x":"\\ud800"}', "claim 'x' holds half a surrogate pair"),
        ('{"x":"\\udc00\\ud800"}', "half a surrogate pair"),
        ('{"a\\udc00":1}', r"claim 'a\udc00' has half a surrogate pair in its name"),
        ('{"a\\n":1e400}', r"claim 'a\n' is"),
        ("\ud800", "not UTF-8"),
        ("", "empty"),
        (" \n ", "empty"),
        ("\ufeff{}", "BOM"),
        ("{} {}", "extra data at line 1, column 4"),
        ('{"a":1,}', "at line 1, column"),
        ('{"a":\n01}', "at line 2, column"),
        ('{"a":"\t"}', "invalid control character at line 1, column"),
        ('{"a":"' + SECRET, "unterminated string starting at line 1, column 6"),
        ("{'a':1}", "not JSON"),
        ("[1,2", "not JSON"),
        ("nul", "not JSON"),
        ("+1", "not JSON"),
        ("\u00a01", "not JSON"),
        ("1 // comment", "extra data"),
        ("\u0661", "not JSON"),
    ],
)
def test_json_that_others_may_read_otherwise_is_refused(text, reason):
    with pytest.raises(EncodingFault) as caught:
        load(text, noun="claim")
    message = str(caught.value)
    assert reason in message
    assert "\n" not in message
    assert SECRET not in message


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'\xef\xbb\xbf{"a":1}', "BOM"),
        ('{"a":1}'.encode("utf-16"), "UTF-16"),
        ('{"a":1}'.encode("utf-16-be"), "UTF-16"),
        ('{"a":1}'.encode("utf-16-le"), "UTF-16"),
        ('{"a":1}'.encode("utf-32"), "UTF-32"),
        ('{"a":"é"}'.encode("latin-1"), "not UTF-8 at byte 7"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a":"\xc0\x80"}', "not UTF-8"),
        (b"", "empty"),
    ],
)
def test_bytes_that_are_not_utf8_are_refused(data, reason):
    with pytest.raises(EncodingFault) as caught:
        load(data)
    assert reason in str(caught.value)


def test_neither_a_fault_nor_its_traceback_repeats_the_text():
    for text in (f'{{"a":"{SECRET}"', f'{{"a":"{SECRET}"}} x', f'"{SECRET}\ud800"', f'{{"a":1,"b":"{SECRET}","a":2}}'):
        with pytest.raises(EncodingFault) as caught:
            load(text)
        error: BaseException | None = caught.value
        while error is not None:
            assert SECRET not in str(error)
            assert SECRET not in repr(vars(error))
            error = error.__cause__


def test_the_path_begins_at_the_root_given():
    with pytest.raises(EncodingFault) as caught:
        load('{"a":[1e999]}', noun="claim", root="x")
    assert str(caught.value) == "claim 'x.a[0]' is a number that no double holds"


@pytest.mark.parametrize(
    ("text", "seen"), [("[]", "a list"), ('"a"', "text"), ("1", "a number"), ("null", "null"), ("false", "false")]
)
def test_an_object_is_told_from_other_values(text, seen):
    with pytest.raises(EncodingFault, match=f"^{seen} where a JSON object belongs"):
        load_object(text)
    assert load_object(b'{"a":1}') == {"a": 1}


@given(st.text(max_size=60))
def test_any_text_is_json_or_a_fault_and_never_another_exception(text):
    for data in (text, text.encode("utf-8", "surrogatepass")):
        try:
            value = load(data)
        except EncodingFault:
            continue
        assert json.loads(data) == value


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_a_fault(data):
    try:
        value = load(data)
    except EncodingFault:
        return
    assert load(dump(value)) == value


def test_a_quoted_value_shows_control_characters_and_ends():
    assert quoted("a\tb\x1b[31m") == r"'a\tb\x1b[31m'"
    assert quoted("größe") == "'größe'"
    assert quoted("it's") == "'it's'"
    assert len(quoted("x" * 10_000)) < 100


@pytest.mark.parametrize(
    "data",
    [
        '{"pin": "S3cr3t" x',
        b'{"pin": "S3cr3t" x',
        b'{"pin": "S3cr3t\xff"}',
        '{"pin": "S3cr3t", "pin": 1}',
        '{"pin": "S3cr3t\udc80"}',
        b"\xef\xbb\xbfS3cr3t",
        "[" * 40 + "S3cr3t",
    ],
)
def test_a_fault_leads_to_no_error_that_holds_the_text(data):
    with pytest.raises(EncodingFault) as caught:
        load(data)
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    assert "S3cr3t" not in f"{error} {error.args} {vars(error)}"
