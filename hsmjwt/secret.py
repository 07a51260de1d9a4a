"""Secret sources: where a PIN, a passphrase or a client secret comes from, and the value that never shows itself.

`parse_source` is pure; `resolve` reads. A pipe behind `fd:N` is empty after it was read: resolve a source once and keep
what it gave.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NoReturn, assert_never

import msgspec

from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError, LoginError, UsageError
from hsmjwt.nearest import nearest
from hsmjwt.pipes import output_of, read_to_end
from hsmjwt.secret_text import Unfit, text_of

Kind = Literal["env", "file", "credential", "fd", "command", "prompt", "none", "value"]
Prompter = Callable[[str], str]
Identity = tuple[int, int, int, int, int]  # of a file: device, inode, size, mtime_ns, ctime_ns

_FORMS: dict[str, Kind] = {
    "env:NAME": "env",
    "file:PATH": "file",
    "credential:NAME": "credential",
    "fd:N": "fd",
    "command:PROGRAM": "command",
    "prompt": "prompt",
    "none": "none",
}
_LATER = ("keyring", "protected")
_KINDS = {form.partition(":")[0]: kind for form, kind in _FORMS.items()}
_KNOWN = "the sources are " + ", ".join(_FORMS)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)
_DESCRIPTOR = re.compile(r"[0-9]{1,9}", re.ASCII)

_OUTPUT_LIMIT = 65536  # of a command: one that prints more is not printing a secret


class Secret:
    """A secret text that no repr, format, pickle or JSON shows; compares by value."""

    __slots__ = ("_text",)
    __hash__ = None  # type: ignore[assignment]  # so that none becomes a key of a cache

    def __init__(self, text: str) -> None:
        """Keep the text."""
        self._text = text

    def reveal(self) -> str:
        """Return the text itself; the one way to it."""
        return self._text

    def __eq__(self, other: object) -> bool:
        """Compare by value, in a time that tells nothing of it."""
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = (each.encode("utf-8", "surrogatepass") for each in (self._text, other._text))
        return hmac.compare_digest(mine, theirs)

    def __repr__(self) -> str:
        """Show that there is a secret, and nothing of it."""
        return "***"

    def __format__(self, spec: str) -> str:
        """Format what repr shows."""
        return format("***", spec)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        raise TypeError("a secret cannot be pickled or copied")


class SecretSource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a secret is to be read; `target` is what follows the kind's colon.

    A `value` source carries the `pin-value` of a URI as its target: neither that nor a command's arguments are shown.
    """

    kind: Kind
    target: str = ""

    @property
    def noted(self) -> str:
        """Return the source as it may be shown and written to disk, in the note of a refused login too."""
        match self.kind:
            case "value":
                return "pin-value"
            case "command" | "prompt" | "none":
                return self.kind
            case "env" | "file" | "credential" | "fd":
                return f"{self.kind}:{_visible(self.target)}"
            case _:
                assert_never(self.kind)

    def __repr__(self) -> str:
        """Show the source as far as it may be shown."""
        return f"SecretSource({self.noted!r})"


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that was read; `identity` tells a file's states apart and is None for other sources."""

    secret: Secret
    identity: Identity | None = None


def parse_source(text: str) -> SecretSource:
    """Parse a source such as `env:NAME` or `file:PATH`; reads nothing.

    Raises UsageError, which never quotes the text: who gives the PIN itself by mistake must not find it in a log.
    """
    word, colon, target = text.partition(":")
    if word in _LATER:
        raise UsageError(f"the secret source '{word}' is not supported by this version", hint=_KNOWN)
    kind = _KINDS.get(word)
    if kind is None:
        raise _unknown(text, word)
    if kind in ("prompt", "none"):
        if colon:
            raise UsageError(f"the secret source '{kind}' takes nothing after it", hint=f"write {kind} alone")
        return SecretSource(kind=kind)
    if not target or "\0" in target:
        form = next(form for form, of in _FORMS.items() if of == kind)
        raise UsageError(
            f"the secret source '{kind}' has {'a NUL character' if target else 'nothing'} after its colon",
            hint=f"it is written {form}",
        )
    _check_target(kind, target)
    return SecretSource(kind=kind, target=target)


def _unknown(text: str, word: str) -> UsageError:
    near = "file" if text.startswith(("/", "./", "../", "~")) else nearest(word, _KINDS)
    hint = f"did you mean '{next(form for form in _FORMS if form.startswith(near))}'? {_KNOWN}" if near else _KNOWN
    return UsageError("the secret source is of no known kind" if text else "the secret source is empty", hint=hint)


