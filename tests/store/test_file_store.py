"""The cache of access tokens on a file system: what processes, kill -9, strangers and full disks do to it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hsmjwt.bearer import AccessToken
from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError
from hsmjwt.store import file
from hsmjwt.store.file import FileStore

KEY = "a1" * 32
OTHER = "b2" * 32
MARK = "AT-marker-51c2"
TOKEN = AccessToken(value=MARK, token_type="bearer", fetched_at=1000.0, expires_at=4600.0, members={"id_token": MARK})
ROOT = os.geteuid() == 0
PACKAGES = str(Path(file.__file__).parents[2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "hsmjwt"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def names(folder: Path) -> set[str]:
    return {path.name.replace(KEY, "KEY").replace(OTHER, "OTHER") for path in folder.iterdir()}


def python(code: str) -> str:
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join([PACKAGES, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60).stdout


# --- files


def test_looking_makes_no_folder(store, folder, warnings):
    assert store.get(KEY) is None
    assert store.entries() == []
    assert store.clear() == 0
    assert not folder.parent.exists()
    assert warnings == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_folder_and_files_are_ours_alone_whatever_the_umask(store, folder, umask):
    before = os.umask(umask)
    try:
        with store.hold(KEY, Deadline(5)):
            store.put(KEY, TOKEN)
    finally:
        os.umask(before)
    assert (mode(folder.parent), mode(folder)) == (0o700, 0o700)
    assert {mode(path) for path in folder.iterdir()} == {0o600}
    assert names(folder) == {"KEY.json", "KEY.lock"}


def test_nothing_of_a_token_is_part_of_a_name(store, folder):
    store.put(KEY, TOKEN, profile=None, scope="a b")
    assert names(folder) == {"KEY.json"}


@pytest.mark.parametrize("key", ["", "a1" * 31, "A1" * 32, "../" + "a" * 61, "g" * 64, "a" * 64 + "\n"])
def test_what_is_no_key_is_refused(store, key):
    for use in (store.get, lambda k: store.put(k, TOKEN), lambda k: store.hold(k, Deadline(0)).__enter__()):
        with pytest.raises(ValueError, match="SHA-256"):
            use(key)


def test_another_process_finds_the_token(store, folder):
    store.put(KEY, TOKEN)
    code = f"print(FileStore({str(folder)!r}, warn=print).get({KEY!r}).value)"
    assert python("from hsmjwt.store.file import FileStore\n" + code) == f"{MARK}\n"


@pytest.mark.parametrize("life", [float("nan"), float("inf"), 1000.0, 999.0])
def test_a_life_that_is_none_is_not_kept(store, folder, life):
    store.put(KEY, AccessToken(value=MARK, token_type="b", fetched_at=1000.0, expires_at=life))
    assert not folder.exists()


# --- bad files


def written(store: FileStore, folder: Path, change) -> bytes:
    """Give the file of a token, with its decoded content changed."""
    store.put(KEY, TOKEN)
    content = json.loads((folder / f"{KEY}.json").read_text(encoding="utf-8"))
    change(content)
    return json.dumps(content).encode()


BAD = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "one byte short": lambda content: content[:-1],
    "foreign": lambda content: b'{"access_token": "x"}',
    "text": lambda content: MARK.encode(),
    "deep": lambda content: content.replace(b'"members":{', b'"members":{"x":' + b"[" * 100_000),
    "not UTF-8": lambda content: content.replace(b"bearer", b"\xff"),
    "huge": lambda content: content + b" " * 4 * 1024 * 1024,
    "two": lambda content: content + content,
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_file_is_set_aside_with_one_warning(store, folder, warnings, how):
    store.put(KEY, TOKEN)
    path = folder / f"{KEY}.json"
    content = BAD[how](path.read_bytes())
    path.write_bytes(content)
    assert store.get(KEY) is None
    assert store.get(KEY) is None
    assert len(warnings) == 1
    assert str(path) in warnings[0]
    assert f"set aside as '{KEY}.bad'" in warnings[0]
    assert MARK not in warnings[0]
    assert (folder / f"{KEY}.bad").read_bytes() == content
    store.put(KEY, TOKEN)
    assert store.get(KEY) == TOKEN
    path.write_bytes(b"again")
    assert store.get(KEY) is None
    assert (folder / f"{KEY}.bad").read_bytes() == b"again"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("version", "1"),
        ("key", OTHER),
        ("token", None),
        ("token", {"value": ""}),
        ("token", {"value": "a b"}),
        ("token", {"value": "a\r\nX: y"}),
        ("token", {"value": "é"}),
        ("token", {"expires_at": None}),
        ("token", {"expires_at": "4600"}),
        ("token", {"members": []}),
        ("token", {"expires_at": 1e300}),
        ("token", {"expires_at": 9e15}),
        ("token", {"expires_at": 1000.0 + 3653 * 86400}),
        ("token", {"expires_at": -1}),
        ("token", {"expires_at": 1000.0}),
        ("token", {"fetched_at": 4600.5}),
        ("token", {"fetched_at": -1}),
        ("token", {"fetched_at": -1e300}),
        ("token", {"token_type": ""}),
        ("token", {"token_type": "a b"}),
        ("token", {"token_type": "a\r\nX: y"}),
        ("token", {"token_type": "é"}),
        ("token", {"value": " "}),
        ("token", {"value": f"{MARK} "}),
        ("token", {"value": f"{MARK}\u00a0"}),
        ("token", {"members": {"deep": json.loads("[" * 40 + "]" * 40)}}),
        ("profile", 1),
    ],
)
def test_a_file_of_another_shape_is_set_aside(store, folder, warnings, field, value):
    def change(content):
        content[field] = content[field] | value if isinstance(value, dict) else value

    content = written(store, folder, change)
    (folder / f"{KEY}.json").write_bytes(content)
    assert store.get(KEY) is None
    assert len(warnings) == 1
    assert "set aside" in warnings[0]
    assert MARK not in warnings[0]


def test_a_file_that_others_can_read_is_set_aside(store, folder, warnings):
    store.put(KEY, TOKEN)
    (folder / f"{KEY}.json").chmod(0o640)
    assert store.get(KEY) is None
    assert "has mode 0640" in warnings[0]


@pytest.mark.skipif(not ROOT, reason="needs root, to give a file away")
def test_a_file_of_another_user_is_set_aside(store, folder, warnings):
    store.put(KEY, TOKEN)
    os.chown(folder / f"{KEY}.json", 54321, -1)
    assert store.get(KEY) is None
    assert "belongs to user 54321" in warnings[0]


@pytest.mark.parametrize("kind", ["symlink", "fifo", "folder"])
def test_what_is_no_regular_file_is_set_aside(store, folder, warnings, tmp_path, kind):
    store.put(KEY, TOKEN)
    path = folder / f"{KEY}.json"
    path.rename(tmp_path / "moved")
    if kind == "symlink":
        path.symlink_to(tmp_path / "moved")
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    else:
        path.mkdir()
    assert store.get(KEY) is None
    assert "is not a regular file" in warnings[0]
    store.put(KEY, TOKEN)
    assert store.get(KEY) == TOKEN


def test_a_bad_file_is_left_to_the_process_that_holds_the_key(store, folder, warnings):
    others: list[str] = []
    other = FileStore(str(folder), warn=others.append)
    with store.hold(KEY, Deadline(5)):
        (folder / f"{KEY}.json").write_bytes(b"bad")
        assert other.get(KEY) is None  # were it set aside here, the good file of the holder might be
        assert (folder / f"{KEY}.json").exists()
        assert store.get(KEY) is None
        assert not (folder / f"{KEY}.json").exists()
    assert others == []
    assert len(warnings) == 1


# --- a folder that cannot be used


def must_go_on(store: FileStore, warnings: list[str], says: str):
    """Check that a broken cache costs one warning and nothing else."""
    for _ in range(2):
        assert store.get(KEY) is None
        with store.hold(KEY, Deadline(5)):
            store.put(KEY, TOKEN)
    assert len(warnings) == 1
    assert says in warnings[0]
    assert "cannot be used, and no token is kept" in warnings[0]
    assert MARK not in warnings[0]


def test_a_file_in_the_way_of_the_folder_costs_one_warning(store, folder, warnings):
    folder.parent.write_bytes(b"")
    must_go_on(store, warnings, "not a directory")
    with pytest.raises(ConfigError, match="not a directory"):
        store.clear()


@pytest.mark.parametrize("wrong", [0o755, 0o770, 0o701])
def test_a_folder_open_to_others_costs_one_warning(store, folder, warnings, wrong):
    folder.mkdir(parents=True)
    folder.chmod(wrong)
    must_go_on(store, warnings, f"mode {wrong:04o} lets others in (chmod 700 mends it)")
    assert list(folder.iterdir()) == []
    with pytest.raises(ConfigError, match="chmod 700"):
        store.entries()


@pytest.mark.skipif(not ROOT, reason="needs root, to give a folder away")
def test_a_folder_or_link_of_another_user_costs_one_warning(store, folder, warnings, tmp_path):
    folder.mkdir(parents=True, mode=0o700)
    os.chown(folder, 54321, -1)
    must_go_on(store, warnings, "belongs to user 54321, not to us")
    assert list(folder.iterdir()) == []
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(ours)
    linked: list[str] = []
    FileStore(str(link), warn=linked.append).put(KEY, TOKEN)
    assert (names(ours), linked) == ({"KEY.json"}, [])
    (ours / f"{KEY}.json").unlink()
    os.lchown(link, 54321, -1)
    must_go_on(FileStore(str(link), warn=linked.append), linked, "a symbolic link of another user")
    assert list(ours.iterdir()) == []


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
def test_a_folder_that_we_may_not_write_costs_one_warning(store, folder, warnings):
    folder.mkdir(parents=True, mode=0o700)
    folder.chmod(0o500)
    must_go_on(store, warnings, "permission denied")


def test_a_dangling_link_costs_one_warning(store, folder, warnings):
    folder.parent.mkdir()
    folder.symlink_to("nowhere")
    must_go_on(store, warnings, "no such file")


def test_a_disk_that_is_full_costs_one_warning_and_leaves_nothing(folder):
    # a limit on the size of files gives the error of a full disk at the same place, without a file system of its own
    code = f"""
