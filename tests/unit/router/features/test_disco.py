"""Service discovery (XEP-0030) and the server's entity capabilities (XEP-0115)."""

from __future__ import annotations

import base64
import hashlib
import platform
from typing import Any, Literal

import pytest
from lxml import etree

from router.contacts import Subscription
from router.entity import Session
from router.features import ALL
from router.features.disco import CAPS_NODE, account_info, server_caps, server_info
from router.settings import Settings
from tests.support.turns import DOMAIN, World, error
from xmpp import ns
from xmpp.disco import Form, Identity, Info, caps_hash, info_payload

JULIET, ROMEO = "juliet@example.com", "romeo@example.com"
UNAVAILABLE = error("service-unavailable", "cancel")
NOT_FOUND = error("item-not-found", "cancel")


class Scene:
    """Juliet with two available sessions and one that is not; Romeo, who asks."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.world = World(settings)
        self.account = self.world.account(JULIET)
        self.balcony = self.world.online(self.account, "balcony")
        self.chamber = self.world.online(self.account, "chamber", -1)
        self.world.bind(self.account, "silent")
        self.romeo = self.world.online(self.world.account(ROMEO), "orchard")

    def ask(self, session: Session, to: str | None, namespace: str, node: str | None = None) -> str:
        """The answer to a request, which is the only thing that is heard."""
        address = f' to="{to}"' if to else ""
        query = f'<query xmlns="{namespace}"{f" node=^{node}^" if node is not None else ""}/>'.replace("^", '"')
        self.world.say(session, f'<iq{address} type="get" id="d">{query}</iq>')
        (answer,) = self.world.heard(session)
        back = f' from="{to}"' if to else ""
        assert answer.startswith(f'<iq to="{session.jid}"{back} type=')
        assert ' id="d"' in answer
        return answer


@pytest.fixture
def scene() -> Scene:
    return Scene()


def query_of(answer: str) -> etree._Element:
    """The query of a result."""
    (query,) = etree.fromstring(answer)
    assert ' type="result"' in answer
    return query


def attributes(element: etree._Element) -> dict[str, str]:
    return {str(name): str(value) for name, value in element.attrib.items()}


def features_of(query: etree._Element) -> list[str]:
    return [str(feature.get("var")) for feature in query.findall(f"{{{ns.DISCO_INFO}}}feature")]


def ver_of(query: etree._Element) -> str:
    """The verification string of a disco#info answer, as XEP-0115, 5.1 tells receivers to compute it."""
    lang = "{http://www.w3.org/XML/1998/namespace}lang"
    identities = sorted(
        [i.get("category", ""), i.get("type", ""), i.get(lang, ""), i.get("name", "")]
        for i in query.findall(f"{{{ns.DISCO_INFO}}}identity")
    )
    said = "".join("/".join(identity) + "<" for identity in identities)
    said += "".join(feature + "<" for feature in sorted(features_of(query)))
    forms = {}
    for x in query.findall(f"{{{ns.DATA_FORMS}}}x"):
        fields = {
            str(field.get("var")): sorted(value.text or "" for value in field.findall(f"{{{ns.DATA_FORMS}}}value"))
            for field in x.findall(f"{{{ns.DATA_FORMS}}}field")
        }
        (form_type,) = fields.pop("FORM_TYPE")
        assert form_type not in forms
        forms[form_type] = fields
    for form_type, fields in sorted(forms.items()):
        said += form_type + "<"
        for var, values in sorted(fields.items()):
            said += "".join(text + "<" for text in [var, *values])
    return base64.b64encode(hashlib.sha1(said.encode()).digest()).decode()


# --- disco#info of the domain (3.1)


def test_the_server_tells_what_it_is_and_all_that_its_features_declare(scene: Scene) -> None:
    query = query_of(scene.ask(scene.romeo, DOMAIN, ns.DISCO_INFO))
    (identity,) = query.findall(f"{{{ns.DISCO_INFO}}}identity")
    assert attributes(identity) == {"category": "server", "type": "im", "name": "Stentor"}
    features = features_of(query)
    assert set(features) == {name for feature in ALL for name in feature.server_features}
    assert len(features) == len(set(features)), "XEP-0115, 5.4: a receiver would refuse it"
    assert {ns.DISCO_INFO, ns.DISCO_ITEMS, ns.CAPS, ns.BLOCKING, ns.PING, ns.TIME, ns.VERSION, ns.LAST} <= set(features)


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_registration_is_told_whoever_may_register(mode: Literal["closed", "open"]) -> None:
    """XEP-0077, "Determining Support": connected clients see that they may change their password."""
    scene = Scene(Settings(domains=frozenset({DOMAIN}), registration_mode=mode))
    assert ns.REGISTER in features_of(query_of(scene.ask(scene.romeo, DOMAIN, ns.DISCO_INFO)))


