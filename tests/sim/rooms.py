"""What the simulated database has of rooms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from cluster.shards import shard_of
from cluster.wire import Shard
from storage import log, rooms
from storage.log import Row
from storage.rooms import AffiliationRow, Loaded, OccupantRow, RoomRow

ROOMS_DOMAIN: Final = "rooms.sim"
ROOMS: Final = tuple(f"room{i}@{ROOMS_DOMAIN}" for i in range(2))


class SimRoom:
    """A room's rows."""

    def __init__(self, key: int) -> None:
        self.key = key
        self.row = RoomRow(7_000_000 + key, {"persistentroom": True}, None, [], {}, 0)
        self.affiliations: dict[str, AffiliationRow] = {}
        self.occupants: dict[str, OccupantRow] = {}

    def write(self, statement: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """As `storage/rooms.py` does."""
        if statement is rooms.save_occupant:
            self.occupants[arguments[0]] = OccupantRow(*arguments)
        elif statement is rooms.forget_left:
            self.occupants = {j: o for j, o in self.occupants.items() if o.role or o.changed >= arguments[0]}
        elif statement is rooms.set_handed_over:
            self.row = self.row._replace(handed_over=max(self.row.handed_over, arguments[0]))
        else:
            raise AssertionError(f"the simulated database does not know {statement}")

    def loaded(self, rows: list[Row], history: int) -> Loaded:
        """As `rooms.load` finds it."""
        occupants = sorted(self.occupants.values(), key=lambda occupant: occupant.changed)
        last = max((rows[-1].id if rows else 0, *(occupant.changed for occupant in occupants)))
        kept = [row for row in rows if row.class_ == log.ARCHIVE]
        return Loaded(
            self.key, self.row, list(self.affiliations.values()), occupants, kept[-history:], last, []
        )  # fmt: skip


class SimRooms:
    """All of them."""

    def __init__(self, bares: Iterable[str]) -> None:
        self.by_bare = {bare: SimRoom(key) for key, bare in enumerate(bares, 2_001)}
        self._by_key = {room.key: room for room in self.by_bare.values()}

    def write(self, statement: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """A statement whose first argument is the key of a room."""
        self._by_key[arguments[0]].write(statement, arguments[1:])

    def occupied(self, shards: Iterable[Shard]) -> list[str]:
        """As `rooms.with_occupants`."""
        wanted = set(shards)
        return [
            bare
            for bare, room in self.by_bare.items()
            if shard_of(bare) in wanted and any(occupant.role for occupant in room.occupants.values())
        ]
