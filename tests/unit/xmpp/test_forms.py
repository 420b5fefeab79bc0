"""Data forms (XEP-0004, XEP-0068)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmpp import forms, ns
from xmpp.disco import Form
from xmpp.errors import BadRequest
from xmpp.forms import Field
from xmpp.xml import element, parse_document

TEXT = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]))


def submitted(fields: str, type: str = "submit") -> Form:
    """What is read from a form of these fields."""
    return forms.parse_submit(parse_document(f'<x xmlns="{ns.DATA_FORMS}" type="{type}">{fields}</x>'.encode()))


FORM_TYPE = '<field var="FORM_TYPE" type="hidden"><value>jabber:bot</value></field>'


def test_a_form_that_was_filled_in() -> None:
    """XEP-0004, example 3."""
    assert submitted(
        f"""{FORM_TYPE}
        <field type="text-single" var="botname"><value>The Jabber Google Bot</value></field>
        <field type="boolean" var="public"><value>0</value></field>
        <field var="features"><value>news</value><value>search</value></field>
        <field var="none"/><field var="empty"><value/></field>"""
    ) == Form(
        "jabber:bot",
        (
            ("botname", ("The Jabber Google Bot",)),
            ("public", ("0",)),
            ("features", ("news", "search")),
            ("none", ()),
            ("empty", ("",)),
        ),
    )


@pytest.mark.parametrize("fields", ["", '<field var="FORM_TYPE"/>', '<field var="a"><value>1</value></field>'])
def test_a_form_without_a_type(fields: str) -> None:
    assert submitted(fields).form_type == ""


@pytest.mark.parametrize("type", ["form", "result", "cancel", "", "Submit"])
def test_only_what_is_submitted_is_read(type: str) -> None:
    with pytest.raises(BadRequest):
        submitted(FORM_TYPE, type)


def test_a_form_without_the_attribute_type_is_refused() -> None:
    with pytest.raises(BadRequest):
        forms.parse_submit(parse_document(f'<x xmlns="{ns.DATA_FORMS}"/>'.encode()))


@pytest.mark.parametrize(
    "fields",
    ["<field><value>1</value></field>", '<field var=""/>', '<field var="a"/><field var="a"/>', FORM_TYPE + FORM_TYPE],
)
def test_a_field_has_a_name_of_its_own(fields: str) -> None:
    """3.2: "it MUST possess a 'var' attribute that uniquely identifies the field"."""
    with pytest.raises(BadRequest):
        submitted(fields)


def test_lines_for_people_are_no_fields() -> None:
    assert submitted('<title>T</title><field type="fixed"><value>Section 1</value></field>') == Form("", ())


def test_the_form_is_found_among_other_children() -> None:
    parent = parse_document(f'<query xmlns="urn:x"><x/><x xmlns="{ns.DATA_FORMS}" type="submit"/></query>'.encode())
    found = forms.find(parent)
    assert found is not None
    assert found.get("type") == "submit"
    assert forms.find(parse_document(b'<query xmlns="urn:x"><x/></query>')) is None


def test_a_form_to_fill_in() -> None:
    fields = [
        Field("with", "jid-single"),
        Field("start", label="From"),
        Field(
            "colour", "list-single", ("red",), extra=element("option", None, None, element("value", None, None, "red"))
        ),
    ]
    assert forms.to_fill_in("urn:t", fields).decode() == (
        f'<x xmlns="{ns.DATA_FORMS}" type="form"><field type="hidden" var="FORM_TYPE"><value>urn:t</value></field>'
        '<field type="jid-single" var="with"/><field type="text-single" var="start" label="From"/>'
        '<field type="list-single" var="colour"><value>red</value><option><value>red</value></option></field></x>'
    )


@given(st.dictionaries(TEXT.filter(lambda var: var not in ("", "FORM_TYPE")), st.lists(TEXT)))
def test_what_is_written_is_read(fields: dict[str, list[str]]) -> None:
    written = forms.to_fill_in("urn:t", [Field(var, "text-multi", tuple(values)) for var, values in fields.items()])
    read = forms.parse_submit(parse_document(written.replace(b'type="form"', b'type="submit"', 1)))
    assert read == Form("urn:t", tuple((var, tuple(values)) for var, values in fields.items()))
