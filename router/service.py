"""The router process: composes the owner's cores with PostgreSQL and the bus, and hands its shards over on a drain."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from cluster import logs, metrics
from cluster.admin import ApiServer, Check
from cluster.bus import Bus
from cluster.config import Config
from cluster.files import open_files
from cluster.membership import PeerDown, PeerEvent, PeerUp
from cluster.orders import Orders
from cluster.process import CannotStart, Drain, Process
from cluster.shards import ShardMap, shard_of
from cluster.tracing import Tracer
from cluster.wire import (
    ACKNOWLEDGED,
    ACTIVITY,
    AGAIN,
    ANNOUNCE,
    ANSWER,
    ATTACH,
    CALL,
    CAST,
    CHECK,
    CONFIRM,
    DETACH,
    DRAIN,
    ENABLED,
    FORWARD,
    MAP,
    MARKS,
    ORDER,
    READ,
    RELAY,
    REPLAY,
    REPORT,
    RESUME,
    SUBMIT,
    TRACE,
    TRACED,
    UNREACHABLE,
    WIRE_VERSION,
    Envelope,
    Epoch,
    Incarnation,
    Shard,
    new_incarnation,
)  # fmt: skip
from router import administration, announcing, backends, interests, purging
from router.administration.desk import Desk
from router.administration.service import Administration
from router.admission import Admission
from router.batch import Batch
from router.blocklist_keeper import Keeper
from router.calls import CallError, Calls, Passwords
from router.dialing import Dialing
from router.directory import PEER_SESSIONS, Directory
from router.erasing import Erasing
from router.features import ALL
from router.features import administration as administering
from router.features.disco import server_caps
from router.guesting import Guesting
from router.importing.calls import Importing
from router.introductions import METHOD, Introductions
from router.jobs import Jobs
from router.metrics import append_seconds, batch_messages, export, measured
from router.nobodies import Nobodies
from router.ordering import Ordering
from router.owner import Loaded, Owner
from router.ownership import Ownership
from router.peers import WINDOW
from router.pipeline import Pipeline
from router.registration import Registration
from router.relaying import Relaying
from router.restricting import Restricting
from router.rooms.config import keeps_for_members
from router.rooms.operating import Operating
from router.rooms.room import HISTORY
from router.settings import Settings, adopt, from_config
from router.shared_groups import wildcards
from router.tending import Tending
from router.tokens import TokenLogin
from router.traces import Traces
from router.tracing import RouterTracing
from router.turn import Request
from router.upload_keeper import UploadKeeper
from storage import (
    accounts,
    audit,
    blocklists,
    capabilities,
    erasures,
    invitations,
    jobs,
    migrate,
    nodes,
    peers,
    pubsub,
    reports,
    rooms,
)
from storage import log as rows_log
from storage import secrets as stored_secrets
from storage.gathering import Gathering
from storage.log import Row, Wanted
from storage.pool import StorageError, is_away
from storage.store import Store, Whole
from xmpp import ns
from xmpp.errors import ResourceConstraint, stanza_error
from xmpp.xml import element

log = logs.get_logger()

blocklist_age = metrics.gauge(
    "stentor_blocklist_age_seconds",
    "Since the blocklist that this router follows and has read longest ago was read as a whole, 0 if it follows none",
)

TICK_S: Final = 1.0
SAMPLE_FRAMES: Final = 16  # the first envelope of one frame in so many is timed
BATCH_APART_S: Final = 0.002  # two transactions start at least so far apart
RETRY_S: Final = 0.1  # first pause before a batch of unknown outcome is sent again; grows
RETRY_MOST_S: Final = 2.0
REPLAY_GROUP: Final = 200  # accounts in one read after a take
OUTBOUND_DAYS: Final = 3  # nothing waits for another domain for longer than a day (components.domains.queue_s)
EVERYBODY: Final = 5_000  # accounts of a domain, where everybody is in a group with everybody
EVERYBODY_S: Final = 30.0
LEARN_S: Final = 2.0  # so long a router's start waits for what accounts look like; then it learns meanwhile
GUISES_AT_ONCE: Final = 100_000  # accounts in one read, far from database.statement_timeout_s
MAINTAIN_S: Final = 3_600.0  # between looks at the log's partitions

_FOR_OWNER: Final = frozenset({SUBMIT, FORWARD, CONFIRM, AGAIN, CAST, CHECK, MARKS, REPLAY})
_FOR_DIRECTORY: Final = frozenset({ATTACH, DETACH, ANNOUNCE, ACKNOWLEDGED, ENABLED, RESUME, ACTIVITY, READ})


class RouterApplication:
    """One router process. Also the owner's `Effects`."""

    role = "router"

    def __init__(self, config: Config) -> None:
        self._config = config
        self._incarnation = new_incarnation(config.node.name, secrets.randbits(64))
        self._settings: Settings = from_config(config)
        self._backends = backends.from_config(config)
        self._files = open_files(config)
        self.bits = random.Random(secrets.randbits(128)).getrandbits  # of `Effects`: random bits, quickly
        self._map = ShardMap()
        self._pipeline = Pipeline(ALL, self._settings.domains)
        self._owner = Owner(self._incarnation, self._pipeline, self._settings, self, self._map)
        self._directory = Directory(self._owner, lambda: secrets.token_urlsafe(9))
        self._dialing = Dialing(self._owner, self._owner.peers)
        self._directory.on_room = self._dialing.acknowledged
        self._tracer = Tracer(
            send=self.send, is_congested=self._is_congested, later=self._later, switch=self._switch_tracing,
            now=time.monotonic, clock=time.time,
        )  # fmt: skip
        self._traces = Traces(self._incarnation, self._tracer, self.send, self._peers, self._role_of, time.monotonic)
        self._introductions = Introductions(self._owner, self._map, self._around, self._ask, self._start)
        self._passwords = Passwords(self._settings.iterations)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bus: Bus | None = None
        self._relaying = Relaying(self.send, lambda: self._bus.peers if self._bus is not None else {})
        self._process: Process | None = None
        self._store: Store | None = None
        self._accounts = Gathering(self._load_accounts)
        self._keeper: Keeper | None = None
        self._saving = asyncio.Lock()
        self._calls: Calls | None = None
        self._nobodies: Nobodies | None = None
        self._ownership: Ownership | None = None
        self._orders: Orders | None = None
        self._ordering: Ordering | None = None
        self._jobs: Jobs | None = None
        self._administration: Administration | None = None
        self._api: ApiServer | None = None
        self._batch_started_at = 0.0
        self._batch_since: float | None = None
        self._sampled = 0
        self._clock_offset = time.time() - time.monotonic()

    # --- life

    def ready_checks(self) -> Mapping[str, Check]:
        """Registered, shards loaded, a database round trip within 10 s."""
        return {"database": self._check_database, "shards": self._check_shards, "api": self._check_api}

    def _check_database(self) -> str | None:
        ownership = self._ownership
        if ownership is None or not ownership.is_registered:
            return "not registered in the database yet"
        silent_s = time.monotonic() - ownership.database_at
        return f"no answer from the database for {silent_s:.0f} s" if silent_s > 10 else None

    def _check_shards(self) -> str | None:
        if self._ownership is None or (not self._ownership.owned and not self._ownership.has_others()):
            return "owns no shard yet"
        unowned = sum(owner is None for owner in self._map.owners)
        return f"{unowned} of 1024 shards have no known owner" if unowned else None

    def _check_api(self) -> str | None:
        return None if self._api is not None or not self._config.admin.token else "the API does not listen yet"

    async def start(self, process: Process) -> None:
        """Wait for the database, join the bus, take shards, serve the API."""
        self._loop = asyncio.get_running_loop()
        self._process = process
        config = self._config
        self._store = store = await self._open_store()
        secret = await store.run(stored_secrets.secret, "fake-salts")
        self._nobodies = Nobodies(secret, self._settings.iterations)
        learning = self._loop.create_task(self._learn_guises())
        self._tasks.add(learning)
        learning.add_done_callback(self._tasks.discard)
        await asyncio.wait([learning], timeout=LEARN_S)
        dialback = await store.run(stored_secrets.secret, "dialback")
        self._bus = bus = Bus.from_config(
            config, self.role, self._incarnation, self._receive, self._owner_end, self._on_peer
        )
        await bus.start()
        self._orders = Orders(process, config, self.role, partial(adopt, self._settings))
        self._ordering = Ordering(bus, self._orders, self.new_id)
        me = nodes.NodeRow.of(
            name=config.node.name, incarnation=self._incarnation, role=self.role, address=bus.address, wire=WIRE_VERSION
        )
        self._ownership = Ownership(
            me, store, self._owner, self._directory, self._dialing, bus, self._around, self.set_clock
        )
        registration = Registration(self._owner, self._passwords.derive, self._forget_credentials, store.run)
        captcha = await store.run(stored_secrets.secret, "captcha")
        admission = Admission(store, registration, self._settings, captcha, self.wall, self._ask_owner)
        uploads = UploadKeeper(store, self._files, lambda: self._owner.tenures[shard_of("upload")] is not None)
        erasing = Erasing(store, self._owner, registration, self._ask_owner, uploads)
        guesting = Guesting(store, self._owner, registration, config.c2s.login_timeout_s)
        operating = Operating(
            registration.command,
            lambda bare, shard: store.run(rooms.make, bare, shard),
            lambda key, ids: store.run(rows_log.by_ids, key, ids),
        )
        importing = Importing(
            store,
            self._owner,
            registration,
            self._passwords.derive,
            config.archive.keep_days,
            config.archive.offline_days,
        )
        self._calls = calls = Calls(
            store,
            self,
            self._passwords,
            registration,
            self._stream_features(),
            self._nobodies,
            self._map,
            self._incarnation,
            self._federation_calls(dialback),
            {
                **operating.methods(),
                **erasing.methods(),
                **admission.methods(),
                **guesting.methods(),
                **importing.methods(),
                **Restricting(registration.command).methods(),
                **Tending(registration.command).methods(),
                **TokenLogin(store, self._settings).methods(),
                **self._traces.methods(),
                **uploads.methods(),
                administering.METHOD: self._administer,
            },
            self._backends,
        )
        await store.listen("stentor", self._ownership.wake)
        if self._settings.blocklists.rules:
            keeper = self._keeper = self._make_keeper()
            self._owner.peers.hears = keeper.hears
            await store.run(blocklists.forget, list(self._settings.blocklists.rules))
            await store.listen(blocklists.CHANNEL, self._on_blocklist)
        process.essential("ownership", self._ownership.run())
        await self._read_everybody()
        for known in await self._again_while_away(lambda: store.run(capabilities.newest)):
            interests.known.put(known.name, known.wants)
        await self._maintain_log()
        process.essential("router_tick", self._tick())
        process.essential("log_maintenance", self._maintain())
        process.essential("erasing", erasing.run())
        self._jobs = Jobs(
            store.run,
            self._incarnation,
            {
                announcing.KIND: announcing.announcing(store.run, self._ask_owner),
                purging.KIND: purging.purging_of(store.run),
            },
        )
        process.essential("jobs", self._jobs.follow())
        process.essential("everybody", self._follow_everybody())
        process.essential("invitations", admission.follow())
        process.essential("guests", guesting.follow())
        process.essential("uploads", uploads.follow())
        desk = Desk(
            self._settings, store, calls, self._map, bus, self._traces, self._ordering, self._write_later
        )  # fmt: skip
        self._administration = served = Administration(desk, administration.AREAS)
        if config.admin.token:
            server = ApiServer(
                config.admin.host,
                config.admin.api_port,
                config.admin.token,
                served.routes(),
                partial(administration.tokens.recognise, desk),
            )
            try:
                await server.start()
            except OSError as problem:
                raise CannotStart(f"admin.api_port {config.admin.api_port}: {problem}. Choose another") from problem
            self._api = server
        export(self._owner, self._ownership, self._oldest_pending_s)

    async def _open_store(self) -> Store:
        """A router starts before its database does, and waits; what waiting cannot mend ends the start."""
        url = self._config.database.url
        if not url:
            raise CannotStart("database.url is not set. Set it, or STENTOR_DATABASE__URL")
        pause = 0.2
        while True:
            try:
                store = await Store.open(self._config.database, self._config.node.name)
                await migrate.check(store)
                return store
            except StorageError as problem:
                raise CannotStart(str(problem)) from problem
            except Exception as problem:
                if not is_away(problem):
                    raise
                log.warning("database_away", problem=str(problem).splitlines()[0] if str(problem) else "")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, RETRY_MOST_S)

    async def drain(self, drain: Drain) -> None:
        """Hand every shard over, then wait for the last batch."""
        assert self._ownership is not None
        self._traces.end_all()
        await self._ownership.leave()
        while len(self._owner.queue) and drain.remaining_s() > 0:  # noqa: ASYNC110  # bounded by the drain's time
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Leave the cluster."""
        if self._jobs is not None:
            await self._jobs.stop()
        if self._ownership is not None:
            await self._ownership.farewell()
        if self._api is not None:
            await self._api.stop()
        if self._bus is not None:
            await self._bus.stop()
        self._passwords.stop()
        await self._backends.stop()
        for task in self._tasks:
            task.cancel()
        if self._store is not None:
            await self._store.close()

    def _federation_calls(self, dialback: bytes) -> dict[str, Callable[..., Any]]:
        """What s2s processes must have alike (the secret of dialback keys, XEP-0185), and what operators ask."""

        def retry(domain: str) -> bool:
            found: list[bool] = []
            self._around(lambda: found.append(self._dialing.retry(domain)))
            return found[0]

        return {
            "federation.facts": lambda: {"dialback": dialback},
            "peers.list": lambda: [tuple(status) for status in self._dialing.status()],
            "peers.retry": retry,
            METHOD: self._introductions.introduce,
            "bytestreams.meet": self._owner.meetings.meet,
        }

    def _stream_features(self) -> dict[str, bytes]:
        """What routers add to the features of an authenticated stream, by domain."""
        ver = element("ver", ns.ROSTERVER_FEATURE)
        approval = element("sub", ns.SUBSCRIPTION_PREAPPROVAL_FEATURE)
        caps = server_caps(self._settings)
        return dict.fromkeys(self._settings.domains, ver + approval + caps)

    # --- input

    def _receive(self, sender: Incarnation, envelopes: tuple[Envelope, ...]) -> None:
        owner = self._owner
        owner.begin()
        self._sampled += 1
        if self._sampled % SAMPLE_FRAMES == 0 and envelopes:
            started = time.perf_counter()
            self._handle(sender, envelopes[:1])
            measured(envelopes[0][0], time.perf_counter() - started)
            envelopes = envelopes[1:]
        self._handle(sender, envelopes)

    def _handle(self, sender: Incarnation, envelopes: tuple[Envelope, ...]) -> None:
        owner = self._owner
        for envelope in envelopes:
            kind = envelope[0]
            if kind in _FOR_OWNER:
                owner.receive(sender, kind, envelope[1:])
            elif kind in _FOR_DIRECTORY:
                self._directory.receive(sender, kind, envelope[1:])
            elif kind == CALL:
                self._on_call(sender, *envelope[1:])
            elif kind == MAP:
                self._on_map(envelope[1])
            elif kind == ANSWER and self._calls is not None:
                self._calls.answered(*envelope[1:4])
            elif kind == UNREACHABLE:
                self._dialing.unreachable(sender, *envelope[1:])
            elif kind == RELAY:
                self._relaying.relay(sender, *envelope[1:])
            elif kind == ORDER and self._orders is not None:
                self._orders.receive(self.send, sender, *envelope[1:])
            elif kind == REPORT and self._ordering is not None:
                self._ordering.reported(sender, *envelope[1:])
            elif kind == DRAIN and self._process is not None:
                self._process.terminate()
            elif kind == TRACE:
                self._tracer.told(sender, envelope[1])
            elif kind == TRACED:
                self._traces.told(sender, *envelope[1:])

    def _owner_end(self) -> None:
        self._owner.end()

    def _around(self, act: Callable[[], None]) -> None:
        """Run a function as one batch of input."""
        self._owner.begin()
        try:
            act()
        finally:
            self._owner.end()

    def _on_call(
        self, sender: Incarnation, shard: Shard, epoch: Epoch, request: str, method: str, arguments: tuple[Any, ...]
    ) -> None:
        if self._calls is not None and self._owner.tenures[shard] == epoch:
            if method == administering.METHOD:
                return  # only of this router's own turns: whoever asks says who they are
            is_router = self._bus is not None and self._bus.role_of(sender) == "router"
            self._calls.receive(sender, request, method, arguments, is_router)

    def _on_map(self, entries: tuple[tuple[Shard, Epoch, Incarnation], ...]) -> None:
        changed = []
        for shard, epoch, owner in entries:
            if self._map.update(shard, epoch, owner):
                changed.append(shard)
                held = self._owner.tenures[shard]
                if held is not None and held < epoch:
                    self._directory.dropped(self._owner.drop(shard))
        if changed:
            self._owner.owners_changed(changed)

    def _on_peer(self, event: PeerEvent) -> None:
        def act() -> None:
            peer = event.incarnation
            if isinstance(event, PeerUp):
                self._traces.peer_up(peer)
                if event.role != "router":
                    self._directory.edge_up(peer)
                if event.role == "s2s":
                    self._dialing.edge_up(peer)
                if self._ownership is not None:
                    self._ownership.peer_up(peer)
                if event.role == "router":
                    theirs = [Shard(s) for s, owner in enumerate(self._map.owners) if owner == peer]
                    self._owner.owners_changed(theirs)
            elif isinstance(event, PeerDown):
                if event.role == "c2s":
                    self._relaying.gone(peer)
                for id_, jid in self._tracer.gone(peer):
                    log.info("trace_ended", trace=id_, account=jid, reason="the router that gathered it is gone")
                if event.role != "router":
                    self._dialing.edge_down(peer)
                    self._directory.edge_down(peer)
                elif self._ownership is not None:
                    self._ownership.wake()

        self._around(act)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)

            def act() -> None:
                self._owner.tick()
                self._directory.tick()
                self._dialing.tick()
                self._traces.tick()
                if self._keeper is not None:
                    self._keeper.tick()

            self._around(act)

    # --- traces

    def _switch_tracing(self, is_on: bool) -> None:
        owner = self._owner
        if is_on and owner.tracing is None:
            owner.tracing = RouterTracing(self._tracer, owner, owner.rooms.fanout, time.monotonic)
        elif not is_on and owner.tracing is not None:
            owner.tracing.close()
            owner.tracing = None

    def _is_congested(self, to: Incarnation) -> bool:
        return self._bus is not None and self._bus.is_congested(to)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        assert self._loop is not None
        self._loop.call_later(seconds, act)

    def _peers(self) -> list[Incarnation]:
        return [] if self._bus is None else list(self._bus.peers)

    def _role_of(self, process: Incarnation) -> str:
        if self._bus is None or process == self._incarnation:
            return self.role
        peer = self._bus.peers.get(process)
        return peer.role if peer is not None else ""

    # --- blocklists of others

    def _make_keeper(self) -> Keeper:
        abuse = self._config.abuse
        keeper = Keeper(
            self._owner, self._settings.blocklists, min(self._settings.domains), abuse.blocklist_refresh_s,
            abuse.blocklist_entries, lambda name, found, is_whole: self._start(self._save_list(name, found, is_whole)),
        )  # fmt: skip
        blocklist_age.set_function(keeper.age_s)
        return keeper

    async def _save_list(self, name: str, found: frozenset[str], is_whole: bool) -> None:
        store = self._store
        assert store is not None
        async with self._saving:  # one after the other: the last word counts
            await self._again_while_away(lambda: store.run(blocklists.replace, name, sorted(found), is_whole))

    def _on_blocklist(self, name: str) -> None:
        """What others have read; "" when some may have been missed."""
        if name == blocklists.REFRESH and self._keeper is not None:
            self._around(self._keeper.refresh)
        else:
            self._start(self._read_lists([name] if name else list(self._settings.blocklists.rules)))

    async def _read_lists(self, names: Sequence[str]) -> None:
        store = self._store
        assert store is not None
        for name in names:
            found = await self._again_while_away(lambda name=name: store.run(blocklists.entries, name))  # type: ignore[misc]
            self._settings.blocklists.replace(name, found)

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(MAINTAIN_S * random.uniform(0.8, 1.2))
            await self._maintain_log()
            await self._learn_guises()

    async def _learn_guises(self) -> None:
        """What the credentials of accounts look like now."""
        store, nobodies = self._store, self._nobodies
        assert store is not None
        assert nobodies is not None
        found = []
        last: int | None = 0
        while last is not None:
            read = await self._again_while_away(
                lambda above=last: store.run(accounts.guises, above, GUISES_AT_ONCE)  # type: ignore[misc]
            )
            found += read.found
            last = read.last
        nobodies.learn(found)

    async def _maintain_log(self) -> None:
        """Partitions that will be needed, and those that are too old."""
        store, archive, rooms = self._store, self._config.archive, self._config.rooms
        assert store is not None
        keep = {
            rows_log.QUEUE: archive.offline_days,
            rows_log.ARCHIVE: archive.keep_days,
            rows_log.OUTBOUND: OUTBOUND_DAYS,
            rows_log.GROUP: rooms.keep_for_members_days,
        }
        dropped = await self._again_while_away(lambda: store.run(rows_log.maintain, time.time(), keep))
        await self._again_while_away(lambda: store.run(capabilities.prune))
        await self._again_while_away(lambda: store.run(invitations.prune))
        await self._again_while_away(lambda: store.run(erasures.prune))
        await self._again_while_away(lambda: store.run(reports.prune, self._config.abuse.keep_days))
        await self._again_while_away(lambda: store.run(jobs.prune))
        await self._again_while_away(lambda: store.run(audit.prune, self._config.admin.audit_days))
        if dropped:
            log.info("partitions_dropped", count=len(dropped))

    async def _read_everybody(self) -> None:
        """Who has an account, for groups of everybody."""
        for domain in wildcards(self._settings):
            found: list[str] = []
            while len(found) < EVERYBODY:
                after = found[-1] if found else ""
                page = await self._again_while_away(
                    lambda after=after, domain=domain: self._store.run(accounts.list_, domain, after, 1_000)  # type: ignore[union-attr, misc]
                )
                found += [account.jid for account in page]
                if not page:
                    break
            self._owner.everybody[domain] = found[:EVERYBODY]

    async def _follow_everybody(self) -> None:
        while True:
            await asyncio.sleep(EVERYBODY_S)
            await self._read_everybody()

    def _forget_credentials(self, bare: str) -> None:
        if self._calls is not None:
            self._calls.forget(bare)

    # --- the owner's effects

    def send(self, to: Incarnation, envelope: Envelope) -> bool:
        """Put an envelope on the link to a process."""
        return self._bus is not None and self._bus.send(to, envelope)

    def new_id(self) -> int:
        """63 random bits."""
        return secrets.randbits(63)

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Unix seconds of the database's clock: all routers' ids and stamps are of one clock, and a jump of this
        machine's does not matter."""
        return self._clock_offset + time.monotonic()

    def set_clock(self, seconds: float) -> None:
        """What the database's clock showed just now, Unix seconds."""
        self._clock_offset = seconds - time.monotonic()

    def commit(self, batch: Batch) -> None:
        """Run the transaction; the identical batch again as long as its outcome is unknown (docs/delivery.md §4)."""
        self._start(self._commit(batch))

    def load(self, bare: str, shard: Shard, epoch: Epoch) -> None:
        """Read an entity."""
        self._start(self._load(bare, epoch))

    def look(self, bare: str, epoch: Epoch, key: int, origin: int, above: int) -> None:
        """Read a mark from the log."""
        self._start(self._look(bare, epoch, key, origin, above))

    def replay(self, wanted: Sequence[tuple[str, Epoch, Wanted]]) -> None:
        """Read what sessions have missed."""
        for start in range(0, len(wanted), REPLAY_GROUP):
            self._start(self._replay(wanted[start : start + REPLAY_GROUP]))

    def run(self, request: Request, token: int) -> None:
        """Run a turn's request."""
        self._start(self._run(request, token))

    async def _ask(self, shard: Shard, method: str, arguments: tuple[Any, ...]) -> Any:
        assert self._calls is not None
        return await self._calls.ask("", shard, method, arguments)

    async def _ask_owner(self, bare: str, method: str, arguments: tuple[Any, ...]) -> Any:
        assert self._calls is not None
        return await self._calls.ask(bare, shard_of(bare), method, arguments)

    def _start(self, work: Any) -> None:
        assert self._loop is not None
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _oldest_pending_s(self) -> float:
        return 0.0 if self._batch_since is None else time.monotonic() - self._batch_since

    async def _commit(self, batch: Batch) -> None:
        self._batch_since = time.monotonic()
        wait = self._batch_started_at + BATCH_APART_S - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        self._batch_started_at = time.monotonic()
        assert self._store is not None
        tries = 0

        async def attempt() -> Any:
            nonlocal tries
            tries += 1
            return await self._store_commit(batch)

        outcome = await self._again_while_away(attempt)
        self._batch_since = None
        if batch.rows:
            append_seconds.observe(time.monotonic() - self._batch_started_at)
            batch_messages.observe(len(batch.rows))
        match outcome:
            case Store.Committed():
                self._around(self._owner.queue.committed)
            case Store.Fenced(lost):
                log.warning("batch_fenced", shards=len(lost))
                is_there = tries > 1 and await self._is_there(batch)
                self._around(lambda: self._fenced(lost, is_there))
            case Store.Refused(index, error):
                log.error("write_refused", problem=str(error))
                self._around(lambda: self._owner.queue.refused(index))

    async def _store_commit(self, batch: Batch) -> Any:
        assert self._store is not None
        return await self._store.commit(self._incarnation, batch.fence, batch.writes, batch.rows)

    async def _is_there(self, batch: Batch) -> bool:
        """Rule 13: whether an attempt whose outcome nobody knew has committed after all; rows come all or none."""
        if not batch.rows:
            return False
        row, store = batch.rows[0], self._store
        assert store is not None
        return bool(await self._again_while_away(lambda: store.run(rows_log.is_there, row.owner, row.id)))

    def _fenced(self, lost: Any, is_there: bool) -> None:
        self._owner.fenced += 1
        for shard in lost:
            self._directory.dropped(self._owner.drop(Shard(shard)))
        if is_there:
            self._owner.queue.committed()
        else:
            self._owner.queue.fenced()
        if self._ownership is not None:
            self._ownership.wake()

    async def _load(self, bare: str, epoch: Epoch) -> None:
        assert self._store is not None
        if bare.rpartition("@")[2] in self._settings.proxy_domains:
            self._around(lambda: self._owner.loaded(bare, epoch, Loaded(None, True, ())))
            return
        if bare in self._settings.service_domains:
            await self._load_service(bare, epoch)
            return
        if "@" not in bare:
            await self._load_peer(bare, epoch)
            return
        if bare.rpartition("@")[2] in self._settings.room_domains:
            await self._load_room(bare, epoch)
            return
        found = await self._accounts.get(bare)
        loaded = Loaded(None, True, ())
        if found is not None:
            account, values = found
            loaded = Loaded(account.key, account.enabled, values)
        self._around(lambda: self._owner.loaded(bare, epoch, loaded))

    async def _load_accounts(self, bares: Sequence[str]) -> dict[str, Whole]:
        assert self._store is not None
        store, loaders = self._store, [loader for feature in ALL for loader, _ in feature.loaders]
        found: dict[str, Whole] = await self._again_while_away(lambda: store.load(bares, loaders))
        return found

    async def _load_peer(self, domain: str, epoch: Epoch) -> None:
        store = self._store
        # All that may wait or be on its way: a row that is left out would be passed by the cursor.
        limit = self._settings.peer_queue + PEER_SESSIONS * WINDOW
        assert store is not None
        found = await self._again_while_away(lambda: store.run(peers.load, domain, shard_of(domain), limit))
        self._around(lambda: self._owner.loaded(domain, epoch, Loaded(found.key, True, (found.delivered, found.rows))))

    async def _load_service(self, domain: str, epoch: Epoch) -> None:
        store = self._store
        assert store is not None
        found = await self._again_while_away(lambda: store.run(pubsub.load_service, domain, shard_of(domain)))
        self._around(lambda: self._owner.loaded(domain, epoch, Loaded(found.key, True, (found.nodes,))))

    async def _load_room(self, bare: str, epoch: Epoch) -> None:
        store = self._store
        assert store is not None
        found = await self._again_while_away(lambda: store.run(rooms.load, bare, HISTORY, keeps_for_members))
        key = None if found is None else found.key
        self._around(lambda: self._owner.loaded(bare, epoch, Loaded(key, True, (found,))))

    async def _look(self, bare: str, epoch: Epoch, key: int, origin: int, above: int) -> None:
        store = self._store
        assert store is not None
        mark = await self._again_while_away(lambda: store.run(rows_log.mark, key, origin, above))
        self._around(lambda: self._owner.looked(bare, epoch, origin, mark))

    async def _replay(self, wanted: Sequence[tuple[str, Epoch, Wanted]]) -> None:
        store = self._store
        assert store is not None
        asked = [item[2] for item in wanted]
        rows = await self._again_while_away(lambda: store.run(rows_log.replay, asked))
        sent = await self._again_while_away(lambda: store.run(rows_log.sent, asked))

        def act() -> None:
            of: dict[int, tuple[list[Row], list[Row]]] = {want.owner: ([], []) for want in asked}
            for row in rows:
                of[row.owner][0].append(row)
            for row in sent:
                of[row.owner][1].append(row)
            for bare, epoch, want in wanted:
                self._owner.replayed(bare, epoch, *of[want.owner])

        self._around(act)

    async def _run(self, request: Request, token: int) -> None:
        value: Any
        if request.of:
            try:
                value = await self._ask_owner(request.of, str(request.statement), request.arguments)
            except CallError as problem:
                value = stanza_error(problem.condition, problem.text)
        elif request.is_computation:
            try:
                value = await self._passwords.run(request.statement, *request.arguments)
            except Exception as problem:
                value = problem
        else:
            assert self._store is not None
            value = await self._again_while_away(lambda: self._store.run(request.statement, *request.arguments))  # type: ignore[union-attr]  # asserted
        self._around(lambda: self._owner.answered(token, value))

    async def _administer(self, bare: str, name: str, given: Mapping[str, Any]) -> Any:
        if self._administration is None:
            raise ResourceConstraint("The router is still starting.")
        return await self._administration.run_for(bare, name, given)

    def _write_later(self, statement: Callable[..., Any], *arguments: Any) -> None:
        store = self._store
        assert store is not None
        self._start(self._again_while_away(lambda: store.run(statement, *arguments)))

    async def _again_while_away(self, attempt: Callable[[], Any]) -> Any:
        """A database that is away is waited for: nothing fails for it (docs/architecture.md)."""
        pause = RETRY_S
        while True:
            try:
                return await attempt()
            except Exception as problem:
                if not is_away(problem):
                    raise
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, RETRY_MOST_S)


def application(config: Config) -> RouterApplication:
    """The application that `stentor router` runs."""
    return RouterApplication(config)
