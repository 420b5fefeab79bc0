"""slixmpp signs in by a certificate (SASL EXTERNAL), and as a guest (ANONYMOUS), as it does both by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from cryptography import x509

from cluster.certificates import UTF8_STRING, XMPP_ADDRESS
from tests.peers.slixmpp_client import LoginFailed, Slixmpp
from tests.support.cluster import Account, RunningCluster, start_cluster
from tests.support.pki import Issued, issue

USERS: Final = "users.example"
GUESTS: Final = "guest.example"
NOW: Final = datetime.now(UTC)
DAY: Final = timedelta(days=1)
ROOT: Final = issue("root", ca=True, begin=NOW - DAY, end=NOW + DAY)
STRANGER: Final = issue("stranger", ca=True, begin=NOW - DAY, end=NOW + DAY)


class Realm(NamedTuple):
    cluster: RunningCluster
    directory: Path

    def certificate(self, jid: str, issuer: Issued = ROOT) -> tuple[Path, Path]:
        names = [x509.OtherName(XMPP_ADDRESS, bytes((UTF8_STRING, len(jid))) + jid.encode())]
        made = issue("client", issuer, names=names, begin=NOW - DAY, end=NOW + DAY)
        return made.write(self.directory, jid.partition("@")[0])


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    directory = tmp_path_factory.mktemp("pki")
    (directory / "ca.pem").write_bytes(ROOT.pem)
    running = start_cluster(
        tmp_path_factory.mktemp("cluster"), "--domain", USERS, "--domain", GUESTS, "--s2s", "0",
        "--set", f"tls.clients={json.dumps({USERS: {'ca': str(directory / 'ca.pem')}})}",
        "--set", f"authentication.domains={json.dumps({GUESTS: {'backend': 'anonymous'}})}",
    )  # fmt: skip
    yield Realm(running, directory)
    assert running.stop() == 0


@pytest.mark.parametrize("direct_tls", [False, True])
def test_a_certificate_in_the_place_of_the_password(realm: Realm, direct_tls: bool) -> None:
    romeo = realm.cluster.account("romeo", domain=USERS)
    without = Account(romeo.jid, "")
    shown = realm.certificate(romeo.jid)
    with Slixmpp(realm.cluster, without, mechanism="EXTERNAL", shows=shown, direct_tls=direct_tls) as client:
        client.ping(USERS)


def test_a_certificate_of_somebody_else_is_no_obstacle(realm: Realm) -> None:
    romeo = realm.cluster.account("romeo", domain=USERS)
    shown = realm.certificate(romeo.jid, STRANGER)
    with Slixmpp(realm.cluster, romeo, shows=shown) as client:
        client.ping(USERS)
    with pytest.raises(LoginFailed):
        Slixmpp(realm.cluster, Account(romeo.jid, ""), mechanism="EXTERNAL", shows=shown)


def test_guests_talk(realm: Realm) -> None:
    nobody = Account(GUESTS, "")
    with Slixmpp(realm.cluster, nobody) as one, Slixmpp(realm.cluster, nobody) as two:
        assert one.jid != two.jid
        one.message(two.jid, "who are you?")
        assert two.body(one.jid) == "who are you?"
