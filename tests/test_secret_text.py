"""Which texts can be a secret: whatever somebody types on one line, and no control character."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError, UsageError
from hsmjwt.secret import SecretSource, parse_source, resolve

PIN = "S3cr3tPin-7461"  # a marker: no message may hold it


def text_of(source: str | SecretSource, environ: Mapping[str, str] | None = None) -> str:
    parsed = parse_source(source) if isinstance(source, str) else source
    around = {"PATH": "/usr/bin:/bin"} if environ is None else environ
    options = {"purpose": "PIN", "question": "PIN: ", "prompt": None, "environ": around, "deadline": Deadline(20)}
    return resolve(parsed, **options).secret.reveal()


def refusal(source: str | SecretSource, environ: Mapping[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        text_of(source, environ)
    assert PIN not in f"{caught.value.message} {caught.value.hint} {caught.value!r}"
    return caught.value


@pytest.mark.parametrize("mark", [*map(chr, range(1, 32)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029"])
@pytest.mark.parametrize("at", [0, 4, len(PIN)])
def test_a_control_character_anywhere_is_refused_before_it_burns_a_try(mark, at):
    source = SecretSource(kind="value", target=PIN[:at] + mark + PIN[at:] + ("\n" if mark == "\n" else ""))
    error = refusal(source)
    assert error.exit_code == 3
    named = {"\n": "holds a line end inside", "\r": "holds a carriage return (\\r)"}
    assert error.message == f"the PIN from 'pin-value' {named.get(mark, 'holds a control character')}"
    assert error.hint


def test_blanks_and_letters_of_any_script_are_no_control_characters():
    for pin in (" 12 34 ", "pässwörd", "\u00a0\u200d\U0001f511", '~!"\\'):
        assert text_of(SecretSource(kind="value", target=pin)) == pin


def test_every_fault_says_what_to_do(tmp_path):
    big = tmp_path / "big"
    big.write_bytes(b"x" * 70000)

    def file_of(value: bytes) -> str:
        path = tmp_path / "pin"
        path.write_bytes(value)
        path.chmod(0o600)
        return f"file:{path}"

    values = [b"", b"a\0", b"\xff", b"x" * 5000, b"\xef\xbb\xbfx", b"a\nb", b"a\rb", b"a\tb"]
    faults = [refusal(file_of(value)) for value in values]
    faults += [refusal(f"file:{tmp_path}/absent"), refusal(f"file:{tmp_path}")]
    faults += [refusal("env:P", environ={}), refusal("env:P", environ={"P": ""}), refusal("fd:987")]
    faults += [refusal(f"command:{what}") for what in ("false", "/no/such/program", f"cat {big}")]
    for text in ("", "x", "prompt:x", "keyring:x", "env:", "env:7", "credential:a/b", "fd:x", "fd:1", "command: "):
        with pytest.raises(UsageError) as caught:
            parse_source(text)
        faults.append(caught.value)
    for fault in faults:
        assert fault.hint, fault.message
        assert "\n" not in fault.hint
