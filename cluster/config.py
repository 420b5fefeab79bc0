"""The configuration: one TOML file, every key also as STENTOR_SECTION__KEY, unknown keys are errors.

Here are the sections with their defaults, units and ranges. How they are read, and how a problem is told, is in
`load` at the end. Nothing here opens a port, a certificate or a database.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
import socket
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, overload

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from cluster.authentication import BACKENDS, INTERNAL, Backend
from cluster.section import SECRET, Port, Seconds, Secret, Section

ENV_PREFIX: Final = "STENTOR_"


def _are_networks(given: tuple[str, ...]) -> tuple[str, ...]:
    for network in given:
        ipaddress.ip_network(network)  # a ValueError names it
    return given


Networks = Annotated[tuple[str, ...], AfterValidator(_are_networks)]
NodeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]

_SEED: Final = {
    "tcp": re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):[1-9][0-9]{0,4}"),
    "ipc": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"),
}


def _default_node_name() -> str:
    return socket.gethostname()


class Node(Section):
    """This process."""

    name: NodeName = Field(default_factory=_default_node_name, description="its name, unique in the cluster")
    advertise: str = Field(default="127.0.0.1", description="the address at which other processes reach this one's bus")
    runtime_dir: Path = Field(
        default=Path("/run/stentor"), description="folder of mode 0700 for the sockets of ipc://; short"
    )


ContactKind = Literal["abuse", "admin", "feedback", "sales", "security", "status", "support"]


class Server(Section):
    """What the cluster serves."""

    domains: tuple[str, ...] = Field(default=("localhost",), min_length=1, description="the XMPP domains served here")
    admins: tuple[str, ...] = Field(default=(), description="bare JIDs of the accounts that administer the cluster")
    contacts: dict[ContactKind, tuple[str, ...]] = Field(
        default={},
        description="kind -> addresses (URIs, as mailto:abuse@example.com) that others are told (XEP-0157); kinds: "
        "abuse, admin, feedback, sales, security, status, support. Without any, xmpp: addresses of admins",
    )
    show_os: bool = Field(
        default=False, description="whether a version query (XEP-0092) also names the operating system"
    )


class Certificate(Section):
    """A certificate chain and its key, both PEM."""

    certificate: Path = Field(description="certificate chain, PEM")
    key: Path = Field(description="private key, PEM")


class ClientAuthority(Section):
    """Who issues certificates by which clients sign in."""

    ca: Path = Field(description="the authorities, PEM")
    crl: Path | None = Field(default=None, description="their revocation lists, PEM or DER")
    names: Literal["xmpp", "email"] = Field(
        default="xmpp", description="xmpp: id-on-xmppAddr names the account; email: an e-mail address does"
    )


class Tls(Section):
    """Encryption towards clients."""

    c2s: Literal["required", "optional"] = Field(
        default="required", description="optional: clients may log in without encryption"
    )
    certificate: Path | None = Field(
        default=None, description="certificate chain (PEM) for domains without one of their own"
    )
    key: Path | None = Field(default=None, description="private key (PEM) that belongs to tls.certificate")
    certificates: dict[str, Certificate] = Field(default={}, description="domain -> {certificate, key}")
    clients: dict[str, ClientAuthority] = Field(
        default={},
        description="domain -> {ca, crl, names}: its accounts may sign in by a certificate (SASL EXTERNAL) from one of "
        "these authorities (ca, PEM), which is in none of their revocation lists (crl, PEM or DER, may be left out); "
        "names: xmpp (by default), id-on-xmppAddr says whose account it is, or email, an e-mail address does",
    )

    @model_validator(mode="after")
    def _is_a_pair(self) -> Tls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("one of certificate and key is missing")
        return self

    def pairs(self, domains: Iterable[str]) -> dict[str, tuple[Path, Path]]:
        """Certificate chain and key by domain: those of `certificates`, and the common one for all others."""
        found = {domain: (pair.certificate, pair.key) for domain, pair in self.certificates.items()}
        if self.certificate is not None and self.key is not None:
            for domain in domains:
                found.setdefault(domain, (self.certificate, self.key))
        return found


class C2S(Section):
    """Client connections (RFC 6120). The limits are advertised by XEP-0478 where it has a word for them."""

    listen: tuple[str, ...] = Field(
        default=("0.0.0.0", "::"), min_length=1, description="addresses to listen on, IPv4 and IPv6"
    )
    port: Port = Field(default=5222, description="port for STARTTLS")
    tls_port: Port = Field(default=5223, description="port for direct TLS (XEP-0368)")
    login_timeout_s: Seconds = Field(default=30.0, description="time from connection to bound resource")
    tls_handshake_timeout_s: Seconds = Field(default=10.0, description="time for one TLS handshake")
    idle_timeout_s: Seconds = Field(default=1_800.0, description="a stream that sent nothing for so long is closed")
    keepalive_s: Seconds = Field(default=120.0, description="a space is sent after so much silence (RFC 6120, 4.6.1)")
    stanza_bytes: int = Field(
        default=262_144, ge=10_000, le=16_777_216, description="greatest stanza (RFC 6120, 13.12)"
    )
    pre_auth_bytes: int = Field(
        default=65_536, ge=10_000, le=1_048_576, description="greatest input before authentication"
    )
    depth: int = Field(default=64, ge=8, le=1_000, description="deepest nesting of elements in a stanza")
    attributes: int = Field(default=64, ge=16, le=1_000, description="most attributes of one element")
    sasl_tries: int = Field(
        default=3, ge=2, le=10, description="failed logins after which a stream is closed (RFC 6120, 6.4.5)"
    )
    backlog: int = Field(default=1_024, ge=16, le=65_535, description="connections that may wait to be accepted")
    proxy_protocol: Networks = Field(
        default=(),
        description="addresses and networks of load balancers that begin each connection with a PROXY header, v1 or v2",
    )


Policy = Literal["allow", "secure", "deny"]


class S2S(Section):
    """Streams with other servers (RFC 6120, XEP-0220). The router reads the policy, too, and how long things wait."""

    enabled: bool = Field(default=True, description="false: nobody outside is reached, and nobody reaches us")
    listen: tuple[str, ...] = Field(
        default=("0.0.0.0", "::"), min_length=1, description="addresses to listen on, IPv4 and IPv6"
    )
    port: Port = Field(default=5269, description="port for STARTTLS")
    tls_port: Port = Field(default=5270, description="port for direct TLS (XEP-0368)")
    tls: Literal["required", "optional"] = Field(
        default="required", description="optional: servers without encryption are let in, by dialback"
    )
    policy: Policy = Field(
        default="allow",
        description="for domains not in s2s.domains; allow: a valid certificate or dialback, secure: a valid "
        "certificate only, deny: nobody",
    )
    domains: dict[str, Policy] = Field(default={}, description="domain -> allow, secure or deny")
    ca: Path | None = Field(default=None, description="trusted certificates, PEM; without it those of the system")
    dane: bool = Field(
        default=False,
        description="certificates may be proven by TLSA records (RFC 7673) of a resolver that validates DNSSEC",
    )
    posh: bool = Field(default=False, description="certificates may be proven over HTTPS (RFC 7711)")
    bidi: bool = Field(default=True, description="one stream for both directions where the peer can (XEP-0288)")
    resolvers: tuple[str, ...] = Field(
        default=(), description="name servers, ADDRESS or ADDRESS:PORT; without any those of the system"
    )
    connect_timeout_s: Seconds = Field(default=15.0, description="time to find and connect to a server")
    login_timeout_s: Seconds = Field(default=30.0, description="time from connection to authenticated stream")
    idle_timeout_s: Seconds = Field(default=600.0, description="a stream without stanzas for so long is closed")
    keepalive_s: Seconds = Field(default=120.0, description="a space is sent after so much silence (RFC 6120, 4.6.1)")
    stanza_bytes: int = Field(
        default=524_288, ge=10_000, le=16_777_216, description="greatest stanza (RFC 6120, 13.12)"
    )
    queue: int = Field(default=5_000, ge=1, le=100_000, description="stanzas that wait for one domain")
    queue_s: Seconds = Field(
        default=120.0, description="how long they wait for a domain that cannot be reached, then they are bounced"
    )
    backlog: int = Field(default=512, ge=16, le=65_535, description="connections that may wait to be accepted")


class Privileges(Section):
    """What a component may do for the users of the served domains (XEP-0356)."""

    roster: Literal["none", "get", "set", "both"] = Field(default="none", description="their rosters")
    message: Literal["none", "outgoing"] = Field(default="none", description="outgoing: it sends messages as them")
    presence: Literal["none", "managed_entity", "roster"] = Field(
        default="none",
        description="managed_entity: it gets their presence; roster: the same (that of their contacts is not given)",
    )
    iq: dict[str, Literal["get", "set", "both"]] = Field(
        default={}, description="namespace -> get, set or both: requests that it sends as them"
    )

    @model_validator(mode="after")
    def _sees_the_contacts(self) -> Privileges:
        if self.presence == "roster" and self.roster not in ("get", "both"):
            raise ValueError('presence = "roster" needs roster = "get" or "both"')  # XEP-0356, 6.4
        return self


class Component(Section):
    """A component (XEP-0114): a gateway or service that joins by a stream of its own."""

    secret: Secret = Field(min_length=8, description="what it proves itself by")
    balance: Literal["failover", "balanced"] = Field(
        default="failover",
        description="with several connections, failover: the oldest gets everything; balanced: each sender has one",
    )
    queue_s: float = Field(
        default=0.0, ge=0, le=86_400, description="how long stanzas wait for it while it is away, 0: they are bounced"
    )
    privileges: Privileges = Field(default=Privileges(), description="what it may do for users")


class Components(Section):
    """Where components connect."""

    listen: tuple[str, ...] = Field(default=("127.0.0.1",), min_length=1, description="addresses to listen on")
    port: Port = Field(default=5347, description="port for components")
    domains: dict[str, Component] = Field(
        default={},
        json_schema_extra=SECRET,
        description="domain -> {secret, balance, queue_s, privileges}; secret: what it "
        "proves itself by, 8 characters at least; balance, with several connections: failover, the oldest gets "
        "everything, or balanced, each sender has one; queue_s: how long stanzas wait for it while it is away, 0: they "
        "are bounced; privileges (XEP-0356): {roster: none, get, set, both; message: none, outgoing; presence: none, "
        "managed_entity, roster; iq: {namespace: get, set, both}}, by default nothing",
    )


class Authentication(Section):
    """Who checks passwords, by domain ([authentication.md](authentication.md) shows each back end by example)."""

    domains: dict[str, Backend] = Field(
        default={},
        json_schema_extra=SECRET,
        description="domain -> {backend, ...}; backend: internal (passwords kept here, by default), ldap, jwt, http; "
        "anonymous (no passwords at all)",
    )

    hashes: list[Literal["SHA-1", "SHA-256", "SHA-512"]] = Field(
        default=["SHA-1", "SHA-256", "SHA-512"],
        min_length=1,
        description="for which SCRAM is offered (c2s); leave out what accounts from elsewhere lack, until they have "
        "it: clients are asked to give it (XEP-0480)",
    )
    iterations: int = Field(
        default=10_000,
        ge=4_096,
        le=1_000_000,
        description="of SCRAM, for passwords from now on (RFC 7677, 4); clients pay for them, for PLAIN we do",
    )

    def of(self, domain: str) -> Backend:
        """The back end of a domain."""
        return self.domains.get(domain, INTERNAL)


class ExternalService(Section):
    """A service beside XMPP that clients may use (XEP-0215), for instance a TURN server."""

    type: Literal["stun", "stuns", "turn", "turns"] = Field(description="its kind")
    host: str = Field(min_length=1, description="its name or address")
    port: Port = Field(default=3478, description="its port")
    transport: Literal["udp", "tcp"] = Field(default="udp", description="by what it is reached")
    name: str = Field(default="", description="what people may be shown")
    secret: Secret = Field(default="", description="shared with it (coturn: static-auth-secret)")
    ttl_s: int = Field(default=86_400, ge=60, le=31_536_000, description="how long credentials are good")
    username: str = Field(default="", description="where it has no secret: the same for everybody")
    password: Secret = Field(default="", description="that belongs to it")

    @model_validator(mode="after")
    def _has_one_kind_of_credentials(self) -> ExternalService:
        if self.secret and (self.username or self.password):
            raise ValueError("it has either secret or username and password")
        if bool(self.username) != bool(self.password):
            raise ValueError("one of username and password is missing")
        return self


class Calls(Section):
    """What voice and video calls need besides XMPP."""

    services: dict[str, ExternalService] = Field(
        default={},
        json_schema_extra=SECRET,
        description="any name -> {type, host, port, transport, name, secret, ttl_s, username, password}: services that "
        "clients are told of (XEP-0215); type: stun, stuns, turn, turns; transport: udp, tcp; secret: shared with the "
        "TURN server (coturn: use-auth-secret, static-auth-secret), makes credentials that are good for ttl_s seconds; "
        "or username and password, the same for everybody",
    )


class Resume(Section):
    """Stream resumption (XEP-0198)."""

    timeout_s: int = Field(
        default=600, ge=0, le=86_400, description="how long a session outlives its connection, seconds"
    )


class PublicKeys(Section):
    """CurveZMQ public keys (40 characters, Z85), one per role."""

    router: str = Field(default="", description="key of the routers")
    c2s: str = Field(default="", description="key of the c2s processes")
    s2s: str = Field(default="", description="key of the s2s processes")


class Bus(Section):
    """Between the processes."""

    transport: Literal["tcp", "ipc"] = Field(
        default="tcp",
        description="ipc: sockets in node.runtime_dir, one host only; "
        "`stentor run` always takes these, `stentor dev` unless tcp is asked for: then ports follow bus.port",
    )
    listen: str = Field(default="0.0.0.0", description="address that the bus listens on, for tcp")
    port: Port = Field(default=7400, description="port of the bus, for tcp")
    seeds: tuple[str, ...] = Field(
        default=(), description="where to find routers: HOST:PORT for tcp, node names for ipc"
    )
    secret_key: Secret = Field(
        default="", description="CurveZMQ secret key of this process's role, Z85; needed for tcp"
    )
    public_keys: PublicKeys = Field(default=PublicKeys(), description="CurveZMQ public keys of all roles")
    heartbeat_s: Seconds = Field(default=0.5, description="a link that is silent for so long sends a sign of life")
    dead_after_s: Seconds = Field(
        default=2.0,
        description="a peer that is silent for so long is believed dead; at least 2 heartbeats",
        validate_default=True,
    )

    @field_validator("seeds")
    @classmethod
    def _are_places(cls, seeds: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        transport = info.data.get("transport", "tcp")
        for seed in seeds:
            if not _SEED[transport].fullmatch(seed):
                raise ValueError(f"{seed!r} is no seed for {transport}")
        return seeds

    @field_validator("dead_after_s")
    @classmethod
    def _outlasts_heartbeats(cls, dead_after_s: float, info: ValidationInfo) -> float:
        heartbeat_s = info.data.get("heartbeat_s", dead_after_s / 2)
        if dead_after_s < 2 * heartbeat_s:
            raise ValueError(f"less than twice bus.heartbeat_s ({heartbeat_s})")
        return dead_after_s


class Database(Section):
    """PostgreSQL. Only routers and `stentor db` read this."""

    url: Secret = Field(default="", description="postgresql://USER:PASSWORD@HOST:PORT/NAME")
    pool_min: int = Field(default=2, ge=1, le=100, description="connections kept open")
    pool_max: int = Field(
        default=8,
        ge=1,
        le=100,
        description="most connections of one router, not below database.pool_min",
        validate_default=True,
    )
    connect_timeout_s: Seconds = Field(default=5.0, description="time to open a connection")
    statement_timeout_s: Seconds = Field(default=10.0, description="time for one statement")
    lock_timeout_s: Seconds = Field(default=5.0, description="time to wait for a lock")

    @field_validator("pool_max")
    @classmethod
    def _holds_the_least(cls, pool_max: int, info: ValidationInfo) -> int:
        if pool_max < info.data.get("pool_min", 0):
            raise ValueError(f"below database.pool_min ({info.data['pool_min']})")
        return pool_max


class Admin(Section):
    """The admin port of each process (/metrics, /healthz, /readyz) and the routers' administration API."""

    host: str = Field(default="127.0.0.1", description="address of both")
    port: Port = Field(default=9100, description="port of /metrics, /healthz, /readyz")
    api_port: Port = Field(default=5281, description="port of /api/v1, routers only")
    token: Secret = Field(
        default="", description="bearer token of /api/v1 with all scopes; without one it is not served"
    )
    audit_days: int = Field(
        default=365, ge=1, le=36_500, description="how long it is kept what was changed by whom (`stentor audit`), days"
    )


