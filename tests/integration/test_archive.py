"""The archive through real processes: what was said is read back, in order, also by somebody else's client."""

from __future__ import annotations

from tests.support.client import CLIENT, Client, Element, sign_in, sign_in_apart
from tests.support.cluster import RunningCluster
from xmpp import ns

MAM, RSM = f"{{{ns.MAM}}}", f"{{{ns.RSM}}}"


class Page:
    """The answer to a query."""

    def __init__(self, client: Client, form: str = "", rsm: str = "") -> None:
        if form:
            hidden = f"<field var='FORM_TYPE' type='hidden'><value>{ns.MAM}</value></field>"
            form = f"<x xmlns='{ns.DATA_FORMS}' type='submit'>{hidden}{form}</x>"
        query = f"<query xmlns='{ns.MAM}' queryid='q'>{form}<set xmlns='{ns.RSM}'>{rsm}</set></query>"
        answer = client.iq("set", query)
        fin = answer[0]
        assert fin.tag == f"{MAM}fin", answer.attrib
        results = [e[0] for e in client._waiting if e.tag == f"{CLIENT}message" and e[0].tag == f"{MAM}result"]
        client._waiting = [
            e for e in client._waiting if not (e.tag == f"{CLIENT}message" and e[0].tag == f"{MAM}result")
        ]
        self.ids = [result.get("id") or "" for result in results]
        self.bodies = [result.findtext(f".//{CLIENT}body") or "" for result in results]
        self.is_complete = fin.get("complete") == "true"
        self.count = fin.findtext(f"{RSM}set/{RSM}count")


def field(name: str, value: str) -> str:
    return f"<field var='{name}'><value>{value}</value></field>"


def stanza_id(message: Element, by: str) -> str:
    """The id that an archive has given it."""
    (found,) = [e for e in message.iter(f"{{{ns.SID}}}stanza-id") if e.get("by") == by]
    return found.get("id") or ""


def test_what_was_said_is_read_back_page_by_page(cluster: RunningCluster) -> None:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=True)
    with romeo, juliet:
        said = [f"line {number}" for number in range(25)]
        for number, line in enumerate(said):
            (romeo if number % 2 else juliet).message((juliet if number % 2 else romeo).bare, line)
            (juliet if number % 2 else romeo).body()  # one speaks after the other
        for client, other in ((romeo, juliet), (juliet, romeo)):
            pages: list[str] = []
            before = "<before/>"
            while True:
                page = Page(client, field("with", other.bare), f"<max>10</max>{before}")
                pages[:0] = page.bodies
                assert page.count == "25"
                if page.is_complete:
                    break
                before = f"<before>{page.ids[0]}</before>"
            assert pages == said
            assert Page(client, field("with", f"nobody@{cluster.domain}")).bodies == []
            assert Page(client, field("{urn:xmpp:fulltext:0}fulltext", "line 7")).bodies == ["line 7"]


def test_a_query_sees_what_its_session_has_sent_before(cluster: RunningCluster) -> None:
    """No waiting for anything: everything of an account has one order."""
    with sign_in(cluster, cluster.account()) as romeo:
        for number in range(20):
            romeo.message(f"juliet@{cluster.domain}", str(number))
            romeo.message(romeo.bare, f"note {number}")
            page = Page(romeo, rsm="<max>2</max><before/>")
            assert page.bodies == [str(number), f"note {number}"]


def test_the_id_of_a_message_is_its_place_in_the_archive(cluster: RunningCluster) -> None:
    romeo, juliet = sign_in_apart(cluster, other_c2s=True, other_router=False)
    with romeo, juliet:
        ids = []
        for number in range(5):
            romeo.message(juliet.jid, str(number))
            message = juliet.expect(lambda e: e.find(f"{CLIENT}body") is not None)
            ids.append(stanza_id(message, juliet.bare))
        assert Page(juliet).ids == ids
        assert Page(juliet, rsm=f"<after>{ids[2]}</after>").ids == ids[3:]
        assert not set(ids) & set(Page(romeo).ids)


def test_preferences_outlive_the_session(cluster: RunningCluster) -> None:
    account = cluster.account()
    never = f"<prefs xmlns='{ns.MAM}' default='never'><always><jid>friend@{cluster.domain}</jid></always></prefs>"
    with sign_in(cluster, account) as romeo:
        assert romeo.iq("set", never).get("type") == "result"
    with sign_in(cluster, account) as romeo:
        prefs = romeo.iq("get", f"<prefs xmlns='{ns.MAM}'/>")[0]
        assert prefs.get("default") == "never"
        assert [e.text for e in prefs.iter(f"{MAM}jid")] == [f"friend@{cluster.domain}"]
        for name in ("friend", "foe"):
            romeo.message(f"{name}@{cluster.domain}", name)
        assert Page(romeo).bodies == ["friend"]
