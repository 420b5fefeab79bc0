"""Tokens of an identity provider let users in; its keys change, and it goes away and comes back."""

from __future__ import annotations

import json
import ssl
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import jwt
import pytest
import trustme

from tests.support.client import SASL, Client, condition, sign_in
from tests.support.cluster import Account, RunningCluster, start_cluster, wait_until
from tests.support.provider import DISCOVERY, Provider

OIDC: Final = "oidc.example"
LATE: Final = "late.example"  # its provider is not there when the cluster starts
SHARED: Final = "shared.example"  # a secret instead of a provider
SECRET: Final = "a secret that is long enough for it"
AUTHORITY = trustme.CA()
REFETCH_S: Final = 0.5


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    found = Provider(AUTHORITY)
    found.start()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def late() -> Iterator[Provider]:
    found = Provider(AUTHORITY)
    yield found
    found.stop()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("authority") / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(file))
    return file


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, provider: Provider, late: Provider, authority: Path
) -> Iterator[RunningCluster]:
    common = {"backend": "jwt", "audience": ["xmpp"], "claim": "preferred_username", "refetch_s": REFETCH_S}
    backends = {
        OIDC: {**common, "issuer": provider.issuer, "ca": str(authority)},
        LATE: {**common, "issuer": late.issuer, "ca": str(authority)},
        SHARED: {**common, "issuer": "portal", "secret": SECRET, "algorithms": ["HS256"]},
    }
    domains = (word for domain in backends for word in ("--domain", domain))
    running = start_cluster(
        tmp_path_factory.mktemp("cluster"), *domains, "--s2s", "0", "--set",
        f"authentication.domains={json.dumps(backends)}",
    )  # fmt: skip
    yield running
    assert running.stop() == 0


def secured(cluster: RunningCluster, domain: str) -> Client:
    client = Client(cluster, domain=domain)
    client.open()
    client.start_tls()
    return client


def bearer(client: Client, token: str, authzid: str = "") -> tuple[str, dict[str, str]]:
    """OAUTHBEARER: "success" or the condition of the failure, and what the challenge before it said."""
    gs2 = f"n,{f'a={authzid}' if authzid else ''},"
    data = b64encode(f"{gs2}\x01auth=Bearer {token}\x01\x01".encode()).decode()
    client.send(f"<auth xmlns='{SASL[1:-1]}' mechanism='OAUTHBEARER'>{data}</auth>")
    answer = client.expect(lambda element: element.tag.startswith(SASL))
    told: dict[str, str] = {}
    if answer.tag == f"{SASL}challenge":
        told = json.loads(b64decode(answer.text or ""))
        client.send(f"<response xmlns='{SASL[1:-1]}'>AQ==</response>")
        answer = client.expect(lambda element: element.tag.startswith(SASL))
    return ("success" if answer.tag == f"{SASL}success" else condition(answer)), told


def outcome(cluster: RunningCluster, token: str, domain: str = OIDC, authzid: str = "") -> str:
    with secured(cluster, domain) as client:
        return bearer(client, token, authzid)[0]


def test_a_token_says_who_somebody_is(cluster: RunningCluster, provider: Provider) -> None:
    with secured(cluster, OIDC) as client:
        assert bearer(client, provider.token("Romeo")) == ("success", {})
        client.open()
        assert client.bind("balcony") == f"romeo@{OIDC}/balcony"
        assert client.iq("get", "<query xmlns='jabber:iq:roster'/>").get("type") == "result"
    assert cluster.api.call("GET", f"/users/romeo@{OIDC}")["jid"] == f"romeo@{OIDC}"


def test_many_users_come_for_the_first_time(cluster: RunningCluster, provider: Provider) -> None:
    """Their accounts belong to either router, whoever checks the token."""
    for n in range(8):
        assert outcome(cluster, provider.token(f"new-{n}")) == "success"
        assert cluster.api.call("GET", f"/users/new-{n}@{OIDC}")["jid"] == f"new-{n}@{OIDC}"


