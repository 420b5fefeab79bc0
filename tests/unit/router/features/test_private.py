"""Private XML storage (XEP-0049)."""

from __future__ import annotations

import pytest

from router.entity import Session
from router.settings import Settings
from storage import private
from tests.support.turns import DOMAIN, World, error
from xmpp import ns

JULIET, ROMEO = "juliet@example.com", "romeo@example.com"
PREFS = '<exodus xmlns="exodus:prefs"><defaultnick>Hamlet</defaultnick></exodus>'
NOT_ACCEPTABLE = error("not-acceptable", "modify")
BAD_REQUEST = error("bad-request", "modify")


class Scene:
    """Juliet with a session, and what the database has of hers."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.world = World(settings)
        self.account = self.world.account(JULIET)
        self.juliet = self.world.bind(self.account, "balcony")
        self.rows: dict[str, bytes] = {}
        self.world.database[private.get] = lambda key, name: self.rows.get(name)
        self.world.database[private.total_size] = lambda key, without: sum(
            len(xml) for name, xml in self.rows.items() if name not in without
        )

    def ask(self, type: str, inner: str, to: str | None = None, session: Session | None = None) -> str:
        """The answer; what was written is in the database then."""
        session = session or self.juliet
        address = f' to="{to}"' if to else ""
        self.world.say(session, f'<iq{address} type="{type}" id="p"><query xmlns="{ns.PRIVATE}">{inner}</query></iq>')
        for write in self.world.writes:
            assert write.statement is private.put
            key, name, xml = write.arguments
            assert key == self.account.key
            self.rows[name] = xml
        self.world.writes.clear()
        (answer,) = self.world.heard(session)
        return answer

    def result(self, inner: str = "", to: str | None = None) -> str:
        back = f' from="{to}"' if to else ""
        head = f'<iq to="{self.juliet.jid}"{back} type="result" id="p"'
        return f'{head}><query xmlns="{ns.PRIVATE}">{inner}</query></iq>' if inner else f"{head}/>"


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("to", [None, JULIET])
def test_what_is_stored_is_given_back(scene: Scene, to: str | None) -> None:
    """2.3, examples 1 and 2; "with no 'to'" and to the own bare JID is the same."""
    assert scene.ask("set", PREFS, to) == scene.result(to=to)
    assert scene.ask("get", '<exodus xmlns="exodus:prefs"/>', to) == scene.result(PREFS, to)


def test_what_is_not_stored_is_empty(scene: Scene) -> None:
    scene.ask("set", PREFS)
    for empty in ('<exodus xmlns="exodus:other"/>', '<other xmlns="exodus:prefs"/>'):
        assert scene.ask("get", empty) == scene.result(empty)


def test_storing_replaces_the_element_of_the_same_name(scene: Scene) -> None:
    scene.ask("set", PREFS)
    scene.ask("set", '<exodus xmlns="exodus:prefs" a="1"/>')
    assert scene.ask("get", '<exodus xmlns="exodus:prefs"/>') == scene.result('<exodus xmlns="exodus:prefs" a="1"/>')
    assert len(scene.rows) == 1


def test_several_elements_at_once(scene: Scene) -> None:
    """2.3: "an IQ set or result MAY contain multiple elements"."""
    assert scene.ask("set", f'{PREFS}<a xmlns="urn:x">1</a><b xmlns="urn:x">2</b>') == scene.result()
    assert scene.rows == {
        "exodus:prefs exodus": PREFS.encode(),
        "urn:x a": b'<a xmlns="urn:x">1</a>',
        "urn:x b": b'<b xmlns="urn:x">2</b>',
    }


def test_namespaces_attributes_and_text_survive(scene: Scene) -> None:
    inner = (
        '<storage xmlns="storage:rooms"><conference name="&quot;&lt;R&gt;&quot; &amp; co" autojoin="true">'
        '<nick xml:lang="cs">Dvořím</nick> &amp; <x xmlns="urn:x"><y/></x></conference></storage>'
    )
    scene.ask("set", inner)
    assert scene.ask("get", '<storage xmlns="storage:rooms"/>') == scene.result(inner)


@pytest.mark.parametrize("namespace", ["{a}b", "a}b", "{}", "}{"])
def test_a_namespace_may_have_braces(scene: Scene, namespace: str) -> None:
    """Namespaces in XML 1.0, 2.1: any string is a name, if not a good one."""
    inner = f'<a xmlns="{namespace}">1</a>'
    assert scene.ask("set", inner) == scene.result()
    assert scene.ask("get", f'<a xmlns="{namespace}"/>') == scene.result(inner)
    assert scene.ask("get", f'<a xmlns="{namespace}b"/>') == scene.result(f'<a xmlns="{namespace}b"/>')


@pytest.mark.parametrize("type", ["get", "set"])
def test_another_accounts_data(scene: Scene, type: str) -> None:
    """2.3: "forbidden" is preferred."""
    scene.rows["exodus:prefs exodus"] = PREFS.encode()
    romeo = scene.world.bind(scene.world.account(ROMEO))
    answer = scene.ask(type, '<exodus xmlns="exodus:prefs"/>', JULIET, romeo)
    assert answer.startswith(f'<iq to="{romeo.jid}" from="{JULIET}" type="error" id="p">{error("forbidden", "auth")}')
    assert scene.rows == {"exodus:prefs exodus": PREFS.encode()}


@pytest.mark.parametrize(("type", "condition"), [("get", BAD_REQUEST), ("set", NOT_ACCEPTABLE)])
@pytest.mark.parametrize("inner", ["", "text"])
def test_nothing_is_named(scene: Scene, type: str, inner: str, condition: str) -> None:
    """2.3: a set "MUST" be not-acceptable; a get "SHOULD" be "Bad Format", which is bad-request since RFC 3920."""
    assert condition in scene.ask(type, inner)


def test_a_get_asks_for_one_element(scene: Scene) -> None:
    """2.3: "MUST NOT query for more than one namespace in a single IQ get request"."""
    assert NOT_ACCEPTABLE in scene.ask("get", '<a xmlns="urn:a"/><b xmlns="urn:b"/>')


@pytest.mark.parametrize("type", ["get", "set"])
@pytest.mark.parametrize(
    "namespace", ["jabber:client", "jabber:server", "jabber:iq:roster", "vcard-temp", "", ns.PRIVATE]
)
def test_reserved_namespaces(scene: Scene, type: str, namespace: str) -> None:
    assert NOT_ACCEPTABLE in scene.ask(type, f'<a xmlns="{namespace}"/>')
    assert NOT_ACCEPTABLE in scene.ask(type, "<a/>")
    assert scene.rows == {}


def test_one_wrong_element_keeps_the_others_out(scene: Scene) -> None:
    assert NOT_ACCEPTABLE in scene.ask("set", f'{PREFS}<vCard xmlns="vcard-temp"/>')
    assert scene.rows == {}


def element_of(size: int, name: str = "a") -> str:
    """An element of this many bytes."""
    head, tail = f'<{name} xmlns="urn:x">', f"</{name}>"
    return f"{head}{'x' * (size - len(head) - len(tail))}{tail}"


def test_there_is_room_for_so_much() -> None:
    scene = Scene(Settings(domains=frozenset({DOMAIN}), private_bytes=100))
    assert NOT_ACCEPTABLE in scene.ask("set", element_of(101))
    assert scene.ask("set", element_of(60)) == scene.result()
    assert error("resource-constraint", "wait") in scene.ask("set", element_of(41, "b"))
    assert list(scene.rows) == ["urn:x a"]
    assert scene.ask("set", element_of(40, "b")) == scene.result()
    assert scene.ask("set", element_of(60)) == scene.result(), "what is replaced does not count"
    assert error("resource-constraint", "wait") in scene.ask("set", element_of(61))
    assert scene.ask("set", element_of(50) + element_of(50, "b")) == scene.result()


def test_of_one_name_twice_the_last_is_kept(scene: Scene) -> None:
    scene.ask("set", '<a xmlns="urn:x">1</a><a xmlns="urn:x">2</a>')
    assert scene.rows == {"urn:x a": b'<a xmlns="urn:x">2</a>'}
