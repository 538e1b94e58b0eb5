"""URLs of users: nothing that is not public is ever dialled, whatever it is called."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import httpx2 as httpx
import pytest
from pydantic import ValidationError

from app.addresses import is_public
from app.outbound import (
    OutboundRules,
    ResponseTooLarge,
    TargetRefused,
    check_target,
    check_url,
    outbound_client,
    read_at_most,
    rules_of,
)
from app.settings import Settings
from tests.app.webhooks.receivers import Received, certificate, receiver

LOOPBACK = (ip_network("127.0.0.0/8"),)
PUBLIC = "93.184.215.14"

NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::808:808",
    "64:ff9b:1::a9fe:a9fe",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
ARE_PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "169.253.255.255",
    "172.15.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.1",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001::1",
    "2003::1",
    "3ffe::1",
]

REFUSED_URLS = [
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "//example.com/",
    "example.com",
    "",
    "https://",
    "https:///path",
    "https://user:password@example.com/",
    "https://user@example.com/",
    "https://example.com:8443/",
    "https://example.com:22/",
    "https://127.0.0.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://127.0.0.1./",
    "https://１２７.0.0.1/",
    "https://127。0。0。1/",
    "https://①②⑦.0.0.1/",
    "https://0/",
    "https://[::]/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[2002:7f00:1::]/",
    "https://[fe80::1%25eth0]/",
    "https://[fd00:ec2::254]/",
    "https://169.254.169.254/latest/meta-data/",
    "https://2852039166/",
    "https://%31%32%37.0.0.1/",
    "https://example.com\\@127.0.0.1/",
    "https://localhost/",
    "https://localhost./",
    "https://LOCALHOST/",
    "https://inside.example/",
    "https://mixed.example/",
    "https://gone.example/",
    "https://exa mple.com/",
    "https://example.com:99999/",
    "https://" + "a" * 3000 + ".example/",
]


def names(host: str, port: int) -> list[str]:
    """The resolver of these tests."""
    known = {
        "example.com": [PUBLIC],
        "localhost": ["127.0.0.1", "::1"],
        "inside.example": ["10.0.0.5"],
        "mixed.example": [PUBLIC, "169.254.169.254"],
    }
    try:
        return known[host.lower().rstrip(".")]
    except KeyError:
        raise socket.gaierror(-2, "Name or service not known") from None


@pytest.fixture(scope="module")
def strict_client() -> Iterator[httpx.Client]:
    with outbound_client(OutboundRules(), total_seconds=1, resolver=names) as client:
        yield client


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_private_addresses_in_every_form_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ARE_PUBLIC)
def test_public_addresses_are(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_a_refused_url_is_neither_accepted_nor_dialled(
    url: str, strict_client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialled: list[object] = []
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: dialled.append(a))
    with pytest.raises(TargetRefused):
        check_target(url, OutboundRules(), names)
    with pytest.raises((TargetRefused, httpx.InvalidURL, httpx.UnsupportedProtocol)):
        strict_client.post(url, content=b"x")
    assert dialled == []


def test_a_public_url_is_accepted_and_dialled_by_the_checked_address(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[object] = []

    def dial(address: object, *_: object, **__: object) -> socket.socket:
        dialled.append(address)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", dial)
    check_target("https://example.com/hook?x=1", OutboundRules(), names)
    with (
        outbound_client(OutboundRules(), total_seconds=1, resolver=names) as client,
        pytest.raises(httpx.ConnectError),
    ):
        client.post("https://example.com/hook")
    assert dialled == [(PUBLIC, 443)]


def test_a_name_that_changes_its_address_after_the_check_is_not_dialled() -> None:
    """DNS rebinding: public when it is checked, loopback when it is called."""
    answers = [[PUBLIC], ["127.0.0.1"]]
    with receiver() as hook:
        rules = OutboundRules(allow_http=True, ports=frozenset({hook.port}))
        url = f"http://rebind.example:{hook.port}/"
        check_target(url, rules, lambda *_: answers[0])
        with (
            outbound_client(rules, total_seconds=2, resolver=lambda *_: answers[1]) as client,
            pytest.raises(TargetRefused),
        ):
            client.post(url)
        assert hook.received == []


def test_only_the_checked_address_is_dialled_under_the_original_name() -> None:
    """One look-up per connection: nothing resolves the name a second time."""
    looked_up: list[str] = []

    def once(host: str, _port: int) -> list[str]:
        looked_up.append(host)
        return ["127.0.0.1"]

    with receiver() as hook:
        rules = OutboundRules(networks=LOOPBACK, allow_http=True)
        with outbound_client(rules, total_seconds=5, resolver=once) as client:
            assert client.post(f"http://hook.invalid:{hook.port}/a").status_code == 200
        assert looked_up == ["hook.invalid"]
        assert hook.received[0].headers["host"] == f"hook.invalid:{hook.port}"


def test_redirects_are_not_followed() -> None:
    target = "http://169.254.169.254/latest/meta-data/"
    with receiver(lambda _: (302, {"location": target}, b"")) as hook:
        rules = OutboundRules(networks=LOOPBACK, allow_http=True)
        with outbound_client(rules, total_seconds=5) as client:
            assert client.post(hook.url).status_code == 302
            with pytest.raises(TargetRefused):
                client.post(hook.url, follow_redirects=True)
        assert len(hook.received) == 2


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as proxy, receiver() as hook:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        rules = OutboundRules(networks=LOOPBACK, allow_http=True)
        with outbound_client(rules, total_seconds=5) as client:
            client.post(hook.url)
        assert (len(proxy.received), len(hook.received)) == (0, 1)


def test_certificates_are_checked_against_the_name_and_not_the_address(tmp_path: Path) -> None:
    trusted, context = certificate(tmp_path, "hook.example")
    with receiver(tls=context) as hook:
        rules = OutboundRules(networks=LOOPBACK, ca_file=trusted)
        with outbound_client(rules, total_seconds=5, resolver=lambda *_: ["127.0.0.1"]) as client:
            assert client.post(f"https://hook.example:{hook.port}/").status_code == 200
            for name in ("other.example", "127.0.0.1"):
                with pytest.raises(httpx.ConnectError, match="certificate"):
                    client.post(f"https://{name}:{hook.port}/")
        with (
            outbound_client(OutboundRules(networks=LOOPBACK), total_seconds=5, resolver=names) as client,
            pytest.raises(httpx.ConnectError, match="certificate"),
        ):
            client.post(f"https://127.0.0.1:{hook.port}/")


def test_allowed_hosts_and_networks_may_be_private_on_any_port() -> None:
    by_host = OutboundRules(hosts=frozenset({"inside.example"}))
    by_network = OutboundRules(networks=(ip_network("10.0.0.0/8"),))
    for rules in (by_host, by_network):
        check_target("https://inside.example:9000/", rules, names)
        with pytest.raises(TargetRefused):
            check_target("https://localhost/", rules, names)
    check_target("https://10.1.2.3:9000/", by_network, names)
    with pytest.raises(TargetRefused, match="Port 9000"):
        check_target("https://example.com:9000/", by_network, names)


def test_a_refusal_does_not_tell_a_private_name_from_none() -> None:
    texts = []
    for name in ("inside.example", "gone.example"):
        with pytest.raises(TargetRefused) as refused:
            check_target(f"https://{name}/", OutboundRules(), names)
        texts.append(str(refused.value).replace(name, "x"))
    assert texts[0] == texts[1]
    assert "10.0.0.5" not in texts[0]


def test_an_answer_that_trickles_ends_at_the_deadline() -> None:
    """Each byte comes in time, the whole never would."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        rules = OutboundRules(networks=LOOPBACK, allow_http=True)

        def trickle() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                try:
                    while True:
                        connection.sendall(b"H")
                        time.sleep(0.05)
                except OSError:
                    pass

        thread = threading.Thread(target=trickle)
        thread.start()
        with (
            outbound_client(rules, total_seconds=0.4) as client,
            pytest.raises((httpx.ReadTimeout, httpx.RemoteProtocolError)),
        ):
            client.post(f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join(10)
        assert not thread.is_alive()


def test_only_so_much_of_an_answer_is_read() -> None:
    def large(_: Received) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, b"x" * 100_000

    with receiver(large) as hook:
        rules = OutboundRules(networks=LOOPBACK, allow_http=True)
        with outbound_client(rules, total_seconds=5) as client:
            with client.stream("POST", hook.url) as response, pytest.raises(ResponseTooLarge):
                read_at_most(response, 65536)
            with client.stream("POST", hook.url) as response:
                assert len(read_at_most(response, 100_000)) == 100_000


def test_rules_come_from_settings() -> None:
    given = {"DATABASE_URL": "postgresql://x/y", "broker_url": "memory://"}
    settings = Settings(
        **given, outbound_allow="Judge.Internal, 10.0.0.0/8,fd00::1", outbound_ports="443,8443"
    )
    rules = rules_of(settings)
    assert rules.hosts == {"judge.internal"}
    assert rules.networks == (ip_network("10.0.0.0/8"), ip_network("fd00::1/128"))
    assert (rules.ports, rules.allow_http) == ({443, 8443}, False)
    for wrong in ("10.0.0.0/33", "10.0.0.1/8", "a b", "https://x"):
        with pytest.raises(ValidationError, match="outbound_allow"):
            Settings(**given, outbound_allow=wrong)


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "[::1]"])
def test_an_address_in_a_url_is_checked_without_a_look_up(address: str) -> None:
    with pytest.raises(TargetRefused, match="not public"):
        check_url(f"https://{address}/hook", OutboundRules())
    check_url(f"https://{PUBLIC}/hook", OutboundRules())
    check_url("https://no-such-name.invalid/hook", OutboundRules())
