"""A SoftHSM2 token in a folder of its own (hsmjwt.softhsm): made whole or not at all, removed only if it is ours."""

import json
import os
import stat

import pytest

from hsmjwt import softhsm
from hsmjwt.errors import ConfigError, UsageError

CREATE = "import os, sys; from hsmjwt import softhsm; softhsm.create(sys.argv[1], sys.argv[2], os.environ)"


@pytest.fixture
def init(hsmjwt):
    """Run `hsmjwt softhsm …` as somebody who has no token yet."""

    def run(*args):
        return hsmjwt("softhsm", *args, SOFTHSM2_CONF=None, HSMJWT_MODULE=None, HSMJWT_PIN_SOURCE=None, HSMJWT_KEY=None)

    return run


def test_a_token_that_is_made_works_with_the_variables_that_name_it(init, hsmjwt, tmp_path):
    folder = tmp_path / "a folder"
    done = init("init", "--dir", str(folder), "--label", "ci", "--json")
    assert done.code == 0, done.err
    variables = json.loads(done.out)
    assert variables.pop("dir") == str(folder)
    assert {stat.S_IMODE(os.stat(folder / name).st_mode) for name in ("pin", "so-pin", "softhsm2.conf")} == {0o600}
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    pin = (folder / "pin").read_text()
    assert pin not in done.out + done.err
    made = hsmjwt("key", "generate", "--key", "pkcs11:token=ci;object=k", "--type", "rsa:2048", **variables)
    assert made.code == 0, made.err
    assert hsmjwt("sign", "--iss", "i", "--aud", "a", "--key", made.out.strip(), **variables).code == 0
    assert init("init", "--dir", str(folder)).code == 3
    assert init("remove", "--dir", str(folder)).code == 0
    assert not folder.exists()


@pytest.mark.parametrize("label", ["", "  ", "x" * 33, "ü" * 17, "a\nb", "\udcff"])
def test_a_label_that_no_token_can_have_is_refused_before_anything_is_made(tmp_path, label):
    with pytest.raises(UsageError, match="label"):
        softhsm.create(str(tmp_path / "new"), label, {})
    assert not (tmp_path / "new").exists()


def test_a_label_of_32_bytes_and_one_with_blanks_at_its_end_work(token, tmp_path):
    for number, label in enumerate(("ü" * 16, "blanks  ")):
        done = token.python(CREATE, str(tmp_path / str(number)), label)
        assert done.code == 0, done.err


@pytest.mark.parametrize("name", ["line\nend", "blank ", "a#b", "a=b", "\udcff"])
def test_a_folder_that_the_configuration_cannot_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot name"):
        softhsm.create(f"{tmp_path}/{name}", "t", {})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_an_unusual_name_works(token, tmp_path):
    done = token.python(CREATE, f"{tmp_path}/Zürich %s 'a' \\ $HOME;&", "t")
    assert done.code == 0, done.err


def test_nothing_is_left_behind_where_the_token_cannot_be_made(token, tmp_path):
    folder = tmp_path / "new"
    code = CREATE.replace("os.environ)", "os.environ, sys.argv[3])")
    done = token.python(code, str(folder), "t", "/usr/lib/x86_64-linux-gnu/libm.so.6")
    assert done.code != 0
    assert not folder.exists()


def test_a_folder_that_is_in_use_or_cannot_be_written_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    with pytest.raises(ConfigError, match="is not empty"):
        softhsm.create(str(tmp_path / "mine"), "t", {})
    for call in (softhsm.read, softhsm.remove):
        with pytest.raises(ConfigError, match="holds no token made by hsmjwt"):
            call(str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "file").exists()
    with pytest.raises(ConfigError, match="cannot be written"):
        softhsm.create("/proc/new", "t", {})


def test_a_token_that_is_there_is_never_initialised_again(token, hsmjwt):
    """A store always has one free slot in SoftHSM: the new token goes there and the old one keeps its key."""
    token.make_token("t2")
    assert hsmjwt("sign", "--iss", "i", "--aud", "a").code == 0
    labels = {row["token"]["label"] for row in json.loads(hsmjwt("slot", "list", "--json").out) if row["token"]}
    assert {"t1", "t2"} <= labels
