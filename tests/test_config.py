"""The config file: which one is read, who may have written it, and errors that name file, line and nearest key."""

from __future__ import annotations

import os
import time

import pytest

from hsmjwt.config import Settings, load, parse, refuse_agent
from hsmjwt.errors import ConfigError, TokenError

GOOD = """\
default_profile = "adobe"
allowed_modules = ["/opt/vendor/lib/libvendor.so"]
cache = "runtime"

[keys.adobe]
uri = "pkcs11:token=prod;object=adobe-jwt"
module = "/usr/lib/softhsm/libsofthsm2.so"
pin_source = "file:/etc/hsmjwt/hsm-pin"
pin_file_check = "mount"
alg = "RS256"

[profiles.adobe]
provider = "adobe-analytics"
key = "adobe"
client_id = "TestClient"
subject = "001D49185195123B0A490D06@AdobeOrg"
audience = ["a"]
scope = "one two"
lifetime = 300
timeout = "5s"
min_ttl = 1.5
claims = { x = 1, "y.z" = [true] }
"""


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home" / ".config" / "hsmjwt"
    folder.mkdir(parents=True)
    return tmp_path / "home"


def write(path, text=GOOD, mode=0o600):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


def fault(text):
    with pytest.raises(ConfigError) as caught:
        parse(text if isinstance(text, bytes) else text.encode(), "/etc/c.toml")
    return caught.value


def test_a_whole_config_is_read():
    settings = parse(GOOD.encode(), "/etc/c.toml")
    assert (settings.path, settings.default_profile, settings.cache) == ("/etc/c.toml", "adobe", "runtime")
    assert settings.allowed_modules == ("/opt/vendor/lib/libvendor.so",)
    key = settings.keys["adobe"]
    assert (key.uri, key.alg, key.pin_file_check) == ("pkcs11:token=prod;object=adobe-jwt", "RS256", "mount")
    profile = settings.profile("adobe")
    assert (profile.key, profile.audience, profile.scope) == ("adobe", ["a"], "one two")
    assert (profile.lifetime, profile.timeout, profile.min_ttl) == ("300", "5s", "1.5")
    assert profile.claims == {"x": 1, "y.z": [True]}


def test_a_byte_order_mark_and_crlf_do_no_harm():
    plain = parse(GOOD.encode(), "/c")
    windows = parse(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode(), "/c")
    assert windows.keys == plain.keys
    assert windows.profiles == plain.profiles


def test_lines_are_counted_behind_a_byte_order_mark_and_crlf():
    assert ", line 3: unknown key 'urii'" in fault(b'\xef\xbb\xbf[keys.k]\r\nuri = "pkcs11:"\r\nurii = "x"\r\n').message


# Which file


def test_the_flag_wins_over_the_variable_and_that_over_the_users_file(home, tmp_path):
    write(home / ".config" / "hsmjwt" / "config.toml", 'cache = "auto"')
    by_variable = write(tmp_path / "variable.toml", 'cache = "runtime"')
    by_flag = write(tmp_path / "flag.toml", 'cache = "none"')
    environ = {"HOME": str(home)}
    assert load(None, environ).cache == "auto"
    environ["HSMJWT_CONFIG"] = by_variable
    assert load(None, environ).cache == "runtime"
    assert load(by_flag, environ).path == by_flag
    environ["HSMJWT_CONFIG"] = ""
    assert load(None, environ).cache == "auto"


def test_xdg_config_home_moves_the_users_file_and_a_relative_one_is_ignored(home, tmp_path):
    (tmp_path / "xdg" / "hsmjwt").mkdir(parents=True)
    write(tmp_path / "xdg" / "hsmjwt" / "config.toml", 'cache = "none"')
    write(home / ".config" / "hsmjwt" / "config.toml", 'cache = "runtime"')
    assert load(None, {"HOME": str(home), "XDG_CONFIG_HOME": str(tmp_path / "xdg")}).cache == "none"
    assert load(None, {"HOME": str(home), "XDG_CONFIG_HOME": "xdg"}).cache == "runtime"


@pytest.mark.skipif(os.path.exists("/etc/hsmjwt/config.toml"), reason="this machine has a config of its own")
def test_without_any_file_the_settings_are_empty_and_asking_for_a_profile_says_where_one_could_be(tmp_path):
    settings = load(None, {"HOME": str(tmp_path)})
    assert settings.path is None
    with pytest.raises(ConfigError, match="no profile 'adobe': there is no config file") as caught:
        settings.profile("adobe")
    assert f"{tmp_path}/.config/hsmjwt/config.toml" in caught.value.hint


