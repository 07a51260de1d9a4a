"""What may stand at the cursor of a command line, read off the declarations of flags and words."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never, get_args, get_origin, get_type_hints

import msgspec

from hsmjwt import config
from hsmjwt.cli.flags import Command, Completes, Flag, Group, Word
from hsmjwt.deadline import Deadline, run
from hsmjwt.hsm.uri import SCHEME, KeyUri, format_token_uri, parse
from hsmjwt.jose.algorithms import ALGORITHMS
from hsmjwt.oauth import provider

if TYPE_CHECKING:
    from hsmjwt.hsm.module import Module
    from hsmjwt.hsm.slots import Slot

SHELLS = ("bash", "zsh", "fish")

_DEVICE_TIME = 0.7  # seconds for a module: who presses Tab waits no longer than one
_OF_FILES = re.compile(r"(?:FILE|PATH|DIR|FOLDER)\b")

Declared = Callable[[str], Command | Group]


class Offer(NamedTuple):
    """A value, and a few words on it; without a value it stands for the names of files."""

    value: str
    about: str = ""


FILES = Offer("", "files")
_HELP = Offer("--help", "Show what there is to know.")
_ROOT = (_HELP, Offer("--version", "Tell the version."), Offer("--show-completion", "Print a shell's completion."))

Source = Callable[[], Iterable[Offer]]


class Place(NamedTuple):
    """Where the cursor is: what may stand there, and what precedes it in the same word, such as `--alg=`."""

    sources: Sequence[Source] = ()
    before: str = ""


class Teller:
    """Tells names that are found outside of the program: profiles, key tables, keys on a token.

    `given` holds the flags of the command line so far. Before a module is loaded `divert` is called.
    """

    def __init__(self, environ: Mapping[str, str], divert: Callable[[], None]) -> None:
        self.environ = environ
        self.divert = divert
        self.given: dict[str, str] = {}

    def profiles(self) -> list[Offer]:
        """Return the config's profiles, those with a mistake included; it is told to whoever uses one."""
        settings = self._settings()
        providers = {name: table.provider or "generic" for name, table in settings.profiles.items()}
        names = [name for name in _all_names("profiles", providers, settings) if _can_be_given(name)]
        return [Offer(name, providers.get(name, "")) for name in names]

    def key_tables(self) -> list[Offer]:
        """Return the config's key tables as `keys.NAME`."""
        settings = self._settings()
        return [Offer(f"keys.{name}") for name in _all_names("keys", settings.keys, settings)]

    def visible_keys(self) -> list[Offer]:
        """Return the keys that tokens show without a login, each by as short a URI as tells it from the others."""
        return self._look(_keys)

    def visible_tokens(self) -> list[Offer]:
        """Return the tokens, each by as short a URI as tells it from the others."""
        return self._look(_tokens)

    def _look(self, told: Callable[[Module], Iterable[Offer]]) -> list[Offer]:
        """Load the module, not for long, and return what is told of it."""
        from hsmjwt.compose.devices import look_only

        config.refuse_agent(self.environ)
        self.divert()
        deadline = Deadline(_DEVICE_TIME)
        named = self.given.get("--module") or self.environ.get("HSMJWT_MODULE") or None
        return run(lambda: sorted(told(look_only(named, deadline))), deadline)

    def _settings(self) -> config.Settings:
        named = self.given.get("--config")
        return config.load(None if named is None else os.path.expanduser(named), self.environ, lenient=True)


def place_of(words: Sequence[str], last: str, verbs: Collection[str], declared: Declared, teller: Teller) -> Place:
    """Return what may stand in the place of `last`, behind `words`; `declared` returns what a verb's file declares."""
    if not words:
        return Place([lambda: _ROOT if last.startswith("-") else [_about(verb, declared(verb)) for verb in verbs]])
    verb, *rest = words
    if verb == "--show-completion":
        return Place([lambda: map(Offer, SHELLS)])
    if verb not in verbs:
        return Place()
    command = declared(verb)
    if isinstance(command, Command):
        return _within(command, rest, last, teller)
    if not rest:
        commands = command.commands.items()
        return Place([lambda: [_HELP] if last.startswith("-") else [_about(name, each) for name, each in commands]])
    inner = command.commands.get(rest[0])
    return Place() if inner is None else _within(inner, rest[1:], last, teller)


def _about(name: str, command: Command | Group) -> Offer:
    return Offer(name, command.about.split("\n", 1)[0])


def _within(command: Command, before: Sequence[str], last: str, teller: Teller) -> Place:
    """Return what may stand in the place of `last` among a command's flags and words, `before` preceding it."""
    parameters = dict(_parameters(command))
    flags = {extra.name: (kind, extra) for kind, extra in parameters.values() if isinstance(extra, Flag)}
    count, rest = 0, iter(before)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in flags:
            kind, flag = flags[name]
            taken = value if equals or kind is bool else next(rest, None)
            if taken is None:
                return Place(_values(flag, last, teller))
            teller.given[name] = taken
        elif word == "--":
            return Place([lambda: [FILES]])
        elif word == "-" or not word.startswith("-"):
            count += 1
    name, equals, value = last.partition("=")
    if equals and name in flags:
        return Place(_values(flags[name][1], value, teller), before=f"{name}=")
    behind = [extra for _, extra in parameters.values() if isinstance(extra, Word) and extra.metavar.startswith("--")]
    free = [*_free(flags, teller.given), *(Offer("--", extra.help) for extra in behind), _HELP]
    if last.startswith("-"):
        return Place([lambda: free])
    here = _word(command, parameters, count)
    sources = [] if here is None else _values(here, last, teller)
    return Place(sources or ([] if last else [lambda: free]))


