"""Which shards a router should take, and which it should hand over: pure decisions from what the database says.

`router/ownership.py` carries them out. Fencing makes a wrong decision harmless: the worst is a needless move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cluster.shards import assignment
from cluster.wire import Epoch, Incarnation, Shard, node_of


class Row(NamedTuple):
    """One line of the table of shards."""

    owner: Incarnation | None
    epoch: Epoch


class Plan(NamedTuple):
    """What to do now. `take`: shards with the row they are taken from; `give`: shards by their next owner;
    `lost`: held in memory, but somebody else's by now."""

    take: dict[Shard, Row]
    give: dict[Incarnation, list[Shard]]
    lost: list[Shard]


def plan(
    me: Incarnation,
    table: Mapping[Shard, Row],
    held: Mapping[Shard, Epoch],
    living: Iterable[Incarnation],
    leaving: Iterable[Incarnation],
) -> Plan:
    """Each shard belongs on the router that rendezvous hashing names, among those that live and do not leave."""
    alive = set(living)
    candidates = {node_of(incarnation): incarnation for incarnation in alive - set(leaving)}
    result = Plan({}, {}, [])
    homes = assignment(frozenset(candidates)) if candidates else ()
    for shard, row in table.items():
        wanted = candidates[homes[shard]] if homes else None
        epoch = held.get(shard)
        if row.owner == me:
            if epoch != row.epoch:
                # Handed over to us, or a take of unknown outcome: usable only under a new epoch (rule 15).
                if epoch is not None:
                    result.lost.append(shard)
                if me not in leaving:
                    result.take[shard] = row
            elif wanted is not None and wanted != me:
                result.give.setdefault(wanted, []).append(shard)
            continue
        if epoch is not None:
            result.lost.append(shard)
        if wanted == me and (row.owner is None or row.owner not in alive):
            result.take[shard] = row
    return result
