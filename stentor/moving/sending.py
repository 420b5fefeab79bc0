"""An import as it runs: things in requests of a bearable size, and what became of each kind."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from zlib import crc32

from stentor.client import Api, Refused, segment
from stentor.failure import Failed
from stentor.moving.domains import Domains
from stentor.moving.things import (
    Account,
    Affiliation,
    LeftOut,
    Message,
    Owned,
    Room,
    Source,
    Thing,
    Unreadable,
    as_json,
)

THINGS: Final = 250
BYTES: Final = 400_000  # of a request, as far as one thing alone has not more
THING_BYTES: Final = 1_200_000  # more than anything may have
REASONS: Final = 10_000  # different ones that are remembered
EXAMPLES: Final = 3
TRIES: Final = 10
WORKERS: Final = 6  # requests at once: the database commits several together

Existing = Literal["merge", "skip", "fail"]
Progress = Callable[[str], None]


@dataclass(slots=True)
class Reason:
    """Why some things did not come along: how many, and whose the first ones were."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Summary:
    """What became of everything, by kind."""

    imported: Counter[str] = field(default_factory=Counter)
    there: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    signing_in: Counter[str] = field(default_factory=Counter)  # accounts of the source, by what it knows of passwords
    reasons: dict[tuple[str, str], Reason] = field(default_factory=dict)

    def note(self, kind: str, why: str, jid: str) -> None:
        """Something of this kind, or a part of it, did not come along."""
        key = (kind, why)
        if key not in self.reasons and len(self.reasons) >= REASONS:
            key = (kind, "other reasons, of which there are too many to list")
        reason = self.reasons.setdefault(key, Reason())
        reason.count += 1
        if len(reason.examples) < EXAMPLES and jid not in reason.examples:
            reason.examples.append(jid)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        reasons = [
            {"kind": kind, "why": why, "count": reason.count, "examples": reason.examples}
            for (kind, why), reason in sorted(self.reasons.items())
        ]
        names = ("imported", "there", "left_out", "signing_in")
        counts = {name: dict(sorted(getattr(self, name).items())) for name in names}
        return {**counts, "reasons": reasons}


