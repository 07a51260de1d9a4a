"""Line numbers of TOML keys, which tomllib does not give."""

from __future__ import annotations

import tomllib

import pytest

from hsmjwt.toml_lines import key_lines, value_spans

TEXT = '''\
# a comment with = and [brackets]
top = 1
dotted.deeper . "with blank" = 2

[table]   # behind it
text = "a = [b]"          # "
other = 'literal \\'
many = """
fake = 1
"" two quotes and an escaped \\"""
"""
lots = \'\'\'
[fake]
\'\'\'
array = [
  1, "]", # ]
  { inside = 1 },
  [2, { deep = 3 }],
]
inline = { one = 1, two.three = { four = "}" } }
after = true
[ "quoted.part" . 'x' ]
"\\u0041" = 1
[[list]]
member = 1
[[list]]
member = 2
last = 2031-11-02T01:30:00Z
'''


def test_each_key_has_the_line_on_which_it_is_named_first():
    tomllib.loads(TEXT)  # or the test would be about something else
    lines = key_lines(TEXT)
    wanted = {
        ("top",): "top",
        ("dotted",): "dotted",
        ("dotted", "deeper", "with blank"): "dotted",
        ("table",): "[table]",
        ("table", "text"): "text",
        ("table", "other"): "other",
        ("table", "many"): "many",
        ("table", "lots"): "lots",
        ("table", "array"): "array",
        ("table", "array", "inside"): "  { inside",
        ("table", "array", "deep"): "  [2, { deep",
        ("table", "inline", "one"): "inline",
        ("table", "inline", "two", "three", "four"): "inline",
        ("table", "after"): "after",
        ("quoted.part", "x"): '[ "quoted',
        ("quoted.part", "x", "A"): '"\\u0041"',
        ("list",): "[[list]]",
        ("list", "member"): "member",
        ("list", "last"): "last",
    }
    for path, begins in wanted.items():
        assert TEXT.splitlines()[lines[path] - 1].startswith(begins), path
    assert not any("fake" in path for path in lines)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "=",
            "[",
            "[[",
            "a",
            "a =",
            "a = [",
            "a = {",
            "a = {b",
            'a = "',
            "a = '''",
            '"',
            "]",
            "a = [1 2]",
            "\0",
            "[]",
        ),
        *("a = " + "[" * 10_000, "a = " + "{b=" * 10_000, '"\\x" = 1', "a.=1", ".a=1", "a = 1 b = 2"),
    ],
)
def test_what_is_no_toml_never_raises(text):
    assert isinstance(key_lines(text), dict)


def test_what_stands_before_a_fault_keeps_its_line():
    assert key_lines("a = 1\nb = 2\nc = {")[("b",)] == 2


def test_a_value_stands_between_its_ends():
    found = {path: TEXT[start:end].strip() for path, (start, end) in value_spans(TEXT).items()}
    assert found["top",] == "1"
    assert found["table", "text"] == '"a = [b]"'
    assert found["table", "other"] == "'literal \\'"
    assert found["table", "many"].startswith('"""\nfake = 1')
    assert found["table", "many"].endswith('"""')
    assert found["table", "array"].startswith("[\n  1,")
    assert tomllib.loads("x = " + found["table", "array"])["x"] == tomllib.loads(TEXT)["table"]["array"]


@pytest.mark.parametrize("text", ["a = ", "a = [1", "[a\nb = 1", "= 1", 'a = "x\nb = 2'])
def test_a_text_that_is_no_toml_has_the_spans_that_stand_before_the_fault(text):
    assert set(value_spans("ok = 1\n" + text)) >= {("ok",)}
