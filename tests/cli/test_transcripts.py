"""Transcripts: each file of transcripts/ is a session at a shell, and must come out as it stands there.

    > NAME              a file in the working folder, up to a line that holds > alone
    $ COMMAND           run; | pipes, NAME=VALUE sets a variable, $MODULE, $URL and $DIR stand for what differs
      TEXT              what stdout holds, two blanks further in
    ! TEXT              what stderr holds
    = N                 the exit code

What no two runs share is written as <SERIAL>, <JWT> and so on. HSMJWT_WRITE_TRANSCRIPTS=1 writes the files anew: look
at the difference.
"""

from __future__ import annotations

import os
import re
import shlex
import string
from pathlib import Path

import pytest

from hsmjwt import __version__

FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
PASSING = (  # what differs from run to run, in the order in which it is replaced; columns are as wide as such values
    (r" {3,}", "  "),
    (r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]{100,}", "<JWT>"),
    (r"(?<=\"serial\": \")[0-9A-F]{30,40}", "<NUMBER>"),  # of a certificate; the next ones are tokens'
    (r"(?<=serial=)[0-9a-f]{16}|(?<=serial )[0-9a-f]{16}|(?<=\"serial\": \")[0-9a-f]{16}", "<SERIAL>"),
    (r"(?<=t1  )[0-9a-f]{16}", "<SERIAL>"),
    (r"(?<=slot ID 0x)[0-9a-f]+", "<SLOT>"),
    (r"(?<=\"slot_id\": )\d+|^\d+(?=  (?:t1|-)  )", "<SLOT>"),
    (r"(?<=\"mechanisms\": )\[[^]]*\]", "<MECHANISMS>"),
    (r"(?:%[0-9A-F]{2}){20}", "<ID>"),
    (r"\b[0-9a-f]{40}\b", "<ID>"),
    (r"\b[0-9a-f]{64}\b", "<SHA256>"),
    (r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<UUID>"),
    (r"(?<=\"n\": \")[\w-]{342}", "<MODULUS>"),
    (r"(?<=\"kid\": \")[\w-]{43}|(?<=thumbprint  )[\w-]{43}|(?<=\"thumbprint\": \")[\w-]{43}", "<THUMBPRINT>"),
    (r"(?<=^serial  )[0-9A-F]+", "<NUMBER>"),
    (r"(?<=^x5t#S256  )[\w-]{43}|(?<=\"x5t#S256\": \")[\w-]{43}", "<SHA256>"),
    (r"MII[\w+/=\\]{50,}(?:(?:\n|\\n)[\w+/=]+)*", "<BASE64>"),
    (r"(?<=ssh-rsa )AAAA[\w+/=]{100,}", "<BASE64>"),
    (r"/[\w/.-]+/libsofthsm2\.so", "<MODULE>"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:<PORT>"),
    (r"demo_[\w-]{20,}", "<ACCESS TOKEN>"),
    (r"2\d{3}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:Z| UTC)", "<TIME>"),
    (r"\b(?:1[789]|2\d)\d{8}\b", "<UNIX TIME>"),
    (r"\b(?:3599|3600)\b(?= s|,)", "3600"),
    (re.escape(__version__), "<VERSION>"),
)


class Session:
    """One transcript that is being run; `lines` are what it looks like this time."""

    def __init__(self, quick, token, folder: Path, url: str) -> None:
        self.quick = quick
        self.folder = folder
        self.words = {"MODULE": token.module, "URL": url, "DIR": str(folder)}
        self.lines: list[str] = []

    def play(self, script: list[str]) -> None:
        rest = iter(script)
        for line in rest:
            if line.startswith("> "):
                self.lines.append(line)
                text = []
                for inner in rest:
                    self.lines.append(inner)
                    if inner == ">":
                        break
                    text.append(inner)
                (self.folder / line[2:]).write_text(self.expanded("\n".join(text)) + "\n")
            elif line.startswith("$ "):
                self.lines.append(line)
                self.command(line[2:])
            elif line.startswith("#") or not line:
                self.lines.append(line)

    def expanded(self, text: str) -> str:
        return string.Template(text).safe_substitute(self.words)

    def command(self, text: str) -> None:
        data, errors, code = b"", "", 0
        for part in text.split(" | "):
            words = shlex.split(self.expanded(part))
            environ = dict(word.split("=", 1) for word in words[: words.index("hsmjwt")])
            done = self.quick(*words[words.index("hsmjwt") + 1 :], stdin=data, **environ)
            data, errors, code = done.out.encode(), errors + done.err, done.code
        self.lines += [line and f"  {line}" for line in self.passing(data.decode()).splitlines()]
        self.lines += [f"! {line}" for line in self.passing(errors).splitlines()]
        self.lines += [f"= {code}"]

    def passing(self, text: str) -> str:
        for name, value in self.words.items():
            text = text.replace(value, f"<{name}>")
        for pattern, place in PASSING:
            text = re.sub(pattern, place, text, flags=re.MULTILINE)
        return text


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_session_comes_out_as_written(file, quick, token, tmp_path, demo_server):
    session = Session(quick, token, tmp_path, demo_server.token_url)
    written = file.read_text()
    session.play(written.splitlines())
    now = "\n".join(session.lines) + "\n"
    if os.environ.get("HSMJWT_WRITE_TRANSCRIPTS"):
        file.write_text(now)
    assert now == written
