"""`hsmjwt key generate`: what it prints, what it takes for the key that is asked for, and when it makes none."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli.checks import refused, told

from hsmjwt.hsm.uri import parse

ROOT = Path(__file__).resolve().parents[2]
MAKE = ("key", "generate", "--key", "pkcs11:token=t1")
CURVE = (*MAKE, "--type", "p256")
SIGN = ("sign", "--iss", "i", "--aud", "a")


def labels(quick, token: str = "t1") -> list[str]:
    """The labels of the keys on a token, halves without the other one among them."""
    return [row["label"] for row in json.loads(quick("key", "list", "--key", f"pkcs11:token={token}", "--json").out)]


@pytest.mark.parametrize("kind", ["rsa:2048", "rsa:3072", "rsa:4096", "p256", "p384", "p521", "ed25519"])
def test_it_prints_the_full_uri_of_a_key_that_signs_and_nothing_else(quick, kind):
    made = quick(*MAKE, "--type", kind, "--label", "a b/ü")
    assert (made.code, made.err) == (0, "")
    parts = r"pkcs11:token=t1;serial=[0-9a-f]{16};object=a%20b%2F%C3%BC;id=(?:%[0-9A-F]{2}){20};type=private\n"
    assert re.fullmatch(parts, made.out), made.out
    uri = made.out.strip()
    signed = quick(*SIGN, "--key", uri, HSMJWT_KEY=None)
    assert signed.code == 0, signed.err
    assert quick("verify", "-", "--key", uri, "--aud", "a", stdin=signed.out.encode()).code == 0


def test_json_says_whether_it_is_new_and_what_was_left_out(quick):
    made = json.loads(quick(*CURVE, "--label", "new", "--json").out)
    assert made == {"uri": made["uri"], "created": True, "dropped": []}
    again = json.loads(quick(*CURVE, "--label", "new", "--if-absent", "--json").out)
    assert again == made | {"created": False}


def test_with_if_absent_a_key_that_is_what_is_asked_for_is_returned(quick):
    uri = quick(*CURVE, "--label", "new", "--if-absent").out
    for same in ((), ("--alg", "ES256"), ("--id", parse(uri.strip()).id.hex())):
        again = quick(*CURVE, "--label", "new", "--if-absent", *same)
        assert (again.code, again.out, again.err) == (0, uri, "")
    refused(quick(*CURVE, "--label", "new"), 6, "already: pkcs11:token=t1", hint="nothing was changed")
    for other, words in (
        (("--type", "p384"), "and it is no p384: pkcs11:"),
        (("--type", "rsa:2048"), "and it is no rsa:2048"),
        (("--type", "p256", "--id", "9c"), "and its id is another one"),
    ):
        refused(quick(*MAKE, *other, "--label", "new", "--if-absent"), 6, words, hint="nothing was changed")
    assert sorted(labels(quick)) == ["k1", "new"]


def test_with_if_absent_a_key_that_others_made_has_to_be_as_good(quick, token):
    token.make_key("loose", "21", EXTRACTABLE=True)
    token.make_key("open", "22", SENSITIVE=False)
    token.make_key("dumb", "23", SIGN=False)
    token.make_key("good", "24", EXTRACTABLE=False)
    for label, words in (
        ("loose", "the token does not say that it is sensitive and not extractable"),
        ("open", "the token does not say that it is sensitive and not extractable"),
        ("dumb", "it may not sign"),
    ):
        refused(quick(*MAKE, "--type", "rsa:2048", "--label", label, "--if-absent"), 6, words)
    for alg in ("RS256", "PS384"):  # that key allows all that its type can
        done = quick(*MAKE, "--type", "rsa:2048", "--label", "good", "--if-absent", "--alg", alg)
        assert (done.code, parse(done.out.strip()).id) == (0, b"\x24")
    assert quick(*MAKE, "--type", "rsa:2048", "--label", "new").code == 0
    done = quick(*MAKE, "--type", "rsa:2048", "--label", "new", "--if-absent", "--alg", "PS256")
    refused(done, 6, "there is a key with this label already, and it does not allow PS256")


def test_with_if_absent_two_keys_of_one_label_are_not_chosen_from(quick, token):
    token.make_key("new", "21")
    token.make_key("new", "22")
    refused(quick(*MAKE, "--type", "rsa:2048", "--label", "new", "--if-absent"), 6, "there are 2 keys with this label")


def test_two_that_start_together_make_one_key(quick, token, forks, tmp_path):
    for flags, ends in (((), [0, 6]), (("--if-absent",), [0, 0])):
        call = ((*CURVE, "--label", f"new{len(flags)}", *flags), token.environ(), ())
        both = forks.together([call, call], cwd=str(tmp_path))
        assert sorted(code for code, _, _ in both) == ends, both
        assert len({out for code, out, _ in both if code == 0}) == 1
    assert sorted(labels(quick)) == ["k1", "new0", "new1"]


@pytest.mark.parametrize(
    ("args", "words", "hint"),
    [
        (("--type", "rsa:1024"), "'rsa:1024' is no type of key", "rsa:2048, rsa:3072, rsa:4096, p256, p384, p521, ed"),
        (("--type", "p224"), "'p224' is no type of key", None),
        (("--id", "0x1"), "the id '0x1' is not hexadecimal", "for example --id 0a1b"),
        (("--type", "p256", "--alg", "ES384"), "a key of the type p256 makes no ES384", "it makes ES256"),
        (("--type", "ed25519", "--alg", "RS256"), "a key of the type ed25519 makes no RS256", "EdDSA, Ed25519"),
        (("--alg", "es256"), "'es256' is no signature algorithm", "did you mean 'ES256'?"),
        (("--alg", "none"), "'none' is no signature algorithm", None),
    ],
)
def test_what_cannot_be_made_is_told_before_the_token_is_looked_at(quick, args, words, hint):
    done = quick(*MAKE, "--label", "new", *args, "--json", HSMJWT_MODULE="/nowhere.so")
    refused(done, 2, words, hint=hint)
    told(done)
    refused(quick("key", "generate", *args), 2, "the new key has no label")


def test_a_key_table_binds_the_new_key_to_its_algorithm(quick, token, tmp_path):
    lines = ['uri = "pkcs11:token=t1;object=bound"', 'alg = "ES384"', f'pin_source = "file:{token.pin_file}"']
    (tmp_path / "c.toml").write_text("\n".join(("[keys.k]", *lines)))
    call = ("key", "generate", "--key", "keys.k", "--config", "c.toml")
    refused(quick(*call, "--alg", "ES256"), 8, "ES256 is asked for, and the key table binds its key to ES384")
    refused(quick(*call, "--type", "rsa:2048"), 8, "RS256 is asked for")
    made = quick(*call)
    assert made.code == 0, made.err
    assert json.loads(quick("key", "show", made.out.strip(), "--json").out)["bits"] == 384


def test_a_key_whose_table_lists_two_algorithms_signs_by_both_and_no_third(quick, token, tmp_path):
    lines = ['uri = "pkcs11:token=t1;object=two"', 'alg = ["PS256", "RS384"]', f'pin_source = "file:{token.pin_file}"']
    (tmp_path / "c.toml").write_text("\n".join(("[keys.k]", *lines)))
    made = quick("key", "generate", "--key", "keys.k", "--type", "rsa:2048", "--config", "c.toml")
    assert made.code == 0, made.err
    allowed = json.loads(quick("key", "show", made.out.strip(), "--json").out)["allowed_mechanisms"]
    assert sorted(allowed) == ["SHA256_RSA_PKCS_PSS", "SHA384_RSA_PKCS"]
    codes = [quick(*SIGN, "--key", made.out.strip(), "--alg", alg).code for alg in ("PS256", "RS384", "RS256")]
    assert codes == [0, 0, 6]


def test_a_key_table_binds_a_new_key_that_it_means_without_being_named(quick, tmp_path):
    (tmp_path / "c.toml").write_text('[keys.k]\nuri = "pkcs11:object=%62ound"\nalg = "PS256"\n')
    call = (*MAKE, "--type", "rsa:2048", "--label", "bound", "--config", "c.toml")
    refused(quick(*call, "--alg", "RS256"), 8, "RS256 is asked for, and the key table binds its key to PS256")
    refused(quick(*CURVE, "--label", "bound", "--config", "c.toml"), 8, "ES256 is asked for")
    assert labels(quick) == ["k1"]
    made = quick(*call)
    assert made.code == 0, made.err
    shown = json.loads(quick("key", "show", made.out.strip(), "--json").out)
    assert shown["allowed_mechanisms"] == ["SHA256_RSA_PKCS_PSS"]


def test_the_security_officers_pin_is_sent_once_and_makes_no_key(quick, token, tmp_path):
    pin = tmp_path / "so-pin"
    pin.write_text("27182818")
    pin.chmod(0o600)
    for words in ("the token refused the PIN", "login withheld: the token refused this PIN before"):
        done = quick(*CURVE, "--label", "new", "--pin-source", f"file:{pin}", "--json")
        refused(done, 5, words, hint="correct the PIN")
        told(done)
    refused(quick(*CURVE, "--label", "new", "--pin-source", "none"), 5, "the token asks for a login")
    assert labels(quick) == ["k1"]


FULL = """
import os, shutil, subprocess, sys
from cli import places
folder, *args = sys.argv[1:]
kept = folder + "-kept"
shutil.copytree(folder, kept)
places._mount("tmpfs", folder, "tmpfs", 0, "size=256k,mode=0700")
shutil.copytree(kept, folder, dirs_exist_ok=True)
places.fill(folder)
run = lambda *args: subprocess.run([sys.executable, "-m", "hsmjwt", *args], check=False).returncode
code = run(*args)
os.unlink(os.path.join(folder, "large"))
sys.exit(code if run("key", "list", "--key", "pkcs11:token=t1") == 0 else 99)
"""


def test_a_full_disk_leaves_no_half_of_a_key(token, tmp_path, mounts):
    environ = token.environ() | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", FULL, str(token.folder / "tokens"), *CURVE, "--label", "new"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 7, done
    assert "hsmjwt: error: the token failed (C_GenerateKeyPair gave CKR_" in done.stderr
    assert "hsmjwt: hint: it may be full, or not writable; nothing was kept" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["LABEL", "k1"]


def test_a_token_on_a_read_only_disk_makes_no_key(quick, token, mounts):
    done = quick(*CURVE, "--label", "new", steps=[("read_only", str(token.folder / "tokens"))])
    refused(done, 7, "the token 't1' cannot be written: the token failed (", hint="nothing was changed")
    assert labels(quick) == ["k1"]


def test_a_token_folder_without_the_right_to_write_makes_no_key(person):
    folder = next((person.folder / "tokens").iterdir())
    for path in (*folder.iterdir(), folder):
        path.chmod(0o500 if path.is_dir() else 0o400)
    done = person(*CURVE, "--label", "new")
    refused(done, 7, "the token 't1' cannot be written: the token failed (", hint="nothing was changed")
    for path in (folder, *folder.iterdir()):
        path.chmod(0o700 if path.is_dir() else 0o600)
    assert labels(person) == ["k1"]


def test_a_state_folder_without_the_right_to_write_makes_no_key(person):
    state = person.home / ".local/state/hsmjwt"
    state.mkdir(parents=True, mode=0o700)
    person.give(person.home)
    state.chmod(0o500)
    refused(person(*CURVE, "--label", "new"), 3, hint="XDG_STATE_HOME names another")
    state.chmod(0o700)
    assert labels(person) == ["k1"]


def test_a_person_at_a_terminal_is_told_what_takes_so_long(token):
    patched = Path(__file__).parents[1] / "hsm" / "patched.py"
    ours, theirs = pty.openpty()
    command = [sys.executable, str(patched), "keypair~2.5", *CURVE, "--label", "new"]
    process = subprocess.Popen(command, env=token.environ(), stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    out, _ = process.communicate(timeout=30)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert process.returncode == 0
    assert out.startswith("pkcs11:")
    assert shown == "hsmjwt: waiting for the token, which makes the key …\r\n"
