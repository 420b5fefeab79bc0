"""Signing in by the Extensible SASL Profile (XEP-0388), and what a client may ask for in the same breath: its former
stream (XEP-0198), a resource with what belongs to it (Bind 2, XEP-0386), a token for the next time (XEP-0484). A client
that knows our features need not wait for them (XEP-0509). No sockets; `c2s/login.py` drives the exchange itself,
`c2s/upgrades.py` what the client has to do after it (XEP-0480).

    authenticate -> the exchange -> tasks -> a token -> resume, else bind -> what the archive has -> success, features
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from lxml import etree

from c2s.login import Fast, Login, Offer
from c2s.management import failed, parse_token, resumptions
from c2s.upgrades import Upgrades
from cluster.edge import Answer, Attached, Edge, EdgeSession, Refused
from xmpp import errors, ns, sasl
from xmpp.errors import JidError, SaslError, StreamError
from xmpp.jid import JID, prepare
from xmpp.sm import parse_h
from xmpp.stream import Element
from xmpp.timestamp import format_moment
from xmpp.xml import element, parse_document, text_of

AUTHENTICATE: Final = f"{ns.SASL2} authenticate"
RESPONSE: Final = f"{ns.SASL2} response"
ABORT: Final = f"{ns.SASL2} abort"

TAG_CHARACTERS: Final = 64  # of what the client calls itself, in its resource
NAME_CHARACTERS: Final = 100  # of software and device
AGENT_CHARACTERS: Final = 256
DEVICE_BYTES: Final = 16
CALL_TIMEOUT_S: Final = 10.0


class Host(Protocol):
    """The stream that the client signs in on."""

    def write(self, data: bytes) -> None:
        """Write to the client."""

    def fail(self, fault: StreamError) -> None:
        """End the stream."""

    def hold(self) -> None:
        """An answer is awaited: input waits."""

    def go_on(self) -> None:
        """Take input again."""

    def refused(self, fault: SaslError, *, is_final: bool = False) -> None:
        """The exchange is over without success; the failure has been written. `is_final`: no other may follow."""

    def signed_in(self, bare: str) -> None:
        """The client is who it says; what it has asked for besides comes now."""

    def attached(self, session: EdgeSession) -> None:
        """The stream has a session. What is delivered waits until `entered`."""

    def enable(self, request: Element) -> bytes:
        """Stream management begins (XEP-0198, 3); returns `<enabled/>`, which is the next thing to be written."""

    def resume(self, previd: str) -> bytes:
        """Stream management goes on; returns `<resumed/>`."""

    def entered(self, success: bytes) -> None:
        """All is done: write this, then features, then whatever has waited."""

    def facts(self) -> dict[str, Any]:
        """What the owner is told of the stream."""

    def shortage(self) -> StreamError | None:
        """Why this process can take no more sessions."""


class Malformed(Exception):
    """What is in `<authenticate/>` does not follow its schema."""


@dataclass(frozen=True, slots=True)
class Agent:
    """`<user-agent/>` (2.3): who the client is. `device` is made of its id, which nobody shall see; b"" without one."""

    device: bytes = b""
    software: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Bind:
    """`<bind/>` (XEP-0386, 3.2)."""

    tag: str
    has_carbons: bool
    is_active: bool | None  # XEP-0352; None: nothing said
    management: Element | None  # XEP-0198, `<enable/>`


@dataclass(frozen=True, slots=True)
class Request:
    """`<authenticate/>` (2.3)."""

    mechanism: str
    initial: str | None  # base64
    agent: Agent
    bind: Bind | None
    resume: Mapping[str, str] | None  # attributes of XEP-0198, `<resume/>`
    fast: Fast | None  # it signs in with a token
    token_mechanism: str  # XEP-0484, `<request-token/>`; "": none
    upgrades: Sequence[str] = ()  # XEP-0480, the tasks that it wants, in its order
    version: str | None = None  # XEP-0509, of the offer that it goes by; None: it has waited for this one


def offer(mechanisms: Sequence[str], token_mechanisms: Sequence[str], tasks: Sequence[str] = ()) -> bytes:
    """The stream feature (2.1), with what may be asked for at once."""
    inline = [
        element("sm", ns.SM),
        element("bind", ns.BIND2, None, element("inline", None, None, *(_feature(name) for name in _BOUND_WITH))),
    ]
    if token_mechanisms:
        inline.append(element("fast", ns.FAST, None, *(_mechanism(name) for name in token_mechanisms)))
    offers = [_mechanism(name) for name in mechanisms]
    wanted = [element("upgrade", ns.SASL_UPGRADE, None, task) for task in tasks]
    return element("authentication", ns.SASL2, None, *offers, element("inline", None, None, *inline), *wanted)


_BOUND_WITH: Final = (ns.CARBONS, ns.CSI, ns.SM)


def _feature(name: str) -> bytes:
    return element("feature", None, {"var": name})


def _mechanism(name: str) -> bytes:
    return element("mechanism", None, None, name)


def failure(fault: SaslError, application: bytes = b"") -> bytes:
    """`<failure/>` (2.6.2): the condition is of RFC 6120, 6.5; `application` is one of somebody else's."""
    text = [element("text", None, None, fault.text)] if fault.text else []
    return element("failure", ns.SASL2, None, element(fault.condition, ns.SASL), application, *text)


