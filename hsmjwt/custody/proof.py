"""The self-test of a key: one signature over bytes that mean nothing, verified before anybody relies on the key."""

from __future__ import annotations

import os

import msgspec

from hsmjwt.compose.devices import DeviceChoice, Devices, open_signer
from hsmjwt.guard.policy import SELF_TEST
from hsmjwt.hsm.uri import parse
from hsmjwt.jose.algorithms import by_default, preferred
from hsmjwt.jose.keys import PublicKey


def self_test(devices: Devices, choice: DeviceChoice, uri: str, alg: str | None = None) -> PublicKey:
    """Sign once with the key that `uri` selects, by its first algorithm unless one is named; return its public half.

    Raises what opening the key and signing raise, DeviceError where the signature does not verify.
    """
    opened = open_signer(devices, msgspec.structs.replace(choice, uri=parse(uri)), "self-test", alg)
    signer = opened.signer
    chosen = preferred(() if alg is None else (alg,), opened.algs) or by_default(signer.public_key)
    signer.sign(SELF_TEST + os.urandom(32), chosen)
    return signer.public_key