@pytest.mark.parametrize("by", ["--config", "HSMJWT_CONFIG"])
def test_a_named_file_that_is_missing_is_an_error(by, tmp_path):
    missing = str(tmp_path / "none.toml")
    environ = {"HOME": str(tmp_path), "HSMJWT_CONFIG": missing}
    with pytest.raises(ConfigError, match="is missing") as caught:
        load(missing if by == "--config" else None, environ)
    assert missing in caught.value.message
    assert by in caught.value.hint


def test_an_empty_flag_names_no_file(tmp_path):
    with pytest.raises(ConfigError, match="config file '' is missing"):
        load("", {"HOME": str(tmp_path)})


# Who may have written it


def test_a_symlink_counts_for_what_it_reaches(tmp_path):
    real = tmp_path / "real.toml"
    write(real, 'cache = "none"')
    link = tmp_path / "link.toml"
    link.symlink_to(real)
    assert load(str(link), {}).cache == "none"
    real.chmod(0o620)
    with pytest.raises(ConfigError, match="can be written by others") as caught:
        load(str(link), {})
    assert f"chmod go-w '{real}'" in caught.value.hint


def test_a_symlink_to_nothing_is_not_passed_over(home):
    (home / ".config" / "hsmjwt" / "config.toml").symlink_to(home / "gone")
    with pytest.raises(ConfigError, match="symlink to nothing"):
        load(None, {"HOME": str(home)})


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o660])
def test_a_file_that_others_can_write_is_refused(mode, tmp_path):
    with pytest.raises(ConfigError, match=f"can be written by others .mode {mode:04o}"):
        load(write(tmp_path / "c.toml", mode=mode), {})


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o644, 0o755])
def test_a_file_that_others_can_only_read_is_taken(mode, tmp_path):
    assert load(write(tmp_path / "c.toml", mode=mode), {}).default_profile == "adobe"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_refused(tmp_path):
    path = write(tmp_path / "c.toml", mode=0o644)
    os.chown(path, 12345, -1)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        load(path, {})


def test_a_folder_a_fifo_and_a_device_are_no_config_and_nothing_waits_for_them(tmp_path):
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo, 0o600)
    began = time.monotonic()
    for path in (str(tmp_path), fifo, "/dev/null"):
        with pytest.raises(ConfigError, match="no regular file"):
            load(path, {})
    assert time.monotonic() - began < 5


def test_a_path_with_nul_or_too_long_is_no_crash():
    for path in ("/tmp/a\0b", "/tmp/" + "x" * 5000):
        with pytest.raises(ConfigError, match="cannot be read"):
            load(path, {})


def test_a_file_of_absurd_size_is_not_read_whole(tmp_path):
    path = tmp_path / "c.toml"
    write(path, "")
    os.truncate(path, 1 << 33)
    with pytest.raises(ConfigError, match="longer than 16 MiB"):
        load(str(path), {})


