"""What a file of the token cache holds, and whether it is one of ours: whatever else lies there is never served."""

from __future__ import annotations

import errno
import os
import re
import stat

import msgspec

from hsmjwt.bearer import AccessToken
from hsmjwt.jose import encoding

VERSION = 1
_LARGEST = 4 * 1024 * 1024  # an answer has 1 MiB at most
_LONGEST_LIFE = 10 * 365.25 * 86400  # seconds, as an exchange takes it
_TOKEN = re.compile(r"[\x21-\x7e]+")  # RFC 6749, A.12, as an exchange takes it
_TYPE = re.compile(r"[A-Za-z0-9._-]+")  # RFC 6749, A.13, without its URIs
_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a file."""

    version: int
    key: str
    profile: str | None
    scope: str | None
    token: AccessToken


class Bad(Exception):
    """A file that is no token of ours: why, and which file it was."""

    def __init__(self, why: str, inode: int | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.inode = inode


def load(folder: int, key: str) -> Record:
    """Read a token's file. Raises FileNotFoundError, OSError, or Bad for what we would not have written."""
    return load_file(folder, key)[0]


def load_file(folder: int, key: str) -> tuple[Record, os.stat_result]:
    """Read a token's file; return what it holds and its status. Raises what `load` raises."""
    content, status = _content(folder, f"{key}.json")
    try:
        record = msgspec.json.decode(content, type=Record)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        record = None
    if record is None:  # raised out here: the decoder's error may quote what it saw
        raise Bad("is truncated, or no cache file of ours", status.st_ino)
    if record.version != VERSION:
        raise Bad(f"is of version {record.version}, not {VERSION}", status.st_ino)
    if record.key != key or not _plausible(record.token):
        raise Bad("holds something else than its token", status.st_ino)
    return record, status


def _content(folder: int, name: str) -> tuple[bytes, os.stat_result]:
    """Return what a file of ours holds, and its status; looked at is the file that was opened, whatever its name does.

    Raises OSError, or Bad for a file that we would not have made.
    """
    try:
        fd = os.open(name, _OPEN, dir_fd=folder)
    except OSError as error:
        status = os.lstat(name, dir_fd=folder)
        reason = _why_not_ours(status) if error.errno != errno.ENOENT else None
        if reason is None:
            raise
    else:
        try:
            status = os.fstat(fd)
            reason = _why_not_ours(status)
            if reason is None:
                with open(fd, "rb", closefd=False) as file:
                    return file.read(_LARGEST), status
        finally:
            os.close(fd)
    raise Bad(reason, status.st_ino)


def _why_not_ours(status: os.stat_result) -> str | None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}"
    if mode & 0o077 or not mode & 0o400:
        return f"has mode {mode:04o}"
    return f"has more than {_LARGEST} bytes" if status.st_size > _LARGEST else None


def _plausible(token: AccessToken) -> bool:
    """Tell whether an exchange gives such a token: a life of ten years at most, and texts that fit a header field."""
    if token.expires_at is None or not 0 <= token.fetched_at < token.expires_at <= token.fetched_at + _LONGEST_LIFE:
        return False
    if _TOKEN.fullmatch(token.value) is None or _TYPE.fullmatch(token.token_type) is None:
        return False
    try:
        encoding.dump(token.members)
    except encoding.EncodingFault:
        return False
    return True
