"""What a server has of the compliance suite (XEP-0479, Advanced Server), tried out as its users would: not whether it
is announced, but whether it works. Two accounts are made for it and removed again."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha1
from typing import Final, NamedTuple

from lxml import etree

from stentor.checks.visitor import Unexpected, Visitor
from stentor.client import Api, Place, segment
from xmpp import ns
from xmpp.caps import Caps, info_of, is_borne_out
from xmpp.stream import Limits, StreamParser, open_stream
from xmpp.xml import element

_CLIENT: Final = f"{{{ns.CLIENT}}}"
_PICTURE: Final = b"\x89PNG a picture"
_HASH: Final = sha1(_PICTURE, usedforsecurity=False).hexdigest()
_UPLOAD: Final = "urn:xmpp:http:upload:0"


class Answer(NamedTuple):
    """One item of the list: whether the server has it, and if not, what is missing."""

    category: str
    specification: str
    name: str
    problem: str  # "" where it works

    def __str__(self) -> str:
        line = f"{'no' if self.problem else 'yes':<4} {self.category:<7} {self.specification:<12} {self.name}"
        return f"{line}: {self.problem}" if self.problem else line


class Scene:
    """Romeo with two devices, and Juliet; both are friends."""

    def __init__(self, place: Place, names: tuple[str, str], password: str) -> None:
        self.place = place
        self._names = names
        self.password = password
        self.romeo = self.sign_in(0, "one")
        self.desk = self.sign_in(0, "two")
        self.juliet = self.sign_in(1, "one")
        self._number = 0

    def sign_in(self, who: int, resource: str) -> Visitor:
        """A client of one of the two."""
        visitor = Visitor(self.place.host, self.place.port, self.place.domain)
        visitor.sign_in(self._names[who], self.password, resource)
        return visitor

    def close(self) -> None:
        """Everybody goes."""
        for visitor in (self.romeo, self.desk, self.juliet):
            visitor.__exit__(None, None, None)

    def name(self) -> str:
        """One that nobody has used yet."""
        self._number += 1
        return f"check-{self._number}-{secrets.token_hex(3)}"

    def info(self, to: str, node: str | None = None) -> etree._Element:
        """The answer to disco#info."""
        answer = self.romeo.iq("get", element("query", ns.DISCO_INFO, {"node": node}), to)
        return answer[0]

    def require(self, to: str, *features: str) -> None:
        """Raises Unexpected where one is not announced."""
        known = {e.get("var") for e in self.info(to).iter(f"{{{ns.DISCO_INFO}}}feature")}
        for feature in features:
            if feature not in known:
                raise Unexpected(f"{to} does not announce {feature}")


def _require(found: object, problem: str) -> None:
    if not found:
        raise Unexpected(problem)


def _body(visitor: Visitor, text: str) -> etree._Element:
    return visitor.expect(
        lambda e: e.tag == f"{_CLIENT}message" and e.findtext(f"{_CLIENT}body") == text, f"the message '{text}'"
    )


def _pubsub(*children: bytes) -> bytes:
    return element("pubsub", ns.PUBSUB, None, *children)


def _publish(node: str, id_: str, payload: bytes, **options: str) -> bytes:
    item = element("publish", None, {"node": node}, element("item", None, {"id": id_}, payload))
    fields = [_field("FORM_TYPE", ns.PUBSUB_OPTIONS), *(_field(f"pubsub#{key}", v) for key, v in options.items())]
    x = element("x", ns.DATA_FORMS, {"type": "submit"}, *fields)
    return _pubsub(item, element("publish-options", None, None, x)) if options else _pubsub(item)


def _field(var: str, value: str) -> bytes:
    return element("field", None, {"var": var}, element("value", None, None, value))


def _event(visitor: Visitor, node: str) -> etree._Element:
    path = f"{{{ns.PUBSUB_EVENT}}}event/{{{ns.PUBSUB_EVENT}}}items"

    def matches(e: etree._Element) -> bool:
        items = e.find(path)
        return items is not None and items.get("node") == node

    return visitor.expect(matches, f"a notification of {node}")


# --- core


