"""How an error has to look, whatever it is about."""

from __future__ import annotations

import json

NAMES = {
    1: "bug",
    2: "usage",
    3: "config",
    4: "token",
    5: "login",
    6: "key",
    7: "device",
    8: "policy",
    9: "network",
    10: "server",
    11: "busy",
}


def refused(ran, code: int, *words: str, hint: str | None = None) -> str:
    """Check an error's form, exit code and words, and those of its hint where there must be one; return stderr."""
    assert ran.code == code, ran
    assert ran.out == ""
    lines = [line for line in ran.err.splitlines() if not line.startswith("hsmjwt: warning: ")]
    first = lines[0].removeprefix("hsmjwt: error: ")
    assert first != lines[0]
    assert len([line for line in lines if line.startswith("hsmjwt: error: ")]) == 1
    for text in ("Traceback", "Exception ignored", "\x1b"):
        assert text not in ran.err
    assert not first.endswith(".")
    assert first[0] == first[0].lower() or first.split()[0].isupper() or first.startswith(("HSMJWT", "SoftHSM"))
    for word in words:
        assert word in first, (word, first)
    hints = [line for line in lines[1:] if not line.startswith("{")]
    if hints:
        assert hints[0].startswith("hsmjwt: hint: ")
        assert all(line.startswith("  ") for line in hints[1:])
    if hint is not None:
        assert hint in "\n".join(hints), (hint, hints)
    return ran.err


def told(ran) -> dict:
    """Return the error that `--json` adds as the last line of stderr, checked against what a person was told."""
    error = json.loads(ran.err.splitlines()[-1])["error"]
    assert set(error) >= {"code", "exit", "message", "hint", "ckr", "oauth_error"}
    assert error["exit"] == ran.code
    assert error["code"] == NAMES[ran.code]
    assert f"hsmjwt: error: {error['message']}\n" in ran.err
    if error["hint"]:
        assert f"hsmjwt: hint: {error['hint']}\n" in ran.err
    return error
