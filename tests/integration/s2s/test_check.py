"""`stentor check` against a DNS server and servers that say what the test wants (stentor/checks/federation.py)."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from cluster.config import Config, load
from cluster.tls import Pair as Files
from s2s.srv import Target
from s2s.tls import ServerTls, outgoing_context
from stentor.checks.federation import NOBODY, check_dns, check_federation, check_tls
from stentor.checks.findings import Finding
from stentor.checks.probe import Greeting, Seen, Stage, probe
from tests.support.cluster import FACTOR
from tests.support.peers.dns import Zone
from tests.support.pki import Issued, dns, issue
from xmpp import ns

HERE: Final = "127.0.47.1"
NOW: Final = datetime.now(UTC)
YEARS: Final = timedelta(days=3_000)
ROOT = issue("root", ca=True, begin=NOW - YEARS, end=NOW + YEARS)
HEADER: Final = "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='http://etherx.jabber.org/streams' id='1' version='1.0'>"
STARTTLS: Final = f"<stream:features><starttls xmlns='{ns.TLS}'/></stream:features>"
DIALBACK: Final = f"<stream:features><dialback xmlns='{ns.DIALBACK_FEATURE}'/></stream:features>"
EXTERNAL: Final = (
    f"<stream:features><mechanisms xmlns='{ns.SASL}'><mechanism>EXTERNAL</mechanism></mechanisms></stream:features>"
)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def certificate(directory: Path, domain: str, issuer: Issued | None = ROOT) -> Files:
    issued = issue(domain, issuer, names=dns(domain), begin=NOW - YEARS, end=NOW + YEARS)
    return issued.write(directory, f"{domain}-{os.urandom(4).hex()}")


class Server:
    """A server with a certificate, which does TLS and offers `features`, or EXTERNAL to who shows a certificate."""

    def __init__(self, files: Files, *, is_direct: bool = False, features: str = DIALBACK, namespace: str = ns.SERVER):
        self.tls = ServerTls({"b.example": files})
        self.is_direct = is_direct
        self.features = features
        self.namespace = namespace
        self.froms: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header = HEADER.format(self.namespace)
        if not self.is_direct:
            await reader.readuntil(b"version=")
            writer.write((header + STARTTLS).encode())
            await reader.readuntil(b"<starttls")
            await reader.readuntil(b"/>")
            writer.write(f"<proceed xmlns='{ns.TLS}'/>".encode())
        await writer.start_tls(self.tls.incoming)
        opened = (await reader.readuntil(b">") + await reader.readuntil(b">")).decode()
        self.froms += [part.split('"')[1] for part in opened.split(" ") if part.startswith("from=")]
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.write((header + (EXTERNAL if shown else self.features)).encode())
        await reader.read()


@asynccontextmanager
async def listening(handle: Handler) -> AsyncIterator[int]:
    """The port on which somebody is served so."""
    open_: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.add(writer)
        try:
            await handle(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the other end has gone
        finally:
            writer.close()

    server = await asyncio.start_server(connected, HERE, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in open_:
            writer.transport.abort()


@pytest.fixture
def zone() -> Iterator[Zone]:
    with closing(Zone()) as zone:
        zone.add(f"xmpp.b.example. IN A {HERE}")
        yield zone


@pytest.fixture
def root(tmp_path: Path) -> Path:
    file = tmp_path / "root.crt"
    file.write_bytes(ROOT.pem)
    return file


def configured(zone: Zone, root: Path, domain: str, files: Files | None, *settings: str) -> Config:
    own = [] if files is None else [f"tls.certificate={files[0]}", f"tls.key={files[1]}"]
    base = [f's2s.resolvers=["{zone.host}:{zone.port}"]', f"s2s.ca={root}", f'server.domains=["{domain}"]']
    return load(None, [*base, *own, *settings], {})


async def told(findings: AsyncIterator[Finding]) -> list[str]:
    async with asyncio.timeout(60 * FACTOR):
        return [str(finding) async for finding in findings]


def line(lines: list[str], beginning: str) -> str:
    """The one line that begins so, whatever spaces are between its columns."""
    [found] = [each for each in lines if " ".join(each.split()).startswith(beginning)]
    return found


# --- check federation


@pytest.mark.parametrize("is_direct", [False, True])
@pytest.mark.parametrize("has_certificate", [False, True])
def test_another_server(zone: Zone, root: Path, tmp_path: Path, is_direct: bool, has_certificate: bool) -> None:
    async def test() -> None:
        server = Server(certificate(tmp_path, "b.example"), is_direct=is_direct)
        async with listening(server.serve) as port:
            kind = "_xmpps-server" if is_direct else "_xmpp-server"
            zone.add(f"{kind}._tcp.b.example. IN SRV 1 2 {port} xmpp.b.example.")
            files = certificate(tmp_path, "a.example") if has_certificate else None
            config = configured(zone, root, "a.example", files)
            lines = await told(check_federation(config, "b.example", "a.example"))
        assert server.froms == ["a.example"]
        assert f"{kind}._tcp.b.example leads to xmpp.b.example port {port}" in line(lines, "ok dns _xmpp")
        assert line(lines, "ok address").endswith(f"xmpp.b.example has {HERE}")
        how = "direct TLS" if is_direct else "STARTTLS"
        alpn = ", ALPN xmpp-server" if is_direct else ""
        assert line(lines, "ok connect").endswith(f"port {port} ({how}) at {HERE}: TLSv1.3{alpn}")
        assert line(lines, "ok certificate it is for").endswith("b.example")
        method = "SASL EXTERNAL" if has_certificate else "dialback"
        assert f"a.example would be authenticated by {method}" in line(lines, "ok verdict")
        assert any(each.startswith("warn  certificate  ours cannot be shown") for each in lines) != has_certificate
        assert not any(each.startswith("fail") for each in lines)

    asyncio.run(test())


def test_a_self_signed_certificate_is_as_good_as_the_policy(zone: Zone, root: Path, tmp_path: Path) -> None:
    async def test() -> None:
        server = Server(certificate(tmp_path, "b.example", None))
        async with listening(server.serve) as port:
            zone.add(f"_xmpp-server._tcp.b.example. IN SRV 0 0 {port} xmpp.b.example.")
            for policy, verdict in (("allow", "ok verdict"), ("secure", "fail verdict no stream: our policy wants")):
                config = configured(zone, root, "a.example", None, f"s2s.policy={policy}")
                lines = await told(check_federation(config, "b.example", "a.example"))
                assert "self-signed" in line(lines, "warn certificate it is not trusted")
                assert "self-signed" in line(lines, verdict)
            config = configured(zone, root, "a.example", None, 's2s.domains={"b.example": "deny"}')
            lines = await told(check_federation(config, "b.example", "a.example"))
            assert "forbids traffic" in line(lines, "fail verdict")

    asyncio.run(test())


def test_a_target_that_cannot_be_reached_is_passed_over(zone: Zone, root: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with listening(Server(certificate(tmp_path, "b.example")).serve) as port:
            zone.add(
                f"_xmpps-server._tcp.b.example. IN SRV 0 0 {port} gone.b.example.\n"
                "_xmpps-server._tcp.b.example. IN SRV 1 0 1 xmpp.b.example.\n"
                f"_xmpp-server._tcp.b.example. IN SRV 2 0 {port} xmpp.b.example."
            )
            lines = await told(check_federation(configured(zone, root, "a.example", None), "b.example", "a.example"))
        assert "gone.b.example does not exist" in line(lines, "warn address")
        assert "Connection refused. Nothing listens there" in line(lines, "warn connect")
        assert line(lines, "ok verdict")

    asyncio.run(test())


@pytest.mark.parametrize(
    ("failure", "text"),
    [("SERVFAIL", "SERVFAIL. Look at the name servers"), ("NXDOMAIN", "has no address either. Check the name")],
)
def test_name_servers_that_fail_are_not_domains_that_do_not_exist(
    zone: Zone, root: Path, failure: str, text: str
) -> None:
    zone.fail(failure)  # type: ignore[arg-type]  # one of its literals
    config = configured(zone, root, "a.example", None)
    lines = asyncio.run(told(check_federation(config, "b.example", "a.example")))
    assert text in next(each for each in lines if each.startswith("fail  dns"))
    assert "no server of b.example can be reached" in line(lines, "fail verdict")


# --- a domain of ours


def test_of_our_own_the_configuration_is_compared(zone: Zone, root: Path, tmp_path: Path) -> None:
    async def test() -> None:
        files = certificate(tmp_path, "b.example")
        server = Server(files)
        async with listening(server.serve) as port:
            zone.add(f"_xmpp-server._tcp.b.example. IN SRV 0 0 {port} xmpp.b.example.")
            config = configured(zone, root, "b.example", files, f"s2s.port={port}")
            lines = await told(check_federation(config, "b.example", NOBODY))
            assert server.froms == [NOBODY]
            assert line(lines, "ok certificate it is the one in").endswith(str(files[0]))
            assert line(lines, "warn zone").endswith(
                "_xmpps-server._tcp.b.example. 3600 IN SRV 0 5 5270 xmpp.b.example."
            )
            assert "believe our certificate by its authority" in line(lines, "ok verdict")
            other = certificate(tmp_path, "b.example")
            lines = await told(check_federation(configured(zone, root, "b.example", other), "b.example", NOBODY))
            assert "but s2s.port is 5269. Correct" in line(lines, "warn dns _xmpp-server._tcp")
            assert f"it is not the one in {other[0]}. After a renewal send SIGHUP" in line(lines, "warn certificate it")

    asyncio.run(test())


def test_the_dns_alone(zone: Zone, root: Path) -> None:
    config = configured(zone, root, "b.example", None)
    lines = asyncio.run(told(check_dns(config, "b.example")))
    assert [each[19:] for each in lines if " zone " in each] == [
        "_xmpps-server._tcp.b.example. 3600 IN SRV 0 5 5270 xmpp.b.example.",
        "_xmpp-server._tcp.b.example. 3600 IN SRV 0 5 5269 xmpp.b.example.",
        "xmpp.b.example. 3600 IN A ADDRESS-OF-THIS-SERVER",
        "_xmpps-client._tcp.b.example. 3600 IN SRV 0 5 5223 xmpp.b.example.",
        "_xmpp-client._tcp.b.example. 3600 IN SRV 0 5 5222 xmpp.b.example.",
        "xmpp.b.example. 3600 IN A ADDRESS-OF-THIS-SERVER",
    ]
    zone.add(f"b.example. IN A {HERE}")
    lines = asyncio.run(told(check_dns(config, "b.example")))
    assert sum(each.startswith("warn  dns") for each in lines) == 2
    assert not any(each.startswith("fail") for each in lines)


def test_certificates_alone_for_servers_and_clients(zone: Zone, root: Path, tmp_path: Path) -> None:
    async def test() -> None:
        files = certificate(tmp_path, "b.example")
        old = certificate(tmp_path, "b.example")
        clients = Server(old, namespace=ns.CLIENT)
        async with listening(Server(files).serve) as port, listening(clients.serve) as client_port:
            zone.add(
                f"_xmpp-server._tcp.b.example. IN SRV 0 0 {port} xmpp.b.example.\n"
                f"_xmpp-client._tcp.b.example. IN SRV 0 0 {client_port} xmpp.b.example."
            )
            lines = await told(check_tls(configured(zone, root, "b.example", files), "b.example"))
        assert "belong together" in line(lines, "ok files")
        assert str(files[0]) in line(lines, "ok certificate it is the one in")
        assert str(files[0]) in line(lines, "warn certificate it is not the one in")
        assert clients.froms == []
        wrong = (files[0], old[1])
        lines = await told(check_tls(configured(zone, root, "b.example", wrong), "b.example"))
        assert f"{old[1]}: this is not the key of {files[0]}. Name the key" in line(lines, "fail files")

    asyncio.run(test())


# --- servers that behave badly


def probed(handle: Handler, *, is_direct: bool = False) -> Seen:
    async def test() -> Seen:
        async with listening(handle) as port:
            target = Target("xmpp.b.example", port, is_direct)
            return await probe(
                target, HERE, Greeting("b.example", "a.example", is_secure=is_direct), tls=outgoing_context(None),
                server_name="b.example", connect_s=0.3 * FACTOR, handshake_s=0.3 * FACTOR, answer_s=0.3 * FACTOR,
            )  # fmt: skip

    return asyncio.run(test())


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def ending(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"version=")


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await reader.read()


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEADER.format(ns.SERVER).encode())
    while True:
        writer.write(b" " * 65_536)
        await writer.drain()


@pytest.mark.parametrize(
    ("handle", "is_direct", "stage", "problem"),
    [
        (silent, False, Stage.STREAM, "no answer within"),
        (silent, True, Stage.TLS, "no handshake within"),
        (ending, False, Stage.STREAM, "closed the connection"),
        (web, False, Stage.STREAM, "is no XMPP stream"),
        (web, True, Stage.TLS, "TLS: "),
        (endless, False, Stage.STREAM, "sends and sends"),
    ],
)
def test_every_step_takes_bounded_time(handle: Handler, is_direct: bool, stage: Stage, problem: str) -> None:
    seen = probed(handle, is_direct=is_direct)
    assert seen.stage is stage
    assert problem in seen.problem


def test_tls_that_is_too_old_is_told(tmp_path: Path) -> None:
    files = certificate(tmp_path, "b.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA:@SECLEVEL=0")

    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.start_tls(context)

    seen = probed(old, is_direct=True)
    assert (seen.stage, seen.tls) == (Stage.TLS, "")
    assert "TLS: " in seen.problem or "cut off" in seen.problem, "by whether it gets out an alert"