def _check_target(kind: Kind, target: str) -> None:
    """Refuse what no source of this kind can mean; a target that may be a misplaced secret is not quoted."""
    what = hint = None
    if kind == "env" and not _ENV_NAME.fullmatch(target):
        what, hint = "is not the name of an environment variable", "env:NAME takes the name, not the value"
    elif kind == "credential" and ("/" in target or target in (".", "..")):
        what, hint = "is not a plain file name", "file:PATH takes a path"
    elif kind == "fd" and not _DESCRIPTOR.fullmatch(target):
        what, hint = "is not the number of a file descriptor", "it is written fd:N, such as fd:3"
    elif kind == "fd" and int(target) in (1, 2):
        what, hint = "is an output, and no secret can be read from it", "fd:0 is stdin; fd:3 and above are free"
    elif kind == "command" and not _words(target):
        what = "is no command line: it names no program, or leaves a quotation open"
        hint = "it is split as a shell would split it, and no shell runs it"
    if what is not None:
        raise UsageError(f"what follows '{kind}:' {what}", hint=hint)


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError:  # an open quotation
        return []
    return words if words and words[0] else []


def resolve(
    source: SecretSource,
    *,
    purpose: str,
    question: str,
    prompt: Prompter | None,
    environ: Mapping[str, str],
    deadline: Deadline,
    mounted: bool = False,
    max_bytes: int = 4096,
) -> Resolved:
    """Read the secret, once: a second reading of a pipe finds it empty.

    `purpose` names the secret in messages ("PIN"), `question` is what `prompt` asks on the terminal. `mounted` allows a
    file that others may read (a Kubernetes or Docker secret). `max_bytes` counts UTF-8 without the line ending that is
    cut. Source `none` gives an empty secret.

    Raises ConfigError where the source cannot be read or its value cannot be one, LoginError where nobody can be asked,
    and the deadline's error (BusyError) where a descriptor or a command gives nothing in time.
    """
    wanted = _Wanted(source=source, purpose=purpose, environ=environ, deadline=deadline, max_bytes=max_bytes)
    identity: Identity | None = None
    kind = source.kind
    match kind:
        case "none":
            return Resolved(secret=Secret(""))
        case "value":
            raw = _encoded(source.target)
        case "prompt":
            raw = _asked(wanted, question, prompt)
        case "env":
            raw = _from_environment(wanted)
        case "file":
            raw, identity = _from_file(wanted, source.target, readable=mounted)
        case "credential":
            raw, identity = _from_file(wanted, _credential_path(wanted), readable=True)
        case "fd":
            with _waiting(wanted):
                raw = _from_descriptor(wanted)
        case "command":
            with _waiting(wanted):
                raw = _from_command(wanted)
        case _:
            assert_never(kind)
    return Resolved(secret=_checked(wanted, raw), identity=identity)


