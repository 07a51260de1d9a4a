"""`hsmjwt slot list`: what a module shows without any login."""

from __future__ import annotations

from typing import Any

from hsmjwt.cli import device as devices
from hsmjwt.cli.flags import Device, Group, ModuleFlag, Shared, command
from hsmjwt.cli.run import Run

_LIST = """List the module's slots and tokens; never logs in.

\b
Examples:
  hsmjwt slot list
  hsmjwt slot list --module /usr/lib/softhsm/libsofthsm2.so --json
"""


@command(_LIST, device=ModuleFlag, shared=Shared)
def list_slots(run: Run, *, device: ModuleFlag, shared: Shared) -> None:
    """List slots."""
    run.limit(shared.timeout)
    settings = devices.load_settings(shared)
    open_devices = devices.open_with(run, settings)
    choice = devices.choose(run, settings, Device(module=device.module, pin_source="none"), needed=False)

    def read() -> list[dict[str, Any]]:
        opened = open_devices.module(choice)
        slots = opened.slots()
        opened.settle()
        rows = []
        for slot in slots:
            token = None
            if slot.token is not None:
                token = {
                    "label": slot.token.label,
                    "serial": slot.token.serial,
                    "model": slot.token.model,
                    "manufacturer": slot.token.manufacturer,
                    "flags": list(slot.flags),
                    "mechanisms": opened.mechanisms(slot),
                }
            rows.append(
                {
                    "module": opened.choice.path,
                    "slot_id": slot.info.slot_id,
                    "description": slot.info.description,
                    "token": token,
                }
            )
        return rows

    rows = run.wait(read)
    if shared.json:
        run.console.result_json(rows)
        return
    run.console.table(("SLOT", "TOKEN", "SERIAL", "MODEL", "STATE", "MODULE"), [_row(row) for row in rows])


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    token = row["token"]
    if token is None:
        return (str(row["slot_id"]), "-", "-", "-", "empty", row["module"])
    label = token["label"] or "-"
    return (str(row["slot_id"]), label, token["serial"] or "-", token["model"], _state(token["flags"]), row["module"])


def _state(flags: list[str]) -> str:
    if "TOKEN_INITIALIZED" not in flags:
        return "not initialised"
    words = []
    if "LOGIN_REQUIRED" not in flags:
        words.append("no login needed")
    for flag, word in (
        ("USER_PIN_LOCKED", "PIN locked"),
        ("USER_PIN_FINAL_TRY", "one try left"),
        ("USER_PIN_COUNT_LOW", "PIN count low"),
        ("USER_PIN_TO_BE_CHANGED", "PIN to be changed"),
    ):
        if flag in flags:
            words.append(word)
    if "LOGIN_REQUIRED" in flags and "USER_PIN_INITIALIZED" not in flags:
        words.append("no user PIN")
    return ", ".join(words) or "ready"


VERBS = {"slot": Group("Slots and the tokens in them.", {"list": list_slots})}
