"""XEP-0227 written, as things come: nothing of an account is kept but what the format wants elsewhere."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final, Protocol
from urllib.parse import quote

from stentor.moving.documents import INCLUDE
from stentor.moving.pie import ARCHIVE, PIE, PRIVACY, SCRAM
from xmpp import ns
from xmpp.jid import domain_of, local_of
from xmpp.timestamp import format_moment
from xmpp.xml import element, escape_attribute

MAIN: Final = "server-data.xml"
HEAD: Final = b"<?xml version='1.0' encoding='UTF-8'?>\n"


class Exported(Protocol):
    """What there is of an account, as the administration API tells it (docs/admin-api.md)."""

    jid: str
    things: list[dict[str, Any]]

    def items(self, node: str) -> Iterator[dict[str, Any]]:
        """What is published at a node, in order."""

    def messages(self) -> Iterator[dict[str, Any]]:
        """The archive, in order."""

    def waiting(self) -> Iterator[dict[str, Any]]:
        """What it has not got yet, in order."""


def write_user(account: Exported, to: IO[bytes], xmlns: str | None, is_for_ejabberd: bool = False) -> None:
    """One <user/>. COMPAT: ejabberd (seen: 23.01) reads the credentials of one mechanism, and decodes once what it then
    takes for base64 still."""
    declared = f' xmlns="{xmlns}"' if xmlns is not None else ""
    to.write(f'<user{declared} name="{escape_attribute(local_of(account.jid))}">\n'.encode())
    of: dict[str, list[dict[str, Any]]] = {}
    for thing in account.things:
        of.setdefault(thing["kind"], []).append(thing)
    for part in _small(account.jid, of, is_for_ejabberd):
        to.write(part + b"\n")
    nodes = [thing["node"] for thing in of.get("node", ())]
    if nodes:
        to.write(b'<pubsub xmlns="%b">\n' % ns.PUBSUB.encode())
        for node in nodes:
            to.write(f'<items node="{escape_attribute(node)}">'.encode())
            for item in account.items(node):
                attributes = {"id": item["id"], "publisher": item["publisher"] or None}
                to.write(element("item", None, attributes, item["xml"].encode()))
            to.write(b"</items>\n")
        to.write(b"</pubsub>\n")
    _write_all(to, b'<archive xmlns="%b">\n' % ARCHIVE.encode(), b"</archive>\n", map(_result, account.messages()))
    waits = (_waiting(account.jid, thing) for thing in account.waiting())
    _write_all(to, b"<offline-messages>\n", b"</offline-messages>\n", waits)
    to.write(b"</user>\n")


def _write_all(to: IO[bytes], head: bytes, tail: bytes, parts: Iterable[bytes]) -> None:
    """Parts and what surrounds them, if there are any."""
    is_begun = False
    for part in parts:
        if not is_begun:
            to.write(head)
            is_begun = True
        to.write(part + b"\n")
    if is_begun:
        to.write(tail)


def _small(jid: str, of: dict[str, list[dict[str, Any]]], is_for_ejabberd: bool) -> Iterator[bytes]:
    for account in of.get("account", ()):
        credentials = account["credentials"]
        if is_for_ejabberd:  # SHA-1 is what it is made for where nobody says anything else
            credentials = [
                _encoded_again(one) for one in sorted(credentials, key=lambda one: one["hash"] != "SHA-1")[:1]
            ]
        yield from map(_credentials, credentials)
    yield element("query", ns.ROSTER, None, *map(_contact, of.get("contact", ())))
    for request in of.get("request", ()):
        yield _in_client(request["xml"])
    if blocked := [thing["jid"] for thing in of.get("block", ())]:
        yield _privacy(blocked)
    for chosen in of.get("preferences", ()):
        lists = (
            element(name, None, None, *(element("jid", None, None, one) for one in chosen[name]))
            for name in ("always", "never")
        )
        yield element("prefs", ns.MAM_PREFERENCES, {"default": chosen["default"]}, *lists)
    for card in of.get("vcard", ()):
        yield card["xml"].encode()
    if kept := of.get("private", ()):
        yield element("query", ns.PRIVATE, None, *(thing["xml"].encode() for thing in kept))
    if nodes := of.get("node", ()):
        yield element("pubsub", ns.PUBSUB_OWNER, None, *(part for node in nodes for part in _node(node)))


def _credentials(one: dict[str, Any]) -> bytes:
    parts = (("iter-count", str(one["iterations"])), ("salt", one["salt"]), ("server-key", one["server_key"]),
             ("stored-key", one["stored_key"]))  # fmt: skip
    inner = (element(name, None, None, text) for name, text in parts)
    return element("scram-credentials", SCRAM, {"mechanism": f"SCRAM-{one['hash']}"}, *inner)


def _encoded_again(one: dict[str, Any]) -> dict[str, Any]:
    return one | {key: b64encode(one[key].encode()).decode() for key in ("salt", "stored_key", "server_key")}


def _contact(contact: dict[str, Any]) -> bytes:
    attributes = {
        "jid": contact["jid"],
        "name": contact["name"] or None,
        "subscription": contact["subscription"],
        "ask": "subscribe" if contact["ask"] else None,
        "approved": "true" if contact["approved"] else None,
    }
    return element("item", None, attributes, *(element("group", None, None, group) for group in contact["groups"]))


def _privacy(jids: list[str]) -> bytes:
    """Blocks as the format knows them: a privacy list, which is the default."""
    items = (
        element("item", None, {"type": "jid", "value": jid, "action": "deny", "order": str(order)})
        for order, jid in enumerate(jids, 1)
    )
    name = {"name": "blocked"}
    listed = element(
        "list", None, name, *items, element("item", None, {"action": "allow", "order": str(len(jids) + 1)})
    )
    return element("query", PRIVACY, None, element("default", None, name), listed)


def _node(node: dict[str, Any]) -> Iterator[bytes]:
    options = [("FORM_TYPE", [ns.PUBSUB_CONFIG]), *node["options"].items()]
    fields = (
        element("field", None, {"var": var}, *(element("value", None, None, value) for value in values))
        for var, values in options
        if values
    )
    name = {"node": node["node"]}
    yield element("configure", None, name, element("x", ns.DATA_FORMS, {"type": "submit"}, *fields))
    if node["affiliations"]:
        of = (
            element("affiliation", None, {"jid": jid, "affiliation": word})
            for jid, word in node["affiliations"].items()
        )
        yield element("affiliations", None, name, *of)
    if node["subscribers"]:
        by = (element("subscription", None, {"jid": jid, "subscription": "subscribed"}) for jid in node["subscribers"])
        yield element("subscriptions", None, name, *by)


def _result(message: dict[str, Any]) -> bytes:
    delay = element("delay", ns.DELAY, {"stamp": format_moment(message["at"] / 1_000_000)})
    forwarded = element("forwarded", ns.FORWARD, None, delay, _in_client(message["xml"]))
    return element("result", ns.MAM, {"id": message["id"]}, forwarded)


def _waiting(jid: str, thing: dict[str, Any]) -> bytes:
    """The message says itself when it was sent."""
    attributes = {"from": domain_of(jid), "stamp": format_moment(thing["at"] / 1_000_000)}
    delay = element("delay", ns.DELAY, attributes, "Offline storage")
    xml = _in_client(thing["xml"])
    if xml.endswith(b"/>"):
        return xml[:-2] + b">" + delay + b"</message>"
    return xml.removesuffix(b"</message>") + delay + b"</message>"


def _in_client(xml: str) -> bytes:
    """A stanza, for where another namespace is the default."""
    name = xml[1:].split(" ", 1)[0].split(">", 1)[0].removesuffix("/")
    return f'<{name} xmlns="{ns.CLIENT}"{xml[1 + len(name) :]}'.encode()


# --- files


def private_file(file: Path) -> IO[bytes]:
    """A new file for its owner's eyes alone, or an old one made so."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")


