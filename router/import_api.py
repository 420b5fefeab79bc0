"""The administration API of imports (docs/admin-api.md): the part of `router/api.py` behind `stentor import`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from cluster.admin import ApiError, ApiRequest, Route
from router.importing.calls import KINDS
from router.importing.checking import Malformed, checked

MOST: Final = 500  # things in a request

Call = Callable[..., Awaitable[Any]]  # a bare JID, a method of its owner, more arguments


class ImportApi:
    """The routes and what they need. `account` and `room` check a bare JID that may be here."""

    def __init__(self, call: Call, call_room: Call, account: Callable[[str], str], room: Callable[[str], str]) -> None:
        self._call = call
        self._call_room = call_room
        self._account = account
        self._room = room

    def routes(self) -> list[Route]:
        """Everything below /api/v1."""
        return [
            ("POST", "/import/users/{jid}", self._into_account),
            ("POST", "/import/rooms/{jid}", self._into_room),
        ]

    async def _into_account(self, request: ApiRequest) -> Any:
        bare, things = self._account(request.path["jid"]), _things(request, "account")
        is_dry, with_passwords = _flag(request, "dry_run"), _flag(request, "passwords")
        return _shown(await self._call(bare, "import.account", bare, things, is_dry, with_passwords))

    async def _into_room(self, request: ApiRequest) -> Any:
        bare, things = self._room(request.path["jid"]), _things(request, "room")
        return _shown(await self._call_room(bare, "import.room", things, _flag(request, "dry_run")))


def _things(request: ApiRequest, of: str) -> list[dict[str, Any]]:
    try:
        return checked(request.body.get("things"), KINDS[of], MOST)
    except Malformed as problem:
        raise ApiError(400, str(problem), "docs/admin-api.md lists kinds and keys") from None


def _flag(request: ApiRequest, key: str) -> bool:
    return request.body.get(key) is True


def _shown(results: Any) -> dict[str, Any]:
    return {"results": [{"status": status, "note": note} for status, note in results]}