def direct_tls(scene: Scene) -> None:
    """TLS from the first byte."""
    place = scene.place
    with Visitor(place.host, place.tls_port, place.domain, is_direct_tls=True) as visitor:
        _require(visitor.features.find(f"{{{ns.SASL}}}mechanisms") is not None, "no SASL mechanisms are offered")


def discovery(scene: Scene) -> None:
    """The domain says that it is a server."""
    identities = [(e.get("category"), e.get("type")) for e in scene.info(scene.place.domain)]
    _require(("server", "im") in identities, "the domain has no identity server/im")
    scene.require(scene.place.domain, ns.DISCO_INFO, ns.DISCO_ITEMS)


def capabilities(scene: Scene) -> None:
    """The hash in the stream features is that of the answer."""
    c = scene.romeo.features.find(f"{{{ns.CAPS}}}c")
    if c is None:
        raise Unexpected("the stream features have no capabilities")
    node = f"{c.get('node')}#{c.get('ver')}"
    caps = Caps(c.get("hash"), c.get("ver") or "", node)
    _require(is_borne_out(caps, info_of(scene.info(scene.place.domain, node))), "the hash is not that of the features")


def components(scene: Scene) -> None:
    """A component that nobody knows is refused as the protocol says."""
    place = scene.place
    try:
        connection = socket.create_connection((place.host, place.component_port), 5.0)
    except OSError as problem:
        raise Unexpected(f"port {place.component_port}: {problem}") from None
    with connection:
        connection.settimeout(5.0)
        header = open_stream(namespace=ns.COMPONENT, from_="", to=f"check.{place.domain}", version=None)
        connection.sendall(header)
        parser = StreamParser(ns.COMPONENT, Limits())
        said = b""
        while b"host-unknown" not in said and b"id=" not in said:
            data = connection.recv(4_096)
            _require(data, "the stream ends without a word")
            parser.push(data)
            said += data
        _require(ns.COMPONENT.encode() in said, "it is no stream of components")


def eventing(scene: Scene) -> None:
    """What is published is told to another device that wants it."""
    scene.require(scene.romeo.bare, f"{ns.PUBSUB}#auto-create", f"{ns.PUBSUB}#filtered-notifications")
    identities = [(e.get("category"), e.get("type")) for e in scene.info(scene.romeo.bare)]
    _require(("pubsub", "pep") in identities, "the account has no identity pubsub/pep")
    node = f"urn:{scene.name()}"
    _wants(scene.desk, node)
    scene.romeo.iq("set", _publish(node, "current", element("x", node)))
    _event(scene.desk, node)


def _wants(visitor: Visitor, node: str) -> None:
    """A client that says what it wants, and answers what it is asked (XEP-0115)."""
    text = f"client/pc//<{node}+notify<"
    ver = b64encode(sha1(text.encode(), usedforsecurity=False).digest()).decode()
    c = element("c", ns.CAPS, {"hash": "sha-1", "node": "https://stentor.example/check", "ver": ver})
    visitor.send(element("presence", None, None, c))
    query = f"{{{ns.DISCO_INFO}}}query"
    asked = visitor.expect(
        lambda e: e.tag == f"{_CLIENT}iq" and e.get("type") == "get" and e.find(query) is not None,
        "the question what the client is",
    )
    identity = element("identity", None, {"category": "client", "type": "pc"})
    feature = element("feature", None, {"var": f"{node}+notify"})
    inner = element("query", ns.DISCO_INFO, None, identity, feature)
    visitor.send(element("iq", None, {"type": "result", "to": asked.get("from"), "id": asked.get("id")}, inner))
    visitor.iq("get", element("ping", ns.PING), visitor.domain)


# --- web


def _host_meta(scene: Scene, relation: str) -> str:
    """XEP-0156: the address of a way in over HTTP."""
    place, path = scene.place, "/.well-known/host-meta.json"
    connection = http.client.HTTPSConnection(place.host, place.web_port, timeout=5.0)
    try:
        connection.request("GET", path, headers={"Host": place.domain})
        links = json.loads(connection.getresponse().read()).get("links", ())
    except (OSError, ValueError, http.client.HTTPException) as problem:
        raise Unexpected(f"https://{place.domain}{path} (XEP-0156): {problem}") from None
    finally:
        connection.close()
    for link in links:
        if link.get("rel") == relation:
            return str(link.get("href"))
    raise Unexpected(f"https://{place.domain}{path} names no {relation}")


