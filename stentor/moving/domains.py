"""Domains that are called otherwise here: in every address of what moves, not in what people have written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from stentor.moving.documents import parse
from stentor.moving.things import (
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
    Thing,
    Unreadable,
    Waiting,
)
from stentor.moving.trees import Tree, Unwritable, write
from xmpp import ns


class Domains:
    """`names`: how a domain of the other server is called here."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = {old.lower(): new for old, new in names.items()}

    def moved(self, owned: Owned) -> Owned:
        """The same with the names of here."""
        jid, thing = owned
        if not self._names:
            return owned
        try:
            return self.jid(jid), self._thing(thing)
        except (Unreadable, Unwritable) as problem:
            return self.jid(jid), LeftOut(thing.kind, f"its addresses cannot be changed: {problem}")

    def jid(self, text: str) -> str:
        """An address."""
        bare, slash, resource = text.partition("/")
        local, at, domain = bare.rpartition("@")
        return f"{local}{at}{self._names.get(domain.lower(), domain)}{slash}{resource}"

    def _thing(self, thing: Thing) -> Thing:
        match thing:
            case Contact() | Blocked() | Affiliation():
                return replace(thing, jid=self.jid(thing.jid))
            case Request():
                return replace(thing, jid=self.jid(thing.jid), xml=self._stanza(thing.xml) if thing.xml else "")
            case Message():
                return replace(thing, jid=self.jid(thing.jid), xml=self._stanza(thing.xml))
            case Waiting():
                return replace(thing, xml=self._stanza(thing.xml))
            case Node():
                named = {self.jid(jid): word for jid, word in thing.affiliations.items()}
                return replace(thing, affiliations=named, subscribers=tuple(map(self.jid, thing.subscribers)))
            case Item():
                id_ = self.jid(thing.id) if thing.node in (ns.BOOKMARKS, ns.DISPLAYED) else thing.id
                xml = self._bookmarks(thing.xml) if thing.node == ns.BOOKMARKS_OLD else thing.xml
                return replace(thing, id=id_, publisher=self.jid(thing.publisher), xml=xml)
            case Private():
                return replace(thing, xml=self._bookmarks(thing.xml)) if ns.BOOKMARKS_OLD in thing.xml else thing
            case Preferences():
                always, never = (tuple(map(self.jid, jids)) for jids in (thing.always, thing.never))
                return replace(thing, always=always, never=never)
            case _:
                return thing

    def _stanza(self, xml: str) -> str:
        tree = parse(f"<a xmlns='{ns.CLIENT}'>{xml}</a>", "a stanza")
        stanza = next(tree.elements())
        for name in ("to", "from"):
            if name in stanza.attributes:
                stanza.attributes[name] = self.jid(stanza.attributes[name])
        for child in stanza.elements("stanza-id", ns.SID):
            child.attributes["by"] = self.jid(child.attributes.get("by", ""))
        return write(stanza, ns.CLIENT)

    def _bookmarks(self, xml: str) -> str:
        """XEP-0048."""
        if not xml:
            return xml
        tree: Tree = parse(xml, "bookmarks")
        for conference in tree.elements("conference", ns.BOOKMARKS_OLD):
            conference.attributes["jid"] = self.jid(conference.attributes.get("jid", ""))
        return write(tree)
