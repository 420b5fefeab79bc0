"""The keys of the roles and whom they let in (cluster/keys.py); real handshakes are in tests/integration/test_bus.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq
import zmq.utils.z85

from cluster.keys import ZAP_ADDRESS, ZAP_DOMAIN, Keys, ZapHandler, generate, problem_with

ROUTER, C2S, STRANGER = generate(), generate(), generate()
OF_ROLE = {"router": ROUTER[0], "c2s": C2S[0], "s2s": ""}
KEYS = Keys.of(ROUTER[1], OF_ROLE)


def test_a_pair_is_new_each_time_and_its_public_half_follows_from_its_secret_one() -> None:
    assert generate() != generate()
    assert Keys.of(C2S[1], OF_ROLE).public == C2S[0]
    assert {len(half) for half in generate()} == {40}


def test_a_secret_is_not_shown() -> None:
    assert ROUTER[1] not in repr(KEYS)
    assert ROUTER[0] in repr(KEYS)


BAD = ["x", "x" * 39, "x" * 41, "~" * 40, "\0" * 40, "\u00e9" * 40, "#" * 40, " " + "x" * 39]


@pytest.mark.parametrize("bad", ["", *BAD])
def test_a_secret_that_is_no_key_is_refused_with_its_remedy_but_not_shown(bad: str) -> None:
    with pytest.raises(ValueError, match=r"bus\.secret_key .*`stentor keys`") as caught:
        Keys.of(bad, OF_ROLE)
    assert len(bad) < 2 or bad not in str(caught.value)


@pytest.mark.parametrize("bad", BAD)
def test_a_public_key_that_is_none_is_refused_by_name(bad: str) -> None:
    with pytest.raises(ValueError, match=r"bus\.public_keys\.c2s .*`stentor keys`"):
        Keys.of(ROUTER[1], {**OF_ROLE, "c2s": bad})


def test_a_role_may_have_no_key() -> None:
    assert KEYS.of_role["s2s"] == ""


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "192.0.2.1", "router-0.example", ""])
def test_an_open_network_needs_keys(listen: str) -> None:
    problem = problem_with("tcp", listen, None)
    assert problem is not None
    assert "bus.secret_key" in problem
    assert problem_with("tcp", listen, KEYS) is None
    assert problem_with("ipc", listen, None) is None


@pytest.mark.parametrize("listen", ["127.0.0.1", "::1", "localhost"])
def test_the_loopback_does_not(listen: str) -> None:
    assert problem_with("tcp", listen, None) is None


@pytest.fixture
def ask() -> Iterator[_Driven]:
    """The other end of the handler's socket, as libzmq uses it."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.rcvtimeo = 10_000
    handler = ZapHandler(context, KEYS)
    socket.connect(ZAP_ADDRESS)
    try:
        yield _Driven(socket, handler)
    finally:
        handler.close()
        socket.close()
        context.term()


class _Driven:
    """Asks, lets the handler run, and reads its answers."""

    def __init__(self, socket: zmq.Socket[bytes], handler: ZapHandler) -> None:
        self.socket = socket
        self.handler = handler

    def ask(self, *requests: list[bytes]) -> list[list[bytes]]:
        for request in requests:
            self.socket.send_multipart([b"", *request])
        self.handler.drain()
        return [self.socket.recv_multipart()[1:] for _ in requests]


def asked(mechanism: bytes, *credentials: bytes) -> list[bytes]:
    """ZAP, RFC 27: version, request, domain, address, identity, mechanism, credentials."""
    return [b"1.0", b"7", ZAP_DOMAIN.encode(), b"192.0.2.1", b"", mechanism, *credentials]


def curve(public: str) -> list[bytes]:
    return asked(b"CURVE", zmq.utils.z85.decode(public))


def test_a_known_key_tells_its_role(ask: _Driven) -> None:
    assert ask.ask(curve(C2S[0])) == [[b"1.0", b"7", b"200", b"", b"c2s", b""]]
    assert ask.ask(curve(ROUTER[0])) == [[b"1.0", b"7", b"200", b"", b"router", b""]]


@pytest.mark.parametrize(
    "request_",
    [
        curve(STRANGER[0]),
        asked(b"CURVE", b""),  # the key of a role without one is no key
        asked(b"CURVE", C2S[0].encode()),  # text, where ZAP has 32 bytes
        asked(b"CURVE"),
        asked(b"NULL"),
        asked(b"PLAIN", b"c2s", b"c2s"),
        asked(b"PLAIN", zmq.utils.z85.decode(C2S[0]), b""),
    ],
)
def test_anything_else_is_refused(ask: _Driven, request_: list[bytes]) -> None:
    ((version, request, status, text, user, metadata),) = ask.ask(request_)
    assert (version, request, status, user, metadata) == (b"1.0", b"7", b"400", b"", b"")
    assert text == b"this key belongs to no role of the cluster"


def test_one_drain_answers_all_that_was_asked(ask: _Driven) -> None:
    answers = ask.ask(curve(C2S[0]), curve(STRANGER[0]), curve(ROUTER[0]))
    assert [answer[2] for answer in answers] == [b"200", b"400", b"200"]
