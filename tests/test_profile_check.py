"""The lint of profiles: what would be refused is a no, what a person should look at a warning, and nothing is live."""

from __future__ import annotations

import os
import sys

import pytest

from hsmjwt.config import parse
from hsmjwt.errors import ConfigError
from hsmjwt.profile_check import check

NOW = 1_795_000_000.0
KEY = '[keys.k]\nuri = "pkcs11:token=t;object=k"\nmodule = "{module}"\n'
GOOD = '[profiles.p]\nkey = "k"\nissuer = "i"\ntoken_url = "https://as.example/token"\n'


@pytest.fixture
def module(tmp_path):
    """A file that would do for a module as long as nobody loads it."""
    path = tmp_path / "m.so"
    path.write_text("no library")
    path.chmod(0o755)
    return path


@pytest.fixture
def look(module, tmp_path):
    def findings(text, *names, environ=None, clock=NOW):
        whole = (KEY.format(module=module) if "[keys.k]" not in text else "") + text
        settings = parse(whole.replace("$MODULE", str(module)).encode(), str(tmp_path / "c.toml"), lenient=True)
        return list(check(settings, names, environ or {}, clock))

    return findings


def test_a_good_profile_is_ok_and_nothing_else_is_said(look):
    assert look(GOOD) == [("p", "ok", None, None)]
    assert look(GOOD, "p", "p") == [("p", "ok", None, None)]


def test_a_profile_that_only_signs_is_ok(look):
    assert [each.verdict for each in look('[profiles.s]\nkey = "k"\nissuer = "i"\naudience = "a"\n')] == ["ok"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('provider = "adobe"', "unknown provider 'adobe'"),
        ('environment = "moon"', "no environment 'moon'"),
        ('grant = "password"', "unknown grant 'password'"),
        ('lifetime = "2h"', "refused by the rule exp-too-late"),
        ('lifetime = "0"', "refused by the rule exp-not-later-than-now"),
        ('lifetime = "5 parsecs"', "is no duration"),
        ('nbf = "+5m"', "refused by the rule nbf-in-the-future"),
        ("claims = { exp = 1300000000 }", "refused by the rule exp-not-later-than-now"),
        ("claims = { iat = 2000000000 }", "refused by the rule iat-in-the-future"),
        ("claims = { aud = 1 }", "the claim 'aud' must be"),
        ('issuer_ = "x"', "unknown key 'issuer_'"),
        ("scope = 'a  b'", "is no scope"),
        ("headers = { alg = 'none' }", "'alg' cannot be set"),
        ("typ = 'hsmjwt-transcript'", "is reserved"),
        ("form = { grant_type = 'x' }", "written by hsmjwt itself"),
        ("client_secret_source = 's3cret'", "of no known kind"),
        ("timeout = '0'", "must be longer than 0"),
        ("proxy = 'socks5://u:s3cret@proxy.example'", "SOCKS"),
        ("proxy = 'http://u:s3cret@'", "no host"),
        ("key = 'kk'", "no such key table"),
    ],
)
def test_what_would_be_refused_is_a_no_with_its_reason(look, more, words):
    text = GOOD if not more.startswith("key = ") else GOOD.replace('key = "k"\n', "")
    (found,) = look(f"{text}{more}\n")
    assert (found.profile, found.verdict) == ("p", "no")
    assert words in found.text
    assert "s3cret" not in f"{found.text}{found.hint}"


@pytest.mark.parametrize(
    ("url", "words"),
    [("http://as.example/token", "not https"), ("https://u:s3cret@as.example/", "user name"), ("ftp://a/", "neither")],
)
def test_a_token_url_that_is_not_https_is_a_no(look, url, words):
    (found,) = look(GOOD.replace("https://as.example/token", url))
    assert found.verdict == "no"
    assert words in found.text
    assert "token_url" in found.text
    assert "s3cret" not in f"{found.text}{found.hint}"


