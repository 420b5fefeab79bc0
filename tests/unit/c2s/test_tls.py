"""Versions, ciphers, and which certificate for which name (c2s/tls.py). Handshakes happen in memory."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from c2s.channel_binding import bindings
from c2s.tls import ServerTls
from cluster.certificates import CertificateError, generate
from cluster.tls import Pair, chain_of
from tests.support.tls import client_context, handshake, write_pair

CA = trustme.CA()
V1_2, V1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
NAMES = {
    "first": ("first.example",),
    "second": ("second.example", "conference.second.example"),
    "wild": ("*.wild.example",),
    "idn": ("b\u00fccher.example",),
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    directory = tmp_path_factory.mktemp("tls")
    return {name: write_pair(directory, name, CA.issue_cert(*names)) for name, names in NAMES.items()}


@pytest.fixture
def tls(pairs: dict[str, Pair]) -> ServerTls:
    return ServerTls(
        {
            "first.example": pairs["first"],
            "second.example": pairs["second"],
            "*.wild.example": pairs["wild"],
            "b\u00fccher.example": pairs["idn"],
        }
    )


def der_of(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair[0].read_text().partition("-----END")[0] + "-----END CERTIFICATE-----")


@pytest.mark.parametrize("version", [V1_2, V1_3])
@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("first.example", "first"),
        ("second.example", "second"),
        ("conference.second.example", "second"),  # only the certificate says so
        ("SECOND.example", "second"),
        ("any.wild.example", "wild"),
        ("b\u00fccher.example", "idn"),
    ],
)
def test_a_client_gets_the_certificate_of_the_name_it_asks_for(
    tls: ServerTls, pairs: dict[str, Pair], asked: str, shown: str, version: ssl.TLSVersion
) -> None:
    server, client = handshake(tls.context, client_context(CA, version), asked)
    assert client.getpeercert(binary_form=True) == der_of(pairs[shown]) == tls.certificate_of(server)
    assert server.version() == version.name.replace("v1_", "v1.")


@pytest.mark.parametrize("asked", [None, "unknown.example", "wild.example", "a.b.wild.example", "localhost"])
def test_the_first_certificate_is_for_everybody_else(tls: ServerTls, pairs: dict[str, Pair], asked: str | None) -> None:
    server, client = handshake(tls.context, client_context(), asked)
    assert client.getpeercert(binary_form=True) == der_of(pairs["first"]) == tls.certificate_of(server)


def test_what_the_operator_says_goes_before_what_a_certificate_says(pairs: dict[str, Pair]) -> None:
    tls = ServerTls({"second.example": pairs["second"], "conference.second.example": pairs["first"]})
    server, _ = handshake(tls.context, client_context(), "conference.second.example")
    assert tls.certificate_of(server) == der_of(pairs["first"])


def test_domains_that_share_a_certificate_share_its_context(pairs: dict[str, Pair]) -> None:
    tls = ServerTls({"first.example": pairs["first"], "other.example": pairs["first"]})
    server, _ = handshake(tls.context, client_context(), "other.example")
    other, _ = handshake(tls.context, client_context(), "first.example")
    assert server.context is other.context


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_nothing_older_than_tls_1_2(tls: ServerTls) -> None:
    old = client_context(version=ssl.TLSVersion.TLSv1_1)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)unsupported.protocol|protocol.version"):
        handshake(tls.context, old, "first.example")


@pytest.mark.parametrize("cipher", ["AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256"])
def test_no_cipher_without_forward_secrecy_or_authenticated_encryption(tls: ServerTls, cipher: str) -> None:
    weak = client_context(version=V1_2)
    weak.set_ciphers(cipher)
    with pytest.raises(ssl.SSLError, match=r"(?i)no.shared.cipher"):
        handshake(tls.context, weak, "first.example")


@pytest.mark.parametrize("asked", ["first.example", "second.example"])
def test_alpn_is_agreed_on_whatever_the_certificate(tls: ServerTls, asked: str) -> None:
    client = client_context(CA)
    client.set_alpn_protocols(["h2", "xmpp-client"])
    server, _ = handshake(tls.context, client, asked)
    assert server.selected_alpn_protocol() == "xmpp-client"


def test_a_client_without_alpn_is_served(tls: ServerTls) -> None:
    server, _ = handshake(tls.context, client_context(CA), "first.example")
    assert server.selected_alpn_protocol() is None


def test_clients_need_no_certificate_and_are_asked_for_none(tls: ServerTls) -> None:
    client = client_context(CA)
    server, _ = handshake(tls.context, client, "first.example")
    assert server.context.verify_mode == ssl.CERT_NONE
    assert server.getpeercert(binary_form=True) is None


def encrypted_key(directory: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    file = directory / "encrypted.key"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    return file


def test_bad_files_are_told_with_a_remedy(pairs: dict[str, Pair], tmp_path: Path) -> None:
    certificate, key = pairs["first"]
    garbage = tmp_path / "garbage"
    garbage.write_text("not a certificate")
    missing = tmp_path / "missing"
    cases: list[tuple[Path, Path, Path, str]] = [
        (missing, key, missing, "cannot read the certificate: No such file or directory. Check the path"),
        (garbage, key, garbage, "not a certificate in PEM. Name the file with the certificate chain"),
        (certificate, missing, missing, "cannot read the key: No such file or directory. Check the path"),
        (certificate, garbage, garbage, "cannot use the key"),
        (certificate, pairs["second"][1], pairs["second"][1], f"this is not the key of {certificate}. Name"),
        (certificate, encrypted_key(tmp_path), tmp_path / "encrypted.key", "Name a private key in PEM that has no pas"),
    ]
    for certificate_file, key_file, named, words in cases:
        with pytest.raises(CertificateError) as failure:
            ServerTls({"first.example": (certificate_file, key_file)})
        assert failure.value.file == named
        assert words in str(failure.value)


def test_no_certificate_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs a certificate"):
        ServerTls({})


# --- renewal


def resume(
    context: ssl.SSLContext, client: ssl.SSLContext, before: ssl.SSLSession | None = None
) -> tuple[ssl.SSLObject, ssl.SSLSession]:
    """A handshake that continues this session, or begins one: the server's end, and the session of the client."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    end = client.wrap_bio(to_client, to_server, server_hostname="first.example", session=before)
    for _ in range(4):
        for side in (end, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    server.write(b"x")
    assert end.read(1) == b"x"  # and with TLS 1.3 the ticket before it
    assert end.session is not None
    return server, end.session


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_a_renewed_certificate_is_for_new_connections(tmp_path: Path, version: ssl.TLSVersion) -> None:
    pair = write_pair(tmp_path, "pair", CA.issue_cert("first.example"))
    tls = ServerTls({"first.example": pair})
    old, old_der = tls.context, der_of(pair)
    client = client_context(CA, version)
    first, session = resume(tls.context, client)
    again, _ = resume(tls.context, client, session)
    assert again.session_reused
    assert tls.certificate_of(again) == old_der
    write_pair(tmp_path, "pair", CA.issue_cert("first.example"))
    assert tls.certificates.reload(force=True)
    assert tls.context is old, "listeners need not know"
    assert tls.certificate_of(first) == old_der
    fresh, _ = resume(tls.context, client)
    assert tls.certificate_of(fresh) == der_of(pair) != old_der


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_a_session_resumed_after_a_renewal_is_bound_to_no_certificate(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Its client has seen the one of before; which that was, the server cannot know."""
    pair = write_pair(tmp_path, "pair", CA.issue_cert("first.example"))
    tls = ServerTls({"first.example": pair})
    client = client_context(CA, version)
    _, session = resume(tls.context, client)
    write_pair(tmp_path, "pair", CA.issue_cert("first.example"))
    tls.certificates.reload(force=True)
    server, _ = resume(tls.context, client, session)
    assert server.session_reused
    assert tls.certificate_of(server) is None
    found = bindings(server, tls.certificate_of(server))
    assert "tls-server-end-point" not in found
    assert "tls-exporter" in found


# --- clients that show a certificate


def names_the_client(tls: ServerTls, client: ssl.SSLContext) -> tuple[bytes, ...]:
    server, _ = handshake(tls.context, client, "first.example")
    return chain_of(server)


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_a_client_is_asked_for_a_certificate_and_whatever_it_shows_goes_on(
    pairs: dict[str, Pair], tmp_path: Path, version: ssl.TLSVersion
) -> None:
    asking = ServerTls({"first.example": pairs["first"]}, asks=True)
    quiet = ServerTls({"first.example": pairs["first"]})
    assert names_the_client(asking, client_context(CA, version)) == (), "it has none"
    certificate, key = generate(["stranger.example"], datetime.now(UTC))
    file = tmp_path / "stranger.pem"
    file.write_bytes(certificate + key)
    stranger = client_context(CA, version)
    stranger.load_cert_chain(file)
    assert names_the_client(asking, stranger) == (ssl.PEM_cert_to_DER_cert(certificate.decode()),)
    assert names_the_client(quiet, stranger) == (), "nobody has asked"


@pytest.mark.parametrize("version", [V1_2, V1_3])
def test_where_certificates_are_asked_for_no_session_brings_that_of_another_handshake(
    pairs: dict[str, Pair], version: ssl.TLSVersion
) -> None:
    tls = ServerTls({"first.example": pairs["first"]}, asks=True)
    romeo, juliet = client_context(CA, version), client_context(CA, version)
    CA.issue_cert("romeo.example").configure_cert(romeo)
    server, session = resume(tls.context, romeo)
    (shown, *_) = chain_of(server)
    again, _ = resume(tls.context, romeo, session)
    assert chain_of(again)[:1] == (shown,), "with TLS 1.2, by an id that nobody can use without the session's secret"
    assert again.session_reused is (version is V1_2)
    other, _ = resume(tls.context, juliet)
    assert chain_of(other) == ()
