"""What of a request does not fit its schema, in words; the judge is jsonschema-rs, by other hands."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.administration import ALL
from router.administration.schema import Schema, list_of, map_of, one_of, or_null, problem, record


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        ({"type": "string", "minLength": 1}, "", "is empty"),
        ({"type": "string"}, 3, "is not text"),
        ({"type": "string"}, "a\0", "U+0000"),
        ({"type": "string", "maxLength": 2}, "abc", "more than 2"),
        ({"type": "integer"}, True, "whole number"),
        ({"type": "integer"}, 1.5, "whole number"),
        ({"type": "number", "exclusiveMinimum": 0}, 0, "above 0"),
        ({"type": "number"}, float("nan"), "no number"),
        ({"type": "integer", "minimum": 1, "maximum": 9}, 10, "above 9"),
        (one_of("a", "b"), "c", "a, b"),
        (list_of({"type": "string"}), ["a", 1], "the 2."),
        (map_of({"type": "string"}), {"a": 1}, "has a, which is not text"),
        (record(a={"type": "string"}), {}, "has no a"),
        (record(), {"b": 1}, "b, which is unknown"),
    ],
)
def test_what_is_wrong_is_told(schema: Schema, value: Any, words: str) -> None:
    assert words in (problem(schema, value) or "")


def test_null_is_allowed_where_it_is() -> None:
    assert problem(or_null(one_of("a")), None) is None
    assert problem(or_null({"type": "string"}), 3) == "is not text or null"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-3, 3) | st.sampled_from(["", "a", "account", "owner"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=4,
)
SCHEMAS = [one.schema for command in ALL for one in command.parameters]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SCHEMAS), VALUES)
def test_others_judge_alike(schema: Schema, value: Any) -> None:
    """Whatever commands are given, save 1.0, a whole number to JSON Schema, but not here."""
    if isinstance(value, float) and value.is_integer():
        return
    assert (problem(schema, value) is None) == jsonschema_rs.is_valid(dict(schema), value)
