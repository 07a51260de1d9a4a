"""Every command by both roads, without a parser and through typer, and the one declaration that feeds them."""

from __future__ import annotations

import functools
import inspect
import re
import shutil
from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from cli.roads import LONG, TYPED, Home, profile
from servers.granting import granted
from servers.scripted import Server

from hsmjwt.cli import gate
from hsmjwt.cli.flags import Command, Flag, Word, command
from hsmjwt.cli.typed import parse
from hsmjwt.errors import UsageError

JWT = "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"
# What stands for a word of that name where a command is really run; else `p`, the profile.
KEY = "pkcs11:token=t1;object=k1"
WORDS = {"jwt": JWT, "named": KEY, "keys": KEY, "provider": "generic", "name": "generic"}


def every_command() -> Iterator[tuple[tuple[str, ...], Command]]:
    for verb in gate.VERBS:
        found = gate.declared(verb)
        if isinstance(found, Command):
            yield (verb,), found
        else:
            yield from (((verb, inner), each) for inner, each in found.commands.items())


COMMANDS = dict(every_command())
each_command = pytest.mark.parametrize(("path", "found"), COMMANDS.items(), ids=map(" ".join, COMMANDS))


def numbers_of_words(found: Command) -> range:
    """How many words a call without flags may have."""
    optional = found.function.__kwdefaults__ or {}
    required = sum(name not in optional for name in found.words)
    return range(required, len(found.words) + (3 if found.repeats else 1))


def words_of(found: Command) -> tuple[str, ...]:
    """Return the names of the words as they were declared."""
    *others, last = found.words or ("",)
    return (*others, f"*{last}") if found.repeats else found.words


def annotated(owner: Any) -> dict[str, Any]:
    """Return kind and declaration of each annotation that has one."""
    hints = get_type_hints(owner, include_extras=True)
    return {name: get_args(hint) for name, hint in hints.items() if hasattr(hint, "__metadata__")}


@each_command
def test_both_roads_print_the_same_and_only_one_loads_typer(path, found, token_template, tmp_path):
    counts = numbers_of_words(found)
    with Server(granted()) as server:
        for count in counts:
            said = []
            for road, first in (("plain", LONG), ("typed", TYPED)):
                home = fresh_home(token_template, tmp_path / f"{road}-{count}", server.url())
                names = (*found.words, *found.words[-1:] * 2)[:count]
                words = [WORDS.get(name, "p") for name in names]
                more = ("--", "printenv", "HSMJWT_EXEC") if path == ("exec",) else ()
                done = home(*path, *words, *more, first=first)
                assert done.road == road
                assert done.code != 1, done.err
                said.append((done.code, *(alike(text, home) for text in (done.out, done.err))))
            assert said[0] == said[1]


def fresh_home(template: Any, folder: Any, url: str) -> Home:
    """Return a user whose token is a copy, so that a command finds the same whatever the one before has done."""
    shutil.copytree(template.folder, folder, ignore=shutil.ignore_patterns("home", "run"))
    token = type(template)(folder, template.module)
    token.write_conf()
    config = folder / "config" / "hsmjwt" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('default_profile = "p"\n' + profile("p", url, 'audience = "a"'))
    return Home(token, config)


def alike(text: str, home: Home) -> str:
    """Mask what no two runs share: folders, and each word that holds a digit or is very long."""
    text = text.replace(str(home.token.folder), "FOLDER")
    text = re.sub(r"/\S*hsmjwt-demo-\w+|[\w%+/=.:-]*(?:\d|[\w+/=-]{40})[\w%+/=.:-]*", "#", text)
    return re.sub(r"[ -]{2,}", "  ", text)


