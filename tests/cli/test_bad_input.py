"""Bad input, each kind with its exit code, words and hint; nothing of it is signed, and stdout stays empty."""

from __future__ import annotations

import os

import pytest
from cli.checks import refused, told

SIGN = ("sign", "--iss", "i", "--aud", "a")
HALF = "\udced\udca0\udc80"  # what Python makes of the bytes ED A0 80 in argv, a lone surrogate in UTF-8

FILES = {
    "text.json": b"iss = me",
    "empty.json": b"",
    "array.json": b'[{"x": 1}]',
    "nan.json": b'{"x": {"y": NaN}}',
    "infinity.json": b'{"x": 1e400}',
    "twice.json": b'{"x": 1, "y": 2, "x": 1}',
    "inside.json": b'{"x": [{"a": 1, "a": 2}]}',
    "half.json": b'{"x": "\\ud800"}',
    "utf16.json": '{"x": 1}'.encode("utf-16"),
    "latin1.json": '{"x": "é"}'.encode("latin-1"),
    "deep.json": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "iss.json": b'{"iss": "other"}',
    "exp.json": b'{"exp": true}',
    "late.json": b'{"exp": 32503680000}',
    "early.json": b'{"exp": 1000000000}',
    "future.json": b'{"iat": 32503680000, "exp": 32503680300}',
    "syntax.toml": b'default_profile = "adobe\n',
    "unknown.toml": b'[keys.k]\nuri = "pkcs11:token=t1"\n\n[profiles.p]\nkey = "k"\nisuer = "i"\n',
    "top.toml": b'\ndefault_profil = "p"\n',
    "number.toml": b'[keys.k]\nuri = "pkcs11:token=t1"\n[profiles.p]\nkey = "k"\nclient_id = 12345\n',
    "no-key.toml": b'[profiles.p]\nkey = "kk"\n',
    "default.toml": b'default_profile = "q"\n[profiles.p]\nissuer = "i"\n',
    "provider.toml": b'[profiles.p]\nprovider = "adobe-analitics"\n',
    "latin1.toml": 'x = "é"\n'.encode("latin-1"),
    "reserved.toml": b'[profiles.p]\nissuer = "i"\naudience = "a"\ntyp = "hsmjwt-x"\n',
    "header.toml": b'[profiles.p]\nissuer = "i"\naudience = "a"\nheaders = { crit = "x" }\n',
    "alg.toml": b'[keys.k]\nuri = "pkcs11:token=t1;object=k1"\nalg = "RS256"\n[profiles.p]\nkey = "k"\nissuer = "i"\n',
    "near.toml": b'[profiles.owen]\nissuer = "i"\n[profiles.other]\nissuer = "i"\n',
    "relative.toml": b'[keys.k]\nuri = "pkcs11:token=t1"\nmodule = "x.so"\n',
}


@pytest.fixture
def files(tmp_path):
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder").mkdir()
    return tmp_path


