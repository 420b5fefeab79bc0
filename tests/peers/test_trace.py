"""A trace of what crosses to another server and comes from it (docs/tracing.md), with Prosody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_trace import SECRET, Tracing
from tests.peers.slixmpp_client import Slixmpp
from tests.peers.test_federation import start_stentor
from tests.support.client import sign_in
from tests.support.cluster import RunningCluster
from tests.support.peers.peers import running_peers
from tests.support.peers.prosody import Prosody


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningCluster, Prosody]]:
    directory: Path = tmp_path_factory.mktemp("trace")
    with running_peers(directory / "peers") as peers:
        prosody = peers.prosody("pr.example", secure=True)
        options = ("--c2s", "2", "--router", "2", "--tls", "optional")
        cluster = start_stentor(peers, directory / "cluster", *options, st_example=False)
        yield cluster, prosody
        assert cluster.stop() == 0


def test_both_ways_to_another_server(world: tuple[RunningCluster, Prosody]) -> None:
    cluster, prosody = world
    with (
        sign_in(cluster, cluster.account(domain="st.example")) as romeo,
        Slixmpp(prosody, prosody.account("juliet")) as juliet,
        Tracing(cluster, romeo.bare) as of_romeo,
        Tracing(cluster, "pr.example") as of_domain,
    ):
        id_ = romeo.message(juliet.bare, SECRET)
        assert juliet.body(romeo.jid) == SECRET
        for tracing in (of_romeo, of_domain):
            had = tracing.find("acknowledged", id_, "s2s-0")
            way = [(e["hop"], e["decision"]) for e in tracing.of(had["stanza"])]
            assert way.index(("sender", "routed")) < way.index(("peer", "waits")) < way.index(("peer", "dialed"))
            assert way.index(("peer", "delivered")) < way.index(("stream", "written"))
            assert way[-1] == ("stream", "acknowledged")
        juliet.message(romeo.bare, SECRET)
        romeo.body()
        came = of_romeo.wait(lambda e: (e["decision"], e["hop"]) == ("received", "stream") and e["kind"] == "message")
        end = of_romeo.wait(lambda e: e["stanza"] == came["stanza"] and e["decision"] == "taken")
        assert end["details"]["session"] == romeo.jid
        assert SECRET not in "".join(of_romeo.lines + of_domain.lines)
