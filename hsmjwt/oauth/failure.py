"""How an exchange fails on the network, and whether it is worth asking again.

A request is repeated only where the server cannot have answered it, or asks for patience: each further request carries
a new assertion, and the caller renews it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from hsmjwt.errors import HsmjwtError, NetworkError

REQUESTS = 3  # in all, the first included
RETRIED = frozenset({429, 502, 503, 504})

_WAITS = (0.5, 1.0)  # seconds after the first and after the second request, half of it more or less


class ExchangeFault(NetworkError):
    """The server gave no answer that counts; `retryable` where the same request may be made again."""

    retryable: ClassVar[bool] = False


class ConnectionFault(ExchangeFault):
    """The server was not reached, or the connection was reset or closed before a whole answer had come."""

    retryable = True


class TlsFault(ExchangeFault):
    """TLS was not agreed on, or the server's certificate does not hold."""


class ReadTimeout(ExchangeFault):
    """The server was reached and was silent for too long; it may have processed the request."""


class ProxyFault(ExchangeFault):
    """The proxy cannot be used, or does not let us through."""


class ProxyUnreached(ProxyFault):
    """The proxy was not reached, or did not reach the server."""

    retryable = True


class BusyAnswer(ExchangeFault):
    """The server answered 429 or 5xx; `retry_after` is what it asked to wait for, in seconds."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        retry_after: float | None = None,
        hint: str | None = None,
        oauth_error: str | None = None,
    ) -> None:
        """Keep the answer's status and what it asked for."""
        super().__init__(message, hint=hint, oauth_error=oauth_error)
        self.status = status
        self.retry_after = retry_after


def retry_wait(failure: HsmjwtError, attempt: int, *, rand: Callable[[], float]) -> float | None:
    """Return how many seconds to wait before the next request, None where there is none.

    `attempt` counts the requests made so far, from 1; `rand` returns a number from 0 up to 1 (random.random). Waits
    are 0.5 s and 1 s, up to half of it more or less, or what Retry-After asks for (RFC 9110, section 10.2.3).
    """
    if not 1 <= attempt < REQUESTS:
        return None
    if isinstance(failure, BusyAnswer):
        if failure.status not in RETRIED:
            return None
        if failure.retry_after is not None:
            return failure.retry_after
    elif not (isinstance(failure, ExchangeFault) and failure.retryable):
        return None
    return _WAITS[attempt - 1] * (0.5 + rand())
