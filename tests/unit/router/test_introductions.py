"""A component that joins is shown who is there (router/introductions.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from cluster.shards import shard_of
from cluster.wire import Shard
from router import introductions
from router.entity import Session
from router.features import privileges
from router.introductions import METHOD, Introductions
from router.peers import PeerPipeline
from tests.support.owners import FEATURES as FEW
from tests.support.owners import JULIET, ME, NURSE, OTHER, ROMEO, S2S_2
from tests.unit.router.test_peers import PEER, Federation
from tests.unit.router.test_privileges import OUTGOING, X, settings

SEES = {"presence": "managed_entity"}


class Verona(Federation):
    """A router with people; what it asks others is kept, what it asks itself it does."""

    def __init__(self, granted: dict[str, Any] | None = None) -> None:
        super().__init__(settings(SEES if granted is None else granted), (privileges.feature, *FEW))
        self.asked: list[tuple[Any, str, tuple[Any, ...]]] = []
        self.tasks: list[Coroutine[Any, Any, None]] = []
        self.part = Introductions(self.owner, self.map, self.around, self._ask, self.tasks.append)
        self.bind(JULIET, "balcony")
        self.bind(JULIET, "hall")
        self.bind(NURSE, "hall", is_available=False)

    async def _ask(self, shard: Shard, method: str, arguments: tuple[Any, ...]) -> None:
        owner = self.map.owners[shard]
        self.asked.append((owner, method, arguments))
        if owner == ME:
            self.part.introduce(*arguments)

    def finish(self) -> None:
        """All that was begun, and what that begins."""
        while self.tasks:
            asyncio.run(self.tasks.pop(0))

    def shown(self, stream: Session) -> list[str]:
        """Whose presence the component got."""
        self.finish()
        return sorted(stanza.from_ or "" for stanza in self.heard(stream) if stanza.kind == 2)


def test_every_router_is_asked_and_shows_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introductions, "PAUSE_S", 0)
    monkeypatch.setattr(introductions, "USERS", 1)
    verona = Verona()
    verona.map.update(shard_of("elsewhere"), verona.epoch(X), OTHER)
    stream = verona.stream(X, local="")
    assert verona.shown(stream) == [f"{JULIET}/balcony", f"{JULIET}/hall", f"{ROMEO}/orchard"]
    assert sorted(verona.asked) == sorted([(ME, METHOD, (X,)), (OTHER, METHOD, (X,))])


def test_only_the_first_stream_of_a_component_is_a_beginning() -> None:
    verona = Verona()
    first = verona.stream(X, local="")
    assert verona.shown(first)
    verona.stream(X, S2S_2, local="")
    assert not verona.tasks


@pytest.mark.parametrize(("granted", "domain"), [(OUTGOING, X), (SEES, PEER)])
def test_who_may_not_see_presence_is_shown_nobody(granted: dict[str, Any], domain: str) -> None:
    verona = Verona(granted)
    verona.stream(domain, local="" if domain == X else "example.com")
    assert not verona.tasks
    verona.part.introduce(domain)
    assert not verona.tasks


def test_who_has_blocked_it_stays_unseen() -> None:
    verona = Verona()
    verona.entity(JULIET).blocks.add(X)
    assert verona.shown(verona.stream(X, local="")) == [f"{ROMEO}/orchard"]


def test_a_router_is_busy_with_a_component_once() -> None:
    verona = Verona()
    verona.part.introduce(X)
    verona.part.introduce(X)
    assert len(verona.tasks) == 1
    verona.finish()
    verona.part.introduce(X)
    assert len(verona.tasks) == 1
    verona.finish()


def test_a_router_that_does_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    verona = Verona()

    async def refuse(*_: Any) -> None:
        raise ConnectionError("gone")

    part = Introductions(verona.owner, verona.map, verona.around, refuse, verona.tasks.append)
    assert isinstance(verona.owner.peers, PeerPipeline)
    part.joined(X)
    verona.finish()
    assert "presence_not_shown" in capsys.readouterr().out
