"""Several servers that find each other (s2s/federation.py): dialling, verifying, joining, failing, draining."""

from __future__ import annotations

from typing import Any

import pytest

from s2s.federation import OUTGOING, FailureReport, StreamReport
from s2s.negotiation import State
from tests.support.federation import (
    LOCAL,
    NONE,
    OTHER,
    REMOTE,
    Certificate,
    Network,
    PlainTransport,
    Server,
)
from tests.support.streams import Clock, sample

ROOMS = "rooms.capulet.example"
PARIS = "paris.example"


def two(
    *, is_direct_tls: bool = False, has_certificates: bool = True, **changes: Any
) -> tuple[Network, Server, Server]:
    clock = Clock()
    near = Server(clock=clock, **changes)
    far = Server(clock=clock, domains=frozenset({REMOTE, ROOMS}), secret=b"another", **changes)
    if not has_certificates:
        near.certificate = far.certificate = NONE
    return Network(near, far, is_direct_tls=is_direct_tls), near, far


@pytest.mark.parametrize("is_direct_tls", [True, False])
@pytest.mark.parametrize("has_certificates", [True, False])
@pytest.mark.parametrize("has_bidi", [True, False])
@pytest.mark.parametrize("pieces", [1_000_000, 1_000, 13])
def test_two_servers_talk(is_direct_tls: bool, has_certificates: bool, has_bidi: bool, pieces: int) -> None:
    network, near, far = two(is_direct_tls=is_direct_tls, has_certificates=has_certificates, has_bidi=has_bidi)
    network.pieces = pieces
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    how = "external" if has_certificates else "dialback"
    assert [(bare, facts["how"], facts["sends"]) for bare, facts in near.attached] == [(REMOTE, how, True)]
    assert [(bare, facts["how"], facts["sends"]) for bare, facts in far.attached] == [(LOCAL, how, has_bidi)]
    far.federation.dial(LOCAL, REMOTE)  # with bidi there is a way already
    network.run()
    near.send(REMOTE, LOCAL, "wherefore")
    far.send(LOCAL, REMOTE, "art thou")
    network.run()
    assert [stanza.id for stanza in far.got()] == ["wherefore"]
    assert [stanza.id for stanza in near.got()] == ["art thou"]
    assert near.session(REMOTE, LOCAL).acknowledged == 1
    in_use = [stream for stream in (*near.streams, *far.streams) if stream.pairs]
    assert len(in_use) == (2 if has_bidi else 4)
    assert all(stream.is_secure for stream in in_use)


def test_without_encryption_where_both_allow_it() -> None:
    network, near, far = two(is_tls_required=False)
    for server in (near, far):
        server.certificate = NONE
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    near.send(REMOTE, LOCAL, "hello")
    network.run()
    assert [stanza.id for stanza in far.got()] == ["hello"]


def test_keys_are_verified_by_any_process_of_the_cluster() -> None:
    """The stream is opened by one process; DNS leads to another."""
    clock = Clock()
    near, sibling = Server(clock=clock), Server(clock=clock)
    far = Server(clock=clock, domains=frozenset({REMOTE}), secret=b"another")
    near.certificate = sibling.certificate = far.certificate = NONE
    network = Network(near, sibling, far)
    assert network.dns[LOCAL] is sibling
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    assert [bare for bare, _ in far.attached] == [LOCAL]


def test_all_pairs_of_two_servers_share_one_stream() -> None:
    """XEP-0220, 2.6: also for other domains of the same server."""
    network, near, far = two()
    before = sample("stentor_s2s_dials_total", result="joined")
    for remote, local in [(REMOTE, LOCAL), (REMOTE, OTHER), (ROOMS, LOCAL), (ROOMS, OTHER)]:
        near.federation.dial(remote, local)
        network.run()
    for remote, local in [(ROOMS, OTHER), (REMOTE, LOCAL)]:
        near.send(remote, local, f"{remote} {local}")
    network.run()
    assert [stanza.id for stanza in far.got()] == [f"{ROOMS} {OTHER}", f"{REMOTE} {LOCAL}"]
    assert len([stream for stream in near.federation.streams if stream.direction == "out"]) == 1
    assert sample("stentor_s2s_dials_total", result="joined") == before + 2
    assert near.unreachable == []


