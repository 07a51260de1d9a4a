"""The cache of access tokens among processes: one exchange, kill -9, and `cache clear` beside those that fetch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hsmjwt.bearer import AccessToken
from hsmjwt.deadline import Deadline
from hsmjwt.store import file
from hsmjwt.store.file import FileStore

KEY = "a1" * 32
OTHER = "b2" * 32
MARK = "AT-marker-51c2"
TOKEN = AccessToken(value=MARK, token_type="bearer", fetched_at=1000.0, expires_at=4600.0)
PACKAGES = str(Path(file.__file__).parents[2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "hsmjwt"


def names(folder: Path) -> set[str]:
    return {path.name.replace(KEY, "KEY").replace(OTHER, "OTHER") for path in folder.iterdir()}


# --- processes


def environment() -> dict[str, str]:
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join([PACKAGES, os.environ.get("PYTHONPATH", "")])}


FETCH = """
import os, sys, time
from hsmjwt.bearer import AccessToken
from hsmjwt.deadline import Deadline
from hsmjwt.store.file import FileStore
folder, log, name, key = sys.argv[1:]
store = FileStore(folder, warn=lambda text: print(text, file=sys.stderr))
token = store.get(key)
if token is None:
    with store.hold(key, Deadline(50)):
        token = store.get(key)
        if token is None:
            with open(log, "a") as file:
                file.write(name + "\\n")
            time.sleep(0.3)
            token = AccessToken(value=name, token_type="b", fetched_at=time.time(), expires_at=time.time() + 60)
            store.put(key, token)
print(token.value)
"""


@pytest.mark.parametrize("before", ["nothing", "a bad file"])
def test_twenty_processes_make_one_exchange(folder, tmp_path, before):
    if before == "a bad file":
        folder.mkdir(parents=True, mode=0o700)
        (folder / f"{KEY}.json").write_bytes(b'{"version": 1')
        (folder / f"{KEY}.json").chmod(0o600)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH, str(folder), str(tmp_path / "log"), f"p{n}", KEY],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for n in range(20)
    ]
    ends = [process.communicate(timeout=60) for process in processes]
    exchanges = (tmp_path / "log").read_text(encoding="utf-8").split()
    assert len(exchanges) == 1
    assert [out for out, _ in ends] == [f"{exchanges[0]}\n"] * 20
    warned = [err for _, err in ends if err]
    assert len(warned) == (1 if before == "a bad file" else 0)
    assert [process.returncode for process in processes] == [0] * 20


def test_kill_9_frees_the_key(store, folder):
    code = f"""
import time
from hsmjwt.deadline import Deadline
from hsmjwt.store.file import FileStore
with FileStore({str(folder)!r}, warn=print).hold({KEY!r}, Deadline(5)):
    print("held", flush=True)
    time.sleep(100)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment())
    assert holder.stdout is not None
    with holder.stdout as said:
        assert said.readline() == "held\n"
        threading.Timer(0.2, holder.kill).start()
        began = time.monotonic()
        with store.hold(KEY, Deadline(10)):
            assert 0.05 < time.monotonic() - began < 5
    assert holder.wait(5) == -signal.SIGKILL