class Sender:
    """Brings a source into a cluster. `existing`: what is done about accounts that are here before; `passwords`: also
    they get the passwords of the source."""

    def __init__(
        self, api: Api, source: Source, domains: Domains, existing: Existing, *, is_dry: bool, passwords: bool,
        progress: Progress,
    ) -> None:  # fmt: skip
        self._api = api
        self._source = source
        self._domains = domains
        self._existing = existing
        self._is_dry = is_dry
        self._of_users = {"passwords": passwords}
        self._progress = progress
        self._skipped: set[str] = set()
        self._refused: dict[str, str] = {}  # accounts and rooms that cannot be here, or their domains, and why
        self._rooms: set[str] = set()
        self._jid = ""
        self._batch: list[tuple[Thing, dict[str, Any]]] = []
        self._size = 0
        self._told_at = 0.0
        self._sent = 0
        self._workers = [ThreadPoolExecutor(1, f"import-{number}") for number in range(WORKERS)]
        self._room = threading.BoundedSemaphore(2 * WORKERS)  # for requests that wait: memory is bounded
        self._futures: deque[Future[None]] = deque()
        self._counting = threading.Lock()
        self._has_ended = threading.Event()
        self.summary = Summary()

    def run(self) -> None:
        """All of it. Raises Failed; Unreadable where the source cannot be read on. What was imported until then is in
        the summary."""
        try:
            if self._existing != "merge":
                self._look_for_existing()
            self._send_all(self._source.accounts())
            self._send_all(self._source.data())
        finally:
            self._has_ended.set()
            for worker in self._workers:
                worker.shutdown(cancel_futures=True)  # what is under way comes to its end, and is counted

    def _look_for_existing(self) -> None:
        for jid, _ in self._source.accounts():
            jid = self._domains.jid(jid)
            if not _is_utf8(jid):
                continue
            try:
                self._call("GET", f"/users/{segment(jid)}")
            except Refused as problem:
                if problem.status not in (400, 404):
                    raise
                continue
            if self._existing == "fail":
                raise Failed(
                    f"{jid} exists here already, and nothing was imported. Give --existing merge, or skip, or delete it"
                )
            self._skipped.add(jid)

    def _send_all(self, things: Iterable[Owned]) -> None:
        try:
            for owned in things:
                self._send(owned)
        except Unreadable:
            self._flush()  # what was read until then is right
            self._wait()
            raise
        self._flush()
        self._wait()

    def _send(self, owned: Owned) -> None:
        jid, thing = self._domains.moved(owned)
        if not _is_utf8(jid):
            self._leave_out(thing.kind, "the name of its owner is not UTF-8", repr(jid))
            return
        if isinstance(thing, Account):
            self.summary.signing_in[_means(thing)] += 1
        if jid in self._skipped:
            if isinstance(thing, Account):
                self._leave_out("account", "it exists (--existing skip), so that nothing of it was imported", jid)
            return
        if isinstance(thing, LeftOut):
            self._leave_out(thing.what, thing.why, jid)
            return
        if isinstance(thing, Room | Affiliation) or (isinstance(thing, Message) and thing.nick):
            self._rooms.add(jid)
        self._add(jid, thing)

    def _add(self, jid: str, thing: Thing) -> None:
        given = as_json(thing)
        try:
            size = len(json.dumps(given, ensure_ascii=False).encode())
        except UnicodeEncodeError:
            self._leave_out(thing.kind, "it has text that is not UTF-8", jid)
            return
        if size > THING_BYTES:
            self._leave_out(thing.kind, f"it is larger than {THING_BYTES} bytes", jid)
            return
        if jid != self._jid or self._size + size > BYTES or len(self._batch) >= THINGS:
            self._flush()
        self._jid = jid
        self._batch.append((thing, given))
        self._size += size

    def _flush(self) -> None:
        """Hand the batch to a worker: always the same one for an account or a room, so that order is kept."""
        batch, jid = self._batch, self._jid
        self._batch, self._size = [], 0
        if not batch:
            return
        while self._futures and self._futures[0].done():
            self._futures.popleft().result()
        self._room.acquire()
        worker = self._workers[crc32(jid.encode()) % WORKERS]
        self._futures.append(worker.submit(self._request, jid, batch))
        if time.monotonic() - self._told_at > 1:
            self._told_at = time.monotonic()
            self._progress(f"{self._sent} things, now those of {jid}")

    def _wait(self) -> None:
        while self._futures:
            self._futures.popleft().result()

    def _request(self, jid: str, batch: list[tuple[Thing, dict[str, Any]]]) -> None:
        """In a worker's thread: one request, and what became of it."""
        try:
            why = self._refused.get(jid)
            answer: Any = None
            if why is None:
                what, more = ("rooms", {}) if jid in self._rooms else ("users", self._of_users)
                body = {"things": [given for _, given in batch], "dry_run": self._is_dry, **more}
                try:
                    answer = self._call("POST", f"/import/{what}/{segment(jid)}", body)
                except Refused as problem:
                    if problem.status not in (400, 404, 409):
                        raise
                    why = self._refused[jid] = str(problem)
            with self._counting:
                for index, (thing, _) in enumerate(batch):
                    if why is not None:
                        self._left_out(thing.kind, why, jid)
                    else:
                        result = answer["results"][index]
                        self._count(thing.kind, result["status"], result["note"], jid)
                self._sent += len(batch)
        finally:
            self._room.release()

    def _count(self, kind: str, status: str, note: str, jid: str) -> None:
        if status == "left_out":
            self._left_out(kind, note, jid)
            return
        (self.summary.imported if status == "imported" else self.summary.there)[kind] += 1
        if note:
            self.summary.note(f"part of {kind}", note, jid)

    def _leave_out(self, kind: str, why: str, jid: str) -> None:
        """Something that no request is made for."""
        with self._counting:
            self._left_out(kind, why, jid)

    def _left_out(self, kind: str, why: str, jid: str) -> None:
        self.summary.left_out[kind] += 1
        self.summary.note(kind, why, jid)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """A call, again while the cluster says to try again: an owner that moves, a router that restarts."""
        pause = 0.5
        for last in [False] * (TRIES - 1) + [True]:
            try:
                return self._api.call(method, path, body)
            except Refused as problem:
                if problem.status != 503 or last:
                    raise
            except Failed:
                if last:
                    raise
            if self._has_ended.wait(pause):
                break
            pause = min(pause * 2, 10)
        raise Failed("the import has ended before this was imported")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _means(account: Account) -> str:
    """By what somebody can sign in."""
    if account.credentials:
        return ", ".join(sorted(f"SCRAM-{one.hash}" for one in account.credentials))
    return "a password" if account.password else "nothing"
