"""What ejabberd keeps in Mnesia, as `ejabberdctl dump FILE` writes it (seen: 23.01): accounts, rooms, and the archive,
which its XEP-0227 does not have.

The rows of a table stand together, and the tables in no order that would help: the file is read once for each stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from stentor.moving import erlang, privacy, scrams
from stentor.moving.erlang import Atom, ErlangError
from stentor.moving.moments import InOrder, take_delay
from stentor.moving.privacy import Rule
from stentor.moving.scrams import NoCredentials
from stentor.moving.things import (
    Account,
    Affiliation,
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
    Unreadable,
    VCard,
    Waiting,
)
from stentor.moving.trees import Tree, Unwritable, attributes_of, write
from xmpp import ns

_HASHES: Final = {"sha": "SHA-1", "sha256": "SHA-256", "sha512": "SHA-512"}
_ASKS: Final = {"out": (True, False), "in": (False, True), "both": (True, True)}
# Tables that are nobody's loss: of the moment, of the server, or made of others.
_PASSING: Final = frozenset(
    {
        "tables", "schema", "last_activity", "vcard_search", "roster_version", "caps_features", "pubsub_index",
        "pubsub_orphan", "pubsub_last_item", "oauth_token", "oauth_client", "muc_online_room", "muc_registered",
        "session", "session_counter", "s2s", "route", "local_config", "acl", "access", "http_bind", "bytestream",
        "sip_session", "mod_register_ip", "reg_users_counter", "captcha", "temporarily_blocked", "iq_response",
        "shaper", "push_session", "passwd", "pubsub_state", "pubsub_subscription",
    }
)  # fmt: skip


class Odd(ValueError):
    """A row that is not as it is known."""


class Dump:
    """A dump, or only the tables of it that are named."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def accounts(self) -> Iterator[Owned]:
        """Every account. Where a domain has its passwords elsewhere, whoever has a roster or the like."""
        hosts: set[str] = set()
        for row in self._rows("passwd"):
            jid = _owner(row)
            hosts.add(jid.rpartition("@")[2])
            yield jid, _account(row[2])[0]
        known: set[str] = set()
        for row in self._rows("roster", "vcard", "private_storage", "offline_msg"):
            jid = _owner(row)
            if jid not in known and jid.rpartition("@")[2] not in hosts:
                known.add(jid)
                yield jid, Account()

    def data(self) -> Iterator[Owned]:
        """Everything else, in four stages."""
        yield from self._stage({"muc_room": _room, "passwd": _problem, "roster": _contact, "privacy": _privacy,
                                "archive_prefs": _preferences})  # fmt: skip
        yield from self._nodes()
        yield from self._stage({"vcard": _vcard, "private_storage": _private})
        orders: dict[str, InOrder] = {}
        yield from self._stage({"archive_msg": partial(_archived, orders)})
        orders = {}
        yield from self._stage({"offline_msg": partial(_waiting, orders)})
        for found in self._terms():
            if found.name not in _KNOWN and found.name not in _PASSING:
                yield "", LeftOut(found.name or "unknown", f"the table {found.name!r} is not known")

    def _stage(self, readers: dict[str, Callable[[tuple[Any, ...]], Iterator[Owned]]]) -> Iterator[Owned]:
        for row in self._rows(*readers):
            reader = readers[row[0]]
            found: list[Owned] = []
            try:
                found.extend(reader(row))
            except (Odd, Unwritable) as problem:
                found.append((_owner(row), LeftOut(_KNOWN[row[0]], str(problem))))
            except (LookupError, TypeError, ValueError, AttributeError) as problem:
                why = f"a row of the table {row[0]!r} is not as it is known ({type(problem).__name__})"
                found.append((_owner(row), LeftOut(_KNOWN[row[0]], why)))
            yield from found

    def _rows(self, *tables: str) -> Iterator[tuple[Any, ...]]:
        for found in self._terms():
            if found.name in tables:
                with self._reading():
                    term = erlang.read(found)
                if isinstance(term, tuple) and len(term) > 1:
                    yield term

    def _terms(self) -> Iterator[erlang.Found]:
        with self._reading(), self._file.open("rb") as lines:
            yield from erlang.split(lines)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise Unreadable(self._file, problem.strerror or str(problem)) from None
        except ErlangError as problem:
            raise Unreadable(self._file, str(problem)) from None

    # --- nodes: four tables that name each other by numbers

    def _nodes(self) -> Iterator[Owned]:
        found: dict[int, tuple[str, str]] = {}
        services: set[str] = set()
        states: dict[int, list[tuple[str, str, bool]]] = {}
        for row in self._rows("pubsub_state"):
            (jid, number), affiliation, subscriptions = row[1], row[4], row[5]
            states.setdefault(number, []).append((_jid(jid), str(affiliation), bool(subscriptions)))
        for row in self._rows("pubsub_node"):
            (host, name), number, options = row[1], row[2], row[6]
            if not isinstance(host, tuple):
                if (service := _text(host)) not in services:
                    services.add(service)
                    yield service, LeftOut("node", "nodes of a service do not come along, only those of accounts")
                continue
            owner = _jid(host)
            found[number] = (owner, _text(name))
            known = [state for state in states.get(number, ()) if state[0].partition("/")[0] != owner]
            affiliations = {jid: word for jid, word, _ in known if word in ("owner", "publisher", "member", "outcast")}
            subscribers = tuple(jid for jid, _, is_subscribed in known if is_subscribed)
            yield owner, Node(_text(name), dict(map(_node_option, options)), affiliations, subscribers)
        orders: dict[int, InOrder] = {}
        items: dict[int, list[tuple[int, Item]]] = {}
        for row in self._rows("pubsub_item"):
            (name, number), (at, by), payload = row[1], row[4], row[5]
            if number in found:
                node = found[number][1]
                trees = [_tree(element) for element in payload if element[0] == "xmlel"]
                moment = orders.setdefault(number, InOrder()).next(_moment(at))
                try:
                    xml = write(trees[0]) if trees else ""
                    items.setdefault(number, []).append((moment, Item(node, _text(name), xml, _jid(by), moment)))
                except Unwritable as problem:
                    yield found[number][0], LeftOut("item", str(problem))
        for number, listed in items.items():
            yield from ((found[number][0], item) for _, item in sorted(listed, key=lambda one: one[0]))