@pytest.mark.parametrize("show_os", [False, True])
def test_software_information(show_os: bool) -> None:
    """XEP-0232, as a form (XEP-0128); the operating system only where the operator wants it."""
    scene = Scene(Settings(domains=frozenset({DOMAIN}), software_version="1.2.3", show_os=show_os))
    answer = scene.ask(scene.romeo, DOMAIN, ns.DISCO_INFO)
    form = query_of(answer).find(f"{{{ns.DATA_FORMS}}}x")
    assert form is not None
    assert form.get("type") == "result"
    fields = {field.get("var"): [value.text for value in field] for field in form}
    expected = {"FORM_TYPE": [ns.SOFTWARE_INFO], "software": ["Stentor"], "software_version": ["1.2.3"]}
    if show_os:
        expected |= {"os": [platform.system()], "os_version": [platform.release()]}
    assert fields == expected
    assert form[0].get("type") == "hidden", "XEP-0115, 5.4: the form would be ignored otherwise"


@pytest.mark.parametrize("node", ["", "x", CAPS_NODE, f"{CAPS_NODE}#", f"{CAPS_NODE}#AAAA", "#"])
def test_a_node_that_the_server_does_not_have(scene: Scene, node: str) -> None:
    assert NOT_FOUND in scene.ask(scene.romeo, DOMAIN, ns.DISCO_INFO, node)
    assert NOT_FOUND in scene.ask(scene.romeo, DOMAIN, ns.DISCO_ITEMS, node)


def test_the_server_has_no_items(scene: Scene) -> None:
    """4.1: "If there are no items", "an empty query element"."""
    query = query_of(scene.ask(scene.romeo, DOMAIN, ns.DISCO_ITEMS))
    assert (query.tag, len(query), attributes(query)) == (f"{{{ns.DISCO_ITEMS}}}query", 0, {})


# --- entity capabilities (XEP-0115)


@pytest.mark.parametrize("show_os", [False, True])
def test_the_capabilities_of_the_stream_features_are_those_of_disco(show_os: bool) -> None:
    """6.3 and 6.2: whoever asks for node#ver gets what hashes to ver, and the node is mirrored."""
    settings = Settings(domains=frozenset({DOMAIN}), software_version="1.2.3", show_os=show_os)
    scene = Scene(settings)
    caps = etree.fromstring(server_caps(settings))
    assert caps.tag == f"{{{ns.CAPS}}}c"
    assert set(caps.attrib) == {"hash", "node", "ver"}
    assert (caps.get("hash"), caps.get("node")) == ("sha-1", CAPS_NODE)
    node = f"{caps.get('node')}#{caps.get('ver')}"
    query = query_of(scene.ask(scene.romeo, DOMAIN, ns.DISCO_INFO, node))
    assert query.get("node") == node
    assert ver_of(query) == caps.get("ver")
    plain = query_of(scene.ask(scene.romeo, DOMAIN, ns.DISCO_INFO))
    assert plain.get("node") is None
    assert [etree.tostring(child) for child in plain] == [etree.tostring(child) for child in query]


def test_what_is_told_changes_the_hash() -> None:
    def ver(**changes: Any) -> str:
        return caps_hash(server_info(Settings(software_version="1", **changes)))

    assert ver() == ver(blocks=5)
    assert ver() != ver(show_os=True)


EXODUS = Info(
    (Identity("client", "pc", "Exodus 0.9.1"),),
    (ns.DISCO_ITEMS, ns.CAPS, ns.MUC, ns.DISCO_INFO),
)
PSI = Info(
    (Identity("client", "pc", "Psi 0.11", "en"), Identity("client", "pc", "\u03a8 0.11", "el")),
    EXODUS.features,
    (
        Form(
            ns.SOFTWARE_INFO,
            (
                ("software", ("Psi",)),
                ("ip_version", ("ipv6", "ipv4")),
                ("os_version", ("10.5.1",)),
                ("software_version", ("0.11",)),
                ("os", ("Mac",)),
            ),
        ),
    ),
)