class Limits(Section):
    """What one account or process may use."""

    enabled: bool = Field(default=True, description="false: no rate limits (load tests); sizes below stay in force")
    sessions: int = Field(default=50_000, ge=1, description="sessions of one c2s process")
    sessions_per_account: int = Field(default=20, ge=1, le=1_000, description="the oldest gets conflict")
    roster: int = Field(default=5_000, ge=1, description="contacts in one roster")
    blocks: int = Field(default=1_000, ge=1, description="entries in one block list (XEP-0191)")
    private_bytes: int = Field(default=262_144, ge=1_024, description="private XML of one account (XEP-0049), bytes")
    vcard_bytes: int = Field(default=131_072, ge=1_024, description="one vCard (XEP-0054), bytes")
    offline: int = Field(default=10_000, ge=1, description="messages kept for an account that is away (XEP-0160)")
    directed_presences: int = Field(default=1_000, ge=1, description="entities one session sent directed presence to")


RESERVED_NAMES: Final = (
    "abuse", "admin", "administrator", "hostmaster", "noc", "noreply", "operator", "postmaster", "root", "security",
    "server", "support", "system", "webmaster", "www", "xmpp",
)  # fmt: skip


class Rooms(Section):
    """Group chat (XEP-0045)."""

    domains: tuple[str, ...] = Field(
        default=("conference.{domain}",), description="where rooms are; {domain} stands for each of server.domains"
    )
    create: Literal["anyone", "local", "admins"] = Field(
        default="local", description="who may make a room: anyone, accounts of this server, server.admins; guests never"
    )
    defaults: dict[str, str] = Field(
        default={}, description="how a new room is, as in { membersonly = '1' }: options of `stentor room set`"
    )
    history: int = Field(default=20, ge=0, le=100, description="messages that somebody who joins is shown")
    occupants: int = Field(default=20_000, ge=1, le=1_000_000, description="most occupants of one room")
    affiliations: int = Field(
        default=20_000, ge=1, le=1_000_000, description="most members, admins, owners and outcasts of one room"
    )
    ask_s: Seconds = Field(
        default=900.0, description="users of other servers who are silent for so long are asked whether they are there"
    )
    keep_for_members: bool = Field(
        default=True,
        description="whether rooms may keep what is said for members who are away (option keepformembers of a room)",
    )
    keep_for_members_days: int = Field(
        default=90, ge=1, le=36_500, description="age at which what was kept for them is given up"
    )
    presence_most: int = Field(
        default=500, ge=0, le=1_000_000,
        description="with more occupants, the presence of moderators alone is shown to others",
    )  # fmt: skip


