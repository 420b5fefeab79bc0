"""The settings that turns read, as one frozen value made from the configuration (`cluster/config.py`)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from cluster.authentication import Anonymous, Internal
from cluster.config import Component, Config, ExternalService, Policy, StrangerPolicy
from cluster.metrics import software_version
from cluster.process import CannotStart
from router.blocklists import NONE, Blocklists, Rule
from router.rooms.config import RoomConfig, with_options
from xmpp import scram
from xmpp.errors import JidError, NotAcceptable
from xmpp.jid import prepare


@dataclass(frozen=True, slots=True)
class Strangers:
    """What comes in of people who are not contacts (router/features/strangers.py). Numbers are within an hour, 0: as
    many as they like; `quarantine_after` 0: never."""

    local: StrangerPolicy = "accept"
    remote: StrangerPolicy = "accept"
    domains: Mapping[str, StrangerPolicy] = field(default_factory=dict)
    per_hour: int = 0
    sender_per_hour: int = 0
    quarantine_after: int = 0


@dataclass(frozen=True, slots=True)
class Guests:
    """People who sign in anonymously at a domain: so many at a time, of one address (0: as many as they like), and
    whether other servers hear of them."""

    sessions: int = 1_000
    per_address: int = 10
    remote: bool = False


@dataclass(frozen=True, slots=True)
class Uploads:
    """Files that clients send by HTTP (router/features/upload.py). Sizes are bytes; `day_bytes` 0: no limit,
    `kept_bytes` 0: none is kept for good."""

    domains: Mapping[str, str]  # each served domain -> that of its service
    url: str  # what URLs begin with; {domain} stands for the domain of the account
    allow: frozenset[str] = frozenset({"*"})  # domains and bare JIDs; "*": every account but guests'
    types: tuple[str, ...] = ("*/*",)
    file_bytes: int = 104_857_600
    user_bytes: int = 1_073_741_824
    day_bytes: int = 0
    kept_bytes: int = 20_971_520
    expire_s: float = 2_592_000.0
    slot_s: int = 300
    slowest_bytes_per_s: int = 8_192


@dataclass(frozen=True, slots=True)
class Settings:
    """Policy for entities. Sizes are bytes, counts are per account unless named otherwise."""

    domains: frozenset[str] = field(default_factory=lambda: frozenset({"localhost"}))
    admins: frozenset[str] = frozenset()  # bare JIDs
    room_domains: frozenset[str] = frozenset()
    rooms_create: Literal["anyone", "local", "admins"] = "local"
    room_defaults: RoomConfig = field(default_factory=RoomConfig)
    room_history: int = 20  # messages shown to who comes in
    room_occupants: int = 20_000
    room_affiliations: int = 20_000
    rooms_ask_s: float = 900.0
    rooms_keep_for_members: bool = True  # what is said in rooms, for members who are away
    room_presence_most: int = 500  # with more occupants, who comes in is shown moderators alone
    service_domains: frozenset[str] = frozenset()  # of publishing
    nodes_create: Literal["anyone", "local", "admins"] = "local"
    service_nodes: int = 10_000  # of one service
    account_nodes: int = 500
    node_items: int = 5_000
    node_subscriptions: int = 10_000
    node_affiliations: int = 5_000
    item_bytes: int = 262_144
    registration_mode: Literal["closed", "open", "invite"] = "closed"
    reserved_names: frozenset[str] = frozenset()
    questions: tuple[tuple[str, frozenset[str]], ...] = ()  # to whoever registers, with what is right, casefolded
    invitations: int = 10  # unused ones of an account
    invitation_s: float = 604_800.0
    public_url: str = ""  # of pages for browsers; {domain} stands for the domain
    strangers: Strangers | None = None  # None: everybody is welcome
    blocklists: Blocklists = NONE  # changes as the lists do
    reports_per_day: int = 20
    quarantine_reports: int = 0  # by so many within a day; 0: never
    reuse_after_days: float = 30.0  # how long the name of an erased account is nobody's
    roster_contacts: int = 5_000
    blocks: int = 1_000
    private_bytes: int = 262_144
    vcard_bytes: int = 131_072
    sessions: int = 20
    directed_presences: int = 1_000
    resume_timeout_s: int = 600
    archive_default: Literal["always", "roster", "never"] = "always"
    archive_page: int = 250
    offline_messages: int = 10_000
    started_at: float = 0.0  # Unix seconds, for XEP-0012 of the domain
    software_version: str = ""
    show_os: bool = False
    reaches_others: bool = True  # whether there is federation
    peer_policy: Policy = "allow"
    peer_policies: Mapping[str, Policy] = field(default_factory=dict)  # by domain
    peer_queue: int = 5_000  # stanzas that wait for one domain
    peer_queue_s: float = 120.0
    components: Mapping[str, Component] = field(default_factory=dict)  # by domain
    external_services: Mapping[str, ExternalService] = field(default_factory=dict)  # by any name
    shared_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # members: bare JIDs, or *@domain
    search_enabled: bool = False
    proxy_domains: frozenset[str] = frozenset()
    uploads: Uploads | None = None
    upload_domains: frozenset[str] = frozenset()
    proxy_host: str = ""
    proxy_port: int = 7777
    iterations: int = scram.ITERATIONS  # of SCRAM, for new passwords
    token_days: float = 30.0
    token_rotate_days: float = 7.0
    push_tell: Literal["nothing", "sender", "body"] = "nothing"
    push_text: str = "New message"
    contacts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by kind
    passwords_elsewhere: Mapping[str, str] = field(default_factory=dict)  # by domain: what is told who would change one
    guests: Mapping[str, Guests] = field(default_factory=dict)  # by domain

    def policy_of(self, domain: str) -> Policy:
        """Whether another server is spoken to."""
        return self.peer_policies.get(domain, self.peer_policy)


#: What turns read at the moment when they need it, so that a change of it counts at once: key, and its field here.
LIVE: Final[Mapping[str, str]] = {
    "server.admins": "admins",
    "limits.roster": "roster_contacts",
    "limits.blocks": "blocks",
    "limits.private_bytes": "private_bytes",
    "limits.vcard_bytes": "vcard_bytes",
    "limits.sessions_per_account": "sessions",
    "limits.directed_presences": "directed_presences",
    "limits.offline": "offline_messages",
    "rooms.create": "rooms_create",
    "rooms.defaults": "room_defaults",
    "rooms.history": "room_history",
    "rooms.occupants": "room_occupants",
    "rooms.affiliations": "room_affiliations",
    "rooms.ask_s": "rooms_ask_s",
    "rooms.keep_for_members": "rooms_keep_for_members",
    "pubsub.create": "nodes_create",
    "pubsub.nodes": "service_nodes",
    "pubsub.nodes_per_account": "account_nodes",
    "pubsub.items": "node_items",
    "pubsub.subscriptions": "node_subscriptions",
    "pubsub.affiliations": "node_affiliations",
    "pubsub.item_bytes": "item_bytes",
    "registration.reserved_names": "reserved_names",
    "registration.invitations": "invitations",
    "registration.invitation_days": "invitation_s",
    "accounts.reuse_after_days": "reuse_after_days",
    "abuse.reports_per_day": "reports_per_day",
    "abuse.quarantine_reports": "quarantine_reports",
    "abuse.quarantine_strangers": "strangers",
    "strangers.local": "strangers",
    "strangers.remote": "strangers",
    "strangers.domains": "strangers",
    "strangers.per_hour": "strangers",
    "strangers.sender_per_hour": "strangers",
    "archive.default": "archive_default",
    "archive.page": "archive_page",
    "tokens.days": "token_days",
    "tokens.rotate_days": "token_rotate_days",
    "push.tell": "push_tell",
    "push.text": "push_text",
}


def adopt(settings: Settings, config: Config, changed: Iterable[str]) -> list[str]:
    """Have turns go by a new configuration from now on, as far as they can; returns the keys of which that is so.
    Raises CannotStart where it cannot be used, and changes nothing then."""
    live = [key for key in changed if key in LIVE]
    if live:
        new = from_config(config)
        for key in live:
            object.__setattr__(settings, LIVE[key], getattr(new, LIVE[key]))  # the one exception to its being frozen
    return live


def _room_defaults(options: Mapping[str, str]) -> RoomConfig:
    try:
        return with_options(RoomConfig(), options)
    except NotAcceptable as problem:
        raise CannotStart(
            f"rooms.defaults: {problem.text} `stentor room show` names the options of a room"
        ) from problem


def _strangers(config: Config) -> Strangers | None:
    chosen = config.strangers
    are_limited = config.limits.enabled
    found = Strangers(
        local=chosen.local,
        remote=chosen.remote,
        domains=chosen.domains,
        per_hour=chosen.per_hour if are_limited else 0,
        sender_per_hour=chosen.sender_per_hour if are_limited else 0,
        quarantine_after=config.abuse.quarantine_strangers,
    )
    counts_for_nothing = found == Strangers(per_hour=found.per_hour) and not config.abuse.blocklists
    return None if counts_for_nothing else found


def _blocklists(config: Config) -> Blocklists:
    ours = {*config.server.domains, *config.room_domains(), *config.publishing_domains(), *config.proxying_domains()}
    rules = []
    for one in config.abuse.blocklists:
        service = _address("abuse.blocklists", one.service)
        if service in ours or "@" in service:
            raise CannotStart(
                f"abuse.blocklists: {service} is no service of another server. For accounts of this one there are "
                "`stentor user ban` and `quarantine`"
            )
        rules.append(Rule(service, one.node, frozenset(one.applies_to)))
    return Blocklists(rules, [_address("abuse.allow", name) for name in config.abuse.allow], ours)


def _address(key: str, text: str) -> str:
    try:
        return prepare(text)
    except JidError as problem:
        raise CannotStart(f"{key}: {text!r} is no address: {problem} Name domains or bare JIDs") from problem


def _uploads(config: Config) -> Uploads | None:
    upload, url = config.upload, config.upload_url()
    if not upload.storage:
        return None
    if not url:
        raise CannotStart(
            "upload.storage is set, but nobody could reach the files. Set http.public_url (and leave http.enabled "
            "true), or upload.public_url"
        )
    domains = config.upload_domains()
    for domain, service in domains.items():
        if service in {*config.server.domains, *config.service_domains(), *config.proxying_domains()}:
            raise CannotStart(f"upload.domain: {service}, for {domain}, is something else already. Choose another name")
    return Uploads(
        domains=domains,
        url=url,
        allow=frozenset(name if name == "*" else _address("upload.allow", name) for name in upload.allow),
        types=upload.types,
        file_bytes=upload.file_bytes,
        user_bytes=upload.bytes_per_user,
        day_bytes=upload.bytes_per_day if config.limits.enabled else 0,
        kept_bytes=upload.kept_bytes_per_user,
        expire_s=upload.expire_days * 86_400,
        slot_s=upload.slot_s,
        slowest_bytes_per_s=upload.slowest_bytes_per_s,
    )


def contacts_of(config: Config) -> dict[str, tuple[str, ...]]:
    """Whom others are told to write to; without any, the admins."""
    admins = tuple(f"xmpp:{admin}" for admin in config.server.admins)
    chosen = {str(kind): addresses for kind, addresses in config.server.contacts.items()}
    return chosen or ({"admin": admins} if admins else {})


def passwords_elsewhere(config: Config) -> dict[str, str]:
    """The domains whose passwords are not kept here, and what people are told of it."""
    found = {}
    for domain, backend in config.authentication.domains.items():
        if isinstance(backend, Anonymous):
            found[domain] = f"Whoever signs in at {domain} is a guest, and has no password."
        elif not isinstance(backend, Internal):
            where = f" They are changed here: {backend.change}" if backend.change else " Ask who runs this server."
            found[domain] = f"The passwords of {domain} are not kept by this server.{where}"
    return found


def from_config(config: Config) -> Settings:
    """The part of the configuration that turns read."""
    limits = config.limits
    return Settings(
        domains=frozenset(config.server.domains),
        admins=frozenset(config.server.admins),
        room_domains=frozenset(config.room_domains()),
        rooms_create=config.rooms.create,
        room_defaults=_room_defaults(config.rooms.defaults),
        room_history=config.rooms.history,
        room_occupants=config.rooms.occupants,
        room_presence_most=config.rooms.presence_most,
        room_affiliations=config.rooms.affiliations,
        rooms_ask_s=config.rooms.ask_s,
        rooms_keep_for_members=config.rooms.keep_for_members,
        service_domains=frozenset(config.publishing_domains()),
        nodes_create=config.pubsub.create,
        service_nodes=config.pubsub.nodes,
        account_nodes=config.pubsub.nodes_per_account,
        node_items=config.pubsub.items,
        node_subscriptions=config.pubsub.subscriptions,
        node_affiliations=config.pubsub.affiliations,
        item_bytes=config.pubsub.item_bytes,
        registration_mode=config.registration.mode,
        reserved_names=frozenset(config.registration.reserved_names),
        questions=tuple(
            (asked.question, frozenset(answer.strip().casefold() for answer in asked.answers))
            for asked in config.registration.questions
        ),
        invitations=config.registration.invitations,
        invitation_s=config.registration.invitation_days * 86_400,
        public_url=config.http.public_url if config.http.enabled else "",
        reuse_after_days=config.accounts.reuse_after_days,
        strangers=_strangers(config),
        blocklists=_blocklists(config),
        reports_per_day=config.abuse.reports_per_day,
        quarantine_reports=config.abuse.quarantine_reports,
        roster_contacts=limits.roster,
        blocks=limits.blocks,
        private_bytes=limits.private_bytes,
        vcard_bytes=limits.vcard_bytes,
        sessions=limits.sessions_per_account,
        directed_presences=limits.directed_presences,
        resume_timeout_s=config.resume.timeout_s,
        archive_default=config.archive.default,
        archive_page=config.archive.page,
        offline_messages=limits.offline,
        started_at=time.time(),
        software_version=software_version(),
        show_os=config.server.show_os,
        reaches_others=config.s2s.enabled,
        peer_policy=config.s2s.policy,
        peer_policies=config.s2s.domains,
        peer_queue=config.s2s.queue,
        peer_queue_s=config.s2s.queue_s,
        components=config.components.domains,
        external_services=config.calls.services,
        shared_groups={name: tuple(members) for name, members in config.contacts.groups.items()},
        search_enabled=config.contacts.search,
        proxy_domains=frozenset(config.proxying_domains()),
        proxy_host=config.proxy.host,
        proxy_port=config.proxy.port,
        uploads=_uploads(config),
        upload_domains=frozenset(config.upload_domains().values()),
        iterations=config.authentication.iterations,
        token_days=config.tokens.days,
        token_rotate_days=config.tokens.rotate_days,
        push_tell=config.push.tell,
        push_text=config.push.text,
        contacts=contacts_of(config),
        passwords_elsewhere=passwords_elsewhere(config),
        guests={
            domain: Guests(chosen.sessions, chosen.per_address, chosen.remote)
            for domain, chosen in config.authentication.domains.items()
            if isinstance(chosen, Anonymous)
        },
    )
