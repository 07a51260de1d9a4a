"""What a key table says of its key, and which tables mean a key that a token shows."""

from __future__ import annotations

import pytest

from hsmjwt.config import parse
from hsmjwt.errors import ConfigError
from hsmjwt.guard.policy import Bound
from hsmjwt.hsm.uri import SlotInfo, TokenInfo
from hsmjwt.hsm.uri import parse as parse_uri
from hsmjwt.keyrules import KeyRules, bounds, rules_of, tables_alike, tables_of

PRINT = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
TOKEN = TokenInfo(label="prod".ljust(32), serial="1234", model="M", manufacturer="Maker")
SLOT = SlotInfo(slot_id=7, description="A slot", manufacturer="Maker")


def config(*lines, path="/etc/hsmjwt/c.toml"):
    return parse("\n".join(("[keys.k]", 'uri = "pkcs11:token=prod;object=k"', *lines)).encode(), path)


def rules(*lines):
    settings = config(*lines)
    return rules_of(settings, settings.keys["k"])


def test_a_table_that_says_nothing_more_binds_nothing():
    assert rules() == KeyRules(table="k")
    assert bounds([rules(), KeyRules()]) == ()


def test_everything_a_table_says_is_read():
    assert rules(
        'alg = ["RS256", "PS256", "RS256"]',
        'certificate = "pkcs11:token=prod;object=k;type=cert"',
        f'thumbprint = "{PRINT}"',
        'require = "device-born"',
        'max_age = "365d"',
        "not_after = 2031-11-02T01:30:00Z",
        'public_key = "k.pem"',
        "protected = true",
        "unverified = true",
    ) == KeyRules(
        table="k",
        algs=("RS256", "PS256"),
        certificate="pkcs11:token=prod;object=k;type=cert",
        thumbprint=PRINT,
        require="device-born",
        max_age=365 * 86400.0,
        not_after=1951349400,
        public_key="/etc/hsmjwt/k.pem",
        protected=True,
        unverified=True,
    )


def test_one_algorithm_is_a_list_of_one():
    assert rules('alg = "EdDSA"').algs == ("EdDSA",)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2031-11-02T01:30:00Z", 1951349400),
        ("2031-11-02T02:30:00+01:00", 1951349400),
        ("2031-11-02 01:30:00Z", 1951349400),
        ("2031-11-02T01:30:00.999999Z", 1951349400),
        ("2031-11-02", 1951430399),  # the whole day in UTC
        ('"2031-11-02T01:30:00Z"', 1951349400),
        ('"2031-11-02"', 1951430399),
    ],
)
def test_the_end_of_a_keys_use_is_a_day_or_a_moment(written, moment):
    assert rules(f"not_after = {written}").not_after == moment


