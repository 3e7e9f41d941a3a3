"""Where a stranger's URL may lead: a table of hosts and addresses, and real servers that redirect."""

from __future__ import annotations

import pytest

import normsniff
from normsniff.errors import SourceError
from normsniff.limits import Limits
from normsniff.serve.ssrf import Guard, place_behind
from tests.helpers.manifest import FIXTURES
from tests.helpers.servers import Handler, RangeServer

HUB = Guard(("huggingface.co", "*.hf.co", "models.example:8443"))

ALLOWED_URLS = [
    "https://huggingface.co/org/model/resolve/main/model.safetensors",
    "http://HuggingFace.co./x",
    "https://cdn-lfs.hf.co/x?Signature=a",
    "https://huggingface.co:443/x",
    "https://models.example:8443/x",
]
REFUSED_URLS = [
    "https://huggingface.co:8080/x",
    "http://huggingface.co:443/x",
    "https://models.example/x",
    "https://evil.example/x",
    "https://huggingface.co.evil.example/x",
    "https://evilhuggingface.co/x",
    "https://hf.co/x",
    "https://evilhf.co/x",
    "https://huggingface.co@evil.example/x",
    "https://evil.example#@huggingface.co/x",
    "https://evil.example\\@huggingface.co/x",
    "https://127.0.0.1/x",
    "https://[::1]/x",
    "https://2130706433/x",
    "https://0x7f.1/x",
    "https://huggingface.co:99999/x",
    "https://[::1/x",
    "https:///x",
    "https://",
    "",
    "file:///etc/passwd",
    "ftp://huggingface.co/x",
    "s3://huggingface.co/x",
    "gopher://huggingface.co/x",
    "//huggingface.co/x",
]
PUBLIC = ["1.1.1.1", "140.82.121.4", "2606:4700::6810:84e5", "2a00:1450:4001:80b::200e"]
INSIDE = {
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "0.0.0.0": "this host",  # noqa: S104 - refused
    "10.1.2.3": "private",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.1.1": "private",
    "100.64.0.1": "carrier's network",
    "100.100.100.200": "metadata of a cloud",
    "169.254.169.254": "metadata of most clouds",
    "169.254.1.1": "link-local",
    "168.63.129.16": "Azure's wire server",
    "192.0.0.192": "metadata of a cloud",
    "192.0.2.1": "documentation",
    "198.18.0.1": "benchmarks",
    "224.0.0.1": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::1": "loopback",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local with its zone",
    "fc00::1": "unique local",
    "fd00:ec2::254": "metadata of a cloud",
    "ff02::1": "multicast",
    "2001:db8::1": "documentation",
    "::ffff:127.0.0.1": "IPv4 mapped",
    "::ffff:7f00:1": "IPv4 mapped, in hexadecimal",
    "::ffff:169.254.169.254": "IPv4 mapped",
    "::127.0.0.1": "IPv4 compatible",
    "64:ff9b::7f00:1": "NAT64",
    "64:ff9b::a9fe:a9fe": "NAT64",
    "2002:7f00:1::": "6to4",
    "2002:a9fe:a9fe::1": "6to4",
    "2001:0:4136:e378:8000:63bf:80ff:fffe": "Teredo with a loopback client",
}


@pytest.mark.parametrize("url", ALLOWED_URLS)
def test_a_named_host_may_be_asked(url: str) -> None:
    HUB.check_url(url)


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_any_other_may_not(url: str) -> None:
    with pytest.raises(SourceError):
        HUB.check_url(url)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_connected(address: str) -> None:
    HUB.check_address(address)


@pytest.mark.parametrize("address", INSIDE)
def test_an_address_inside_may_not_in_whatever_spelling(address: str) -> None:
    with pytest.raises(SourceError, match="not public"):
        HUB.check_address(address)


def test_a_network_that_was_named_may_and_no_other() -> None:
    guard = Guard((), ("10.0.0.0/8", "::1/128"))
    for address in ("10.9.8.7", "::ffff:10.9.8.7", "::1"):
        guard.check_address(address)
    for address in ("127.0.0.1", "192.168.0.1", "64:ff9b::7f00:1", "::2"):
        with pytest.raises(SourceError):
            guard.check_address(address)