def test_a_domain_of_the_same_server_needs_a_certificate_of_its_own_where_that_is_demanded() -> None:
    network, near, far = two(policies={ROOMS: "secure"})
    far.certificate = Certificate((REMOTE,))
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    near.federation.dial(ROOMS, LOCAL)
    network.run()
    assert [bare for bare, _ in near.attached] == [REMOTE]
    assert [told[:3] for told in near.unreachable] == [(ROOMS, LOCAL, "policy-violation")]


def test_dialling_while_a_stream_is_under_way_or_there_opens_no_other() -> None:
    network, near, _ = two()
    for _ in range(3):
        near.federation.dial(REMOTE, LOCAL)
    assert len(near.dialled) == 1
    network.run()
    near.federation.dial(REMOTE, LOCAL)
    assert near.dialled == []


@pytest.mark.parametrize(
    ("remote", "local", "changes", "condition", "is_permanent"),
    [
        (OTHER, LOCAL, {}, "remote-server-not-found", True),
        (REMOTE, PARIS, {}, "remote-server-not-found", True),
        (REMOTE, LOCAL, {"policies": {REMOTE: "deny"}}, "policy-violation", True),
        (REMOTE, LOCAL, {"policy": "deny"}, "policy-violation", True),
    ],
)
def test_some_are_never_dialled(
    remote: str, local: str, changes: dict[str, Any], condition: str, is_permanent: bool
) -> None:
    server = Server(**changes)
    server.federation.dial(remote, local)
    assert server.dialled == []
    [(told_remote, told_local, told_condition, _, told_permanent)] = server.unreachable
    assert (told_remote, told_local, told_condition, told_permanent) == (remote, local, condition, is_permanent)


def test_a_domain_that_does_not_exist_is_told_and_not_looked_for_again_at_once() -> None:
    network, near, _ = two()
    near.federation.dial(PARIS, LOCAL)
    network.run()
    near.federation.dial(PARIS, LOCAL)
    assert near.dialled == []
    assert near.unreachable == [(PARIS, LOCAL, "remote-server-not-found", "There is no such domain.", True)] * 2
    near.tick(1.5)
    near.federation.dial(PARIS, LOCAL)
    assert len(near.dialled) == 1
    network.run()
    near.tick(1.5)  # the second time, it takes twice as long
    near.federation.dial(PARIS, LOCAL)
    assert near.dialled == []
    [report] = near.federation.failures(PARIS)
    assert report == FailureReport(
        PARIS, LOCAL, 1_700_000_000.0, 2, "remote-server-not-found", "There is no such domain."
    )  # fmt: skip


def test_success_makes_a_failure_forgotten() -> None:
    network, near, far = two()
    network.dns[REMOTE] = Server(clock=near.clock)  # a server that does not serve it
    network.servers += (network.dns[REMOTE],)
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    assert [told[2] for told in near.unreachable] == ["remote-server-not-found"]  # it says host-unknown
    assert len(near.federation.failures(REMOTE)) == 1
    network.dns[REMOTE] = far
    near.tick(2)
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    assert near.federation.failures(REMOTE) == []
    assert [bare for bare, _ in near.attached] == [REMOTE]


def test_a_connection_that_is_never_made_is_given_up() -> None:
    server = Server()
    server.federation.dial(REMOTE, LOCAL)
    server.tick(31)
    assert [told[2] for told in server.unreachable] == ["remote-server-timeout"]
    assert list(server.federation.streams) == []
    transport = PlainTransport()
    server.dialled.pop().connected(transport, ("host", 5269))  # too late
    assert transport.is_closed


