"""Signing in as @xmpp/client does: SASL2, Bind 2, stream management and a token, all at once (XEP-0388, 0386, 0484)."""

from __future__ import annotations

from tests.peers.persons import XmppJs
from tests.peers.slixmpp_client import Slixmpp
from tests.support.cluster import RunningCluster


def test_it_comes_back_with_its_token_and_its_stream_goes_on(cluster: RunningCluster) -> None:
    with XmppJs(cluster, cluster.account()) as person, Slixmpp(cluster, cluster.account()) as juliet:
        assert person.jid.partition("/")[2].startswith("js/"), "what it calls itself, then what the server made of it"
        back = person.again()
        assert back == {"mechanism": "HT-SHA-256-NONE", "resumed": True, "jid": person.jid}
        juliet.message(person.jid, "still there?")
        assert "still there?" in person.wait("still there?")


def test_a_stream_that_is_gone_is_bound_anew_in_the_same_round_trip(cluster: RunningCluster) -> None:
    with XmppJs(cluster, cluster.account()) as person:
        back = person.again("ffff")
        assert back == {"mechanism": "HT-SHA-256-NONE", "resumed": False, "jid": person.jid}
        clients = person.iq("get", "<list xmlns='urn:xmpp:cam:0'/>")
        assert clients.count("<client ") == 1, "the same device, whose session took the place of the former"
        assert "<fast/>" in clients