class PubSub(Section):
    """Publishing (XEP-0060): services of their own, and the nodes of accounts (XEP-0163)."""

    domains: tuple[str, ...] = Field(
        default=("pubsub.{domain}",), description="the services; {domain} stands for each of server.domains"
    )
    create: Literal["anyone", "local", "admins"] = Field(
        default="local",
        description="who may make a node there: anyone, accounts of this server, server.admins; guests never",
    )
    nodes: int = Field(default=10_000, ge=1, le=1_000_000, description="most nodes of one service")
    nodes_per_account: int = Field(default=500, ge=1, le=100_000, description="most nodes of one account")
    items: int = Field(default=5_000, ge=1, le=1_000_000, description="most items of one node: what `max` stands for")
    item_bytes: int = Field(default=262_144, ge=1_024, description="the payload of one item, bytes")
    subscriptions: int = Field(default=10_000, ge=1, le=1_000_000, description="most subscribers of one node")
    affiliations: int = Field(default=5_000, ge=1, le=1_000_000, description="most that are something to one node")


class Contacts(Section):
    """Who finds whom."""

    groups: dict[str, tuple[str, ...]] = Field(
        default={},
        description="name of a group -> its members, bare JIDs or *@domain for everybody; they are in each other's "
        "rosters and see each other's presence",
    )
    search: bool = Field(
        default=False, description="whether accounts may look for others of their domain by name (XEP-0055)"
    )