@pytest.mark.parametrize(("kind", "verdict"), [("public", "no"), ("cert", "no"), ("private", "ok")])
def test_a_key_that_is_no_private_one_is_a_no(look, module, kind, verdict):
    table = f'[keys.k]\nuri = "pkcs11:token=t;object=k;type={kind}"\nmodule = "{module}"\n'
    (finding,) = look(table + GOOD)
    assert finding.verdict == verdict
    assert ("does not name a private key" in (finding.text or "")) is (verdict == "no")


def test_rules_of_a_provider_are_asked(look):
    adobe = '[profiles.p]\nprovider = "adobe-analytics"\nkey = "k"\nclient_id = "c"\nsubject = "s@AdobeOrg"\n'
    (found,) = look(adobe)
    assert (found.verdict, found.text[:27]) == ("warning", "Adobe retired this grant on")
    (found,) = look(f'{adobe}grant = "client-assertion"\n')
    assert (found.verdict, "the rule adobe-analytics.grant" in found.text) == ("no", True)
    (found,) = look('[keys.k]\nuri = "pkcs11:object=k"\nmodule = "$MODULE"\nalg = "ES256"\n' + adobe)
    assert (found.verdict, "the rule adobe-analytics.alg" in found.text) == ("no", True)
    (found,) = look(adobe.replace('client_id = "c"\n', ""))
    assert (found.verdict, found.hint) == ("no", "in [profiles.p] that is client_id")
    assert look(f'{adobe}token_url = "http://127.0.0.1:1/token"\n')[0].verdict == "ok"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("claims = { exp = 1795000100 }", "exp is the same moment in every assertion"),
        ('nbf = "@1300000000"', "nbf is the same moment"),
        ("claims = { iat = 1794999999 }", "iat is the same moment"),
        ('jti = "one"', "jti is the same in every assertion"),
        ('grant = "client-assertion"\nclient_id = "c"', "iss is not the client id"),
        ('grant = "client-assertion"\nclient_id = "i"\nsubject = "s"', "sub is not the client id"),
        ('ca_file = "ca.pem"', "ca.pem' is not there"),
        ('client_secret_source = "file:/nowhere/secret"', "client secret file '/nowhere/secret' cannot be looked at"),
    ],
)
def test_what_a_person_should_look_at_is_a_warning(look, more, words):
    found = look(f"{GOOD}{more}\n")
    assert {each.verdict for each in found} == {"warning"}
    assert any(words in each.text for each in found)
    assert all(each.hint for each in found)


def test_a_pin_in_a_uri_is_warned_of_and_not_shown(look):
    (found,) = look('[keys.k]\nuri = "pkcs11:object=k?pin-value=s3cret"\nmodule = "$MODULE"\n' + GOOD)
    assert found.verdict == "warning"
    assert "pin-value" in found.text
    assert "s3cret" not in found.text


@pytest.mark.parametrize(
    ("mode", "verdict", "words"),
    [
        (0o600, "ok", ""),
        (0o644, "no", "readable by others"),
        (0o622, "no", "writable by others"),
        (None, "warning", ""),
    ],
)
def test_the_pin_file_is_looked_at_from_outside(look, tmp_path, mode, verdict, words):
    pin = tmp_path / "pin"
    if mode is not None:
        pin.write_text("")  # empty: whoever read it would say so
        pin.chmod(mode)
    (found,) = look(f'[keys.k]\nuri = "pkcs11:object=k"\nmodule = "$MODULE"\npin_source = "file:{pin}"\n' + GOOD)
    assert found.verdict == verdict
    assert words in (found.text or "")


def test_a_mounted_pin_file_may_be_readable(look, tmp_path):
    pin = tmp_path / "pin"
    pin.write_text("1")
    pin.chmod(0o644)
    table = f'[keys.k]\nuri = "pkcs11:object=k"\nmodule = "$MODULE"\npin_source = "file:{pin}"\n'
    assert look(f'{table}pin_file_check = "mount"\n{GOOD}')[0].verdict == "ok"