# --- accounts


def _account(password: Any) -> tuple[Account, str]:
    """An account, and what is wrong with its credentials."""
    if isinstance(password, bytes):
        return Account((), _text(password)), ""
    try:
        return Account((_scram(password),)), ""
    except (NoCredentials, Odd) as problem:
        return Account(), str(problem)
    except (LookupError, TypeError, ValueError) as problem:
        return Account(), f"its credentials are not as they are known ({type(problem).__name__})"


def _scram(record: Any) -> Scram:
    name, stored_key, server_key, salt, *more = record
    if name != "scram":
        raise Odd(f"credentials of the kind {str(name)[:20]!r} are not known")
    hash_, iterations = more if len(more) == 2 else ("sha", more[0])  # before 20.12 there was SHA-1 alone
    return scrams.of_base64(
        _HASHES.get(str(hash_), str(hash_)), _text(salt), str(iterations), _text(stored_key), _text(server_key)
    )


def _problem(row: tuple[Any, ...]) -> Iterator[Owned]:
    problem = _account(row[2])[1]
    if problem:
        yield _us(row[1]), LeftOut("credentials", problem)


def _contact(row: tuple[Any, ...]) -> Iterator[Owned]:
    _, _, us, jid, name, subscription, ask, groups, message, *_ = row
    owner, contact = _us(us), _jid(jid)
    is_asking, is_asked = _ASKS.get(str(ask), (False, False))
    is_listed = not (is_asked and subscription == "none" and not is_asking and not name and not groups)
    if is_listed:
        known = str(subscription) if subscription in ("none", "to", "from", "both") else "none"
        yield owner, Contact(contact, _text(name), tuple(map(_text, groups)), known, is_asking)
    if is_asked:
        status = [Tree(ns.CLIENT, "status", {}, [_text(message)])] if message else []
        presence = Tree(ns.CLIENT, "presence", {"type": "subscribe", "from": contact, "to": owner}, [*status])
        yield owner, Request(contact, write(presence, ns.CLIENT))


