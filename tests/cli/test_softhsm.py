"""`hsmjwt softhsm`: a token in a folder for whoever tests, from making it to removing it."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cli.checks import refused

ROOT = Path(__file__).resolve().parents[2]
NOTHING = {"HSMJWT_MODULE": None, "HSMJWT_PIN_SOURCE": None, "HSMJWT_KEY": None, "SOFTHSM2_CONF": None}


@pytest.fixture
def softhsm(quick):
    """Run it as somebody who has no token yet."""

    def run(*args: str, **environ: str | None):
        return quick("softhsm", *args, **{**NOTHING, **environ})

    return run


def secrets_of(folder: Path) -> list[str]:
    return [(folder / name).read_text() for name in ("pin", "so-pin")]


def test_what_env_prints_is_all_that_a_shell_needs(softhsm, token, tmp_path):
    made = softhsm("init", "--label", "ci")
    assert (made.code, made.out, made.err) == (0, f"{tmp_path}/.softhsm\n", "")
    hsmjwt = f"{shlex.quote(sys.executable)} -m hsmjwt"
    script = f"""
        set -eu
        eval "$({hsmjwt} softhsm env)"
        KEY=$({hsmjwt} key generate --key pkcs11:token=ci --label k --type rsa:2048)
        {hsmjwt} sign --key "$KEY" --iss i --aud a | {hsmjwt} verify - --key "$KEY" --aud a
    """
    environ = {name: value for name, value in token.environ().items() if name not in NOTHING}
    done = subprocess.run(
        ["sh", "-c", script],
        env=environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("valid: signed by pkcs11:token=ci;")


@pytest.mark.parametrize(
    "folder", ["plain", "with blank", 'it\'s $(touch PWNED) `x` "y" \\', "-dash", "sub/folder", "ü"]
)
def test_any_folder_can_be_named_and_survives_the_shell(softhsm, tmp_path, folder):
    made = softhsm("init", f"--dir={folder}")
    assert (made.code, made.err) == (0, "")
    assert made.out == f"{tmp_path / folder}\n"
    lines = softhsm("env", f"--dir={folder}").out
    shell = ["sh", "-c", f'{lines}\nprintf "%s" "$HSMJWT_PIN_SOURCE"']
    shown = subprocess.run(shell, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert shown == f"file:{tmp_path / folder}/pin"
    assert not (tmp_path / "PWNED").exists()
    assert softhsm("remove", f"--dir={folder}").code == 0
    assert not (tmp_path / folder).exists()


def test_neither_pin_is_in_any_output_and_both_are_ours_alone(softhsm, tmp_path):
    folder = tmp_path / "t"
    outputs = [
        softhsm("init", "--dir", "t", "--verbose", "--json"),
        softhsm("env", "--dir", "t"),
        softhsm("env", "--dir", "t", "--json"),
        softhsm("init", "--dir", "t"),
    ]
    for secret in secrets_of(folder):
        assert secret.isdigit()
        assert len(secret) >= 8
        for done in outputs:
            assert secret not in done.out + done.err
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in ("pin", "so-pin")} == {0o600}
    other = tmp_path / "u"
    assert softhsm("init", "--dir", "u").code == 0
    assert not set(secrets_of(folder)) & set(secrets_of(other))


def test_json_has_the_same_as_the_lines(softhsm, tmp_path):
    made = json.loads(softhsm("init", "--dir", "t", "--json").out)
    shown = json.loads(softhsm("env", "--dir", "t", "--json").out)
    assert made == {"dir": str(tmp_path / "t"), **shown}
    lines = [line.removeprefix("export ").split("=", 1) for line in softhsm("env", "--dir", "t").out.splitlines()]
    assert {name: value for name, value in lines} == shown  # noqa: C416 - pairs, and not lists
    assert set(shown) == {"SOFTHSM2_CONF", "HSMJWT_MODULE", "HSMJWT_PIN_SOURCE"}


def test_a_folder_in_use_is_left_alone(softhsm, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    refused(softhsm("init", "--dir", "mine"), 3, f"the folder '{tmp_path}/mine' is not empty", hint="--dir")
    refused(softhsm("remove", "--dir", "mine"), 3, "holds no token made by hsmjwt", hint="hsmjwt softhsm init")
    refused(softhsm("env", "--dir", "mine"), 3, "holds no token made by hsmjwt", hint="hsmjwt softhsm init")
    assert os.listdir(tmp_path / "mine") == ["letter"]
    (tmp_path / "file").write_text("x")
    refused(softhsm("init", "--dir", "file"), 3, f"'{tmp_path}/file'")
    refused(softhsm("remove", "--dir", "file"), 3, "holds no token")
    refused(softhsm("init", "--dir", "/proc/hsmjwt"), 3, "'/proc/hsmjwt'", hint="--dir")


def test_an_empty_folder_is_taken_and_a_failure_leaves_none_behind(softhsm, tmp_path):
    (tmp_path / "empty").mkdir()
    assert softhsm("init", "--dir", "empty").code == 0
    for label in ("x" * 33, "ü" * 17, "a\nb", "\udced\udca0\udc80"):
        refused(softhsm("init", "--dir", "bad", "--label", label), 2, "label")
        assert not (tmp_path / "bad").exists()


def test_a_label_of_all_32_bytes_is_kept(softhsm, quick, tmp_path):
    label = "ü" * 16
    assert softhsm("init", "--dir", "t", "--label", label).code == 0
    environ = json.loads(softhsm("env", "--dir", "t", "--json").out)
    rows = json.loads(quick("slot", "list", "--json", **{**NOTHING, **environ}).out)
    assert label in [row["token"]["label"] for row in rows]


def test_removing_takes_what_was_made_and_no_more(softhsm, tmp_path):
    assert softhsm("init").code == 0
    assert softhsm("init", "--dir", "other").code == 0
    done = softhsm("remove")
    assert (done.code, done.out) == (0, "")
    assert not (tmp_path / ".softhsm").exists()
    assert (tmp_path / "other" / "softhsm2.conf").exists()
    refused(softhsm("remove"), 3, "holds no token")
    refused(softhsm("remove", "--dir", ""), 2, "--dir is empty")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_that_somebody_else_could_change_gets_no_token(softhsm, tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    folder.chmod(0o777)
    refused(softhsm("init", "--dir", str(folder)), 3, "others may write in it")
    folder.chmod(0o755)
    os.chown(folder, 54321, 54321)
    refused(softhsm("init", "--dir", str(folder)), 3, "belongs to another user")
    assert list(folder.iterdir()) == []


def test_what_somebody_else_put_into_the_folder_is_kept(softhsm, tmp_path):
    assert softhsm("init", "--dir", "t").code == 0
    (tmp_path / "t" / "letter").write_text("dear")
    done = softhsm("remove", "--dir", "t")
    assert (done.code, done.out) == (0, "")
    assert done.err == f"hsmjwt: warning: kept '{tmp_path}/t': it holds other files\n"
    assert os.listdir(tmp_path / "t") == ["letter"]
    refused(softhsm("remove", "--dir", "t"), 3, "holds no token")


def test_a_symbolic_link_to_the_folder_is_followed_and_one_in_it_is_not(softhsm, tmp_path):
    assert softhsm("init", "--dir", "t").code == 0
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter").write_text("dear")
    (tmp_path / "t" / "tokens").rename(tmp_path / "moved")
    (tmp_path / "t" / "tokens").symlink_to(mine)
    (tmp_path / "link").symlink_to("t")
    done = softhsm("remove", "--dir", "link")
    assert (done.code, done.err) == (0, "")
    assert not (tmp_path / "t").exists()
    assert (mine / "letter").read_text() == "dear"