CLAIMS = [
    (("--claims-file", "text.json"), 2, "not JSON", "one JSON object"),
    (("--claims-file", "empty.json"), 2, "it is empty", "one JSON object"),
    (("--claims-file", "array.json"), 2, "a list where a JSON object belongs", "one JSON object"),
    (("--claims-file", "nan.json"), 2, "claim 'x.y' is NaN", ""),
    (("--claims-file", "infinity.json"), 2, "claim 'x'", ""),
    (("--claims-file", "twice.json"), 2, "claim 'x' occurs twice", ""),
    (("--claims-file", "inside.json"), 2, "occurs twice", ""),
    (("--claims-file", "half.json"), 2, "half a surrogate pair", ""),
    (("--claims-file", "utf16.json"), 2, "not UTF-8 (it looks like UTF-16", "in UTF-8"),
    (("--claims-file", "latin1.json"), 2, "not UTF-8", "in UTF-8"),
    (("--claims-file", "deep.json"), 2, "nested", ""),
    (("--claims-file", "missing.json"), 2, "'missing.json' cannot be read: no such file", "one JSON object"),
    (("--claims-file", "folder"), 2, "'folder' cannot be read: is a directory", "one JSON object"),
    (("--claims-file", "-"), 2, "claims file 'stdin': not JSON: it is empty", ""),
    (("--claims-file", "iss.json"), 2, "'iss' is given twice, by --iss and claims file 'iss.json'", "leave one"),
    (("--claims-file", "exp.json"), 2, "'exp' must be a number of seconds, not true", "--exp WHEN"),
    (("--claims-file", "late.json"), 8, "exp-too-late", "3600 s"),
    (("--claims-file", "early.json"), 8, "exp-not-later-than-now", "--exp DURATION"),
    (("--claims-file", "future.json"), 8, "iat-in-the-future", "is the clock right?"),
    (("--iss", "again"), 2, "--iss is given 2 times", "leave all but one out"),
    (("--sub", "x", "--claim", "sub=y"), 2, "'sub' is given twice, by --sub and --claim", "leave one"),
    (("--claim", "iss=y"), 2, "'iss' is given twice, by --iss and --claim", "leave one"),
    (("--claim-json", 'iss="y"'), 2, "'iss' is given twice, by --iss and --claim-json", "leave one"),
    (("--claim", "x=1", "--claim", "x=1"), 2, "'x' is given twice", "leave one"),
    (("--claim", "x=1", "--claim-json", "x=1"), 2, "'x' is given twice", "leave one"),
    (("--claim-json", 'aud=["b"]'), 2, "'aud' is given twice", "leave one"),
    (("--claim", "x"), 2, "--claim 'x' is not NAME=TEXT", ""),
    (("--claim-json", "x=y"), 2, "not JSON", "in quotes"),
    (("--claim-json", "x=NaN"), 2, "'x' is NaN", ""),
    (("--claim-json", 'x={"a":1,"a":2}'), 2, "'x.a' occurs twice", ""),
    (("--claim-json", "x=1e400"), 2, "'x'", ""),
    (("--claim-json", 'x={"a":[-1e999]}'), 2, "'x.a[0]'", ""),
    (("--claim-json", 'x="\\ud800"'), 2, "half a surrogate pair", ""),
    (("--claim", f"x={HALF}"), 2, "--claim is not UTF-8 text", ""),
    (("--sub", HALF), 2, "--sub is not UTF-8 text", ""),
    (("--exp", "0"), 8, "exp-not-later-than-now", "--exp DURATION"),
    (("--exp", "-1h"), 8, "exp-not-later-than-now", "--exp DURATION"),
    (("--exp", "3650d"), 8, "exp-too-late", "3600 s"),
    (("--exp", "@1000000000"), 8, "exp-not-later-than-now", ""),
    (("--now", "@1395327936", "--exp", "@1395327936"), 8, "exp-not-later-than-now", ""),
    (("--now", "2h"), 8, "iat-in-the-future", "is the clock right?"),
    (("--nbf", "2h"), 8, "nbf-in-the-future", "is the clock right?"),
    (("--exp", "soon"), 2, "--exp: 'soon' is no time: write a duration", ""),
    (("--exp", "2031-11-02T01:30:00"), 2, "has no offset", ""),
    (("--nbf", "@now"), 2, "is no Unix time", ""),
    (("--header", "alg=none"), 2, "'alg' cannot be set", "--alg ALG"),
    *[
        (("--header", f"{name}=x"), 2, f"'{name}' cannot be set", "")
        for name in ("ALG", "b64", "crit", "jwk", "x5c", "x5t", "x5t#S256")
    ],
    (("--header", "kid=a", "--kid", "b"), 2, "'kid' is given twice", "leave one"),
    (("--header", "x"), 2, "--header 'x' is not NAME=VALUE", ""),
    (("--typ", "hsmjwt-journal"), 2, "'hsmjwt-journal' is reserved", "hsmjwt-"),
    (("--typ", "HSMJWT-journal"), 2, "is reserved", "hsmjwt-"),
    (("--header", "typ=hsmjwt-x"), 2, "is reserved", "hsmjwt-"),
    (("--alg", "none"), 2, "'none' is no signature algorithm", "RS256"),
    (("--alg", "HS256"), 2, "'HS256' is no signature algorithm", ""),
    (("--alg", "ES256K"), 2, "ES256K is not supported by this version", "RS256"),
    (("--provider", "adobe-analitics"), 3, "unknown provider 'adobe-analitics'", "did you mean 'adobe-analytics'?"),
]


