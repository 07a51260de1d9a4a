"""The shortest script that signs what `hsmjwt sign` signs, verification and all: typer, python-pkcs11, cryptography."""

import base64
import json
import time
import uuid

import pkcs11
import typer
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from pkcs11 import Attribute, Mechanism, ObjectClass


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def segment(value: dict[str, object]) -> str:
    return encoded(json.dumps(value, separators=(",", ":")).encode())


def main(module: str, token: str, key: str, pin_file: str, iss: str, aud: str) -> None:
    now = int(time.time())
    claims = {"iss": iss, "sub": iss, "aud": aud, "exp": now + 300, "iat": now, "jti": str(uuid.uuid4())}
    message = f"{segment({'typ': 'JWT', 'alg': 'RS256'})}.{segment(claims)}".encode()
    with open(pin_file) as file:
        pin = file.read().strip()
    with pkcs11.lib(module).get_token(token_label=token).open(user_pin=pin) as session:
        private = session.get_key(ObjectClass.PRIVATE_KEY, label=key)
        signature = private.sign(message, mechanism=Mechanism.SHA256_RSA_PKCS)
        n, e = (int.from_bytes(private[name], "big") for name in (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT))
    rsa.RSAPublicNumbers(e, n).public_key().verify(signature, message, padding.PKCS1v15(), SHA256())
    print(f"{message.decode()}.{encoded(signature)}")


typer.run(main)
