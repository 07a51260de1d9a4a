"""The shortest script that fetches an access token as `hsmjwt token` does: typer, python-pkcs11, requests.

It does not verify the signature before it sends it.
"""

import base64
import json
import time
import uuid

import pkcs11
import requests
import typer
from pkcs11 import Mechanism, ObjectClass

GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def segment(value: dict[str, object]) -> str:
    return encoded(json.dumps(value, separators=(",", ":")).encode())


def main(module: str, token: str, key: str, pin_file: str, iss: str, aud: str, url: str) -> None:
    now = int(time.time())
    claims = {"iss": iss, "sub": iss, "aud": aud, "exp": now + 300, "iat": now, "jti": str(uuid.uuid4())}
    message = f"{segment({'typ': 'JWT', 'alg': 'RS256'})}.{segment(claims)}"
    with open(pin_file) as file:
        pin = file.read().strip()
    with pkcs11.lib(module).get_token(token_label=token).open(user_pin=pin) as session:
        private = session.get_key(ObjectClass.PRIVATE_KEY, label=key)
        signature = private.sign(message.encode(), mechanism=Mechanism.SHA256_RSA_PKCS)
    form = {"grant_type": GRANT, "client_id": iss, "assertion": f"{message}.{encoded(signature)}"}
    answer = requests.post(url, data=form, timeout=30)
    answer.raise_for_status()
    print(answer.json()["access_token"])


typer.run(main)
