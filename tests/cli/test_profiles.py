"""`hsmjwt profile` and `hsmjwt provider`: what is printed, what is refused, and what a new profile leaves untouched."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
from cli import places
from cli.checks import refused, told
from servers.granting import write_config

from hsmjwt.oauth import provider as providers

ROOT = Path(__file__).resolve().parents[2]
PIN = "S3cr3tPin-7461"
CONFIG = """
default_profile = "one"
[keys.k]
uri = "pkcs11:token=t1;object=k1"
[profiles.one]
key = "k"
issuer = "ci"
token_url = "https://as.example/token"
[profiles."[/red]"]
provider = "adobe-analytics"
client_id = "c"
subject = "s@AdobeOrg"
"""
INIT = ("profile", "init", "generic", "--iss", "i", "--token-url", "https://as.example/token")


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path, CONFIG)


def home_config(token):
    return Path(token.environ()["HOME"], ".config/hsmjwt/config.toml")


# profile list


def test_the_list_has_each_profile_with_what_it_comes_to(quick, config):
    done = quick("profile", "list", "--config", config)
    assert (done.code, done.err) == (0, "")
    assert [re.split(r"  +", line) for line in done.out.splitlines()] == [
        ["PROFILE", "PROVIDER", "KEY", "TOKEN URL", "STATE"],
        ["one", "generic", "keys.k", "https://as.example/token", "default"],
        ["[/red]", "adobe-analytics", "HSMJWT_KEY", "https://api.omniture.com/token", "-"],
    ]
    rows = json.loads(quick("profile", "list", "--config", config, "--json").out)
    assert rows[0] == {
        "name": "one",
        "provider": "generic",
        "key": "keys.k",
        "token_url": "https://as.example/token",
        "default": True,
        "problem": None,
    }
    assert [list(row) for row in rows] == [list(rows[0])] * 2
    marked = json.loads(quick("profile", "list", "--config", config, "--json", HSMJWT_PROFILE="[/red]").out)
    assert [row["default"] for row in marked] == [False, True]


@pytest.mark.parametrize("fault", ['lifetime = "x"', 'provider = "adobe"', "kye = 1", 'key = "nope"'])
def test_a_broken_profile_is_listed_with_the_others_and_told(quick, tmp_path, fault):
    config = write_config(tmp_path, f"{CONFIG}[profiles.broken]\n{fault}\n")
    done = quick("profile", "list", "--config", config)
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()[1:]] == ["one", "[/red]", "broken"]
    assert done.out.splitlines()[3].endswith("  broken")
    assert done.err.startswith("hsmjwt: warning: the profile 'broken' cannot be used: config file ")
    rows = json.loads(quick("profile", "list", "--config", config, "--json").out)
    assert [list(row) for row in rows] == [list(rows[0])] * 3
    assert [bool(row["problem"]) for row in rows] == [False, False, True]


def test_a_broken_key_table_is_told_and_its_profile_listed(quick, tmp_path):
    config = write_config(tmp_path, CONFIG.replace('object=k1"', 'object=k1"\njournal = "/j"'))
    done = quick("profile", "list", "--config", config)
    assert done.code == 0
    assert "'journal' in [keys.k] is not supported by this version" in done.err
    assert {line.split()[0] for line in done.out.splitlines()[1:]} == {"one", "[/red]"}


def test_without_a_config_the_list_is_empty_and_says_how_to_begin(quick):
    done = quick("profile", "list")
    assert (done.code, done.out) == (0, "PROFILE  PROVIDER  KEY  TOKEN URL  STATE\n")
    assert "hsmjwt profile init PROVIDER makes one" in done.err
    assert quick("profile", "list", "--json").out == "[]\n"
    refused(quick("profile", "list", "--config", "nowhere.toml"), 3, "config file 'nowhere.toml' is missing")


def test_a_config_that_is_no_toml_is_exit_3(quick, tmp_path):
    config = write_config(tmp_path, "no TOML")
    for words in (("list",), ("check",), ("show",), ("init", "generic")):
        refused(quick("profile", *words, "--config", config), 3, "not TOML")


# profile show


def test_show_prints_each_setting_with_its_origin(quick, config):
    call = ("profile", "show", "one", "--sub", "s", "--config", config)
    done = quick(*call)
    assert (done.code, done.err) == (0, "")
    table = {line.split()[0]: re.split(r"  +", line)[1:] for line in done.out.splitlines()}
    assert table["SETTING"] == ["VALUE", "FROM"]
    assert table["subject"] == ["s", "--sub"]
    assert table["issuer"] == ["ci", "[profiles.one] issuer"]
    assert table["uri"] == ["pkcs11:token=t1;object=k1", "[keys.k] uri"]
    assert table["pin_source"][1] == "HSMJWT_PIN_SOURCE"
    assert table["jti"] == ["auto", "provider generic"]
    assert table["scope"] == ["-", "default"]
    rows = json.loads(quick(*call, "--json").out)
    assert [list(row) for row in rows] == [["name", "value", "origin", "by"]] * len(rows)
    assert {row["origin"] for row in rows} == {"flag", "profile", "key table", "environment", "provider", "default"}


def test_show_and_a_dry_run_say_the_same(quick, config):
    call = ("one", "--config", config, "--claim", "x=1", "--header", "h=2", "--scope", "r", "--client-id", "c")
    shown = {row["name"]: row["value"] for row in json.loads(quick("profile", "show", *call, "--json").out)}
    dry = json.loads(quick("token", *call, "--dry-run").out)
    assert dry["header"] == {"typ": shown["typ"], "alg": shown["alg"], "h": shown["headers.h"]}
    claims = dry["claims"]
    assert (claims["iss"], claims["sub"], claims["aud"]) == (shown["issuer"], shown["subject"], shown["audience"])
    assert f"{claims['exp'] - claims['iat']}s" == shown["lifetime"]
    assert claims["x"] == shown["claims.x"]
    assert dry["request"]["url"] == shown["token_url"]
    assert {name: dry["request"]["form"][name] for name in ("scope", "client_id")} == {
        "scope": shown["scope"],
        "client_id": shown["client_id"],
    }


def test_show_refuses_what_token_refuses(quick, config):
    for words in (("nope",), ("one", "--exp", "soon"), ("one", "--grant", "password"), ("pkcs11:object=k",)):
        call = (*words, "--config", config)
        shown, made = quick("profile", "show", *call), quick("token", *call, "--dry-run")
        assert (shown.code, shown.err) == (made.code, made.err)
        refused(shown, shown.code)


def test_no_secret_is_shown(quick, tmp_path):
    config = write_config(
        tmp_path,
        f"""
        [keys.k]
        uri = "pkcs11:object=k1?pin-value={PIN}"
        [keys.c]
        uri = "pkcs11:object=k1"
        pin_source = "command:echo {PIN}"
        [profiles.a]
        key = "k"
        issuer = "i"
        token_url = "https://as.example/token"
        client_secret_source = "command:echo {PIN}"
        proxy = "http://user:{PIN}@proxy.example:3128"
        form = {{ client_password = "{PIN}" }}
        [profiles.b]
        key = "c"
        issuer = "i"
        token_url = "https://as.example/token"
        """,
    )
    environ = {"HSMJWT_PIN": PIN, "HTTPS_PROXY": f"http://u:{PIN}@proxy.example"}
    for words in (
        ("show", "a"),
        ("show", "b"),
        ("list",),
        ("check",),
        ("show", "b", "--key", f"pkcs11:?pin-value={PIN}"),
    ):
        for form in ((), ("--json",), ("--verbose",)):
            done = quick("profile", *words, *form, "--config", config, **environ)
            assert done.code == 0, done
            assert PIN not in done.out + done.err


@pytest.mark.parametrize("words", [("list",), ("show", "one"), ("check",)])
def test_nothing_live_is_loaded(token, config, words):
    code = (
        "import os, sys; end = os._exit\n"
        "def tell(code): print(code, *sys.modules, file=sys.__stderr__, flush=True); end(0)\n"
        "os._exit = tell\nfrom hsmjwt.cli.main import entry\nentry()"
    )
    environ = {**token.environ(), "PYTHONPATH": str(ROOT), "HSMJWT_CONFIG": config}
    done = subprocess.run(
        [sys.executable, "-c", code, "profile", *words], env=environ, capture_output=True, text=True, check=True
    )
    code, *names = done.stderr.splitlines()[-1].split()
    assert code == "0"
    assert {"pkcs11", "ctypes", "requests", "ssl", "cryptography", "typer", "importlib.metadata"} & set(names) == set()


# profile check


def test_check_says_ok_or_no_and_ends_with_8(quick, config, tmp_path):
    done = quick("profile", "check", "--config", config)
    assert (done.code, done.err) == (0, "")
    assert [line.split()[:2] for line in done.out.splitlines()] == [
        ["PROFILE", "VERDICT"],
        ["one", "ok"],
        ["[/red]", "warning"],  # Adobe's grant is retired
    ]
    config = write_config(tmp_path, f'{CONFIG}lifetime = "2h"\n')
    done = quick("profile", "check", "--config", config)
    assert (done.code, done.err) == (8, "")
    assert "refused by the rule exp-too-late" in done.out.splitlines()[2]
    rows = json.loads(quick("profile", "check", "[/red]", "one", "--json", "--config", config).out)
    assert [list(row) for row in rows] == [["profile", "verdict", "finding", "hint"]] * 2
    assert [(row["profile"], row["verdict"]) for row in rows] == [("[/red]", "no"), ("one", "ok")]
    assert quick("profile", "check", "one", "--config", config).code == 0


def test_check_of_what_is_not_there_is_exit_3(quick, config):
    refused(quick("profile", "check", "noe", "--config", config), 3, "no profile 'noe'", hint="did you mean 'one'?")
    refused(quick("profile", "check"), 3, "there is no config file: looked for ", hint="hsmjwt profile init PROVIDER")
    refused(quick("profile", "check", steps=[("clock", -(10**9))]), 3, "the system clock says 199")


def test_a_wrong_table_fails_the_check_of_every_profile(quick, tmp_path):
    config = write_config(tmp_path, f"{CONFIG}[profiles.q]\nkye = 1\n")
    done = quick("profile", "check", "one", "--config", config)
    assert done.code == 8
    assert [line.split()[:2] for line in done.out.splitlines()[1:]] == [["q", "no"], ["one", "ok"]]


@pytest.mark.parametrize("label", ["k{0}", "k"])
def test_ten_thousand_profiles_are_listed_checked_and_added_to_within_the_time_of_a_command(quick, tmp_path, label):
    """Each with a key table of its own, whose URI is compared with those of all others."""
    one = (
        f'[keys.k{{0}}]\nuri = "pkcs11:token=t1;object={label}"\nalg = "RS256"\n'
        '[profiles.p{0}]\nkey = "k{0}"\nissuer = "ci"\ntoken_url = "https://as.example/token"\n'
    )
    config = write_config(tmp_path, CONFIG + "".join(one.format(number) for number in range(10_000)))
    for words in (("list", "--json"), ("check", "--json")):
        done = quick("profile", *words, "--config", config)
        assert done.code == 0, done.err
        assert len(json.loads(done.out)) == 10_002
    assert quick(*INIT, "--key", "k", "--config", config).code == 0


# profile init


def test_init_makes_the_users_config_and_the_profile_can_be_checked_and_shown(quick, token):
    call = ("--key", "pkcs11:token=t1;object=k1", "--module", token.module, "--alg", "RS256", "--name", "ci")
    done = quick(*INIT, *call)
    path = home_config(token)
    assert (done.code, done.out) == (0, f"{path}\n")
    assert done.err == "hsmjwt: next: hsmjwt profile check ci\n"
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, path.parent.parent)] == [
        0o600,
        0o700,
        0o700,
    ]
    document = tomllib.loads(path.read_text())
    assert document["keys"] == {
        "ci": {"uri": "pkcs11:token=t1;object=k1", "module": token.module, "alg": "RS256"},
    }
    assert document["profiles"]["ci"] == {
        "provider": "generic",
        "key": "ci",
        "issuer": "i",
        "token_url": "https://as.example/token",
    }
    checked = quick("profile", "check", "ci")
    assert (checked.code, checked.out.splitlines()[1].split()) == (0, ["ci", "ok", "-", "-"])
    assert quick("sign", "ci").code == 0


def test_init_appends_and_leaves_what_is_there(quick, config):
    before = Path(config).read_bytes()
    done = quick(
        *INIT, "--key", "k", "--aud", "a", "--aud", "b", "--exp", "2m", "--kid", "x", "--config", config, "--json"
    )
    assert done.code == 0
    assert json.loads(done.out) == {"config": config, "profile": "generic", "key": None}
    assert done.err.endswith(f"next: hsmjwt profile check generic --config {config}\n")
    after = Path(config).read_bytes()
    assert after.startswith(before)
    assert tomllib.loads(after[len(before) :].decode())["profiles"]["generic"] == {
        "provider": "generic",
        "key": "k",
        "issuer": "i",
        "token_url": "https://as.example/token",
        "audience": ["a", "b"],
        "lifetime": "2m",
        "kid": "x",
    }


def test_what_is_still_missing_is_named(quick, config):
    done = quick("profile", "init", "adobe-analytics", "--key", "keys.k", "--config", config)
    assert done.code == 0
    assert done.err.splitlines()[:2] == [
        "hsmjwt: warning: Adobe retired this grant on 2021-08-18 and the Analytics 1.4 API on 2026-08-31",
        "hsmjwt: still to be filled in: client_id, subject",
    ]
    checked = quick("profile", "check", "adobe-analytics", "--config", config)
    assert checked.code == 8
    assert "--client-id and --sub are missing" in checked.out


@pytest.mark.parametrize("name", ['we"ird\n[x]', "a.b", "ö ü", "\u202egnp", "'", "#", "\x01\x7f", "]"])
def test_any_name_can_be_given_and_used(quick, config, name):
    done = quick(*INIT, "--key", "k", "--name", name, "--config", config)
    assert done.code == 0, done.err
    assert name in tomllib.loads(Path(config).read_text())["profiles"]
    assert json.loads(quick("profile", "check", name, "--config", config, "--json").out)[0] == {
        "profile": name,
        "verdict": "ok",
        "finding": None,
        "hint": None,
    }


def test_hostile_values_stay_values(quick, config):
    text = '"\n[profiles.evil]\nissuer = "e"\n#\\'
    done = quick(
        "profile", "init", "generic", "--iss", text, "--aud", text, "--kid", text, "--key", "k", "--config", config
    )
    assert done.code == 0, done.err
    profiles = tomllib.loads(Path(config).read_text())["profiles"]
    assert set(profiles) == {"one", "[/red]", "generic"}
    assert [profiles["generic"][key] for key in ("issuer", "audience", "kid")] == [text] * 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("gneric",), 3, "unknown provider 'gneric'"),
        (("../providers/generic",), 3, "unknown provider"),
        (("generic", "--name", "one"), 3, "there is a profile 'one' already"),
        (("generic", "--name", "k", "--key", "pkcs11:object=x"), 3, "there is a key table 'k' already"),
        (("generic", "--key", "kk"), 3, "there is no key table 'kk'"),
        (("generic", "--key", "pkcs11:objct"), 2, "uri in [keys.generic]"),
        (("generic", "--name", "-x"), 2, "--name"),
        (("generic", "--name", f"pkcs11:?pin-value={PIN}"), 2, "--name"),
        (("generic", "--name", ""), 2, "--name is empty"),
        (("generic", "--name", "\udcff"), 2, "--name is not UTF-8 text"),
        (("generic", "--iss", "\udcff"), 2, "--iss is not UTF-8 text"),
        (("generic", "--aud", ""), 2, "--aud is empty"),
        (("generic", "--exp", "soon"), 2, "is no duration"),
        (("generic", "--exp", "2h"), 8, "refused by the rule exp-too-late"),
        (("generic", "--token-url", "http://as.example/"), 2, "token_url in [profiles.generic]"),
        (("generic", "--grant", "password"), 2, "unknown grant 'password'"),
        (("generic", "--typ", "hsmjwt-x"), 2, "is reserved"),
        (("generic", "--environment", "test"), 2, "has no environment 'test'"),
        (("generic", "--alg", "RS256"), 2, "--alg belongs to a key table, and none is made"),
        (("generic", "--key", "k", "--pin-source", "none"), 2, "--pin-source belongs to a key table"),
        (("generic", "--key", "pkcs11:", "--pin-source", PIN), 2, "the secret source is of no known kind"),
        (("generic", "--key", "pkcs11:", "--alg", "none"), 2, "is no signature algorithm"),
        (("generic", "--key", "pkcs11:", "--module", "m.so"), 3, "the module path 'm.so' (--module) is relative"),
        (("adobe-analytics", "--grant", "client-assertion"), 8, "the rule adobe-analytics.grant"),
        (("adobe-analytics", "--key", "pkcs11:", "--alg", "ES256"), 8, "the rule adobe-analytics.alg"),
    ],
)
def test_a_refusal_leaves_the_file_as_it_is(quick, config, words, code, message):
    before = os.stat(config)
    done = quick("profile", "init", *words, "--config", config, "--json")
    err = refused(done, code, message)
    told(done)
    assert PIN not in err
    after = os.stat(config)
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


def test_a_refusal_makes_no_config(quick, token):
    refused(quick("profile", "init", "generic", "--grant", "password"), 2, "unknown grant")
    assert not Path(token.environ()["HOME"], ".config").exists()


def test_the_second_init_of_a_name_is_refused(quick, token):
    assert quick(*INIT).code == 0
    before = home_config(token).read_bytes()
    refused(quick(*INIT), 3, "there is a profile 'generic' already", hint="--name NAME")
    assert home_config(token).read_bytes() == before


@pytest.mark.parametrize(
    "uri",
    [
        *(f"pkcs11:object=k?{name}={PIN}" for name in ("pin-value", "PIN-VALUE", "Pin_Value", "pinvalue", "pin")),
        *(f"pkcs11:object=k?{name}={PIN}" for name in ("value", "module-name=m&pin-value", "x=1&pin-value")),
        *(f"pkcs11:object=k;{name}={PIN}" for name in ("pin_value", "userpin")),
        f"PKCS11:?pin-value={PIN}",
        f"pkcs11:object=k%3Fpin-value%3D{PIN}",
    ],
)
def test_a_pin_in_the_uri_is_not_written_into_the_config(quick, config, uri):
    done = quick(*INIT, "--key", uri, "--config", config)
    refused(done, 2, "***", "holds a PIN, or what may be one", hint="--pin-source SPEC says where the PIN is")
    assert PIN not in done.err
    assert Path(config).read_text() == CONFIG


def test_where_a_pin_is_may_stand_in_the_uri_of_a_new_key_table(quick, config):
    uri = "pkcs11:object=k?pin-source=file:/etc/pin&module-name=softhsm2"
    assert quick(*INIT, "--key", uri, "--config", config).code == 0
    assert tomllib.loads(Path(config).read_text())["keys"]["generic"]["uri"] == uri


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ('uri = "pkcs11:object=k"\nalg = "ES256K"', "alg in [keys.there]: the algorithm ES256K is not supported"),
        ('uri = "pkcs11:object=k"\npin_source = "bogus:1"', "pin_source in [keys.there]: the secret source is of no"),
        ("alg = 'RS256'\nuri = 'pkcs11:objct'", "uri in [keys.there]: the attribute 'objct' has no '='"),
    ],
)
def test_a_fault_of_a_key_table_that_is_there_is_the_files_and_not_the_command_lines(quick, tmp_path, broken, problem):
    config = write_config(tmp_path, f"{CONFIG}[keys.there]\n{broken}\n")
    line = Path(config).read_text().splitlines().index(broken.splitlines()[1]) + 1
    for name in ("new", "there"):
        done = quick(*INIT, "--name", name, "--key", "there", "--config", config)
        refused(done, 3, f"config file '{config}', line {line}: {problem}")


def test_a_relative_ca_file_is_the_one_of_this_folder(quick, config, tmp_path):
    done = quick(*INIT, "--ca-file", "ca.pem", "--config", config)
    assert done.code == 0
    assert tomllib.loads(Path(config).read_text())["profiles"]["generic"]["ca_file"] == str(tmp_path / "ca.pem")


def test_a_config_that_others_may_write_is_refused(quick, config):
    os.chmod(config, 0o666)
    refused(quick(*INIT, "--config", config), 3, "can be written by others", hint="chmod go-w")
    assert Path(config).read_text() == CONFIG


def test_a_full_disk_leaves_the_config_as_it_was(quick, config):
    size = os.stat(config).st_size
    done = quick(*INIT, "--config", config, steps=[("limit", "FSIZE", size + 100)])
    refused(done, 3, "cannot be written: file too large")
    assert Path(config).read_text() == CONFIG


def test_a_full_disk_without_a_config_leaves_none(quick, token):
    refused(quick(*INIT, steps=[("limit", "FSIZE", 400)]), 3, "cannot be written: file too large")
    assert not home_config(token).exists()
    assert quick(*INIT).code == 0


@pytest.fixture
def open_folder():
    """A folder of ours that everybody may enter and nobody else write in."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_a_folder_or_file_that_we_may_not_write_to_is_exit_3(quick, open_folder):
    stranger = [("user", 54321)]
    hint = "--config FILE or HSMJWT_CONFIG names another one"
    done = quick(*INIT, "--config", str(open_folder / "new" / "c.toml"), steps=stranger)
    refused(done, 3, "c.toml' cannot be written: permission denied", hint=hint)
    config = Path(write_config(open_folder, CONFIG))
    config.chmod(0o644)
    refused(quick(*INIT, "--config", str(config), steps=stranger), 3, "cannot be written: permission denied", hint=hint)
    assert config.read_text() == CONFIG
    assert os.listdir(open_folder) == ["config.toml"]


