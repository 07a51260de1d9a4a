"""Which texts can be a secret: whatever somebody types on one line, and no control character."""

from __future__ import annotations

import pytest

from hsmjwt.deadline import Deadline
from hsmjwt.errors import ConfigError
from hsmjwt.secret import SecretSource, resolve

PIN = "S3cr3tPin-7461"  # a marker: no message may hold it


def text_of(source: SecretSource) -> str:
    options = {"purpose": "PIN", "question": "PIN: ", "prompt": None, "environ": {}, "deadline": Deadline(20)}
    return resolve(source, **options).secret.reveal()


def refusal(source: SecretSource) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        text_of(source)
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
