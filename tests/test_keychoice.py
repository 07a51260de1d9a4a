"""Which key, module and PIN source: the most specific wins, and the environment only fills gaps."""

from __future__ import annotations

import os

import pytest

from hsmjwt.config import Settings, parse
from hsmjwt.errors import ConfigError, UsageError
from hsmjwt.keychoice import choose_key

CONFIG = parse(
    b"""
[keys.k]
uri = "pkcs11:object=table"
module = "/lib/table.so"
pin_source = "file:/table/pin"
pin_file_check = "mount"
alg = "RS256"
[keys.own]
uri = "pkcs11:object=own?pin-source=/own/pin"
pin_source = "file:/table/pin"
[keys.bare]
uri = "pkcs11:object=bare"
""",
    "/etc/c.toml",
)
FULL = {
    "HSMJWT_KEY": "pkcs11:object=variable",
    "HSMJWT_MODULE": "/lib/variable.so",
    "HSMJWT_PIN_SOURCE": "env:VARIABLE",
    "HSMJWT_PIN": "1234",
}


def test_a_key_tables_values_are_taken_and_say_so():
    choice = choose_key(CONFIG, FULL, table="k")
    assert choice.uri.object == "table"
    assert (choice.module, choice.module_by) == ("/lib/table.so", "[keys.k]")
    assert choice.pin_source.noted == "file:/table/pin"
    assert (choice.mounted, choice.rules.algs) == (True, ("RS256",))


def test_who_names_a_value_is_told_with_and_without_the_entry_of_a_table():
    named = choose_key(CONFIG, FULL, table="k").named
    assert (named["module"].source, named["module"].entry) == ("[keys.k]", "module")
    assert {name: by.label for name, by in named.items()} == {
        "uri": "[keys.k] uri",
        "module": "[keys.k] module",
        "pin_source": "[keys.k] pin_source",
    }
    assert [by.label for by in choose_key(CONFIG, {}, key="pkcs11:").named.values()] == ["--key", "default", "default"]


def test_flags_win_over_the_key_table():
    choice = choose_key(CONFIG, FULL, table="k", key="pkcs11:object=flag", module="/lib/flag.so", pin_source="none")
    assert choice.uri.object == "flag"
    assert (choice.module, choice.module_by) == ("/lib/flag.so", "--module")
    assert choice.pin_source.kind == "none"


def test_another_key_keeps_the_tables_module_pin_source_and_algorithm():
    choice = choose_key(CONFIG, {}, table="k", key="pkcs11:object=flag")
    assert (choice.module, choice.pin_source.noted, choice.rules.algs) == (
        "/lib/table.so",
        "file:/table/pin",
        ("RS256",),
    )


@pytest.mark.parametrize(
    ("own", "flag", "same"),
    [
        ("token=prod;object=a", "token=prod;object=b", True),
        ("token=prod;object=a", "token=prod;serial=1;object=b", True),
        ("token=prod;serial=1;object=a", "token=prod;object=b", False),
        ("token=prod;object=a", "token=test;object=a", False),
        ("token=prod;object=a", "object=a", False),
        ("object=a", "object=b", True),
        ("object=a", "token=test;object=a", False),
    ],
)
def test_a_tables_pin_is_not_sent_to_another_token(own, flag, same):
    table = f'[keys.k]\nuri = "pkcs11:{own}"\npin_source = "file:/table/pin"\npin_file_check = "mount"\nalg = "RS256"\n'
    choice = choose_key(parse(table.encode(), "/etc/c.toml"), FULL, table="k", key=f"pkcs11:{flag}")
    assert choice.pin_source.noted == ("file:/table/pin" if same else "env:VARIABLE")
    assert (choice.mounted, choice.rules.algs) == (same, ("RS256",))


def test_the_environment_fills_gaps():
    choice = choose_key(CONFIG, FULL, table="bare")
    assert (choice.uri.object, choice.module, choice.pin_source.noted) == ("bare", "/lib/variable.so", "env:VARIABLE")
    choice = choose_key(Settings(), FULL)
    assert choice.uri.object == "variable"
    assert (choice.mounted, choice.rules.algs, choice.table) == (False, (), None)


def test_nothing_named_is_nothing_chosen_and_an_empty_variable_names_nothing():
    for environ in ({}, {"HSMJWT_KEY": "", "HSMJWT_MODULE": "", "HSMJWT_PIN_SOURCE": ""}):
        choice = choose_key(Settings(), environ)
        assert (choice.uri, choice.module, choice.pin_source) == (None, None, None)


