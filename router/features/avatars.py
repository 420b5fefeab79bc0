"""Pictures of users: one, whichever way a client sets it or asks for it (XEP-0084, XEP-0153, XEP-0398).

Where it is, is the nodes of XEP-0084. A vCard is given the picture when somebody asks for it who may read the nodes
(XEP-0398, 5.2); a picture in a vCard that is set is published there; presence has its hash.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from functools import partial
from hashlib import sha1
from typing import Final, NamedTuple

from lxml import etree

from router.entity import Entity
from router.events import NodeChanged
from router.feature import Feature, Stage
from router.features.presence import told_anew
from router.pubsub import publishing
from router.pubsub.config import NodeConfig
from router.pubsub.node import find, host_of
from router.pubsub.rights import may_read
from router.turn import Then, Turn
from storage import pubsub
from storage.pubsub import Item
from xmpp import ns
from xmpp.errors import BadRequest
from xmpp.stanza import HAS_OTHER, Stanza
from xmpp.xml import canonical_element, element, escape_text, parse_document, text_of

feature = Feature(
    "avatars",
    xep=((84, "1.1.4"), (153, "1.1.1"), (398, "1.0.0")),
    account_features=(ns.AVATAR_CONVERSION,),
)

_OPEN: Final = NodeConfig(access_model="open")  # a vCard is for everybody
_PHOTO: Final = f"{{{ns.VCARD}}}PHOTO"
_X: Final = f"{{{ns.VCARD_UPDATE}}}x"
_KNOWN: Final = "avatar"  # key in an entity's data
_TYPES: Final = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)


class Avatar(NamedTuple):
    """A user's picture: the SHA-1 of its bytes, which is the id of its item ("": there shall be none), its type."""

    hash: str
    type: str


def avatar_of(entity: Entity) -> Avatar | None:
    """What the account's metadata say (XEP-0084, 4.2); None where nothing was ever published."""
    node = find(entity, ns.AVATAR_METADATA)
    last = None if node is None else node.last
    if last is None:
        return None
    known: tuple[int, Avatar] | None = entity.data.get(_KNOWN)
    if known is None or known[0] != last.seq:
        known = entity.data[_KNOWN] = (last.seq, _read(last.payload))
    return known[1]


def _read(payload: bytes) -> Avatar:
    if payload:
        for info in parse_document(payload).iterchildren(f"{{{ns.AVATAR_METADATA}}}info"):
            if info.get("url") is None:  # XEP-0398, 4.1: the one that is on this server
                return Avatar(info.get("id") or "", info.get("type") or "image/png")
    return Avatar("", "")


# --- presence


@feature.on_presence(Stage.OUT_SCREEN)
def stamp(turn: Turn, presence: Stanza) -> bool | Stanza:
    """XEP-0398, 4.3: available presence, directed too, has the hash of the picture."""
    if presence.type is not None:
        return False
    avatar = avatar_of(turn.entity)
    if avatar is None and not presence.flags & HAS_OTHER:
        return False
    return _stamped(presence, avatar)


def _stamped(presence: Stanza, avatar: Avatar | None) -> bool | Stanza:
    """A client that says itself that it shows none is left alone; one that says it does not know is told."""
    has_update = ns.VCARD_UPDATE.encode() in presence.inner
    if not has_update:
        if avatar is None:
            return False
        return presence._replace(inner=presence.inner + _update(avatar), flags=presence.flags | HAS_OTHER)
    root = parse_document(b'<presence xmlns="%b">%b</presence>' % (ns.CLIENT.encode(), presence.inner))
    x = root.find(_X)
    photo = None if x is None else x.find(f"{{{ns.VCARD_UPDATE}}}photo")
    if x is None or (photo is not None and (not text_of(photo) or avatar is None or text_of(photo) == avatar.hash)):
        return False
    inner = escape_text(root.text or "").encode()
    for child in root:
        if child is not x:
            inner += canonical_element(child, ns.CLIENT)
        inner += escape_text(child.tail or "").encode()
    return presence._replace(inner=inner + _update(avatar or Avatar("", "")))


def _update(avatar: Avatar) -> bytes:
    return element("x", ns.VCARD_UPDATE, None, element("photo", None, None, avatar.hash))


