"""JSON Schema (2020-12), as far as commands need it: how they write it, and what of a request does not fit.

The OpenAPI document tells the same schemas that requests are held to, so the two cannot differ. Only what `problem`
knows may be used in what is sent; answers may use more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

TEXT: Final[Schema] = {"type": "string"}
WORD: Final[Schema] = {"type": "string", "minLength": 1}
NUMBER: Final[Schema] = {"type": "integer"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
FLAG: Final[Schema] = {"type": "boolean"}
ID: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
JID: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 3071}
MOMENT: Final[Schema] = {"type": "string", "description": "RFC 3339; without an offset it is UTC"}

_NO_TEXT: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2

_TYPES: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "string": ((str,), "text"),
    "integer": ((int,), "a whole number"),
    "number": ((int, float), "a number"),
    "boolean": ((bool,), "true or false"),
    "object": ((dict,), "an object"),
    "array": ((list, tuple), "a list"),
    "null": ((type(None),), "null"),
}


def record(**properties: Schema) -> Schema:
    """An object that has exactly these."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def list_of(items: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": items, **more}


def map_of(values: Schema) -> Schema:
    """An object whose names are data."""
    return {"type": "object", "additionalProperties": values}


def one_of(*words: str) -> Schema:
    """One of these words."""
    return {"type": "string", "enum": list(words)}


def or_null(schema: Schema) -> Schema:
    """The same, or null. `schema` has one type."""
    words = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
    return {**schema, "type": [schema["type"], "null"], **words}


def problem(schema: Schema, value: Any) -> str | None:
    """What is wrong with a value, in words that follow its name ("is no number"); None if nothing is."""
    types = schema.get("type", [])
    names = [types] if isinstance(types, str) else list(types)
    if names and not any(_is(name, value) for name in names):
        return f"is not {' or '.join(_TYPES[name][1] for name in names)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"is none of {', '.join(str(word) for word in schema['enum'] if word is not None)}"
    if isinstance(value, str):
        return _wrong_text(schema, value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _wrong_number(schema, value)
    if isinstance(value, list | tuple):
        return _wrong_list(schema, value)
    if isinstance(value, dict):
        return _wrong_object(schema, value)
    return None


def _is(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return False
    return isinstance(value, _TYPES[name][0])


def _wrong_text(schema: Schema, value: str) -> str | None:
    if "\0" in value or (not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value)):
        return "has characters that no text has (U+0000 or half of a pair)"
    if len(value) < schema.get("minLength", 0):
        return "is empty" if not value else f"has fewer than {schema['minLength']} characters"
    if len(value) > schema.get("maxLength", len(value)):
        return f"has more than {schema['maxLength']} characters"
    if "pattern" in schema and re.search(schema["pattern"], value) is None:
        return f"is not written as {schema.get('description', schema['pattern'])}"
    return None


def _wrong_number(schema: Schema, value: float) -> str | None:
    least, most, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
    if value != value or value in (float("inf"), float("-inf")):
        return "is no number that there is"
    if above is not None and not value > above:
        return f"is not above {above}"
    if least is not None and value < least:
        return f"is below {least}"
    if most is not None and value > most:
        return f"is above {most}"
    return None


def _wrong_list(schema: Schema, value: Any) -> str | None:
    if len(value) < schema.get("minItems", 0):
        return "is empty" if not value else f"has fewer than {schema['minItems']} entries"
    if len(value) > schema.get("maxItems", len(value)):
        return f"has more than {schema['maxItems']} entries"
    for number, item in enumerate(value):
        if (found := problem(schema.get("items", {}), item)) is not None:
            return f"has an entry (the {number + 1}.) that {found}"
    return None


def _wrong_object(schema: Schema, value: Mapping[str, Any]) -> str | None:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in value:
            return f"has no {name}"
    for name, item in value.items():
        if (wrong := _wrong_text({}, name)) is not None:
            return f"has a name that {wrong}"
        inner = properties.get(name, others)
        if inner is False:
            return f"has {name}, which is unknown"
        if inner is not True and (found := problem(inner, item)) is not None:
            return f"has {name}, which {found}"
    return None
