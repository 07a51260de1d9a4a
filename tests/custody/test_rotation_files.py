"""What rotations publish: one set for many of them, and files that name their key."""

from __future__ import annotations

import fcntl
import json
import os
import threading

import pytest

from hsmjwt.custody import rotation_files, static_files
from hsmjwt.deadline import Deadline
from hsmjwt.errors import BusyError, ConfigError


def entry(name):
    return {"kty": "OKP", "crv": "Ed25519", "x": name, "kid": name}


def kids(folder):
    return [each["kid"] for each in json.loads((folder / "jwks.json").read_text())["keys"]]


def test_many_that_publish_in_one_folder_at_once_lose_nothing(tmp_path):
    names = [f"k{number}" for number in range(12)]
    threads = [
        threading.Thread(target=rotation_files.put, args=(str(tmp_path), [entry(name)], Deadline(20))) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(kids(tmp_path)) == sorted(names)
    assert [path.name for path in tmp_path.iterdir()] == ["jwks.json"]


def test_the_entry_of_a_key_takes_the_place_of_its_last_one_and_goes_with_it(tmp_path):
    for entries, gone, left in (
        (["a", "b"], None, ["a", "b"]),
        (["a"], None, ["b", "a"]),
        (["c"], "b", ["a", "c"]),
        ([], "c", ["a"]),
    ):
        gone_jwk = None if gone is None else entry(gone)
        rotation_files.put(str(tmp_path), [entry(name) for name in entries], Deadline(5), gone=gone_jwk)
        assert kids(tmp_path) == left


def test_a_set_that_is_as_it_should_be_is_not_written_again(tmp_path):
    rotation_files.put(str(tmp_path), [entry("a")], Deadline(5))
    before = (tmp_path / "jwks.json").stat()
    rotation_files.put(str(tmp_path), [entry("a")], Deadline(5))
    assert (tmp_path / "jwks.json").stat().st_ino == before.st_ino


@pytest.mark.parametrize("text", ["", "[]", '{"keys": 7}', '{"keys": [7]}'])
def test_what_is_no_set_is_not_written_over(tmp_path, text):
    (tmp_path / "jwks.json").write_text(text)
    with pytest.raises(ConfigError, match="is no JWK set"):
        rotation_files.put(str(tmp_path), [entry("a")], Deadline(5))
    assert (tmp_path / "jwks.json").read_text() == text


def test_folders_that_are_made_can_be_read_by_a_web_server_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        (path,) = static_files.publish(str(tmp_path / "a" / "b"), lambda: {"c/d": b"x"}, Deadline(5))
    finally:
        os.umask(before)
    assert path == str(tmp_path / "a/b/c/d")
    for made, mode in (("a", 0o755), ("a/b", 0o755), ("a/b/c", 0o755), ("a/b/c/d", 0o644)):
        assert (tmp_path / made).stat().st_mode & 0o777 == mode


def test_one_that_cannot_be_written_leaves_all_as_they_were(tmp_path):
    (tmp_path / "b.new").mkdir()  # in the way, also for root
    (tmp_path / "a").write_text("before")
    with pytest.raises(ConfigError, match="b' cannot be written"):
        static_files.publish(str(tmp_path), lambda: {"a": b"after", "b": b"after"}, Deadline(5))
    assert (tmp_path / "a").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b.new"]


def test_whoever_publishes_meanwhile_is_waited_for_until_the_deadline(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(BusyError, match="another hsmjwt that publishes in"):
        static_files.publish(str(tmp_path), lambda: {"a": b""}, Deadline(0.1))
    os.close(fd)
    assert static_files.publish(str(tmp_path), lambda: {"a": b""}, Deadline(5)) == [str(tmp_path / "a")]
