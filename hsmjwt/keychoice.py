"""Which key, which module and which PIN source a command uses, and who said so: parsed, nothing read or asked.

The most specific wins: flag, then key table, then environment. A URI's own pin-source stands between flag and table,
because it is the closest to the key.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeVar

import msgspec

from hsmjwt.config import KeyTable, Settings
from hsmjwt.errors import ConfigError, UsageError
from hsmjwt.hsm.uri import SCHEME, KeyUri, display, parse, pin_source_spec
from hsmjwt.jose.encoding import quoted
from hsmjwt.keyrules import KeyRules, configured, rules_of, tables_alike
from hsmjwt.nearest import did_you_mean
from hsmjwt.secret import SecretSource, parse_source
from hsmjwt.toml_tables import dotted

T = TypeVar("T")

Level = Literal["flag", "key table", "environment", "default"]

_TABLE = "keys."  # before the name of a key table where a URI could stand, too
_OF_TOKEN = (  # what a URI may say of a token and its slot (RFC 7512, section 2.3)
    *("token", "serial", "manufacturer", "model", "slot_description", "slot_manufacturer", "slot_id"),
    *("library_description", "library_manufacturer", "library_version"),
)
_PIN_VALUE_WARNING = (
    "the key's URI holds a pin-value, and whoever sees the URI can read it: "
    "pin-source=/PATH in its place, or --pin-source, keeps it out"
)


class By(NamedTuple):
    """Who names a value: the level, the flag, variable or table of that level, and which entry of the table."""

    level: Level
    source: str
    entry: str | None = None

    @property
    def label(self) -> str:
        """How a list shows it, such as `[keys.adobe] module`."""
        return self.source if self.entry is None else f"{self.source} {self.entry}"


NOBODY = By("default", "default")


class KeyChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What was chosen; None where nobody names one; `module_by` says who names the module.

    `mounted` is True where the key table lets the PIN file be readable by others. `rules` is what the table says of its
    key, `alike` what other tables do whose URI asks for the same. `named` says who names uri, module and pin_source.
    """

    uri: KeyUri | None
    module: str | None
    module_by: str
    pin_source: SecretSource | None
    mounted: bool
    table: str | None
    rules: KeyRules
    alike: tuple[KeyRules, ...]
    named: dict[str, By]
    warnings: tuple[str, ...] = ()


def choose_key(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    table: str | None = None,
    key: str | None = None,
    module: str | None = None,
    pin_source: str | None = None,
) -> KeyChoice:
    """Choose among the flags `key`, `module` and `pin_source`, the key table of that name, and the environment.

    A URI in `key` beside a table replaces the table's URI. Its module and algorithm stay; its PIN source only where the
    URI says of the token all that the table's says, since a PIN is one token's and a wrong one costs a try. With
    `keys.NAME` there the table is another one. Raises UsageError for a bad flag or variable, ConfigError for what the
    table says, and for a name in `key` that no table has.
    """
    if key is not None and key.startswith(_TABLE):
        table, key = key.removeprefix(_TABLE), None
        if table not in settings.keys:
            known = did_you_mean(table, settings.keys, noun="key tables")
            raise ConfigError(
                f"there is no key table {quoted(display(table))} in the config",
                hint="--config FILE names a config" if settings.path is None else known,
            )
    entry = settings.keys[table] if table is not None else None
    uri, uri_by = _uri(settings, entry, key, environ)
    module, module_by = _module(entry, module, environ)
    of_login = entry
    if entry is not None and key is not None and uri is not None:
        own = configured(settings, entry, "uri", functools.partial(parse, entry.uri))
        of_login = entry if _is_its_token(own, uri) else None
    source, pin_by = _pin(settings, environ, entry=of_login, uri=uri, uri_by=uri_by, flag=pin_source)
    alike = [] if uri is None else tables_alike(settings, uri, module)
    return KeyChoice(
        uri=uri,
        module=module,
        module_by=module_by.source,
        pin_source=source,
        mounted=of_login is not None and of_login.pin_file_check == "mount",
        table=table,
        rules=rules_of(settings, entry) if entry is not None else KeyRules(),
        alike=tuple(rules_of(settings, each) for each in alike if each.name != table),
        named={"uri": uri_by, "module": module_by, "pin_source": pin_by},
        warnings=(_PIN_VALUE_WARNING,) if uri is not None and uri.pin_value is not None else (),
    )


