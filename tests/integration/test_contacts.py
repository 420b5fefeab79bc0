"""Who finds whom: user search (XEP-0055), shared groups; in a cluster that has both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.client import CLIENT, Client, condition, place, sign_in
from tests.support.cluster import RunningCluster, start_cluster, wait_until

SEARCH = "{jabber:iq:search}"


@pytest.fixture(scope="module")
def social(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    groups = 'contacts.groups={"Everybody": ["*@localhost"]}'
    options = ("--tls", "optional", "--set", "contacts.search=true", "--set", groups)
    running = start_cluster(tmp_path_factory.mktemp("social"), *options)
    yield running
    assert running.stop() == 0


def search(client: Client, **fields: str) -> list[tuple[str, str | None]]:
    inner = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items())
    answer = client.iq("set", f"<query xmlns='{SEARCH[1:-1]}'>{inner}</query>", client.domain)
    assert answer.get("type") == "result", condition(answer)
    return [(item.get("jid") or "", item.findtext(f"{SEARCH}first")) for item in answer.iter(f"{SEARCH}item")]


def test_people_are_found_by_their_names(social: RunningCluster) -> None:
    with sign_in(social, social.account("juliet")) as juliet, sign_in(social, social.account("romeo")) as romeo:
        card = "<vCard xmlns='vcard-temp'><FN>Juliet &amp; Co_1</FN><NICKNAME>Jule</NICKNAME></vCard>"
        assert juliet.iq("set", card).get("type") == "result"
        fields = romeo.iq("get", f"<query xmlns='{SEARCH[1:-1]}'/>", romeo.domain)
        assert fields.find(f"{SEARCH}query/{SEARCH}nick") is not None
        assert fields.find(f"{SEARCH}query/{{jabber:x:data}}x") is not None
        assert search(romeo, first="juliet") == [(juliet.bare, "Juliet & Co_1")]
        assert search(romeo, nick="jul", user="juli") == [(juliet.bare, "Juliet & Co_1")]
        assert search(romeo, first="Co_1") == [(juliet.bare, "Juliet & Co_1")]
        assert search(romeo, first="Co%") == search(romeo, first="C__1") == []
        nothing = romeo.iq("set", f"<query xmlns='{SEARCH[1:-1]}'/>", romeo.domain)
        assert condition(nothing) == "bad-request"
        form = (
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>jabber:iq:search</value></field>"
            "<field var='user'><value>juliet</value></field></x>"
        )
        answer = romeo.iq("set", f"<query xmlns='{SEARCH[1:-1]}'>{form}</query>", romeo.domain)
        assert juliet.bare in [value.text for value in answer.iter("{jabber:x:data}value")]


def test_nobody_is_found_unless_the_operator_wants_it(cluster: RunningCluster) -> None:
    with sign_in(cluster, cluster.account()) as romeo:
        answer = romeo.iq("set", f"<query xmlns='{SEARCH[1:-1]}'><user>r</user></query>", romeo.domain)
        assert condition(answer) == "service-unavailable"
        info = romeo.iq("get", "<query xmlns='http://jabber.org/protocol/disco#info'/>", romeo.domain)
        assert "jabber:iq:search" not in {e.get("var") for e in info.iter()}


def test_everybody_sees_everybody(social: RunningCluster) -> None:
    """Who is new is seen by those who sign in later."""
    nurse, friar = social.account("nurse"), social.account("friar")

    def listed(client: Client) -> set[str | None]:
        answer = client.iq("get", "<query xmlns='jabber:iq:roster'/>")
        return {item.get("jid") for item in answer.iter("{jabber:iq:roster}item")}

    aware: set[str] = set()  # routers that have read who there is

    def all_see() -> bool:
        with sign_in(social, social.account()) as client:
            if {nurse.jid, friar.jid} <= listed(client):
                aware.add(place(social, client)[1])
        return len(aware) == 2

    wait_until(all_see, 60, "the routers have read who there is")
    social.api.call("DELETE", f"/users/{nurse.jid}")
    with sign_in(social, friar) as first, sign_in(social, social.account()) as second:
        assert first.presence(None, second.jid).tag == f"{CLIENT}presence"
