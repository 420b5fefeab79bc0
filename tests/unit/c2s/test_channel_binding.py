"""Channel binding data (c2s/channel_binding.py), in memory and as uvloop's connections have it."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import sys
from datetime import UTC, datetime, timedelta

import pytest
import trustme
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from c2s import channel_binding
from c2s.channel_binding import bindings, exporter_works, tls_exporter, tls_server_end_point, tls_unique
from c2s.tls import ServerTls
from tests.support.tls import client_context, handshake, write_pair

CA = trustme.CA()
DOMAIN = "example.org"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    pair = write_pair(tmp_path_factory.mktemp("tls"), "server", CA.issue_cert(DOMAIN))
    return ServerTls({"default.example": pair, DOMAIN: pair})


def test_the_exporter_works_on_the_pythons_that_are_known() -> None:
    assert exporter_works() == (sys.implementation.name == "cpython" and sys.version_info[:2] <= (3, 13))


@pytest.mark.parametrize("version", VERSIONS)
def test_both_ends_export_the_same_and_each_connection_its_own(tls: ServerTls, version: ssl.TLSVersion) -> None:
    server, client = handshake(tls.context, client_context(CA, version), DOMAIN)
    other, _ = handshake(tls.context, client_context(CA, version), DOMAIN)
    exported = tls_exporter(server)
    assert exported is not None
    assert len(exported) == 32
    assert exported == tls_exporter(client)
    assert exported != tls_exporter(other)


def test_the_better_type_comes_first(tls: ServerTls) -> None:
    server, client = handshake(tls.context, client_context(CA), DOMAIN)
    found = bindings(server, tls.certificate_of(server))
    shown = client.getpeercert(binary_form=True)
    assert shown is not None
    assert list(found) == ["tls-exporter", "tls-server-end-point"]
    assert found["tls-server-end-point"] == hashlib.sha256(shown).digest()


def test_tls_1_2_has_its_finished_message_as_well(tls: ServerTls) -> None:
    """RFC 5802, 6.1: clients of that time know no other type."""
    server, client = handshake(tls.context, client_context(CA, ssl.TLSVersion.TLSv1_2), DOMAIN)
    other, _ = handshake(tls.context, client_context(CA, ssl.TLSVersion.TLSv1_2), DOMAIN)
    found = bindings(server, tls.certificate_of(server))
    assert list(found) == ["tls-exporter", "tls-server-end-point", "tls-unique"]
    assert found["tls-unique"] == client.get_channel_binding("tls-unique") == tls_unique(server)
    assert found["tls-unique"] != tls_unique(other)
    newer, _ = handshake(tls.context, client_context(CA, ssl.TLSVersion.TLSv1_3), DOMAIN)
    assert tls_unique(newer) is None


def test_before_the_handshake_there_is_nothing_to_export(tls: ServerTls) -> None:
    server = tls.context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    assert tls_exporter(server) is None


def test_without_extended_master_secret_nothing_is_exported(tls: ServerTls, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9266, 4. Python cannot make such a connection, so OpenSSL's answer is what is changed."""
    server, _ = handshake(tls.context, client_context(CA, ssl.TLSVersion.TLSv1_2), DOMAIN)
    newer, _ = handshake(tls.context, client_context(CA, ssl.TLSVersion.TLSv1_3), DOMAIN)
    assert tls_exporter(server) is not None
    functions = channel_binding._openssl()
    assert functions is not None
    monkeypatch.setattr(channel_binding, "_openssl", lambda: (functions[0], lambda *_: 0))
    assert tls_exporter(server) is None
    assert tls_unique(server) is None
    assert tls_exporter(newer) is not None, "TLS 1.3 has no need of it"


def test_where_the_exporter_does_not_work_the_other_type_is_left(
    tls: ServerTls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_binding, "exporter_works", lambda: False)
    server, _ = handshake(tls.context, client_context(CA), DOMAIN)
    assert list(bindings(server, tls.certificate_of(server))) == ["tls-server-end-point"]