def websocket(scene: Scene) -> None:
    """RFC 7395."""
    _host_meta(scene, "urn:xmpp:alt-connections:websocket")


def bosh(scene: Scene) -> None:
    """XEP-0206."""
    _host_meta(scene, "urn:xmpp:alt-connections:xbosh")


# --- instant messaging


def conversion(scene: Scene) -> None:
    """A picture that is published is in the vCard."""
    scene.require(scene.romeo.bare, ns.AVATAR_CONVERSION)
    data = element("data", ns.AVATAR_DATA, None, b64encode(_PICTURE))
    info = element("info", None, {"id": _HASH, "type": "image/png", "bytes": str(len(_PICTURE))})
    scene.romeo.iq("set", _publish(ns.AVATAR_DATA, _HASH, data, access_model="open"))
    metadata = element("metadata", ns.AVATAR_METADATA, None, info)
    scene.romeo.iq("set", _publish(ns.AVATAR_METADATA, _HASH, metadata, access_model="open"))
    card = scene.juliet.iq("get", element("vCard", ns.VCARD), scene.romeo.bare)
    binval = "".join((card.findtext(f".//{{{ns.VCARD}}}BINVAL") or "").split())
    _require(binval == b64encode(_PICTURE).decode(), "the vCard does not have the picture")


def vcard_avatar(scene: Scene) -> None:
    """The hash of a vCard's picture is in the presence."""
    binval = element("BINVAL", None, None, b64encode(_PICTURE))
    photo = element("PHOTO", None, None, element("TYPE", None, None, "image/png"), binval)
    scene.romeo.iq("set", element("vCard", ns.VCARD, None, photo))
    scene.romeo.send("<presence><status>with a picture</status></presence>")
    presence = scene.romeo.expect(
        lambda e: e.tag == f"{_CLIENT}presence" and e.findtext(f"{_CLIENT}status") == "with a picture", "presence"
    )
    _require(presence.findtext(f".//{{{ns.VCARD_UPDATE}}}photo") == _HASH, "presence does not have the hash")


def vcard(scene: Scene) -> None:
    """Others read it."""
    name = scene.name()
    scene.juliet.iq("set", element("vCard", ns.VCARD, None, element("FN", None, None, name)))
    card = scene.romeo.iq("get", element("vCard", ns.VCARD), scene.juliet.bare)
    _require(card.findtext(f".//{{{ns.VCARD}}}FN") == name, "it is not as it was set")


def carbons(scene: Scene) -> None:
    """Another device sees what this one gets, and what it sends."""
    scene.desk.iq("set", element("enable", ns.CARBONS))
    for sender, recipient, kind in ((scene.juliet, scene.romeo, "received"), (scene.romeo, scene.juliet, "sent")):
        text = scene.name()
        _say(sender, recipient.jid, text)
        _body(recipient, text)
        tag = f"{{{ns.CARBONS}}}{kind}"
        copy = scene.desk.expect(lambda e, tag=tag: e.find(tag) is not None, f"a copy of what was {kind}")  # type: ignore[misc]
        _require(copy.findtext(f".//{_CLIENT}body") == text, "the copy is of something else")


def _say(visitor: Visitor, to: str, text: str, type_: str = "chat") -> None:
    visitor.send(element("message", None, {"to": to, "type": type_, "id": text}, element("body", None, None, text)))


def blocking(scene: Scene) -> None:
    """Who is blocked gets an error."""
    scene.require(scene.place.domain, ns.BLOCKING)
    item = element("item", None, {"jid": scene.juliet.bare})
    scene.romeo.iq("set", element("block", ns.BLOCKING, None, item))
    text = scene.name()
    _say(scene.juliet, scene.romeo.bare, text)
    scene.juliet.expect(lambda e: e.get("id") == text and e.get("type") == "error", "an error for the message")
    scene.romeo.iq("set", element("unblock", ns.BLOCKING, None, item))