# What is wrong inside


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("cache = \n", 1, "not TOML"),
        ('a = 1\nb = "open\n', 2, "not TOML"),
        ("[keys.k\n", 1, "not TOML"),
        ("[keys.k]\n[keys.k]\n", 2, "not TOML"),
        ('cache = "auto"\ncache = "none"\n', 2, "not TOML"),
        ('x = "\\ud800"\n', 1, "not TOML"),
        (b'cache = "auto"\nx = "\xff"\n', 2, "not UTF-8"),
        ('"cache" = "fast"\n', 1, "cache 'fast' is unknown"),
        ('default_profile = "none"\n', 1, "names the profile 'none'"),
        ("allowed_modules = 3\n", 1, "must be a list of texts, not the number 3"),
        ('allowed_modules = "/x.so"\n', 1, "must be a list of texts, not text"),
        ('allowed_modules = ["x.so"]\n', 1, "'x.so' is relative"),
        ("keys = 1\n", 1, "must be tables"),
        ("[keys]\nk = 1\n", 2, "k in [keys] must be a table, not a number"),
        ("[profiles.q]\n[profiles]\np = 'x'\n", 3, "p in [profiles] must be a table, not text"),
        ("profiles.p = 5\n", 1, "p in [profiles] must be a table, not a number"),
        ("[[profiles]]\n", 1, "must be tables"),
        ("\n[keys.k]\nalg = 'RS256'\n", 2, "[keys.k] has no uri"),
        ("[keys.k]\nuri = 'pkcs11:'\nmodule = 'lib.so'\n", 3, "'lib.so' is relative"),
        ("[keys.k]\nuri = 'pkcs11:'\npin_file_check = 'off'\n", 3, "'off', which is unknown"),
        ("[keys.k]\nuri = ''\n", 2, "uri in [keys.k] is empty"),
        ("[profiles.p]\nclient_id = 12345\n", 2, "client_id in [profiles.p] must be text, not the number 12345"),
        ("[profiles.p]\nclient_id = true\n", 2, "not true"),
        ("[profiles.p]\nclient_id = 0x" + "f" * 5000 + "\n", 2, "not a number"),
        ("[profiles.p]\nsubject = 2031-01-01\n", 2, "not a date"),
        ("[profiles.p]\naudience = []\n", 2, "audience in [profiles.p] is empty"),
        ("[profiles.p]\naudience = ['a', 1]\n", 2, "must be text or a list of texts, not a list of other things"),
        ("[profiles.p]\nscope = ['a', '']\n", 2, "must be text or a list of texts"),
        ("[profiles.p]\nlifetime = true\n", 2, 'must be text such as "90s", not true'),
        ("[profiles.p]\nclaims = 'x'\n", 2, "must be a table, not text"),
        ('profiles.p = {client_id = "a",\nsubject = 1}\n', 1, "not TOML"),
        ('profiles.p = {client_id = "a", subject = 1}\n', 1, "subject in [profiles.p] must be text"),
        ("[profiles.'we ird']\ntyp = 1\n", 2, "typ in [profiles.'we ird']"),
        ("[profiles.p]\nkey = 'k'\n", 2, "names 'k', and there is no such key table"),
        ('[profiles.""]\n', 1, "a profile's name is empty"),
    ],
)
def test_a_fault_names_file_and_line(text, line, what):
    message = fault(text).message
    assert message.startswith(f"config file '/etc/c.toml', line {line}")
    assert what in message


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ('default_profil = "x"', "default_profile"),
        ("[key.k]\n", "keys"),
        ("[keys.k]\nurl = 'pkcs11:'", "uri"),
        ("[keys.k]\npin-source = 'none'", "pin_source"),
        ("[profiles.p]\nclientid = 'x'", "client_id"),
        ("[profiles.p]\niss = 'x'", "issuer"),
        ("[profiles.p]\naud = 'x'", "audience"),
        ("[profiles.p]\ntoken_ulr = 'x'", "token_url"),
        ("[keys.adobe]\nuri='pkcs11:'\n[profiles.p]\nkey = 'adboe'", "adobe"),
        ("default_profile = 'adboe'\n[profiles.adobe]", "adobe"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest_known_one(text, near):
    assert fault(text).hint == f"did you mean {near!r}?"


def test_an_unknown_profile_comes_with_the_nearest_or_with_all():
    settings = parse(GOOD.encode(), "/etc/c.toml")
    with pytest.raises(ConfigError, match="no profile 'adob' in config file") as caught:
        settings.profile("adob")
    assert caught.value.hint == "did you mean 'adobe'?"
    with pytest.raises(ConfigError, match="named by HSMJWT_PROFILE") as caught:
        settings.profile("salesforce", "HSMJWT_PROFILE")
    assert caught.value.hint == "the profiles are adobe"


@pytest.mark.parametrize("key", ["allow", "journal"])
def test_a_key_tables_rule_that_has_no_effect_yet_is_refused(key):
    error = fault(f"[keys.k]\nuri = 'pkcs11:'\n{key} = 1\n")
    assert f"line 3: {key!r} in [keys.k] is not supported by this version" in error.message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("protected = 1", "protected in [keys.k] must be true or false, not the number 1"),
        ('unverified = "true"', "unverified in [keys.k] must be true or false, not text"),
        ("not_after = 1800000000", "must be a date, a time with an offset, or text"),
        ("not_after = 12:00:00", "must be a date, a time with an offset, or text"),
        ("max_age = true", 'must be text such as "90s", not true'),
        ("alg = []", "alg in [keys.k] is empty"),
        ("alg = [1]", "alg in [keys.k] must be text or a list of texts"),
        ('thumbprint = ""', "thumbprint in [keys.k] is empty"),
        ("certificate = 1", "certificate in [keys.k] must be text"),
        ("requires = 'x'", "unknown key 'requires' in [keys.k]"),
    ],
)
def test_what_a_key_tables_key_cannot_be_comes_with_its_line(line, words):
    error = fault(f"[keys.k]\nuri = 'pkcs11:'\n{line}\n")
    assert error.message.startswith("config file '/etc/c.toml', line 3: ")
    assert words in error.message


