"""What Prosody keeps (seen: 0.12), store by store; where it keeps it is in `prosody_files.py` and `prosody_sql.py`.

A store is a value for each name of a host, or a list of them (archives, offline messages, items). Accounts are in
`accounts`, `roster`, `vcard`, `private`, `blocklist`, `archive_prefs`, `pep`, `pep_NODE`, `archive`, `offline`, rooms
in `config`, `muc_log`, `persistent` of the host of the rooms.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from typing import Final, Protocol

from stentor.moving import scrams
from stentor.moving.lua import FALSE, Table, Value
from stentor.moving.moments import InOrder, of_seconds, of_stamp, take_delay
from stentor.moving.scrams import NoCredentials
from stentor.moving.things import (
    Account,
    Affiliation,
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
    Room,
    Scram,
    Thing,
    VCard,
    Waiting,
)
from stentor.moving.trees import Tree, Unwritable, attributes_of, write
from xmpp import ns

# Prosody's names for options of nodes (util/pubsub) and those of XEP-0060.
_NODE_OPTIONS: Final = {
    "title": "title", "description": "description", "payload_type": "type", "max_items": "max_items",
    "persist_items": "persist_items", "access_model": "access_model", "publish_model": "publish_model",
    "send_last_published_item": "send_last_published_item", "deliver_notifications": "deliver_notifications",
    "deliver_payloads": "deliver_payloads", "notify_delete": "notify_delete", "notify_retract": "notify_retract",
    "notify_items": "deliver_notifications", "include_payload": "deliver_payloads", "item_expire": "item_expire",
    "notification_type": "notification_type", "itemreply": "itemreply",
}  # fmt: skip
_PREFERENCES: Final = {True: "always", False: "never"}
# Stores of accounts that are read here, or that are nobody's loss: what passes by itself, or is the server's own.
_OF_ACCOUNTS: Final = frozenset(
    {"accounts", "roster", "vcard", "private", "blocklist", "archive_prefs", "pep", "archive", "offline"}
)
_PASSING: Final = frozenset(
    {
        "archive_cleanup", "muc_log_cleanup", "state", "caps", "lastlog", "smacks_h", "persistent", "tokens",
        "last_activity", "muc_mam_cleanup", "account_activity",
    }
)  # fmt: skip
_OF_ROOMS: Final = frozenset({"config", "muc_log", "muc_log_cleanup", "persistent", "state"})


class Stores(Protocol):
    """Where Prosody keeps its stores. Each method raises Unreadable."""

    def hosts(self) -> list[str]:
        """Hosts of users and of rooms."""

    def stores(self, host: str) -> list[str]:
        """The stores that a host has."""

    def names(self, host: str, store: str) -> Iterator[str]:
        """The names that have something in a store, in order."""

    def value(self, host: str, name: str, store: str) -> Value:
        """A value; None where there is none."""

    def listed(self, host: str, name: str, store: str) -> Iterator[Value]:
        """The values of a list, in order. Each is a stanza with `key`, `when` and `with`."""


class Prosody:
    """The hosts of one Prosody, or those of `only`."""

    def __init__(self, stores: Stores, only: frozenset[str] = frozenset()) -> None:
        self._stores = stores
        self._hosts = [host for host in stores.hosts() if not only or host in only]

    def accounts(self) -> Iterator[Owned]:
        """Every account."""
        for host in self._hosts:
            for name in self._users(host, self._stores.stores(host)):
                yield f"{name}@{host}", self._account(host, name)[0]

    def _users(self, host: str, stores: list[str]) -> list[str]:
        """Who has an account; where passwords are kept elsewhere, who has a roster or the like."""
        if "accounts" in stores:
            return list(self._stores.names(host, "accounts"))
        if "roster" not in stores:
            return []
        return sorted({name for store in _OF_ACCOUNTS if store in stores for name in self._stores.names(host, store)})

    def data(self) -> Iterator[Owned]:
        """Everything else."""
        for host in self._hosts:
            stores = self._stores.stores(host)
            if names := self._users(host, stores):
                for name in names:
                    for thing in self._user(host, name, stores):
                        yield f"{name}@{host}", thing
                yield from self._unknown(host, stores, frozenset(names))
            elif "config" in stores or "persistent" in stores:
                for name in self._stores.names(host, "config"):
                    for thing in self._room(host, name):
                        yield f"{name}@{host}", thing
                yield from ((host, LeftOut(s, f"the store {s!r} is not known")) for s in stores if s not in _OF_ROOMS)
            else:
                why = "it is of a service, and only accounts and rooms come along"
                yield from ((host, LeftOut(store, why)) for store in stores if store not in _PASSING)

    def _unknown(self, host: str, stores: list[str], users: frozenset[str]) -> Iterator[Owned]:
        for store in stores:
            if store.startswith("pep_") or store in _PASSING:
                continue
            names = list(self._stores.names(host, store))
            if store not in _OF_ACCOUNTS:
                yield from ((f"{name}@{host}", LeftOut(store, f"the store {store!r} is not known")) for name in names)
            elif store != "accounts":
                for name in names:
                    if name not in users:
                        yield f"{name}@{host}", LeftOut(store, "nobody of this name has an account")

    # --- accounts

    def _account(self, host: str, name: str) -> tuple[Account, str]:
        """An account, and what is wrong with its credentials."""
        value = self._stores.value(host, name, "accounts")
        table = value if isinstance(value, Table) else Table()
        password = table.text("password") or None
        if not table.text("stored_key"):
            return Account((), password), ""
        try:
            return Account((_scram(table),), password), ""
        except NoCredentials as problem:
            return Account((), password), str(problem)

    def _user(self, host: str, name: str, stores: list[str]) -> Iterator[Thing]:
        read = partial(self._stores.value, host, name)
        problem = self._account(host, name)[1]
        if problem:
            yield LeftOut("credentials", problem)
        account = read("accounts")
        if isinstance(account, Table) and account.fields.get("disabled") is True:
            yield LeftOut("ban", "the account was disabled: stentor user ban keeps its user out")
        yield from _roster(read("roster"))
        yield from _blocks(read("blocklist"))
        yield from _preferences(read("archive_prefs"))
        yield from self._nodes(host, name, read("pep"), stores)
        yield from _elements("vcard", VCard, [read("vcard")])
        private = read("private")
        yield from _elements("private", Private, private.fields.values() if isinstance(private, Table) else ())
        order = InOrder()
        for value in self._stores.listed(host, name, "archive"):
            yield from _archived(value, order)
        order = InOrder()
        for value in self._stores.listed(host, name, "offline"):
            yield from _waiting(value, order)

    def _nodes(self, host: str, name: str, value: Value, stores: list[str]) -> Iterator[Thing]:
        known = value.fields if isinstance(value, Table) else {}
        nodes = {key: node for key, node in known.items() if isinstance(key, str) and key != FALSE}
        for node, config in nodes.items():
            yield _node(node, config if isinstance(config, Table) else Table())
            if f"pep_{node}" in stores:
                order = InOrder()
                for item in self._stores.listed(host, name, f"pep_{node}"):
                    yield from _item(node, item, order)

    # --- rooms

    def _room(self, host: str, name: str) -> Iterator[Thing]:
        value = self._stores.value(host, name, "config")
        table = value if isinstance(value, Table) else Table()
        data = table.table("_data")
        if data.fields.get("persistent") is not True:
            yield LeftOut("room", "it is there only as long as somebody is in it")
            return
        at = data.number("subject_time")
        yield Room(
            _room_options(data), data.text("subject"), data.text("subject_from").partition("/")[2],
            None if at is None else of_seconds(at),
        )  # fmt: skip
        # Before 0.12 affiliations were in a table of their own.
        affiliations = {**table.table("_affiliations").fields, **table.fields}
        salt, known = data.text("occupant_id_salt"), dict[str, str]()
        for jid, word in affiliations.items():
            if isinstance(jid, str) and isinstance(word, str) and not jid.startswith("_") and jid != FALSE:
                details = table.table("_affiliation_data").table(jid)
                yield Affiliation(jid, word, details.text("reserved_nickname"), details.text("reason"))
                if salt:
                    known[_occupant_id(salt, jid)] = jid
        order = InOrder()
        for said in self._stores.listed(host, name, "muc_log"):
            yield from _said(said, order, known)


def _scram(table: Table) -> Scram:
    try:
        stored_key, server_key = (bytes.fromhex(table.text(key)) for key in ("stored_key", "server_key"))
    except ValueError:
        raise NoCredentials("the keys are not written in hexadecimal digits") from None
    hash_ = {20: "SHA-1", 32: "SHA-256", 64: "SHA-512"}.get(len(stored_key), f"a hash of {len(stored_key)} bytes")
    iterations = table.number("iteration_count")
    salt = table.text("salt").encode("utf-8", "surrogateescape")
    return scrams.of_bytes(hash_, salt, int(iterations or 0), stored_key, server_key)


def _roster(value: Value) -> Iterator[Thing]:
    table = value if isinstance(value, Table) else Table()
    for jid, item in table.fields.items():
        if not isinstance(jid, str) or jid in (FALSE, "pending") or not isinstance(item, Table):
            continue
        groups = tuple(str(group) for group in item.table("groups").fields)
        groups += tuple(group for group in item.table("groups").items if isinstance(group, str))
        yield Contact(
            jid, item.text("name"), groups, item.text("subscription") or "none", item.text("ask") == "subscribe",
            item.fields.get("approved") is True,
        )  # fmt: skip
    pending = table.table(FALSE).table("pending").fields | table.table("pending").fields
    for jid, presence in pending.items():
        if not isinstance(jid, str) or jid == FALSE:
            continue
        try:
            yield Request(jid, write(_tree(presence, ns.CLIENT), ns.CLIENT) if isinstance(presence, Table) else "")
        except Unwritable:
            yield Request(jid)


def _blocks(value: Value) -> Iterator[Thing]:
    for jid in value.fields if isinstance(value, Table) else ():
        if isinstance(jid, str) and jid != FALSE:
            yield Blocked(jid)


def _preferences(value: Value) -> Iterator[Thing]:
    if not isinstance(value, Table) or not value.fields:
        return
    default = value.fields.get(FALSE)
    word = _PREFERENCES.get(default, "roster") if isinstance(default, bool) else "roster"
    chosen = {jid: wanted for jid, wanted in value.fields.items() if isinstance(jid, str) and jid != FALSE}
    always = tuple(jid for jid, wanted in chosen.items() if wanted is True)
    yield Preferences(word, always, tuple(jid for jid, wanted in chosen.items() if wanted is False))


def _node(name: str, config: Table) -> Thing:
    options: dict[str, tuple[str, ...]] = {}
    for key, value in config.table("config").fields.items():
        option = _NODE_OPTIONS.get(key) if isinstance(key, str) else None
        if option is None:
            options[f"prosody#{key}"] = ("",)
        elif isinstance(value, bool):
            options[f"pubsub#{option}"] = ("1" if value else "0",)
        elif value is not None and not isinstance(value, Table):
            options[f"pubsub#{option}"] = (str(value),)
    affiliations = {
        jid: word
        for jid, word in config.table("affiliations").fields.items()
        if isinstance(jid, str) and isinstance(word, str)
    }
    subscribers = tuple(jid for jid in config.table("subscribers").fields if isinstance(jid, str) and jid != FALSE)
    return Node(name, options, affiliations, subscribers)


def _elements(kind: str, make: type[VCard] | type[Private], values: object) -> Iterator[Thing]:
    for value in values:  # type: ignore[attr-defined]
        if isinstance(value, Table):
            try:
                yield make(write(_tree(value)))
            except Unwritable as problem:
                yield LeftOut(kind, str(problem))


def _when(value: Table) -> int:
    """Raises ValueError."""
    at = value.number("when")
    return of_seconds(at) if at is not None else of_stamp(value.table("attr").text("stamp"))


def _stanza(value: Value, default_namespace: str) -> Tree:
    """An entry of a list. Raises Unwritable."""
    if not isinstance(value, Table):
        raise Unwritable("an entry is no stanza")
    tree = _tree(value, default_namespace)
    for name in ("stamp", "stamp_legacy"):
        tree.attributes.pop(name, None)
    return tree


def _item(node: str, value: Value, order: InOrder) -> Iterator[Thing]:
    try:
        tree, table = _stanza(value, ""), value if isinstance(value, Table) else Table()
        at = order.next(_when(table))
        yield Item(node, table.text("key"), write(tree), table.text("with"), at)
    except ValueError as problem:
        yield LeftOut("item", str(problem))


def _archived(value: Value, order: InOrder) -> Iterator[Thing]:
    try:
        message, table = _stanza(value, ns.CLIENT), value if isinstance(value, Table) else Table()
        yield Message(order.next(_when(table)), table.text("key"), write(message, ns.CLIENT))
    except ValueError as problem:
        yield LeftOut("message", str(problem))


def _waiting(value: Value, order: InOrder) -> Iterator[Thing]:
    try:
        message, table = _stanza(value, ns.CLIENT), value if isinstance(value, Table) else Table()
        at = order.next(_when(table))
        take_delay(message)
        yield Waiting(at, write(message, ns.CLIENT))
    except ValueError as problem:
        yield LeftOut("waiting", str(problem))


def _said(value: Value, order: InOrder, known: dict[str, str]) -> Iterator[Thing]:
    try:
        message, table = _stanza(value, ns.CLIENT), value if isinstance(value, Table) else Table()
        at = order.next(_when(table))
        nick = message.attributes.get("from", "").partition("/")[2]
        occupant = message.child("occupant-id", ns.OCCUPANT_ID)
        jid = "" if occupant is None else known.get(occupant.attributes.get("id", ""), "")
        user = message.child("x", ns.MUC_USER)
        item = None if user is None else user.child("item")
        if item is not None:
            jid = item.attributes.get("jid", jid).partition("/")[0]
        yield Message(at, table.text("key"), write(message, ns.CLIENT), nick, jid)
    except ValueError as problem:
        yield LeftOut("message", str(problem))


def _room_options(data: Table) -> dict[str, str]:
    def flag(key: str) -> str:
        return "1" if data.fields.get(key) is True else "0"

    found = {
        "roomname": data.text("name"), "roomdesc": data.text("description"), "lang": data.text("language"),
        "publicroom": "0" if data.fields.get("hidden") is True else "1", "membersonly": flag("members_only"),
        "moderatedroom": flag("moderated"), "changesubject": flag("changesubject"),
        "whois": "anyone" if data.text("whois") == "anyone" else "moderators",
        "enablelogging": "0" if data.fields.get("archiving") is False else "1",
    }  # fmt: skip
    if "allow_member_invites" in data.fields or data.fields.get("members_only") is True:
        found["allowinvites"] = flag("allow_member_invites")
    if data.text("password"):
        found |= {"passwordprotectedroom": "1", "roomsecret": data.text("password")}
    shown = data.table("presence_broadcast").fields
    if shown:
        found["presencebroadcast"] = ",".join(
            role for role in ("moderator", "participant", "visitor") if shown.get(role, True) is not False
        )
    return found


def _occupant_id(salt: str, jid: str) -> str:
    """XEP-0421 as Prosody makes it: so a speaker's address is known where it has an affiliation."""
    key, text = jid.encode("utf-8", "surrogateescape"), salt.encode("utf-8", "surrogateescape")
    return b64encode(hmac.digest(key, text, hashlib.sha256)).decode()


def _tree(table: Table, namespace: str = "") -> Tree:
    """A stanza as Prosody stores it ("preserialized"). Raises Unwritable."""
    given = {key: value for key, value in table.table("attr").fields.items() if isinstance(key, str)}
    own, attributes = attributes_of({key: value for key, value in given.items() if isinstance(value, str)})
    for key, value in given.items():
        if "\1" in key and isinstance(value, str):  # a namespace, \1, a name
            of, _, local = key.partition("\1")
            attributes[f"{{{of}}}{local}"] = value
    here = own or namespace
    children: list[Tree | str] = []
    for item in table.items:
        if isinstance(item, Table):
            children.append(_tree(item, here))
        elif item is not None:
            children.append(str(item))
    return Tree(here, table.text("name"), attributes, children)