def test_a_process_opens_a_bounded_number_of_streams() -> None:
    server = Server()
    for number in range(OUTGOING + 1):
        server.federation.dial(f"n{number}.example", LOCAL)
    assert len(server.dialled) == OUTGOING
    assert [told[2] for told in server.unreachable] == ["resource-constraint"]


def test_a_lost_stream_is_replaced_and_its_stanzas_are_given_back() -> None:
    network, near, far = two()
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    session = near.session(REMOTE, LOCAL)
    for wire in network.wires:
        wire.is_reading = False
    near.send(REMOTE, LOCAL, "lost")
    network.cut(near)
    assert [stanza.id for _, _, stanza in session.unacknowledged] == ["lost"]
    network.run()
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    near.send(REMOTE, LOCAL, "again")
    network.run()
    assert [stanza.id for stanza in far.got()] == ["again"]


def test_a_way_that_is_about_to_end_is_replaced_at_once() -> None:
    network, near, far = two()
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    near.streams[0].leave("idle")
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    assert len([stream for stream in near.federation.streams if stream.pairs]) == 1
    near.send(REMOTE, LOCAL, "hello")
    network.run()
    assert [stanza.id for stanza in far.got()] == ["hello"]


def test_a_process_that_drains_ends_its_streams_loses_nothing_and_opens_none() -> None:
    network, near, far = two()
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    near.send(REMOTE, LOCAL, "last words")
    far.send(LOCAL, REMOTE, "farewell")
    near.federation.shut_down()
    network.run()
    assert list(near.federation.streams) == [] == list(far.federation.streams)
    assert [stanza.id for stanza in far.got()] == ["last words"]
    assert [stanza.id for stanza in near.got()] == ["farewell"]
    assert near.edge.sessions == far.edge.sessions == {}
    near.federation.dial(REMOTE, LOCAL)
    assert near.dialled == []


def test_a_failure_of_verification_is_remembered_so_that_nobody_is_asked_in_vain() -> None:
    network, near, far = two(has_certificates=False)
    del network.dns[LOCAL]
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    assert [told[2] for told in near.unreachable] == ["remote-server-timeout"]
    assert [(report.remote, report.condition) for report in far.federation.failures(LOCAL)] == [
        (LOCAL, "remote-server-not-found")
    ]
    near.tick(1.5)
    far.tick(0.0)


def test_operators_see_every_stream() -> None:
    network, near, far = two()
    near.federation.dial(REMOTE, LOCAL)
    assert near.federation.reports(REMOTE) == [StreamReport("out", REMOTE, LOCAL, "connecting", "", "", ())]
    network.run()
    assert near.federation.reports(REMOTE) == [
        StreamReport("out", REMOTE, LOCAL, "open", "192.0.2.2", "tcp", ((REMOTE, LOCAL, "external", True),))
    ]
    assert far.federation.reports(LOCAL) == [
        StreamReport("in", LOCAL, REMOTE, "open", "192.0.2.1", "tcp", ((LOCAL, REMOTE, "external", True),))
    ]


def test_an_operator_ends_the_streams_with_a_domain_and_no_others() -> None:
    network, near, far = two()
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    assert near.federation.reports(PARIS) == []
    assert near.federation.close(PARIS) == 0
    assert near.federation.close(REMOTE) == 1
    assert near.federation.close(REMOTE) == 0, "it ends already"
    network.run()
    assert (near.federation.reports(REMOTE), far.federation.reports(LOCAL)) == ([], [])
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    assert [report.state for report in near.federation.reports(REMOTE)] == ["open"], "whoever has something asks anew"


def test_streams_that_only_verify_end_soon() -> None:
    network, near, far = two(has_certificates=False)
    near.federation.dial(REMOTE, LOCAL)
    network.run()
    assert [stream.state for stream in far.federation.streams] == [State.OPEN, State.NEGOTIATING]
    far.tick(11)
    network.run()
    assert [stream.state for stream in far.federation.streams] == [State.OPEN]
    assert [stream.state for stream in near.federation.streams] == [State.OPEN]