@pytest.mark.parametrize(
    ("key", "named", "path"),
    [
        ("public_key", "keys/k.pem", "/etc/hsmjwt/keys/k.pem"),
        ("public_key", "/other/k.pem", "/other/k.pem"),
        ("certificate", "k.pem", "/etc/hsmjwt/k.pem"),
        ("require", "imported", "imported"),
        ("require", "own.toml", "/etc/hsmjwt/own.toml"),
        ("require", "./own", "/etc/hsmjwt/./own"),
    ],
)
def test_a_relative_path_lies_beside_the_config_file(key, named, path):
    assert getattr(rules(f'{key} = "{named}"'), key) == path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('alg = "RS265"', "'RS265' is no signature algorithm"),
        ('alg = ["RS256", "none"]', "'none' is no signature algorithm"),
        ('alg = ["ES256K"]', "the algorithm ES256K is not supported by this version"),
        ("not_after = 2031-11-02T01:30:00", "has no offset"),
        ('not_after = "5m"', "'5m' is no time"),
        ('not_after = "2031-02-30"', "is no time"),
        ('not_after = "2031-11-02 soon"', "is no time"),
        ("not_after = 1969-12-31", "before 1970"),
        ('max_age = "1y"', "'1y' is no duration"),
        ("max_age = 0", "must be longer than 0"),
        (f'thumbprint = "{PRINT[:-1]}"', "is no thumbprint"),
        (f'thumbprint = "{PRINT}="', "is no thumbprint"),
        (f'thumbprint = "{PRINT[:-1]}t"', "is no thumbprint"),  # bits beyond the last byte
        (f'thumbprint = "{PRINT.replace("-", "+")}"', "is no thumbprint"),
        ('certificate = "pkcs11:object=k"', "does not name a certificate"),
        ('certificate = "pkcs11:object=k;type=private"', "does not name a certificate"),
        ('certificate = "pkcs11:objekt"', "has no '='"),
        ('certificate = "pkcs11:object=k;type=cert?pin-value=S3cr3t"', "says nothing of a PIN"),
        ('public_key = "k\\u0000"', "no NUL"),
        ('certificate = "object=k;type=cert?pin-value=S3cr3t"', "holds a PIN, where a file's name belongs"),
        ('public_key = "pkcs11:object=k?pin-value=S3cr3t"', "holds a PIN, where a file's name belongs"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(line, words):
    with pytest.raises(ConfigError) as caught:
        rules(line)
    assert caught.value.message.startswith("config file '/etc/hsmjwt/c.toml', line 3: ")
    assert f"{line.split()[0]} in [keys.k]: " in caught.value.message
    assert words in caught.value.message
    assert "S3cr3t" not in caught.value.message


def test_what_binds_is_told_apart_from_what_does_not():
    given = [KeyRules(table="a", algs=("RS256",)), KeyRules(table="b"), KeyRules(table="c", not_after=9)]
    assert bounds(given) == (Bound("a", ("RS256",), None), Bound("c", (), 9))


def tables(*uris, label="k", key_id=b"\x01"):
    text = "".join(f'[keys.{name}]\nuri = "{uri}"\n' for name, uri in zip("abcdefghij", uris, strict=False))
    settings = parse(text.encode(), "/etc/c.toml")
    return "".join(table.name for table in tables_of(settings, TOKEN, SLOT, label, key_id, module="/lib/m.so"))


def test_a_key_is_meant_however_its_uri_is_written():
    spellings = (
        "pkcs11:token=prod;object=k",
        "pkcs11:object=%6b;token=prod",
        "PKCS11:token=prod;id=%01",
        "pkcs11:serial=1234;object=k;type=private",
        "pkcs11:manufacturer=Maker;model=M;object=k",
        "pkcs11:slot-id=7;slot-description=A%20slot;object=k?pin-source=env:P",
        "pkcs11:object=k;type=public",
        "pkcs11:token=prod",
        "pkcs11:",
    )
    assert tables(*spellings) == "abcdefghi"


def test_another_key_is_not_meant():
    others = (
        "pkcs11:token=prod;object=K",
        "pkcs11:token=test;object=k",
        "pkcs11:serial=9;object=k",
        "pkcs11:id=%02",
        "pkcs11:slot-id=8;object=k",
        "pkcs11:object=k;type=cert",
        "pkcs11:object=k;type=data",
        "pkcs11:object=k;x-unknown=1",
    )
    assert tables(*others) == ""
    assert tables("pkcs11:object=k", "pkcs11:id=%01", label=None, key_id=None) == ""


@pytest.mark.parametrize(("named", "found"), [("m.so", "abc"), ("link.so", "abc"), ("other.so", "bc")])
def test_another_modules_table_means_the_key_only_where_its_uri_names_the_token(tmp_path, named, found):
    (tmp_path / "m.so").touch()
    (tmp_path / "link.so").symlink_to("m.so")
    text = ""
    for name, uri in (("a", "object=k"), ("b", "token=prod;object=k"), ("c", "serial=1234;object=k")):
        text += f'[keys.{name}]\nuri = "pkcs11:{uri}"\nmodule = "{tmp_path / named}"\n'
    settings = parse(text.encode(), "/etc/c.toml")
    module = str((tmp_path / "m.so").resolve())
    assert "".join(each.name for each in tables_of(settings, TOKEN, SLOT, "k", b"\x01", module=module)) == found


def test_a_table_whose_uri_is_none_could_mean_any_key():
    with pytest.raises(ConfigError, match=r"line 4: uri in \[keys.b\]: .* is no PKCS#11 URI"):
        tables("pkcs11:object=other", "object=k")


def test_without_a_token_a_table_is_known_by_the_same_uri():
    """Where it binds the key; one is enough of several that bind it alike."""
    lines = (
        'alg = "RS256"',
        '[keys.same]\nuri = "pkcs11:object=k;token=prod;type=private?pin-source=env:X"\nalg = "PS256"',
        '[keys.again]\nuri = "pkcs11:object=k;token=prod"\nalg = "PS256"',
        '[keys.ends]\nuri = "pkcs11:object=k;token=prod"\nalg = "PS256"\nnot_after = 2031-01-01',
        '[keys.free]\nuri = "pkcs11:object=k;token=prod"',
        '[keys.other]\nuri = "pkcs11:id=%01"\nalg = "PS256"',
        '[keys.none]\nuri = "object=k"\nalg = "PS256"',
    )
    settings = config(*lines)
    found = tables_alike(settings, parse_uri("pkcs11:token=prod;object=k?module-name=m"))
    assert [each.name for each in found] == ["k", "same", "ends"]


@pytest.mark.parametrize(
    ("uri", "module", "alike"),
    [
        ("object=k", "/lib/a.so", True),
        ("object=k", None, True),
        ("object=k", "/lib/b.so", False),
        ("token=prod;object=k", "/lib/b.so", True),
    ],
)
def test_the_same_uri_at_another_module_is_another_key_unless_it_names_the_token(uri, module, alike):
    settings = parse(f'[keys.k]\nuri = "pkcs11:{uri}"\nmodule = "/lib/a.so"\nalg = "RS256"\n'.encode(), "/etc/c.toml")
    assert bool(tables_alike(settings, parse_uri(f"pkcs11:{uri}"), module)) == alike
