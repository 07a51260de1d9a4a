"""`hsmjwt jwks`: what others make of the public halves that are published, and what is written for them."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import keyfiles
import pytest
from cli.checks import refused
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt
from joserfc.jwk import KeySet

TYPES = {"rsa:2048": "RS256", "p256": "ES256", "p384": "ES384", "p521": "ES512", "ed25519": "EdDSA"}
PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
NODE_MODULES = Path(__file__).parents[2] / ".venv" / "node_modules"  # where script/check puts the package
VERIFY = """
import { createLocalJWKSet, jwtVerify, calculateJwkThumbprint } from 'jose'
let text = ''
for await (const part of process.stdin) text += part
const { jwks, jwts } = JSON.parse(text)
const keys = createLocalJWKSet(jwks)
for (const token of jwts) console.log((await jwtVerify(token, keys)).payload.sub)
for (const key of jwks.keys) console.log((await calculateJwkThumbprint(key)) === key.kid)
"""


def generate(quick, kind: str, label: str, *more: str, token: str = "t1") -> str:
    made = quick("key", "generate", "--key", f"pkcs11:token={token}", "--type", kind, "--label", label, *more)
    assert made.code == 0, made.err
    return made.out.strip()


def published(quick, *words: str, **environ) -> list[dict]:
    done = quick("jwks", *words, **environ)
    assert done.code == 0, done.err
    keys = json.loads(done.out)["keys"]
    assert not any(PRIVATE & set(each) for each in keys)
    return keys


def thumbprint(key: dict) -> str:
    """The thumbprint as joserfc reckons it."""
    return KeySet.import_key_set({"keys": [key]}).keys[0].thumbprint()


@pytest.fixture
def signed(quick):
    """A set with a key of each type, and a token that each of them signed, its kid in the header."""
    uris = [generate(quick, kind, f"k-{number}") for number, kind in enumerate(TYPES)]
    keys = published(quick, *uris)
    jwts = []
    for uri, key in zip(uris, keys, strict=True):
        done = quick("sign", "--key", uri, "--iss", "i", "--sub", key["kty"], "--aud", "a", "--kid", key["kid"])
        assert done.code == 0, done.err
        jwts.append(done.out.strip())
    assert [key["alg"] for key in keys] == list(TYPES.values())
    return {"keys": keys}, jwts


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
def test_joserfc_verifies_with_a_set_what_its_keys_signed(signed):
    jwks, jwts = signed
    keys = KeySet.import_key_set(jwks)
    for token, key in zip(jwts, jwks["keys"], strict=True):
        decoded = jwt.decode(token, keys, algorithms=[key["alg"]])
        assert decoded.claims["sub"] == key["kty"]
        assert decoded.header["kid"] == key["kid"]


def test_the_npm_package_jose_verifies_with_a_set_what_its_keys_signed(signed, tmp_path):
    folder = Path(os.environ.get("HSMJWT_TEST_NODE_MODULES") or NODE_MODULES)
    if shutil.which("node") is None or not (folder / "jose").is_dir():
        pytest.skip("node or its package jose is not there: bash script/check installs both")
    (tmp_path / "node_modules").symlink_to(folder)
    (tmp_path / "verify.mjs").write_text(VERIFY)
    jwks, jwts = signed
    data = json.dumps({"jwks": jwks, "jwts": jwts})
    done = subprocess.run(
        ["node", "verify.mjs"], cwd=tmp_path, input=data, text=True, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [*(key["kty"] for key in jwks["keys"]), *["true"] * len(TYPES)]


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_a_coordinate_keeps_its_leading_zero_bytes(quick, tmp_path, curve):
    width = (curve.key_size + 7) // 8
    for scalar in itertools.count(2):
        private = ec.derive_private_key(scalar, curve)
        numbers = private.public_key().public_numbers()
        if max(map(int.bit_length, (numbers.x, numbers.y))) <= 8 * width - 8:
            break
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "k.pem").write_bytes(pem)
    done = quick("key", "import", "k.pem", "--key", "pkcs11:token=t1", "--label", "zero")
    assert done.code == 0, done.err
    (key,) = published(quick, "pkcs11:token=t1;object=zero")
    for name, number in (("x", numbers.x), ("y", numbers.y)):
        value = base64.urlsafe_b64decode(key[name] + "=" * (-len(key[name]) % 4))
        assert (len(value), value[0], int.from_bytes(value, "big")) == (width, 0, number)
    assert key["kid"] == thumbprint(key)


def test_a_certificate_beside_its_key_goes_into_the_set_as_standard_base64(quick):
    uri = generate(quick, "p256", "certified")
    made = quick("cert", "self-signed", "--key", uri, "--subject", "CN=certified")
    assert made.code == 0, made.err
    der = base64.b64decode("".join(made.out.splitlines()[1:-1]))
    assert "x5c" not in published(quick, uri)[0]
    assert quick("cert", "import", "-", "--key", uri, stdin=made.out.encode()).code == 0
    (key,) = published(quick, uri)
    assert key["x5c"] == [base64.b64encode(der).decode()]
    assert key["x5t#S256"] == base64.urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")


def test_the_same_key_is_one_entry_however_often_it_is_named(quick):
    uri = generate(quick, "p256", "twice")
    keys = published(quick, uri, "pkcs11:object=twice", "pkcs11:object=k1", f"{uri.removesuffix('private')}public")
    assert [key["kty"] for key in keys] == ["EC", "RSA"]


def test_keys_of_several_tokens_are_one_set(quick, token):
    token.make_token("t2")
    generate(quick, "p256", "other", token="t2")
    keys = published(quick, "pkcs11:token=t1;object=k1", "pkcs11:token=t2;object=other")
    assert [key["alg"] for key in keys] == ["RS256", "ES256"]


@pytest.mark.parametrize("source", [None, "none", "file:/nowhere", "env:WRONG"])
def test_nobody_logs_in_for_a_set_whose_keys_show_their_public_halves(quick, source):
    done = quick("jwks", "pkcs11:object=k1", HSMJWT_PIN_SOURCE=source, WRONG="00000000")
    assert (done.code, done.err) == (0, "")
    assert [key["alg"] for key in json.loads(done.out)["keys"]] == ["RS256"]
    (slot,) = [each for each in json.loads(quick("slot", "list", "--json").out) if each["token"]["label"] == "t1"]
    assert "USER_PIN_COUNT_LOW" not in slot["token"]["flags"]


def test_the_public_half_tells_the_algorithm_of_a_key_that_was_made_or_imported_for_it(quick, tmp_path):
    uri = generate(quick, "rsa:2048", "made", "--alg", "PS512")
    (tmp_path / "k.pem").write_bytes(keyfiles.pem("rsa"))
    (tmp_path / "k.pem").chmod(0o600)
    brought = quick("key", "import", "k.pem", "--key", "pkcs11:token=t1", "--label", "brought", "--alg", "PS384")
    assert brought.code == 0, brought.err
    without = {"HSMJWT_PIN_SOURCE": "none"}
    assert [key["alg"] for key in published(quick, uri, brought.out.strip(), **without)] == ["PS512", "PS384"]
    assert json.loads(quick("key", "export", uri, "--jwk", **without).out)["alg"] == "PS512"
    assert json.loads(quick("key", "export", uri, "--json", **without).out)["jwk"]["alg"] == "PS512"


def test_the_algorithm_is_the_one_that_the_private_half_allows_where_that_shows_itself(quick, token):
    code = """
