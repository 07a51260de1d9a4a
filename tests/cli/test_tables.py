"""Tables: styled on a terminal, plain everywhere else, and each cell letter by letter."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADS = ["NAME", "URI"]
URI = "pkcs11:token=prod;serial=0123456789abcdef;object=adobe-jwt;id=%01%02%03%04;type=private"
ODD = ["signing [prod]", "[/red] old", "[link=x]y", ":smile: k", "[bold]b[/bold]", "\\[x]", "https://as.example"]
PRINT = """
import json, sys
from hsmjwt.cli.output import Console
Console().table(*json.loads(sys.argv[1]))
"""
BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


@pytest.fixture
def shown(token):
    """Return what a terminal of so many columns gets from Python code, its line ends as \\n."""

    def run(code: str, *args: str, columns: int = 120, **environ: str) -> str:
        main, other = pty.openpty()
        fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        given = token.environ() | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"} | environ
        pid = os.fork()
        if pid == 0:
            for number in range(3):
                os.dup2(other, number)
            os.execve(sys.executable, [sys.executable, "-c", code, *args], given)
        os.close(other)
        out = b""
        while True:
            try:
                more = os.read(main, 65536)
            except OSError:  # EIO: nobody has the terminal any more
                break
            if not more:
                break
            out += more
        os.close(main)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, out
        return out.decode().replace("\r\n", "\n")

    return run


@pytest.fixture
def table(shown):
    def run(rows: list[list[str]], heads: list[str] = HEADS, code: str = PRINT, **how) -> str:
        return shown(code, json.dumps([heads, rows]), **how)

    return run


def letters(text: str) -> str:
    """Return a text without its styles."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_terminal_shows_the_heads_in_bold_and_a_line_below(table):
    out = table([["a", "b"], ["long name", "c"]])
    head, line, *rows = out.splitlines()
    assert head.startswith(f"{BOLD}NAME{PLAIN}")
    assert set(line) == {"─"}
    assert [row.split() for row in rows] == [["a", "b"], ["long", "name", "c"]]
    assert rows[0].index("b") == rows[1].index("c") == letters(head).index("URI")
    assert "\x1b" not in "".join(rows)


@pytest.mark.parametrize("columns", [40, 200])
def test_markup_in_a_cell_stays_what_it_is(table, columns):
    out = table([[text, URI] for text in ODD], columns=columns)
    rows = out.splitlines()[-len(ODD) :]
    for row, text in zip(rows, ODD, strict=True):
        assert row.startswith(text)
        assert "\x1b" not in row
    heads = table([["a", "b"]], heads=["[red]x", ":smile:"], columns=columns)
    assert letters(heads).splitlines()[0].split() == ["[red]x", ":smile:"]


@pytest.mark.parametrize("columns", [1, 20, 80, 99, 100, 101, 1000])
def test_a_cell_is_neither_cut_nor_broken_whatever_the_width(table, columns):
    out = table([["k1", URI], ["a longer name", URI]], columns=columns)
    rows = out.splitlines()[-2:]
    assert [row.rstrip().rpartition(" ")[2] for row in rows] == [URI, URI]
    assert [row[:14].strip() for row in rows] == ["k1", "a longer name"]


def test_a_table_wider_than_the_terminal_has_no_line_and_no_blanks_at_its_ends(table):
    out = table([["k1", URI], ["k2", "short"]], columns=60)
    assert "─" not in out
    assert out.startswith(f"{BOLD}NAME  URI{PLAIN}\n")
    assert all(line == line.rstrip() for line in letters(out).splitlines())


def test_letters_that_take_two_columns_keep_the_columns_straight(table):
    for columns in (40, 200):
        rows = table([["日本", URI], ["abcd", URI]], columns=columns).splitlines()[-2:]
        assert len(rows[0].partition("pkcs11:")[0]) + 2 == len(rows[1].partition("pkcs11:")[0])


def test_control_characters_drive_no_terminal(table):
    for columns in (40, 200):
        out = table([["a\x1b[31mb\nc\x07\x9b", URI]], columns=columns)
        assert "a\\x1b[31mb\\nc\\x07\\x9b" in out
        assert all(line.isprintable() for line in letters(out).splitlines())


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": "unknown"}])
def test_a_terminal_that_wants_no_styles_gets_the_lines_of_a_pipe(table, token, environ):
    rows = [["k1", URI], ["a longer name", "short"]]
    piped = token.python(PRINT, json.dumps([HEADS, rows]), PYTHONPATH=str(ROOT), FORCE_COLOR="1", TERM="xterm")
    assert piped.out == f"NAME           URI\nk1             {URI}\na longer name  short\n"
    assert table(rows, **environ) == piped.out


def test_an_empty_no_color_is_none(table):
    assert BOLD in table([["a", "b"]], NO_COLOR="")


def test_without_rich_a_terminal_gets_plain_lines(table):
    out = table([["a", URI]], code=f"import sys; sys.modules['rich'] = None\n{PRINT}")
    assert out == f"NAME  URI\na     {URI}\n"


def test_a_terminal_of_ascii_gets_ascii(table):
    for columns in (40, 200):
        out = table([["æ…", URI]], columns=columns, PYTHONIOENCODING="ascii")
        assert out.isascii()
        assert "\\xe6\\u2026" in out
        assert URI in out


def test_a_terminal_that_does_not_tell_its_width_has_80_columns(table):
    assert "─" in table([["a", "x" * 60]], columns=0)
    assert "─" not in table([["a", "x" * 80]], columns=0)


def test_a_table_without_rows_has_its_heads(table):
    for columns in (3, 200):
        assert letters(table([], columns=columns)).split("\n")[0].split() == HEADS


def test_listings_are_tables_also_behind_a_module(shown, token):
    token.make_key("[/red] old", "02")
    code = "from hsmjwt.cli.main import entry; entry()"
    for columns in (60, 300):
        out = shown(code, "key", "list", "--key", "pkcs11:token=t1", columns=columns)
        assert BOLD in out
        (row,) = [line for line in out.splitlines() if line.startswith("[/red] old ")]
        assert re.search(r" pkcs11:token=t1;serial=[0-9a-f]+;object=%5B%2Fred%5D%20old;id=%02;type=private *$", row)
        assert BOLD in shown(code, "slot", "list", columns=columns)
    assert json.loads(shown(code, "slot", "list", "--json"))