def _privacy(row: tuple[Any, ...]) -> Iterator[Owned]:
    _, us, default, lists = row
    name = "" if default == "none" else _text(default)
    for listed, items in lists:
        rules = []
        for item in items:
            _, type_, value, action, _, is_all, *_ = item
            shown = (
                _jid(value) if isinstance(value, tuple) else _text(value) if isinstance(value, bytes) else str(value)
            )
            rules.append(Rule(str(type_), shown, str(action), is_all == "true"))
        for thing in privacy.blocks(rules, _text(listed) == name, _text(listed)):
            yield _us(us), thing


def _preferences(row: tuple[Any, ...]) -> Iterator[Owned]:
    _, us, default, always, never = row[:5]
    yield _us(us), Preferences(str(default), tuple(map(_jid, always)), tuple(map(_jid, never)))


def _vcard(row: tuple[Any, ...]) -> Iterator[Owned]:
    yield _us(row[1]), VCard(write(_tree(row[2])))


def _private(row: tuple[Any, ...]) -> Iterator[Owned]:
    user, domain, _ = row[1]
    yield f"{_text(user)}@{_text(domain)}", Private(write(_tree(row[2])))


def _node_option(option: tuple[Any, Any]) -> tuple[str, tuple[str, ...]]:
    name, value = option
    if isinstance(value, list):
        values = tuple(_text(one) if isinstance(one, bytes) else str(one) for one in value)
    elif value in ("true", "false"):
        values = ("1" if value == "true" else "0",)
    else:
        values = (_text(value) if isinstance(value, bytes) else str(value),)
    return f"pubsub#{name}", values


# --- the archive


def _archived(orders: dict[str, InOrder], row: tuple[Any, ...]) -> Iterator[Owned]:
    _, us, id_, at, peer, _, packet, nick, type_ = row
    owner = _us(us)
    moment = orders.setdefault(owner, InOrder()).next(_moment(at))
    xml = write(_tree(packet, ns.CLIENT), ns.CLIENT)
    if type_ == "groupchat":
        jid = _jid(peer).partition("/")[0]
        yield owner, Message(moment, _text(id_), xml, _text(nick), jid)
    else:
        yield owner, Message(moment, _text(id_), xml)


def _waiting(orders: dict[str, InOrder], row: tuple[Any, ...]) -> Iterator[Owned]:
    _, us, at, _, _, _, packet, *_ = row
    owner, message = _us(us), _tree(packet, ns.CLIENT)
    take_delay(message)
    moment = orders.setdefault(owner, InOrder()).next(_moment(at))
    yield owner, Waiting(moment, write(message, ns.CLIENT))


# --- rooms

_FLAGS: Final = {
    "public": "publicroom", "moderated": "moderatedroom", "members_only": "membersonly", "mam": "enablelogging",
    "allow_change_subj": "changesubject", "allow_user_invites": "allowinvites",
    "password_protected": "passwordprotectedroom",
}  # fmt: skip
_TEXTS: Final = {"title": "roomname", "description": "roomdesc", "password": "roomsecret", "lang": "lang"}


