"""Devices of an account (XEP-0388, user agents): which there are (XEP-0494), and that each has one session at a time
(XEP-0386, 3.2). Tokens are in `router/tokens.py`."""

from __future__ import annotations

from hashlib import sha256
from ipaddress import ip_address
from typing import Final

from router import commands
from router.entity import Session
from router.events import SessionBound
from router.feature import At, Feature
from router.turn import Turn
from storage import devices
from storage.devices import Device
from xmpp import ns
from xmpp.commands import Command, answer, note
from xmpp.errors import ItemNotFound, ServiceUnavailable
from xmpp.jid import domain_of
from xmpp.stanza import Stanza
from xmpp.timestamp import format_moment
from xmpp.xml import element

feature = Feature("devices", xep=((494, "0.1.0"),), account_features=(ns.CLIENT_ACCESS,))

DEVICE: Final = "device"  # mark of a session: of which it is, bytes
LOG_OUT: Final = f"{ns.CLIENT_ACCESS}#log-out-others"


@feature.on_event(SessionBound)
def seen(turn: Turn, event: SessionBound) -> None:
    """A device has signed in. "The server SHOULD terminate any earlier sessions from the same client" (XEP-0386)."""
    session, facts = event.session, event.facts
    device = facts.get("device")
    if not device or turn.entity.key is None:
        return
    for other in turn.entity.sessions.values():
        if other is not session and other.marks.get(DEVICE) == device:
            turn.close(other, "conflict")
    session.marks[DEVICE] = device
    if facts.get("was_seen"):
        return
    software, name = str(facts.get("software", "")), str(facts.get("name", ""))
    network = network_of(str(facts.get("address", "")))
    by_password = bool(facts.get("by_password"))
    turn.write(devices.seen, turn.entity.key, device, software, name, network, turn.now, by_password)


def network_of(address: str) -> str:
    """What is kept of an address: the network, which tells a user where a device was, and nobody who it is exactly."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.version == 4:
        return f"{'.'.join(str(ip).split('.')[:2])}.0.0/16"
    return f"{':'.join(ip.exploded.split(':')[:3])}::/48"


@feature.on_iq("get", ns.CLIENT_ACCESS, "list", at=At.OWN)
def list_(turn: Turn, iq: Stanza) -> None:
    """XEP-0494, 3.1: the devices that are known, and the sessions of clients that have not said what they are."""
    assert turn.entity.key is not None

    def found(later: Turn, known: list[Device]) -> None:
        sessions = {s.marks[DEVICE]: s for s in later.entity.sessions.values() if DEVICE in s.marks}
        clients = [_client(device, device.device in sessions) for device in known]
        clients += [_session(session) for session in later.entity.sessions.values() if DEVICE not in session.marks]
        later.answer(iq, element("clients", ns.CLIENT_ACCESS, None, *clients))

    turn.fetch(devices.list_, found, turn.entity.key)


def _client(device: Device, is_connected: bool) -> bytes:
    names = (("software", device.software or "unknown"), ("device", device.name))
    return _entry(
        device.device.hex(),
        is_connected,
        (device.first_seen, device.last_seen),
        [name for name, has in (("password", device.by_password), ("fast", device.has_token)) if has],
        [element(name, None, None, text) for name, text in names if text],
    )


def _session(session: Session) -> bytes:
    """Of a client that signs in by RFC 6120, whose password is all that is known of it."""
    moments = (session.bound_at, session.bound_at)
    software = element("software", None, None, session.resource)
    return _entry(_id_of(session), True, moments, ["password"], [software])


def _id_of(session: Session) -> str:
    return "s" + sha256(f"{session.sid}".encode()).hexdigest()[:16]


def _entry(id_: str, is_connected: bool, moments: tuple[float, float], auth: list[str], agent: list[bytes]) -> bytes:
    first, last = map(format_moment, moments)
    attributes = {"connected": "true" if is_connected else "false", "id": id_, "type": "session"}
    return element(
        "client",
        None,
        attributes,
        element("first-seen", None, None, first),
        element("last-seen", None, None, last),
        element("auth", None, None, *(element(name) for name in auth)),
        element("permission", None, {"status": "unrestricted"}),
        element("user-agent", None, None, *agent),
    )


@feature.on_iq("set", ns.CLIENT_ACCESS, "revoke", at=At.OWN)
def revoke(turn: Turn, iq: Stanza) -> None:
    """XEP-0494, 3.2: its session ends and its tokens are void. Who has had the password, has it: that is said, too."""
    asked = iq.child(ns.CLIENT_ACCESS, "revoke")
    assert asked is not None
    assert turn.entity.key is not None
    id_ = asked.get("id") or ""

    def found(later: Turn, known: list[Device]) -> None:
        device = next((device for device in known if device.device.hex() == id_), None)
        if device is not None:
            log_out(later, device.device)
        else:
            session = next((s for s in later.entity.sessions.values() if _id_of(s) == id_), None)
            if session is None:
                raise ItemNotFound("There is no such client.")
            later.close(session, "not-authorized")
        if device is None or device.by_password:
            text = "It is signed out. It has had the password: change that, or it may come back."
            reset = element("password-reset-required", ns.CLIENT_ACCESS)
            later.fail(iq, ServiceUnavailable(text, application=reset))
        else:
            later.answer(iq)

    turn.fetch(devices.list_, found, turn.entity.key)


def _may_log_out(turn: Turn, domain: str) -> bool:
    return turn.session is not None and domain == domain_of(turn.entity.bare)


def log_out_others(turn: Turn, iq: Stanza, command: Command, session: str) -> None:
    """An ad-hoc command (XEP-0050), done at once: whoever has been let in and should not have been is out."""
    own = turn.session
    ended = sum(other is not own for other in turn.entity.sessions.values())
    told = note(f"Sessions ended: {ended}. The tokens of all others are void.")
    turn.answer(iq, answer(command, session, "completed", told))
    log_out_everywhere(turn, own)


commands.offer(LOG_OUT, "Log out everywhere else", _may_log_out, log_out_others)


def log_out(turn: Turn, device: bytes) -> None:
    """A device's session ends, and it is forgotten with its tokens."""
    key = turn.entity.key
    assert key is not None
    turn.write(devices.forget, key, device)
    for session in turn.entity.sessions.values():
        if session.marks.get(DEVICE) == device:
            turn.close(session, "not-authorized")


def log_out_everywhere(turn: Turn, but: Session | None = None) -> None:
    """All sessions end and all tokens are void, but those of one session."""
    assert turn.entity.key is not None
    turn.write(devices.invalidate_all, turn.entity.key, but.marks.get(DEVICE, b"") if but is not None else b"")
    for session in turn.entity.sessions.values():
        if session is not but:
            turn.close(session, "not-authorized")
