"""The public keys of an identity provider (JWKS, RFC 7517), kept while it is away.

They are fetched anew when they are old, or when a token names one that is not among them, which is how a provider
changes its keys: but not more often than `refetch_s`, for tokens that strangers make up name any key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from router.backends.backend import Away

MOST_KEYS: Final = 100

Key = dict[str, Any]


class KeySet:
    """The keys of one provider."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Sequence[Key]]],
        now: Callable[[], float],
        *,
        refetch_s: float,
        refresh_s: float,
        keep_s: float,
    ) -> None:
        """`fetch` raises Away. `now` is monotonic seconds."""
        self._fetch = fetch
        self._now = now
        self._refetch_s = refetch_s
        self._refresh_s = refresh_s
        self._keep_s = keep_s
        self._keys: Sequence[Key] = ()
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._problem = "the keys of the provider were never fetched"

    async def named(self, kid: str | None) -> list[Key]:
        """The keys of this id, all where it is None; empty if the provider has none such. Raises Away where that
        cannot be known."""
        found = self._usable(kid)
        if not found:
            if self._may_fetch():
                await self._fetched()
                found = self._usable(kid)
            if not found and (self._problem or self._is_too_old()):
                raise Away(self._problem or "the keys of the provider are too old")
        elif self._now() - self._fetched_at >= self._refresh_s and self._may_fetch():
            self._begin()  # nobody waits for it: what is here is good
        return found

    async def stop(self) -> None:
        """Give up a fetch."""
        if self._fetching is not None:
            self._fetching.cancel()

    def _usable(self, kid: str | None) -> list[Key]:
        if self._is_too_old():
            return []
        return [key for key in self._keys if kid is None or key.get("kid") == kid]

    def _is_too_old(self) -> bool:
        return self._now() - self._fetched_at > self._keep_s

    def _may_fetch(self) -> bool:
        return self._fetching is not None or self._now() - self._tried_at >= self._refetch_s

    def _begin(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._tried_at = self._now()
            self._fetching = asyncio.get_running_loop().create_task(self._run())
        return self._fetching

    async def _fetched(self) -> None:
        await asyncio.shield(self._begin())  # others may wait for it, too

    async def _run(self) -> None:
        try:
            self._keys = tuple(await self._fetch())[:MOST_KEYS]
            self._fetched_at = self._now()
            self._problem = ""
        except Away as problem:
            self._problem = str(problem)
        finally:
            self._fetching = None
