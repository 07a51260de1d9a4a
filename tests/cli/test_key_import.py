"""`hsmjwt key import`: files as they are handed out, passphrases, what is there already, and the file afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import keyfiles
import pytest
from cli.checks import refused, told
from cli.terminal import AtTerminal
from keyfiles import pem, public_pem, shreds

ON_T1 = ("--key", "pkcs11:token=t1")
PASSPHRASE = "correct-horse-7461"
NOT_BORN = "the key was not born on the device"


@pytest.fixture
def keyfile(tmp_path):
    """Write a key file that nobody else may read; return its name in the folder of the run."""

    def write(kind="p256", data=None, mode=0o600, name="key.pem"):
        path = tmp_path / name
        path.write_bytes(pem(kind) if data is None else data)
        path.chmod(mode)
        return name

    return write


def imported(ran) -> str:
    assert ran.code == 0, ran.err
    assert NOT_BORN in ran.err
    assert ran.out.startswith("pkcs11:")
    assert ran.out.count("\n") == 1
    return ran.out.strip()


def labels(quick) -> set[str]:
    return {row["label"] for row in json.loads(quick("key", "list", *ON_T1, "--json").out)}


def objects(quick) -> list[tuple[str, bool, bool]]:
    found = json.loads(quick("key", "list", *ON_T1, "--json").out)
    return [(row["label"], row["private"], row["has_public"]) for row in found]


# What the key is then.


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521"])
def test_an_imported_key_signs_verifies_and_says_where_it_was_not_born(quick, keyfile, kind):
    uri = imported(quick("key", "import", keyfile(kind), *ON_T1, "--label", "app"))
    about = json.loads(quick("key", "show", uri, "--json").out)
    assert (about["sensitive"], about["extractable"], about["sign"]) == (True, False, True)
    assert (about["local"], about["never_extractable"], about["has_public"]) == (False, False, True)
    assert about["usage"] == ["sign", "verify"]
    jwt = quick("sign", "--key", uri, "--iss", "i", "--aud", "a").out.strip()
    assert quick("verify", jwt, "--key", uri, "--aud", "a").code == 0
    assert quick("key", "export", uri).out.encode() == public_pem(kind)


def test_the_id_is_that_of_the_public_key_unless_one_is_given(quick, keyfile):
    uri = imported(quick("key", "import", keyfile("p256"), *ON_T1, "--label", "a"))
    point = keyfiles.public("p256").point
    assert json.loads(quick("key", "show", uri, "--json").out)["id"] == hashlib.sha256(point).hexdigest()[:40]
    uri = imported(quick("key", "import", keyfile("p384"), *ON_T1, "--label", "b", "--id", "0A:1b"))
    assert "id=%0A%1B" in uri


def test_label_and_id_may_stand_in_the_uri(quick, keyfile):
    uri = imported(quick("key", "import", keyfile(), "--key", "pkcs11:token=t1;object=app;id=%07"))
    assert ";object=app;id=%07;" in uri
    whole = ("key", "import", keyfile("p384"), "--key", "pkcs11:token=t1;object=x;id=%08")
    refused(quick(*whole, "--label", "y"), 2, "--label and the URI's object differ")
    refused(quick(*whole, "--id", "09"), 2, "--id and the URI's id differ")


def test_json_says_how_the_key_came_in(quick, keyfile):
    done = quick("key", "import", keyfile(), *ON_T1, "--label", "app", "--json")
    assert (
        json.loads(done.out).items()
        >= {
            "born_on_device": False,
            "unwrapped": True,
            "dropped": [],
            "file_removed": False,
        }.items()
    )


def test_a_key_comes_from_stdin(quick):
    imported(quick("key", "import", "-", *ON_T1, "--label", "app", stdin=pem("rsa", "old")))
    refused(quick("key", "import", "-", *ON_T1, "--label", "b"), 2, "'stdin'", "it is empty")


def test_the_algorithm_is_the_one_asked_for_or_the_tables(quick, keyfile, tmp_path):
    uri = imported(quick("key", "import", keyfile("rsa"), *ON_T1, "--label", "app", "--alg", "PS384"))
    assert (
        json.loads(quick("sign", "--key", uri, "--iss", "i", "--aud", "a", "--alg", "PS384", "--json").out)["header"][
            "alg"
        ]
        == "PS384"
    )
    assert quick("sign", "--key", uri, "--iss", "i", "--aud", "a", "--alg", "RS256").code in (6, 7, 8)
    (tmp_path / "c.toml").write_text('[keys.b]\nuri = "pkcs11:token=t1;object=b"\nalg = "PS512"\n')
    command = ("key", "import", keyfile("rsa-again"), *ON_T1, "--label", "b", "--config", "c.toml")
    refused(quick(*command, "--alg", "RS256"), 8, "RS256 is asked for, and the key table binds its key to PS512")
    uri = imported(
        quick("key", "import", keyfile("rsa-again"), *ON_T1, "--label", "b", HSMJWT_CONFIG=str(tmp_path / "c.toml"))
    )
    assert quick("sign", "--key", uri, "--iss", "i", "--aud", "a", "--alg", "PS512").code == 0
    assert quick("sign", "--key", uri, "--iss", "i", "--aud", "a", "--alg", "RS256").code in (6, 7, 8)


@pytest.mark.parametrize(
    ("alg", "code", "words"),
    [("ES256", 6, "ES256 takes EC keys"), ("RS255", 2, "RS255"), ("HS256", 2, "HS256")],
)
def test_an_algorithm_that_the_key_does_not_make_is_refused(quick, keyfile, alg, code, words):
    refused(quick("key", "import", keyfile("rsa"), *ON_T1, "--label", "app", "--alg", alg), code, words)
    assert labels(quick) == {"k1"}


# What is there already.


def test_a_label_or_an_id_in_use_is_refused_and_named(quick, keyfile):
    for flags in (("--label", "k1"), ("--label", "new", "--id", "01")):
        done = quick("key", "import", keyfile("rsa"), *ON_T1, *flags)
        refused(done, 6, "there is a key with this label or id already: pkcs11:token=t1;", "object=k1;id=%01")
        assert json.loads(quick("key", "list", *ON_T1, "--json").out)[0]["has_public"] is True
    assert objects(quick) == [("k1", True, True)]


@pytest.mark.parametrize(
    "uri", ["pkcs11:token=t1;object=k1", "pkcs11:object=k1", "pkcs11:token=t1;id=%01;type=private"]
)
def test_a_protected_key_is_not_written_over_however_its_uri_is_written(quick, keyfile, tmp_path, uri):
    (tmp_path / "c.toml").write_text(f'[keys.safe]\nuri = "{uri}"\nprotected = true\n')
    done = quick("key", "import", keyfile("rsa"), *ON_T1, "--label", "k1", HSMJWT_CONFIG=str(tmp_path / "c.toml"))
    refused(done, 8, "protected", "[keys.safe]", "may not be written over")
    assert objects(quick) == [("k1", True, True)]


@pytest.mark.parametrize("kind", ["rsa", "p256"])
def test_the_same_key_under_another_label_is_told_and_has_halves_of_its_own(quick, keyfile, kind):
    first = imported(quick("key", "import", keyfile(kind), *ON_T1, "--label", "one"))
    done = quick("key", "import", keyfile(kind), *ON_T1, "--label", "two")
    second = imported(done)
    assert f"this very key is on the token already: {first}" in done.err or "object=one" in done.err
    assert first.partition("id=")[2] != second.partition("id=")[2]
    assert quick("sign", "--key", second, "--iss", "i", "--aud", "a").code == 0
    assert quick("key", "delete", first, "--yes").code == 0
    assert quick("sign", "--key", second, "--iss", "i", "--aud", "a").code == 0


def test_the_same_import_again_says_that_the_key_is_there(quick, keyfile):
    command = ("key", "import", keyfile(), *ON_T1, "--label", "app")
    uri = imported(quick(*command))
    assert uri in refused(quick(*command), 6, "this very key is on the token already")


# Passphrases.


@pytest.mark.parametrize(
    "source", ["env:PASSPHRASE", "file:phrase", "command:cat phrase", "fd:0"], ids=["env", "file", "command", "fd"]
)
def test_the_passphrase_comes_from_any_source(quick, keyfile, tmp_path, source):
    (tmp_path / "phrase").write_text(f"{PASSPHRASE}\n")
    (tmp_path / "phrase").chmod(0o600)
    name = keyfile(data=pem("p256", passphrase=PASSPHRASE.encode()))
    command = ("key", "import", name, *ON_T1, "--label", "app", "--passphrase-source", source)
    done = quick(*command, stdin=f"{PASSPHRASE}\n".encode(), PASSPHRASE=PASSPHRASE)
    imported(done)
    assert PASSPHRASE not in done.err


@pytest.mark.parametrize("form", ["pkcs8", "old"])
def test_a_wrong_passphrase_is_told_and_not_shown(quick, keyfile, form):
    name = keyfile(data=pem("rsa", form, PASSPHRASE.encode()))
    command = ("key", "import", name, *ON_T1, "--label", "app", "--passphrase-source", "env:WRONG", "--json")
    done = quick(*command, WRONG="Wr0ng-marker-99", HSMJWT_VERBOSE="1")
    refused(done, 2, "'key.pem': the passphrase does not open the private key")
    assert "Wr0ng-marker" not in done.err
    assert labels(quick) == {"k1"}


@pytest.mark.parametrize("form", ["pkcs8", "old"])
def test_an_encrypted_key_waits_for_nobody_in_a_job(hsmjwt, tmp_path, form):
    path = tmp_path / "key.pem"
    path.write_bytes(pem("rsa", form, PASSPHRASE.encode()))
    path.chmod(0o600)
    done = hsmjwt("key", "import", str(path), *ON_T1, "--label", "app", timeout=20)
    refused(done, 2, "the private key is encrypted", hint="--passphrase-source names where it is")


def test_at_a_terminal_the_passphrase_is_asked_for(token, tmp_path, quick):
    path = tmp_path / "key.pem"
    path.write_bytes(pem("p256", passphrase=PASSPHRASE.encode()))
    path.chmod(0o600)
    run = AtTerminal(token, tmp_path, "key", "import", str(path), *ON_T1, "--label", "app")
    run.asked(f"passphrase of '{path}'")
    run.type(f"{PASSPHRASE}\n")
    code, out, err = run.end()
    assert (code, out[:7]) == (0, "pkcs11:"), err
    assert PASSPHRASE not in run.shown + err
    assert labels(quick) == {"k1", "app"}


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("env:NOT_SET", 3, "'NOT_SET', which is to hold the passphrase, is not set"),
        ("file:nowhere", 3, "the passphrase file 'nowhere' cannot be read"),
        ("plain-text-phrase", 2, "--passphrase-source: the secret source is of no known kind"),
        ("none", 2, "the private key is encrypted, and the passphrase source is none"),
    ],
)
def test_a_source_that_gives_no_passphrase_is_told(quick, keyfile, source, code, words):
    name = keyfile(data=pem("p256", passphrase=PASSPHRASE.encode()))
    done = quick("key", "import", name, *ON_T1, "--label", "app", "--passphrase-source", source)
    refused(done, code, words)
    assert "plain-text-phrase" not in done.err


def test_a_passphrase_that_is_not_needed_is_not_asked_for(quick, keyfile):
    command = ("key", "import", keyfile(), *ON_T1, "--label", "app", "--passphrase-source", "env:NOT_SET")
    done = quick(*command)
    imported(done)
    assert "the file is not encrypted, so that nothing was read from --passphrase-source" in done.err


# The file.


def test_a_file_that_others_may_read_is_told_and_one_that_they_may_not_is_not(quick, keyfile):
    done = quick("key", "import", keyfile(mode=0o644), *ON_T1, "--label", "a")
    assert "warning: 'key.pem' is readable by others (mode 0644)" in done.err
    imported(done)
    assert "readable by others" not in quick("key", "import", keyfile("p384"), *ON_T1, "--label", "b").err


def test_remove_file_removes_it_once_the_key_has_signed(quick, keyfile, tmp_path):
    name = keyfile()
    held = os.open(tmp_path / name, os.O_RDONLY)
    before = os.fstat(held).st_size
    done = quick("key", "import", name, *ON_T1, "--label", "app", "--remove-file", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["file_removed"] is True
    assert "overwriting vouches for no medium" in done.err
    assert not (tmp_path / name).exists()
    left = os.read(held, 1 << 20)
    os.close(held)
    assert len(left) == before
    assert not any(piece.encode() in left for piece in shreds(pem("p256"), 8))


def test_remove_file_keeps_the_file_where_the_import_fails(quick, keyfile, tmp_path):
    name = keyfile()
    refused(quick("key", "import", name, *ON_T1, "--label", "k1", "--remove-file"), 6)
    assert (tmp_path / name).read_bytes() == pem("p256")


def test_remove_file_refuses_what_it_cannot_vouch_for_before_anything_is_done(quick, keyfile, tmp_path):
    name = keyfile()
    command = ("key", "import", *ON_T1, "--label", "app", "--remove-file")
    (tmp_path / "link").symlink_to(name)
    refused(quick(*command, "link"), 2, "'link' is a symbolic link", hint=f"{tmp_path}/{name}")
    refused(quick(*command, "-", stdin=pem("p256")), 2, "the key comes from stdin")
    os.mkfifo(tmp_path / "pipe")
    refused(quick(*command, "pipe"), 2, "'pipe' is no regular file")
    refused(quick(*command, "."), 2, "'.' is no regular file")
    refused(quick(*command, "nowhere"), 3, "'nowhere' cannot be removed: no such file or directory")
    os.link(tmp_path / name, tmp_path / "other")
    refused(quick(*command, name), 2, "has 2 names (hard links)")
    assert labels(quick) == {"k1"}
    assert (tmp_path / name).read_bytes() == pem("p256")


def test_a_file_that_cannot_be_removed_is_told_beforehand(person):
    folder = person.folder / "locked"
    folder.mkdir()
    (folder / "key.pem").write_bytes(pem("p256"))
    (folder / "key.pem").chmod(0o600)
    person.give(folder)
    folder.chmod(0o500)
    command = ("key", "import", str(folder / "key.pem"), *ON_T1, "--label", "app", "--remove-file")
    refused(person(*command), 3, "cannot be removed", f"'{folder}' cannot be written")
    assert "object=app" not in person("key", "list", *ON_T1).out


def test_a_file_that_changes_meanwhile_stays_and_the_error_names_the_key(token, tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(pem("p256"))
    path.chmod(0o600)
    code = f"""
