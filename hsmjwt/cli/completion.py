"""What a shell offers for the word at the cursor, and the scripts that ask for it.

A shell calls hsmjwt without arguments and with `_HSMJWT_COMPLETE` set, to `complete_` and its own name, and the command
line up to the cursor in `_TYPER_COMPLETE_ARGS`, or as bash has it in COMP_WORDS and COMP_CWORD: the protocol of typer,
which itself is not loaded. It gets a value a line, behind which zsh and fish find what it means; a line without a value
says that files belong there. Nothing here fails, asks for a PIN or logs in.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from hsmjwt.cli.offers import FILES, SHELLS, Declared, Offer, Teller, place_of
from hsmjwt.cli.output import Console, one_line
from hsmjwt.errors import UsageError

_SCRIPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shells")
_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'?|"(?:[^"\\]|\\.)*"?)+""", re.DOTALL)
_PLAIN = re.compile(r"[\w%+,./:=@-]")  # what bash takes as it stands


class Line(NamedTuple):
    """A command line up to the cursor, without quotes: the whole words, and the one that the cursor is in.

    Of that one bash leaves the first `kept` characters alone; `quote` is the quotation mark that is open there.
    """

    words: list[str]
    last: str
    kept: int
    quote: str


def script(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return the script for the shell that `--show-completion` names, else for that of SHELL; raises UsageError."""
    named, equals, shell = argv[0].partition("=")
    shells = [*([shell] if equals else []), *argv[1:]] or [os.path.basename(environ.get("SHELL", ""))]
    hint = f"hsmjwt {named} {'|'.join(SHELLS)}"
    if len(shells) > 1:
        raise UsageError(f"{named} takes one shell", hint=hint)
    if not shells[0]:
        raise UsageError("which shell? SHELL does not tell", hint=hint)
    if shells[0] not in SHELLS:
        raise UsageError(f"there is no completion for '{one_line(shells[0])}'", hint=hint)
    with open(os.path.join(_SCRIPTS, f"hsmjwt.{shells[0]}"), encoding="utf-8") as file:
        return file.read()


def answer(
    asked: str, console: Console, environ: Mapping[str, str], verbs: Collection[str], declared: Declared
) -> None:
    """Print what a shell has asked for; `declared` returns what a verb's file declares.

    What is known goes out before a module is loaded, which may take its time or break. Raises ClosedPipeError, and
    ConfigError where stdout cannot be written.
    """
    what, _, shell = asked.partition("_")
    if what == "source":
        console.result(script(("--show-completion", shell), environ))
    if what != "complete" or shell not in SHELLS:
        return
    console.final = False
    line = typed(environ)
    place = place_of(line.words[1:], line.last, verbs, declared, Teller(environ, console.divert))
    quoting = shell == "bash" and "_HSMJWT_WORDBREAKS" in environ
    for source in place.sources:
        offers: list[Offer] = []
        # a shell has no use for a message, and who types would not know what it is about
        with contextlib.suppress(Exception):
            offers.extend(source())
        texts = [_written(offer, place.before, line, shell, quoting=quoting) for offer in offers]
        data = "".join(f"{text}\n" for text in texts if text)
        if data:
            console.result_bytes(data.encode())


def typed(environ: Mapping[str, str]) -> Line:
    """Return the command line that a shell hands over."""
    breaks = _text(environ.get("_HSMJWT_WORDBREAKS", ""))
    line = environ.get("_TYPER_COMPLETE_ARGS")
    if line is not None:
        return _split(_text(line), breaks)
    words = _WORD.findall(_text(environ.get("COMP_WORDS", "")))
    at = environ.get("COMP_CWORD", "")
    return _split(_joined(words, int(at) if at.isdecimal() else len(words)), breaks)


def _text(value: str) -> str:
    """Return what a variable holds as the UTF-8 that it is, also where the locale says ASCII."""
    return os.fsencode(value).decode("utf-8", "surrogateescape")


def _joined(words: Sequence[str], at: int) -> str:
    """Return the line that bash cut into `words`, at `:` and `=` too, up to the word number `at`."""
    line = ""
    for word in [*words, ""][: at + 1]:
        inside = line.endswith((":", "=")) or word[:1] in (":", "=")
        line += word if inside or not line else f" {word}"
    return line


def _split(text: str, breaks: str) -> Line:
    """Cut a line into words as shells do, whose last word may be in quotes that are still open."""
    words: list[str] = []
    word: list[str] | None = None
    kept, quote, escaped = 0, "", False
    for char in text:
        if char.isspace() and not quote and not escaped:
            words += [] if word is None else ["".join(word)]
            word, kept = None, 0
            continue
        word = [] if word is None else word
        if escaped:
            if quote and char not in '"\\$`':
                word.append("\\")
            word.append(char)
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif char == quote:
            quote = ""
        elif char in "'\"" and not quote:
            quote, kept = char, len(word)
        else:
            word.append(char)
            kept = len(word) if char in breaks and not quote else kept
    return Line(words, "".join(word or ()), kept, quote)


def _written(offer: Offer, before: str, line: Line, shell: str, *, quoting: bool) -> str:
    """Return the line for a shell; nothing where the offer does not fit what was typed, or would break the line."""
    if offer is FILES:
        return f"\t{offer.about}"
    value = before + offer.value
    if not value.startswith(line.last) or not value.isprintable():
        return ""
    if shell != "bash":
        return f"{value}\t{one_line(offer.about)}" if offer.about else value
    return _for_bash(value[line.kept :], line.quote) if quoting else value


def _for_bash(value: str, quote: str) -> str:
    """Return a value as bash puts it into its line, behind what it leaves alone there."""
    if quote == "'":
        return value.replace(quote, r"'\''")
    if quote:
        return re.sub(r'(["\\$`])', r"\\\1", value)
    return "".join(char if _PLAIN.fullmatch(char) else f"\\{char}" for char in value)
