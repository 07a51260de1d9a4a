"""From a URI to exactly one token: what is said where there is none, or more than one."""

import re

import pkcs11
import pytest

from hsmjwt.hsm.discovery import ModuleChoice
from hsmjwt.hsm.module import Module
from hsmjwt.hsm.uri import KeyUri, parse


def candidates(done):
    """The URIs in the hint."""
    return re.findall(r"^  (pkcs11:\S+)$", done.err, re.MULTILINE)


def test_two_tokens_with_one_label_are_told_apart_by_serial(sign, token):
    token.make_token("t1")
    done = sign()
    assert (done.code, done.out) == (4, "")
    assert "2 tokens fit 'pkcs11:token=t1;object=k1'" in done.err
    uris = candidates(done)
    assert len(uris) == 2
    assert "slot-id" not in done.err
    assert sorted(sign(HSMJWT_KEY=f"{uri};object=k1").code for uri in uris) == [0, 6]


def test_a_token_that_is_absent_is_answered_with_those_that_are_there(sign, token):
    token.make_token("Rutoken <no label>; 100%?")
    done = sign(HSMJWT_KEY="pkcs11:token=other;object=k1")
    assert (done.code, done.out) == (4, "")
    assert "no token fits 'pkcs11:token=other;object=k1'" in done.err
    assert len(candidates(done)) == 2
    assert "%3Cno%20label%3E%3B%20100%25%3F" in done.err


@pytest.mark.parametrize(
    "attribute",
    ["slot-id=4611686018427387904", "library-description=other", "library-version=1.0", "obejct=k1"],
)
def test_an_attribute_that_fits_no_token(sign, attribute):
    done = sign(HSMJWT_KEY=f"pkcs11:token=t1;object=k1;{attribute}")
    assert (done.code, done.out) == (4, "")
    if attribute.startswith("obejct"):
        assert "did you mean 'object'?" in done.err


def test_attributes_of_library_and_slot_that_fit(sign):
    sign_with = "pkcs11:token=t1;object=k1;library-manufacturer=SoftHSM;model=SoftHSM%20v2;library-version=2.6"
    assert sign(HSMJWT_KEY=sign_with).code == 0


# What SoftHSM never shows: two tokens with the same label and serial number, a token that cannot be read.


class FakeToken:
    def __init__(self, label="t", serial=b"1", flags=0x40D):
        self.label, self.serial, self.model, self.manufacturer_id = label, serial, "m", "x"
        self.flags = pkcs11.TokenFlag(flags)


class FakeSlot:
    def __init__(self, slot_id, token=None, error=None):
        self.slot_id, self._token, self._error = slot_id, token, error
        self.slot_description = self.manufacturer_id = "s"

    def get_token(self):
        if self._error is not None:
            raise self._error
        return self._token


class FakeLibrary:
    used = False

    library_description, manufacturer_id, library_version = "l", "m", (1, 0)

    def __init__(self, slots):
        self.lib, self._slots, self.restarts = self, slots, 0

    def get_slots(self):
        return self._slots

    def check_process(self):
        pass

    def restart(self):
        self.restarts += 1


def module_with(*slots):
    warnings = []
    module = Module.__new__(Module)
    module.choice = ModuleChoice("/m.so", "/m.so", "test")
    module.library = FakeLibrary(slots)
    module._lock, module._warn = None, warnings.append
    return module, warnings


def test_a_slot_id_is_written_only_where_nothing_else_tells_two_tokens_apart():
    module, _ = module_with(FakeSlot(3, FakeToken()), FakeSlot(9, FakeToken()), FakeSlot(4, FakeToken("other")))
    slots = module.slots()
    assert module.token_uris(slots) == [
        "pkcs11:token=t;serial=1;slot-id=3",
        "pkcs11:token=t;serial=1;slot-id=9",
        "pkcs11:token=other;serial=1",
    ]
    assert [slot.needed_id for slot in slots] == [3, 9, None]
    for uri in module.token_uris(slots):
        assert len(module.find_tokens(parse(uri))) == 1
    assert module.library.restarts == 0


def test_a_slot_that_cannot_be_read_hides_no_other_and_is_warned_of():
    module, warnings = module_with(
        FakeSlot(1, error=pkcs11.exceptions.DeviceError()),
        FakeSlot(2, error=pkcs11.exceptions.TokenNotPresent()),
        FakeSlot(3, FakeToken()),
    )
    assert [slot.token is not None for slot in module.slots()] == [False, False, True]
    assert len(warnings) == 1
    assert "slot 1 (s) cannot be read" in warnings[0]
    assert module.find_token(KeyUri(token="t")).info.slot_id == 3


def test_a_token_that_is_missing_is_looked_for_once_more_after_a_fresh_start():
    module, _ = module_with()
    module.library.restart = lambda: module.library.__setattr__("_slots", [FakeSlot(3, FakeToken())])
    assert module.find_token(KeyUri(token="t")).info.slot_id == 3