def test_no_secret_is_read_and_no_command_run(look, tmp_path):
    for source in (f"command:touch {tmp_path}/ran", "fd:77", "env:NOT_SET", "prompt", "credential:c"):
        text = f'[keys.k]\nuri = "pkcs11:object=k"\nmodule = "$MODULE"\npin_source = "{source}"\n'
        assert look(f'{text}{GOOD}client_secret_source = "{source}"\n')[0].verdict == "ok"
    assert not (tmp_path / "ran").exists()
    os.mkfifo(tmp_path / "fifo", 0o600)
    (found,) = look(
        f'[keys.k]\nuri = "pkcs11:object=k"\nmodule = "$MODULE"\npin_source = "file:{tmp_path}/fifo"\n' + GOOD
    )
    assert "is not a regular file" in found.text


def test_a_module_that_is_missing_is_a_warning_and_one_that_others_may_write_a_no(look, module):
    module.chmod(0o777)
    (found,) = look(GOOD)
    assert (found.verdict, "can be written by others" in found.text) == ("no", True)
    module.unlink()
    (found,) = look(GOOD)
    assert (found.verdict, "cannot be read: no such file" in found.text) == ("warning", True)


def test_a_module_path_in_a_uri_must_be_allowed(look, module):
    table = f'[keys.k]\nuri = "pkcs11:object=k?module-path={module}"\n'
    (found,) = look(table + GOOD)
    assert (found.verdict, "is not among the config's allowed_modules" in found.text) == ("no", True)
    assert look(f'allowed_modules = ["{module}"]\n{table}{GOOD}')[0].verdict == "ok"


def test_a_key_table_that_no_profile_uses_is_told_only_where_all_profiles_are_looked_at(look):
    text = f'{GOOD}[keys."old one"]\nuri = "pkcs11:object=o"\n'
    assert [each[:3] for each in look(text)[1:]] == [
        (None, "warning", "the key table [keys.'old one'] is used by no profile")
    ]
    assert len(look(text, "p")) == 1


def test_what_a_key_table_names_beside_its_key_is_looked_at(look, tmp_path):
    table = KEY.format(module="$MODULE") + "{}\n" + GOOD
    for line, noun in (('public_key = "k.pem"', "public key"), ('certificate = "k.pem"', "certificate")):
        (tmp_path / "k.pem").unlink(missing_ok=True)
        (found,) = look(table.format(line))
        assert (found.verdict, found.hint) == ("warning", "it has to be there where the profile is used")
        assert found.text == f"the {noun} '{tmp_path / 'k.pem'}' is not there"
        (tmp_path / "k.pem").write_text("no PEM")
        (found,) = look(table.format(line))
        assert found.verdict == "no"
        assert f"line 4: {line.split()[0]} in [keys.k]: " in found.text
    assert look(table.format('certificate = "pkcs11:token=t;object=k;type=cert"'))[0].verdict == "ok"


@pytest.mark.parametrize(
    ("named", "verdict", "words"),
    [
        ("device-born", "ok", ""),
        ("device-bron", "no", "line 4: require in [keys.k]: unknown policy 'device-bron'"),
        ("own.toml", "warning", "is not there"),
    ],
)
def test_a_policy_that_a_key_table_requires_is_one(look, named, verdict, words):
    (found,) = look(KEY.format(module="$MODULE") + f'require = "{named}"\n' + GOOD)
    assert (found.verdict, words in (found.text or "")) == (verdict, True)


