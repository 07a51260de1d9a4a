"""`hsmjwt key ceremony`: a key by a reviewed file, and a transcript that says truly how far it came."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from cli.checks import refused, told
from cli.restoring import restored
from conftest import execute
from servers.granting import write_config

from hsmjwt.jose.jws import split

FILE = """\
operator = "Ada Example"
witnesses = ["Grace Example", "Alan Example"]
out = "evidence"

[key]
token = "pkcs11:token=t1"
label = "adobe-2026-12"
type = "p256"

[certificate]
kind = "self-signed"
subject = "CN=adobe-jwt,O=Example Inc.,C=NO"

[export]
formats = ["pem", "der", "jwk", "ssh"]
"""
STRICT = """\
description = "nothing passes"
extends = "device-born"

[rules.bits]
min = 100000
why = "nobody has such a key"
"""
PATCHED = str(Path(__file__).parent.parent / "hsm" / "patched.py")
NO_EC = "hide=0x1040"  # CKM_EC_KEY_PAIR_GEN
TYP = "hsmjwt-transcript+jws"


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "ceremony.toml"
    path.write_text(FILE)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def about(folder: Path) -> dict:
    return json.loads((folder / "transcript.json").read_bytes())


def labels(quick) -> list[str]:
    return sorted(row["label"] for row in json.loads(quick("key", "list", "--key", "pkcs11:token=t1", "--json").out))


def test_a_ceremony_leaves_a_key_its_files_and_a_transcript_that_it_has_signed(file, quick):
    done = quick("key", "ceremony", str(file))
    assert (done.code, done.err) == (0, "")
    folder = file.parent / "evidence"
    uri, *paths = done.out.splitlines()
    assert [os.path.basename(path) for path in paths] == [
        *("certificate.pem", "public.pem", "public.der", "public.jwk", "public.ssh", "audit.html"),
        *("transcript.json", "transcript.jws"),
    ]
    found = contents(folder)
    assert set(found) == {os.path.basename(path) for path in paths}
    transcript = about(folder)
    assert (transcript["verdict"], transcript["operator"]) == ("passed", "Ada Example")
    assert transcript["witnesses"] == ["Grace Example", "Alan Example"]
    assert transcript["ceremony"]["text"] == FILE
    assert transcript["ceremony"]["sha256"] == hashlib.sha256(FILE.encode()).hexdigest()
    steps = {step["step"]: step for step in transcript["steps"]}
    assert list(steps) == ["generate", "certificate", "export", "audit"]
    assert {step["result"] for step in steps.values()} == {"done"}
    assert all(step["began"] <= step["ended"] for step in steps.values())
    named = {each["name"]: each["sha256"] for step in steps.values() for each in step.get("files", ())}
    assert named == {name: hashlib.sha256(data).hexdigest() for name, data in found.items() if "transcript" not in name}
    shown = json.loads(quick("key", "show", uri, "--json").out)
    assert steps["generate"]["uri"] == uri
    assert steps["generate"]["thumbprint"] == shown["thumbprint"] == json.loads(found["public.jwk"])["kid"]
    assert steps["generate"]["spki_sha256"] == shown["spki_sha256"]
    assert {each["result"] for each in steps["audit"]["report"]["findings"]} == {"pass"}
    module = transcript["module"]
    assert hashlib.sha256(Path(module["path"]).read_bytes()).hexdigest() == module["sha256"]
    assert transcript["token"]["label"] == "t1"


def test_whoever_has_the_exported_key_can_check_the_transcript(file, quick):
    assert quick("key", "ceremony", str(file)).code == 0
    folder = file.parent / "evidence"
    jws = (folder / "transcript.jws").read_text().strip()
    call = ("verify", jws, "--typ", TYP)
    for flag, name in (("--public-key", "public.pem"), ("--certificate", "certificate.pem"), ("--jwks", "public.jwk")):
        assert quick(*call, flag, str(folder / name)).code == 0
    parts = split(jws)
    assert (parts.header["typ"], parts.header["alg"]) == (TYP, "ES256")
    assert parts.claims == about(folder)
    other = quick("key", "export", "pkcs11:token=t1;object=k1").out
    (folder / "other.pem").write_text(other)
    refused(quick(*call, "--public-key", str(folder / "other.pem")), 7)


def test_a_request_can_take_the_certificates_place_and_the_algorithm_is_the_files(file, quick):
    text = FILE.replace("self-signed", "csr").replace('"p256"', '"rsa:2048"\nalg = "PS256"')
    file.write_text(text)
    done = quick("key", "ceremony", str(file), "--json")
    assert done.code == 0, done.err
    transcript = json.loads(done.out)
    folder = file.parent / "evidence"
    assert transcript == about(folder)
    assert (folder / "request.pem").read_text().startswith("-----BEGIN CERTIFICATE REQUEST-----\n")
    assert split((folder / "transcript.jws").read_text().strip()).header["alg"] == "PS256"
    assert (
        quick("verify", (folder / "transcript.jws").read_text(), "--public-key", str(folder / "public.pem")).code == 0
    )


@pytest.mark.parametrize(
    ("alg", "signs", "named"), [('"PS384"', "PS384", "PS384"), ('["PS256", "RS256"]', "PS256", None)]
)
def test_without_an_algorithm_in_the_file_all_of_it_is_done_by_what_the_keys_table_lists(
    file, quick, alg, signs, named
):
    file.write_text(FILE.replace('"p256"', '"rsa:2048"'))
    table = f'[keys.svc]\nuri = "pkcs11:token=t1;object=adobe-2026-12"\nalg = {alg}\n'
    config = write_config(file.parent, table)
    planned = quick("key", "ceremony", str(file), "--check", "--json", HSMJWT_CONFIG=config)
    assert json.loads(planned.out)["steps"][0]["alg"] == (named or ["PS256", "RS256"])
    done = quick("key", "ceremony", str(file), HSMJWT_CONFIG=config)
    assert done.code == 0, done.err
    folder = file.parent / "evidence"
    assert split((folder / "transcript.jws").read_text().strip()).header["alg"] == signs
    shown = json.loads(quick("cert", "show", "--file", str(folder / "certificate.pem"), "--json").out)
    assert shown["signature_algorithm"] == f"rsassaPss with SHA{signs[2:]}"
    assert json.loads((folder / "public.jwk").read_text()).get("alg") == named


def test_a_failing_audit_is_exit_8_with_a_signed_transcript_and_the_key_stays(file, quick):
    (file.parent / "strict.toml").write_text(STRICT)
    file.write_text(FILE + '\n[audit]\npolicy = "./strict.toml"\n')
    done = quick("key", "ceremony", str(file))
    refused(done, 8, "the new key does not pass the audit", "bits is 256", hint="hsmjwt key delete 'pkcs11:token=t1;")
    folder = file.parent / "evidence"
    transcript = about(folder)
    assert transcript["verdict"] == "audit failed"
    failed = [each["attribute"] for each in transcript["steps"][-1]["report"]["findings"] if each["result"] == "fail"]
    assert failed == ["bits"]
    jws = (folder / "transcript.jws").read_text()
    assert quick("verify", jws, "--public-key", str(folder / "public.pem"), "--typ", TYP).code == 0
    assert labels(quick) == ["adobe-2026-12", "k1"]


def test_check_says_what_would_be_done_and_does_and_asks_for_nothing(file, quick, token):
    before = {path: path.read_bytes() for path in (token.folder / "tokens").rglob("*.object")}
    for more in ((), ("--json",)):
        done = quick("key", "ceremony", str(file), "--check", *more, HSMJWT_PIN_SOURCE="file:/nowhere/pin")
        assert (done.code, done.err) == (0, "")
    planned = json.loads(done.out)
    assert [step["step"] for step in planned["steps"]] == [
        *("generate", "certificate", "export", "audit", "sign the transcript")
    ]
    assert planned["steps"][0] == {"step": "generate", "type": "p256", "label": "adobe-2026-12", "alg": "ES256"}
    assert planned["token"]["label"] == "t1"
    assert sorted(path.name for path in file.parent.iterdir()) == ["ceremony.toml", "token"]
    assert {path: path.read_bytes() for path in (token.folder / "tokens").rglob("*.object")} == before


@pytest.mark.parametrize("check", [(), ("--check",)])
@pytest.mark.parametrize(
    ("change", "code", "words", "hint"),
    [
        (("adobe-2026-12", "k1"), 6, "the label 'k1' is in use: pkcs11:token=t1;", "hsmjwt key delete 'pkcs11:"),
        (("token=t1", "token=t9"), 4, "no token fits 'pkcs11:token=t9'", "token=t1"),
        (("operator", "opertor"), 3, "line 1: unknown key 'opertor'", "did you mean 'operator'?"),
        (("[export]", '[audit]\npolicy = "device-bron"\n[export]'), 3, "unknown policy 'device-bron'", "device-born"),
        (("[export]", '[audit]\npolicy = "./no.toml"\n[export]'), 3, "policy file", ""),
    ],
)
def test_what_is_in_the_way_is_said_before_anything_is_made(  # noqa: PLR0917 - fixtures, and a row of the table
    file, quick, change, code, words, hint, check
):
    file.write_text(FILE.replace(*change))
    refused(quick("key", "ceremony", str(file), *check), code, words, hint=hint)
    assert not (file.parent / "evidence").exists()
    assert labels(quick) == ["k1"]


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_a_key_that_the_token_cannot_make_is_said_before_anything_is_made(file, token, check):
    command = [sys.executable, PATCHED, NO_EC, "key", "ceremony", str(file), *check]
    refused(execute(command, token.environ()), 7, "it has no CKM_EC_KEY_PAIR_GEN")
    assert not (file.parent / "evidence").exists()


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_evidence_is_never_written_over(file, quick, check):
    folder = file.parent / "evidence"
    folder.mkdir()
    (folder / "a").write_text("b")
    refused(quick("key", "ceremony", str(file), *check), 3, "is not empty, and a ceremony writes over no evidence")
    assert contents(folder) == {"a": b"b"}
    (folder / "a").unlink()
    assert quick("key", "ceremony", str(file), *check).code == 0


def test_a_second_ceremony_by_the_same_file_is_refused_by_the_first_ones_evidence(file, quick):
    assert quick("key", "ceremony", str(file)).code == 0
    before = contents(file.parent / "evidence")
    refused(
        quick("key", "ceremony", str(file)), 3, "is not empty", hint="it holds a ceremony that came to its end (passed)"
    )
    assert contents(file.parent / "evidence") == before


def test_a_folder_that_takes_nothing_is_exit_3_before_the_key_is_made(person, open_folder):
    path = person.folder / "ceremony.toml"
    path.write_text(FILE)
    for closed, words in ((open_folder / "closed", "cannot be made"), (open_folder / "there", "cannot be written to")):
        closed.mkdir(mode=0o555)
        out = closed / "evidence" if "made" in words else closed
        path.write_text(FILE.replace('"evidence"', f'"{out}"'))
        refused(person("key", "ceremony", str(path)), 3, words, hint="out in the ceremony file names another folder")
    (open_folder / "file").write_text("")
    path.write_text(FILE.replace('"evidence"', f'"{open_folder}/file/evidence"'))
    refused(person("key", "ceremony", str(path)), 3, "cannot be used: not a directory")
    assert "adobe-2026-12" not in person("key", "list", "--key", "pkcs11:token=t1").out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 2, "no ceremony file is named"),
        (("missing.toml",), 3, "ceremony file 'missing.toml' cannot be read"),
        (("ceremony.toml", "--key", "pkcs11:"), 2, "there is no flag '--key'"),
        (("ceremony.toml", "--pin", "1"), 2, "there is no flag '--pin'"),
    ],
)
def test_a_call_that_cannot_be_meant(file, quick, args, code, words):
    assert file.exists()
    refused(quick("key", "ceremony", *args), code, words)


def test_a_wrong_pin_leaves_nothing(file, quick, token):
    token.pin_file.write_text("00000000")
    done = quick("key", "ceremony", str(file), "--json")
    refused(done, 5)
    assert told(done)["ckr"] == "CKR_PIN_INCORRECT"
    assert not (file.parent / "evidence").exists()


def test_killed_anywhere_it_leaves_the_truth_and_can_be_held_again(file, quick, tmp_path):
    """Each file appears by a rename: killed before any of them, what is there says that it was aborted, and where."""
    folder, reached = file.parent / "evidence", set()
    for count in range(1, 40):
        with restored(tmp_path):
            done = quick("key", "ceremony", str(file), steps=[("struck", count, "os.rename", "os.mkdir")])
            if done.code == 0:
                assert about(folder)["verdict"] == "passed"
                break
            assert done.code == -signal.SIGKILL, done
            if (folder / "transcript.json").exists():
                reached.add(what_is_left(file, quick))
            file.write_text(FILE.replace("evidence", "another"))
            done = quick("key", "ceremony", str(file), "--check")
            if done.code == 0:  # killed before the key had its name
                continue
            refused(done, 6, "is in use", hint="hsmjwt key delete 'pkcs11:")
            uri = done.err.partition("hsmjwt key delete '")[2].partition("'")[0]
            assert quick("key", "delete", uri, "--yes").code == 0
            assert quick("key", "ceremony", str(file)).code == 0
    assert done.code == 0, done
    assert reached == {"generate", "certificate", "export", "audit", "the end"}


def what_is_left(file: Path, quick) -> str:
    """Check what a ceremony that was killed says of itself; return the step."""
    folder = file.parent / "evidence"
    left, step = about(folder), "the end"
    again = quick("key", "ceremony", str(file))
    if (folder / "transcript.jws").exists():
        signed = split((folder / "transcript.jws").read_text().strip()).claims
        assert (signed["verdict"], left["verdict"]) == ("passed", "aborted")
        refused(again, 3, "is not empty", hint="it holds a ceremony that came to its end, as '")
    else:
        step = left["steps"][-1]["step"]
        assert left["verdict"] == "aborted"
        refused(again, 3, "is not empty", hint=f"it holds a ceremony that was aborted at '{step}'")
    return step


INTERRUPTED = """
import os, signal, sys
def hook(event, args):
    if event == "os.rename" and args[1].endswith("certificate.pem"):
        os.kill(os.getpid(), signal.SIGINT)
