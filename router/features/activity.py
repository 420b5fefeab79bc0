"""Last activity (XEP-0012): of the domain its uptime, of an account when it was online last, for those who may know."""

from __future__ import annotations

from collections.abc import Sequence

from router.entity import Entity
from router.events import BecameUnavailable
from router.feature import At, Feature, Stage
from router.turn import Turn
from storage import accounts
from storage.accounts import Account
from storage.rows import Connection
from xmpp import ns
from xmpp.errors import Forbidden, ItemNotFound
from xmpp.stanza import Stanza
from xmpp.xml import element, text_of

feature = Feature("activity", xep=((12, "2.0"),), server_features=(ns.LAST,), account_features=(ns.LAST,))

STATUS_BYTES = 1_024
_QUERY = f"{ns.LAST} query"


def _assign(entity: Entity, last_at: float | None) -> None:
    entity.data[feature.name] = last_at


async def _load(conn: Connection, found: Sequence[Account]) -> dict[int, float | None]:
    return {account.key: account.last_at for account in found}


feature.on_load(_load, _assign)


def unavailable_since(entity: Entity) -> float | None:
    """When the account's last available session went, Unix seconds; None if there has been none."""
    since: float | None = entity.data.get(feature.name)
    return since


@feature.on_event(BecameUnavailable)
def went(turn: Turn, event: BecameUnavailable) -> None:
    """The account's last available session has gone: that is the moment to remember."""
    entity = turn.entity
    if entity.key is None or entity.available():
        return
    status = text_of(event.presence.child(ns.CLIENT, "status")) if event.presence.inner else ""
    status = status.encode()[:STATUS_BYTES].decode(errors="ignore")
    turn.write(accounts.record_last, entity.key, turn.now, status)
    _assign(entity, turn.now)


@feature.on_iq("get", ns.LAST, "query", at=At.SERVER)
def uptime(turn: Turn, iq: Stanza) -> None:
    """XEP-0012, 5: for a server, how long it has been up."""
    seconds = max(0, int(turn.now - turn.settings.started_at))
    turn.answer(iq, element("query", ns.LAST, {"seconds": str(seconds)}))


@feature.on_iq("get", ns.LAST, "query", at=At.OWN)
def own(turn: Turn, iq: Stanza) -> None:
    """Whoever asks for their own account is online."""
    turn.answer(iq, element("query", ns.LAST, {"seconds": "0"}))


@feature.on_any_iq(Stage.IN_SCREEN)
def screen(turn: Turn, iq: Stanza) -> bool:
    """XEP-0012, 3, 4 and 8: only for those who may see the account's presence, be it asked or one of its clients."""
    if iq.payload == _QUERY and iq.type == "get" and turn.entity.exists:
        entity = turn.entity
        assert iq.from_ is not None
        bare = iq.from_.partition("/")[0]
        contact = entity.roster.contacts.get(bare)
        if bare != entity.bare and (contact is None or not contact.sees_us):
            raise Forbidden
    return False


@feature.on_iq("get", ns.LAST, "query", at=At.ACCOUNT)
def of_contact(turn: Turn, iq: Stanza) -> None:
    """XEP-0012, 3: when the account was online last, for whom `screen` lets through. A client that is connected and
    not available is shown to nobody (the "local security policies" of that section)."""
    entity = turn.entity
    if entity.available():
        turn.answer(iq, element("query", ns.LAST, {"seconds": "0"}))
        return
    assert entity.key is not None

    def found(later: Turn, account: accounts.Account | None) -> None:
        if account is None or account.last_at is None:
            raise ItemNotFound("The account has never been online.")
        seconds = max(0, int(later.now - account.last_at))
        later.answer(iq, element("query", ns.LAST, {"seconds": str(seconds)}, account.last_status))

    turn.fetch(accounts.find, found, entity.bare)
