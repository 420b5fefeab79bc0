"""Signing in with a token (XEP-0484): what a c2s asks, answered from one row of the database."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from router.calls import CallError
from router.restrictions import told
from router.settings import Settings
from storage import accounts, devices, restrictions
from storage.devices import Token, Tokens
from storage.gathering import Gathering
from storage.store import Store
from xmpp import tokens

SEEN_S: Final = 900.0  # so exactly is kept when a device was seen last

# Stands where there is no token, so that its absence takes as long to find out.
_NOBODYS: Final = Token("", "", 0.0)


class TokenLogin:
    """Checks tokens and makes them."""

    def __init__(self, store: Store, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._settings = settings
        self._now = now  # Unix seconds
        self._tokens = Gathering(partial(store.run, devices.tokens))

    def methods(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """For `Calls`."""
        return {"auth.token_proof": self.check, "auth.issue": self.issue}

    async def check(
        self, bare: str, device: bytes, mechanism: str, binding: bytes, proof: bytes, is_last: bool, wanted: str,
        software: str, name: str,
    ) -> tuple[bytes | None, bool, str, float, bool]:  # fmt: skip
        """Whether a proof was made of a token of this device, for this mechanism. Returns the answer to it (None: it
        was not), whether that token has expired, a new token where one is due or `wanted` names a mechanism ("": none),
        with the Unix seconds until which it is good, and whether the device was seen just now. `is_last`: the client
        gives its token up (4.6)."""
        found = await self._tokens.get((bare, device))
        slots = (found.new, found.current) if found is not None else (None, None)
        answers = [tokens.verify((slot or _NOBODYS).token, binding, proof) for slot in slots]
        for slot, answer in zip(slots, answers, strict=True):
            if found is None or slot is None or answer is None or slot.mechanism != mechanism or not found.enabled:
                continue
            if found.banned and (ban := (await self._store.run(restrictions.bans, [bare])).get(bare)) is not None:
                raise CallError("account-disabled", told(ban))
            if slot.expires_at <= self._now():
                return None, True, "", 0.0, False
            given = await self._used(found, slot, device, is_last, wanted, software, name)
            return answer, False, *given, self._now() - found.last_seen < SEEN_S
        return None, False, "", 0.0, False

    async def _used(
        self, found: Tokens, slot: Token, device: bytes, is_last: bool, wanted: str, software: str, name: str
    ) -> tuple[str, float]:
        if is_last:
            await self._store.run(devices.invalidate, found.key, device)
        elif slot is found.new:
            await self._store.run(devices.used_new, found.key, device, slot.token)
        left = slot.expires_at - self._now()
        is_due = not is_last and left < (self._settings.token_days - self._settings.token_rotate_days) * 86_400
        if not wanted and not is_due:
            return "", 0.0
        return await self._give(found.key, device, wanted or slot.mechanism, software, name)

    async def issue(self, bare: str, device: bytes, mechanism: str, software: str, name: str) -> tuple[str, float]:
        """A token for a client that has just signed in otherwise (4.2, 4.3); ("", 0.0) where the account has gone."""
        account = await self._store.run(accounts.find, bare)
        if account is None or not account.enabled:
            return "", 0.0
        return await self._give(account.key, device, mechanism, software, name)

    async def _give(self, key: int, device: bytes, mechanism: str, software: str, name: str) -> tuple[str, float]:
        token = Token(tokens.new_token(), mechanism, self._now() + self._settings.token_days * 86_400)
        await self._store.run(devices.give, key, device, software, name, token)
        return token.token, token.expires_at