import resource
from hsmjwt.bearer import AccessToken
from hsmjwt.deadline import Deadline
from hsmjwt.store.file import FileStore
store = FileStore({str(folder)!r}, warn=print)
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
for _ in range(2):
    with store.hold({KEY!r}, Deadline(5)):
        store.put({KEY!r}, AccessToken(value="x" * 200, token_type="b", fetched_at=1.0, expires_at=9.0))
    assert store.get({KEY!r}) is None
"""
    said = python(code)
    assert said.count("\n") == 1
    assert "file too large" in said
    assert names(folder) == {"KEY.lock"}


def test_a_token_that_no_json_holds_costs_one_warning(store, warnings):
    store.put(KEY, AccessToken(value="x", token_type="b", fetched_at=1.0, expires_at=9.0, members={"m": "\ud800"}))
    assert store.get(KEY) is None
    assert len(warnings) == 1


# --- the notice


def test_that_this_is_a_disk_is_told_once(folder, warnings):
    for _ in range(2):
        store = FileStore(str(folder), warn=warnings.append, on_disk=True)
        assert store.get(OTHER) is None
        store.put(KEY, TOKEN)
        store.put(OTHER, TOKEN)
        store.clear()
    assert len(warnings) == 1
    assert "on a disk" in warnings[0]
    assert str(folder) in warnings[0]
    assert 'cache = "runtime"' in warnings[0]


def test_a_cache_that_keeps_nothing_gives_no_notice(folder, warnings):
    store = FileStore(str(folder), warn=warnings.append, on_disk=True)
    store.put(KEY, AccessToken(value="x", token_type="b", fetched_at=1.0))
    with store.hold(KEY, Deadline(5)):
        store.clear()
        store.put(KEY, TOKEN)
    assert warnings == []


def test_a_token_that_a_newer_one_was_fetched_for_is_not_served_where_that_cannot_be_kept(store, warnings):
    store.put(KEY, TOKEN)
    newer = AccessToken(
        value="newer",
        token_type="bearer",
        fetched_at=TOKEN.fetched_at,
        expires_at=TOKEN.expires_at,
        members={"x": "\ud800"},
    )
    store.put(KEY, newer)
    assert store.get(KEY) is None
    assert "no token is kept" in warnings[0]


def test_a_life_of_ten_years_is_served(store, warnings):
    token = AccessToken(value=MARK, token_type="bearer", fetched_at=0.0, expires_at=3652 * 86400.0)
    store.put(KEY, token)
    assert store.get(KEY) == token
    assert warnings == []


def test_what_is_judged_is_the_file_that_is_read(store, folder, tmp_path):
    """A name that leads elsewhere from one moment to the next never makes us read a file that was not looked at."""
    store.put(KEY, TOKEN)
    path, foreign = folder / f"{KEY}.json", tmp_path / "foreign"
    foreign.write_bytes(path.read_bytes().replace(MARK.encode(), b"AT-foreign"))
    foreign.chmod(0o644)
    code = f"""
import os
from hsmjwt.store.file import FileStore
store = FileStore({str(folder)!r}, warn=lambda line: None)
path, foreign = {str(path)!r}, {str(foreign)!r}
lstat = os.lstat
def switching(name, **more):  # the moment after a look at the name
    found = lstat(name, **more)
    if str(name).endswith(".json"):
        os.replace(foreign, path)
    return found
os.lstat = switching
print(store.get({KEY!r}).value)
"""
    assert python(code) == f"{MARK}\n"
