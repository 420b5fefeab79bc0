"""Users of Debian's slapd sign in: by a DN made of their name, and found by a search; while it is away, nobody is wrong."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any, Final

import pytest
import trustme

from tests.peers.slixmpp_client import LoginFailed, Slixmpp
from tests.support.client import SASL, STREAMS, Client, StreamEnded, condition, sign_in
from tests.support.cluster import Account, RunningCluster, start_cluster, wait_until
from tests.support.peers.openldap import PEOPLE, READER, READER_PASSWORD, SUFFIX, OpenLdap

BY_DN: Final = "dn.example"  # STARTTLS
BY_SEARCH: Final = "search.example"  # LDAPS, and the first of its servers is never there
UNTRUSTED: Final = "untrusted.example"  # the same directory, with another authority
CLEAR: Final = "clear.example"
MISLED: Final = "misled.example"  # its own password for the search is wrong
INTERNAL: Final = "internal.example"  # no directory
ALL: Final = (BY_DN, BY_SEARCH, UNTRUSTED, CLEAR, MISLED, INTERNAL)
GOOD: Final = (BY_DN, BY_SEARCH, CLEAR)
PASSWORD: Final = "wherefore art thou"
ODD: Final = "o,u+x=#1*(a)"  # a localpart that means something in DNs and filters
CHANGE: Final = "https://password.example.org/"
AUTHORITY = trustme.CA()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenLdap]:
    people = {"romeo": ("romeo", PASSWORD), ODD: (r"o\2Cu\2Bx\3D\231*(a)", "odd")}
    found = OpenLdap(tmp_path_factory.mktemp("slapd"), AUTHORITY, people)
    found.process.start()
    yield found
    found.process.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, directory: OpenLdap) -> Iterator[RunningCluster]:
    files = tmp_path_factory.mktemp("authorities")
    good, other = files / "good.pem", files / "other.pem"
    AUTHORITY.cert_pem.write_to_path(str(good))
    trustme.CA().cert_pem.write_to_path(str(other))
    dn = {
        "backend": "ldap",
        "servers": [directory.url],
        "ca": str(good),
        "dn": f"uid={{user}},{PEOPLE}",
        "change": CHANGE,
    }
    search = {
        "backend": "ldap", "servers": [f"ldaps://{directory.address}:1", directory.tls_url], "ca": str(good),
        "base": SUFFIX, "filter": "(&(objectClass=person)(uid={user}))", "bind_dn": READER,
        "bind_password": READER_PASSWORD,
    }  # fmt: skip
    backends: dict[str, dict[str, Any]] = {
        BY_DN: dn,
        BY_SEARCH: search,
        UNTRUSTED: {**dn, "ca": str(other)},
        CLEAR: {**dn, "ca": str(other), "starttls": False},
        MISLED: {**search, "bind_password": "forgotten"},
    }
    running = start_cluster(
        tmp_path_factory.mktemp("cluster"), *(word for domain in ALL for word in ("--domain", domain)), "--s2s", "0",
        "--set", f"authentication.domains={json.dumps(backends)}", "--set", "registration.mode=open",
    )  # fmt: skip
    yield running
    assert running.stop() == 0


def attempt(cluster: RunningCluster, domain: str, username: str, password: str) -> str:
    """What comes of one try: "success", or the condition of the failure."""
    with Client(cluster, domain=domain) as client:
        client.open()
        client.start_tls()
        answer = client.plain(Account(f"{username}@{domain}", password))
        return "success" if answer.tag == f"{SASL}success" else condition(answer)


@pytest.mark.parametrize("domain", GOOD)
def test_users_of_the_directory_sign_in_and_have_an_account(cluster: RunningCluster, domain: str) -> None:
    with sign_in(cluster, Account(f"romeo@{domain}", PASSWORD), tls=True) as romeo:
        assert romeo.iq("get", "<query xmlns='jabber:iq:roster'/>").get("type") == "result"
    assert cluster.api.call("GET", f"/users/romeo@{domain}")["jid"] == f"romeo@{domain}"
    assert attempt(cluster, domain, "ROMEO", PASSWORD) == "success"


def test_slixmpp_signs_in_and_writes(cluster: RunningCluster) -> None:
    romeo, other = Account(f"romeo@{BY_SEARCH}", PASSWORD), Account(f"{ODD}@{BY_SEARCH}", "odd")
    with Slixmpp(cluster, romeo) as first, Slixmpp(cluster, other) as second:
        first.message(second.bare, "Wherefore?")
        assert second.body(first.jid) == "Wherefore?"
    with pytest.raises(LoginFailed, match="not-authorized"):
        Slixmpp(cluster, Account(romeo.jid, "wrong"))


@pytest.mark.parametrize("domain", GOOD)
@pytest.mark.parametrize(
    ("username", "password"),
    [("romeo", "wrong"), ("nobody", PASSWORD), ("rom*", PASSWORD), ("romeo)(uid=*", PASSWORD), (ODD, PASSWORD)],
)
def test_a_wrong_password_and_a_name_that_nobody_has_sound_alike(
    cluster: RunningCluster, domain: str, username: str, password: str
) -> None:
    assert attempt(cluster, domain, username, password) == "not-authorized"


@pytest.mark.parametrize("domain", GOOD)
def test_every_letter_of_a_name_is_only_a_letter(cluster: RunningCluster, domain: str) -> None:
    assert attempt(cluster, domain, ODD, "odd") == "success"


@pytest.mark.parametrize("domain", GOOD)
def test_no_password_is_no_password(cluster: RunningCluster, domain: str) -> None:
    """This directory lets a bind without a password succeed."""
    assert attempt(cluster, domain, "romeo", "") == "malformed-request"


@pytest.mark.parametrize("domain", [UNTRUSTED, MISLED])
def test_a_directory_that_is_not_trusted_or_does_not_trust_us_is_no_wrong_password(
    cluster: RunningCluster, domain: str
) -> None:
    assert attempt(cluster, domain, "romeo", PASSWORD) == "temporary-auth-failure"
    assert attempt(cluster, domain, "romeo", "wrong") == "temporary-auth-failure"


def test_what_is_offered_is_what_the_directory_can_do(cluster: RunningCluster) -> None:
    with Client(cluster, domain=BY_DN) as client:
        assert client.open().find(f"{SASL}mechanisms") is None
        features = client.start_tls()
        assert features.tag == f"{STREAMS}features"
        assert [name.text for name in features.iter(f"{SASL}mechanism")] == ["PLAIN"]
        assert features.find("{http://jabber.org/features/iq-register}register") is None
        refusal = client.iq("get", "<query xmlns='jabber:iq:register'/>")
        assert condition(refusal) == "not-allowed"


def test_who_insists_on_scram_is_told_the_way_out(cluster: RunningCluster) -> None:
    """The domain had SCRAM once, and this client has not forgotten (docs/authentication.md)."""
    with Client(cluster, domain=BY_DN) as client:
        client.open()
        client.start_tls()
        first = b64encode(b"n,,n=romeo,r=abc").decode()
        client.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>{first}</auth>")
        refused = client.read()
        assert condition(refused) == "invalid-mechanism"
        assert "remove the account from the app and add it again" in (refused.findtext(f"{SASL}text") or "")
        assert client.plain(Account(f"romeo@{BY_DN}", PASSWORD)).tag == f"{SASL}success"


def test_a_domain_without_a_directory_on_the_same_host_keeps_scram(cluster: RunningCluster) -> None:
    """What one offers does not depend on the other, nor who may sign in: Romeo of here is not Romeo of there."""
    account = cluster.account("romeo", "of here", INTERNAL)
    with Client(cluster, domain=INTERNAL) as client:
        client.open()
        offered = {str(name.text) for name in client.start_tls().iter(f"{SASL}mechanism")}
        assert {"SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512-PLUS", "PLAIN"} < offered
    assert attempt(cluster, INTERNAL, account.jid.partition("@")[0], "of here") == "success"
    assert attempt(cluster, INTERNAL, account.jid.partition("@")[0], PASSWORD) == "not-authorized"
    assert attempt(cluster, INTERNAL, "romeo", PASSWORD) == "not-authorized"
    assert attempt(cluster, BY_DN, account.jid.partition("@")[0], "of here") == "not-authorized"


def test_passwords_are_changed_elsewhere(cluster: RunningCluster) -> None:
    with sign_in(cluster, Account(f"romeo@{BY_DN}", PASSWORD), tls=True) as romeo:
        fields = "<username>romeo</username><password>new</password>"
        refusal = romeo.iq("set", f"<query xmlns='jabber:iq:register'>{fields}</query>")
        assert condition(refusal) == "not-allowed"
        assert CHANGE in "".join(refusal.itertext())
    given = cluster.command("user", "password", f"romeo@{BY_DN}", "--password-stdin", stdin="new")
    assert given.returncode != 0
    assert attempt(cluster, BY_DN, "romeo", PASSWORD) == "success"


def test_a_directory_that_is_away_is_no_wrong_password_and_comes_back(
    cluster: RunningCluster, directory: OpenLdap
) -> None:
    with sign_in(cluster, Account(f"romeo@{BY_SEARCH}", PASSWORD), tls=True) as there:
        directory.process.stop()
        try:
            with Client(cluster, domain=BY_SEARCH) as client:
                client.open()
                client.start_tls()
                for _ in range(5):  # more than c2s.sasl_tries
                    answer = client.plain(Account(f"romeo@{BY_SEARCH}", PASSWORD))
                    assert condition(answer) == "temporary-auth-failure"
        finally:
            directory.process.start()
        there.ping()
    assert attempt(cluster, BY_SEARCH, "romeo", PASSWORD) == "success"
    logs = "".join(cluster.log(process.node) for process in cluster.processes("router"))
    assert "backend_away" in logs
    assert PASSWORD not in logs


def test_wrong_passwords_end_the_stream_after_a_few(cluster: RunningCluster) -> None:
    with Client(cluster, domain=BY_DN) as client:
        client.open()
        client.start_tls()
        for _ in range(3):
            assert condition(client.plain(Account(f"romeo@{BY_DN}", "wrong"))) == "not-authorized"
        with pytest.raises(StreamEnded, match="policy-violation"):
            client.read()


def test_what_the_directory_says_is_counted(cluster: RunningCluster) -> None:
    assert attempt(cluster, CLEAR, "romeo", PASSWORD) == "success"

    def is_counted() -> bool:
        pages = [cluster.get(process.node, "/metrics")[1] for process in cluster.processes("router")]
        accepted = 'stentor_router_backend_checks_total{backend="ldap",result="accepted"} '
        return any(line.startswith(accepted) and line[-3:] != "0.0" for page in pages for line in page.splitlines())

    wait_until(is_counted, 5, "the sign-in is counted")