class Tokens(Section):
    """Tokens by which a device signs in again without the password (XEP-0484)."""

    days: float = Field(default=30.0, gt=0, le=3_650, description="a token that is not used for so long is void")
    rotate_days: float = Field(
        default=7.0, gt=0, le=3_650, description="a device that signs in with an older token is given a new one"
    )


class Push(Section):
    """Push notifications (XEP-0357), by the services of the apps that want them."""

    tell: Literal["nothing", "sender", "body"] = Field(
        default="nothing",
        description="what the service learns of a message: nothing, who it is from, also what it says",
    )
    text: str = Field(
        default="New message", max_length=200, description="what stands for the body where that is not told"
    )


class Proxy(Section):
    """The proxy for files between clients (XEP-0065): what cannot go directly goes through the c2s."""

    enabled: bool = Field(default=True, description="whether there is one")
    domains: tuple[str, ...] = Field(
        default=("proxy.{domain}",), description="its names; {domain} stands for each of server.domains"
    )
    host: str = Field(
        default="", description="the host that clients connect to; without one, what is behind `proxy.` in its name"
    )
    port: Port = Field(default=7777, description="port for these connections, at c2s.listen")
    connections: int = Field(default=500, ge=2, description="most connections of one c2s")
    bytes_per_s: int = Field(default=2_000_000, ge=1_024, description="bytes a second each way of one stream")