def test_a_policy_file_that_is_not_there_is_a_warning_beside_a_config_in_this_folder_too(module):
    text = KEY.format(module=module) + 'require = "own.toml"\n' + GOOD
    (found,) = check(parse(text.encode(), "c.toml", lenient=True), (), {}, NOW)
    assert (found.verdict, found.text) == ("warning", "the audit policy 'own.toml' is not there")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('alg = ["RS256", "RS265"]', "line 4: alg in [keys.k]: 'RS265' is no signature algorithm"),
        ('thumbprint = "x"', "line 4: thumbprint in [keys.k]: 'x' is no thumbprint"),
        ("not_after = 2020-01-01", "refused by the rule keys.k.not_after"),
    ],
)
def test_what_a_key_table_cannot_mean_is_a_no(look, line, words):
    table = KEY.format(module="$MODULE") + line + "\n"
    (found,) = look(table + GOOD)
    assert (found.profile, found.verdict, words in found.text) == ("p", "no", True)
    if "rule" not in words:  # which is asked where a key is used
        assert (None, "no") in [each[:2] for each in look(table)]


def test_tables_that_bind_the_same_key_to_different_algorithms_are_a_no(look):
    second = '[keys.l]\nuri = "pkcs11:object=%6B;token=t"\nalg = "PS256"\n'
    found = look(KEY.format(module="$MODULE") + f'alg = "RS256"\n{second}{GOOD}')
    assert (found[0].profile, found[0].verdict) == ("p", "no")
    assert "key tables bind one key to different algorithms: [keys.k] to RS256, [keys.l] to PS256" in found[0].text


def test_a_table_that_is_wrong_is_told_whoever_is_asked_for(look):
    """It keeps every command from reading the file."""
    text = f'{GOOD}[profiles.q]\nkye = "k"\n[profiles.r]\nkey = "b"\n[keys.b]\nuri = "pkcs11:"\nallow = {{}}\n'
    found = look(text, "p")
    assert [(each.profile, each.verdict) for each in found] == [
        (None, "no"),
        ("q", "no"),
        ("r", "no"),
        ("p", "ok"),
    ]
    assert "'allow' in [keys.b] is not supported by this version" in found[0].text
    assert found[2].text == found[0].text
    assert [each.profile for each in look(text, "q", "p")] == [None, "q", "r", "p"]


def test_a_default_profile_that_is_not_there_is_told(look):
    (found, other) = look('default_profile = "pp"\n' + KEY.format(module="$MODULE") + GOOD)
    assert (found.profile, found.verdict) == (None, "no")
    assert "default_profile names the profile 'pp'" in found.text
    assert other.verdict == "ok"


def test_a_profile_that_is_not_there_is_an_error(look):
    with pytest.raises(ConfigError, match="no profile 'pp'"):
        look(GOOD, "pp")


def test_the_environment_fills_a_gap_as_it_will_when_the_profile_is_used(look, module):
    text = '[profiles.p]\nissuer = "i"\ntoken_url = "https://as.example/token"\n[keys.k]\nuri = "pkcs11:"\n'
    (missing, _) = look(text)
    assert (missing.verdict, "--key is missing" in missing.text) == ("no", True)
    (found, _) = look(text, environ={"HSMJWT_KEY": "pkcs11:object=e", "HSMJWT_MODULE": str(module)})
    assert found.verdict == "ok"


@pytest.mark.parametrize("fault", ["", 'lifetime = "bad"\n', "kye = 1\n"], ids=["good", "refused", "wrong"])
def test_twice_the_profiles_cost_twice_the_work(look, fault):
    """Counted in calls, not in seconds: a walk over the whole file for each profile would be seen."""

    def calls(number):
        one = '[profiles.p{}]\nkey = "k"\nissuer = "i"\ntoken_url = "https://as.example/token"\n' + fault
        text = "".join(one.format(each) for each in range(number))
        counted = [0]

        def count(_frame, event, _argument):
            counted[0] += event in ("call", "c_call")

        sys.setprofile(count)
        try:
            found = look(text)
        finally:
            sys.setprofile(None)
        assert len(found) >= number
        return counted[0]

    calls(1)  # what is loaded once
    assert calls(400) < 2.2 * calls(200)
