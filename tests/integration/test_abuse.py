"""What operators and users do against abuse, in a real cluster of two c2s and two routers."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest

from tests.support.client import CLIENT, SASL, Client, condition, sign_in, sign_in_apart
from tests.support.cluster import Account, RunningCluster, wait_until
from tests.support.nodes import become_friends
from tests.support.rooms import MUC, new_room


def refused(cluster: RunningCluster, client: Client, password: str | None = None) -> tuple[str, str]:
    """Sign in and be refused: the condition and the text."""

    with Client(cluster) as again:
        again.open()
        answer = again.plain(Account(client.bare, "secret"), password)
        assert answer.tag == f"{SASL}failure"
        return condition(answer), answer.findtext(f"{SASL}text") or ""


def test_a_banned_account_is_out_at_once_and_is_told_why(cluster: RunningCluster) -> None:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        become_friends(romeo, juliet)
        done = cluster.command("user", "ban", romeo.bare, "--reason", "He sent <spam> & more.")
        assert (done.returncode, done.stdout) == (0, f"{romeo.bare} is banned\n"), done.stderr
        ended = b""
        try:
            while data := romeo.socket.recv(65_536):
                ended += data
        except OSError:
            pass
        text = ended.decode()
        assert "<policy-violation" in text
        assert "He sent &lt;spam&gt; &amp; more." in text
        juliet.presence("unavailable", romeo.bare)
        assert refused(cluster, romeo) == (
            "account-disabled", "This account is disabled. Reason: He sent <spam> & more.",
        )  # fmt: skip
        assert refused(cluster, romeo, "wrong") == ("not-authorized", ""), "who guesses learns nothing"
        id_ = juliet.message(romeo.bare, "are you there?")
        answer = juliet.expect(lambda e: e.get("id") == id_)
        assert condition(answer) == "service-unavailable"
        assert f"{romeo.bare}  ban" in cluster.command("user", "restricted").stdout
        assert "He sent <spam> & more." in cluster.command("user", "show", romeo.bare).stdout
        assert any("account_restricted" in cluster.log(f"router-{n}") for n in (0, 1)), "who has done what is logged"

        assert cluster.command("user", "unban", romeo.bare).stdout == f"{romeo.bare} is not banned\n"
        assert cluster.command("user", "unban", romeo.bare).stdout == f"{romeo.bare} was not banned\n"

        with sign_in(cluster, Account(romeo.bare, "secret")) as again:
            juliet.presence(None, again.bare)
            juliet.message(again.bare, "welcome back")
            assert again.body() == "welcome back", "what was written meanwhile is not there"


def test_a_ban_ends_by_itself(cluster: RunningCluster) -> None:
    with sign_in(cluster, cluster.account()) as romeo:
        until = datetime.now(UTC) + timedelta(seconds=3)
        cluster.command("user", "ban", romeo.bare, "--reason", "x", "--until", until.isoformat())
        assert refused(cluster, romeo)[0] == "account-disabled"
        wait_until(lambda: datetime.now(UTC) > until, 10, "the ban is over")
        time.sleep(0.2)  # the database's clock may be a little behind

        sign_in(cluster, Account(romeo.bare, "secret")).socket.close()


@pytest.mark.parametrize("until", ["tomorrow", "2027-13-01"])
def test_times_that_are_none(cluster: RunningCluster, until: str) -> None:
    done = cluster.command("user", "ban", cluster.account().jid, "--reason", "x", "--until", until)
    assert done.returncode == 1
    assert "until is no time" in done.stderr


def test_a_second_ban_takes_the_place_of_the_first(cluster: RunningCluster) -> None:
    account = cluster.account()
    cluster.command("user", "ban", account.jid, "--reason", "x")
    cluster.command("user", "ban", account.jid, "--reason", "y")
    with Client(cluster) as client:
        client.open()
        answer = client.plain(account)
        assert condition(answer) == "account-disabled"
        assert (answer.findtext(f"{SASL}text") or "").endswith("Reason: y")
    done = cluster.command("user", "ban", f"nobody@{cluster.domain}", "--reason", "x")
    assert done.returncode == 1
    assert "does not exist" in done.stderr


def test_an_account_in_quarantine_deals_with_its_contacts_alone(cluster: RunningCluster) -> None:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet, sign_in(cluster, cluster.account()) as tybalt:
        become_friends(romeo, juliet)
        assert cluster.command("user", "quarantine", romeo.bare, "--reason", "Reports of spam.").returncode == 0
        told = romeo.expect(lambda e: e.tag == f"{CLIENT}message")
        assert told.get("from") == cluster.domain
        assert "Reports of spam." in (told.findtext(f"{CLIENT}body") or "")
        room = new_room(cluster)
        for stanza in (
            f"<message to='{tybalt.bare}' id='q'><body>buy</body></message>",
            f"<presence to='{tybalt.bare}' type='subscribe' id='q'/>",
            f"<presence to='{room}/romeo' id='q'>{MUC}</presence>",
        ):
            romeo.send(stanza)
            answer = romeo.expect(lambda e: e.get("id") == "q")
            assert condition(answer) == "policy-violation", ElementTree.tostring(answer)
        romeo.message(juliet.bare, "still here")
        assert juliet.body() == "still here"
        tybalt.ping()
        assert not any(e.get("from", "").startswith(romeo.bare) for e in tybalt._waiting)
        assert cluster.command("user", "release", romeo.bare).returncode == 0
        assert "not in quarantine any more" in romeo.body()
        romeo.message(tybalt.bare, "sorry")
        assert tybalt.body() == "sorry"


def report(client: Client, jid: str, reason: str, inner: str = "") -> None:
    item = f"<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:{reason}'>{inner}</report>"
    answer = client.iq("set", f"<block xmlns='urn:xmpp:blocking'><item jid='{jid}'>{item}</item></block>")
    assert answer.get("type") == "result"


def test_reports_wait_for_the_operators(new_cluster: Callable[..., RunningCluster]) -> None:
    """XEP-0377: with what the reporter's archive has of it; enough of them put an account into quarantine."""
    running = new_cluster(
        "--tls", "optional", "--user", "admin@localhost:secret", "--set", 'server.admins=["admin@localhost"]',
        "--set", "abuse.quarantine_reports=2", "--set", "abuse.reports_per_day=2",
    )  # fmt: skip
    with (
        sign_in(running, Account("admin@localhost", "secret")) as admin,
        sign_in(running, running.account("juliet")) as juliet,
        sign_in(running, running.account("nurse")) as nurse,
        sign_in(running, running.account("tybalt")) as tybalt,
    ):
        info = juliet.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", running.domain)
        assert "urn:xmpp:reporting:1" in [feature.get("var") for feature in info[0]]
        ids = []
        for body in ("buy <this>", "buy that"):
            tybalt.send(f"<message to='{juliet.bare}' type='chat'><body>{escape(body)}</body></message>")
            told = juliet.expect(lambda e: e.find(f"{CLIENT}body") is not None)
            ids.append(told.find("{urn:xmpp:sid:0}stanza-id").get("id"))  # type: ignore[union-attr]
        named = "".join(f"<stanza-id xmlns='urn:xmpp:sid:0' by='{juliet.bare}' id='{id_}'/>" for id_ in (*ids, "1"))
        report(juliet, tybalt.bare, "spam", f"<text>All day long.</text>{named}")
        told = admin.expect(lambda e: e.tag == f"{CLIENT}message")
        assert told.get("from") == running.domain
        assert f"{juliet.bare} has reported {tybalt.bare} (spam): All day long." in (told[0].text or "")

        listed = running.command("report", "list")
        (line,) = listed.stdout.splitlines()
        assert f"{juliet.bare} -> {tybalt.bare}  spam  2 messages" in line, listed
        number = line.split()[0]
        shown = running.command("report", "show", number).stdout
        assert "buy &lt;this&gt;</body>" in shown
        assert "buy that</body>" in shown
        assert "missing   1" in shown

        report(nurse, tybalt.bare, "abuse")
        assert "2 users have reported" in tybalt.body()
        tybalt.send(f"<message to='{admin.bare}x' id='q'><body>buy</body></message>")
        assert condition(tybalt.expect(lambda e: e.get("id") == "q")) == "policy-violation"
        assert "quarantine" in running.command("user", "restricted").stdout

        for name in ("x", "y"):
            report(juliet, f"{name}@verona.example", "spam")
        wait_until(lambda: len(running.command("report", "list").stdout.splitlines()) == 3, 20, "one was too many")
        assert running.command("report", "close", number, "--note", "banned").returncode == 0
        assert running.command("report", "close", number).returncode == 1
        assert len(running.command("report", "list").stdout.splitlines()) == 2
        assert "closed" in running.command("report", "list", "--all").stdout
        assert "note      banned" in running.command("report", "show", number).stdout
        erased = running.command("user", "erase", tybalt.bare)
        assert erased.returncode == 0, erased.stderr
        assert ["reports", "2"] in [line.split() for line in erased.stdout.splitlines()]


def test_strangers_are_kept_out(new_cluster: Callable[..., RunningCluster]) -> None:
    running = new_cluster(
        "--tls", "optional", "--set", "strangers.local=refuse", "--set", "abuse.quarantine_strangers=2"
    )
    romeo, juliet = sign_in_apart(running, other_c2s=True, other_router=True)
    with romeo, juliet:
        id_ = romeo.message(juliet.bare, "hello")
        assert condition(romeo.expect(lambda e: e.get("id") == id_)) == "policy-violation"
        juliet.send(f"<presence to='{romeo.bare}' type='subscribe'/>")  # she turns to him
        juliet.ping()
        romeo.message(juliet.bare, "hello again")
        assert juliet.body() == "hello again"
        for name in ("a", "b"):
            romeo.message(f"{name}@{running.domain}", "buy")
        assert "2 strangers within an hour" in romeo.body()
        assert "by strangers" in running.command("user", "restricted").stdout
