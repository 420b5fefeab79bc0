"""What operators and users do against abuse, in a real cluster of two c2s and two routers."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

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
