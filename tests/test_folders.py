"""Which folders: the runtime folder only where it is ours alone, and a home even where HOME is not set."""

from __future__ import annotations

import os
import pwd

import pytest

from hsmjwt.errors import ConfigError
from hsmjwt.folders import cache_dir, cache_dirs, config_files, home, state_dir

UID = os.geteuid()
NOBODY = 4_000_000_000  # a user that no database knows


def test_tokens_lie_in_the_runtime_folder(tmp_path):
    tmp_path.chmod(0o700)
    choice = cache_dir({"XDG_RUNTIME_DIR": str(tmp_path), "HOME": "/h"}, UID, run="/nowhere")
    assert (choice.path, choice.on_disk) == (f"{tmp_path}/hsmjwt", False)


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o750, 0o1700, 0o500])
def test_a_runtime_folder_that_is_not_0700_is_passed_over(mode, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    choice = cache_dir({"XDG_RUNTIME_DIR": str(folder), "HOME": "/h"}, UID, run="/nowhere")
    assert (choice.path, choice.on_disk) == ("/h/.cache/hsmjwt", True)


def test_a_runtime_folder_of_another_user_is_passed_over(tmp_path):
    tmp_path.chmod(0o700)
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": "/h"}
    assert cache_dir(environ, UID + 1, run="/nowhere").path == "/h/.cache/hsmjwt"


def test_the_systems_runtime_folder_comes_second(tmp_path):
    own = tmp_path / str(UID)
    own.mkdir(mode=0o700)
    for variable in ("", "relative", str(tmp_path / "gone"), __file__):
        choice = cache_dir({"XDG_RUNTIME_DIR": variable, "HOME": "/h"}, UID, run=str(tmp_path))
        assert (choice.path, choice.on_disk) == (f"{own}/hsmjwt", False)


def test_the_disk_is_last_and_may_be_moved(tmp_path):
    environ = {"XDG_CACHE_HOME": str(tmp_path), "HOME": "/h"}
    assert cache_dir(environ, UID, run="/nowhere").path == f"{tmp_path}/hsmjwt"
    environ["XDG_CACHE_HOME"] = "relative"
    assert cache_dir(environ, UID, run="/nowhere").path == "/h/.cache/hsmjwt"


def test_tokens_may_lie_in_each_folder_that_was_ever_the_best(tmp_path):
    named, own, disk = (tmp_path / name for name in ("named", str(UID), "disk"))
    for folder in (named, own):
        folder.mkdir(mode=0o700)
    environ = {"XDG_RUNTIME_DIR": str(named), "XDG_CACHE_HOME": str(disk)}
    found = cache_dirs(environ, UID, run=str(tmp_path))
    assert [place.path for place in found] == [f"{folder}/hsmjwt" for folder in (named, own, disk)]
    assert [place.on_disk for place in found] == [False, False, True]
    environ = {"XDG_RUNTIME_DIR": str(own), "XDG_CACHE_HOME": str(own)}
    assert [place.on_disk for place in cache_dirs(environ, UID, run=str(tmp_path))] == [False]


def test_state_lies_below_the_home_or_where_the_variable_says():
    assert state_dir({"HOME": "/h"}) == "/h/.local/state/hsmjwt"
    assert state_dir({"HOME": "/h", "XDG_STATE_HOME": "/s"}) == "/s/hsmjwt"
    assert state_dir({"HOME": "/h", "XDG_STATE_HOME": "s"}) == "/h/.local/state/hsmjwt"


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "relative"}])
def test_without_home_the_user_database_knows(environ):
    try:
        known = pwd.getpwuid(UID).pw_dir
    except KeyError:
        pytest.skip("whoever runs the tests is in no user database")
    assert home(environ) == known


@pytest.mark.skipif(UID != 0, reason="only root becomes a user that nobody knows")
def test_a_user_without_any_home_is_told_what_to_set():
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setuid(NOBODY)
            assert home({}) is None
            assert cache_dir({}, NOBODY, run="/nowhere") is None
            assert config_files({}) == ["/etc/hsmjwt/config.toml"]
            with pytest.raises(ConfigError, match="HOME is not set") as caught:
                state_dir({})
            assert "XDG_STATE_HOME" in caught.value.hint
            with pytest.raises(ConfigError, match="HOME is 'h', no absolute path, and user 4000000000 has no home"):
                state_dir({"HOME": "h"})
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_users_config_comes_before_the_systems():
    assert config_files({"HOME": "/h"}) == ["/h/.config/hsmjwt/config.toml", "/etc/hsmjwt/config.toml"]
    assert config_files({"HOME": "/h", "XDG_CONFIG_HOME": "/x"})[0] == "/x/hsmjwt/config.toml"