def parse(event: Element) -> Request:
    """Read `<authenticate/>`. Raises Malformed."""
    node = parse_document(b'<x xmlns="%b">%b</x>' % (ns.SASL2.encode(), event.inner))
    found = _children(node)
    initial, wanted, version = found.get(_INITIAL_RESPONSE), found.get(_REQUEST_TOKEN), found.get(_CONFIG_VERSION)
    fast, resume = found.get(_FAST), found.get(_RESUME)
    return Request(
        mechanism=event.attributes.get("mechanism", ""),
        initial=None if initial is None else "".join((initial.text or "").split()),
        agent=_agent(found.get(_USER_AGENT)),
        bind=_bind(found.get(_BIND)),
        resume=None if resume is None else {str(name): str(value) for name, value in resume.attrib.items()},
        fast=None if fast is None else Fast(fast.get("invalidate") in ("true", "1")),
        token_mechanism=str(wanted.get("mechanism", "")) if wanted is not None else "",
        upgrades=tuple(dict.fromkeys(text_of(child).strip() for child in node.iterfind(_UPGRADE))),
        version=None if version is None else str(version.get("value", "")),
    )


_INITIAL_RESPONSE: Final = f"{{{ns.SASL2}}}initial-response"
_USER_AGENT: Final = f"{{{ns.SASL2}}}user-agent"
_REQUEST_TOKEN: Final = f"{{{ns.FAST}}}request-token"
_FAST: Final = f"{{{ns.FAST}}}fast"
_RESUME: Final = f"{{{ns.SM}}}resume"
_BIND: Final = f"{{{ns.BIND2}}}bind"
_CONFIG_VERSION: Final = f"{{{ns.PIPELINING}}}config-version"
_UPGRADE: Final = f"{{{ns.SASL_UPGRADE}}}upgrade"


def _children(node: etree._Element) -> dict[str, etree._Element]:
    """The first child of each name."""
    found: dict[str, etree._Element] = {}
    for child in node:
        found.setdefault(str(child.tag), child)
    return found


def _agent(node: etree._Element | None) -> Agent:
    if node is None:
        return Agent()
    id_ = str(node.get("id", ""))
    if len(id_) > AGENT_CHARACTERS:
        raise Malformed("the id of the user agent is too long")
    device = hashlib.sha256(id_.encode()).digest()[:DEVICE_BYTES] if id_ else b""
    found = _children(node)
    software, name = (text_of(found.get(f"{{{ns.SASL2}}}{child}")) for child in ("software", "device"))
    return Agent(device, software.strip()[:NAME_CHARACTERS], name.strip()[:NAME_CHARACTERS])


def _bind(node: etree._Element | None) -> Bind | None:
    if node is None:
        return None
    found = _children(node)
    tag = text_of(found.get(f"{{{ns.BIND2}}}tag")).strip()[:TAG_CHARACTERS]
    if tag:
        try:
            tag = JID.of("x", "x", tag).resource
        except JidError as problem:
            raise Malformed("the tag can be in no resource") from problem
    states = [name == "active" for name in ("active", "inactive") if f"{{{ns.CSI}}}{name}" in found]
    enable = found.get(f"{{{ns.SM}}}enable")
    management = None
    if enable is not None:
        attributes = {str(name): str(value) for name, value in enable.attrib.items()}
        management = Element(f"{ns.SM} enable", attributes, b"")
    has_carbons = f"{{{ns.CARBONS}}}enable" in found
    return Bind(tag, has_carbons, states[0] if states else None, management)


