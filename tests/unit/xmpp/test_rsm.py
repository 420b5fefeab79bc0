"""Result Set Management (XEP-0059)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from xmpp import ns, rsm
from xmpp.errors import BadRequest
from xmpp.rsm import Page
from xmpp.xml import parse_document

TEXT = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]))


def request(inner: str | None) -> etree._Element:
    """A request's payload, with a `<set/>` of this content or without one."""
    set_ = "" if inner is None else f'<set xmlns="{ns.RSM}">{inner}</set>'
    return parse_document(f'<query xmlns="urn:x"><other/>{set_}</query>'.encode())


@pytest.mark.parametrize(
    ("inner", "page"),
    [
        (None, Page()),
        ("", Page()),
        ("<max>10</max>", Page(max=10)),
        ("<max>0</max>", Page(max=0)),
        ("<max> 10\n</max>", Page(max=10)),
        ("<max>10</max><after>peterpan@neverland.lit</after>", Page(max=10, after="peterpan@neverland.lit")),
        ("<max>10</max><before>a</before>", Page(max=10, before="a")),
        ("<before/><max>10</max>", Page(max=10, before="")),
        ("<after/>", Page()),
        ("<max>10</max><index>371</index>", Page(max=10, index=371)),
        ("<after> a </after>", Page(after=" a ")),
        ("<max xmlns='urn:y'>10</max>", Page()),
    ],
)
def test_what_is_asked_for(inner: str | None, page: Page) -> None:
    assert rsm.parse(request(inner)) == page


@pytest.mark.parametrize("name", ["max", "index"])
@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "ten", "\u0661", "1 0", "12345678901", "0x1"])
def test_what_is_no_number_is_a_bad_request(name: str, text: str) -> None:
    with pytest.raises(BadRequest):
        rsm.parse(request(f"<{name}>{text}</{name}>"))


def test_the_examples_of_answers() -> None:
    """XEP-0059, examples 4, 8 and 15."""
    full = rsm.build(first="stpeter@jabber.org", last="peterpan@neverland.lit", index=0, count=800)
    assert full == (
        b'<set xmlns="http://jabber.org/protocol/rsm"><first index="0">stpeter@jabber.org</first>'
        b"<last>peterpan@neverland.lit</last><count>800</count></set>"
    )
    assert rsm.build(count=790) == b'<set xmlns="http://jabber.org/protocol/rsm"><count>790</count></set>'
    assert rsm.build() == b'<set xmlns="http://jabber.org/protocol/rsm"/>'


def test_what_is_not_known_is_not_told() -> None:
    """2.2: the count and the index MAY be omitted."""
    assert rsm.build(first="a", last="b") == b'<set xmlns="%b"><first>a</first><last>b</last></set>' % ns.RSM.encode()


def test_an_empty_page_has_no_ends() -> None:
    """2.2: "If there are no items in the page, then the <first/> and <last/> elements MUST NOT be included"."""
    assert rsm.build(index=5, count=7) == b'<set xmlns="%b"><count>7</count></set>' % ns.RSM.encode()


@given(TEXT, TEXT)
def test_ids_are_whatever_text_they_are(first: str, last: str) -> None:
    set_ = parse_document(rsm.build(first=first, last=last))
    assert [child.text or "" for child in set_] == [first, last]