def test_a_token_may_be_the_password(cluster: RunningCluster, provider: Provider) -> None:
    with sign_in(cluster, Account(f"juliet@{OIDC}", provider.token("juliet")), tls=True) as juliet:
        juliet.ping()
    with secured(cluster, OIDC) as client:
        assert condition(client.plain(Account(f"romeo@{OIDC}", provider.token("juliet")))) == "not-authorized"
        assert condition(client.plain(Account(f"juliet@{OIDC}", "a password"))) == "not-authorized"


def test_only_what_there_is_is_offered(cluster: RunningCluster) -> None:
    with Client(cluster, domain=OIDC) as client:
        client.open()
        features = client.start_tls()
        assert [name.text for name in features.iter(f"{SASL}mechanism")] == ["OAUTHBEARER", "PLAIN"]


def test_a_token_that_is_not_good_is_explained(cluster: RunningCluster, provider: Provider, authority: Path) -> None:
    with secured(cluster, OIDC) as client:
        result, told = bearer(client, provider.token("romeo", aud="web"))
        assert (result, told["status"]) == ("not-authorized", "invalid_token")
        trusts = ssl.create_default_context(cafile=authority)
        with urllib.request.urlopen(told["openid-configuration"], context=trusts) as page:
            assert json.load(page)["issuer"] == provider.issuer
        assert bearer(client, provider.token("romeo"))[0] == "success", "the stream is as good as before"


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": 1},
        {"iss": "https://localhost"},
        {"preferred_username": "a b"},
        {"preferred_username": "romeo@x.example"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_is_no_token_for_here(cluster: RunningCluster, provider: Provider, changed: dict[str, object]) -> None:
    assert outcome(cluster, provider.token("romeo", **changed)) == "not-authorized"


def test_nobody_becomes_somebody_else(cluster: RunningCluster, provider: Provider) -> None:
    assert outcome(cluster, provider.token("romeo"), authzid=f"romeo@{OIDC}") == "success"
    assert outcome(cluster, provider.token("romeo"), authzid=f"juliet@{OIDC}") == "not-authorized"


def test_a_secret_instead_of_a_provider(cluster: RunningCluster, provider: Provider) -> None:
    good = {"iss": "portal", "aud": "xmpp", "preferred_username": "romeo", "exp": 4_000_000_000}
    assert outcome(cluster, jwt.encode(good, SECRET, "HS256"), SHARED) == "success"
    assert outcome(cluster, jwt.encode(good, SECRET + "!", "HS256"), SHARED) == "not-authorized"
    assert outcome(cluster, provider.token("romeo", iss="portal"), SHARED) == "not-authorized"


def test_the_provider_changes_its_keys(cluster: RunningCluster, provider: Provider) -> None:
    old = provider.token("romeo")
    assert outcome(cluster, old) == "success"
    provider.rotate()
    wait_until(lambda: outcome(cluster, provider.token("romeo")) == "success", 10, "the new key is known")
    assert outcome(cluster, old) == "not-authorized"


def test_a_provider_that_is_away_is_no_wrong_token_and_comes_back(cluster: RunningCluster, late: Provider) -> None:
    with secured(cluster, LATE) as client:
        for _ in range(5):  # more than c2s.sasl_tries
            assert bearer(client, late.token("romeo")) == ("temporary-auth-failure", {})
    late.start()
    wait_until(lambda: outcome(cluster, late.token("romeo"), LATE) == "success", 10, "the provider is found")
    assert late.asked[:2] == [DISCOVERY, "/keys"]
    late.stop()
    assert outcome(cluster, late.token("romeo"), LATE) == "success", "its keys are kept"
    assert outcome(cluster, late.token("romeo", exp=1), LATE) == "not-authorized", "and judge as before"
    late.rotate()
    wait_until(
        lambda: outcome(cluster, late.token("romeo"), LATE) == "temporary-auth-failure", 10, "nobody can know that key"
    )
    late.start()
    wait_until(lambda: outcome(cluster, late.token("romeo"), LATE) == "success", 10, "the provider is back")
