"""A token endpoint's URL: https, or http to this machine; judged in the one way in which nobody can read it otherwise.

Parsers of URLs differ where a URL is odd (a backslash, a userinfo, a number for a host), and an assertion sent to the
host that the other parser saw is lost. So only the plain form is taken: what every parser reads alike.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

import msgspec

from hsmjwt.errors import UsageError
from hsmjwt.oauth.shown import HIDDEN, cut, escaped

_PORTS = {"https": 443, "http": 80}
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?", re.DOTALL)
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]*|[0-9]+")  # a last label like this is an address to getaddrinfo, not a name
_LONGEST_NAME = 253  # RFC 1035, section 2.3.4
_LONGEST_SHOWN = 120


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checked URL: `host` in lower case, IPv6 without its brackets; `explicit` where the URL itself has a port."""

    url: str
    scheme: Literal["https", "http"]
    host: str
    port: int
    explicit: bool

    @property
    def name(self) -> str:
        """The host as messages show it, with the port where the URL gives one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.explicit else host

    @property
    def loopback(self) -> bool:
        """Whether the host is this machine."""
        return is_loopback(self.host)


def check_endpoint(url: str) -> str:
    """Return `url` as it is if an assertion may be sent there; raises UsageError, with no userinfo shown, if not."""
    return parse_endpoint(url).url


def parse_endpoint(url: str) -> Endpoint:
    """Return the parts of a server's URL (RFC 3986).

    Raises UsageError for a scheme other than https, and http to other hosts than 127.0.0.0/8, ::1 and localhost; for a
    userinfo, a fragment, a missing host, a port outside of 1 to 65535, and whatever two parsers may read differently.
    """
    if not url:
        raise UsageError("the server's URL is empty")
    odd = next((c for c in url if not "!" <= c <= "~" or c == "\\"), None)
    if odd is not None:
        what = "a backslash" if odd == "\\" else "a blank" if odd == " " else f"the character '{escaped(odd)}'"
        hint = None if odd.isascii() else "not ASCII: percent-encoded in a path, written as xn--… in a host name"
        raise UsageError(f"the server's URL {shown(url)} holds {what}", hint=hint)
    match = _URL.fullmatch(url)
    scheme = match["scheme"].lower() if match else ""
    if match is None or scheme not in _PORTS:
        hint = "http is for this machine alone: localhost, 127.0.0.1, [::1]"
        raise UsageError(f"the server's URL {shown(url)} is neither https://… nor http://… to loopback", hint=hint)
    if "@" in match["authority"]:
        raise UsageError(f"the server's URL {shown(url)} holds a user name or password before the host")
    if "#" in match["rest"]:
        raise UsageError(f"the server's URL {shown(url)} has a fragment (#…)")
    parts = _AUTHORITY.fullmatch(match["authority"])
    if parts is None:
        raise UsageError(f"the server's URL {shown(url)} has no host that can be read")
    host = checked_host(parts["host"])
    if host is None:
        raise UsageError(f"the server's URL {shown(url)} has {why_no_host(parts['host'])}")
    port = checked_port(parts["port"], default=_PORTS[scheme])
    if port is None:
        raise UsageError(f"the server's URL {shown(url)} has a port that is no number from 1 to 65535")
    if scheme == "http" and not is_loopback(host):
        hint = "http is for this machine alone: localhost, 127.0.0.1, [::1]"
        raise UsageError(f"the server's URL {shown(url)} is not https, and its host is not this machine", hint=hint)
    return Endpoint(
        url=url, scheme="http" if scheme == "http" else "https", host=host, port=port, explicit=bool(parts["port"])
    )


def checked_host(text: str) -> str | None:
    """Return a host in lower case, IPv6 without brackets; None where it is not a plain name or address.

    Numbers that only getaddrinfo takes for an address (127.1, 0x7f.1, 2130706433) are none, nor are 0.0.0.0/8 and ::,
    which mean this machine on Linux and are not its loopback address.
    """
    try:
        if text.startswith("["):
            v6 = ipaddress.IPv6Address(text[1:-1]) if "%" not in text else None
            return None if v6 is None or v6.is_unspecified else text[1:-1].lower()
        labels = text.removesuffix(".").split(".")
        if len(text) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)):
            return None
        if _NUMBER.fullmatch(labels[-1]):
            return None if ipaddress.IPv4Address(text).packed[0] == 0 else text
    except ValueError:
        return None
    return text.lower()


def why_no_host(text: str) -> str:
    """Say what is wrong with a host that `checked_host` does not take."""
    if not text:
        return "no host"
    return f"a host that is no plain name or address ('{cut(escaped(text), _LONGEST_SHOWN)}')"


def checked_port(text: str | None, *, default: int) -> int | None:
    """Return a port, `default` where there is none, None where it is no number from 1 to 65535."""
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 5):  # the digits of 65535
        return None
    return int(text) if 1 <= int(text) <= 65535 else None  # RFC 793


def is_loopback(host: str) -> bool:
    """Tell whether a checked host is this machine: 127.0.0.0/8, ::1, or localhost by name (RFC 6761, section 6.3)."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return address.packed[0] == 127  # RFC 1122, section 3.2.1.3
    return address == ipaddress.IPv6Address(1)


def shown(url: str) -> str:
    """Return a URL in quotes as a message may show it: without userinfo, query and fragment, escaped and cut."""
    before, at, after = url.rpartition("@")
    if at:
        scheme, separator, _ = before.partition("://")
        url = f"{scheme}{separator}{HIDDEN}@{after}" if separator else f"{HIDDEN}@{after}"
    base = re.split("[?#]", url, maxsplit=1)[0]
    if base != url:
        base += url[len(base)] + HIDDEN
    return f"'{cut(escaped(base), _LONGEST_SHOWN)}'"
