"""What edges may ask a router (CALL): credentials checks, accounts, stream features, and what `more` brings.

Passwords and tokens of a domain with a back end are the back end's to judge (`router/backends/`). Elsewhere the proof
of a SCRAM exchange is checked here, against keys that never leave the routers; PBKDF2, which PLAIN and new passwords
need, runs in a few threads, never on the event loop. A database or a back end that is away is `temporary-auth-failure`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from cluster import logs
from cluster.shards import ShardMap, shard_of
from cluster.wire import ANSWER, CALL, Incarnation, Shard
from router.backends import Backends
from router.backends.backend import Away
from router.features.account import derive_all
from router.nobodies import Nobodies
from router.owner import Effects
from router.registration import MOVED, Registration
from router.restrictions import told
from storage import accounts, archive, restrictions
from storage.gathering import Gathering
from storage.log import time_of
from storage.pool import is_away
from storage.store import Store
from xmpp import scram
from xmpp.errors import ResourceConstraint, StanzaError
from xmpp.jid import domain_of, local_of
from xmpp.scram import Credentials

log = logs.get_logger()

THREADS: Final = 2  # for PBKDF2: more than cores would only slow the loop
THREAD_QUEUE: Final = 200  # then an attempt is told to come back later
BEGUN_S: Final = 5.0  # between the salt and the proof of one exchange, its credentials are not read again
BEGUN_MOST: Final = 10_000
ASK_AGAIN_S: Final = 1.0  # a router asks another again, of the same owner or the next
ASK_TIMES: Final = 10
MOVED_S: Final = 0.3  # after an owner has said that it is none any more
_MOVED: Final = (ResourceConstraint.condition, MOVED)
_OF_EDGES: Final = frozenset(
    {
        "register",
        "stream_features",
        "invitations.check",
        "invitations.show",
        "invitations.register",
        "invitations.reset",
    }
)
_KINDS_OF_EDGES: Final = frozenset({"auth", "archive", "bytestreams", "federation", "uploads"})
NO_BACKENDS: Final = Backends({})


class CallError(Exception):
    """The answer to a call is this condition, and maybe a text for people."""

    def __init__(self, condition: str, text: str = "") -> None:
        super().__init__(condition)
        self.condition = condition
        self.text = text


class Passwords:
    """Key derivation in threads, bounded."""

    def __init__(self, iterations: int = scram.ITERATIONS) -> None:
        self.iterations = iterations  # of SCRAM, for new passwords
        self._threads = ThreadPoolExecutor(THREADS, "pbkdf2")
        self._waiting = 0

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a blocking function; raises CallError where too many wait already."""
        if self._waiting >= THREAD_QUEUE:
            raise CallError("temporary-auth-failure")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        finally:
            self._waiting -= 1

    async def derive(self, password: str) -> tuple[Credentials, ...]:
        """New credentials for a password, one for each hash. Raises UnusablePassword."""
        derived: tuple[Credentials, ...] = await self.run(derive_all, password, self.iterations)
        return derived

    def stop(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Calls:
    """Answers CALL envelopes, and asks other routers. `nobodies` stand for accounts that do not exist."""

    def __init__(
        self,
        store: Store,
        effects: Effects,
        passwords: Passwords,
        registration: Registration,
        stream_features: Mapping[str, bytes],
        nobodies: Nobodies,
        shard_map: ShardMap,
        me: Incarnation,
        others: Mapping[str, Callable[..., Any]],
        more: Mapping[str, Callable[..., Awaitable[Any]]] = MappingProxyType({}),
        backends: Backends = NO_BACKENDS,
    ) -> None:
        self._backends = backends
        self._running: set[tuple[Incarnation, str]] = set()
        self._map = shard_map
        self._me = me
        self._asked: dict[str, asyncio.Future[tuple[bool, Any]]] = {}
        self._store = store
        self._credentials = Gathering(partial(store.run, accounts.credentials))
        self._bans = Gathering(partial(store.run, restrictions.bans))
        self._archives = Gathering(partial(store.run, archive.ends_of))
        self._effects = effects
        self._passwords = passwords
        self._registration = registration
        self._stream_features = stream_features
        self._nobodies = nobodies
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: dict[str, tuple[float, dict[str, Credentials]]] = {}  # SCRAM: bare JID -> until when, credentials
        self._methods: dict[str, Callable[..., Awaitable[Any]]] = {
            "auth.salt": self._salt,
            "auth.proof": self._proof,
            "auth.password": self._password,
            "auth.upgrades": self._upgrades,
            "auth.upgrade": self._upgrade,
            "archive.ends": self._ends,
            "auth.token": self._token,
            "auth.admit": self._admit,
            "auth.certificate": self._certificate,
            "admin.create": self._create,
            "admin.password": self._registration.set_password,
            "admin.delete": self._registration.delete,
            "admin.kick": self._registration.kick,
            "admin.log_out": self._registration.log_out,
            "stream_features": self._features,
            **more,
        }
        self._others = others  # what other parts of the router answer at once, by method

    def forget(self, bare: str) -> None:
        """The account's credentials have changed: an exchange that has begun does not end with the old ones."""
        self._begun.pop(bare, None)

    def receive(
        self, sender: Incarnation, request: str, method: str, arguments: tuple[Any, ...], is_router: bool = True
    ) -> None:
        """One CALL for a shard that is owned here; a captured edge may not call what operators do. While it runs, edges
        ask again: that changes nothing, and least of all is a back end asked again."""
        if not is_router and method not in _OF_EDGES and method.partition(".")[0] not in _KINDS_OF_EDGES:
            log.error("call_refused", method=method, peer=sender)
            self._effects.send(sender, (ANSWER, request, False, "forbidden"))
            return
        if (sender, request) in self._running:
            return
        self._running.add((sender, request))
        self._start(self._run(sender, request, method, arguments))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, sender: Incarnation, request: str, method: str, arguments: tuple[Any, ...]) -> None:
        try:
            ok, value = await self._answer(method, arguments)
        finally:
            self._running.discard((sender, request))
        self._effects.send(sender, (ANSWER, request, ok, value))

    async def _answer(self, method: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        run, answer = self._methods.get(method), self._others.get(method)
        if run is None and answer is None:
            return False, "feature-not-implemented"
        try:
            return True, answer(*arguments) if answer is not None else await run(*arguments)  # type: ignore[misc]
        except CallError as problem:
            return False, (problem.condition, problem.text) if problem.text else problem.condition
        except Away:
            return False, "temporary-auth-failure"
        except StanzaError as fault:
            return False, (fault.condition, fault.text)
        except Exception as problem:
            if not is_away(problem):
                log.error("call_failed", method=method, exc_info=problem)
            return False, "temporary-auth-failure"

    async def ask(self, bare: str, shard: Shard, method: str, arguments: tuple[Any, ...]) -> Any:
        """Call a method of whichever router owns the shard, this one included. Raises CallError."""
        for _ in range(ASK_TIMES):
            owner = self._map.owners[shard]
            if owner == self._me:
                ok, value = await self._answer(method, arguments)
            elif owner is None:
                await asyncio.sleep(ASK_AGAIN_S)
                continue
            else:
                request = f"{self._me}/{self._effects.new_id():x}"
                future = self._asked[request] = asyncio.get_running_loop().create_future()
                self._effects.send(owner, (CALL, shard, self._map.epochs[shard], request, method, arguments))
                try:
                    ok, value = await asyncio.wait_for(future, ASK_AGAIN_S * 5)
                except TimeoutError:
                    continue
                finally:
                    self._asked.pop(request, None)
            if not ok and tuple(value) == _MOVED:
                await asyncio.sleep(MOVED_S)  # the map is about to say where it is now
                continue
            if not ok:
                raise CallError(value) if isinstance(value, str) else CallError(*value)
            return value
        raise CallError("remote-server-timeout")

    def answered(self, request: str, ok: bool, value: Any) -> None:
        """Another router's ANSWER."""
        future = self._asked.get(request)
        if future is not None and not future.done():
            future.set_result((ok, value))

    # --- methods

    async def _features(self) -> dict[str, bytes]:
        return dict(self._stream_features)

    async def _create(self, bare: str, password: str, is_reused: bool) -> None:
        await self._registration.create(bare, password, is_reused=is_reused)

    async def _ends(self, bare: str) -> tuple[tuple[int, float], ...]:
        """The first and the last message of an account's archive: id, and when (Unix seconds)."""
        ends = await self._archives.get(bare)
        return () if ends is None else tuple((id_, time_of(id_)) for id_ in (ends.first, ends.last))

    async def _read(self, bare: str) -> dict[str, Credentials]:
        """As they are now: a new password, or the end of an account, counts from the moment it is committed."""
        return await self._credentials.get(bare) or {}

    async def _salt(self, bare: str, hash: str) -> tuple[bytes, int]:
        self._is_kept_here(bare)
        found = await self._read(bare)
        if len(self._begun) >= BEGUN_MOST:
            self._begun.clear()
        self._begun[bare] = (self._effects.monotonic() + BEGUN_S, found)
        known = self._of(bare, found, hash)
        return known.salt, known.iterations

    async def _proof(self, bare: str, hash: str, auth_message: bytes, proof: bytes) -> bytes | None:
        self._is_kept_here(bare)
        valid_until, found = self._begun.pop(bare, (0.0, {}))
        if valid_until <= self._effects.monotonic():
            found = await self._read(bare)
        known = self._of(bare, found, hash)
        signature = scram.verify_proof(known, auth_message, proof)
        if signature is not None:
            await self._check_ban(bare)
        return signature

    def _of(self, bare: str, found: Mapping[str, Credentials], hash: str = "") -> Credentials:
        """The credentials of a hash; of none in particular (PLAIN) those that are cheapest to derive. Where there are
        none, what stands for them: it is made in any case, so that the time tells nothing."""
        made = self._nobodies.credentials(bare, hash)
        if not found:
            return made
        name = hash or next(name for name in scram.HASHES if name in found)
        return found.get(name) or self._nobodies.missing(bare, name)

    def _is_kept_here(self, bare: str) -> None:
        """What is left of credentials from before the domain had a back end is void. An edge that asks for them has not
        the settings that this router has: a moment of their change."""
        if domain_of(bare) in self._backends:
            raise CallError("temporary-auth-failure")

    async def _password(self, bare: str, password: str) -> bool:
        domain = domain_of(bare)
        if domain in self._backends:
            is_right = await self._backends.check_password(local_of(bare), domain, password)
            if is_right:
                await self._admit(bare)
            return is_right
        found = await self._read(bare)
        is_right = bool(await self._passwords.run(scram.check_password, self._of(bare, found), password))
        if is_right:
            await self._check_ban(bare)
            if (lacking := self._lacking(found)) and self._passwords.is_idle:
                self._start(self._renew(bare, password, lacking))
        return is_right

    async def _renew(self, bare: str, password: str, lacking: Sequence[str]) -> None:
        """The password is here, so what its account lacks is made of it, behind the answer; else the next time."""
        try:
            derived = await self._passwords.run(derive_all, password, self._passwords.iterations, lacking)
            await self._registration.upgrade(bare, derived)
        except (CallError, StanzaError) as problem:
            log.debug("call_failed", method="auth.password", problem=str(problem))
        except Exception as problem:
            if not is_away(problem):
                log.error("call_failed", method="auth.password", exc_info=problem)

    async def _upgrades(self, bare: str, hashes: Sequence[str]) -> tuple[tuple[str, bytes, int], ...]:
        """XEP-0480: of these hashes those that an account lacks or has with too few iterations, each with a salt and
        the iterations to be."""
        self._is_kept_here(bare)
        lacking = self._lacking(await self._read(bare))
        return tuple(
            (hash, secrets.token_bytes(scram.SALT_BYTES), self._passwords.iterations)
            for hash in hashes
            if hash in lacking
        )

    async def _upgrade(self, bare: str, hash: str, salt: bytes, iterations: int, salted: bytes) -> None:
        """What the client has made of its password with one of these."""
        await self._registration.upgrade(bare, (scram.of_salted(salted, hash, salt, iterations),))

    def _lacking(self, found: Mapping[str, Credentials]) -> list[str]:
        """The hashes of which there are no credentials as new passwords get them."""
        return [
            hash
            for hash in scram.HASHES
            if (known := found.get(hash)) is None or known.iterations < self._passwords.iterations
        ]

    async def _token(self, of: str, token: str) -> tuple[str | None, str]:
        """`of` is the bare JID that the client wants to be, or only the domain. Answers the localpart that the token is
        for, None for nobody's, and where clients learn of the provider."""
        domain = domain_of(of)
        if domain not in self._backends:
            raise CallError("temporary-auth-failure")
        local, configuration = await self._backends.check_token(domain, token)
        if local is None or local_of(of) not in ("", local):
            return None, configuration
        bare = f"{local}@{domain}"
        await self.ask(bare, shard_of(bare), "auth.admit", (bare,))
        return local, configuration

    async def _admit(self, bare: str) -> None:
        """A back end has accepted this user: whoever is new here gets an account without credentials, whoever is
        disabled here stays out."""
        account = await self._store.run(accounts.find, bare)
        if account is None:
            await self._registration.admit(bare)
        elif not account.enabled:
            raise CallError("account-disabled")
        else:
            await self._check_ban(bare)

    async def _certificate(self, bare: str) -> bool:
        """A certificate says that this is who it is, and the edge believes it. Answers whether there is such an
        account; where the domain's users are known elsewhere, whoever is new here gets one, as by a password."""
        if domain_of(bare) in self._backends:
            await self._admit(bare)
            return True
        account = await self._store.run(accounts.find, bare)
        if account is None:
            return False
        if not account.enabled:
            raise CallError("account-disabled")
        await self._check_ban(bare)
        return True

    async def _check_ban(self, bare: str) -> None:
        """RFC 6120, 6.5.2: only who has the right credentials is told that the account is disabled, and why."""
        ban = await self._bans.get(bare)
        if ban is not None:
            raise CallError("account-disabled", told(ban))