def look(source: SecretSource, *, purpose: str, environ: Mapping[str, str], mounted: bool = False) -> None:
    """Judge the file that a source names, without opening it; other sources have none.

    Raises OSError where it cannot be looked at, ConfigError where `resolve` would refuse it.
    """
    if source.kind == "file":
        readable = mounted or _under_credentials(source.target, environ)
        file = f"the {purpose} file '{_visible(source.target)}'"
        _judge(file, source.target, os.stat(source.target), readable=readable)


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader needs to know."""

    source: SecretSource
    purpose: str
    environ: Mapping[str, str]
    deadline: Deadline
    max_bytes: int

    @property
    def room(self) -> int:
        """Bytes to read at most: a line ending more than a value may have, and one to see that it is longer."""
        return self.max_bytes + 3

    def fault(self, what: str, hint: str) -> ConfigError:
        """Build the error about the value itself."""
        return ConfigError(f"the {self.purpose} from '{self.source.noted}' {what}", hint=hint)


@contextlib.contextmanager
def _waiting(wanted: _Wanted) -> Iterator[None]:
    """Let the deadline name the source while it is read."""
    deadline = wanted.deadline
    before = deadline.stage, deadline.error
    deadline.enter(f"the {wanted.purpose} source '{wanted.source.noted}'")
    try:
        yield
    finally:
        deadline.enter(*before)


def _checked(wanted: _Wanted, raw: bytes) -> Secret:
    """Cut one line ending and refuse what no token or server would take: an empty PIN, too, burns a try."""
    text = text_of(raw, wanted.max_bytes)
    if isinstance(text, Unfit):
        raise wanted.fault(text.what, text.hint)
    return Secret(text)


def _asked(wanted: _Wanted, question: str, prompt: Prompter | None) -> bytes:
    if prompt is None:
        raise LoginError(
            f"there is no terminal on which to ask for the {wanted.purpose}",
            hint=f"name a source that needs no person; {_KNOWN}",
        )
    with wanted.deadline.paused():
        return _encoded(prompt(question))


def _from_environment(wanted: _Wanted) -> bytes:
    name = wanted.source.target
    value = wanted.environ.get(name, "")
    if not value:
        state = "is empty" if name in wanted.environ else "is not set"
        raise ConfigError(
            f"the environment variable {name!r}, which is to hold the {wanted.purpose}, {state}",
            hint="set and export it, or name another source",
        )
    try:
        return os.fsencode(value)  # the bytes that were set, whatever the locale made of them
    except UnicodeEncodeError:
        return _encoded(value)


def _credential_path(wanted: _Wanted) -> str:
    name = wanted.source.target
    folder = wanted.environ.get("CREDENTIALS_DIRECTORY", "")
    if not os.path.isabs(folder):
        raise ConfigError(
            f"the credential {name!r} cannot be found: CREDENTIALS_DIRECTORY is not set",
            hint=f"systemd sets it for a unit with LoadCredential={_visible(name)}:PATH",
        )
    return os.path.join(folder, name)


def _from_file(wanted: _Wanted, path: str, *, readable: bool) -> tuple[bytes, Identity]:
    """Read a regular file of root's or ours; a symlink is followed and what it reaches is judged (fstat)."""
    file = f"the {wanted.purpose} file '{_visible(path)}'"
    try:
        # O_NONBLOCK: a FIFO must not hold us before we see that it is one
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        hint = "check the path, and that we may read what is there"
        if path.startswith("~"):
            hint = "~ is not expanded here; write the path in full"
        raise ConfigError(f"{file} cannot be read: {_reason(error)}", hint=hint) from error
    try:
        status = os.fstat(fd)
        _judge(file, path, status, readable=readable or _under_credentials(path, wanted.environ))
        raw = b""
        while len(raw) < wanted.room and (chunk := os.read(fd, wanted.room - len(raw))):
            raw += chunk
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {_reason(error)}", hint="check its disk, or mount") from error
    finally:
        os.close(fd)
    return raw, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _judge(file: str, path: str, status: os.stat_result, *, readable: bool) -> None:
    mode = stat.S_IMODE(status.st_mode)
    quoted = _visible(shlex.quote(path))
    if stat.S_ISDIR(status.st_mode):
        what, hint = "is a folder", "name the file in it"
    elif not stat.S_ISREG(status.st_mode):
        what, hint = "is not a regular file", "fd:N reads an open descriptor, a pipe or a shell's <(...) among them"
    elif status.st_uid not in (0, os.geteuid()):
        what, hint = f"belongs to user {status.st_uid}, neither to root nor to us", f"chown root {quoted}"
    elif mode & 0o022:
        what, hint = f"is writable by others (mode {mode:04o})", f"chmod 600 {quoted}"
    elif mode & 0o044 and not readable:
        what = f"is readable by others (mode {mode:04o})"
        hint = f'chmod 600 {quoted}; a PIN file that is mounted may be, with pin_file_check = "mount" in the key table'
    else:
        return
    raise ConfigError(f"{file} {what}", hint=hint)


def _under_credentials(path: str, environ: Mapping[str, str]) -> bool:
    """Tell whether the path leads into systemd's folder, where an ACL shows as a group that may read."""
    named = environ.get("CREDENTIALS_DIRECTORY", "")
    if not os.path.isabs(named):
        return False
    folder = os.path.realpath(named)
    return folder != "/" and os.path.realpath(path).startswith(folder + "/")


def _from_descriptor(wanted: _Wanted) -> bytes:
    """Read to the end of the descriptor; it stays open, since it is not ours."""
    fd = int(wanted.source.target)
    try:
        if os.isatty(fd):
            raise wanted.fault("would be typed where it shows: it is a terminal", hint="prompt asks and shows nothing")
        return read_to_end(fd, wanted.room, wanted.deadline)
    except OSError as error:
        raise ConfigError(
            f"the {wanted.purpose} cannot be read from file descriptor '{fd}': {_reason(error)}",
            hint=f"open it for hsmjwt, as a shell does with {fd}<FILE",
        ) from error


def _from_command(wanted: _Wanted) -> bytes:
    words = _words(wanted.source.target)
    program = f"the program {words[0]!r}, which is to print the {wanted.purpose},"
    try:
        code, printed = output_of(words, wanted.environ, _OUTPUT_LIMIT + 1, wanted.deadline)
    except (OSError, ValueError) as error:
        hint = "name a program on PATH, or its whole path"
        raise ConfigError(f"{program} cannot be started: {_reason(error)}", hint=hint) from error
    if len(printed) > _OUTPUT_LIMIT:
        raise ConfigError(f"{program} prints more than {_OUTPUT_LIMIT} bytes", hint="it is to print the secret alone")
    if code:
        ended = f"exit code {code}" if code > 0 else f"signal {-code}"
        raise ConfigError(f"{program} ended with {ended}", hint="run it by hand, as this user, to see why")
    line, ending, _ = printed.partition(b"\n")
    return line + ending


def _encoded(text: str) -> bytes:
    """Encode a text that may hold lone surrogates, so that they are found to be no UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _reason(error: OSError | ValueError) -> str:
    reason = error.strerror if isinstance(error, OSError) else None
    return (reason or "it holds a character that no name can hold").lower()