class Authentication:
    """One `<authenticate/>` and all that comes of it."""

    __slots__ = ("_answer", "_asked", "_bare", "_claimed", "_edge", "_failed_resume", "_host", "_login", "_offer",
                 "_parts", "_request", "_upgrades", "_version")  # fmt: skip

    def __init__(self, host: Host, edge: Edge, offer: Offer, claimed: str | None, now: Callable[[], float],
                 version: str = "") -> None:  # fmt: skip
        self._host = host
        self._version = version  # of what was offered (XEP-0509)
        self._edge = edge
        self._offer = offer
        self._claimed = claimed  # the bare JID in the stream's header, if there is one
        self._login = Login(self, edge, offer, now)
        self._asked: str | None = None
        self._bare = ""
        self._answer: bytes | None = None  # what the exchange's last message says
        self._failed_resume = b""
        self._parts: list[bytes] = []  # of <success/>
        self._request: Request | None = None
        self._upgrades: Upgrades | None = None

    def begin(self, event: Element) -> None:
        """`<authenticate/>`."""
        try:
            request = self._request = parse(event)
            if request.fast is not None and not request.agent.device:
                raise Malformed("a token belongs to a <user-agent/> with an id (XEP-0484, 5.1)")
        except Malformed as problem:
            self.auth_failed(errors.MalformedRequest(str(problem)))
            return
        if request.version not in (None, self._version):
            self._on_another_version()
            return
        self._login.begin(request.mechanism, request.initial, self._fast(request))

    def _on_another_version(self) -> None:
        """XEP-0509, 2.2: the client has not waited for our features, and they are not those that it knew. "Without
        prejudice": an exchange that was aborted counts as no try."""
        fault = errors.Aborted("What is offered has changed.")
        self._host.write(failure(fault, element("config-version-mismatch", ns.PIPELINING)))
        self._host.refused(fault)

    @staticmethod
    def _fast(request: Request) -> Fast | None:
        if request.fast is None:
            return None
        agent = request.agent
        return request.fast._replace(
            device=agent.device, wanted=request.token_mechanism, software=agent.software, name=agent.name
        )

    def handle(self, event: Element) -> None:
        """`<response/>` or `<abort/>`; `<next/>` or `<task-data/>` where a task is to be done."""
        if self._upgrades is not None:
            self._upgrades.handle(event)
        elif event.name == ABORT:
            self._login.abort()
        elif event.name == RESPONSE:
            self._login.respond(event.text)
        else:
            self._host.fail(errors.UnsupportedStanzaType("There is no task to be done."))  # 2.4

    def cancel(self) -> None:
        """The stream has ended."""
        self._login.cancel()
        if self._upgrades is not None:
            self._upgrades.cancel()
        if self._asked is not None:
            self._edge.cancel(self._asked)
            self._asked = None

    # --- the exchange

    def auth_challenge(self, data: bytes) -> None:
        """The client answers."""
        self._host.write(element("challenge", ns.SASL2, None, data))
        self._host.go_on()

    def auth_waits(self) -> None:
        """A router is asked."""
        self._host.hold()

    def auth_failed(self, fault: SaslError) -> None:
        """2.6.2: "the stream and session state remain entirely unchanged"."""
        self._host.write(failure(fault))
        self._host.refused(fault, is_final=self._upgrades is not None and self._upgrades.has_continued)

    def auth_succeeded(self, username: str, data: bytes | None) -> None:
        """The client is who it says it is; what else it has asked for is done before it hears so."""
        assert self._request is not None
        bare = f"{username}@{self._offer.domain}"
        if self._claimed is not None and self._claimed != bare:
            self.auth_failed(errors.InvalidAuthzid("The stream is from somebody else."))  # 2.3
            return
        self._bare, self._answer = bare, data
        self._host.hold()
        request = self._request
        # A token or a certificate is no password, and shall not become one.
        has_password = request.fast is None and request.mechanism.startswith(("SCRAM-", "PLAIN"))
        wanted = [task for task in request.upgrades if task in self._offer.upgrades]
        if not wanted or not has_password:
            self.upgraded(data)
            return
        self._upgrades = Upgrades(self, self._host, self._edge)
        self._upgrades.begin(bare, wanted, data)

    def upgraded(self, data: bytes | None) -> None:
        """Nothing is to be done any more; `data` is what `<success/>` says of the exchange."""
        assert self._request is not None
        self._answer = data
        self._host.signed_in(self._bare)
        given = self._login.given
        if given is not None:
            self._parts.append(_token(*given))
        wanted, agent = self._request.token_mechanism, self._request.agent
        if self._request.mechanism == "EXTERNAL":
            wanted = ""  # a token would be good after the certificate is not
        if given is None and wanted in self._offer.tokens and agent.device:
            self._ask_token(wanted, agent)
        else:
            self._resume()

    # --- a token

    def _ask_token(self, mechanism: str, agent: Agent) -> None:
        def done(answer: Answer) -> None:
            self._asked = None
            if answer.ok and answer.value[0]:
                self._parts.append(_token(*answer.value))
            self._resume()  # without one the client signs in as before

        arguments = (self._bare, agent.device, mechanism, agent.software, agent.name)
        self._asked = self._edge.call(self._bare, "auth.issue", arguments, done, CALL_TIMEOUT_S)

    # --- the former stream

    def _resume(self) -> None:
        assert self._request is not None
        attributes = self._request.resume
        if attributes is None:
            self._bind()
            return
        previd = attributes.get("previd", "")
        sid, h = parse_token(previd), parse_h(attributes.get("h"))
        if sid is None or h is None:
            self._not_resumed(failed("item-not-found" if h is not None else "bad-request"))
            return

        def done(answer: Attached | Refused) -> None:
            self._asked = None
            if isinstance(answer, Refused):
                if answer.condition == "handled-count-too-high":
                    resumptions.labels("failed").inc()
                    self._host.fail(errors.StreamUndefinedCondition(application=element(answer.condition, ns.SM)))
                    return
                self._not_resumed(failed(answer.condition, answer.h))
                return
            resumptions.labels("ok").inc()
            self._host.attached(answer.session)
            self._parts.append(self._host.resume(previd))
            self._finish(answer.session.jid)

        self._asked = self._edge.resume(self._bare, sid, h, self._host, done)  # type: ignore[arg-type]  # also a Sink

    def _not_resumed(self, answer: bytes) -> None:
        """XEP-0386, 3.2: "the server MUST include the XEP-0198 failure in the response"; then it binds."""
        resumptions.labels("failed").inc()
        self._parts.append(answer)
        self._bind()

    # --- a resource

    def _bind(self) -> None:
        assert self._request is not None
        bind, agent = self._request.bind, self._request.agent
        if bind is None:
            self._finish(self._bare)
            return
        if (shortage := self._host.shortage()) is not None:
            self._host.fail(shortage)
            return
        facts = {
            **self._host.facts(),
            "tag": bind.tag,
            "reads_archive": True,
            "carbons": bind.has_carbons,
            "device": agent.device,
            "software": agent.software,
            "name": agent.name,
            "by_password": self._request.fast is None,
            "was_seen": self._login.was_seen,
        }
        done = self._bound
        self._asked = self._edge.attach(self._bare, None, facts, self._host, done)  # type: ignore[arg-type]  # also a Sink

    def _bound(self, answer: Attached | Refused) -> None:
        self._asked = None
        assert self._request is not None
        bind = self._request.bind
        assert bind is not None
        if isinstance(answer, Refused):
            # The account has gone since it has proved who it is, or the database is away.
            self._host.fail(errors.StreamNotAuthorized(answer.text or None))
            return
        session = answer.session
        self._host.attached(session)
        if bind.is_active is not None:
            self._edge.tell_activity(session, bind.is_active)
        self._asked = self._edge.call(
            self._bare, "archive.ends", (self._bare,), lambda found: self._described(session, bind, found)
        )

    def _described(self, session: EdgeSession, bind: Bind, found: Answer) -> None:
        """XEP-0386, 3.2: what the archive has, as of now; what comes later is delivered."""
        self._asked = None
        inner = []
        if found.ok:
            ends = zip(("start", "end"), found.value, strict=False)
            moments = ((name, {"id": str(id_), "timestamp": format_moment(at)}) for name, (id_, at) in ends)
            inner.append(element("metadata", ns.MAM, None, *(element(name, None, attrs) for name, attrs in moments)))
        if bind.management is not None:
            inner.append(self._host.enable(bind.management))
        self._parts.append(element("bound", ns.BIND2, None, *inner))
        self._finish(session.jid)

    # --- the end

    def _finish(self, jid: str) -> None:
        parts = [element("authorization-identifier", None, None, jid), *self._parts]
        if self._answer is not None:
            parts.insert(0, element("additional-data", None, None, self._answer))
        self._host.entered(element("success", ns.SASL2, None, *parts))


def _token(token: str, expires_at: float) -> bytes:
    """XEP-0484, 4.3."""
    return element("token", ns.FAST, {"expiry": format_moment(expires_at), "token": token})


def claimed(from_: str | None) -> str | None:
    """The bare JID that a stream header says the client wants to be (2.1), None where it says none."""
    if not from_:
        return None
    try:
        jid = prepare(from_).partition("/")[0]
    except JidError:
        return None
    return jid if "@" in jid else None


def token_mechanisms(is_secure: bool, is_tls_required: bool, bindings: Mapping[str, bytes]) -> list[str]:
    """Those to offer on a connection (XEP-0484, 7: only over a secure one; whether that is so, the operator says)."""
    return sasl.offered_tokens(bindings) if is_secure or not is_tls_required else []
