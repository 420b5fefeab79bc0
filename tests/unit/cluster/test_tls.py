"""Which certificate for which name, and its renewal (cluster/tls.py). `make` gives back what it was called with."""

from __future__ import annotations

import asyncio
import os
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from cluster.certificates import CertificateError
from cluster.tls import Certificates, Pair, new_context
from tests.support.pki import DAY, NOW, Issued, dns, issue

FIRST = issue("first", names=dns("first.example", "chat.first.example"))
SECOND = issue("second", names=dns("second.example"))
RENEWED = issue("first", names=dns("first.example", "new.example"), end=NOW + 90 * DAY)


def make(pair: Pair, certificate: x509.Certificate) -> x509.Certificate:
    """As listeners do: what is no pair is refused."""
    new_context(ssl.PROTOCOL_TLS_SERVER, pair)
    return certificate


@pytest.fixture
def pairs(tmp_path: Path) -> dict[str, Pair]:
    return {"first.example": FIRST.write(tmp_path, "first"), "*.second.example": SECOND.write(tmp_path, "second")}


@pytest.fixture
def certificates(pairs: dict[str, Pair]) -> Certificates[x509.Certificate]:
    return Certificates(pairs, make)


def replace(directory: Path, name: str, issued: Issued) -> None:
    """Write the pair again, at another time than before."""
    for file in issued.write(directory, name):
        status = os.stat(file)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def test_a_name_has_the_certificate_given_for_it_or_that_names_it(
    certificates: Certificates[x509.Certificate],
) -> None:
    shown = {
        "first.example": FIRST, "FIRST.example": FIRST, "chat.first.example": FIRST, None: FIRST, "x.example": FIRST,
        "second.example": SECOND, "a.second.example": SECOND, "b.a.second.example": FIRST,
    }  # fmt: skip
    for name, issued in shown.items():
        assert certificates.choose(name) == issued.certificate, name


@pytest.mark.parametrize("force", [False, True])
def test_new_files_are_taken(certificates: Certificates[x509.Certificate], tmp_path: Path, force: bool) -> None:
    assert not certificates.reload()
    assert not certificates.was_renewed
    replace(tmp_path, "first", RENEWED)
    with capture_logs() as lines:
        certificates.renew(force=force)
    assert [(line["event"], line["count"]) for line in lines] == [("certificates_reloaded", 2)]
    for name in ("first.example", "new.example"):
        assert certificates.choose(name) == RENEWED.certificate
    assert certificates.choose("second.example") == SECOND.certificate
    with capture_logs() as lines:
        certificates.renew(force=False)
    assert lines == []


def test_a_volume_whose_link_is_moved_is_seen(tmp_path: Path) -> None:
    """How Kubernetes updates the files of a Secret: `tls.crt -> ..data/tls.crt`, `..data -> ..2026_01`."""
    for folder, issued in (("..2026_01", FIRST), ("..2026_02", RENEWED)):
        (tmp_path / folder).mkdir()
        issued.write(tmp_path / folder, "tls")
    data = tmp_path / "..data"
    data.symlink_to("..2026_01")
    pair = tmp_path / "tls.crt", tmp_path / "tls.key"
    for file in pair:
        file.symlink_to(f"..data/{file.name}")
    certificates = Certificates({"first.example": pair}, make)
    moved = tmp_path / "..data_tmp"
    moved.symlink_to("..2026_02")
    moved.replace(data)
    certificates.renew(force=False)
    assert certificates.choose(None) == RENEWED.certificate


def test_files_that_cannot_be_used_change_nothing_and_are_told_once(
    certificates: Certificates[x509.Certificate], pairs: dict[str, Pair], tmp_path: Path
) -> None:
    chain, key = pairs["first.example"]
    old_key = key.read_bytes()
    replace(tmp_path, "first", RENEWED)
    new_key = key.read_bytes()
    key.write_bytes(old_key)
    with capture_logs() as lines:
        certificates.renew(force=False)
        certificates.renew(force=False)
    assert [line["event"] for line in lines] == ["certificates_not_reloaded"]
    assert (lines[0]["path"], lines[0]["problem"]) == (str(key), f"this is not the key of {chain}")
    assert lines[0]["remedy"].startswith("Name the key that belongs to it.")
    with capture_logs() as lines:
        certificates.renew()  # SIGHUP: whoever asks is answered
    assert [line["event"] for line in lines] == ["certificates_not_reloaded"]
    chain.unlink()
    with capture_logs() as lines:
        certificates.renew(force=False)
    assert lines[0]["problem"] == "cannot read the certificate: No such file or directory"
    assert certificates.choose("first.example") == FIRST.certificate
    chain.write_bytes(RENEWED.pem)
    key.write_bytes(new_key)
    with capture_logs() as lines:
        certificates.renew(force=False)
    assert [line["event"] for line in lines] == ["certificates_reloaded"]
    assert certificates.choose("first.example") == RENEWED.certificate


def test_the_metric_says_when_the_certificates_in_use_expire(
    certificates: Certificates[x509.Certificate], tmp_path: Path
) -> None:
    registry = CollectorRegistry()
    certificates.export_expiry(registry)

    def expiry(name: str) -> float | None:
        return registry.get_sample_value("stentor_certificate_expiry_timestamp_seconds", {"name": name})

    assert expiry("first.example") == expiry("*.second.example") == (NOW + 30 * DAY).timestamp()
    replace(tmp_path, "first", RENEWED)
    assert expiry("first.example") == (NOW + 30 * DAY).timestamp()
    certificates.renew(force=False)
    assert expiry("first.example") == (NOW + timedelta(days=90)).timestamp()


def test_files_are_looked_at_again_and_again(pairs: dict[str, Pair], tmp_path: Path) -> None:
    async def test() -> None:
        loaded: asyncio.Queue[x509.Certificate] = asyncio.Queue()
        pair = {"first.example": pairs["first.example"]}
        certificates = Certificates(pair, lambda _, certificate: loaded.put_nowait(certificate))
        assert await loaded.get() == FIRST.certificate
        following = asyncio.create_task(certificates.follow(every_s=0.001))
        for issued in (RENEWED, SECOND):
            replace(tmp_path, "first", issued)
            assert await asyncio.wait_for(loaded.get(), 10) == issued.certificate
        following.cancel()

    asyncio.run(test())


def test_bad_files_at_the_start_are_an_error(pairs: dict[str, Pair], tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="this is not the key of"):
        Certificates({"a.example": (pairs["first.example"][0], pairs["*.second.example"][1])}, make)
    with pytest.raises(ValueError, match="needs a certificate"):
        Certificates({}, make)
