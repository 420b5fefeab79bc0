"""Which notifications clients want (XEP-0163, 4.3; XEP-0060, 9.2): what their capabilities say (XEP-0115, XEP-0390).

What capabilities mean is known by their hash, once for all clients that have it: in memory, else in the database; where
nobody has asked such a client yet, this one is. An answer that its hash does not bear out counts for the client alone
that gave it: nobody can tell lies about others (XEP-0115, 5.4 and 9.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, NamedTuple

from lxml import etree

from router.entity import Entity
from router.turn import Turn
from storage import capabilities
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.caps import Caps, IllFormed, info_of, is_borne_out
from xmpp.stanza import Stanza
from xmpp.xml import element

Wants = frozenset[str]
Then = Callable[[Turn, Wants], None]

WATCHERS: Final = "watchers"  # key in an entity's data: what clients of contacts on other servers want, by full JID
KNOWN: Final = 20_000  # capabilities remembered
ASKED: Final = 200  # requests under way of one account
WAITING: Final = 50  # things that wait for one answer
_ASKED: Final = "capabilities asked"  # key in an entity's data
_NOTIFY: Final = "+notify"
_MOST: Final = 200  # nodes that one client may want
_LONGEST: Final = 256  # characters of such a node
_ID: Final = "caps-"
NOTHING: Final[Wants] = frozenset()


class Known:
    """What capabilities mean. Shared by everything in a process: a name stands for the same everywhere."""

    def __init__(self) -> None:
        self._wants: dict[str, Wants] = {}

    def get(self, caps: Caps) -> Wants | None:
        """None where it is not known here."""
        return self._wants.get(caps.name) if caps.name else None

    def put(self, name: str, wants: Iterable[str]) -> Wants:
        """Remember it; returns it."""
        if len(self._wants) >= KNOWN:
            del self._wants[next(iter(self._wants))]
        found = self._wants[name] = frozenset(wants)
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._wants.clear()


known: Final = Known()


class _Asked(NamedTuple):
    jid: str
    caps: Caps
    thens: list[Then]


def resolve(turn: Turn, caps: Caps, jid: str, then: Then) -> None:
    """Find out what a client (full JID) with these capabilities wants, then `then(turn, wants)`: at once if it is
    known, else in a later turn. Where the client does not answer, never."""
    wants = known.get(caps)
    if wants is not None:
        then(turn, wants)
    elif _waits(turn.entity, caps, jid, then):
        pass  # it is asked already, and may never answer
    elif caps.name:
        turn.fetch(capabilities.find, partial(_looked, caps, jid, then), caps.name)
    else:
        _ask(turn, caps, jid, then)


def _looked(caps: Caps, jid: str, then: Then, turn: Turn, wants: list[str] | None) -> None:
    if wants is not None:
        then(turn, known.put(caps.name, wants))
    else:
        _ask(turn, caps, jid, then)


def _asked(entity: Entity) -> dict[str, _Asked]:
    asked: dict[str, _Asked] | None = entity.data.get(_ASKED)
    if asked is None:
        asked = entity.data[_ASKED] = {}
    return asked


def forget(entity: Entity, jid: str) -> None:
    """The client has gone: nobody waits for its answer."""
    asked: dict[str, _Asked] = entity.data.get(_ASKED) or {}
    for id_ in [id_ for id_, request in asked.items() if request.jid == jid]:
        del asked[id_]


def _waits(entity: Entity, caps: Caps, jid: str, then: Then) -> bool:
    """Whether the client has been asked this and has not answered; then `then` waits, too."""
    for other in _asked(entity).values():
        if other.jid == jid and other.caps == caps:
            if len(other.thens) < WAITING:
                other.thens.append(then)
            return True
    return False


def _ask(turn: Turn, caps: Caps, jid: str, then: Then) -> None:
    entity = turn.entity
    asked = _asked(entity)
    if _waits(entity, caps, jid, then):
        return
    for id_, other in list(asked.items()):
        if other.jid == jid:
            del asked[id_]  # it has other capabilities by now
    if len(asked) >= ASKED:
        del asked[next(iter(asked))]
    id_ = f"{_ID}{turn.next_id():x}"
    asked[id_] = _Asked(jid, caps, [then])
    request = stanzas.iq(
        type="get", id=id_, to=jid, from_=entity.bare, payload=f"{ns.DISCO_INFO} query",
        inner=element("query", ns.DISCO_INFO, {"node": caps.node}),
    )  # fmt: skip
    session = entity.sessions.get(jid.partition("/")[2]) if jid.startswith(f"{entity.bare}/") else None
    if session is not None:
        turn.deliver(session, request)
    else:
        turn.send(request)


def answered(turn: Turn, iq: Stanza) -> bool:
    """A client's answer to what was asked here, or its error; False for anything else."""
    if iq.type not in ("result", "error") or not (iq.id or "").startswith(_ID):
        return False
    asked: dict[str, _Asked] = turn.entity.data.get(_ASKED) or {}
    request = asked.get(iq.id or "")
    if request is None or request.jid != iq.from_:
        return False
    del asked[iq.id or ""]
    query = None if iq.type == "error" else iq.child(ns.DISCO_INFO, "query")
    wants = NOTHING if query is None else _learn(turn, request, query)
    for then in request.thens:
        then(turn, wants)
    return True


def _learn(turn: Turn, request: _Asked, query: etree._Element) -> Wants:
    """What an answer says; nothing where it may not be looked at."""
    try:
        info = info_of(query)
    except IllFormed:
        return NOTHING
    names = (feature.removesuffix(_NOTIFY) for feature in info.features if feature.endswith(_NOTIFY))
    wants = frozenset([name for name in names if name and len(name) <= _LONGEST][:_MOST])
    if is_borne_out(request.caps, info):
        wants = known.put(request.caps.name, wants)
        turn.write(capabilities.put, request.caps.name, sorted(wants))
    return wants


# --- what one router tells another: a client wants the newest items of a contact's nodes

_WANTED: Final = "urn:stentor:wanted"


def wanted(nodes: Iterable[str]) -> bytes:
    """Inside of a probe with the flag BY_INTEREST (RFC 6121, 4.3), which never leaves the cluster."""
    return element("wanted", _WANTED, None, *(element("node", None, None, name) for name in sorted(nodes)))


def wanted_of(probe: Stanza) -> list[str]:
    """The reverse."""
    node = probe.child(_WANTED, "wanted")
    return [] if node is None else [child.text or "" for child in node]
