"""What the c2s process makes of its configuration, and when it is ready (c2s/service.py). It listens nowhere here."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
import trustme

from c2s.connections import CHECKED_AT_ONCE
from c2s.service import C2SApplication, _phase, _stream_settings, application
from c2s.stream import ClientStream
from c2s.tcp import Connection
from cluster.config import Config, load
from cluster.membership import PeerDown, PeerUp
from cluster.process import CannotStart
from cluster.shards import SHARDS
from cluster.wire import CONFIRMED, MAP, Epoch, Shard
from tests.support.streams import CLOSE, ROMEO, ROUTER, STARTTLS, Talk
from tests.support.tls import write_pair

DOMAIN = "montague.example"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("tls"), "server", trustme.CA().issue_cert(DOMAIN))


def configured(pair: tuple[Path, Path], *overrides: str) -> Config:
    certificate, key = pair
    return load(
        None,
        [f'server.domains=["{DOMAIN}"]', f"tls.certificate={certificate}", f"tls.key={key}", *overrides],
        {},
    )


def reasons(app: C2SApplication) -> dict[str, str | None]:
    return {name: check() for name, check in app.ready_checks().items()}


def test_streams_keep_to_the_configuration(pair: tuple[Path, Path]) -> None:
    settings = _stream_settings(
        configured(pair, "c2s.stanza_bytes=20000", "c2s.depth=20", "limits.sessions=7", "c2s.idle_timeout_s=60")
    )
    assert settings.domains == {DOMAIN}
    assert settings.is_tls_required
    assert (settings.after_login.stanza_bytes, settings.after_login.depth, settings.sessions) == (20_000, 20, 7)
    assert b"<max-bytes>20000</max-bytes><idle-seconds>60</idle-seconds>" in settings.limits_after_login


def test_before_login_the_limits_are_tighter_and_told_as_such(pair: tuple[Path, Path]) -> None:
    settings = _stream_settings(configured(pair))
    assert settings.before_login.stanza_bytes == 16_384 < settings.after_login.stanza_bytes
    assert b"<max-bytes>16384</max-bytes>" in settings.limits_before_login
    small = _stream_settings(configured(pair, "c2s.stanza_bytes=10000"))
    assert small.before_login.stanza_bytes == 10_000


def test_the_process_is_ready_when_listeners_routers_shards_and_facts_are_there(pair: tuple[Path, Path]) -> None:
    app = application(configured(pair))
    assert reasons(app) == {
        "listeners": "not listening yet",
        "routers": "no link to a router; check bus.seeds",
        "shard_map": "1024 of 1024 shards have no known owner",
        "facts": "no router has told the stream features yet",
        "sessions": None,
        "http": "not listening yet",
    }
    app._on_peer(PeerUp(ROUTER, "router", "tcp://127.0.0.1:7400"))
    app._receive(ROUTER, ((MAP, tuple((Shard(s), Epoch(1), ROUTER) for s in range(SHARDS))),))
    assert reasons(app)["routers"] is None
    assert reasons(app)["shard_map"] is None
    app._on_peer(PeerDown(ROUTER, "router"))
    assert reasons(app)["routers"] is not None


def test_a_process_with_all_the_sessions_it_may_have_is_not_ready(pair: tuple[Path, Path]) -> None:
    app = application(configured(pair, "limits.sessions=1"))
    talk = Talk()
    talk.bind()
    app._edge = talk.edge
    assert reasons(app)["sessions"] == "1 sessions are bound, and limits.sessions is 1"
    talk.say(CLOSE)
    assert reasons(app)["sessions"] is None


def test_without_a_certificate_the_process_says_what_to_set() -> None:
    with pytest.raises(CannotStart, match=r"Set tls\.certificate and tls\.key"):
        application(load(None, [], {}))


def test_a_certificate_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(CannotStart, match="cannot read the certificate"):
        application(configured((missing, missing)))


class _Held(Connection):
    """A connection without a socket, for its phase."""

    def __init__(self, stream: ClientStream | None) -> None:
        self._started_at = None
        self.stream = stream


def test_connections_are_told_apart_by_what_they_do() -> None:
    opened, encrypting, waiting, bound = Talk(), Talk(), Talk(), Talk()
    encrypting.open()
    encrypting.say(STARTTLS)
    waiting.open()
    bound.bind()
    streams = [None, opened.stream, encrypting.stream, waiting.stream, bound.stream]
    assert [_phase(_Held(stream)) for stream in streams] == ["handshake"] * 3 + ["auth", "bound"]


class _Checked(_Held):
    """A connection that counts how often it is checked."""

    def __init__(self, checks: Counter[Connection]) -> None:
        super().__init__(None)
        self._checks = checks

    def check(self) -> None:
        self._checks[self] += 1


def test_a_check_of_all_connections_lets_others_have_their_turn(pair: tuple[Path, Path]) -> None:
    connections = application(configured(pair))._connections
    checks: Counter[Connection] = Counter()
    connections.all.update(_Checked(checks) for _ in range(2 * CHECKED_AT_ONCE + 1))
    seen: list[int] = []

    async def check() -> None:
        loop = asyncio.get_running_loop()

        def look() -> None:
            seen.append(len(checks))
            loop.call_soon(look)

        look()
        await connections.check()

    asyncio.run(check())
    assert checks == dict.fromkeys(connections.all, 1)
    assert set(seen) >= {0, CHECKED_AT_ONCE, 2 * CHECKED_AT_ONCE}


def test_what_one_batch_brings_is_handled_envelope_by_envelope(pair: tuple[Path, Path]) -> None:
    app = application(configured(pair))
    talk = Talk()
    talk.bind()
    app._edge = talk.edge
    talk.router.is_confirming = False
    talk.say("<message/>" * 3)
    session = talk.edge.sessions[talk.sid]
    app._receive(ROUTER, tuple((CONFIRMED, session.shard, 1, session.sid, 1, conf) for conf in (1, 2)))
    assert [n for n, _ in session.held] == [3]
    assert session.bare == ROMEO


def test_authorities_of_clients_that_cannot_be_used_end_the_start(pair: tuple[Path, Path], tmp_path: Path) -> None:
    elsewhere = configured(pair, f'tls.clients={{"capulet.example": {{"ca": "{pair[0]}"}}}}')
    with pytest.raises(CannotStart, match=r"tls\.clients\.capulet\.example: .* is not served here. Add it to server"):
        application(elsewhere)
    missing = configured(pair, f'tls.clients={{"{DOMAIN}": {{"ca": "{tmp_path}/missing.pem"}}}}')
    with pytest.raises(CannotStart, match=r"tls\.clients: .*missing\.pem: cannot read the authorities"):
        application(missing)


def test_a_domain_of_guests_has_no_certificates(pair: tuple[Path, Path]) -> None:
    guests = f'authentication.domains={{"{DOMAIN}": {{"backend": "anonymous"}}}}'
    both = configured(pair, guests, f'tls.clients={{"{DOMAIN}": {{"ca": "{pair[0]}"}}}}')
    with pytest.raises(
        CannotStart, match=r"tls\.clients\.montague\.example: whoever signs in there is a guest. Remove"
    ):
        application(both)


def test_clients_are_asked_for_certificates_where_they_are_of_use(pair: tuple[Path, Path]) -> None:
    settings = f'tls.clients={{"{DOMAIN}": {{"ca": "{pair[0]}"}}}}'
    assert application(configured(pair, settings))._settings.certificates
    assert application(configured(pair))._settings.certificates is None
