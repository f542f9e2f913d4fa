"""Destinations of webhooks: which URLs are allowed, and which addresses a connection may go to.

A URL is checked when it is set, so that its owner gets an error at once. Since the addresses of a host name can change,
each connection also checks the address that it connects to.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import quote, urlsplit

import idna
from AntiSSRF import IPAddressRanges

from shared.errors import Invalid
from shared.settings import Settings

MAX_URL = 2048
MAX_HOST = 253  # RFC 1035
LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # resolvers read a name with such a last label as an address

# Microsoft's list knows the special registries and the clouds' metadata addresses. In IPv6, where most of the space
# is unassigned or embeds IPv4 somewhere, only what is given out for the open internet may pass at all.
DENIED = tuple(ipaddress.ip_network(network) for network in IPAddressRanges.recommended_latest)
GLOBAL_UNICAST = IPv6Network("2000::/3")


@dataclass(frozen=True)
class Destination:
    """The parts of a URL. It is parsed once, so that the checked host is the contacted host."""

    scheme: str
    host: str  # ASCII, lower case, without brackets
    port: int
    target: str  # path and query for the request line


@dataclass(frozen=True)
class Destinations:
    """The rules of this installation."""

    allow_http: bool = False
    networks: tuple[IPv4Network | IPv6Network, ...] = ()  # private networks that are allowed
    closed_ports: tuple[int, ...] = ()  # of addresses in these networks

    @staticmethod
    def from_settings(settings: Settings) -> Destinations:
        networks = tuple(ipaddress.ip_network(each, strict=False) for each in settings.webhook_allow_networks)
        return Destinations(settings.webhook_allow_http, networks, settings.webhook_deny_ports)

    def check(self, url: str) -> Destination:
        """Parse a URL and check everything that can be checked without resolving the host.

        Raises:
            Invalid: `bad_webhook_url`, `https_required` or `blocked_address`.
        """
        destination = parse(url)
        if destination.scheme == "http" and not self.allow_http:
            raise _refused("this installation sends only to https URLs", code="https_required")
        if not destination.port >= 1024 and destination.port not in (80, 443):
            raise _refused(f"port {destination.port} belongs to another protocol; use 443, or one from 1024 up")
        literal = _literal(destination.host)
        if literal and not self.allows(literal):
            raise _refused(
                f"{destination.host} is not on the open internet; use a public address, or ask the operator to allow "
                "its network (BOOTLORA_WEBHOOK_ALLOW_NETWORKS)",
                code="blocked_address",
            )
        if literal and not self.allows(literal, destination.port):
            raise _refused(
                f"port {destination.port} of {destination.host} is closed to webhooks; use another, or ask the "
                "operator to open it (BOOTLORA_WEBHOOK_DENY_PORTS)",
                code="blocked_address",
            )
        return destination

    def allows(self, text: str, port: int | None = None) -> bool:
        """Whether a connection may go to this address and port, or without a port, to this address."""
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if isinstance(address, IPv6Address):
            if address.scope_id:
                return False
            address = address.ipv4_mapped or address
        if any(address in network for network in self.networks):
            return port not in self.closed_ports
        if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
            return False
        return address.is_global and not address.is_multicast and not any(address in network for network in DENIED)


def parse(url: str) -> Destination:
    """Parse a URL strictly. URLs that two parsers might read differently are refused."""
    if len(url) > MAX_URL:
        raise _refused(f"the URL is {len(url)} characters long, and {MAX_URL} are allowed; use a shorter one")
    if re.search(r"[\s\x00-\x20\x7f\\]", url):
        raise _refused("the URL has spaces, control characters or backslashes in it")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused(f"this isn't a URL: {error}") from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise _refused("give a full URL: https://host/path")
    if "@" in parts.netloc:
        raise _refused("the URL has a user name in it; requests are signed, so none is needed")
    if "#" in url:
        raise _refused("the URL has a fragment (#...) in it, which is never sent")
    if port == 0:
        raise _refused("port 0 can't be connected to")
    target = quote(parts.path or "/", safe="/%:=&;,+@!$'()*~-._") + ("?" + _query(parts.query) if parts.query else "")
    return Destination(parts.scheme, _host(parts.hostname), port or (443 if parts.scheme == "https" else 80), target)


def _query(text: str) -> str:
    return quote(text, safe="/%:=&;,+@!$'()*~-._?[]")


def _host(name: str) -> str:
    if ":" in name:
        return _address(IPv6Address, name)
    try:
        ascii_name = name if name.isascii() else idna.encode(name, uts46=True, transitional=False).decode()
    except idna.IDNAError:
        raise _refused(f"{name} is not a host name") from None
    labels = ascii_name.lower().removesuffix(".").split(".")
    if len(ascii_name) > MAX_HOST or not all(LABEL.fullmatch(label) for label in labels):
        raise _refused(f"{name[:80]} is not a host name")
    if NUMBER.fullmatch(labels[-1]):
        return _address(IPv4Address, ".".join(labels))
    return ".".join(labels)


def _address(kind: type[IPv4Address] | type[IPv6Address], text: str) -> str:
    try:
        address = kind(text)
    except ValueError:
        raise _refused(f"{text} is not an address in its plain form") from None
    if isinstance(address, IPv6Address) and address.scope_id:
        raise _refused("an address with a zone means something else on each machine")
    return str(address)


def _literal(host: str) -> str | None:
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _refused(message: str, code: str = "bad_webhook_url") -> Invalid:
    return Invalid(message, code=code, errors=[{"pointer": "/url", "detail": message}])