import os, pkcs11, sys
from hsmjwt.hsm.attributes import label_mapper
bound = {pkcs11.Attribute.ALLOWED_MECHANISMS: [pkcs11.Mechanism.SHA512_RSA_PKCS_PSS]}
with pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(
    rw=True, user_pin=sys.argv[1], attribute_mapper=label_mapper()
) as session:
    session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label="pss", id=b"\\2", private_template=bound)
    bound[pkcs11.Attribute.PRIVATE] = False
    session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label="shown", id=b"\\3", private_template=bound)
"""
    made = token.python(code, token.pin_file.read_text())
    assert made.code == 0, made.err
    assert [key["alg"] for key in published(quick, "pkcs11:object=pss", "pkcs11:object=shown")] == ["RS256", "PS512"]


def config(path: Path, token, *tables: str) -> tuple[str, str]:
    common = f'module = "{token.module}"\npin_source = "file:{token.pin_file}"'
    path.write_text("\n".join(tables).replace("COMMON", common))
    path.chmod(0o600)
    return "--config", str(path)


def test_without_a_word_it_is_every_key_of_the_config_by_its_profiles_kids(quick, token, tmp_path):
    ec_uri = generate(quick, "p256", "second")
    flags = config(
        tmp_path / "c.toml",
        token,
        '[keys.one]\nuri = "pkcs11:token=t1;object=k1"\nalg = "PS384"\nCOMMON',
        f'[keys.two]\nuri = "{ec_uri}"\nCOMMON',
        '[profiles.a]\nkey = "one"\nissuer = "i"\nkid = "kid-a"',
        '[profiles.b]\nkey = "one"\nissuer = "i"\nkid = "kid-b"',
        '[profiles.c]\nkey = "two"\nissuer = "i"',
    )
    one_a, one_b, two = published(quick, *flags)
    assert (one_a["kid"], one_b["kid"], one_a["n"] == one_b["n"], one_a["alg"]) == ("kid-a", "kid-b", True, "PS384")
    assert (two["alg"], len(two["kid"])) == ("ES256", 43)
    assert published(quick, "b", *flags) == [one_b]
    assert published(quick, "c", "keys.two", *flags) == [two]
    (alone,) = published(quick, "keys.one", *flags)
    assert alone == {**one_a, "kid": thumbprint(one_a)}
    assert published(quick, "keys.one", "--kid", "mine", *flags) == [{**one_a, "kid": "mine"}]
    refused(quick("jwks", "--kid", "mine", *flags), 2, "--kid names one key, and there are 2")
    refused(quick("jwks", "d", *flags), 3, "no profile 'd'")


def test_two_keys_of_one_kid_are_warned_of(quick, token, tmp_path):
    lines = [f'[keys.{name}]\nuri = "pkcs11:token=t1;object={name}"\nCOMMON' for name in ("k1", "second")]
    lines += [f'[profiles.{name}]\nkey = "{name}"\nissuer = "i"\nkid = "same"' for name in ("k1", "second")]
    generate(quick, "p256", "second")
    done = quick("jwks", *config(tmp_path / "c.toml", token, *lines))
    assert [key["kid"] for key in json.loads(done.out)["keys"]] == ["same", "same"]
    assert done.err == "hsmjwt: warning: 2 keys of the set go by the kid 'same': who verifies may take another\n"


def test_what_a_key_table_binds_holds_however_the_key_is_named(quick, token, tmp_path):
    """One key, one algorithm (RFC 8725, section 3.1)."""
    table = '[keys.{}]\nuri = "pkcs11:token=t1;object=k1"\nalg = {}\nCOMMON'
    bound = config(tmp_path / "c.toml", token, table.format("one", '"PS256"'))
    (key,) = published(quick, "pkcs11:id=%01", *bound)
    assert key["alg"] == "PS256"
    both = config(tmp_path / "c.toml", token, table.format("one", '["RS256", "PS256"]'))
    (key,) = published(quick, "pkcs11:id=%01", *both)
    assert "alg" not in key
    wrong = config(tmp_path / "c.toml", token, table.format("one", '"ES256"'))
    refused(quick("jwks", "pkcs11:id=%01", *wrong), 6, "ES256 takes EC keys")
    at_odds = config(tmp_path / "c.toml", token, table.format("one", '"PS256"'), table.format("two", '"RS256"'))
    refused(quick("jwks", "keys.one", *at_odds), 8, "PS256")


def test_another_key_than_that_of_the_thumbprint_is_not_published(quick, token, tmp_path):
    lines = f'[keys.k]\nuri = "pkcs11:token=t1;object=k1"\nthumbprint = "{"A" * 43}"\nCOMMON'
    flags = config(tmp_path / "c.toml", token, lines)
    refused(quick("jwks", *flags), 6, "another key is behind the URI of [keys.k]")


def test_a_public_key_that_only_has_the_name_of_the_private_one_is_not_published(quick, token):
    code = """