@pytest.mark.parametrize("row", CLAIMS, ids=[ascii(" ".join(row[0])) for row in CLAIMS])
def test_what_cannot_be_claimed(quick, files, row):
    args, code, words, hint = row
    refused(quick(*SIGN, *args, "--module", "/nowhere.so"), code, words, hint=hint)


CONFIG = [
    ("missing.toml", "config file 'missing.toml' is missing", "--config names it"),
    ("syntax.toml", "'syntax.toml', line 1", "toml.io"),
    ("latin1.toml", "'latin1.toml', line 1: not UTF-8", "UTF-8"),
    ("unknown.toml", "line 6: unknown key 'isuer' in [profiles.p]", "did you mean 'issuer'?"),
    ("top.toml", "line 2: unknown key 'default_profil' at the top level", "did you mean 'default_profile'?"),
    ("number.toml", "line 5: client_id in [profiles.p] must be text", 'client_id = "12345"'),
    ("no-key.toml", "names 'kk', and there is no such key table", "there are no key tables"),
    ("default.toml", "default_profile names the profile 'q'", "the profiles are p"),
    ("provider.toml", "'adobe-analitics'", "did you mean 'adobe-analytics'?"),
    ("reserved.toml", "is reserved", ""),
    ("header.toml", "'crit' cannot be set", ""),
    ("relative.toml", "the path 'x.so' is relative", "whole path"),
    ("folder", "is no regular file", ""),
]
LATER = ["allow", "journal"]


@pytest.mark.parametrize(("file", "words", "hint"), CONFIG, ids=[row[0] for row in CONFIG])
def test_what_no_config_may_say(quick, files, file, words, hint):
    refused(quick("sign", "p", "--config", file), 3, words, hint=hint)


@pytest.mark.parametrize("key", LATER)
def test_a_rule_of_a_key_table_that_this_version_would_not_keep_is_refused(quick, tmp_path, key):
    value = '{ aud = ["a"] }' if key == "allow" else '"x"'
    (tmp_path / "c.toml").write_text(f'[keys.k]\nuri = "pkcs11:token=t1;object=k1"\n{key} = {value}\n')
    for command in (("sign", "--iss", "i", "--aud", "a"), ("key", "show", "keys.k"), ("doctor",)):
        ran = quick(*command, "--config", "c.toml")
        refused(ran, 3, "line 3", f"'{key}' in [keys.k] is not supported by this version", hint="remove it")


def test_no_config_is_exit_3_with_a_profile_and_2_without(quick):
    refused(quick("token", "adobe"), 3, "no profile 'adobe': there is no config file", hint="/etc/hsmjwt/config.toml")
    refused(quick("token"), 2, "no profile is used", hint="name a profile")
    refused(quick("sign"), 2, "--iss and --aud are missing", hint="name a profile")
    refused(quick("sign", HSMJWT_PROFILE="adobe"), 3, "no profile 'adobe' (named by HSMJWT_PROFILE)", hint="--config")
    refused(quick("sign", HSMJWT_CONFIG="/nowhere.toml"), 3, "'/nowhere.toml' is missing", hint="HSMJWT_CONFIG names")
    refused(quick("sign", "--iss", "i", HSMJWT_KEY=None), 2, "--key and --aud are missing")


def test_an_unknown_profile_names_the_nearest(quick, files):
    done = quick("sign", "own", "--config", "near.toml")
    refused(done, 3, "no profile 'own' in config file 'near.toml'", hint="did you mean 'owen'?")
    refused(quick("sign", "q", "--config", "alg.toml"), 3, "no profile 'q'", hint="the profiles are p")


def test_what_a_key_table_fixes_no_flag_changes(quick, files):
    done = quick("sign", "p", "--config", "alg.toml", "--aud", "a", "--alg", "PS256")
    refused(done, 8, "keys.k.alg", "RS256")


def test_a_socket_that_nobody_listens_on_is_not_passed_over(quick):
    for command in (SIGN, ("token", "p"), ("key", "list"), ("slot", "list"), ("doctor",)):
        refused(quick(*command, HSMJWT_SOCKET="/run/x.sock"), 4, "HSMJWT_SOCKET", "'/run/x.sock'", hint="unset")


MODULES = [
    ("/nowhere/module.so", 4, "'/nowhere/module.so'", "--module"),
    ("/etc/os-release", 4, "cannot be loaded", "--module"),
    ("libsofthsm2.so", 3, "is relative", "write it as '/"),
    (f"/lib/{HALF}.so", 3, "not UTF-8", None),
    ("/tmp", 4, "is no regular file", "--module"),
]