def test_a_number_where_text_belongs_is_shown_in_quotes():
    assert fault("[profiles.p]\nclient_id = 12345").hint == 'write client_id = "12345"'


@pytest.mark.parametrize(
    "text",
    [
        "[keys.k]\nuri = 'pkcs11:?pin-value=S3cr3t'\nurl = 1",
        "[keys.k]\nuri = 'pkcs11:?pin-value=S3cr3t'\npin_source = 7461",
        "[keys.k]\nuri = ['pkcs11:?pin-value=S3cr3t']",
        "[profiles.p]\nkey = 'pkcs11:?pin-value=S3cr3t'",
        "[profiles.p]\nproxy = ['http://u:S3cr3t@h']",
        "x = 'S3cr3t\n",
        b"x = 'S3cr3t\xff'\n",
    ],
)
def test_no_error_shows_what_may_be_a_secret(text):
    error = fault(text)
    shown = f"{error.message} {error.hint} {error.__cause__} {error!r}"
    assert "S3cr3t" not in shown
    assert "7461" not in shown


def test_no_repr_shows_the_pin_or_the_proxys_password():
    settings = parse(
        b"[keys.k]\nuri = 'pkcs11:?pin-value=S3cr3t'\n[profiles.p]\nproxy = 'http://u:S3cr3t@h'\n", "/etc/c.toml"
    )
    assert "S3cr3t" not in repr(settings)


@pytest.mark.parametrize("text", ["x = " + "[" * 5000, "x = " + "9" * 5000, "x = " + "{a=" * 5000])
def test_a_text_that_exhausts_the_parser_is_a_fault_of_the_config(text):
    assert fault(text).message.startswith("config file '/etc/c.toml'")


# The environment


@pytest.mark.parametrize("name", ["HSMJWT_CONFIG", "HSMJWT_PROFILE", "HSMJWT_MODULE", "HSMJWT_SOCKET"])
def test_a_variable_that_is_no_text_is_named(name, tmp_path):
    with pytest.raises(ConfigError, match=f"'{name}' is not UTF-8 text"):
        load(None, {"HOME": str(tmp_path), name: os.fsdecode(b"a\xff")})


def test_an_agent_that_is_asked_for_is_not_passed_by():
    with pytest.raises(TokenError, match="/run/agent") as caught:
        refuse_agent({"HSMJWT_SOCKET": "/run/agent.sock"})
    assert "unset HSMJWT_SOCKET" in caught.value.hint
    refuse_agent({"HSMJWT_SOCKET": ""})
    refuse_agent({})


@pytest.mark.parametrize(
    "text",
    [
        b"[keys.k]\nuri = 'pkcs11:?pin-value=S3cr3t' x",
        b"[keys.k]\nuri = 'pkcs11:?pin-value=S3cr3t\xff'",
        b"[keys.k]\nuri = 'pkcs11:?pin-value=S3cr3t'\nx = " + b"[" * 2000,
        b"x = " + b"9" * 5000 + b"\nuri = 'pkcs11:?pin-value=S3cr3t'",
    ],
    ids=["syntax", "not UTF-8", "deep", "digits"],
)
def test_a_broken_file_leads_to_no_error_that_holds_its_text(text):
    error: BaseException | None = fault(text)
    while error is not None:
        assert "S3cr3t" not in f"{error!r} {error.args} {vars(error)} {getattr(error, 'object', None)!r}"
        assert not isinstance(error, UnicodeDecodeError)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("name", ["keys.x?pin-value=123456", "pkcs11:object=k?pin-value=123456", "x;pin=123456"])
def test_a_pin_where_a_profiles_name_belongs_is_not_shown(name):
    for settings in (Settings(), parse(GOOD.encode(), "/etc/c.toml")):
        for named_by in (None, "HSMJWT_PROFILE"):
            with pytest.raises(ConfigError, match="no profile") as caught:
                settings.profile(name, named_by)
            assert "123456" not in f"{caught.value.message} {caught.value.hint}"
            assert "***" in caught.value.message
    for text in (f'default_profile = "{name}"', f'[profiles.p]\nkey = "{name}"'):
        assert "123456" not in f"{fault(text).message} {fault(text).hint}"