from hsmjwt.cli.main import entry
sys.addaudithook(hook)
entry()
"""


def test_ctrl_c_ends_it_with_the_truth_on_the_disk(file, token):
    done = execute([sys.executable, "-c", INTERRUPTED, "key", "ceremony", str(file)], token.environ())
    assert done.code == -signal.SIGINT
    assert (done.out, done.err) == ("", "hsmjwt: error: interrupted\n")
    left = about(file.parent / "evidence")
    assert left["verdict"] == "aborted"
    assert left["steps"][-1]["step"] in ("certificate", "export", "audit")  # it goes on while the process ends
    assert not (file.parent / "evidence" / "transcript.jws").exists()


def test_no_pin_is_in_the_evidence_or_in_what_is_said(file, quick, token):
    pin = token.pin_file.read_text()
    done = quick("key", "ceremony", str(file), "--verbose", "--pin-source", "env:SECRET_SOURCE", SECRET_SOURCE=pin)
    assert done.code == 0
    everything = b"".join(contents(file.parent / "evidence").values()) + (done.out + done.err).encode()
    assert pin.encode() not in everything
    jws = (file.parent / "evidence" / "transcript.jws").read_text()
    assert pin not in json.dumps(split(jws.strip()).claims)


def test_a_step_that_fails_is_written_down_and_the_error_says_what_is_left(file, token):
    """A limit on the size of files stops the audit's page, which is longer than all files before it."""
    file.write_text(FILE.partition("[certificate]")[0])
    command = [sys.executable, "-c", SMALL_FILES, "key", "ceremony", str(file)]
    done = execute(command, token.environ())
    refused(done, 3, "audit.html' cannot be written: file too large", hint="the ceremony was aborted")
    assert "its key stays on the token until hsmjwt key delete 'pkcs11:token=t1;" in done.err
    left = about(file.parent / "evidence")
    assert left["verdict"] == "aborted"
    assert (left["steps"][-1]["step"], left["steps"][-1]["result"]) == ("audit", "failed")
    assert left["steps"][-1]["error"]["code"] == "config"
    assert sorted(contents(file.parent / "evidence")) == ["public.pem", "transcript.json"]


SMALL_FILES = """
import resource, sys
from hsmjwt.cli.main import entry
from hsmjwt import whole_file
replace = whole_file.replace
def limited(path, *args, **more):
    if path.endswith("audit.html"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    try:
        return replace(path, *args, **more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
whole_file.replace = limited
entry()
"""