def _room(scene: Scene, visitor: Visitor | None = None) -> str:
    """A new room with somebody in it."""
    visitor = visitor or scene.romeo
    room = f"{scene.name()}@{_service(scene, 'conference', 'text')}"
    _join(visitor, room)
    x = element("x", ns.DATA_FORMS, {"type": "submit"})
    visitor.iq("set", element("query", ns.MUC_OWNER, None, x), room)
    return room


def _join(visitor: Visitor, room: str) -> None:
    nick = visitor.bare.partition("@")[0]
    visitor.send(element("presence", None, {"to": f"{room}/{nick}"}, element("x", ns.MUC)))
    visitor.expect(
        lambda e: e.get("from") == f"{room}/{nick}" and e.tag == f"{_CLIENT}presence" and e.get("type") is None,
        "presence from the room",
    )


def _service(scene: Scene, category: str, type_: str) -> str:
    """The address of a service of this kind (XEP-0030)."""
    answer = scene.romeo.iq("get", element("query", ns.DISCO_ITEMS), scene.place.domain)
    for item in answer.iter(f"{{{ns.DISCO_ITEMS}}}item"):
        jid = item.get("jid") or ""
        try:
            identities = [(e.get("category"), e.get("type")) for e in scene.info(jid)]
        except Unexpected:
            continue
        if (category, type_) in identities:
            return jid
    raise Unexpected(f"the domain has no service {category}/{type_}")


def rooms(scene: Scene) -> None:
    """Two in a room hear each other."""
    room = _room(scene)
    _join(scene.juliet, room)
    text = scene.name()
    _say(scene.juliet, room, text, "groupchat")
    _body(scene.romeo, text)


def invitations(scene: Scene) -> None:
    """A direct one arrives."""
    room = _room(scene)
    x = element("x", ns.DIRECT_INVITATION, {"jid": room})
    scene.romeo.send(element("message", None, {"to": scene.juliet.bare}, x))
    tag = f"{{{ns.DIRECT_INVITATION}}}x"
    scene.juliet.expect(lambda e: e.find(tag) is not None, "the invitation")


def bookmarks(scene: Scene) -> None:
    """What is stored in the new way is found in the old ones."""
    scene.require(scene.romeo.bare, f"{ns.BOOKMARKS}#compat")
    room = f"{scene.name()}@conference.{scene.place.domain}"
    options = {"access_model": "whitelist", "max_items": "max", "send_last_published_item": "never"}
    scene.romeo.iq("set", _publish(ns.BOOKMARKS, room, element("conference", ns.BOOKMARKS), **options))
    storage = element("query", ns.PRIVATE, None, element("storage", ns.BOOKMARKS_OLD))
    found = scene.romeo.iq("get", storage).iter(f"{{{ns.BOOKMARKS_OLD}}}conference")
    _require(room in [e.get("jid") for e in found], "private storage does not have the bookmark")


def room_archive(scene: Scene) -> None:
    """What was said in a room is read back."""
    room = _room(scene)
    text = scene.name()
    _say(scene.romeo, room, text, "groupchat")
    _body(scene.romeo, text)
    _require(text in _archived(scene.romeo, room), "the room's archive does not have the message")


def _archived(visitor: Visitor, to: str | None) -> list[str | None]:
    visitor.waiting.clear()
    page = element("set", ns.RSM, None, element("max", None, None, "20"), element("before"))
    visitor.iq("set", element("query", ns.MAM, None, page), to)
    tag = f"{{{ns.MAM}}}result"
    return [e.findtext(f".//{_CLIENT}body") for e in visitor.waiting if e.find(tag) is not None]


def self_ping(scene: Scene) -> None:
    """Who is in a room finds that out, and who is not."""
    room = _room(scene)
    nick = scene.romeo.bare.partition("@")[0]
    scene.romeo.iq("get", element("ping", ns.PING), f"{room}/{nick}")
    try:
        scene.juliet.iq("get", element("ping", ns.PING), f"{room}/{nick}")
    except Unexpected:
        return
    raise Unexpected("somebody who is not in the room gets an answer")


