"""TLS between servers (s2s/tls.py, cluster/any_certificate.py): handshakes in memory."""

from __future__ import annotations

import os
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from cluster import any_certificate
from cluster.certificates import CertificateError
from cluster.tls import Pair, chain_of
from s2s.tls import ALPN, ServerTls, server_name
from tests.support.pki import DAY, NOW, Issued, dns, issue
from tests.support.tls import client_context, handshake

V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
ROOT = issue("root", ca=True)
MIDDLE = issue("middle", ROOT, ca=True)
FIRST = issue("first", ROOT, names=dns("first.example"))
SECOND = issue("second", MIDDLE, names=dns("second.example", "conference.second.example"))
WILD = issue("wild", ROOT, names=dns("*.wild.example"))
ODD = {
    "self-signed": issue("self", names=dns("a.example")),
    "expired": issue("expired", ROOT, names=dns("a.example"), begin=NOW - 900 * DAY, end=NOW - 800 * DAY),
    "not yet valid": issue("early", ROOT, names=dns("a.example"), begin=NOW + 9_000 * DAY, end=NOW + 9_001 * DAY),
    "for servers only": issue("s", ROOT, extensions=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)]),
    "for mail only": issue("m", ROOT, extensions=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), True)]),
    "an authority": ROOT,
    "unknown critical": issue("u", ROOT, extensions=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)]),
}  # fmt: skip


@pytest.fixture
def pairs(tmp_path: Path) -> dict[str, Pair]:
    return {
        "first.example": FIRST.write(tmp_path, "first"),
        "second.example": SECOND.write(tmp_path, "second", MIDDLE),
        "*.wild.example": WILD.write(tmp_path, "wild"),
    }


@pytest.fixture
def tls(pairs: dict[str, Pair]) -> ServerTls:
    return ServerTls(pairs)


def showing(directory: Path, issued: Issued, *others: Issued) -> ssl.SSLContext:
    """A client that shows this certificate, if asked."""
    context = client_context()
    context.load_cert_chain(*issued.write(directory, "client", *others))
    return context


def shown(tls: ServerTls, name: str | None) -> bytes | None:
    _, client = handshake(tls.incoming, client_context(), name)
    return client.getpeercert(binary_form=True)


# --- a server that takes any certificate


def test_it_works_here() -> None:
    assert any_certificate.works()


@pytest.mark.parametrize("version", [V1_2, V1_3])
@pytest.mark.parametrize("kind", ODD)
def test_no_certificate_ends_the_handshake(tls: ServerTls, tmp_path: Path, version: ssl.TLSVersion, kind: str) -> None:
    client = showing(tmp_path, ODD[kind])
    client.minimum_version = client.maximum_version = version
    server, _ = handshake(tls.incoming, client, "second.example")
    assert server.version() == {V1_2: "TLSv1.2", V1_3: "TLSv1.3"}[version]
    assert chain_of(server) == (ODD[kind].der,)


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_the_whole_chain_is_seen_on_both_sides(tls: ServerTls, tmp_path: Path, version: ssl.TLSVersion) -> None:
    client_side = showing(tmp_path, SECOND, MIDDLE, ROOT)
    client_side.minimum_version = client_side.maximum_version = version
    server, client = handshake(tls.incoming, client_side, "second.example")
    for _ in range(2):  # CPython could have changed OpenSSL's own list
        assert chain_of(server) == (SECOND.der, MIDDLE.der, ROOT.der)
        assert chain_of(client) == (SECOND.der, MIDDLE.der)


def test_who_shows_none_is_served_too(tls: ServerTls) -> None:
    server, _ = handshake(tls.incoming, client_context(), "first.example")
    assert chain_of(server) == ()