@pytest.mark.parametrize(
    ("info", "ver"), [(EXODUS, "QgayPKawpkPSDYmwT/WM94uAlu0="), (PSI, "q07IKJEyjvHSyhy//CH0CxmKi8w=")]
)
def test_the_examples_of_the_xep(info: Info, ver: str) -> None:
    """5.2 and 5.3, whatever the order in which things are named."""
    assert caps_hash(info) == ver
    assert ver_of(etree.fromstring(info_payload(info))) == ver


# --- accounts (3.1, 4.1 and 8)


@pytest.mark.parametrize("to", [None, JULIET])
def test_an_account_tells_its_owner_what_it_is(scene: Scene, to: str | None) -> None:
    query = query_of(scene.ask(scene.balcony, to, ns.DISCO_INFO))
    account, pep = query.findall(f"{{{ns.DISCO_INFO}}}identity")
    assert attributes(account) == {"category": "account", "type": "registered"}
    assert attributes(pep) == {"category": "pubsub", "type": "pep"}
    assert features_of(query) == list(account_info().features)
    assert set(features_of(query)) == {name for feature in ALL for name in feature.account_features}


@pytest.mark.parametrize("to", [None, JULIET])
def test_the_items_of_an_account_are_its_available_resources(scene: Scene, to: str | None) -> None:
    items = query_of(scene.ask(scene.balcony, to, ns.DISCO_ITEMS))
    assert [attributes(item) for item in items] == [{"jid": scene.balcony.jid}, {"jid": scene.chamber.jid}]


@pytest.mark.parametrize("subscription", ["from", "both"])
def test_who_sees_the_presence_may_ask(scene: Scene, subscription: Subscription) -> None:
    scene.world.contact(scene.account, ROMEO, subscription)
    query = query_of(scene.ask(scene.romeo, JULIET, ns.DISCO_INFO))
    assert features_of(query) == list(account_info().features)
    items = query_of(scene.ask(scene.romeo, JULIET, ns.DISCO_ITEMS))
    assert [item.get("jid") for item in items] == [scene.balcony.jid, scene.chamber.jid]
    scene.account.sessions.clear()
    assert len(query_of(scene.ask(scene.romeo, JULIET, ns.DISCO_ITEMS))) == 0


@pytest.mark.parametrize("facts", [None, {}, {"ask": True}, {"pending_in": True}, {"subscription": "to"}])
@pytest.mark.parametrize("namespace", [ns.DISCO_INFO, ns.DISCO_ITEMS])
@pytest.mark.parametrize("node", [None, "x"])
def test_to_others_an_account_looks_like_none(
    scene: Scene, facts: dict[str, Any] | None, namespace: str, node: str | None
) -> None:
    """8: "MUST carefully control access to any functionality that would enable directory harvesting attacks"."""
    if facts is not None:
        scene.world.contact(scene.account, ROMEO, **facts)
    answer = scene.ask(scene.romeo, JULIET, namespace, node)
    assert UNAVAILABLE in answer
    scene.world.nobody("tybalt@example.com")
    nobody = scene.ask(scene.romeo, "tybalt@example.com", namespace, node)
    assert answer == nobody.replace("tybalt@example.com", JULIET)


@pytest.mark.parametrize("namespace", [ns.DISCO_INFO, ns.DISCO_ITEMS])
def test_a_node_that_the_account_does_not_have(scene: Scene, namespace: str) -> None:
    scene.world.contact(scene.account, ROMEO, "from")
    for session, to in ((scene.balcony, None), (scene.balcony, JULIET), (scene.romeo, JULIET)):
        for node in ("urn:x", ""):
            assert NOT_FOUND in scene.ask(session, to, namespace, node)


def test_a_session_is_asked_itself(scene: Scene) -> None:
    xml = f'<iq to="{scene.balcony.jid}" type="get" id="d"><query xmlns="{ns.DISCO_INFO}" node="n"/></iq>'
    scene.world.say(scene.romeo, xml)
    assert scene.world.heard(scene.balcony) == [xml.replace(" type", f' from="{scene.romeo.jid}" type')]