class Http(Section):
    """What a c2s serves over HTTP (web.md): WebSocket and BOSH, how clients find them, and the pages behind the links
    of invitations (invitations.md)."""

    enabled: bool = Field(default=True, description="whether there are such listeners")
    listen: tuple[str, ...] = Field(
        default=("0.0.0.0", "::"), min_length=1, description="addresses to listen on, IPv4 and IPv6"
    )
    port: Port = Field(
        default=5280,
        description="port without TLS, for a proxy that has it; nobody signs in here in the clear, see tls.c2s",
    )
    tls_port: Port = Field(default=5443, description="port with TLS, by the certificates of [tls]")
    public_url: str = Field(
        default="",
        pattern=r"^(https?://[^/?#\s]+)?$",
        description="where browsers reach it, as in https://chat.example.com; {domain} stands for the domain of the "
        "account. Without it, invitations have no page",
    )
    proxies: Networks = Field(
        default=(),
        description="addresses and networks of HTTP proxies whose X-Forwarded-For and X-Forwarded-Proto are believed",
    )
    proxy_protocol: Networks = Field(
        default=(),
        description="addresses and networks of load balancers that begin each connection with a PROXY header, v1 or v2",
    )
    local_is_secure: bool = Field(
        default=False,
        description="whether what comes from this machine itself counts as encrypted; for trying, not beside a proxy",
    )
    origins: tuple[str, ...] = Field(
        default=("*",),
        description='web sites whose pages may use WebSocket and BOSH, as in https://chat.example.com; "*": any',
    )
    chat: bool = Field(default=True, description="whether / is a web chat (web.md)")
    bosh_wait_s: int = Field(default=60, ge=1, le=600, description="longest time that a BOSH request is kept waiting")
    bosh_inactivity_s: int = Field(
        default=60, ge=5, le=3_600, description="a BOSH session without a request for so long is over (XEP-0124, 9)"
    )
    request_timeout_s: Seconds = Field(
        default=10.0, description="time for the headers of a connection's first request, and for a request's body"
    )
    body_bytes: int = Field(default=16_384, ge=1_024, le=1_048_576, description="greatest form that is sent in")
    connections: int = Field(default=1_000, ge=10, description="most connections of one c2s")
    clients: Path | None = Field(
        default=None, description="TOML file of the clients that pages suggest; without, c2s/http/clients.toml"
    )


MediaTypes = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[a-z0-9*][a-z0-9!#$&^_.+*-]*/[a-z0-9*][a-z0-9!#$&^_.+*-]*$")], ...],
    Field(min_length=1),
]


class Upload(Section):
    """Files that clients send by HTTP (XEP-0363, uploads.md). c2s and routers read this."""

    storage: str = Field(
        default="",
        pattern=r"^(/.*|file:///.+|s3://[a-z0-9][a-z0-9.-]+(/.*)?)?$",
        description="where files are kept: a folder, as /var/lib/stentor/uploads, that all c2s and routers have in "
        "common, or s3://BUCKET/PREFIX. Without it nobody can upload; `stentor dev` has a folder in its data",
    )
    s3_endpoint: str = Field(
        default="", pattern=r"^(https?://[^?#\s]+)?$", description="URL of the S3 server; without it, that of Amazon"
    )
    s3_region: str = Field(default="us-east-1", min_length=1, description="its region")
    s3_access_key: Secret = Field(
        default="", description="its access key; without it, what AWS_... variables or the machine's role say"
    )
    s3_secret_key: Secret = Field(default="", description="that belongs to it")
    domain: str = Field(
        default="upload.{domain}", description="the service; {domain} stands for each of server.domains"
    )
    public_url: str = Field(
        default="",
        pattern=r"^(https?://[^?#\s]+)?$",
        description="what URLs of files begin with; without it, http.public_url. {domain} stands for the domain of the "
        "account",
    )
    allow: tuple[str, ...] = Field(
        default=("*",),
        description='who may upload: "*", every account of this server that is no guest, and domains and bare JIDs; '
        "components and domains of guests only if they are named",
    )
    types: MediaTypes = Field(default=("*/*",), description="content types that are taken, as image/png or image/*")
    file_bytes: int = Field(default=104_857_600, ge=4_096, le=50_000_000_000, description="greatest file")
    bytes_per_user: int = Field(
        default=1_073_741_824, ge=4_096, description="all files of one account, each counted as 4,096 at least"
    )
    bytes_per_day: int = Field(
        default=1_073_741_824, ge=0, description="files of one account in a day (UTC), 0: as many as it may have"
    )
    kept_bytes_per_user: int = Field(
        default=20_971_520,
        ge=0,
        description="beside them, files of one account that are to stay as long as it does (purposes profile and "
        "permanent), 0: none",
    )
    expire_days: float = Field(
        default=30.0, gt=0, le=36_500, description="age at which all other files are deleted, counted from the slot"
    )
    slot_s: int = Field(default=300, ge=10, le=86_400, description="time in which an upload has to begin, seconds")
    slowest_bytes_per_s: int = Field(
        default=8_192,
        ge=256,
        description="a file may take as long, up or down, as it takes at this pace, and no longer",
    )
    stall_s: Seconds = Field(default=30.0, description="an upload or download that does not go on so long is ended")
    uploads: int = Field(default=32, ge=1, le=10_000, description="uploads at a time of one c2s; each may need 10 MiB")
    uploads_per_account: int = Field(default=4, ge=1, le=1_000, description="of which so many of one account")
    downloads: int = Field(default=200, ge=1, le=100_000, description="downloads at a time of one c2s, 1 MiB each")
    downloads_per_address: int = Field(default=30, ge=1, le=100_000, description="of which so many of one address")

    @model_validator(mode="after")
    def _has_both_keys(self) -> Upload:
        if bool(self.s3_access_key) != bool(self.s3_secret_key):
            raise ValueError("one of s3_access_key and s3_secret_key is missing")
        return self

    @field_validator("bytes_per_day", "kept_bytes_per_user")
    @classmethod
    def _is_room_for_one(cls, size: int) -> int:
        if 0 < size < 4_096:
            raise ValueError("below 4096, as which every file counts")
        return size


