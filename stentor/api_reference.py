"""docs/admin-api.md, made from the table of commands (`router/administration/`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from router.administration import AREAS
from router.administration.command import SCOPES, Area, Command, Parameter
from router.administration.schema import Schema

HEAD: Final = """# The administration API

Routers serve it under `/api/v1` on port 5281 (`admin.api_port`), to whoever sends `Authorization: Bearer TOKEN` with
the token of `admin.token`, or one that `stentor token create` has made; without `admin.token` it is not served. The
routers of one machine share the port, and any router answers for the whole cluster. `stentor` is a thin client of it:
`--json` prints what it answers, of a list all pages as one document.

`GET /api/v1/openapi.json` is the same as an OpenAPI 3.1 document. Both are made from one table of commands
(`router/administration/`), by which every request is checked, too.

Bodies and answers are JSON objects. A JID in a path is one percent-encoded segment (`alice@localhost%2Fhome`). Times
are RFC 3339 in UTC. What is unknown in a query or a body is an error, as is what is missing or of a wrong type. An
error has a status of 400 or more and says what is wrong and what to do:

    {"error": "alice@localhost exists", "remedy": "Choose another name"}

| status | when |
|---|---|
| 400 | no JSON object; a key missing, unknown or wrong; a domain that is not served here; what may not be |
| 401 | wrong, expired, revoked or missing token |
| 403 | the token has not the scope, which the error names |
| 404 | no such path, account, session, ... |
| 405 | the path exists, but not with this method |
| 409 | it exists, or the account's domain has its passwords elsewhere ([authentication.md](authentication.md)) |
| 413 | a body of more than 64 KiB |
| 503 | try again: the owner of the account is changing, or the database is away |

Lists come in pages: at most `limit` entries (1,000 if left out), and `next`, which is `after` of the page that follows,
or null. Take it as it is: what it is made of may change.

This page is generated from the code: `python -m stentor.reference admin-api > docs/admin-api.md`.
"""


def page() -> str:
    """The whole page."""
    scopes = "".join(f"| `{scope}` | {words} |\n" for scope, words in SCOPES.items())
    return f"{HEAD}\n## Scopes\n\n| scope | what for |\n|---|---|\n{scopes}" + "".join(map(_area, AREAS))


def _area(area: Area) -> str:
    rows = "".join(_command(command) for command in area.commands)
    text = f"\n{area.text}\n" if area.text else ""
    head = "| call | what it does | scope | `stentor` |\n|---|---|---|---|\n"
    return f"\n## {area.title}\n{text}\n{head}{_table(area)}{rows}"


def _table(area: Area) -> str:
    return "".join(
        f"| `{one.method} {one.path}` | {one.summary} | `{one.scope}` | `{one.name}` |\n" for one in area.commands
    )


def _command(command: Command) -> str:
    parts = [f"\n### {command.method} {command.path}\n\n{_sentence(command)}\n"]
    given = [one for one in command.parameters if one.name not in ("limit", "after")]
    if given:
        parts.append("\n| given | where | type | |\n|---|---|---|---|\n")
        parts += [_parameter(one) for one in given]
    parts.append(f"\n    {written(command.answer)}\n")
    return "".join(parts)


def _sentence(command: Command) -> str:
    paged = " In pages." if command.items else ""
    more = f" {command.description}" if command.description else ""
    return f"{command.summary}.{more}{paged}"


def _parameter(one: Parameter) -> str:
    needed = "" if one.place == "path" or not one.is_required else ", needed"
    return f"| `{one.name}` | {one.place}{needed} | {_type(one.schema)} | {one.description} |\n"


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(word)}`" for word in schema["enum"])
    types: Any = schema.get("type", "anything")
    names: Sequence[str] = [types] if isinstance(types, str) else types
    text = " or ".join(names)
    if names[0] == "array":
        return f"list of {_type(schema.get('items', {}))}"
    bounds = [f"{word} {schema[key]:,}" for key, word in _BOUNDS.items() if key in schema and schema[key] < 2**62]
    return f"{text}, {', '.join(bounds)}" if bounds and "string" not in names else text


_BOUNDS: Final = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}


def written(schema: Schema) -> str:
    """An answer in short: `{"users": [{"jid": string}], "next": string or null}`."""
    if "oneOf" in schema:
        return " or ".join(map(written, schema["oneOf"]))
    if "enum" in schema:
        return " | ".join(json.dumps(word) for word in schema["enum"])
    types = schema.get("type", "anything")
    names = [types] if isinstance(types, str) else list(types)
    return " or ".join(_written_as(name, schema) for name in names)


def _written_as(name: str, schema: Schema) -> str:
    if name == "array":
        return f"[{written(schema.get('items', {}))}, ...]"
    if name != "object":
        return name
    properties: Mapping[str, Schema] = schema.get("properties", {})
    if not properties and isinstance(schema.get("additionalProperties"), Mapping):
        return f"{{name: {written(schema['additionalProperties'])}, ...}}"
    return "{" + ", ".join(f'"{key}": {written(value)}' for key, value in properties.items()) + "}"
