"""The cache hit: `token`, `header` and `exec` with a profile or none, answered from a note that a longer run left.

Such a call happens a thousand times a day, so this file imports os and time alone, nothing of ours. A note is a copy of
what the longer road would print, and it is trusted for what it was made from: it holds only as long as our version, the
config file, our variables and the token's own cache file are the very same. Whatever is not plain steps aside for the
longer road, which also says what is wrong.
"""

import os
import time

TYPE_CHECKING = False  # typing would be an import more
if TYPE_CHECKING:
    from collections.abc import Mapping

    Environ = Mapping[str, str]

VERBS = ("token", "header", "exec")
VARIABLE = "ACCESS_TOKEN"
PREFIX = "quick"
"""How the names of notes begin."""

TOLD = ("HSMJWT_CONFIG", "HSMJWT_KEY", "HSMJWT_MODULE", "HSMJWT_PIN_SOURCE", "HSMJWT_PROFILE", "HSMJWT_SOCKET")
"""The variables that a note is known by: no others, since `env:HSMJWT_ANY_NAME` may be where a secret is."""

_NEVER_PASSED_ON = ("HSMJWT_PIN", "HSMJWT_PIN_SOURCE")
_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")  # what Python sets in the locale C, for itself (PEP 538)
_LARGEST = 65536  # bytes; a token that is longer is left to the longer road
_LONGEST_REST = 16384  # bytes of a note beside its token
_LONGEST_NAME = 100  # bytes of a profile's name
_OURS = 0o100600  # a regular file that only its owner may read


def answer(argv: list[str], version: str) -> "int | tuple[list[str], dict[str, str]] | None":
    """Print what a fresh note says and return 0; for `exec` return the command and its environment instead.

    None where the longer road has to go: nothing has happened then.
    """
    if not argv or argv[0] not in VERBS:
        return None
    words, command = argv[1:], None
    if argv[0] == "exec":
        if "--" not in words or "HSMJWT_EXEC" in os.environ:
            return None
        cut = words.index("--")
        words, command = words[:cut], words[cut + 1 :]
        if not command or not _can_run(command[0]):
            return None
    name = note_name(words)
    if name is None:
        return None
    try:
        note = _read(name, words, version)
    except (OSError, ValueError):
        return None
    if note is None:
        return None
    label, removes, end, token = note
    if command is not None:
        environ = passed_on(os.environ, removes.split())
        environ[VARIABLE], environ["HSMJWT_EXEC"] = token, f"{label}:{VARIABLE}"
        if os.isatty(2):
            _say(ending(VARIABLE, end, time.time()))
        return command, environ
    return _print(f"{token}\n" if argv[0] == "token" else f"Authorization: Bearer {token}\n")


def note_name(words: list[str]) -> str | None:
    """Return the name of the note for a call with these words behind its verb; None where there is none."""
    if not words:
        return PREFIX
    name = os.fsencode(words[0])
    if len(words) > 1 or not 0 < len(name) <= _LONGEST_NAME or name.startswith(b"-"):
        return None
    return f"{PREFIX}-{name.hex()}"


def fits(token: str) -> bool:
    """Tell whether a note with this access token would be read."""
    return len(token) < _LARGEST - _LONGEST_REST


def note_text(
    *, known_by: str, source: str, life: tuple[float, float, float], label: str, removes: list[str], token: str
) -> str:
    """Return a note's text: `known_by` a fingerprint, `source` the line of the token's cache file.

    `life` holds three Unix times: when the token was fetched, until when it is served and when it ends. `label` names
    the profile, `removes` the variables that `exec` takes away.
    """
    return "\n".join((known_by, source, " ".join(map(repr, life)), label, " ".join(removes), token, ""))


def source_line(name: str, status: os.stat_result) -> str:
    """Return the line that tells one state of a token's cache file from all others."""
    return " ".join(map(str, (name, *identity(status))))


def fingerprint(environ: "Environ", words: list[str], version: str) -> str | None:
    """Return one line that differs wherever the call, our version, the config file or a variable of ours does.

    `words` are the call's, as this locale reads them: a profile is found by its name's letters, not by their bytes.
    None where there is no config file, or its place takes more than a look to find.
    """
    path = config_path(environ)
    if path is None:
        return None
    return ascii((words, version, path, identity(os.stat(path)), [environ.get(name) for name in TOLD]))


