"""What edges may ask a router (CALL): credentials checks, registration, stream features.

The proof of a SCRAM exchange is checked here, against keys that never leave the routers; PBKDF2, which PLAIN and new
passwords need, runs in a few threads, never on the event loop. A database that is away is `temporary-auth-failure`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, Final

from cluster import logs
from cluster.shards import ShardMap
from cluster.wire import ANSWER, CALL, Incarnation, Shard
from router.features.account import derive_all
from router.owner import Effects
from router.registration import Registration
from router.restrictions import told
from storage import accounts, restrictions
from storage.pool import is_away
from storage.store import Store
from xmpp import scram
from xmpp.errors import StanzaError
from xmpp.scram import Credentials

log = logs.get_logger()

THREADS: Final = 2  # for PBKDF2: more than cores would only slow the loop
THREAD_QUEUE: Final = 200  # then an attempt is told to come back later
PLAIN_HASH: Final = "SHA-1"  # of the hashes kept for an account, the one cheapest to derive
BEGUN_S: Final = 5.0  # between the salt and the proof of one exchange, its credentials are not read again
BEGUN_MOST: Final = 10_000
ASK_AGAIN_S: Final = 1.0  # a router asks another again, of the same owner or the next
ASK_TIMES: Final = 10


class CallError(Exception):
    """The answer to a call is this condition, and maybe a text for people."""

    def __init__(self, condition: str, text: str = "") -> None:
        super().__init__(condition)
        self.condition = condition
        self.text = text


class Passwords:
    """Key derivation in threads, bounded."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "pbkdf2")
        self._waiting = 0

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
        derived: tuple[Credentials, ...] = await self.run(derive_all, password)
        return derived

    def stop(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Calls:
    """Answers CALL envelopes, and asks other routers. `secret` makes the salts of accounts that do not exist."""

    def __init__(
        self,
        store: Store,
        effects: Effects,
        passwords: Passwords,
        registration: Registration,
        stream_features: Mapping[str, bytes],
        secret: bytes,
        shard_map: ShardMap,
        me: Incarnation,
        others: Mapping[str, Callable[..., Any]],
        rooms: Mapping[str, Callable[..., Awaitable[Any]]] = MappingProxyType({}),
    ) -> None:
        self._map = shard_map
        self._me = me
        self._asked: dict[str, asyncio.Future[tuple[bool, Any]]] = {}
        self._store = store
        self._effects = effects
        self._passwords = passwords
        self._registration = registration
        self._stream_features = stream_features
        self._secret = secret
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun: dict[str, tuple[float, dict[str, Credentials]]] = {}  # SCRAM: bare JID -> until when, credentials
        self._methods: dict[str, Callable[..., Awaitable[Any]]] = {
            "auth.salt": self._salt,
            "auth.proof": self._proof,
            "auth.password": self._password,
            "register": self._registration.answer,
            "admin.create": self._registration.create,
            "admin.password": self._registration.set_password,
            "admin.delete": self._registration.delete,
            "admin.kick": self._registration.kick,
            "stream_features": self._features,
            **rooms,
        }
        self._others = others  # what other parts of the router answer at once, by method

    def forget(self, bare: str) -> None:
        """The account's credentials have changed: an exchange that has begun does not end with the old ones."""
        self._begun.pop(bare, None)

    def receive(self, sender: Incarnation, request: str, method: str, arguments: tuple[Any, ...]) -> None:
        """One CALL for a shard that is owned here."""
        task = asyncio.get_running_loop().create_task(self._run(sender, request, method, arguments))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, sender: Incarnation, request: str, method: str, arguments: tuple[Any, ...]) -> None:
        ok, value = await self._answer(method, arguments)
        self._effects.send(sender, (ANSWER, request, ok, value))

    async def _answer(self, method: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
        run, answer = self._methods.get(method), self._others.get(method)
        if run is None and answer is None:
            return False, "feature-not-implemented"
        try:
            return True, answer(*arguments) if answer is not None else await run(*arguments)  # type: ignore[misc]
        except CallError as problem:
            return False, (problem.condition, problem.text) if problem.text else problem.condition
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
            if not ok:
                raise CallError(value if isinstance(value, str) else value[0])
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

    async def _read(self, bare: str) -> dict[str, Credentials]:
        """As they are now: a new password, or the end of an account, counts from the moment it is committed."""
        return await self._store.run(accounts.credentials, bare)

    async def _salt(self, bare: str, hash: str) -> tuple[bytes, int]:
        found = await self._read(bare)
        if len(self._begun) >= BEGUN_MOST:
            self._begun.clear()
        self._begun[bare] = (self._effects.monotonic() + BEGUN_S, found)
        known = found.get(hash) or scram.fake_credentials(self._secret, bare, hash)
        return known.salt, known.iterations

    async def _proof(self, bare: str, hash: str, auth_message: bytes, proof: bytes) -> bytes | None:
        valid_until, found = self._begun.pop(bare, (0.0, {}))
        if valid_until <= self._effects.monotonic():
            found = await self._read(bare)
        known = found.get(hash) or scram.fake_credentials(self._secret, bare, hash)
        signature = scram.verify_proof(known, auth_message, proof)
        if signature is not None:
            await self._check_ban(bare)
        return signature

    async def _password(self, bare: str, password: str) -> bool:
        # The same hash for real and for fake accounts, so that the time tells nothing.
        known = (await self._read(bare)).get(PLAIN_HASH) or scram.fake_credentials(self._secret, bare, PLAIN_HASH)
        is_right = bool(await self._passwords.run(scram.check_password, known, password))
        if is_right:
            await self._check_ban(bare)
        return is_right

    async def _check_ban(self, bare: str) -> None:
        """RFC 6120, 6.5.2: only who has the right credentials is told that the account is disabled, and why."""
        ban = await self._store.run(restrictions.ban_of, bare)
        if ban is not None:
            raise CallError("account-disabled", told(ban))
