"""Nothing tells a name that somebody has from one that nobody has, while nobody has proved anything."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable
from xml.etree import ElementTree

import psycopg
import pytest

from tests.integration.test_sign_in import FAST, NONE, PHONE
from tests.integration.test_upgrades import WANTED
from tests.support.client import Client, condition
from tests.support.cluster import Account, RunningCluster
from xmpp import tokens

SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
SASL2 = "urn:xmpp:sasl:2"
SCRAM = [f"SCRAM-SHA-{size}{plus}" for size in ("1", "256", "512") for plus in ("", "-PLUS")]


def shape(client: Client) -> str:
    """What the server says next, without what it draws at random."""
    element = client.read()
    if element.tag.endswith("challenge"):
        said = b64decode(element.text or "").decode()
        said = re.sub(r"r=[^,]*", lambda found: f"r={len(found[0])}", said)
        return re.sub(r"s=[^,]*", lambda found: f"s={len(found[0])}", said)
    return ElementTree.tostring(element).decode()


def initial(element: str, mechanism: str, data: bytes, inner: str = "") -> str:
    text = b64encode(data).decode()
    if element == "auth":
        return f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{text}</auth>"
    first = f"<initial-response>{text}</initial-response>"
    return f"<authenticate xmlns='{SASL2}' mechanism='{mechanism}'>{first}{inner}</authenticate>"


def by_scram(client: Client, name: str, element: str, mechanism: str) -> list[str]:
    """A guess, as far as the proof goes."""
    binding = "p=tls-server-end-point,," if mechanism.endswith("PLUS") else "n,,"
    client.send(initial(element, mechanism, f"{binding}n={name},r=abc".encode()))
    told = client.read()
    first = b64decode(told.text or "").decode()
    facts = dict(part.split("=", 1) for part in first.split(","))
    shaped = f"{len(facts['r'])} {len(facts['s'])} {facts['i']} {facts['h']}"
    size = {"1": 20, "256": 32, "512": 64}[mechanism.removesuffix("-PLUS").rpartition("-")[2]]
    final = f"c={b64encode(binding.encode()).decode()},r={facts['r']},p={b64encode(bytes(size)).decode()}"
    namespace = SASL if element == "auth" else SASL2
    client.send(f"<response xmlns='{namespace}'>{b64encode(final.encode()).decode()}</response>")
    return [shaped, shape(client)]


def by_password(client: Client, name: str, element: str, mechanism: str) -> list[str]:
    client.send(initial(element, "PLAIN", f"\0{name}\0a guess".encode(), WANTED))
    return [shape(client)]


def by_token(client: Client, name: str, element: str, mechanism: str) -> list[str]:
    data = name.encode() + b"\0" + tokens.prove("a guess", b"")
    client.send(initial(element, NONE, data, f"{PHONE}<fast xmlns='{FAST}'/>{WANTED}"))
    return [shape(client)]


@pytest.mark.parametrize(
    ("way", "element", "mechanism"),
    [
        *((by_scram, element, mechanism) for element in ("auth", "authenticate") for mechanism in SCRAM),
        (by_password, "auth", "PLAIN"),
        (by_password, "authenticate", "PLAIN"),
        (by_token, "authenticate", NONE),
    ],
)
def test_a_wrong_guess_sounds_alike(
    cluster: RunningCluster, way: Callable[..., list[str]], element: str, mechanism: str
) -> None:
    account = cluster.account()
    heard = []
    for jid in (account.jid, f"nobody-at-all@{cluster.domain}"):
        name = jid.partition("@")[0]
        with Client(cluster, direct_tls=True) as client:
            client.send(
                "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' "
                f"from='{jid}' to='{cluster.domain}'>"
            )
            heard.append([ElementTree.tostring(client.read()).decode(), *way(client, name, element, mechanism)])
    assert heard[0] == heard[1]
    assert "not-authorized" in heard[0][-1]


@pytest.mark.parametrize(
    ("type", "inner"),
    [
        ("set", "<username>{}</username><password>new</password>"),
        ("set", "<username>{}</username>"),
        ("set", "<username>{}</username><remove/>"),
        ("get", "<username>{}</username>"),
    ],
    ids=["account or password", "no password", "remove", "form"],
)
def test_where_nobody_registers_no_name_is_told_from_another(cluster: RunningCluster, type: str, inner: str) -> None:
    """XEP-0077, before signing in: for an account, for a new password (3.3) and for the end of one (3.2)."""
    account = cluster.account()
    heard = []
    for name in (account.jid.partition("@")[0], "nobody-at-all"):
        with Client(cluster) as client:
            client.open()
            answer = client.iq(type, f"<query xmlns='jabber:iq:register'>{inner.format(name)}</query>", cluster.domain)
            assert condition(answer) == "service-unavailable"
            del answer.attrib["id"]
            heard.append(ElementTree.tostring(answer).decode().replace(name, "NAME"))
    assert heard[0] == heard[1]


def iterations(cluster: RunningCluster, name: str) -> int:
    with Client(cluster) as client:
        client.open()
        client.send(initial("auth", "SCRAM-SHA-256", f"n,,n={name},r=abc".encode()))
        found = re.search(r"i=(\d+)", b64decode(client.read().text or "").decode())
        assert found is not None
        return int(found[1])


def test_names_that_nobody_has_look_as_old_as_accounts_are(new_cluster: Callable[..., RunningCluster]) -> None:
    """`authentication.iterations` was raised; some have a new password since then."""
    cluster = new_cluster("--tls", "optional", "--set", "limits.enabled=false")
    found: list[Account] = [cluster.account() for _ in range(10)]
    old = [account.jid for account in found[:5]]
    with psycopg.connect(cluster.facts["database_url"]) as conn:
        conn.execute(
            "update credentials c set iterations = 4096 from entities e where c.key = e.key and e.jid = any (%s)",
            (old,),
        )
    names = [f"nobody-{number}" for number in range(60)]

    def restarted() -> list[int]:
        for router in cluster.processes("router"):
            cluster.kill(router.node)
            cluster.wait_restarted(router.node, router.pid)
        cluster.wait_ready()
        return [iterations(cluster, name) for name in names]

    seen = restarted()
    assert set(seen) == {4_096, 10_000}
    assert 12 <= Counter(seen)[4_096] <= 48
    assert [iterations(cluster, account.jid.partition("@")[0]) for account in found] == [4_096] * 5 + [10_000] * 5
    assert restarted() == seen