def test_a_certificate_without_its_key_is_refused(tls: ServerTls, tmp_path: Path) -> None:
    """Any certificate will do, but the peer must prove that it holds the key: a changed signature ends the handshake."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = tls.incoming.wrap_bio(to_server, to_client, server_side=True)
    context = showing(tmp_path, FIRST)
    context.maximum_version = V1_2  # there CertificateVerify is in the clear
    client = context.wrap_bio(to_client, to_server, server_hostname="first.example")
    for end in (client, server):
        with pytest.raises(ssl.SSLWantReadError):
            end.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()  # Certificate, ClientKeyExchange, CertificateVerify, ...
    flight = bytearray(to_server.read())
    position = 0
    while flight[position + 5] != 15:  # CertificateVerify (RFC 5246, 7.4)
        position += 5 + int.from_bytes(flight[position + 3 : position + 5], "big")
    length = int.from_bytes(flight[position + 3 : position + 5], "big")
    flight[position + 5 + length - 1] ^= 1
    to_server.write(bytes(flight))
    with pytest.raises(ssl.SSLError, match=r"(?i)signature"):
        server.do_handshake()


def test_where_it_does_not_work_no_certificate_is_asked_for(
    pairs: dict[str, Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(any_certificate, "works", lambda: False)
    tls = ServerTls(pairs)
    assert not tls.asks_for_certificates
    server, _ = handshake(tls.incoming, showing(tmp_path, FIRST), "second.example")
    assert chain_of(server) == ()


def test_unknown_versions_of_python_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(any_certificate, "_KNOWN_LAYOUT", False)
    assert not any_certificate.works.__wrapped__()


def test_a_callback_that_refuses_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = any_certificate._Verify(lambda store, argument: 0)
    monkeypatch.setattr(any_certificate, "_accept_callback", refuse)
    assert not any_certificate.works.__wrapped__()


# --- which certificate is shown


@pytest.mark.parametrize(
    ("name", "certificate"),
    [
        ("first.example", FIRST),
        ("second.example", SECOND),
        ("SECOND.example", SECOND),
        ("conference.second.example", SECOND),
        ("a.wild.example", WILD),
        ("b.a.wild.example", FIRST),
        ("unknown.example", FIRST),
        (None, FIRST),
    ],
)
def test_peers_see_the_certificate_of_the_domain_they_name(
    tls: ServerTls, name: str | None, certificate: Issued
) -> None:
    assert shown(tls, name) == certificate.der


def test_we_show_the_certificate_of_the_domain_that_speaks(tls: ServerTls) -> None:
    for domain, certificate in (("second.example", SECOND), ("x.wild.example", WILD), ("other.example", FIRST)):
        assert tls.certificate_of(domain) == certificate.der
        for is_direct_tls in (True, False):
            context = tls.outgoing(domain, is_direct_tls=is_direct_tls)
            server, _ = handshake(tls.incoming, context, "first.example")
            assert chain_of(server)[0] == certificate.der


def test_alpn_is_for_direct_tls(tls: ServerTls) -> None:
    for is_direct_tls, protocol in ((True, ALPN), (False, None)):
        context = tls.outgoing("first.example", is_direct_tls=is_direct_tls)
        server, client = handshake(tls.incoming, context, "second.example")
        assert server.selected_alpn_protocol() == client.selected_alpn_protocol() == protocol


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_no_session_is_resumed(tls: ServerTls, version: ssl.TLSVersion) -> None:
    context = tls.outgoing("first.example", is_direct_tls=True)
    context.minimum_version = context.maximum_version = version
    _, client = handshake(tls.incoming, context, "first.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.read(1)
    assert client.session is None or not client.session.has_ticket
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = tls.incoming.wrap_bio(to_server, to_client, server_side=True)
    again = context.wrap_bio(to_client, to_server, server_hostname="first.example", session=client.session)
    for _ in range(3):
        for end in (again, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    assert not again.session_reused
    assert chain_of(server) == (FIRST.der,)


@pytest.mark.parametrize("old", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_tls_older_than_1_2_is_refused(tls: ServerTls, old: ssl.TLSVersion) -> None:
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        client = client_context(version=old)
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        handshake(tls.incoming, client, None)
    assert tls.outgoing("first.example", is_direct_tls=True).minimum_version == V1_2


@pytest.mark.parametrize(
    ("domain", "name"),
    [("bücher.example", "xn--bcher-kva.example"), ("A.example.", "a.example"), ("192.0.2.1", ""), ("[::1]", "")],
)
def test_the_name_to_ask_for(domain: str, name: str) -> None:
    assert server_name(domain) == name


# --- renewal


def age(pair: Pair) -> None:
    """Make sure that the files' times differ from before."""
    for file in pair:
        status = os.stat(file)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def test_renewed_certificates_are_shown_to_new_peers(tls: ServerTls, pairs: dict[str, Pair], tmp_path: Path) -> None:
    listening = tls.incoming
    assert not tls.certificates.reload()
    renewed = issue("first", ROOT, names=dns("first.example", "new.example"), end=NOW + timedelta(days=90))
    age(renewed.write(tmp_path, "first"))
    assert shown(tls, "first.example") == FIRST.der
    assert tls.certificates.reload()
    assert not tls.certificates.reload()
    assert tls.incoming is listening
    for name in ("first.example", "new.example", None):
        assert shown(tls, name) == renewed.der
    assert shown(tls, "second.example") == SECOND.der
    server, _ = handshake(tls.incoming, tls.outgoing("first.example", is_direct_tls=False), "second.example")
    assert chain_of(server) == (renewed.der,)


def test_a_reload_can_be_forced(tls: ServerTls) -> None:
    before = tls.outgoing("first.example", is_direct_tls=True)
    assert tls.certificates.reload(force=True)
    assert tls.outgoing("first.example", is_direct_tls=True) is not before


def test_a_renewal_that_is_half_done_changes_nothing(tls: ServerTls, pairs: dict[str, Pair], tmp_path: Path) -> None:
    chain, key = pairs["first.example"]
    old_key = key.read_bytes()
    renewed = issue("first", ROOT, names=dns("first.example"))
    age(renewed.write(tmp_path, "first"))
    new_key = key.read_bytes()
    key.write_bytes(old_key)
    age((chain, key))
    for _ in range(2):  # it is tried again, and told again
        with pytest.raises(CertificateError, match="this is not the key of"):
            tls.certificates.reload()
    assert shown(tls, "first.example") == FIRST.der
    key.unlink()
    with pytest.raises(CertificateError, match="cannot read the key"):
        tls.certificates.reload()
    key.write_bytes(new_key)
    assert tls.certificates.reload()
    assert shown(tls, "first.example") == renewed.der


def test_problems_name_the_file_and_the_remedy(tmp_path: Path) -> None:
    chain, key = FIRST.write(tmp_path, "first")
    with pytest.raises(CertificateError, match="cannot read the certificate"):
        ServerTls({"a.example": (tmp_path / "missing", key)})
    key.write_bytes(b"junk")
    with pytest.raises(CertificateError, match="cannot use the key"):
        ServerTls({"a.example": (chain, key)})
    with pytest.raises(ValueError, match="needs a certificate"):
        ServerTls({})
