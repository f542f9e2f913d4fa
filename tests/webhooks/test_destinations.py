"""Allowed destinations: unusual forms of addresses, and URLs with forbidden parts."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from shared.errors import Invalid
from shared.outside.destinations import Destinations, parse
from shared.settings import Settings

STRICT = Destinations()


def code(url: str, destinations: Destinations = STRICT) -> str:
    with pytest.raises(Invalid) as refused:
        destinations.check(url)
    assert refused.value.errors[0]["pointer"] == "/url"
    return refused.value.code


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "169.254.169.254"),
        *("172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1"),
        *("198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
        *("::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1"),
        *("64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::1", "2001::1", "2001:db8::1", "100::1", "fc00::1"),
        *("fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "5f00::1", "3fff::1", "4000::1"),
        *("", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1"),
    ],
)
def test_an_address_off_the_open_internet_is_not_sent_to(address: str) -> None:
    assert not STRICT.allows(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_an_address_on_the_open_internet_is(address: str) -> None:
    assert STRICT.allows(address)


def test_a_network_of_the_list_is_allowed_and_nothing_beside_it() -> None:
    settings = Settings(
        database_url="", broker_url="", storage_url="", secret_key="", webhook_allow_networks=("10.1.0.0/16", "fd00::1")
    )
    studio = Destinations.from_settings(settings)
    assert studio.allows("10.1.2.3")
    assert studio.allows("::ffff:10.1.2.3")
    assert studio.allows("fd00::1")
    assert not studio.allows("10.2.0.1")
    assert not studio.allows("fd00::2")
    assert not studio.allows("64:ff9b::a01:203")  # the same behind NAT64
    assert studio.check("https://10.1.2.3/x").host == "10.1.2.3"


def test_a_closed_port_is_closed_in_the_allowed_networks_alone() -> None:
    local = ipaddress.ip_network("127.0.0.0/8")
    studio = Destinations(allow_http=True, networks=(local,), closed_ports=(9000,))
    assert studio.check("http://127.0.0.1:9001/x").port == 9001
    assert code("http://127.0.0.1:9000/x", studio) == code("http://localhost:9000/x", studio) == "blocked_address"
    assert not studio.allows("::ffff:127.0.0.1", 9000)
    assert studio.allows("1.1.1.1", 9000)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://LOCALHOST./",
        "https://a.localhost:8443/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[fd00:ec2::254]/",
        "https://①②⑦.⓪.⓪.①/",
        "https://127。0。0。1/",
        "https://10.0.0.1./",
    ],
)
def test_a_blocked_literal_is_refused_when_it_is_given(url: str) -> None:
    assert code(url) == "blocked_address"


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "//host/", "ftp://host/", "file:///etc/passwd", "gopher://host/", "javascript:alert(1)"),
        *("https://", "https:///x", "https://user@host/", "https://user:pass@host/", "https://@host/"),
        *(
            "https://host/#part",
            "https://host/a b",
            "https://host\\@other/",
            "https://ho\tst/",
            "https://host/\r\nX: y",
        ),
        *("https://host:99999/", "https://host:x/", "https://host:0/", "https://host:22/", "https://host:25/"),
        *("https://[::1", "https://[fe80::1%25eth0]/", "https://[1.2.3.4]/", "https://a..b/", "https://-a.example/"),
        *("https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://127.1/", "https://017700000001/"),
        *("https://0177.0.0.1/", "https://1.2.3.256/", "https://1.2.3.4.5/", "https://a.0x10/", "https://exa%6dple/"),
        "https://" + "a" * 64 + ".example/",
        "https://" + "a." * 127 + "example/",
        "https://host/" + "a" * 2048,
    ],
)
def test_a_url_that_is_none_or_says_too_much_is_refused(url: str) -> None:
    assert code(url) == "bad_webhook_url"


def test_http_needs_the_setting() -> None:
    assert code("http://example.com/") == "https_required"
    assert Destinations(allow_http=True).check("http://example.com/").port == 80


def test_a_url_is_taken_apart_as_it_will_be_sent() -> None:
    assert parse("https://Example.COM/a/b?c=d&e=%20f").target == "/a/b?c=d&e=%20f"
    assert parse("https://example.com").target == "/"
    assert parse("https://example.com?x=1").target == "/?x=1"
    assert parse("https://example.com/ä?ö=ü").target == "/%C3%A4?%C3%B6=%C3%BC"
    assert parse("https://bücher.example/").host == "xn--bcher-kva.example"
    assert parse("https://asset_server:8443/").host == "asset_server"
    assert parse("https://[2606:4700:0::1111]:8443/").host == "2606:4700::1111"


@pytest.mark.parametrize("odd", ["127.1", "2130706433", "0x7f000001", "017700000001", "0"])
def test_the_odd_forms_are_what_resolvers_take_for_this_machine(odd: str) -> None:
    """Why they are refused, and that the check at the connection would see through them as well."""
    resolved = socket.getaddrinfo(odd, 80, type=socket.SOCK_STREAM)[0][4][0]
    assert not STRICT.allows(str(resolved))
