"""The settings of the SMS gateway: a file of its own, read as the cluster's is (`cluster/config.py`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from cluster.config import Log, NodeName, Settings
from cluster.section import Port, Seconds, Secret, Section
from s2s.gateways.sms.numbers import INTERNATIONAL, is_number
from xmpp.errors import JidError
from xmpp.jid import JID

Ours = Annotated[str, Field(min_length=1, max_length=16)]


def _bare(text: str) -> str:
    try:
        jid = JID.parse(text)
    except JidError as error:
        raise ValueError(str(error)) from None
    if jid.resource:
        raise ValueError(f"{text} has a resource")
    return jid.bare


def _own(number: str) -> str:
    if not is_number(number):
        raise ValueError(f"{number!r} is no number: write +491701234567, or the digits of a short code")
    return number


class Component(Section):
    """The XMPP side: an external component (XEP-0114) of any XMPP server."""

    jid: str = Field(description="the component's name, as the server knows it")
    secret: Secret = Field(min_length=1, description="the secret that the server has for it")
    host: str = Field(default="127.0.0.1", description="address of the server's component port")
    port: Port = Field(default=5347, description="the server's component port")
    name: str = Field(default="SMS", description="what clients call the gateway")
    ping_s: Seconds = Field(default=60.0, description="a silent stream is asked for a sign of life after so long")
    timeout_s: Seconds = Field(default=30.0, description="time to connect, and for an answer to a ping")

    @field_validator("jid")
    @classmethod
    def _is_a_domain(cls, jid: str) -> str:
        prepared = _bare(jid)
        if "@" in prepared:
            raise ValueError("a component has a domain only")
        return prepared


class Smpp(Section):
    """The operator's side: an account at an SMSC, by SMPP 3.4."""

    host: str = Field(description="address of the SMSC")
    port: Port = Field(default=2775, description="its port")
    tls: bool = Field(default=False, description="encrypt the link; the SMSC's certificate is verified")
    ca: Path | None = Field(default=None, description="certificates to trust instead of the system's, PEM")
    system_id: str = Field(min_length=1, max_length=15, description="name of the account")
    password: Secret = Field(default="", max_length=8, description="its password, at most 8 characters")
    system_type: str = Field(default="", max_length=12, description="kind of system, if the operator wants one")
    address_range: str = Field(
        default="", max_length=40, description="numbers to receive for, if the operator wants it"
    )
    bind: Literal["transceiver", "pair"] = Field(
        default="transceiver", description="pair: one link to send and one to receive"
    )
    window: int = Field(default=10, ge=1, le=1_000, description="most messages that may be unanswered at once")
    per_second: float = Field(default=10.0, gt=0, le=10_000, description="most messages (parts) submitted in a second")
    enquire_link_s: Seconds = Field(default=30.0, description="a silent link is asked for a sign of life after so long")
    timeout_s: Seconds = Field(default=30.0, description="time to connect, and for each answer")


class Numbers(Section):
    """Phone numbers, ours and others'. International ones are written +491701234567."""

    sender: Ours = Field(description="the number, short code or name that messages come from; shared by all users")
    country: str = Field(
        default="", pattern=r"^([1-9][0-9]{0,2})?$", description="calling code of national numbers (0170 ...), as in 49"
    )
    assigned: dict[str, str] = Field(default={}, description="number -> bare JID: numbers that belong to a user")
    pool: tuple[str, ...] = Field(default=(), description="numbers of which each user who registers may have one")
    default_jid: str = Field(
        default="", description="who gets what comes to numbers.sender from somebody nobody has written to"
    )

    @field_validator("assigned")
    @classmethod
    def _are_assigned(cls, assigned: dict[str, str]) -> dict[str, str]:
        return {_own(number): _bare(jid) for number, jid in assigned.items()}

    @field_validator("pool")
    @classmethod
    def _are_ours(cls, pool: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_own(number) for number in pool)

    @field_validator("assigned", "pool")
    @classmethod
    def _are_there_once(cls, numbers: Iterable[str], info: ValidationInfo) -> Iterable[str]:
        others = [info.data.get("sender", ""), *(info.data.get("assigned", ()) if info.field_name == "pool" else ())]
        for number, count in Counter([*numbers, *others]).items():
            if count > 1:
                raise ValueError(f"{number} is there twice, in sender, assigned or pool")
        return numbers

    @field_validator("default_jid")
    @classmethod
    def _is_bare(cls, jid: str) -> str:
        return _bare(jid) if jid else ""

    @field_validator("sender")
    @classmethod
    def _may_send(cls, sender: str) -> str:
        if sender.startswith("+") and not INTERNATIONAL.fullmatch(sender):
            raise ValueError(f"{sender!r} is no number: write +491701234567")
        if not sender.isascii():
            raise ValueError("the name of a sender is ASCII")
        if not sender.startswith("+") and not sender.isdecimal() and len(sender) > 11:
            raise ValueError("the name of a sender has at most 11 characters")
        return sender


class Registration(Section):
    """Who may use the gateway. Messages cost money."""

    allow: tuple[str, ...] = Field(
        default=(), description="domains and bare JIDs that may register; none: the domain above component.jid"
    )

    @field_validator("allow")
    @classmethod
    def _are_jids(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_bare(jid) for jid in allow)


class Outgoing(Section):
    """Messages to phones."""

    queue: int = Field(default=10_000, ge=1, description="most parts that may wait for the SMSC")
    queue_per_user: int = Field(default=200, ge=1, description="most of them of one user")
    parts: int = Field(default=10, ge=1, le=255, description="most parts of one message")
    give_up_s: int = Field(default=86_400, ge=1, description="a message that the SMSC has not taken by then is bounced")
    report_s: int = Field(default=259_200, ge=1, description="how long a delivery report is waited for")


class Incoming(Section):
    """Messages from phones."""

    queue: int = Field(
        default=10_000,
        ge=1,
        description="most that may wait for the XMPP server; then the SMSC is told to keep the rest",
    )
    join_s: int = Field(
        default=600, ge=1, description="a long message that lacks parts after so long is delivered without them"
    )
    repeat_s: int = Field(
        default=600, ge=1, description="how long what was received is remembered, to know it when the SMSC repeats it"
    )


class Store(Section):
    """What the gateway keeps: registrations, contacts and messages on their way."""

    file: Path = Field(description="SQLite file, made if it is not there; one gateway only")


class Node(Section):
    """This process."""

    name: NodeName = Field(default="sms", description="its name in log lines")


class Admin(Section):
    """The admin port."""

    host: str = Field(default="127.0.0.1", description="its address")
    port: Port = Field(default=9120, description="port of /metrics, /healthz, /readyz")


class Drain(Section):
    """What happens after SIGTERM."""

    grace_s: Seconds = Field(default=20.0, description="when the process would be killed; it gives up a little before")


class SmsSettings(Settings):
    """All settings of the gateway."""

    component: Component
    smpp: Smpp
    numbers: Numbers
    registration: Registration = Field(default_factory=Registration)
    outgoing: Outgoing = Field(default_factory=Outgoing)
    incoming: Incoming = Field(default_factory=Incoming)
    store: Store
    node: Node = Field(default_factory=Node)
    admin: Admin = Field(default_factory=Admin)
    drain: Drain = Field(default_factory=Drain)
    log: Log = Field(default_factory=Log)

    @property
    def allowed(self) -> frozenset[str]:
        """Domains and bare JIDs that may register."""
        return frozenset(self.registration.allow or (self.component.jid.partition(".")[2],))
