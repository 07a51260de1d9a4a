"""Which proxy a request goes through. A proxy's URL often holds a password: nothing here shows more than its host."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

import msgspec

from hsmjwt.errors import ConfigError
from hsmjwt.oauth.endpoint import Endpoint, checked_host, checked_port
from hsmjwt.oauth.failure import ProxyFault

_URL = re.compile(r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?(?P<authority>[^/?#\\]*)(?P<rest>.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?:(?P<user>.*)@)?(?P<host>\[[^\]]*\]|[^:\[\]@]*)(?::(?P<port>[^@]*))?", re.DOTALL)
_PORTS = {"http": 80, "https": 443}
# The lower case spelling wins, as with curl and urllib; http goes to this machine alone, and never through a proxy.
_VARIABLES = (("https_proxy", "HTTPS_PROXY"), ("all_proxy", "ALL_PROXY"))


class Proxy(msgspec.Struct, frozen=True, kw_only=True):
    """A proxy; `authorization` is the value of its Proxy-Authorization field, and `source` says where it was named."""

    scheme: str
    host: str
    port: int
    source: str
    authorization: str | None = None

    @property
    def url(self) -> str:
        """The proxy's URL without user name and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __repr__(self) -> str:
        """Show everything but the password."""
        return f"Proxy(url={self.url!r}, source={self.source!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show no more than `repr` does: msgspec's own hands every field to a pretty printer."""
        return [("url", self.url), ("source", self.source)]


def choose(endpoint: Endpoint, configured: str | None, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a request to `endpoint`, None where it goes straight there: always to this machine.

    `configured` is the profile's: it wins over the environment, NO_PROXY included, and '' means none. Raises
    ConfigError for a URL that cannot be read, ProxyFault for a kind of proxy that is not supported.
    """
    if endpoint.loopback:
        return None
    if configured is not None:
        return _parse(configured.strip(), "proxy") if configured.strip() else None
    for names in _VARIABLES:
        name = next((name for name in names if name in environ), None)
        text = environ[name].strip() if name else ""
        if name and text:
            return None if _exempt(endpoint, environ) else _parse(text, name)
    return None


def _parse(text: str, source: str) -> Proxy:
    """Read `[scheme://][user[:password]@]host[:port][/]`, and nothing that another reader could split otherwise."""
    where = "the proxy of the profile" if source == "proxy" else f"the proxy in {source}"
    hint = "in a user name or password, characters such as / ? # @ : are percent-encoded: / is %2F"
    match = _URL.fullmatch(text)
    parts = _AUTHORITY.fullmatch(match["authority"]) if match else None
    if match is None or parts is None or match["rest"] not in ("", "/") or not text.isprintable() or " " in text:
        raise ConfigError(f"{where} is no URL of a proxy, such as http://proxy.example:3128", hint=hint)
    scheme = (match["scheme"] or "http").lower()
    host = checked_host(parts["host"])
    if host is None:
        raise ConfigError(f"{where} has no host that can be read", hint=hint)
    port = checked_port(parts["port"], default=_PORTS.get(scheme, 1080))
    if port is None:
        raise ConfigError(f"{where} has a port that is no number from 1 to 65535", hint=hint)
    if scheme.startswith("socks"):
        raise ProxyFault(f"{where} is a SOCKS proxy, which is not supported", hint="name an http or https proxy")
    if scheme not in _PORTS:
        raise ConfigError(f"{where} is neither http://… nor https://…")
    return Proxy(scheme=scheme, host=host, port=port, source=source, authorization=_authorization(parts["user"]))


def _authorization(user: str | None) -> str | None:
    """Return HTTP Basic credentials (RFC 7617) for a URL's userinfo, None where it has none."""
    if not user:
        return None
    name, _, password = user.partition(":")
    pair = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
    return "Basic " + base64.b64encode(pair).decode("ascii")


def _exempt(endpoint: Endpoint, environ: Mapping[str, str]) -> bool:
    """Tell whether NO_PROXY names the host: itself, a domain above it, an address, a network, `*`; perhaps a port."""
    text = environ.get("no_proxy", environ.get("NO_PROXY", ""))
    return any(_names(entry.lower(), endpoint) for entry in re.split(r"[,\s]+", text) if entry)


def _names(entry: str, endpoint: Endpoint) -> bool:
    host = endpoint.host.removesuffix(".")
    name, colon, port = entry.rpartition(":")
    if colon and port.isascii() and port.isdigit() and ("]" in name or ":" not in name):
        if checked_port(port, default=0) != endpoint.port:
            return False
        entry = name
    if entry == "*":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        domain = entry.removeprefix("*").removeprefix(".").removesuffix(".")
        return bool(domain) and (host == domain or host.endswith("." + domain))
    try:
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:  # a name, which no address is below
        return False
