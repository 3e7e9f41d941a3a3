"""Which URLs a stranger may have us fetch: named hosts only, and no address inside, wherever a redirect may lead.

A name is checked when a request is made and again after every redirect. An address is checked on the socket that is
about to be connected, so that no name server can give one address to the check and another to the connection.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import SourceError, redact_url
from ..limits import Limits

if TYPE_CHECKING:
    import aiohttp

    from ..source.remote.paths import RemotePath

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PORTS = {"http": 80, "https": 443}
_RESOLVE = "on the Hub a file is behind /resolve/: https://huggingface.co/org/model/resolve/main/model.safetensors"
_SPECIAL = [
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's wire server: a public address that answers from inside
    ipaddress.ip_network(
        "192.0.0.0/24"
    ),  # protocol assignments, a cloud's metadata among them; Python 3.11 says public
]
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")


@dataclass(frozen=True)
class Guard:
    """What may be fetched.

    Attributes:
        hosts: names, ``*.`` before one for all below it, with a port where it is not that of the scheme.
        networks: private networks that are allowed, as CIDR.
    """

    hosts: tuple[str, ...]
    networks: tuple[str, ...] = ()

    def check_url(self, url: str) -> None:
        """Raise a SourceError if a URL leads where none may lead."""
        if "\\" in url or any(c.isspace() or not c.isprintable() for c in url):
            raise SourceError(redact_url(url), "a URL with characters that programs read in different ways")
        try:
            parts = urlsplit(url)
            scheme, host = parts.scheme.lower(), (parts.hostname or "").rstrip(".").lower()
            port = parts.port or _PORTS.get(scheme, 0)
        except ValueError:  # which quotes it, whatever is in it
            raise SourceError(redact_url(url), "not a URL") from None
        if scheme not in _PORTS:
            raise SourceError(redact_url(url), "only https:// and http:// are fetched here")
        if not any(_matches(one.lower(), host, port, _PORTS[scheme]) for one in self.hosts):
            allowed = ", ".join(self.hosts) or "none"
            raise SourceError(redact_url(url), f"{host or 'no host'} is not among the allowed hosts ({allowed})")

    def check_address(self, text: str) -> None:
        """Raise a SourceError if an address is not a public one, nor in an allowed network."""
        address = ipaddress.ip_address(text.partition("%")[0])
        meant = _meant(address)
        allowed = [ipaddress.ip_network(network) for network in self.networks]
        if any(one in network for one in meant[:1] for network in allowed):
            return
        for one in meant:
            if not one.is_global or one.is_multicast or one.is_reserved or any(one in network for network in _SPECIAL):
                raise SourceError(text, "the host has an address that is not public, which is not fetched from here")

    def session(self, sockets: Callable[[Any], socket.socket], options: dict[str, Any]) -> aiohttp.ClientSession:
        """Return a session behind the guard; the arguments are those of `SessionMaker`."""
        return _session(self, sockets, options)


def place_behind(url: str, guard: Guard, limits: Limits) -> RemotePath:
    """Return the place that a URL names, behind the guard: no proxy, no credentials of this machine, checked hops.

    Raises:
        SourceError: it leads where none may lead.
        MissingExtra: the extra ``remote`` is not installed.
    """
    from ..errors import MissingExtra
    from ..source.remote.paths import RemotePath

    guard.check_url(url)
    try:
        from ..source.remote.http import RangedHTTP
    except ImportError as error:
        raise MissingExtra("remote", "reading from https://") from error
    files = RangedHTTP(limits.whole_bytes, limits.request_seconds, guard.session)
    place = RemotePath.parse(url, limits, files=files)
    if not place.is_http:
        raise SourceError(redact_url(url), "a page about files, and not one of them", hint=_RESOLVE)
    return place


def _matches(rule: str, host: str, port: int, usual: int) -> bool:
    name, _, own_port = rule.partition(":") if rule.count(":") == 1 else (rule, "", "")
    if port != (int(own_port) if own_port else usual):
        return False
    if name.startswith("*."):
        return host.endswith(name[1:])
    return host == name.strip("[]")


def _meant(address: _Address) -> list[_Address]:
    """Return an address and those that lie in it: IPv6 carries IPv4 in five ways, and some systems unpack them."""
    if not isinstance(address, ipaddress.IPv6Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]  # it is nothing but another spelling
    inside: list[_Address | None] = [address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or address in _COMPATIBLE:
        inside.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(one for one in inside if one is not None)]


def _session(guard: Guard, sockets: Callable[[Any], socket.socket], options: dict[str, Any]) -> aiohttp.ClientSession:
    import aiohttp

    class CheckedConnector(aiohttp.TCPConnector):
        """Checks every request, redirects included, before it gets a connection."""

        async def connect(self, req: Any, *args: Any, **more: Any) -> Any:
            guard.check_url(str(req.url))
            return await super().connect(req, *args, **more)

    def checked(info: tuple[Any, ...]) -> socket.socket:
        guard.check_address(info[4][0])
        return sockets(info)

    return aiohttp.ClientSession(
        **options | {"trust_env": False, "connector": CheckedConnector(socket_factory=checked)}
    )
