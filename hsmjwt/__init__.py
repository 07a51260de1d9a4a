"""Sign OAuth assertions with a key that never leaves its PKCS#11 token, and exchange them for access tokens."""

__version__ = "0.1.0"