def named_uri(settings: Settings, text: str) -> KeyUri:
    """Read a URI where `keys.NAME` could stand, too; raises UsageError, which knows the tables and profiles."""
    try:
        return parse(text)
    except UsageError as error:
        if text[: len(SCHEME)].lower() == SCHEME:
            raise
        profile = settings.profiles.get(text)
        table = text if text in settings.keys or profile is None else profile.key
        if table in settings.keys:
            raise UsageError(error.message, hint=f"{_TABLE}{table} names that key of the config") from None
        hint = "a key is named like 'pkcs11:token=prod;object=my-key', or keys.NAME where the config has it"
        raise UsageError(error.message, hint=hint) from None


def _is_its_token(own: KeyUri, uri: KeyUri) -> bool:
    """Tell whether what a URI selects lies on the token of a table's own URI."""
    named = [name for name in _OF_TOKEN if getattr(own, name) is not None]
    named = named or [name for name in _OF_TOKEN if getattr(uri, name) is not None]
    return all(getattr(own, name) == getattr(uri, name) for name in named)


def _uri(
    settings: Settings, entry: KeyTable | None, flag: str | None, environ: Mapping[str, str]
) -> tuple[KeyUri | None, By]:
    if flag is not None:
        return _flagged("--key", lambda: named_uri(settings, flag)), By("flag", "--key")
    if entry is not None:
        return configured(settings, entry, "uri", lambda: parse(entry.uri)), _in_table(entry, "uri")
    named = environ.get("HSMJWT_KEY")
    if named:
        return _flagged("HSMJWT_KEY", lambda: parse(named)), By("environment", "HSMJWT_KEY")
    return None, NOBODY


def _module(entry: KeyTable | None, flag: str | None, environ: Mapping[str, str]) -> tuple[str | None, By]:
    if flag is not None:
        return flag, By("flag", "--module")
    if entry is not None and entry.module is not None:
        return entry.module, _in_table(entry, "module")
    named = environ.get("HSMJWT_MODULE")
    return (named, By("environment", "HSMJWT_MODULE")) if named else (None, NOBODY)


def _pin(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    entry: KeyTable | None,
    uri: KeyUri | None,
    uri_by: By,
    flag: str | None,
) -> tuple[SecretSource | None, By]:
    """Choose the PIN source, the most specific first; None leaves the prompt to the caller."""
    if flag is not None:
        return _flagged("--pin-source", lambda: parse_source(flag)), By("flag", "--pin-source")
    if uri is not None and uri.pin_value is not None:
        return SecretSource(kind="value", target=uri.pin_value), uri_by
    if uri is not None and (spec := pin_source_spec(uri)) is not None:
        return _flagged(f"pin-source of {uri_by.label}", lambda: parse_source(spec)), uri_by
    if entry is not None and (named := entry.pin_source) is not None:
        return configured(settings, entry, "pin_source", lambda: parse_source(named)), _in_table(entry, "pin_source")
    if variable := environ.get("HSMJWT_PIN_SOURCE"):
        return _flagged("HSMJWT_PIN_SOURCE", lambda: parse_source(variable)), By("environment", "HSMJWT_PIN_SOURCE")
    if "HSMJWT_PIN" in environ:  # empty too: a CI secret that is missing comes as an empty variable, and is told so
        return SecretSource(kind="env", target="HSMJWT_PIN"), By("environment", "HSMJWT_PIN")
    return None, NOBODY


def _in_table(entry: KeyTable, field: str) -> By:
    return By("key table", f"[{dotted(('keys', entry.name))}]", field)


def _flagged(name: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except UsageError as error:
        raise UsageError(f"{name}: {error.message}", hint=error.hint) from None