class Question(Section):
    """What somebody is asked who wants an account."""

    question: str = Field(min_length=1, max_length=200, description="as it is shown")
    answers: tuple[str, ...] = Field(min_length=1, description="what is right, in small letters or not")


class Registration(Section):
    """Accounts made by clients (XEP-0077) and browsers, and invitations (invitations.md)."""

    mode: Literal["closed", "open", "invite"] = Field(
        default="closed", description="who may register: nobody, anybody, whoever has an invitation"
    )
    reserved_names: tuple[str, ...] = Field(default=RESERVED_NAMES, description="localparts nobody may register")
    questions: tuple[Question, ...] = Field(
        default=(),
        description="[{question, answers}]: one of them is asked of whoever registers without an invitation (XEP-0158)",
    )
    per_address: int = Field(
        default=10, ge=0, description="attempts to register from one address in an hour, at one c2s; 0: any number"
    )
    invitations: int = Field(
        default=10, ge=0, le=10_000, description="unused invitations that an account may have; 0: only admins invite"
    )
    invitation_days: float = Field(default=7.0, gt=0, le=3_650, description="time in which they are to be used")


class Accounts(Section):
    """The end of accounts."""

    reuse_after_days: float = Field(
        default=30.0, ge=0, le=36_500, description="how long nobody may take the name of an account that was erased"
    )


class Blocklist(Section):
    """A list of abusers that another server publishes (abuse.md)."""

    service: str = Field(description="domain of the publishing service")
    node: str = Field(min_length=1, max_length=1_023, description="node with an item for each entry")
    applies_to: tuple[Literal["rooms", "strangers"], ...] = Field(
        default=("rooms", "strangers"),
        min_length=1,
        description="rooms: who is on it does not come in; strangers: does not write to those who are no contacts",
    )


class Abuse(Section):
    """Reports of users (XEP-0377), accounts that are put into quarantine by themselves, and blocklists of others."""

    reports_per_day: int = Field(
        default=20, ge=0, le=10_000, description="reports of one account within a day that are kept; others are not"
    )
    keep_days: int = Field(default=180, ge=1, le=36_500, description="age at which reports that are closed are deleted")
    quarantine_reports: int = Field(
        default=0, ge=0, le=10_000,
        description="an account that so many others report within a day is put into quarantine, 0: never",
    )  # fmt: skip
    quarantine_strangers: int = Field(
        default=0, ge=0, le=1_000_000,
        description="an account that writes to more strangers within an hour is put into quarantine, 0: never",
    )  # fmt: skip
    blocklists: tuple[Blocklist, ...] = Field(
        default=(), max_length=20, description="[{service, node, applies_to}]: lists of other servers that count here"
    )
    allow: tuple[str, ...] = Field(default=(), description="bare JIDs and domains that no blocklist counts for")
    blocklist_refresh_s: float = Field(
        default=3_600.0, ge=10, le=604_800,
        description="each list is read as a whole so often, beside what its service tells",
    )  # fmt: skip
    blocklist_entries: int = Field(default=100_000, ge=1, le=5_000_000, description="a list that has more is not taken")


StrangerPolicy = Literal["accept", "limit", "requests", "refuse"]


class Strangers(Section):
    """What comes in of people who are not contacts of an account, and whom it has not turned to. Rooms, services of
    this server and administrators are never strangers."""

    local: StrangerPolicy = Field(
        default="accept",
        description="of this server; accept: messages and requests for a subscription, limit: strangers.per_hour of "
        "them, requests: no messages, and so many requests, refuse: nothing",
    )
    remote: StrangerPolicy = Field(default="accept", description="of other servers; likewise")
    domains: dict[str, StrangerPolicy] = Field(
        default={}, description="domain served here -> what holds for its accounts instead of both"
    )
    per_hour: int = Field(
        default=20, ge=0, le=1_000_000,
        description="messages and requests of all strangers together to one account within an hour, 0: no limit",
    )  # fmt: skip
    sender_per_hour: int = Field(
        default=60, ge=0, le=1_000_000,
        description="those of one stranger to one account that does not answer, also with accept, 0: no limit",
    )  # fmt: skip


class Archive(Section):
    """The log of messages: archive (XEP-0313) and what waits to be delivered."""

    default: Literal["always", "roster", "never"] = Field(
        default="always", description="for accounts that chose nothing"
    )
    keep_days: int = Field(default=0, ge=0, le=36_500, description="age at which archived messages go, 0: never")
    offline_days: int = Field(
        default=90, ge=1, le=36_500, description="age at which what is kept only for delivery is given up"
    )
    page: int = Field(default=250, ge=1, le=1_000, description="most messages of one page of the archive")


class Drain(Section):
    """What happens after SIGTERM."""

    window_s: Seconds = Field(default=60.0, description="c2s: streams are closed evenly over this time")
    grace_s: Seconds = Field(default=120.0, description="when the process would be killed; it gives up a little before")


class Run(Section):
    """How many processes `stentor run` keeps on this machine."""

    c2s: int = Field(default=2, ge=1, le=100, description="c2s processes; they share the public ports")
    router: int = Field(default=2, ge=1, le=100, description="routers")
    s2s: int = Field(default=1, ge=0, le=100, description="s2s processes; 0: no other server is reached")