def test_a_lock_file_that_is_removed_before_we_have_its_lock_counts_for_nothing(folder):
    code = f"""
import os, sys
from hsmjwt.deadline import Deadline
from hsmjwt.store.file import FileStore
path = {str(folder / KEY)!r} + ".lock"
seen = []
def remove_before_it_is_locked(event, arguments):
    if event == "fcntl.flock" and not seen:
        seen.append(event)
        os.unlink(path)
sys.addaudithook(remove_before_it_is_locked)
store = FileStore({str(folder)!r}, warn=print)
with store.hold({KEY!r}, Deadline(5)):
    assert seen
    assert os.path.sameopenfile(store._held[{KEY!r}], os.open(path, os.O_RDONLY))
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), timeout=60)


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lock(store):
    with store.hold(KEY, Deadline(5)):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with store.hold(KEY, Deadline(0)):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_a_killed_writer_left_is_swept_up_by_the_next(store, folder):
    store.put(KEY, TOKEN)
    (folder / f"{KEY}.0123456789abcdef.tmp").write_bytes(b'{"version":')
    store.put(KEY, TOKEN)  # without the lock nobody knows whether another is writing it
    assert len(names(folder)) == 2
    with store.hold(KEY, Deadline(5)):
        store.put(KEY, TOKEN)
    assert names(folder) == {"KEY.json", "KEY.lock"}


# --- list and clear


def test_the_list_shows_no_part_of_a_token(store):
    store.put(KEY, TOKEN, profile="adobe", scope="read write")
    store.put(OTHER, TOKEN)
    entries = store.entries()
    assert [(e.profile, e.scope, e.fetched_at, e.expires_at) for e in entries] == [
        (None, None, 1000.0, 4600.0),
        ("adobe", "read write", 1000.0, 4600.0),
    ]
    assert MARK not in repr(entries)
    assert entries[0].fresh(2000.0, 60)
    assert not entries[0].fresh(4550.0, 60)
    assert not entries[0].fresh(999.0, 60)


def test_the_list_leaves_bad_files_out_and_where_they_are(store, folder, warnings):
    store.put(KEY, TOKEN)
    (folder / f"{KEY}.json").write_bytes(b"bad")
    (folder / "README").write_bytes(b"not ours")
    assert store.entries() == []
    assert names(folder) == {"KEY.json", "README"}
    assert warnings == []


def test_clear_removes_everything_of_ours_and_nothing_else(store, folder):
    with store.hold(KEY, Deadline(5)):
        store.put(KEY, TOKEN)
    store.put(OTHER, TOKEN, profile="adobe")
    (folder / f"{KEY}.bad").write_bytes(MARK.encode())
    (folder / f"{OTHER}.00.tmp").write_bytes(MARK.encode())
    (folder / "README").write_bytes(b"not ours")
    assert store.clear() == 2
    assert names(folder) == {"README"}
    assert store.get(KEY) is None
    assert store.clear() == 0


def test_clear_of_a_profile_leaves_the_others(store, folder):
    with store.hold(KEY, Deadline(5)):
        store.put(KEY, TOKEN, profile="adobe")
    with store.hold(OTHER, Deadline(5)):
        store.put(OTHER, TOKEN, profile="google")
    (folder / f"{OTHER}.bad").write_bytes(MARK.encode())
    assert store.clear("adobe") == 1
    assert names(folder) == {"OTHER.json", "OTHER.lock"}
    assert store.clear("none of these") == 0
    assert store.get(OTHER) == TOKEN


@pytest.mark.parametrize("profile", [None, "adobe"])
def test_what_was_being_fetched_during_clear_is_not_kept(store, folder, warnings, profile):
    other = FileStore(str(folder), warn=warnings.append)
    with store.hold(KEY, Deadline(5)):
        assert other.clear(profile) == 0
        with other.hold(KEY, Deadline(0)):  # the flight of before clear is nobody's to wait for
            store.put(KEY, TOKEN, profile="adobe")
            assert other.get(KEY) is None
            other.put(KEY, TOKEN, profile="adobe")
    assert store.get(KEY) == TOKEN
    assert names(folder) == {"KEY.json", "KEY.lock"}
    assert warnings == []


@pytest.mark.parametrize("whole", [True, False])
def test_clear_wins_over_a_write_at_the_same_moment(store, folder, warnings, whole):
    class Overtaken(FileStore):
        """Looks whether it was cleared, and is cleared before it renames."""

        looks = 0

        def _cleared(self, folder_fd: int, key: str) -> bool:
            said = super()._cleared(folder_fd, key)
            self.looks += 1
            if self.looks == 1 and whole:
                store.clear()
            elif self.looks == 1:  # `clear` that saw no file but the lock, and is done
                (folder / f"{key}.lock").unlink()
            return said

    writer = Overtaken(str(folder), warn=warnings.append, on_disk=True)
    with writer.hold(KEY, Deadline(5)):
        writer.put(KEY, TOKEN)
    assert writer.looks
    assert names(folder) == set()
    assert warnings == []


def test_who_waits_for_a_lock_that_is_removed_does_not_wait_for_ever(store, folder):
    other = FileStore(str(folder), warn=print)
    with store.hold(KEY, Deadline(5)):
        threading.Timer(0.1, other.clear).start()
        with other.hold(KEY, Deadline(5)):
            pass


# --- what has ended


def lasting(life: float) -> AccessToken:
    return AccessToken(value=MARK, token_type="bearer", fetched_at=10_000.0, expires_at=10_000.0 + life)


def test_who_brings_a_token_home_removes_what_has_ended(store, folder):
    third, fourth, fifth = "c3" * 32, "d4" * 32, "e5" * 32
    with store.hold(OTHER, Deadline(5)):
        store.put(OTHER, TOKEN, profile="ended at 4600")
    with store.hold(third, Deadline(5)):
        store.put(third, lasting(60))
    with store.hold(fourth, Deadline(5)):
        pass  # whose exchange failed
    (folder / f"{fourth}.0123456789abcdef.tmp").write_bytes(b"of a process that was killed")
    (folder / f"{fifth}.bad").write_bytes(b"for a person to look at")
    (folder / f"{fifth}.json").write_bytes(b"no token of ours")
    (folder / f"{fifth}.json").chmod(0o600)
    (folder / "README").write_bytes(b"not ours")
    with store.hold(KEY, Deadline(5)):
        store.put(KEY, lasting(3600))
    left = {"KEY.json", "KEY.lock", f"{third}.json", f"{third}.lock", f"{fifth}.bad", f"{fifth}.json", "README"}
    assert names(folder) == left


def test_a_key_that_is_being_fetched_keeps_its_files(store, folder):
    other = FileStore(str(folder), warn=print)
    with other.hold(OTHER, Deadline(5)):
        other.put(OTHER, TOKEN)  # which has ended by the other token's clock
        with store.hold(KEY, Deadline(5)):
            store.put(KEY, lasting(60))
        assert other.get(OTHER) == TOKEN
        other.put(OTHER, lasting(90))
    assert store.get(OTHER) == lasting(90)
    assert names(folder) == {"KEY.json", "KEY.lock", "OTHER.json", "OTHER.lock"}


def test_a_flight_that_begins_while_its_old_files_are_removed_is_kept(folder, tmp_path):
    """Five processes fetch one key again and again, while others of them remove what ended."""
    code = f"""
import sys, time
sys.path.insert(0, {PACKAGES!r})
from hsmjwt.bearer import AccessToken
from hsmjwt.deadline import Deadline
from hsmjwt.store.file import FileStore
store = FileStore({str(folder)!r}, warn=print)
number = int(sys.argv[1])
keys = [format(place, "064x") for place in range(3)]
for turn in range(60):
    key = keys[(number + turn) % 3]
    with store.hold(key, Deadline(20)):
        begun = time.time()
        token = AccessToken(value=f"t-{{number}}-{{turn}}", token_type="b", fetched_at=begun, expires_at=begun + 0.005)
        store.put(key, token)
        assert store.get(key) == token, (number, turn)
"""
    running = [subprocess.Popen([sys.executable, "-c", code, str(n)], stdout=-1, stderr=-1) for n in range(5)]
    for process in running:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, b"", b"")
