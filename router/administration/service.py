"""Serves the table of commands: checks who may, reads what was given, runs the command, and says what became of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from cluster import logs
from cluster.admin import ApiError, ApiRequest, Caller, Route
from cluster.metrics import software_version
from router.administration.command import Area, Call, Command, Parameter
from router.administration.desk import Desk
from router.administration.openapi import document
from router.administration.schema import problem
from storage import audit
from xmpp.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    InternalServerError,
    ItemNotFound,
    JidError,
    ResourceConstraint,
    StanzaError,
)
from xmpp.jid import JID

log = logs.get_logger()

_FAULTS: Final[Mapping[int, type[StanzaError]]] = {
    400: BadRequest,
    403: Forbidden,
    404: ItemNotFound,
    409: Conflict,
    503: ResourceConstraint,
}


class Administration:
    """The commands of some areas."""

    def __init__(self, desk: Desk, areas: Iterable[Area]) -> None:
        self._desk = desk
        self._areas = tuple(areas)
        self._document = document(self._areas, software_version())
        self._by_name = {command.name: command for area in self._areas for command in area.commands}

    def routes(self) -> list[Route]:
        """Everything below /api/v1."""
        commands = [command for area in self._areas for command in area.commands]
        return [
            ("GET", "/openapi.json", self._describe),
            *((one.method, one.path, partial(self._answer, one)) for one in commands),
        ]

    async def _describe(self, request: ApiRequest) -> Any:
        return self._document

    async def _answer(self, command: Command, request: ApiRequest) -> Any:
        require_scope(command, request.caller)
        return await self.run(command, request.caller, given(command, request))

    async def run(self, command: Command, caller: Caller, given: Mapping[str, Any]) -> Any:
        """Run a command whose parameters are right. Raises ApiError."""
        call = Call(caller, given)
        require_admins(command, call, self._desk.settings.admins)
        if not command.writes and not command.audited:
            return await command.run(self._desk, call)
        deed, at, outcome = await self._begun(command, call), time.time(), "interrupted"
        try:
            answer = await command.run(self._desk, call)
            outcome = "done"
        except ApiError as problem:
            outcome = f"{problem.status}: {problem.error}"
            raise
        except Exception:
            outcome = "500: internal error"
            raise
        finally:
            await self._ended(deed, at, command, call, outcome)
        return answer

    async def run_for(self, bare: str, name: str, values: Mapping[str, Any]) -> Any:
        """Run a command for an administrator who has asked by an ad-hoc command. Raises StanzaError."""
        if bare not in self._desk.settings.admins:
            raise Forbidden("This is for administrators to do.")
        command = self._by_name[name]
        try:
            return await self.run(command, Caller(bare, is_account=True), checked(command, dict(values)))
        except ApiError as problem:
            raise _FAULTS.get(problem.status, InternalServerError)(f"{problem.error}. {problem.remedy}") from problem

    async def _begun(self, command: Command, call: Call) -> int | None:
        """The row of the audit log; None where the database is away: what needs no database can be done meanwhile."""
        caller, target = call.caller, command.target(call.given)
        try:
            id_: int = await self._desk.read(audit.begin, caller.name, caller.address, command.name, target)
        except ApiError:
            return None
        return id_

    async def _ended(self, deed: int | None, at: float, command: Command, call: Call, outcome: str) -> None:
        caller, target = call.caller, command.target(call.given)
        log.info(
            "administered", by=caller.name, address=caller.address, command=command.name, on=target, outcome=outcome
        )
        if deed is None:
            self._desk.later(audit.add, at, caller.name, caller.address, command.name, target, outcome)
            return
        try:
            await self._desk.read(audit.end, deed, outcome)
        except ApiError:  # the database has gone away meanwhile
            self._desk.later(audit.end, deed, outcome)


def require_scope(command: Command, caller: Caller) -> None:
    """Raises ApiError 403 where the caller may not."""
    if not caller.may(command.scope):
        raise ApiError(
            403, f"{caller.name} has not the scope {command.scope}",
            f"Make a token that has it: stentor token create NAME --scope {command.scope}",
        )  # fmt: skip


def require_admins(command: Command, call: Call, admins: frozenset[str]) -> None:
    """Raises ApiError 403 where a command makes somebody an administrator, or takes one's account over."""
    names = [call.text("jid"), f"{call.text('user')}@{call.text('domain')}"]
    if command.scope != "users:write" or call.caller.may("admins:write"):
        return
    for name in names:
        if name.strip("@") and _bare(name) in admins:
            raise ApiError(
                403, f"{call.caller.name} has not the scope admins:write, and {_bare(name)} is an administrator",
                "Use admin.token, or a token that has it; or take the account out of server.admins",
            )  # fmt: skip


def _bare(name: str) -> str:
    try:
        return JID.parse(name).bare
    except JidError:
        return ""


def given(command: Command, request: ApiRequest) -> dict[str, Any]:
    """What was given, by name, as its schemas say. Raises ApiError 400."""
    found: dict[str, Any] = {}
    for place, values in (("path", request.path), ("query", request.query), ("body", request.body)):
        for name, value in values.items():
            parameter = command.by_name.get(name)
            if parameter is None or parameter.place != place:
                raise ApiError(400, f"{name} means nothing here", _known(command))
            found[name] = _converted(parameter, value) if place != "body" else value
    return checked(command, found)


def checked(command: Command, found: dict[str, Any]) -> dict[str, Any]:
    """The same, if it is as the command wants it. Raises ApiError 400."""
    for parameter in command.parameters:
        name = parameter.name
        if name not in found:
            if parameter.is_required:
                raise ApiError(400, f"{name} is missing", f'Send a JSON object with "{name}": {parameter.description}')
        elif (wrong := problem(parameter.schema, found[name])) is not None:
            raise ApiError(400, f"{name} {wrong}", f"It is: {parameter.description}")
    return found


def _known(command: Command) -> str:
    names = [one.name for one in command.parameters if one.place != "path"]
    return f"There are: {', '.join(names)}" if names else "Nothing but the path is wanted"


def _converted(parameter: Parameter, text: str) -> Any:
    """What stands in a path or a query is text; what cannot be a number or a truth value stays so, and is refused."""
    if parameter.schema.get("type") == "integer" and len(text) < 30 and text.removeprefix("-").isdecimal():
        return int(text)
    if parameter.schema.get("type") == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return text