@feature.on_event(NodeChanged)
def has_changed(turn: Turn, event: NodeChanged) -> None:
    """Contacts whose clients know of no nodes see the new hash in the presence of each session."""
    if event.name != ns.AVATAR_METADATA:
        return
    avatar = avatar_of(turn.entity) or Avatar("", "")
    for session in turn.entity.available():
        assert session.presence is not None
        stamped = _stamped(session.presence, avatar)
        if isinstance(stamped, Stanza):
            told_anew(turn, session, stamped)


# --- vCards


def from_vcard(turn: Turn, card: etree._Element, before: bytes | None) -> None:
    """XEP-0398, 4.2: the picture in a vCard that is set is published, if it is another. A vCard without one takes back
    the picture of the vCard `before` it, and no other. Raises BadRequest."""
    picture, known = _picture(card), avatar_of(turn.entity)
    if picture is None:
        old = None if before is None else _picture(parse_document(before))
        if old is not None and known is not None and known.hash == _hash_of(old):
            publishing.put_own(turn, ns.AVATAR_METADATA, "none", element("metadata", ns.AVATAR_METADATA), _OPEN)
        return
    hash_ = _hash_of(picture)
    if known is not None and known.hash == hash_:
        return
    type_ = text_of(card.find(f"{_PHOTO}/{{{ns.VCARD}}}TYPE")).strip() or _type_of(picture)
    data = element("data", ns.AVATAR_DATA, None, b64encode(picture))
    publishing.put_own(turn, ns.AVATAR_DATA, hash_, data, _OPEN)
    info = element("info", None, {"id": hash_, "type": type_, "bytes": str(len(picture))})
    publishing.put_own(turn, ns.AVATAR_METADATA, hash_, element("metadata", ns.AVATAR_METADATA, None, info), _OPEN)


def _picture(card: etree._Element) -> bytes | None:
    text = "".join(text_of(card.find(f"{_PHOTO}/{{{ns.VCARD}}}BINVAL")).split())
    try:
        return b64decode(text, validate=True) or None
    except ValueError as problem:
        raise BadRequest("The picture is not base64.") from problem


def _hash_of(picture: bytes) -> str:
    return sha1(picture, usedforsecurity=False).hexdigest()


def _type_of(picture: bytes) -> str:
    return next((type_ for begins, type_ in _TYPES if picture.startswith(begins)), "image/png")


def into_vcard(turn: Turn, bare: str, xml: bytes | None, then: Then) -> None:
    """XEP-0398, 4.1 and 5.2: `then(turn, xml)` with the vCard as somebody (bare JID) may see it: the picture is that of
    the nodes, if there are any and they may read them. None: there is no vCard."""
    avatar, host = avatar_of(turn.entity), host_of(turn.entity)
    if avatar is None:
        then(turn, xml)
        return
    nodes = [host.nodes.get(name) for name in (ns.AVATAR_DATA, ns.AVATAR_METADATA)]
    if not avatar.hash or not all(node is not None and may_read(turn, host, node, bare) for node in nodes):
        then(turn, _with_photo(xml, None))
        return
    data = nodes[0]
    assert data is not None
    turn.fetch(pubsub.items_by_id, partial(_found, xml, avatar, then), data.key, (avatar.hash,))


def _found(xml: bytes | None, avatar: Avatar, then: Then, turn: Turn, items: list[Item]) -> None:
    photo: bytes | None = None
    for item in items:
        text = "".join(map(str, parse_document(item.payload).itertext())) if item.payload else ""
        photo = element(
            "PHOTO", None, None, element("TYPE", None, None, avatar.type), element("BINVAL", None, None, text)
        )
    then(turn, _with_photo(xml, photo))


def _with_photo(xml: bytes | None, photo: bytes | None) -> bytes | None:
    if xml is None:
        return None if photo is None else element("vCard", ns.VCARD, None, photo)
    parts = []
    for child in parse_document(xml):
        if child.tag != _PHOTO:
            parts.append(canonical_element(child, ns.VCARD))
        elif photo is not None:
            parts.append(photo)
            photo = None
    return element("vCard", ns.VCARD, None, *parts, photo or b"")
