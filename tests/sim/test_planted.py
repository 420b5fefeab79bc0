"""Planted defects: a checker that catches none of them would be worth nothing. Each is one method made wrong.

Not caught, because another rule absorbs them: a link that takes frames twice or out of order, an edge that takes any
outbound number. They are defence in depth (docs/delivery.md, §9). Nor an owner that does not hear UNREACHABLE: it asks
again, and what has waited too long comes back all the same.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, Final

import pytest

from cluster.edge import Edge, EdgeSession
from cluster.link import SendLink
from cluster.shards import ShardMap
from cluster.wire import Ack, Epoch, Incarnation, SessionId
from router import peers
from router.batch import Batch
from router.dialing import Dialing
from router.directory import Directory
from router.entity import Entity, Session
from router.outbox import Outbox
from router.owner import Owner
from router.peers import SENDS, Line, PeerPipeline
from router.resumption import Resumption
from router.rooms.fanout import Fanout, Replay
from router.rooms.room import Room
from router.settings import Settings
from router.turn import Turn
from tests.sim.store import SimStore
from tests.sim.world import Mode, World
from xmpp.stanza import Stanza

SEEDS: Final = int(os.environ.get("STENTOR_SIM_PLANTED_SEEDS", "400"))  # most are caught by the first few


def _never(*_: Any, **__: Any) -> None:
    """Forgotten."""


def _unfenced(self: SimStore, owner: Incarnation, batch: Batch) -> tuple[()]:
    fence, batch = batch.fence, batch._replace(fence={})
    _true_commit(self, owner, batch)
    self.commits.extend(fence.items())
    return ()


_true_commit = SimStore.commit


def _ack_of_any_generation(self: SendLink, ack: Ack) -> bool:
    return _true_acknowledged(self, (self.generation, ack[1]))


_true_acknowledged = SendLink.acknowledged


def _acknowledges_what_it_accepts(self: Owner, session: Session, n: int) -> None:
    session.conf = session.seen
    self.outbox.conf_rose(session)


def _confirms_at_once(self: Outbox, turn: Any, to: str, stanzas: Any) -> None:
    _true_forward(self, turn, to, stanzas)
    self.confirmed(turn.origin, to, turn.n)


_true_forward = Outbox.forward


def _knows_all_marks(self: Owner, to: str, origin: int) -> int:
    return _true_mark(self, to, origin) or 0


_true_mark = Owner._mark


def _numbers_start_anew(self: Directory, edge: Any, shard: Any, epoch: Any, announcement: Any) -> None:
    _true_announced(self, edge, shard, epoch, (*announcement[:5], 0, 0, (), *announcement[8:]))


_true_announced = Directory._announced


def _opens_at_once(self: Owner, entity: Entity) -> None:
    self._open(entity)


def _ends_them_all(self: Resumption, session: Session) -> None:
    self._owner.end_session(session, "", "edge-lost")
    session.unacknowledged.clear()


# --- of other servers


def _forgets_what_a_stream_had(self: PeerPipeline, turn: Turn, session: Session) -> None:
    session.unacknowledged.clear()
    _true_left(self, turn, session)


_true_left = PeerPipeline._left


def _dials_once(self: Dialing, entity: Entity, line: Line) -> None:
    _true_dial(self, entity, line)
    line.dial_at = math.inf


_true_dial = Dialing._dial


def _newest_stream(entity: Entity, stanza: Stanza, settings: Settings) -> Session | None:
    streams = [session for session in entity.sessions.values() if session.marks.get(SENDS)]
    return max(streams, key=lambda session: session.bound_at, default=None)


def _confirms_what_servers_send(self: Owner, session: Session, n: int, stanza: Stanza, is_again: bool) -> None:
    _true_submitted(self, session, n, stanza, is_again)
    if session.entity.is_peer:
        session.conf = session.seen
        self.outbox.conf_rose(session)


_true_submitted = Owner._submitted


def _is_never_kept(message: Stanza) -> bool:
    return False


# --- of rooms


def _takes_the_last_row_for_all(self: Owner, bare: str, epoch: Epoch, rows: Any, sent: Any) -> None:
    entity = self.entities.get(bare)
    if entity is not None:
        for row in sent:
            sender = self.sessions.get(SessionId(row.sid))
            if sender is not None:
                sender.logged.update(range(row.n + 1))
    _true_replayed(self, bare, epoch, rows, sent)


_true_replayed = Owner.replayed


_true_replay = Fanout._replay


def _replays_nothing(self: Fanout, entity: Entity, room: Room, replay: Replay) -> None:
    _true_replay(self, entity, room, replay._replace(events={}, least=room.last))


def _forgets_marks(self: Directory, edge: Any, shard: Any, epoch: Any, announcement: Any) -> None:
    _true_announced(self, edge, shard, epoch, (*announcement[:16], ()))


def _caught(mode: Mode, *, federated: bool = False, with_rooms: bool = False) -> bool:
    """Whether some seed shows the defect; the first that does ends the search."""
    for seed in range(SEEDS):
        try:
            if World(seed, mode, federated=federated, with_rooms=with_rooms).run():
                return True
        except AssertionError:  # a client that acknowledges what it was never sent
            return True
    return False


@pytest.mark.parametrize(
    ("mode", "where", "method", "wrong"),
    [
        ("separate", Edge, "_offer", _never),  # rule 5
        ("separate", Edge, "_announce", _never),  # rule 16
        ("separate", Outbox, "confirmed", _never),  # rule 10
        ("separate", Outbox, "offer_again", _never),  # rule 10
        ("overlapping", Owner, "settle", _acknowledges_what_it_accepts),  # rule 6: before the commit
        ("separate", Outbox, "forward", _confirms_at_once),  # rule 10: before the recipient has it
        ("separate", Outbox, "hold_row", _never),  # forwards are not derived again
        ("overlapping", Owner, "_mark", _knows_all_marks),  # rule 11: no look into the log
        ("separate", Owner, "settled", _opens_at_once),  # rule 17: nothing is read again
        ("separate", Directory, "_announced", _numbers_start_anew),  # rule 16: numbering begins anew
        ("separate", Resumption, "hibernate", _ends_them_all),  # unread messages are forgotten
        ("overlapping", SimStore, "commit", _unfenced),  # rule 13
        ("nasty", SendLink, "acknowledged", _ack_of_any_generation),  # rule 1
        ("nasty", Owner, "_forget", _never),  # rule 13: marks are not taken back
        ("nasty", Owner, "_decide_later", _never),  # rule 12: the path is not sticky
    ],
)
def test_defects_are_caught(
    mode: Mode, where: type[Any], method: str, wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, method, wrong)
    assert _caught(mode)


@pytest.mark.parametrize(
    ("mode", "where", "method", "wrong"),
    [
        ("separate", PeerPipeline, "save_cursor", _never),  # all that was handed over is sent again
        ("separate", PeerPipeline, "_left", _forgets_what_a_stream_had),
        ("nasty", PeerPipeline, "forgotten", _never),  # ids whose rows were never committed stray for ever
        ("separate", peers, "is_kept", _is_never_kept),  # confirmed, and no row is committed for it
        ("separate", peers, "carrier", _newest_stream),  # what comes next overtakes
        ("separate", Owner, "recover", _never),  # nobody looks for what waits after a take
        ("separate", Dialing, "_dial", _dials_once),
        ("separate", Entity, "remember_read", _never),  # what a stream was rid of goes by the next one, too
        ("nasty", Owner, "_submitted", _confirms_what_servers_send),  # rule 6, for what comes from outside
    ],
)
def test_defects_of_federation_are_caught(
    mode: Mode, where: Any, method: str, wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, method, wrong)
    assert _caught(mode, federated=True)


@pytest.mark.parametrize(
    ("mode", "where", "method", "wrong"),
    [
        ("separate", Owner, "replayed", _takes_the_last_row_for_all),  # rule 6: messages to rooms have no row
        ("separate", Fanout, "owners_changed", _never),  # nobody is asked whose account has a new owner
        ("separate", Fanout, "check", _never),  # nor after the room itself was taken over
        ("separate", Fanout, "_replay", _replays_nothing),
        ("separate", Directory, "_announced", _forgets_marks),  # who was there is told everything anew
    ],
)
def test_defects_of_rooms_are_caught(
    mode: Mode, where: Any, method: str, wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, method, wrong)
    assert _caught(mode, with_rooms=True)


def test_epochs_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShardMap, "is_current", lambda self, shard, epoch: True)
    monkeypatch.setattr(SimStore, "commit", _unfenced)
    assert _caught("overlapping")


def test_whose_message_is_acknowledged_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edge that lets a client's stanzas go before they are confirmed."""

    def submit_and_forget(self: Edge, session: EdgeSession, stanza: Any) -> None:
        _true_submit(self, session, stanza)
        session.held.clear()
        session.held_bytes = 0

    monkeypatch.setattr(Edge, "submit", submit_and_forget)
    assert _caught("separate")


_true_submit = Edge.submit
