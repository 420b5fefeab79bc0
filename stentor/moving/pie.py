"""XEP-0227 read: the portable format for what servers know of their users, also as ejabberd and Prosody write it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from stentor.moving import privacy, scrams
from stentor.moving.documents import Document, Start
from stentor.moving.moments import InOrder, of_stamp, take_delay
from stentor.moving.privacy import Rule
from stentor.moving.scrams import NoCredentials
from stentor.moving.things import (
    Account,
    Blocked,
    Contact,
    Item,
    LeftOut,
    Message,
    Node,
    Owned,
    Preferences,
    Private,
    Request,
    Scram,
    Thing,
    Unreadable,
    VCard,
    Waiting,
)
from stentor.moving.trees import Tree, Unwritable, write
from xmpp import ns

PIE: Final = "urn:xmpp:pie:0"
PIE_OLD: Final = "http://www.xmpp.org/extensions/xep-0227.html#ns"  # until version 1.0
SCRAM: Final = "urn:xmpp:pie:0#scram"
ARCHIVE: Final = "urn:xmpp:pie:0#mam"
PRIVACY: Final = "jabber:iq:privacy"
_PIES: Final = (PIE, PIE_OLD)


class Pie:
    """A document, with those that it includes."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def accounts(self) -> Iterator[Owned]:
        """Every account."""
        for document, jid, start in self._users():
            yield jid, _account(document, start)

    def data(self) -> Iterator[Owned]:
        """Everything else."""
        for document, jid, _ in self._users():
            for thing in _User(document).things():
                yield jid, thing

    def _users(self) -> Iterator[tuple[Document, str, Start]]:
        """Each user's start tag; whoever gets it goes on to the end of the element."""
        document = Document(self._file)
        root = document.next()
        if not isinstance(root, tuple) or root[0] not in _PIES or root[1] not in ("server-data", "host"):
            raise Unreadable(document.place, f"the root is not <server-data xmlns='{PIE}'/>: is it XEP-0227?")
        hosts = [root] if root[1] == "host" else document.children()
        for host in hosts:
            if host[0] not in _PIES or host[1] != "host":
                document.skip()
                continue
            domain = host[2].get("jid") or ""
            if not domain:
                raise Unreadable(document.place, "a <host/> has no 'jid'")
            for user in document.children():
                if user[0] not in _PIES or user[1] != "user":
                    document.skip()
                    continue
                if not user[2].get("name"):
                    raise Unreadable(document.place, "a <user/> has no 'name'")
                yield document, f"{user[2]['name']}@{domain}", user


def _account(document: Document, user: Start) -> Account:
    found: list[Scram] = []
    for start in document.children():
        if start[:2] == (SCRAM, "scram-credentials"):
            try:
                found.append(_scram(document.tree(start)))
            except NoCredentials:
                pass  # told by `data`
        else:
            document.skip()
    return Account(tuple(found), user[2].get("password"))


def _scram(tree: Tree) -> Scram:
    mechanism = tree.attributes.get("mechanism", "")
    texts = {child.name: child.text.strip() for child in tree.elements()}
    return scrams.of_base64(
        mechanism.removeprefix("SCRAM-"), texts.get("salt", ""), texts.get("iter-count", ""),
        texts.get("stored-key", ""), texts.get("server-key", ""),
    )  # fmt: skip


