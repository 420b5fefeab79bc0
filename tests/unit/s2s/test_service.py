"""What the s2s process makes of its configuration, and when it is ready (s2s/service.py). It listens nowhere here."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from cluster.config import Config, load
from cluster.membership import PeerDown, PeerUp
from cluster.process import CannotStart
from cluster.shards import SHARDS, shard_of
from cluster.wire import DIAL, MAP, Epoch, Shard
from s2s.service import S2SApplication, _phase, application, stream_settings
from tests.support.federation import LOCAL, REMOTE, Certificate, Incoming, Outgoing, Server
from tests.support.streams import ROUTER
from tests.support.tls import write_pair

COMPONENT = 'components.domains={"sms.montague.example": {"secret": "long enough"}}'


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("tls"), "server", trustme.CA().issue_cert(LOCAL))


def configured(pair: tuple[Path, Path], *overrides: str) -> Config:
    certificate, key = pair
    return load(
        None,
        [f'server.domains=["{LOCAL}"]', f"tls.certificate={certificate}", f"tls.key={key}", *overrides],
        {},
    )


def reasons(app: S2SApplication) -> dict[str, str | None]:
    return {name: check() for name, check in app.ready_checks().items()}


def test_streams_keep_to_the_configuration(pair: tuple[Path, Path]) -> None:
    settings = stream_settings(
        configured(
            pair, "s2s.stanza_bytes=20000", "s2s.tls=optional", "s2s.bidi=false", "s2s.policy=secure",
            's2s.domains={"capulet.example": "deny"}', "s2s.idle_timeout_s=60", COMPONENT,
        )
    )  # fmt: skip
    assert settings.domains == {LOCAL, f"conference.{LOCAL}", f"pubsub.{LOCAL}", "sms.montague.example"}
    assert not settings.is_tls_required
    assert not settings.has_bidi
    assert (settings.policy_of("paris.example"), settings.policy_of(REMOTE)) == ("secure", "deny")
    assert settings.before_login.stanza_bytes == 16_384
    assert settings.after_login.stanza_bytes == 20_000
    assert b"<max-bytes>20000</max-bytes><idle-seconds>60</idle-seconds>" in settings.limits


def test_where_federation_is_off_nobody_is_spoken_with(pair: tuple[Path, Path]) -> None:
    settings = stream_settings(configured(pair, "s2s.enabled=false", 's2s.domains={"capulet.example": "allow"}'))
    assert settings.policy_of(REMOTE) == "deny"


def test_the_process_is_ready_when_routers_shards_and_facts_are_there(pair: tuple[Path, Path]) -> None:
    app = application(configured(pair))
    assert reasons(app) == {
        "routers": "no link to a router; check bus.seeds",
        "shard_map": "1024 of 1024 shards have no known owner",
        "facts": "no router has told the secret of dialback yet",
    }
    app._on_peer(PeerUp(ROUTER, "router", "tcp://127.0.0.1:7400"))
    app._receive(ROUTER, ((MAP, tuple((Shard(s), Epoch(1), ROUTER) for s in range(SHARDS))),))
    assert reasons(app)["routers"] is None
    assert reasons(app)["shard_map"] is None
    app._on_peer(PeerDown(ROUTER, "router"))
    assert reasons(app)["routers"] is not None


def test_streams_are_dialled_for_the_present_owner_once_the_secret_is_known(pair: tuple[Path, Path]) -> None:
    app = application(configured(pair))
    server = Server()
    app._edge, app._federation = server.edge, server.federation
    dial = (DIAL, shard_of(REMOTE), 1, REMOTE, LOCAL)
    app._receive(ROUTER, (dial,))
    assert server.dialled == []
    app._is_serving = True
    app._receive(ROUTER, ((DIAL, shard_of(REMOTE), 0, REMOTE, LOCAL), dial, dial))
    assert [(stream.remote, stream.local) for stream in server.dialled] == [(REMOTE, LOCAL)]


def test_a_domain_that_cannot_be_had_is_told_to_its_owner(pair: tuple[Path, Path]) -> None:
    app = application(configured(pair))
    server = Server(policy="deny")
    app._edge, app._federation, app._is_serving = server.edge, server.federation, True
    app._receive(ROUTER, ((DIAL, shard_of(REMOTE), 1, REMOTE, LOCAL),))
    [(remote, local, condition, _, is_permanent)] = server.unreachable
    assert (remote, local, condition, is_permanent) == (REMOTE, LOCAL, "policy-violation", True)


def test_without_a_certificate_the_process_says_what_to_set() -> None:
    with pytest.raises(CannotStart, match=r"Set tls\.certificate and tls\.key"):
        application(load(None, [], {}))


@pytest.mark.parametrize("key", ["tls", "ca"])
def test_files_that_cannot_be_read_are_told(pair: tuple[Path, Path], tmp_path: Path, key: str) -> None:
    missing = tmp_path / "missing"
    config = configured((missing, missing)) if key == "tls" else configured(pair, f"s2s.ca={missing}")
    with pytest.raises(CannotStart, match="cannot read" if key == "tls" else "s2s.ca: .* cannot read"):
        application(config)


def test_name_servers_that_are_none_are_told(pair: tuple[Path, Path]) -> None:
    with pytest.raises(CannotStart, match=r"s2s\.resolvers: 'nowhere' is not a name server"):
        application(configured(pair, 's2s.resolvers=["nowhere"]'))._compose()


def test_streams_are_told_apart_by_what_they_do() -> None:
    connecting = Server()
    connecting.federation.dial(REMOTE, LOCAL)
    negotiating, opened, ending = Outgoing(), (Incoming(certificate=Certificate((REMOTE,)))), Incoming()
    ending.open()
    opened.sign_in()
    streams = [connecting.dialled[0], negotiating.stream, ending.stream, opened.stream]
    assert [_phase(stream) for stream in streams] == ["connecting", "negotiating", "negotiating", "open"]
    opened.stream.shut_down()
    assert _phase(opened.stream) == "ending"