def _room(row: tuple[Any, ...]) -> Iterator[Owned]:
    (name, host), given = row[1], dict(pair for pair in row[2] if isinstance(pair, tuple) and len(pair) == 2)
    jid = f"{_text(name)}@{_text(host)}"
    options = {ours: _flag(given[theirs]) for theirs, ours in _FLAGS.items() if theirs in given}
    options |= {ours: _text(given[theirs]) for theirs, ours in _TEXTS.items() if given.get(theirs)}
    if options.get("passwordprotectedroom") != "1" or not options.get("roomsecret"):
        options.pop("roomsecret", None)
        options.pop("passwordprotectedroom", None)
    if "anonymous" in given:
        options["whois"] = "moderators" if given["anonymous"] == "true" else "anyone"
    if isinstance(shown := given.get("presence_broadcast"), list):
        options["presencebroadcast"] = ",".join(map(str, shown))
    if isinstance(most := given.get("max_users"), int):
        options["maxusers"] = str(most)
    if given.get("allow_private_messages") == "false":
        options["allowpm"] = "none"
    if given.get("members_by_default") == "false":
        options["moderatedroom"] = "1"
    yield jid, Room(options, _subject(given.get("subject")), _text(given.get("subject_author", b"")))
    for who, affiliation in given.get("affiliations", []):
        word, reason = affiliation if isinstance(affiliation, tuple) else (affiliation, b"")
        yield jid, Affiliation(_jid(who), str(word), "", _text(reason))
    if given.get("subscribers"):
        yield jid, LeftOut("affiliation", "subscriptions of ejabberd's own kind (MucSub) do not come along")


def _flag(value: Any) -> str:
    return "1" if value == "true" else "0"


def _subject(value: Any) -> str:
    if isinstance(value, bytes):
        return _text(value)
    texts = value if isinstance(value, list) else []
    return next((_text(text[2]) for text in texts if isinstance(text, tuple) and len(text) == 3), "")


# --- values


def _owner(row: tuple[Any, ...]) -> str:
    key = row[2] if row[0] == "roster" and len(row) > 2 else row[1]
    if row[0] == "private_storage" and isinstance(key, tuple):
        key = key[:2]
    if isinstance(key, tuple) and len(key) >= 2 and all(isinstance(part, bytes) for part in key[:2]):
        return _us(key)
    return ""


def _us(key: Any) -> str:
    user, domain = key[:2]
    return f"{_text(user)}@{_text(domain)}"


def _jid(value: Any) -> str:
    """{User, Server, Resource}, the record `jid`, or text."""
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, tuple) and value and value[0] == "jid" and isinstance(value[0], Atom):
        value = value[1:4]
    user, domain, resource = value[:3]
    bare = f"{_text(user)}@{_text(domain)}" if user else _text(domain)
    return f"{bare}/{_text(resource)}" if resource else bare


def _text(value: Any) -> str:
    """Binaries are UTF-8; lists of numbers or texts are what was printed of them."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, str):
        return value
    raise Odd("a text is missing where one is known to be")


def _moment(value: Any) -> int:
    """{MegaSeconds, Seconds, MicroSeconds}, or microseconds."""
    if isinstance(value, tuple):
        mega, seconds, micro = value
        return int((mega * 1_000_000 + seconds) * 1_000_000 + micro)
    return int(value)


def _tree(value: Any, namespace: str = "") -> Tree:
    """An `xmlel`."""
    kind, name, attributes, children = value
    if kind != "xmlel":
        raise Odd("an element is missing where one is known to be")
    given = {_text(key): _text(text) for key, text in attributes}
    own, own_attributes = attributes_of(given)
    here = own or namespace
    inside: list[Tree | str] = []
    for child in children:
        inside.append(_tree(child, here) if child[0] == "xmlel" else _text(child[1]))
    return Tree(here, _text(name), own_attributes, inside)


_KNOWN: Final = {
    "muc_room": "room", "passwd": "credentials", "roster": "contact", "privacy": "block",
    "archive_prefs": "preferences",
    "vcard": "vcard", "private_storage": "private", "archive_msg": "message", "offline_msg": "waiting",
    "pubsub_node": "node", "pubsub_item": "item",
}  # fmt: skip