def private_nodes(scene: Scene) -> None:
    """Options are preconditions, and nobody else reads what is private."""
    node = f"urn:{scene.name()}"
    scene.require(scene.romeo.bare, f"{ns.PUBSUB}#publish-options", f"{ns.PUBSUB}#persistent-items")
    options = {"persist_items": "true", "access_model": "whitelist"}
    scene.romeo.iq("set", _publish(node, "current", element("x", node), **options))
    items = _pubsub(element("items", None, {"node": node}))
    _require(list(scene.desk.iq("get", items).iter(f"{{{ns.PUBSUB}}}item")), "the item is not kept")
    _refused(scene.juliet, "get", items, scene.romeo.bare, "somebody else reads it")
    _refused(scene.romeo, "set", _publish(node, "x", element("x", node), access_model="open"), None, "it is published")


def _refused(visitor: Visitor, type_: str, payload: bytes, to: str | None, problem: str) -> None:
    try:
        visitor.iq(type_, payload, to)
    except Unexpected:
        return
    raise Unexpected(problem)


def private_storage(scene: Scene) -> None:
    """What one device stores another reads."""
    name = scene.name()
    stored = element("query", ns.PRIVATE, None, element("x", f"urn:{name}", None, "kept"))
    scene.romeo.iq("set", stored)
    found = scene.desk.iq("get", element("query", ns.PRIVATE, None, element("x", f"urn:{name}")))
    _require(found.findtext(f".//{{urn:{name}}}x") == "kept", "it is not as it was stored")


def management(scene: Scene) -> None:
    """A stream that breaks is resumed, and what was sent meanwhile comes."""
    phone = scene.sign_in(1, "phone")
    phone.send(element("enable", ns.SM, {"resume": "true"}))
    enabled = phone.expect(lambda e: e.tag == f"{{{ns.SM}}}enabled", "<enabled/>")
    _require(enabled.get("resume") in ("true", "1"), "the stream cannot be resumed")
    phone.__exit__(None, None, None)
    text = scene.name()
    _say(scene.romeo, phone.jid, text)
    place = scene.place
    with Visitor(place.host, place.port, place.domain) as again:
        again.resume(phone, scene.password, enabled.get("id") or "")
        _body(again, text)


def archive(scene: Scene) -> None:
    """What was said is read back."""
    scene.require(scene.romeo.bare, ns.MAM)
    text = scene.name()
    _say(scene.juliet, scene.romeo.bare, text)
    _body(scene.romeo, text)
    _require(text in _archived(scene.romeo, None), "the archive does not have the message")


def upload(scene: Scene) -> None:
    """A slot for a file is given."""
    answer = scene.romeo.iq("get", element("query", ns.DISCO_ITEMS), scene.place.domain)
    for item in answer.iter(f"{{{ns.DISCO_ITEMS}}}item"):
        jid = item.get("jid") or ""
        if _UPLOAD in {e.get("var") for e in scene.info(jid).iter(f"{{{ns.DISCO_INFO}}}feature")}:
            scene.romeo.iq("get", element("request", _UPLOAD, {"filename": "check.txt", "size": "5"}), jid)
            return
    raise Unexpected(f"no service announces {_UPLOAD}")


# --- mobile, calls


def client_state(scene: Scene) -> None:
    """An inactive client is left in peace, and gets everything when it is active again."""
    _require(scene.romeo.features.find(f"{{{ns.CSI}}}csi") is not None, "the stream features do not have it")
    phone = scene.sign_in(0, "phone")
    with phone:
        phone.send(element("inactive", ns.CSI))
        phone.iq("get", element("ping", ns.PING), phone.domain)
        text = scene.name()
        scene.desk.send(element("presence", None, None, element("status", None, None, text)))
        scene.desk.iq("get", element("ping", ns.PING), phone.domain)

        def is_status(e: etree._Element) -> bool:
            return e.findtext(f"{_CLIENT}status") == text

        try:
            phone.expect(is_status, "presence", 0.5)
        except Unexpected:
            pass
        else:
            raise Unexpected("presence wakes an inactive client")
        phone.send(element("active", ns.CSI))
        phone.expect(is_status, "the presence that was held back")