import sys
from hsmjwt.custody import importing, keyfile
real = importing.import_key
def changed(*args):
    made = real(*args)
    open({str(path)!r}, "ab").write(b"x")
    return made
importing.import_key = changed
from hsmjwt.cli.main import entry
sys.argv = ["hsmjwt", "key", "import", {str(path)!r}, *sys.argv[1:]]
entry()
"""
    done = token.python(code, *ON_T1, "--label", "app", "--remove-file")
    assert (done.code, done.out) == (3, "")
    assert "the key is on the token as pkcs11:" in done.err
    assert "was changed meanwhile, and was not removed" in done.err
    assert path.read_bytes() == pem("p256") + b"x"


# Bad input, and what nobody may see.


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pem("rsa")[:900], "cut short"),
        (public_pem("rsa"), "PEM of PUBLIC KEY"),
        (b"\0" * (1024 * 1024 + 1), "holds more than 1048576 bytes"),
        (b"garbage", "neither PEM nor DER"),
    ],
    ids=["cut", "public", "large", "garbage"],
)
def test_a_file_without_a_usable_key_is_refused_before_the_token_is_asked(quick, keyfile, data, words):
    done = quick("key", "import", keyfile(data=data), *ON_T1, "--label", "app", "--json", HSMJWT_MODULE="/nowhere")
    refused(done, 2, "'key.pem'", words)
    assert told(done)["code"] == "usage"


def test_what_the_command_line_lacks_is_told(quick, keyfile):
    refused(quick("key", "import"), 2, "the argument FILE|- is missing")
    refused(quick("key", "import", keyfile(), *ON_T1), 2, "the new key has no label")
    refused(quick("key", "import", keyfile(), *ON_T1, "--label", "a", "--id", "xy"), 2, "'xy' is not hexadecimal")
    refused(quick("key", "import", keyfile(), *ON_T1, "--label", "a\n"), 2, "control character")
    refused(quick("key", "import", "nowhere", *ON_T1, "--label", "a"), 2, "'nowhere' cannot be read")
    refused(quick("key", "import", keyfile(), "--key", "pkcs11:token=none", "--label", "a"), 4, "no token fits")


def test_a_pipe_that_nobody_writes_to_ends_with_the_time(quick, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(quick("key", "import", "pipe", *ON_T1, "--label", "a", "--timeout", "1"), 11, "no answer from 'pipe'")


def test_the_security_officers_pin_opens_nothing(quick, keyfile):
    done = quick("key", "import", keyfile(), *ON_T1, "--label", "a", "--pin-source", "env:SO", SO="27182818")
    refused(done, 5, "the token refused the PIN")


def test_without_a_login_nothing_is_written(quick, keyfile):
    done = quick("key", "import", keyfile(), *ON_T1, "--label", "a", "--pin-source", "none")
    assert done.code in (5, 7), done
    refused(done, done.code)
    assert labels(quick) == {"k1"}


def test_no_part_of_a_key_shows_however_the_import_ends(quick, keyfile, token):
    whole = pem("rsa", "old")
    locked = pem("rsa", passphrase=PASSPHRASE.encode())
    numbers = keyfiles.private("rsa").private_numbers()
    marks = [
        *shreds(whole),
        *shreds(pem("rsa")),
        *shreds(locked),
        f"{numbers.d:x}"[:24],
        str(numbers.d)[:24],
        PASSPHRASE,
    ]
    common = (*ON_T1, "--json", "--verbose")
    calls = [
        ("key", "import", keyfile(data=whole, name="a"), *common, "--label", "k1"),
        ("key", "import", keyfile(data=whole[:-200], name="b"), *common, "--label", "new"),
        ("key", "import", keyfile(data=whole.replace(b"Q", b"R", 1), name="c"), *common, "--label", "new"),
        ("key", "import", keyfile(data=locked, name="d"), *common, "--label", "new"),
        ("key", "import", "d", *common, "--label", "new", "--passphrase-source", "env:WRONG"),
        ("key", "import", "d", *common, "--label", "new", "--passphrase-source", PASSPHRASE),
        ("key", "import", "a", *common, "--label", "new", "--alg", "ES256"),
        ("key", "import", "a", *common, "--label", "new", "--pin-source", "env:WRONG"),
        ("key", "import", whole.decode(), *common, "--label", "new"),
        ("key", "import", f" {whole.decode()}", *common, "--label", "new"),
        ("key", "import", "".join(whole.decode().splitlines()[1:-1]), *common, "--label", "new"),
        ("key", "import", "a", *common, "--label", "new"),
    ]
    for argv in calls:
        done = quick(*argv, WRONG="12345678")
        assert done.code != 1
        for mark in marks:
            assert mark not in done.out + done.err, argv
    for path in token.folder.rglob("*"):
        if path.is_file():
            held = path.read_bytes().decode("latin-1")
            assert not any(mark in held for mark in marks), path


# Killed at any moment.


@pytest.mark.parametrize("delay", [0.02, 0.08, 0.14, 0.2, 0.3, 0.45])
def test_killed_at_any_moment_the_next_import_finishes(token, tmp_path, quick, keyfile, delay):
    name = keyfile("rsa")
    command = [sys.executable, "-m", "hsmjwt", "key", "import", str(tmp_path / name), *ON_T1, "--label", "app"]
    with subprocess.Popen(command, env=token.environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    done = quick("key", "import", name, *ON_T1, "--label", "app")
    assert done.code == 0 or (done.code == 6 and "this very key is on the token already" in done.err), done
    assert objects(quick) == [("app", True, True), ("k1", True, True)]
    assert quick("sign", "--key", "pkcs11:token=t1;object=app", "--iss", "i", "--aud", "a").code == 0


# A disk without room, or that is only to be read.


def test_a_token_on_a_read_only_disk_takes_no_key(quick, keyfile, token, mounts):
    steps = [("read_only", str(token.folder / "tokens"))]
    done = quick("key", "import", keyfile(), *ON_T1, "--label", "app", steps=steps)
    refused(done, 7, "the token 't1' cannot be written: the token failed (", hint="nothing was changed")
    assert labels(quick) == {"k1"}


FULL = """
import os, shutil, subprocess, sys
from cli import places
folder, room, *args = sys.argv[1:]
kept = folder + "-kept"
shutil.copytree(folder, kept)
places._mount("tmpfs", folder, "tmpfs", 0, "size=256k,mode=0700")
shutil.copytree(kept, folder, dirs_exist_ok=True)
with open(os.path.join(folder, "room"), "wb") as file:
    file.write(bytes(int(room)))