def test_an_unknown_python_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_binding, "_KNOWN_LAYOUT", False)
    monkeypatch.setattr(channel_binding, "_openssl", lambda: pytest.fail("looked for OpenSSL"))
    assert exporter_works.__wrapped__() is False


def test_an_openssl_without_the_function_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_binding, "_openssl", lambda: None)
    assert exporter_works.__wrapped__() is False


def signed_with(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
    algorithm: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None,
    pss: bool = False,
) -> bytes:
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    now = datetime.now(UTC)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    if pss:
        assert algorithm is not None
        scheme = padding.PSS(padding.MGF1(algorithm), padding.PSS.DIGEST_LENGTH)
        return builder.sign(key, algorithm, rsa_padding=scheme).public_bytes(Encoding.DER)
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def test_the_end_point_is_hashed_as_it_is_signed() -> None:
    curve, modulus = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 1024)
    for der, name in [
        (signed_with(curve, hashes.SHA256()), "sha256"),
        (signed_with(curve, hashes.SHA384()), "sha384"),
        (signed_with(modulus, hashes.SHA512()), "sha512"),
        (signed_with(modulus, hashes.SHA384(), pss=True), "sha384"),
    ]:
        assert tls_server_end_point(der) == hashlib.new(name, der).digest()


SHA256_WITH_RSA = bytes.fromhex("06092a864886f70d01010b")  # the OID 1.2.840.113549.1.1.11


@pytest.mark.parametrize(("arc", "name"), [(0x05, "SHA-1"), (0x04, "MD5")])
def test_weak_hashes_become_sha_256(arc: int, name: str) -> None:
    der = signed_with(rsa.generate_private_key(65537, 1024), hashes.SHA256())
    assert der.count(SHA256_WITH_RSA) == 2
    weak = der.replace(SHA256_WITH_RSA, SHA256_WITH_RSA[:-1] + bytes((arc,)))
    assert tls_server_end_point(weak) == hashlib.sha256(weak).digest(), name


def test_a_certificate_signed_without_a_hash_has_no_end_point(tls: ServerTls) -> None:
    der = signed_with(ed25519.Ed25519PrivateKey.generate(), None)
    assert tls_server_end_point(der) is None
    server, _ = handshake(tls.context, client_context(CA), DOMAIN)
    assert list(bindings(server, der)) == ["tls-exporter"]


async def connect(tls: ServerTls, client: ssl.SSLContext, is_starttls: bool) -> list[dict[str, bytes]]:
    """Join two ends by a pair of sockets; the bindings as the server and the client see them."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    connecting = loop.create_connection(asyncio.Protocol, sock=theirs, ssl=client, server_hostname=DOMAIN)
    server: asyncio.BaseTransport | None
    if is_starttls:
        plain, protocol = await loop.connect_accepted_socket(asyncio.Protocol, ours)
        upgrading = loop.start_tls(plain, protocol, tls.context, server_side=True)
        server, (client_end, _) = await asyncio.gather(upgrading, connecting)
    else:
        accepting = loop.connect_accepted_socket(asyncio.Protocol, ours, ssl=tls.context)
        (server, _), (client_end, _) = await asyncio.gather(accepting, connecting)
    assert server is not None
    ours_tls, theirs_tls = server.get_extra_info("ssl_object"), client_end.get_extra_info("ssl_object")
    found = [bindings(ours_tls, tls.certificate_of(ours_tls)), bindings(theirs_tls, theirs_tls.getpeercert(True))]
    server.close()
    client_end.close()
    return found


@pytest.mark.parametrize("is_starttls", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_uvloop_connections_have_all_types_of_their_version(
    tls: ServerTls, version: ssl.TLSVersion, is_starttls: bool
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        server, client = runner.run(connect(tls, client_context(CA, version), is_starttls))
    unique = ["tls-unique"] if version is ssl.TLSVersion.TLSv1_2 else []
    assert list(server) == ["tls-exporter", "tls-server-end-point", *unique]
    assert server == client