@pytest.mark.parametrize(("path", "code", "words", "hint"), MODULES, ids=[ascii(row[0]) for row in MODULES])
def test_what_is_no_module(quick, path, code, words, hint):
    refused(quick(*SIGN, "--module", path), code, words, hint=hint)


URIS = [
    ("pkcs12:object=k1", "does not begin with 'pkcs11:'"),
    ("pkcs11:object=%ff", "is not UTF-8"),
    ("pkcs11:object=k%00", "holds a NUL"),
    (f"pkcs11:object={HALF}", "is not UTF-8"),
    ("pkcs11:token=t1;token=t1", "repeats"),
    ("pkcs11:token=t1;slot-id=x", "slot-id must be"),
]


@pytest.mark.parametrize(("uri", "words"), URIS, ids=[ascii(row[0]) for row in URIS])
def test_what_is_no_uri(quick, uri, words):
    refused(quick(*SIGN, "--key", uri), 2, "--key", words)
    refused(quick("key", "show", uri), 2, words)


@pytest.mark.parametrize(
    ("label", "words"),
    [(HALF, "not UTF-8"), ("a\x01", "control character"), ("a\nb", "control character"), ("x" * 256, "255 bytes")],
    ids=["half", "control", "line end", "long"],
)
def test_what_no_key_can_be_called(quick, label, words):
    refused(quick("key", "generate", "--key", "pkcs11:token=t1", "--label", label), 2, words)


@pytest.mark.parametrize("key_id", ["", "0", "xyz", "00" * 256])
def test_what_no_key_can_have_for_an_id(quick, key_id):
    refused(quick("key", "generate", "--key", "pkcs11:token=t1", "--label", "new", "--id", key_id), 2, "id")


@pytest.mark.parametrize("text", ["soon", "-5", "5 m", "1w", "", "1e3", "\uff15", "0", "99999999999999999999"])
@pytest.mark.parametrize("command", [("slot", "list"), (*SIGN,), ("inspect", "x")], ids=["slot", "sign", "inspect"])
def test_a_time_limit_is_a_duration_above_0(quick, command, text):
    ran = quick(*command, "--timeout", text, "--json")
    refused(ran, 2, "--timeout")
    assert told(ran)["hint"]


def test_a_claim_of_a_mebibyte_is_signed_whole(quick, tmp_path):
    text = "0123456789abcdef" * 65536
    (tmp_path / "c.json").write_text(f'{{"big": "{text}"}}')
    signed = quick(*SIGN, "--claims-file", "c.json")
    assert signed.code == 0, signed.err[:300]
    verified = quick("verify", "-", "--json", stdin=signed.out.encode())
    assert verified.code == 0, verified.err[:300]
    assert f'"big": "{text}"' in verified.out


def test_a_claims_file_over_the_limit_is_refused_with_the_limit(quick, tmp_path):
    (tmp_path / "c.json").write_bytes(b" " * (8 * 1024 * 1024 + 1))
    refused(quick(*SIGN, "--claims-file", "c.json"), 2, "8388608 bytes")


def test_what_nobody_writes_into_a_pipe_ends_with_the_time_limit(quick, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    token = "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"
    for command in ((*SIGN, "--claims-file", "pipe"), ("verify", token, "--public-key", "pipe")):
        refused(quick(*command, "--timeout", "0.3"), 11, "'pipe'", "0.3 s", hint="--timeout")


@pytest.mark.parametrize("form", ["raw", "header", "env", "dotenv"])
def test_a_dry_run_has_one_form(quick, form):
    done = quick("token", "--iss", "i", "--token-url", "https://as.example/", "--dry-run", "--output", form)
    refused(done, 2, "--dry-run prints JSON", form)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--no-time", "--leeway", "5"), "--leeway is about times"),
        (("--module", "/lib/x.so"), "--public-key names a file"),
        (("--pin-source", "none"), "--public-key names a file"),
        (("--retry-pin",), "--public-key names a file"),
    ],
)
def test_verify_refuses_flags_that_could_have_no_say(quick, args, words):
    refused(quick("verify", "a.b.c", "--public-key", "k.pem", *args), 2, words)