class Log(Section):
    """Log lines on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="the least that is written")
    format: Literal["auto", "json", "console"] = Field(
        default="auto", description="auto: console on a terminal, else json"
    )


class Settings(BaseSettings):
    """All settings of one kind of process, frozen: every field is a Section. Made by `load` alone."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__", validate_default=False
    )

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)
    _read_from: tuple[Path | str | None, tuple[str, ...]] = PrivateAttr(default=(None, ()))

    def source_of(self, key: str) -> str:
        """Where the value of `section.key` came from: a file, a variable, `--set`, or "default"."""
        return self._sources.get(key, "default")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` hands over: it reads file and environment itself, so that it can name the source."""
        return (init_settings,)


class Config(Settings):
    """The settings of the cluster's processes. What runs beside it, as a gateway does, has a model of its own."""

    node: Node = Field(default_factory=Node)
    server: Server = Field(default_factory=Server)
    tls: Tls = Field(default_factory=Tls)
    c2s: C2S = Field(default_factory=C2S)
    s2s: S2S = Field(default_factory=S2S)
    components: Components = Field(default_factory=Components)
    authentication: Authentication = Field(default_factory=Authentication)
    calls: Calls = Field(default_factory=Calls)
    resume: Resume = Field(default_factory=Resume)
    bus: Bus = Field(default_factory=Bus)
    database: Database = Field(default_factory=Database)
    admin: Admin = Field(default_factory=Admin)
    limits: Limits = Field(default_factory=Limits)
    registration: Registration = Field(default_factory=Registration)
    accounts: Accounts = Field(default_factory=Accounts)
    abuse: Abuse = Field(default_factory=Abuse)
    strangers: Strangers = Field(default_factory=Strangers)
    rooms: Rooms = Field(default_factory=Rooms)
    pubsub: PubSub = Field(default_factory=PubSub)
    contacts: Contacts = Field(default_factory=Contacts)
    push: Push = Field(default_factory=Push)
    tokens: Tokens = Field(default_factory=Tokens)
    proxy: Proxy = Field(default_factory=Proxy)
    http: Http = Field(default_factory=Http)
    upload: Upload = Field(default_factory=Upload)
    archive: Archive = Field(default_factory=Archive)
    drain: Drain = Field(default_factory=Drain)
    run: Run = Field(default_factory=Run)
    log: Log = Field(default_factory=Log)

    def room_domains(self) -> tuple[str, ...]:
        """The domains that have rooms."""
        return self._named(self.rooms.domains)

    def publishing_domains(self) -> tuple[str, ...]:
        """The domains of publishing services."""
        return self._named(self.pubsub.domains)

    def service_domains(self) -> tuple[str, ...]:
        """Every domain of ours that has no accounts, is no component, and is there for other servers, too."""
        return (*self.room_domains(), *self.publishing_domains())

    def proxying_domains(self) -> tuple[str, ...]:
        """The domains of the proxy for bytestreams."""
        return self._named(self.proxy.domains) if self.proxy.enabled else ()

    def upload_domains(self) -> dict[str, str]:
        """Each served domain -> the domain of its upload service; {} where there is none."""
        domains = self.server.domains if self.upload.storage else ()
        return {domain: self.upload.domain.replace("{domain}", domain) for domain in domains}

    def upload_url(self) -> str:
        """What URLs of files begin with, "" where nobody has said; {domain} stands for the domain of the account."""
        return (self.upload.public_url or (self.http.public_url if self.http.enabled else "")).rstrip("/")

    def _named(self, names: tuple[str, ...]) -> tuple[str, ...]:
        found = (name.replace("{domain}", domain) for name in names for domain in self.server.domains)
        return tuple(dict.fromkeys(found))


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the configuration."""

    source: str  # the file, the variable or --set
    key: str  # section.key, or "" where no key is to blame
    message: str
    remedy: str

    def __str__(self) -> str:
        key = f": {self.key}" if self.key else ""
        return f"{self.source}{key}: {self.message}. {self.remedy}"


class ConfigError(Exception):
    """Everything that is wrong with the configuration, at once. The text is for the operator; exit with 2."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@overload
def load(
    path: Path | str | None = None, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Config: ...
@overload
def load(path: Path | str | None, overrides: Sequence[str], env: Mapping[str, str] | None, model: type[S]) -> S: ...
def load(
    path: Path | str | None = None,
    overrides: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    model: type[Settings] = Config,
) -> Settings:
    """Read the file (if any), then the environment over it, then `section.key=value` overrides; key by key.

    `env` is the process's environment unless given. Raises ConfigError with every problem found.
    """
    problems: list[Problem] = []
    sources: dict[str, str] = {}
    file = _read_file(Path(path), model, sources, problems) if path is not None else {}
    variables = _named_values(os.environ if env is None else env, overrides, keys(model), sources, problems)
    over = EnvSettingsSource(model)
    over.env_vars = variables
    try:
        config = model(**_merged(file, over()))
    except ValidationError as error:
        problems.extend(_explained(detail, model, sources) for detail in error.errors())
        raise ConfigError(problems) from None
    if problems:
        raise ConfigError(problems)
    config._sources.update(sources)
    config._read_from = (path, tuple(overrides))
    return config


def again(config: S) -> S:
    """The same, read anew from the same file, environment and overrides. Raises ConfigError."""
    path, overrides = config._read_from
    return load(path, overrides, None, type(config))


def shown(config: Settings) -> dict[str, Any]:
    """Every key with its value as JSON has it; of what is secret only whether it is set."""
    values = config.model_dump(mode="json")
    found = {}
    for key in keys(type(config)):
        section, _, name = key.partition(".")
        value = values[section][name]
        found[key] = ("(set)" if value else "(not set)") if is_secret(key, type(config)) else value
    return found


def changed(old: S, new: S) -> list[str]:
    """The keys whose values differ, also where they are secret."""
    found = []
    for key in keys(type(old)):
        section, _, name = key.partition(".")
        if getattr(getattr(old, section), name) != getattr(getattr(new, section), name):
            found.append(key)
    return found


def with_keys(config: S, new: S, wanted: Iterable[str]) -> S:
    """The configuration with the values that another one has of these keys."""
    for key in wanted:
        section, _, name = key.partition(".")
        value = getattr(getattr(new, section), name)
        config = config.model_copy(update={section: getattr(config, section).model_copy(update={name: value})})
    return config


def keys(of: type[Settings] = Config) -> dict[str, Any]:
    """Every key there is, `section.key`, with pydantic's description of the field."""
    found: dict[str, Any] = {}
    for section, field in of.model_fields.items():
        model = field.annotation
        assert isinstance(model, type)
        assert issubclass(model, Section)
        found |= {f"{section}.{name}": info for name, info in model.model_fields.items()}
    return found


def to_toml(config: Config) -> str:
    """The configuration as a file that `load` reads back to the same values; secrets included."""
    lines = []
    for section, values in config.model_dump(mode="json", exclude_none=True).items():
        lines += [f"[{section}]", *(f"{key} = {_toml_value(value)}" for key, value in values.items()), ""]
    return "\n".join(lines)


def _toml_value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_value(key)} = {_toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def is_secret(key: str, of: type[Settings] = Config) -> bool:
    """Whether the value of this key must not be shown."""
    extra = getattr(keys(of).get(key), "json_schema_extra", None)
    return bool(extra and extra.get("secret"))


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for section, values in over.items():
        below = merged.get(section)
        merged[section] = {**below, **values} if isinstance(below, dict) else values
    return merged


def _read_file(path: Path, model: type[Settings], sources: dict[str, str], problems: list[Problem]) -> dict[str, Any]:
    try:
        found = TomlConfigSettingsSource(model, path)() if path.exists() else None
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(str(path), "", f"is not TOML: {error}", "Correct the line named"))
        raise ConfigError(problems) from None
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), "", f"cannot be read: {error}", "Check its owner, mode and encoding"))
        raise ConfigError(problems) from None
    if found is None:
        problems.append(Problem(str(path), "", "does not exist", "Name an existing file with --config"))
        raise ConfigError(problems)
    for section, values in found.items():
        sources[section] = str(path)
        if isinstance(values, dict):
            sources.update({f"{section}.{key}": str(path) for key in values})
    return found


def _named_values(
    env: Mapping[str, str],
    overrides: Sequence[str],
    known: Mapping[str, Any],
    sources: dict[str, str],
    problems: list[Problem],
) -> dict[str, str | None]:
    """Environment and overrides as the variables that pydantic-settings knows; what is not right goes to problems."""
    given: list[tuple[str, str, str]] = []
    for name, value in sorted(env.items()):
        if name.startswith(ENV_PREFIX):
            key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".", 1)
            given.append((key, value, f"environment variable {name}"))
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            problems.append(Problem("--set", override, "has no value", "Write --set section.key=value"))
        else:
            given.append((key.strip(), value, "--set"))
    variables: dict[str, str | None] = {}
    for key, value, source in given:
        if key not in known:
            problems.append(Problem(source, key, "is no setting", _suggestion(key, known)))
        elif _is_complex(known[key].annotation) and not _is_json(value):
            problems.append(Problem(source, key, "is not JSON", 'Write lists as ["a", "b"], tables as {"a": "b"}'))
        else:
            sources[key] = source
            variables[f"{ENV_PREFIX}{key.replace('.', '__')}".lower()] = value
    return variables


def _is_complex(annotation: object) -> bool:
    origin = getattr(annotation, "__origin__", annotation)
    return origin in (tuple, dict) or (isinstance(annotation, type) and issubclass(annotation, Section))


def _is_json(value: str) -> bool:
    try:
        json.loads(value)
    except ValueError:
        return False
    return True


def _suggestion(key: str, candidates: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(candidates), n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else "Remove it; `stentor check config` lists the settings"


def _explained(detail: Any, model: type[Settings], sources: Mapping[str, str]) -> Problem:
    """One of pydantic's errors, in the operator's words."""
    location = [str(part) for part in detail["loc"]]
    if location[:2] == ["authentication", "domains"] and len(location) > 4:
        return _explained_backend(detail, location, sources)
    key = ".".join(location)
    setting = ".".join(location[:2])
    source = sources.get(setting) or sources.get(location[0], "configuration")
    if detail["type"] == "extra_forbidden":
        candidates: Iterable[str] = keys(model) if len(location) > 1 else model.model_fields
        return Problem(
            source, key, "is no setting" if len(location) > 1 else "is no section", _suggestion(key, candidates)
        )
    message = detail["msg"][:1].lower() + detail["msg"][1:]
    if not is_secret(setting, model) and "secret" not in location and isinstance(detail["input"], str | int | float):
        message += f", not {detail['input']!r}"
    field = keys(model).get(setting)
    if field is not None:
        return Problem(source, key, message.removeprefix("value error, "), f"It is: {field.description}")
    remedy = "Set both or neither" if detail["type"] == "value_error" else "Write it as a table, [section]"
    return Problem(source, key, message.removeprefix("value error, "), remedy)


def _explained_backend(detail: Any, location: Sequence[str], sources: Mapping[str, str]) -> Problem:
    """The same for a setting of a back end; pydantic puts the back end's name between the domain and the setting."""
    _, _, domain, backend, *name = location
    source = sources.get("authentication.domains", "configuration")
    key = ".".join(("authentication.domains", domain, *name))
    fields = BACKENDS[backend].model_fields
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name[0], list(fields), n=1, cutoff=0.6)
        remedy = f"Did you mean {close[0]}?" if close else f"The back end {backend} has: {', '.join(fields)}"
        return Problem(source, key, "is no setting", remedy)
    message = detail["msg"][:1].lower() + detail["msg"][1:]
    return Problem(source, key, message.removeprefix("value error, "), f"It is: {fields[name[0]].description}")