def write_file(accounts: Iterable[Exported], file: Path, is_for_ejabberd: bool = False) -> None:
    """Everything in one document; accounts of a domain follow each other."""
    with private_file(file) as to:
        to.write(HEAD + f'<server-data xmlns="{PIE}">\n'.encode())
        domain = ""
        for account in accounts:
            if domain_of(account.jid) != domain:
                to.write(b"</host>\n" if domain else b"")
                domain = domain_of(account.jid)
                to.write(f'<host jid="{escape_attribute(domain)}">\n'.encode())
            write_user(account, to, None, is_for_ejabberd)
        to.write(b"</host>\n" if domain else b"")
        to.write(b"</server-data>\n")


def write_folder(accounts: Iterable[Exported], folder: Path, is_for_ejabberd: bool = False) -> None:
    """A file for each account, one for each domain, and the main one, as XEP-0227 would have it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    of: dict[str, list[str]] = {}
    for account in accounts:
        domain = domain_of(account.jid)
        (folder / domain).mkdir(mode=0o700, exist_ok=True)
        name = f"{quote(local_of(account.jid), safe='')}.xml"
        with private_file(folder / domain / name) as to:
            to.write(HEAD)
            write_user(account, to, PIE, is_for_ejabberd)
        of.setdefault(domain, []).append(f"{domain}/{quote(name)}")
    for domain, hrefs in of.items():
        with private_file(folder / f"{domain}.xml") as to:
            to.write(HEAD + f'<host xmlns="{PIE}" xmlns:xi="{INCLUDE}" jid="{escape_attribute(domain)}">\n'.encode())
            to.writelines(f'<xi:include href="{escape_attribute(href)}"/>\n'.encode() for href in hrefs)
            to.write(b"</host>\n")
    with private_file(folder / MAIN) as to:
        to.write(HEAD + f'<server-data xmlns="{PIE}" xmlns:xi="{INCLUDE}">\n'.encode())
        to.writelines(f'<xi:include href="{escape_attribute(quote(domain))}.xml"/>\n'.encode() for domain in of)
        to.write(b"</server-data>\n")