@each_command
def test_both_roads_hand_over_the_same_values(path, found):
    got: list[dict[str, Any]] = []

    @functools.wraps(found.function)
    def recorder(run: object, **values: Any) -> None:
        bound = inspect.signature(found.function).bind(run, **values)
        bound.apply_defaults()
        got.append(bound.arguments)

    recorder.__kwdefaults__ = found.function.__kwdefaults__
    recorded = Command(recorder, found.about, words_of(found), found.groups)
    verb = recorded if len(path) == 1 else type(gate.declared(path[0]))("", {path[1]: recorded})
    for texts in (("one", "two", "three"), ("", "", ""), ("-", "-", "-"), ("a b", "ä\n", "$(x)")):
        for count in numbers_of_words(found):
            words = list(texts[:count])
            plain, typed = recorded.plain(words), parse({path[0]: verb}, [*path, *words])
            assert callable(plain)
            assert callable(typed)
            plain(None)
            typed(None)
            assert got[-2] == got[-1]
            values = [got[-1][name] for name in found.words[:count]]
            assert [*values[:-1], *values[-1]] == words if found.repeats and values else values == words


@each_command
def test_what_is_no_plain_call_is_left_to_typer(path, found):
    counts = numbers_of_words(found)
    if counts.start:
        assert found.plain(["x"] * (counts.start - 1)) is None
    assert found.repeats or found.plain(["x"] * counts.stop) is None
    for flag in ("-x", "--json", "--", "--x=1", "-1"):
        for count in range(1, counts.stop):
            assert found.plain([*["x"] * (count - 1), flag]) is None


@each_command
def test_words_and_flags_are_declared_as_they_are_handed_over(path, found):
    parameters = inspect.signature(found.function).parameters
    own = annotated(found.function)
    lists = found.words[-1:] if found.repeats else ()
    single = [n for n, (kind, *more) in own.items() if is_word(more) and (n in lists or list not in kinds(kind))]
    assert tuple(single) == found.words
    assert set(parameters) == {"run", *own, *found.groups}
    assert all(get_type_hints(found.function)[name] is struct for name, struct in found.groups.items())
    fields = [field.name for struct in found.groups.values() for field in msgspec.structs.fields(struct)]
    assert len({*fields, *own}) == len(fields) + len(own), "a name stands twice"


@each_command
def test_each_word_and_flag_says_what_it_is(path, found):
    names = []
    for owner in (found.function, *found.groups.values()):
        for _, *more in annotated(owner).values():
            (declared,) = (each for each in more if isinstance(each, Flag | Word))
            assert re.fullmatch(r"\S.*\S\.", declared.help), declared
            names += [declared.name] if isinstance(declared, Flag) else []
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"--[a-z][a-z-]*[a-z]", name) for name in names)
    assert re.match(r"[A-Z][^\n]*\.(\n|$)", found.about)


def kinds(annotation: Any) -> set[Any]:
    """Return the types of a union, without their parameters."""
    return {get_origin(each) or each for each in (*get_args(annotation), annotation)}


def is_word(declared: list[Any]) -> bool:
    return any(isinstance(each, Word) for each in declared)


class Nothing(msgspec.Struct, frozen=True, kw_only=True):
    """No flags."""


def test_a_word_that_is_needed_is_not_made_up():
    @command("A test.", "one", "two", nothing=Nothing)
    def function(run: object, *, one: str, two: str | None = None, nothing: Nothing) -> int:
        return 0

    assert function.plain([]) is None
    for words in (["a"], ["a", "b"]):
        assert callable(function.plain(words))


def test_a_wrong_call_is_refused_in_the_same_words_whichever_command(tmp_path):
    for path, found in COMMANDS.items():
        verb = gate.declared(path[0])
        if any(list in kinds(kind) for kind, *more in annotated(found.function).values() if is_word(more)):
            continue  # takes any number
        with pytest.raises(UsageError, match="too many arguments: 'x"):
            parse({path[0]: verb}, [*path, *["x"] * (len(found.words) + 1)])
        with pytest.raises(UsageError, match="there is no flag '--no-such-flag'"):
            parse({path[0]: verb}, [*path, "--no-such-flag"])


@each_command
def test_a_flag_is_no_value_of_another(path, found):
    words = ["x"] * numbers_of_words(found).start
    for owner in (found.function, *found.groups.values()):
        for kind, *more in annotated(owner).values():
            if kind is bool or is_word(more):
                continue
            for other in ("--help", "--json"):
                with pytest.raises(UsageError, match=f"{more[0].name} needs a value, and {other} is a flag"):
                    parse({path[0]: gate.declared(path[0])}, [*path, *words, more[0].name, other])