places.fill(folder)
os.unlink(os.path.join(folder, "room"))
run = lambda *args: subprocess.run([sys.executable, "-m", "hsmjwt", *args], check=False).returncode
code = run(*args)
os.unlink(os.path.join(folder, "large"))
sys.exit(code if run("key", "list", "--key", "pkcs11:token=t1") == 0 else 99)
"""


@pytest.mark.parametrize("flags", [(), ("--allow-plain-import",)], ids=["wrapped", "plain"])
@pytest.mark.parametrize("room", [1, 4096], ids=["nothing fits", "one half fits"])
def test_a_full_disk_keeps_no_half_of_a_key(token, mounts, keyfile, room, flags):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environ = token.environ() | {"PYTHONPATH": f"{root}:{root}/tests"}
    path = str(token.folder.parent / keyfile("rsa"))
    command = ["key", "import", path, *ON_T1, "--label", "new", *flags]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(token.folder / "tokens"), str(room), *command],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 7, done
    assert "it may be full, or not writable" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["LABEL", "k1"]


def test_of_imports_that_run_together_one_gets_the_label(token, tmp_path, quick):
    running = []
    for kind in ("p256", "p384", "p521", "rsa"):
        path = tmp_path / f"{kind}.pem"
        path.write_bytes(pem(kind))
        command = [sys.executable, "-m", "hsmjwt", "key", "import", str(path), *ON_T1, "--label", "app"]
        running.append(subprocess.Popen(command, env=token.environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    ended = [process.communicate(timeout=60) for process in running]
    assert sorted(process.returncode for process in running) == [0, 6, 6, 6], ended
    assert objects(quick) == [("app", True, True), ("k1", True, True)]