import os, pkcs11, sys
from pkcs11 import Attribute
with pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(rw=True, user_pin=sys.argv[1]) as session:
    seen = {Attribute.PRIVATE: False}
    public, _ = session.generate_keypair(
        pkcs11.KeyType.RSA, 2048, store=True, label="named", id=b"\\2", private_template=seen
    )
    public.destroy()
    public, private = session.generate_keypair(pkcs11.KeyType.RSA, 2048, store=True, label="named", id=b"\\2")
    private.destroy()
"""
    assert token.python(code, token.pin_file.read_text()).code == 0
    refused(quick("jwks", "pkcs11:object=named"), 6, "is not the public half of", hint="different moduli")


def test_a_public_half_that_only_a_file_has_is_published(quick, token, tmp_path):
    """As of a token that shows no public key: here it was removed."""
    generate(quick, "p256", "bare")
    before = published(quick, "pkcs11:object=bare")
    (tmp_path / "bare.pem").write_text(quick("key", "export", "pkcs11:object=bare").out)
    removed = token.python(
        "import os, pkcs11, sys\n"
        "with pkcs11.lib(os.environ['HSMJWT_MODULE']).get_token(token_label='t1').open(rw=True, user_pin=sys.argv[1])"
        " as s:\n  s.get_key(label='bare', object_class=pkcs11.ObjectClass.PUBLIC_KEY).destroy()",
        token.pin_file.read_text(),
    )
    assert removed.code == 0, removed.err
    refused(quick("jwks", "pkcs11:object=bare"), 6, "no point")
    lines = '[keys.k]\nuri = "pkcs11:token=t1;object=bare"\npublic_key = "bare.pem"\nCOMMON'
    assert published(quick, "pkcs11:object=bare", *config(tmp_path / "c.toml", token, lines)) == before


def test_files_of_an_issuer_are_for_everybody_and_replaced_as_a_whole(quick, tmp_path):
    out = tmp_path / "a" / "public"
    words = ("jwks", "pkcs11:object=k1", "--issuer", "https://id.example.test/t/", "--out")
    done = quick(*words, str(out), steps=[("mask", 0o077)])
    assert (done.code, done.err) == (0, "")
    files = [out / "jwks.json", out / ".well-known" / "openid-configuration"]
    assert done.out.splitlines() == list(map(str, files))
    for path in (*files, out, out / ".well-known", out.parent):
        assert stat.S_IMODE(path.stat().st_mode) == (0o644 if path in files else 0o755)
    keys, document = (json.loads(path.read_text()) for path in files)
    assert keys["keys"] == published(quick, "pkcs11:object=k1")
    assert (document["issuer"], document["jwks_uri"]) == (
        "https://id.example.test/t/",
        "https://id.example.test/t/jwks.json",
    )
    assert document["id_token_signing_alg_values_supported"] == ["RS256"]
    before = files[0].stat().st_ino
    again = quick(*words, str(out), "--json")
    assert json.loads(again.out)["files"] == list(map(str, files))
    assert files[0].stat().st_ino != before
    assert sorted(path.name for path in out.iterdir()) == [".well-known", "jwks.json"]


def test_a_set_without_rs256_is_written_with_a_warning(quick, tmp_path):
    uri = generate(quick, "ed25519", "ed")
    done = quick("jwks", uri, "--issuer", "https://id.example.test", "--out", str(tmp_path / "out"))
    assert done.code == 0
    assert done.err.startswith("hsmjwt: warning: no key of the set is for RS256")
    document = json.loads((tmp_path / "out" / ".well-known" / "openid-configuration").read_text())
    assert document["id_token_signing_alg_values_supported"] == ["EdDSA"]


@pytest.mark.parametrize(
    "issuer",
    ["http://id.example.test", "https://id.example.test/?a=b", "https://id.example.test/#x", "id.example.test"],
)
def test_for_a_bad_issuer_nothing_is_read_or_written(quick, tmp_path, issuer):
    out = tmp_path / "out"
    done = quick("jwks", "pkcs11:object=k1", "--issuer", issuer, "--out", str(out), HSMJWT_MODULE="/nowhere")
    refused(done, 2, "the issuer")
    assert not out.exists()


def test_issuer_and_folder_belong_together(quick, tmp_path):
    refused(quick("jwks", "pkcs11:object=k1", "--issuer", "https://id.example.test"), 2, "--issuer needs --out DIR")
    refused(quick("jwks", "pkcs11:object=k1", "--out", str(tmp_path)), 2, "--out needs --issuer URL")


def test_a_folder_that_cannot_be_written_keeps_what_it_has(person, open_folder):
    words = ("jwks", "pkcs11:object=k1", "--issuer", "https://id.example.test", "--out")
    out = person.folder / "out"
    assert person(*words, str(out)).code == 0
    before = [(path.read_bytes(), path.stat().st_ino) for path in sorted(out.rglob("*")) if path.is_file()]
    (out / ".well-known").chmod(0o555)
    refused(person(*words, str(out)), 3, "cannot be written: permission denied")
    assert [(path.read_bytes(), path.stat().st_ino) for path in sorted(out.rglob("*")) if path.is_file()] == before
    assert sorted(path.name for path in out.iterdir()) == [".well-known", "jwks.json"]
    (person.folder / "file").write_text("")
    refused(person(*words, str(person.folder / "file" / "x")), 3, "cannot be written: not a directory")


def test_no_key_is_told_as_such(quick, token, tmp_path):
    refused(quick("jwks", HSMJWT_KEY=None), 2, "no key is named", hint="every key of the config")
    assert len(published(quick)) == 1  # that of HSMJWT_KEY, where the config has none
    done = quick("jwks", "pkcs11:token=t1;object=k1", "pkcs11:token=t1;object=nothing")
    refused(done, 6, "no key fits 'pkcs11:token=t1;object=nothing")


@pytest.mark.parametrize(
    ("uri", "code", "why"),
    [
        ("pkcs11:token=t1;object=nothing", 6, "no key fits 'pkcs11:token=t1;object=nothing"),
        ("pkcs11:token=absent;object=k1", 4, "no token fits"),
    ],
)
def test_the_table_whose_key_is_gone_is_named_and_nothing_is_printed(quick, tmp_path, uri, code, why):
    text = f'[keys.good]\nuri = "pkcs11:token=t1;object=k1"\n[keys.old]\nuri = "{uri}"\n[profiles.p]\nkey = "old"\n'
    (tmp_path / "c.toml").write_text(text)
    for words in ((), ("keys.good", "keys.old"), ("keys.good", "p")):
        refused(quick("jwks", *words, "--config", "c.toml"), code, "keys.old: ", why)


def test_a_key_too_small_to_sign_with_is_not_published(quick, token):
    code = """
import os, pkcs11, sys
with pkcs11.lib(os.environ["HSMJWT_MODULE"]).get_token(token_label="t1").open(rw=True, user_pin=sys.argv[1]) as session:
    session.generate_keypair(pkcs11.KeyType.RSA, 1024, store=True, label="small", id=b"7")
"""
    assert token.python(code, token.pin_file.read_text()).code == 0
    refused(quick("jwks", "pkcs11:object=small"), 6, "2048 bits")
