"""The OpenAPI 3.1 document of the administration API, made from the table of commands."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from router.administration.command import SCOPES, Area, Command, Parameter
from router.administration.schema import TEXT, Schema, record

ROOT: Final = "/api/v1"
ERROR: Final = record(error=TEXT, remedy=TEXT)
ALWAYS: Final = (400, 401, 403, 413, 500, 503)


def document(areas: Iterable[Area], version: str) -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    tags = []
    for area in areas:
        tags.append({"name": area.title, "description": area.text})
        for command in area.commands:
            paths.setdefault(ROOT + command.path, {})[command.method.lower()] = _operation(area, command)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Administration of Stentor", "version": version, "license": {"name": "Apache-2.0"}},
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "`admin.token`, or `stentor token create`"}
            },
        },
        "security": [{"token": []}],
    }


def _operation(area: Area, command: Command) -> dict[str, Any]:
    statuses = sorted({*ALWAYS, *command.errors, *((404,) if "{" in command.path else ())})
    found: dict[str, Any] = {
        "operationId": command.name,
        "tags": [area.title],
        "summary": command.summary,
        "description": f"{command.description}\n\nScope: `{command.scope}`, {SCOPES[command.scope]}.".strip(),
        "x-scope": command.scope,
        "parameters": [_parameter(one) for one in command.parameters if one.place != "body"],
        "responses": {
            "200": {"description": "Done", "content": _json(command.answer)},
            **{str(status): _error(status) for status in statuses},
        },
    }
    fields = [one for one in command.parameters if one.place == "body"]
    if fields:
        required = any(one.is_required for one in fields)
        found["requestBody"] = {"required": required, "content": _json(_object(fields))}
    return found


def _parameter(one: Parameter) -> dict[str, Any]:
    return {
        "name": one.name,
        "in": one.place,
        "required": one.is_required,
        "description": one.description,
        "schema": one.schema,
    }


def _object(fields: Iterable[Parameter]) -> Schema:
    fields = tuple(fields)
    return {
        "type": "object",
        "properties": {one.name: {"description": one.description, **one.schema} for one in fields},
        "required": [one.name for one in fields if one.is_required],
        "additionalProperties": False,
    }


def _json(schema: Schema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _error(status: int) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": _json({"$ref": "#/components/schemas/Error"})}
