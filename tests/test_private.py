"""Folders and files that only we can use, whatever the umask is."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hsmjwt.private import make_folder, open_file

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@pytest.fixture(params=[0, 0o022, 0o077, 0o277, 0o777], ids=oct)
def umask(request, tmp_path) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path) -> int:
    return os.stat(path).st_mode & 0o7777


def test_a_folder_and_those_above_it_are_ours_alone(umask, tmp_path):
    make_folder(str(tmp_path / "a" / "b" / "c"))
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [0o700] * 3


def test_a_file_is_ours_to_read_and_write_and_nobody_elses(umask, tmp_path):
    fd = open_file(str(tmp_path / "file"), NEW)
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert mode(tmp_path / "file") == 0o600
    folder = os.open(tmp_path, os.O_RDONLY)
    os.close(open_file("other", NEW, dir_fd=folder))
    os.close(folder)
    assert mode(tmp_path / "other") == 0o600


def test_what_is_there_stays_as_it_is(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o751)
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "a/", "link", "a/.", "link/new"):
        make_folder(str(tmp_path / name))
    assert mode(tmp_path / "a") == 0o751
    assert mode(tmp_path / "a" / "new") == 0o700
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o644)
    os.close(open_file(str(tmp_path / "file"), os.O_RDONLY | os.O_CREAT))
    assert (mode(tmp_path / "file"), (tmp_path / "file").read_text()) == (0o644, "x")


def test_a_file_in_the_way_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        make_folder(str(tmp_path / "file" / "a" / "b"))
    with pytest.raises(FileNotFoundError):
        make_folder("")
    with pytest.raises(FileExistsError):
        open_file(str(tmp_path / "file"), NEW)
