"""What a process may be put into before hsmjwt begins: another user, a full disk, a clock that goes wrong.

Each function changes the process that calls it, and nothing else of the machine: mounts lie in a mount namespace of its
own. `Forks.run` takes them by name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

Step = Sequence[str | int]

NOBODY_KNOWS = 54321  # a user without an entry in any database
_NAMESPACE, _PRIVATE, _REMOUNT, _BIND, _READ_ONLY = 0x00020000, 0x44000, 32, 4096, 1  # <sched.h>, <sys/mount.h>

_state = {"apart": 0, "ahead": 0}  # whether mounts are our own already; by how many seconds the clock is ahead
_libc = ctypes.CDLL(None, use_errno=True)


def user(uid: int) -> None:
    """Be somebody else, in a group of the same number."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def members(uid: int, gid: int) -> None:
    """Be somebody else, in a group with others."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def full(folder: str, uid: int) -> None:
    """Have the folder lie on a disk of that user's where nothing fits any more; it is empty but for what fills it."""
    _mount("tmpfs", folder, "tmpfs", 0, f"size=64k,mode=0700,uid={uid},gid={uid}")
    fill(folder)


def fill(folder: str) -> None:
    """Write until there is no room."""
    block = os.sysconf("SC_PAGE_SIZE")
    with open(os.path.join(folder, "large"), "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(block)):
            pass


def read_only(folder: str) -> None:
    """Have the folder lie on a disk that takes no change."""
    _mount(folder, folder, "", _BIND, "")
    _mount("", folder, "", _REMOUNT | _BIND | _READ_ONLY, "")


def covered(folder: str) -> None:
    """Have nothing in the folder."""
    _mount("tmpfs", folder, "tmpfs", 0, "")


def clock(seconds: int) -> None:
    """Set the clock this process goes by, forwards or back; `prepare` came before hsmjwt was loaded."""
    _state["ahead"] += seconds


def prepare() -> None:
    """Replace the clock by one that can be set: what is loaded from now on may keep the function."""
    real = time.time
    time.time = lambda: real() + _state["ahead"]


def zone(name: str) -> None:
    """Live in another time zone."""
    os.environ["TZ"] = name
    time.tzset()


def limit(name: str, most: int) -> None:
    """Set a limit, by the name that the resource module has for it."""
    resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def mask(value: int) -> None:
    """Set the umask."""
    os.umask(value)


def struck(number: int, *events: str) -> None:
    """Be killed just before the so-manieth of some events, by their names (Python's table of audit events)."""
    left = number

    def hook(event: str, _args: object) -> None:
        nonlocal left
        if event in events:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def close(*descriptors: int) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)


def gone(folder: str) -> None:
    """Work in a folder that somebody has removed."""
    os.mkdir(folder)
    os.chdir(folder)
    os.rmdir(folder)


def enter(steps: Sequence[Step]) -> None:
    """Take one step after the other."""
    for name, *arguments in steps:
        globals()[str(name)](*arguments)


def may_mount() -> bool:
    """Tell whether the system lets us mount."""
    code = "from cli import places; places.covered('/proc')"
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environ = {**os.environ, "PYTHONPATH": tests}
    return subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=False).returncode == 0


def _mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    if not _state["apart"]:
        _state["apart"] = 1
        _checked(_libc.unshare(_NAMESPACE))
        _checked(_libc.mount(None, b"/", None, _PRIVATE, None))
    parts = [text.encode() or None for text in (source, target, kind)]
    _checked(_libc.mount(*parts, flags, data.encode() or None))


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, errno.errorcode.get(number, str(number)))