def push(scene: Scene) -> None:
    """A device that goes away has its service told."""
    scene.require(scene.romeo.bare, ns.PUSH)
    with scene.sign_in(1, "phone") as phone:
        phone.iq("set", element("enable", ns.PUSH, {"jid": scene.desk.jid, "node": "check"}))
    scene.juliet.iq("get", element("ping", ns.PING), phone.domain)
    _say(scene.romeo, scene.juliet.bare, scene.name())
    tag = f".//{{{ns.PUSH}}}notification"
    told = scene.desk.expect(lambda e: e.find(tag) is not None, "the notification")
    scene.desk.send(element("iq", None, {"type": "result", "to": told.get("from"), "id": told.get("id")}))


def calls(scene: Scene) -> None:
    """Services for calls are told."""
    scene.require(scene.place.domain, ns.EXTERNAL_SERVICES)
    scene.romeo.iq("get", element("services", ns.EXTERNAL_SERVICES), scene.place.domain)


Check = Callable[[Scene], None]

# XEP-0479, 2: the categories and their items for an Advanced Server, beyond what RFC 6120 and 6121 have.
SUITE: Final[tuple[tuple[str, str, str, Check], ...]] = (
    ("Core", "XEP-0368", "Direct TLS", direct_tls),
    ("Core", "XEP-0030", "Service Discovery", discovery),
    ("Core", "XEP-0115", "Entity Capabilities", capabilities),
    ("Core", "XEP-0114", "Jabber Component Protocol", components),
    ("Core", "XEP-0163", "Personal Eventing Protocol", eventing),
    ("Web", "RFC 7395", "XMPP over WebSocket", websocket),
    ("Web", "XEP-0206", "XMPP over BOSH", bosh),
    ("IM", "XEP-0398", "User Avatar to vCard-Based Avatars Conversion", conversion),
    ("IM", "XEP-0153", "vCard-Based Avatars", vcard_avatar),
    ("IM", "XEP-0054", "vcard-temp", vcard),
    ("IM", "XEP-0280", "Message Carbons", carbons),
    ("IM", "XEP-0191", "Blocking Command", blocking),
    ("IM", "XEP-0045", "Multi-User Chat", rooms),
    ("IM", "XEP-0249", "Direct MUC Invitations", invitations),
    ("IM", "XEP-0402", "PEP Native Bookmarks, for old clients too", bookmarks),
    ("IM", "XEP-0313", "Message Archive Management of rooms", room_archive),
    ("IM", "XEP-0410", "MUC Self-Ping", self_ping),
    ("IM", "XEP-0223", "Persistent Storage of Private Data via PubSub", private_nodes),
    ("IM", "XEP-0049", "Private XML Storage", private_storage),
    ("IM", "XEP-0198", "Stream Management", management),
    ("IM", "XEP-0313", "Message Archive Management", archive),
    ("IM", "XEP-0363", "HTTP File Upload", upload),
    ("Mobile", "XEP-0352", "Client State Indication", client_state),
    ("Mobile", "XEP-0357", "Push Notifications", push),
    ("A/V", "XEP-0215", "External Service Discovery", calls),
)


def check_features(api: Api, place: Place) -> Iterator[Answer]:
    """Try everything, one after the other. Raises Failed where no accounts can be made, Unexpected where nobody can
    sign in."""
    password = secrets.token_urlsafe(18)
    names = (f"check-{secrets.token_hex(6)}", f"check-{secrets.token_hex(6)}")
    made = []
    try:
        for name in names:
            api.call("POST", "/users", {"jid": f"{name}@{place.domain}", "password": password})
            made.append(name)
        scene = Scene(place, names, password)
        try:
            for category, specification, name, check in SUITE:
                yield Answer(category, specification, name, _problem(check, scene))
        finally:
            scene.close()
    finally:
        for name in made:
            api.call("DELETE", f"/users/{segment(f'{name}@{place.domain}')}")


def _problem(check: Check, scene: Scene) -> str:
    try:
        check(scene)
    except (Unexpected, OSError) as problem:
        return str(problem) or type(problem).__name__
    return ""