class _User:
    """The inside of one <user/>. What has to come last is kept until its end."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._last: list[Thing] = []
        self._waiting: list[Thing] = []
        self._order = InOrder()
        self._waiting_order = InOrder()

    def things(self) -> Iterator[Thing]:
        document = self._document
        for start in document.children():
            if start[:2] == (ARCHIVE, "archive"):
                yield from self._archive()
            elif start[0] in _PIES and start[1] == "offline-messages":
                for message in document.children():
                    self._wait(document.tree(message))
            elif start[:2] == (ns.PUBSUB, "pubsub"):
                yield from self._items()
            else:
                yield from self._small(start)
        yield from self._last
        yield from self._waiting

    def _small(self, start: Start) -> Iterator[Thing]:
        match start[:2]:
            case (ns.ROSTER, "query"):
                yield from map(_contact, self._document.tree(start).elements("item", ns.ROSTER))
            case (ns.CLIENT, "presence"):
                yield from _requests(self._document.tree(start))
            case (ns.VCARD, "vCard"):
                self._last += _written(VCard, "vcard", self._document.tree(start))
            case (ns.PRIVATE, "query"):
                for child in self._document.tree(start).elements():
                    self._last += _written(Private, "private", child)
            case (ns.BLOCKING, "blocklist"):
                tree = self._document.tree(start)
                yield from (Blocked(item.attributes.get("jid", "")) for item in tree.elements("item"))
            case (_, "query") if start[0] == PRIVACY:
                yield from _privacy(self._document.tree(start))
            case (ns.PUBSUB_OWNER, "pubsub"):
                yield from _nodes(self._document.tree(start))
            case (ns.MAM_PREFERENCES, "prefs"):
                yield _preferences(self._document.tree(start))
            case (_, "scram-credentials") if start[0] == SCRAM:
                try:
                    _scram(self._document.tree(start))
                except NoCredentials as problem:
                    yield LeftOut("credentials", str(problem))
            case (namespace, name):
                self._document.skip()
                yield LeftOut("unknown", f"<{name[:40]} xmlns='{namespace[:80]}'/> is not known")

    def _archive(self) -> Iterator[Thing]:
        for start in self._document.children():
            tree = self._document.tree(start)
            forwarded = tree.child("forwarded", ns.FORWARD)
            message = None if forwarded is None else forwarded.child("message", ns.CLIENT)
            delay = None if forwarded is None else forwarded.child("delay", ns.DELAY)
            if message is None or delay is None:
                yield LeftOut("message", "something in the archive is no message with its time")
                continue
            try:
                at = self._order.next(of_stamp(delay.attributes.get("stamp", "")))
            except ValueError as problem:
                yield LeftOut("message", str(problem))
                continue
            id_ = tree.attributes.get("id", "")
            yield from _written(partial(Message, at, id_), "message", message, ns.CLIENT)

    def _wait(self, message: Tree) -> None:
        if (message.namespace, message.name) != (ns.CLIENT, "message"):
            self._waiting.append(LeftOut("waiting", f"<{message.name[:40]}/> is no message"))
            return
        at = take_delay(message)
        if at is None:
            self._waiting.append(LeftOut("waiting", "a message that waits does not say when it was sent"))
            return
        at = self._waiting_order.next(at)
        self._waiting += _written(partial(Waiting, at), "waiting", message, ns.CLIENT)

    def _items(self) -> Iterator[Thing]:
        document = self._document
        for items in document.children():
            node = items[2].get("node", "")
            for start in document.children():
                item = document.tree(start)
                yield from _item(node, item)


def _contact(item: Tree) -> Thing:
    given = item.attributes
    groups = tuple(dict.fromkeys(group.text for group in item.elements("group", ns.ROSTER)))
    return Contact(
        given.get("jid", ""), given.get("name", ""), groups, given.get("subscription") or "none",
        given.get("ask") == "subscribe", given.get("approved") in ("true", "1"),
    )  # fmt: skip


def _requests(presence: Tree) -> Iterator[Thing]:
    if presence.attributes.get("type") == "subscribe":
        jid = presence.attributes.get("from", "")
        yield from _written(partial(Request, jid), "request", presence, ns.CLIENT)


def _privacy(query: Tree) -> Iterator[Thing]:
    default = query.child("default")
    name = "" if default is None else default.attributes.get("name", "")
    for listed in query.elements("list"):
        rules = (
            Rule(
                item.attributes.get("type", ""), item.attributes.get("value", ""), item.attributes.get("action", ""),
                not any(True for _ in item.elements()),
            )
            for item in listed.elements("item")
        )  # fmt: skip
        own = listed.attributes.get("name", "")
        yield from privacy.blocks(rules, own == name, own)


def _nodes(pubsub: Tree) -> Iterator[Thing]:
    options: dict[str, dict[str, tuple[str, ...]]] = {}
    affiliations: dict[str, dict[str, str]] = {}
    subscribers: dict[str, list[str]] = {}
    for child in pubsub.elements():
        node = child.attributes.get("node", "")
        if child.name == "configure":
            options[node] = _form(child)
        for one in child.elements("affiliation"):
            affiliations.setdefault(node, {})[one.attributes.get("jid", "")] = one.attributes.get("affiliation", "")
        for one in child.elements("subscription"):
            # COMPAT: Prosody (seen: 0.12) writes the state into an attribute of another name.
            state = one.attributes.get("subscription") or one.attributes.get("subscribed")
            if state == "subscribed":
                subscribers.setdefault(node, []).append(one.attributes.get("jid", ""))
    for node in dict.fromkeys((*options, *affiliations, *subscribers)):
        yield Node(node, options.get(node, {}), affiliations.get(node, {}), tuple(subscribers.get(node, ())))


def _form(parent: Tree) -> dict[str, tuple[str, ...]]:
    form = parent.child("x", ns.DATA_FORMS)
    if form is None:
        return {}
    return {
        field.attributes.get("var", ""): tuple(value.text for value in field.elements("value"))
        for field in form.elements("field")
        if field.attributes.get("var") not in (None, "FORM_TYPE") and field.child("value") is not None
    }


def _item(node: str, item: Tree) -> Iterator[Thing]:
    given = item.attributes
    payload = next(item.elements(), None)
    if payload is None:
        yield Item(node, given.get("id", ""), "", given.get("publisher", ""))
        return
    yield from _written(lambda xml: Item(node, given.get("id", ""), xml, given.get("publisher", "")), "item", payload)


def _preferences(prefs: Tree) -> Thing:
    def listed(name: str) -> tuple[str, ...]:
        parent = prefs.child(name)
        return () if parent is None else tuple(jid.text.strip() for jid in parent.elements("jid"))

    return Preferences(prefs.attributes.get("default", ""), listed("always"), listed("never"))


def _written(make: Callable[[str], Thing], kind: str, tree: Tree, default_namespace: str = "") -> list[Thing]:
    try:
        return [make(write(tree, default_namespace))]
    except Unwritable as problem:
        return [LeftOut(kind, str(problem))]
