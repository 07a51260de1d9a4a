"""The only exception tree: each class knows its exit code, its name in `--json` and its HTTP status."""

from __future__ import annotations

from typing import ClassVar


class HsmjwtError(Exception):
    """Base of every error that hsmjwt raises on purpose.

    `message` is lower case, quotes the user's own value and ends without a full stop; `hint` says what to do next.
    Neither may hold a secret. `ckr` is a PKCS#11 return code by name, `oauth_error` a code of RFC 6749, section 5.2.
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "bug"
    http_status: ClassVar[int] = 500
    usual_hint: ClassVar[str | None] = None
    """What helps in most cases of the class, for an error that knows nothing better."""

    def __init__(
        self, message: str, *, hint: str | None = None, ckr: str | None = None, oauth_error: str | None = None
    ) -> None:
        """Keep the message and what belongs to it."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.ckr = ckr
        self.oauth_error = oauth_error


class UsageError(HsmjwtError):
    """A flag, an argument or a value that cannot be meant."""

    exit_code, code, http_status = 2, "usage", 400
    usual_hint = "the command's --help shows the form that it takes"


class ConfigError(HsmjwtError):
    """The configuration, a secret source or a local folder is not usable."""

    exit_code, code, http_status = 3, "config", 500
    usual_hint = "hsmjwt doctor looks at what is set up, step by step"


class TokenError(HsmjwtError):
    """The module or the PKCS#11 token is not there, or not usable."""

    exit_code, code, http_status = 4, "token", 503
    usual_hint = "hsmjwt slot list shows what is there"


class TokenNotFoundError(TokenError):
    """No token fits."""


class TokenNotUniqueError(TokenError):
    """Several tokens fit."""


class LoginError(HsmjwtError):
    """The login was refused by the token, or withheld by us."""

    exit_code, code, http_status = 5, "login", 503
    usual_hint = "hsmjwt doctor looks at the login, among others"


class KeyFault(HsmjwtError):
    """The key cannot be used."""

    exit_code, code, http_status = 6, "key", 500
    usual_hint = "hsmjwt key list shows the keys that are there"


class KeyNotFoundError(KeyFault):
    """No object fits."""


class KeyNotUniqueError(KeyFault):
    """Several objects fit."""


class KeyUnfitError(KeyFault):
    """The object was found and cannot do what is asked of it."""


class DeviceError(HsmjwtError):
    """The token failed, or its signature does not verify."""

    exit_code, code, http_status = 7, "device", 502
    usual_hint = "hsmjwt doctor looks at each step; --verbose says more"


class PolicyError(HsmjwtError):
    """A rule says no, before anything is signed."""

    exit_code, code, http_status = 8, "policy", 403
    usual_hint = "--dry-run shows what would be signed"


class NetworkError(HsmjwtError):
    """The server was not reached, or gave no complete answer in time."""

    exit_code, code, http_status = 9, "network", 504
    usual_hint = "hsmjwt doctor tries the server without an assertion"


class ServerError(HsmjwtError):
    """The server answered, and not with a token."""

    exit_code, code, http_status = 10, "server", 502
    usual_hint = "what the server itself has logged says more"


class BusyError(HsmjwtError):
    """Out of time while waiting for a lock or the token: safe to try again."""

    exit_code, code, http_status = 11, "busy", 503
    usual_hint = "it is safe to try again; --timeout DURATION waits longer"