def identity(status: os.stat_result) -> tuple[int, ...]:
    """Return what tells one state of a file from all others; an edit that keeps size and mtime changes the ctime."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def passed_on(environ: "Environ", removes: list[str]) -> dict[str, str]:
    """Return the environment that a command may see: no PIN, nothing that says where one is, none of `removes`."""
    kept = dict(environ)
    kind, _, named = kept.get("HSMJWT_PIN_SOURCE", "").partition(":")
    if kind == "env":
        kept.pop(named, None)
    for name in ("", *_NEVER_PASSED_ON, *removes):  # a variable without a name cannot be passed on
        kept.pop(name, None)
    if kept.get("LC_CTYPE") in _COERCED and not _is_the_callers(b"LC_CTYPE="):
        del kept["LC_CTYPE"]
    return kept


def _is_the_callers(start: bytes) -> bool:
    """Tell whether this process was handed a variable, or set it itself; yes where nobody can say."""
    try:
        with open("/proc/self/environ", "rb") as file:
            return any(line.startswith(start) for line in file.read().split(b"\0"))
    except OSError:
        return True


def ending(name: str, end: float, now: float) -> str:
    """Return in words when the access token in the variable `name` ends; times are Unix seconds."""
    left = max(0, int(end - now))
    amount = f"{left} s" if left < 120 else f"{left // 60} min" if left < 7200 else f"{left // 3600} h"
    return f"{name} ends at {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(int(end)))}, in {amount}"


def config_path(environ: "Environ") -> str | None:
    """Return the config file's path, by the rules of hsmjwt.folders; None where there is none or it is hard to find."""
    named = environ.get("HSMJWT_CONFIG")
    if named:
        return named
    own = _base(environ, "XDG_CONFIG_HOME", ".config")
    if own is None:
        return None
    for path in (f"{own}/hsmjwt/config.toml", "/etc/hsmjwt/config.toml"):
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        return path
    return None


def _base(environ: "Environ", variable: str, below_home: str) -> str | None:
    """Return a base folder of the XDG specification, None where only the user database knows it."""
    named = environ.get(variable, "")
    if named.startswith("/"):
        return named.rstrip("/")
    home = environ.get("HOME", "")
    return f"{home.rstrip('/')}/{below_home}" if home.startswith("/") else None


def _folder() -> str | None:
    """Return the folder for access tokens, by the rules of hsmjwt.folders; None where it is not ours alone."""
    uid = os.geteuid()
    base = None
    for run in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        if run.startswith("/"):
            try:
                status = os.stat(run)
            except OSError:
                continue
            if status.st_uid == uid and status.st_mode == 0o040700:
                base = run.rstrip("/")
                break
    base = base or _base(os.environ, "XDG_CACHE_HOME", ".cache")
    if base is None:
        return None
    folder = f"{base}/hsmjwt"
    status = os.lstat(folder)
    return folder if status.st_uid == uid and status.st_mode & ~0o700 == 0o040000 else None


def _read(name: str, words: list[str], version: str) -> tuple[str, str, float, str] | None:
    """Return label, variables to remove, end of life and token of a note that holds now; None where it does not."""
    folder = _folder()
    if folder is None:
        return None
    fd = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if status.st_mode != _OURS or status.st_uid != os.geteuid() or status.st_size > _LARGEST:
            return None
        text = os.read(fd, _LARGEST).decode("ascii")
    finally:
        os.close(fd)
    known_by, source, life, label, removes, token, after = text.split("\n")
    fetched, until, end = map(float, life.split())
    file = source.partition(" ")[0]
    if after or not fetched <= time.time() < until or source != source_line(file, os.lstat(f"{folder}/{file}")):
        return None
    return (label, removes, end, token) if known_by == fingerprint(os.environ, words, version) else None


def _can_run(command: str) -> bool:
    """Tell whether the system will find a program of that name and run it; what it cannot, the longer road tells."""
    paths = os.environ.get("PATH", os.defpath).split(":")
    places = [command] if "/" in command else [f"{path or '.'}/{command}" for path in paths]
    there = [place for place in places if os.access(place, os.X_OK) and not os.path.isdir(place)]
    return bool(there) and _starts_as_programs_do(there[0])


def _starts_as_programs_do(path: str) -> bool:
    """Tell whether a file is an ELF program or a script that names its interpreter; yes where it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(4).startswith((b"#!", b"\x7fELF"))
    except OSError:
        return True


def _print(text: str) -> int | None:
    """Print the result and return the exit code; None where nothing of it can be written."""
    data = text.encode("ascii")
    length = len(data)
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        return 141
    except OSError as error:
        if len(data) == length:
            return None
        reason = os.strerror(error.errno or 0).lower()  # said here: the longer road would add it all to a part of it
        _say(f"error: stdout cannot be written: {reason}", "hint: it may be closed, or the disk full")
        return 3
    return 0


def _say(*lines: str) -> None:
    try:
        os.write(2, "".join(f"hsmjwt: {line}\n" for line in lines).encode("ascii", "backslashreplace"))
    except OSError:
        return  # nobody can be told that nobody can be told
