"""Fill a token: the keys `rsa` (RSA-2048) and `ec` (P-256), and copies of both up to a number of private keys.

make_keys.py MODULE PIN-FILE COUNT

Copies, since a thousand RSA keys would take minutes; a search looks at labels and attributes, and cannot tell.
"""

from __future__ import annotations

import sys

import pkcs11
from pkcs11 import Attribute, KeyType, MechanismFlag

_P256 = bytes.fromhex("06082a8648ce3d030107")  # the object identifier of RFC 5480, section 2.1.1.1


def main(module: str, pin_file: str, count: str) -> None:
    """Make them."""
    with open(pin_file, encoding="ascii") as file:
        pin = file.read().strip()
    uses = MechanismFlag.SIGN | MechanismFlag.VERIFY
    with pkcs11.lib(module).get_token(token_label="hsmjwt").open(rw=True, user_pin=pin) as session:
        rsa = session.generate_keypair(KeyType.RSA, 2048, store=True, label="rsa", id=b"\0\0\1", capabilities=uses)
        if int(count) == 1:
            return
        curve = session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: _P256}, local=True)
        ec = curve.generate_keypair(store=True, label="ec", id=b"\0\0\2", capabilities=uses)
        for number in range(3, int(count) + 1):
            for half in (rsa, ec)[number % 2]:
                half.copy({Attribute.LABEL: f"key-{number}", Attribute.ID: number.to_bytes(3, "big")})


main(*sys.argv[1:])