@pytest.mark.parametrize(
    ("table", "key", "flag", "environ", "noted"),
    [
        ("own", None, "env:FLAG", FULL, "env:FLAG"),
        ("own", None, None, FULL, "file:/own/pin"),
        ("k", "pkcs11:?pin-source=env:URI", None, FULL, "env:URI"),
        ("k", "pkcs11:?pin-value=1234", None, FULL, "pin-value"),
        ("k", "pkcs11:?pin-value=1234", "none", FULL, "none"),
        ("k", None, None, FULL, "file:/table/pin"),
        ("bare", None, None, FULL, "env:VARIABLE"),
        ("bare", None, None, {"HSMJWT_PIN": "1234"}, "env:HSMJWT_PIN"),
        ("bare", None, None, {"HSMJWT_PIN": ""}, "env:HSMJWT_PIN"),  # told as an empty PIN, not as none
    ],
)
def test_the_most_specific_pin_source_wins(table, key, flag, environ, noted):
    assert choose_key(CONFIG, environ, table=table, key=key, pin_source=flag).pin_source.noted == noted


def test_a_pin_value_works_with_a_warning_and_is_never_shown():
    choice = choose_key(Settings(), {}, key="pkcs11:object=k?pin-value=S3cr3t")
    assert choice.pin_source.target == "S3cr3t"
    assert len(choice.warnings) == 1
    assert "S3cr3t" not in repr(choice)
    assert choose_key(Settings(), {}, key="pkcs11:object=k").warnings == ()


@pytest.mark.parametrize(
    ("arguments", "environ", "begins"),
    [
        ({"key": "object=k"}, {}, "--key: "),
        ({"key": "pkcs11:a b"}, {}, "--key: "),
        ({"pin_source": "1234"}, {}, "--pin-source: "),
        ({"pin_source": "keyring:a/b"}, {}, "--pin-source: "),
        ({}, {"HSMJWT_KEY": "nonsense"}, "HSMJWT_KEY: "),
        ({}, {"HSMJWT_KEY": os.fsdecode(b"pkcs11:token=\xff")}, "HSMJWT_KEY: "),
        ({}, {"HSMJWT_PIN_SOURCE": "nonsense"}, "HSMJWT_PIN_SOURCE: "),
    ],
)
def test_a_bad_flag_or_variable_is_named(arguments, environ, begins):
    with pytest.raises(UsageError) as caught:
        choose_key(Settings(), environ, **arguments)
    assert caught.value.message.startswith(begins)
    assert "1234" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[keys.k]\nuri = 'pkcs11:obejct'", 2),
        ("[keys.k]\nuri = 'pkcs11:?pin-value=S3cr3t&pin-value=S3cr3t'", 2),
        ("[keys.k]\nuri = 'pkcs11:'\npin_source = 'S3cr3t'", 3),
        ("[keys.k]\nuri = 'pkcs11:'\npin_source = 'protected'", 3),
    ],
)
def test_a_bad_value_of_a_key_table_names_its_line(text, line):
    with pytest.raises(ConfigError) as caught:
        choose_key(parse(text.encode(), "/etc/c.toml"), {}, table="k")
    assert caught.value.message.startswith(f"config file '/etc/c.toml', line {line}: ")
    assert "S3cr3t" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("table", [None, "own", "bare"])
def test_a_key_flag_may_name_a_key_table_which_counts_in_place_of_the_profiles(table):
    named, chosen = choose_key(CONFIG, FULL, table="k"), choose_key(CONFIG, FULL, table=table, key="keys.k")
    assert chosen == named
    assert (chosen.table, chosen.rules.algs, chosen.module, chosen.mounted) == ("k", ("RS256",), "/lib/table.so", True)


def test_flags_win_over_a_table_that_a_flag_names():
    choice = choose_key(CONFIG, FULL, key="keys.k", module="/lib/flag.so", pin_source="none")
    assert (choice.uri.object, choice.module, choice.pin_source.kind) == ("table", "/lib/flag.so", "none")


def test_a_key_table_that_nobody_wrote_is_exit_3_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"^there is no key table 'ovn' in the config$") as caught:
        choose_key(CONFIG, {}, key="keys.ovn")
    assert caught.value.hint == "did you mean 'own'?"
    with pytest.raises(ConfigError) as caught:
        choose_key(Settings(), {}, key="keys.k")
    assert caught.value.hint == "--config FILE names a config"


def test_a_table_or_a_profile_that_is_named_like_a_key_is_told_its_form():
    config = parse(b'[keys.k]\nuri = "pkcs11:object=k"\n[profiles.p]\nkey = "k"\n', "/etc/c.toml")
    for word in ("k", "p"):
        with pytest.raises(UsageError, match=rf"^--key: '{word}' is no PKCS#11 URI") as caught:
            choose_key(config, {}, key=word)
        assert caught.value.hint == "keys.k names that key of the config"
    with pytest.raises(UsageError) as caught:
        choose_key(config, {}, key="x")
    assert "keys.NAME" in caught.value.hint


@pytest.mark.parametrize("key", ["keys.k?pin-value=S3cr3t", "keys.pin-value=S3cr3t", "keys.\x1b[31m;pin=S3cr3t"])
def test_a_pin_beside_a_key_tables_name_is_not_shown(key):
    with pytest.raises(ConfigError) as caught:
        choose_key(CONFIG, {}, key=key)
    assert "S3cr3t" not in f"{caught.value.message} {caught.value.hint}"
    assert caught.value.message.isprintable()
