"""The libraries of web clients: strophe.js over BOSH and WebSocket, @xmpp/client over WebSocket; each chats with the
others and with a client on TCP."""

from __future__ import annotations

import pytest

from tests.peers.persons import Strophe, XmppJs
from tests.peers.slixmpp_client import Slixmpp
from tests.support.cluster import RunningCluster

PING = "<ping xmlns='urn:xmpp:ping'/>"


def web_socket(cluster: RunningCluster) -> str:
    return f"ws://{cluster.host}:{cluster.facts['ports']['http']}/xmpp-websocket"


def bosh(cluster: RunningCluster) -> str:
    return f"http://{cluster.host}:{cluster.facts['ports']['http']}/http-bind"


@pytest.mark.parametrize("service", [bosh, web_socket])
def test_strophe_chats(cluster: RunningCluster, service: object) -> None:
    url = bosh(cluster) if service is bosh else web_socket(cluster)
    with Strophe(url, cluster.account()) as web, Slixmpp(cluster, cluster.account()) as tcp:
        for number in range(5):
            tcp.message(web.jid, f"to the web {number}")
            assert f"to the web {number}" in web.wait(f"to the web {number}")
        for number in range(5):
            web.message(tcp.jid, f"from the web {number} <&>")
            assert tcp.body() == f"from the web {number} <&>"
        assert 'type="result"' in web.iq("get", PING, cluster.domain)
        web.leave()


def test_strophe_on_bosh_and_on_a_websocket_and_xmppjs_write_to_each_other(cluster: RunningCluster) -> None:
    with (
        Strophe(bosh(cluster), cluster.account()) as first,
        Strophe(web_socket(cluster), cluster.account()) as second,
        XmppJs(cluster, cluster.account(), web_socket(cluster)) as third,
    ):
        for sender in (first, second, third):
            for recipient in (first, second, third):
                text = f"{sender.jid} to {recipient.jid}"
                sender.message(recipient.jid, text)
                assert text in recipient.wait(text)


def test_xmppjs_comes_back_over_websocket_and_its_stream_goes_on(cluster: RunningCluster) -> None:
    with XmppJs(cluster, cluster.account(), web_socket(cluster)) as person, Slixmpp(cluster, cluster.account()) as tcp:
        back = person.again()
        assert back == {"mechanism": "HT-SHA-256-NONE", "resumed": True, "jid": person.jid}
        tcp.message(person.jid, "still there?")
        assert "still there?" in person.wait("still there?")
