"""Domains that have another name here: in addresses, and nowhere else."""

from __future__ import annotations

from stentor.moving.domains import Domains
from stentor.moving.things import Contact, Item, LeftOut, Message, Node, Private, Thing

DOMAINS = Domains({"old.example": "new.example", "rooms.old.example": "rooms.new.example"})


def moved(thing: Thing) -> Thing:
    jid, found = DOMAINS.moved(("j@old.example", thing))
    assert jid == "j@new.example"
    return found


def test_addresses() -> None:
    assert [DOMAINS.jid(jid) for jid in ("a@OLD.example/old.example", "old.example", "a@x.old.example", "b@rooms.old.example/n")] == [
        "a@new.example/old.example", "new.example", "a@x.old.example", "b@rooms.new.example/n",
    ]  # fmt: skip


def test_things() -> None:
    assert moved(Contact("a@old.example", "at old.example")) == Contact("a@new.example", "at old.example")
    xml = '<message to="a@old.example/r" from="b@elsewhere"><body>a@old.example</body></message>'
    found = moved(Message(1, "x", xml))
    assert isinstance(found, Message)
    assert found.xml == '<message to="a@new.example/r" from="b@elsewhere"><body>a@old.example</body></message>'
    assert moved(Node("n", {}, {"a@old.example": "owner"}, ("b@old.example",))) == Node(
        "n", {}, {"a@new.example": "owner"}, ("b@new.example",)
    )


def test_bookmarks() -> None:
    old = '<storage xmlns="storage:bookmarks"><conference jid="v@rooms.old.example" name="v@rooms.old.example"/></storage>'
    new = '<storage xmlns="storage:bookmarks"><conference jid="v@rooms.new.example" name="v@rooms.old.example"/></storage>'
    assert moved(Private(old)) == Private(new)
    assert moved(Item("storage:bookmarks", "current", old)) == Item("storage:bookmarks", "current", new)
    assert moved(Item("urn:xmpp:bookmarks:1", "v@rooms.old.example", "")) == Item(
        "urn:xmpp:bookmarks:1", "v@rooms.new.example", ""
    )
    assert moved(Item("urn:other", "v@rooms.old.example", "")) == Item("urn:other", "v@rooms.old.example", "")


def test_what_cannot_be_changed_is_told() -> None:
    found = moved(Message(1, "x", "<message"))
    assert isinstance(found, LeftOut)
    assert found.what == "message"


def test_without_names_nothing_is_touched() -> None:
    assert Domains({}).moved(("j@old.example", Message(1, "x", "<message"))) == (
        "j@old.example",
        Message(1, "x", "<message"),
    )