def test_a_page_about_files_is_told_from_a_file() -> None:
    with pytest.raises(SourceError, match="a page about files") as caught:
        place_behind("https://huggingface.co/org/model", Guard(("huggingface.co",)), Limits())
    assert "/resolve/" in caught.value.hint


class TestOverTheNetwork:
    """Against a server of our own; what must not be reached is noted by it if it is."""

    @pytest.fixture
    def lent(self, server: RangeServer) -> RangeServer:
        (server.root / "model.gguf").write_bytes((FIXTURES / "gpt2-ln.Q8_0.gguf").read_bytes())
        return server

    def guard(self, server: RangeServer, *networks: str, host: str = "127.0.0.1") -> Guard:
        return Guard((f"{host}:{server.server_address[1]}",), networks)

    def test_an_allowed_host_in_an_allowed_network_is_read(self, lent: RangeServer) -> None:
        place = place_behind(lent.url("model.gguf"), self.guard(lent, "127.0.0.0/8"), Limits())
        assert normsniff.sniff(place).label == "LayerNorm"

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_an_allowed_name_that_leads_inside_is_not_connected(self, lent: RangeServer, host: str) -> None:
        url = lent.url("model.gguf").replace("127.0.0.1", host)
        with pytest.raises(SourceError, match="not public"):
            normsniff.sniff(place_behind(url, self.guard(lent, host=host), Limits()))
        assert lent.requests == []

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize(
        "target", ["http://localhost:{port}/model.gguf", "http://169.254.169.254/latest/meta-data"]
    )
    def test_a_redirect_is_checked_as_the_url_was(self, lent: RangeServer, status: int, target: str) -> None:
        asked: list[str | None] = []

        def redirect(handler: Handler, _number: int) -> bool:
            asked.append(handler.headers.get("Host"))
            handler.reply(status, headers={"Location": target.format(port=lent.server_address[1])})
            return True

        lent.fault = redirect
        with pytest.raises(SourceError, match="not among the allowed hosts"):
            normsniff.sniff(place_behind(lent.url("model.gguf"), self.guard(lent, "127.0.0.0/8"), Limits()))
        assert {str(host).partition(":")[0] for host in asked} == {"127.0.0.1"}

    def test_a_redirect_to_an_allowed_host_is_followed(self, lent: RangeServer) -> None:
        def redirect(handler: Handler, _number: int) -> bool:
            if "moved" in handler.path:
                return False
            handler.reply(302, headers={"Location": "/model.gguf?moved"})
            return True

        lent.fault = redirect
        place = place_behind(lent.url("model.gguf"), self.guard(lent, "127.0.0.0/8"), Limits())
        assert normsniff.sniff(place).label == "LayerNorm"

    def test_a_name_that_changes_its_address_between_check_and_connection_wins_nothing(
        self, lent: RangeServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """DNS rebinding: the check is on the socket, so that there is no second look-up to lie to."""
        from aiohttp import ThreadedResolver

        async def lies(_self: object, host: str, port: int = 0, family: int = 2) -> list[dict[str, object]]:
            return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

        monkeypatch.setattr(ThreadedResolver, "resolve", lies)
        monkeypatch.setattr("aiohttp.connector.DefaultResolver", ThreadedResolver)
        guard = Guard((f"models.example:{lent.server_address[1]}",))
        url = lent.url("model.gguf").replace("127.0.0.1", "models.example")
        with pytest.raises(SourceError, match="not public"):
            normsniff.sniff(place_behind(url, guard, Limits()))
        assert lent.requests == []

    def test_neither_a_proxy_nor_credentials_of_this_machine_are_used(
        self, lent: RangeServer, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        netrc = tmp_path_factory.mktemp("home") / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password secret\n")
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        seen: list[str | None] = []

        def note(handler: Handler, _number: int) -> bool:
            seen.append(handler.headers.get("Authorization"))
            return False

        lent.fault = note
        normsniff.sniff(place_behind(lent.url("model.gguf"), self.guard(lent, "127.0.0.0/8"), Limits()))
        assert set(seen) == {None}
