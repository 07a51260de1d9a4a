"""Single values of a config file: what is written anew, and that nothing else is."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
import time
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmjwt.config_edit import edit, edited
from hsmjwt.deadline import Deadline
from hsmjwt.errors import BusyError, ConfigError

URI = ("keys", "a", "uri")
OLD = """\
# what stays: uri = "pkcs11:token=t;object=old"
cache = "none"

[keys.b]
uri = "pkcs11:token=t;object=old"  # another table's

[keys.a]   # behind it
  uri   =   "pkcs11:token=t;object=old"   # the one
alg = "RS256"

[profiles.p]
key = "a"
issuer = '''i
[keys.a]
uri = "no"'''
kid = 'k1'
"""


def change(path, values, seconds=10.0):
    return edit(str(path), values, Deadline(seconds))


def write(path, text=OLD, mode=0o600):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


def test_one_value_is_another_and_every_other_byte_is_what_it_was(tmp_path):
    path = write(tmp_path / "c")
    settings = change(path, {URI: "pkcs11:token=t;object=new"})
    before, after = (
        '  uri   =   "pkcs11:token=t;object=old"   # the one',
        '  uri   =   "pkcs11:token=t;object=new"   # the one',
    )
    assert path.read_text() == OLD.replace(before, after)
    assert settings.keys["a"].uri == "pkcs11:token=t;object=new"
    assert settings.keys["b"].uri == "pkcs11:token=t;object=old"


def test_several_values_change_in_one_step(tmp_path):
    path = write(tmp_path / "c")
    change(path, {URI: "pkcs11:object=n", ("profiles", "p", "kid"): 'k"2\\'})
    assert path.read_text() == OLD.replace('"pkcs11:token=t;object=old"   #', '"pkcs11:object=n"   #').replace(
        "'k1'", '"k\\"2\\\\"'
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("keys.a.uri = 'pkcs11:object=o'\n", 'keys.a.uri = "pkcs11:object=n"\n'),
        (
            "keys = { a = { uri = 'pkcs11:object=o', alg = 'RS256' } }",
            "keys = { a = { uri = \"pkcs11:object=n\", alg = 'RS256' } }",
        ),
        ("[ keys . 'a' ]\n\"uri\"='pkcs11:object=o'#x", '[ keys . \'a\' ]\n"uri"="pkcs11:object=n"#x'),
        ('[keys.a]\nuri = """\\\n  pkcs11:object=o"""\n', '[keys.a]\nuri = "pkcs11:object=n"\n'),
        ("\ufeff[keys.a]\r\nuri = 'pkcs11:object=o'\r\n\r\n", '\ufeff[keys.a]\r\nuri = "pkcs11:object=n"\r\n\r\n'),
    ],
)
def test_however_the_value_is_written_it_is_found(tmp_path, old, new):
    path = write(tmp_path / "c", old)
    change(path, {URI: "pkcs11:object=n"})
    assert path.read_bytes() == new.encode()


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_can_be_put_in_and_is_read_again(text):
    new = edited(OLD.encode(), "c", {("profiles", "p", "kid"): text}).decode()
    assert new.startswith(OLD.partition("'k1'")[0])
    assert new.endswith("\n")
    assert tomllib.loads(new)["profiles"]["p"]["kid"] == text


def test_mode_and_owner_stay_and_a_link_still_leads_there(tmp_path):
    real = write(tmp_path / "real", mode=0o644)
    if os.geteuid() == 0:
        os.chown(real, 0, 12345)
    before = real.stat()
    link = tmp_path / "c"
    link.symlink_to("real")
    change(link, {URI: "pkcs11:object=n"})
    after = real.stat()
    assert link.is_symlink()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["c", "real"]


@pytest.mark.parametrize(
    "key", [("keys", "z", "uri"), ("keys", "a", "module"), ("keys", "a"), ("cache", "x"), ("nothing",)]
)
def test_what_is_not_there_cannot_be_changed(tmp_path, key):
    path = write(tmp_path / "c")
    with pytest.raises(ConfigError, match="has no text at"):
        change(path, {key: "x"})
    assert path.read_text() == OLD


def test_a_value_that_makes_the_config_none_is_refused_before_it_is_written(tmp_path):
    path = write(tmp_path / "c")
    with pytest.raises(ConfigError, match="key"):
        change(path, {("profiles", "p", "key"): "missing"})
    assert path.read_text() == OLD


def test_a_folder_that_takes_no_file_is_told_and_nothing_changes(tmp_path):
    folder = tmp_path / "d"
    folder.mkdir()
    path = write(folder / "c")
    (folder / "c.new").mkdir()  # what stands in the way of whoever may write everywhere
    with pytest.raises(ConfigError, match="cannot be written"):
        change(path, {URI: "pkcs11:object=n"})
    assert path.read_text() == OLD


def test_what_the_file_says_before_is_asked_about_and_may_end_it(tmp_path):
    path = write(tmp_path / "c")

    def check(settings):
        raise BusyError(settings.keys["a"].uri)

    with pytest.raises(BusyError, match="object=old"):
        edit(str(path), {URI: "pkcs11:object=n"}, Deadline(5), check)
    assert path.read_text() == OLD


def test_no_value_at_all_writes_nothing(tmp_path):
    path = write(tmp_path / "c")
    before = path.stat()
    change(path, {})
    assert path.stat() == before


def test_it_waits_for_whoever_writes_and_says_so_in_the_end(tmp_path):
    path = write(tmp_path / "c")
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BusyError, match="another hsmjwt that writes the config file"):
            change(path, {URI: "pkcs11:object=n"}, seconds=0.2)
        threading.Timer(0.3, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        change(path, {URI: "pkcs11:object=n"})
        time.sleep(0.3)
    assert "object=n" in path.read_text()


def test_many_at_once_lose_nothing(tmp_path):
    names = [f"k{number}" for number in range(12)]
    path = write(tmp_path / "c", "".join(f'[keys.{name}]\nuri = "pkcs11:object=o"\n' for name in names))
    threads = [
        threading.Thread(target=change, args=(path, {("keys", name, "uri"): f"pkcs11:object={name}"})) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() == "".join(f'[keys.{name}]\nuri = "pkcs11:object={name}"\n' for name in names)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
