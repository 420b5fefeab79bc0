"""Data forms (XEP-0004): reading what was filled in, writing what is to be. Forms that tell something (type "result")
are in `xmpp/disco.py`, whose `Form` is the value here, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from lxml import etree

from xmpp import ns
from xmpp.disco import Form
from xmpp.errors import BadRequest
from xmpp.xml import element, text_of

FORM_TYPE: Final = "FORM_TYPE"  # XEP-0068: the field that says whose names the others are
_X: Final = f"{{{ns.DATA_FORMS}}}x"
_FIELD: Final = f"{{{ns.DATA_FORMS}}}field"
_VALUE: Final = f"{{{ns.DATA_FORMS}}}value"


class Field(NamedTuple):
    """A field to be filled in. `extra` is further content, serialised: options, or how values are checked
    (XEP-0122)."""

    var: str
    type: str = "text-single"
    values: tuple[str, ...] = ()
    label: str | None = None
    extra: bytes = b""


def find(parent: etree._Element) -> etree._Element | None:
    """The form that is a child of this element."""
    return parent.find(_X)


def parse_submit(x: etree._Element) -> Form:
    """A form that was filled in; its `form_type` is "" where it names none. Raises BadRequest."""
    if x.get("type") != "submit":
        raise BadRequest("The form is not of type 'submit'.")
    fields: dict[str, tuple[str, ...]] = {}
    for field in x.iterchildren(_FIELD):
        var = field.get("var")
        if var is None and field.get("type") == "fixed":
            continue  # 3.2: a line of text for people
        if not var:
            raise BadRequest("A field has no 'var'.")
        if var in fields:
            raise BadRequest(f"The field '{var[:100]}' is there twice.")  # 3.2: 'var' is unique
        fields[var] = tuple(text_of(value) for value in field.iterchildren(_VALUE))
    form_type = fields.pop(FORM_TYPE, ())
    return Form(form_type[0] if form_type else "", tuple(fields.items()))


def to_fill_in(form_type: str, fields: Iterable[Field]) -> bytes:
    """An empty form (type "form")."""
    written = [_field(Field(FORM_TYPE, "hidden", (form_type,))), *map(_field, fields)]
    return element("x", ns.DATA_FORMS, {"type": "form"}, *written)


def to_table(form_type: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """Several items with the same fields (3.4)."""
    reported = element("reported", None, None, *(element("field", None, {"var": column}) for column in columns))
    items = [
        element(
            "item",
            None,
            None,
            *(_field(Field(column, "", (value,))) for column, value in zip(columns, row, strict=True)),
        )
        for row in rows
    ]
    return element(
        "x", ns.DATA_FORMS, {"type": "result"}, _field(Field(FORM_TYPE, "hidden", (form_type,))), reported, *items
    )


def _field(field: Field) -> bytes:
    values = (element("value", None, None, value) for value in field.values)
    attributes = {"type": field.type or None, "var": field.var, "label": field.label}
    return element("field", None, attributes, *values, field.extra)