@pytest.mark.skipif(not places.may_mount(), reason="the system lets us mount nothing")
def test_a_disk_that_takes_no_change_is_exit_3(quick, tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    config = write_config(folder, CONFIG)
    for path in (config, str(folder / "a" / "c.toml")):
        done = quick(*INIT, "--config", path, steps=[("read_only", str(folder))])
        refused(done, 3, f"config file '{path}' cannot be written: read-only file system")
    assert quick("profile", "check", "--config", config, steps=[("read_only", str(folder))]).code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes a user that nobody knows")
def test_without_a_home_there_is_no_place_for_a_config(quick):
    done = quick(*INIT, HOME=None, steps=[("user", 54321)])
    refused(done, 3, "there is no place for a config file: HOME is not set", hint="--config FILE")


def test_two_at_once_lose_nothing(token, tmp_path):
    """Whole processes, which start together on a config that is not there yet."""
    command = [sys.executable, "-m", "hsmjwt", *INIT, "--name"]
    running = [
        subprocess.Popen(
            [*command, f"p{number}"],
            env={**token.environ(), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(6)
    ]
    assert [each.wait(60) for each in running] == [0] * 6
    assert set(tomllib.loads(home_config(token).read_text())["profiles"]) == {f"p{number}" for number in range(6)}


# provider


def test_the_list_has_every_provider(quick):
    rows = json.loads(quick("provider", "list", "--json").out)
    assert [row["name"] for row in rows] == providers.names()
    assert all(list(row) == ["name", "title", "grants", "algs", "retired"] for row in rows)
    table = quick("provider", "list").out.splitlines()
    assert re.split(r"  +", table[0]) == ["PROVIDER", "GRANTS", "ALGORITHMS", "STATE", "TITLE"]
    assert [re.split(r"  +", line)[0] for line in table[1:]] == providers.names()
    assert "retired" in table[1]


@pytest.mark.parametrize("name", providers.names())
def test_a_provider_is_shown_as_its_file_says(quick, name):
    raw = tomllib.loads((ROOT / "hsmjwt" / "providers" / f"{name}.toml").read_text())
    shown = json.loads(quick("provider", "show", name, "--json").out)
    assert {key: shown[key] for key in raw} == raw
    assert set(shown) == {*providers.Provider.__struct_fields__, "values"}
    text = quick("provider", "show", name).out
    for value in (raw["title"], f"{raw['lifetime']}s", *raw["grants"], *raw["typ"].values(), *raw.get("algs", ())):
        assert value in text
    for environment in raw.get("environments", {}).values():
        for value in environment.values():
            assert value in text


def test_a_provider_that_nobody_knows_is_exit_3(quick):
    refused(quick("provider", "show", "gneric"), 3, "unknown provider 'gneric'", hint="did you mean 'generic'?")
    refused(quick("provider", "show"), 2, "NAME is missing")


def test_no_agent_is_needed_to_look_at_the_config(quick, config):
    for words in (("list",), ("show", "one"), ("check",)):
        assert quick("profile", *words, "--config", config, HSMJWT_SOCKET="/nowhere").code == 0