def _parameters(command: Command) -> Iterator[tuple[str, tuple[Any, Flag | Word]]]:
    """Yield a command's words and flags: the parameter's name, its type and the declaration."""
    hints = get_type_hints(command.function, include_extras=True)
    for struct in command.groups.values():
        hints |= get_type_hints(struct, include_extras=True)
    for name, hint in hints.items():
        for extra in get_args(hint):
            if isinstance(extra, Flag | Word):
                yield name, (get_args(hint)[0], extra)


def _free(flags: Mapping[str, tuple[Any, Flag]], given: Collection[str]) -> list[Offer]:
    """Return the flags that may still be given."""
    return [Offer(name, flag.help) for name, (kind, flag) in flags.items() if _is_list(kind) or name not in given]


def _is_list(kind: Any) -> bool:
    return any(get_origin(each) is list for each in (kind, *get_args(kind)))


def _word(command: Command, parameters: Mapping[str, tuple[Any, Flag | Word]], count: int) -> Flag | Word | None:
    """Return the word that follows `count` others; the last one may be repeated where it is a list."""
    if not command.words:
        return None
    kind, extra = parameters[command.words[min(count, len(command.words) - 1)]]
    return extra if count < len(command.words) or _is_list(kind) else None


def _values(declared: Flag | Word, last: str, teller: Teller) -> list[Source]:
    """Return the sources of values for a flag or a word, what takes longest at the end."""
    kind = declared.completes
    if kind is None:
        return [lambda: [FILES]] if _OF_FILES.match(declared.metavar or "") else []
    if isinstance(kind, tuple):
        return [lambda: map(Offer, kind)]
    return _named(kind, last, teller)


def _named(kind: Completes, last: str, teller: Teller) -> list[Source]:
    match kind:
        case "profiles":
            return [teller.profiles]
        case "variables":
            name, equals, _ = last.partition("=")
            return [lambda: [Offer(f"{name}={value}", about) for value, about in teller.profiles()]] if equals else []
        case "providers":
            return [lambda: map(Offer, provider.names())]
        case "algorithms":
            return [lambda: map(Offer, ALGORITHMS)]
        case "keys":
            return [teller.key_tables, *([teller.visible_keys] if _is_uri(last) else [])]
        case "published":
            return [teller.key_tables, teller.profiles, *([teller.visible_keys] if _is_uri(last) else [])]
        case "tokens":
            return [teller.visible_tokens] if _is_uri(last) else []
    assert_never(kind)


def _is_uri(last: str) -> bool:
    """Tell whether this may become a URI; for nothing else a module is loaded."""
    return last.startswith(SCHEME[: len(last)])


def _all_names(kind: str, good: Iterable[str], settings: config.Settings) -> list[str]:
    """Return the names of tables, those with a mistake included."""
    return sorted({*good, *(path[1] for path in settings.broken if len(path) == 2 and path[0] == kind)})


def _can_be_given(name: str) -> bool:
    """Tell whether a profile of this name can stand on a command line: it is no flag, and not refused as a URI."""
    return bool(name) and not name.startswith("-") and not name.lower().startswith(SCHEME)


def _short(slots: Sequence[Slot]) -> Iterator[tuple[Slot, KeyUri]]:
    """Yield each slot with a URI of its token: the label alone, where that is enough."""
    labels = Counter(slot.token.label for slot in slots if slot.token is not None)
    for slot in slots:
        if slot.token is not None:
            alone = slot.token.label and labels[slot.token.label] == 1
            longer = parse(format_token_uri(slot.token, slot.needed_id))
            yield slot, KeyUri(token=slot.token.label) if alone else longer


def _tokens(module: Module) -> Iterator[Offer]:
    return (Offer(str(uri), slot.token.model) for slot, uri in _short(module.find_tokens(KeyUri())) if slot.token)


def _keys(module: Module) -> Iterator[Offer]:
    from hsmjwt.compose.devices import visible_keys

    for slot, token in _short(module.find_tokens(KeyUri())):
        keys = visible_keys(module, slot)
        labels = Counter(key["label"] for key in keys)
        for key in keys:
            uri = msgspec.structs.replace(token, object=key["label"] or None)
            if not key["label"] or labels[key["label"]] > 1:
                uri = msgspec.structs.replace(uri, id=bytes.fromhex(key["id"] or ""))
            yield Offer(str(uri), f"{key['type'] or 'key'}" + (f":{key['bits']}" if key["bits"] else ""))
