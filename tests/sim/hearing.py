"""What is checked of what people hear in rooms.

R1  acknowledged by the server: once in the log of the room
R2  nobody hears anything twice, or in another order than the log's, in one session
R3  between the first and the last message that somebody hears in one session, nothing is left out
and at the end what is said in a room reaches everybody.

R2 and R3 are as strict as this where faults come one at a time; a session whose c2s and router died together is known
by its row alone (docs/delivery.md, §8): it is told anew how the room is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise

from storage.log import Row
from tests.sim.clients import Client, Key, key_of
from tests.sim.rooms import SimRoom
from xmpp.stanza import HAS_BODY


def check(
    known: Mapping[str, SimRoom], rows_of: Callable[[int], list[Row]], clients: list[Client],
    sent: Mapping[Key, tuple[str, bool]], *, is_single: bool,
) -> list[str]:  # fmt: skip
    """R1 to R3, over the whole run."""
    wrong: list[str] = []
    anew = {key for client in clients for key in client.resent_anew}
    for bare, room in known.items():
        rows = [row for row in rows_of(room.key) if row.stanza.flags & HAS_BODY]
        counted = Counter(key_of(row.stanza) for row in rows)
        wrong += [f"R1: {bare} has {n} rows of {key}" for key, n in counted.items() if n > 1 and key not in anew]
        for client in clients:
            missing = [key for key in client.acked if sent[key] == (bare, True) and not counted[key]]
            wrong += [f"R1: {key} was acknowledged and is not in the log of {bare}" for key in missing]
            if is_single:
                wrong += _check_heard(client, bare, [row.id for row in rows])
    return wrong


def _check_heard(client: Client, room: str, ids: list[int]) -> list[str]:
    wrong: list[str] = []
    place = {id_: index for index, id_ in enumerate(ids)}
    heard: dict[int, list[int]] = defaultdict(list)
    for where, _, bind, id_ in client.heard:
        if where == room:
            heard[bind].append(place.get(id_, -1))
    for bind, places in heard.items():
        if -1 in places:
            wrong.append(f"R2: client {client.number} heard what is not in the log of {room}")
        elif places != sorted(set(places)):
            wrong.append(f"R2: client {client.number}, session {bind}: {room} twice or in another order")
        elif places != list(range(places[0], places[-1] + 1)):
            gap = next(a for a, b in pairwise(places) if b != a + 1)
            wrong.append(f"R3: client {client.number}, session {bind}: a gap in {room} behind {gap} of {places[-1]}")
    return wrong
