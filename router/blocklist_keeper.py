"""Following blocklists at their services (XEP-0060): one router subscribes our server, reads what is there, and hears
what changes. It is the one that owns the service's domain: all that comes from there comes to it, and when it goes,
the next owner begins with reading. Without I/O.

    subscribe -> items, page by page (XEP-0059) -> save; each notification -> save; now and then all of it again
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from lxml import etree

from cluster import logs
from cluster.shards import shard_of
from cluster.wire import Epoch
from router.blocklists import Blocklists, Rule
from router.owner import Owner
from router.turn import Turn
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.stanza import HAS_EVENT, MESSAGE, Stanza
from xmpp.xml import element, text_of

log = logs.get_logger()

PAGE: Final = 200  # items asked for at once: with what is said of each, they have to fit into a stanza
ANSWER_S: Final = 90.0  # longer nobody waits for an answer
AGAIN_S: Final = 300.0  # after a failure

_ITEMS: Final = f"{{{ns.PUBSUB}}}items"
_ITEM: Final = f"{{{ns.PUBSUB}}}item"
_OF_EVENT: Final = f"{{{ns.PUBSUB_EVENT}}}"
_SET: Final = f"{{{ns.RSM}}}set"

Save = Callable[[str, frozenset[str], bool], None]


@dataclass(slots=True)
class _Duty:
    """What this router knows of a list that is its to follow."""

    epoch: Epoch
    due_at: float  # monotonic seconds: then the list is read
    read_at: float  # then it was read as a whole, or began to be wanted; monotonic seconds
    asked: str = ""  # id of the request under way
    asked_at: float = 0.0
    seen: int = 0  # items of its pages so far
    found: set[str] = field(default_factory=set)  # entries read so far
    gone: set[str] = field(default_factory=set)  # taken off meanwhile
    entries: frozenset[str] | None = None  # what is on the list, once it was read or something has changed
    complaint: str = ""  # the last one, so that it is logged once


class Keeper:
    """The lists of one router. `save(name, entries, is_whole)` keeps a list and tells everybody."""

    def __init__(self, owner: Owner, lists: Blocklists, from_: str, every_s: float, most: int, save: Save) -> None:
        self._owner = owner
        self._lists = lists
        self._from = from_  # the domain that asks
        self._every_s = every_s
        self._most = most  # entries of a list
        self._save = save
        self._duties: dict[str, _Duty] = {}
        self._counter = 0

    def tick(self) -> None:
        """About once a second."""
        for name, rule in self._lists.rules.items():
            epoch = self._owner.tenures[shard_of(rule.service)]
            duty = self._duties.get(name)
            if epoch is None:
                self._duties.pop(name, None)
                continue
            now = self._owner.outbox.now
            if duty is None or duty.epoch != epoch:
                duty = self._duties[name] = _Duty(epoch, now, now)
            if duty.asked and now - duty.asked_at > ANSWER_S:
                self._failed(rule, duty, "It does not answer.")
            if not duty.asked and now >= duty.due_at:
                duty.seen, duty.found, duty.gone = 0, set(), set()
                subscribe = element("subscribe", None, {"node": rule.node, "jid": self._from})
                self._send(rule, "set", subscribe)
                self._ask(rule, duty, "")

    def age_s(self) -> float:
        """How long ago the list was read that was read longest ago; 0 where none is this router's to follow."""
        now = self._owner.outbox.now
        return max((now - duty.read_at for duty in self._duties.values()), default=0.0)

    def refresh(self) -> None:
        """An operator does not want to wait."""
        for duty in self._duties.values():
            duty.due_at = 0.0

    # --- what the service says

    def hears(self, stanza: Stanza) -> bool:
        """Whether something that came to our server from another one is for here; then it is dealt with."""
        if stanza.kind == MESSAGE:
            return bool(stanza.flags & HAS_EVENT) and self._notified(stanza)
        for name, duty in self._duties.items():
            rule = self._lists.rules[name]
            if duty.asked and stanza.id == duty.asked and stanza.from_ == rule.service:
                self._answered(rule, duty, stanza)
                return True
        return False

    def _answered(self, rule: Rule, duty: _Duty, answer: Stanza) -> None:
        pubsub = answer.child(ns.PUBSUB, "pubsub") if answer.type == "result" else None
        if pubsub is None:
            error = answer.child(ns.CLIENT, "error")
            self._failed(rule, duty, _words(error))
            return
        ids = [item.get("id", "") for item in pubsub.iterfind(f"{_ITEMS}/{_ITEM}")]
        duty.seen += len(ids)
        duty.found |= self._lists.cleaned(ids) - duty.gone
        if len(duty.found) > self._most or duty.seen > 2 * self._most:
            self._failed(rule, duty, f"It has more than {self._most} entries.")
            return
        last, count = _page(pubsub.find(_SET))
        if ids and last and count > duty.seen:
            self._ask(rule, duty, last)
            return
        duty.asked, duty.complaint = "", ""
        duty.read_at = self._owner.outbox.now
        duty.due_at = self._owner.outbox.now + self._every_s
        self._keep(rule, duty, duty.found, is_whole=True)

    def _notified(self, message: Stanza) -> bool:
        event = message.child(ns.PUBSUB_EVENT, "event")
        if event is None:
            return False
        is_ours = False
        for change in event:
            name = f"{message.from_}/{change.get('node', '')}"
            rule, duty = self._lists.rules.get(name), self._duties.get(name)
            if rule is None or duty is None or rule.service != message.from_:
                continue
            is_ours = True
            self._changed(rule, duty, change)
        return is_ours

    def _changed(self, rule: Rule, duty: _Duty, change: etree._Element) -> None:
        """XEP-0060: 7.1.2.1 published, 7.2.2.1 retracted, 8.5.2 purged, 8.4.2 deleted."""
        kind = str(change.tag).removeprefix(_OF_EVENT)
        known = self._lists.entries(rule.name) if duty.entries is None else duty.entries
        if kind in ("purge", "delete"):
            added: frozenset[str] | set[str] = frozenset()
            removed = known | duty.found
        elif kind == "items":
            added = self._lists.cleaned(item.get("id", "") for item in change.iterfind(f"{_OF_EVENT}item"))
            gone = (item.get("id", "") for item in change.iterfind(f"{_OF_EVENT}retract"))
            removed = frozenset(self._lists.cleaned(gone))
        else:
            return
        if duty.asked:  # the page under way may be older than this
            duty.found = (duty.found - removed) | added
            duty.gone = (duty.gone | removed) - added
        entries = (known - removed) | added
        if len(entries) <= self._most:
            self._keep(rule, duty, entries, is_whole=False)

    # --- parts

    def _keep(self, rule: Rule, duty: _Duty, entries: Iterable[str], *, is_whole: bool) -> None:
        kept = duty.entries = frozenset(entries)
        self._lists.replace(rule.name, kept)
        self._save(rule.name, kept, is_whole)

    def _failed(self, rule: Rule, duty: _Duty, problem: str) -> None:
        duty.asked = ""
        duty.due_at = self._owner.outbox.now + AGAIN_S
        if problem != duty.complaint:
            duty.complaint = problem
            log.warning(
                "blocklist_not_read", service=rule.service, path=rule.node, problem=problem,
                remedy="What was read before counts on. See abuse.blocklists and abuse.blocklist_entries, and whether "
                "this server may reach that one: stentor s2s status.",
            )  # fmt: skip

    def _ask(self, rule: Rule, duty: _Duty, after: str) -> None:
        more = element("after", None, None, after) if after else b""
        page = element("set", ns.RSM, None, element("max", None, None, str(PAGE)), more)
        duty.asked_at = self._owner.outbox.now
        duty.asked = self._send(rule, "get", element("items", None, {"node": rule.node}), page)

    def _send(self, rule: Rule, type: str, *inner: bytes) -> str:
        self._counter += 1
        id_ = f"blocklist-{self._owner.me}-{self._counter}"
        iq = stanzas.iq(
            to=rule.service, from_=self._from, type=type, id=id_,
            inner=element("pubsub", ns.PUBSUB, None, *inner), payload=f"{ns.PUBSUB} pubsub",
        )  # fmt: skip
        entity = self._owner.entity(rule.service)
        assert entity is not None
        self._owner.when_loaded(entity, partial(self._owner.act, entity, partial(_say, iq)))
        return id_


def _say(iq: Stanza, turn: Turn) -> None:
    turn.send(iq)


def _page(found: Any) -> tuple[str, int]:
    """The last item of a page and how many there are in all (XEP-0059, 2.6); ("", 0) where the service says nothing."""
    if found is None:
        return "", 0
    count = text_of(found.find(f"{{{ns.RSM}}}count")).strip()
    return text_of(found.find(f"{{{ns.RSM}}}last")).strip(), int(count) if count.isdecimal() and len(count) < 10 else 0


def _words(error: Any) -> str:
    if error is None or not len(error):
        return "Its answer is none that could be read."
    return f"It answers {etree.QName(error[0]).localname}."
