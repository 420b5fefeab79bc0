"""HTML by functions (c2s/http/html.py): nothing that comes from outside is markup."""

from __future__ import annotations

from base64 import b64decode
from hashlib import sha256

import pytest

from c2s.http.html import STYLE_HASH, Markup, page, tag


@pytest.mark.parametrize("text", ["<script>", "a & b", "\"'>", "</p>"])
def test_text_and_attributes_are_escaped(text: str) -> None:
    written = tag("p", text, title=text)
    inside = written.removeprefix('<p title="').removesuffix("</p>")
    assert not set("<'") & set(inside)
    assert inside.count('"') == 1
    assert inside.count(">") == 1


def test_elements_are_put_together_as_they_are() -> None:
    assert tag("p", tag("b", "x"), None, " & y", class_="c") == '<p class="c"><b>x</b> &amp; y</p>'
    assert tag("input", required=True, disabled=False, value=None, accept_charset="utf-8") == (
        '<input required accept-charset="utf-8">'
    )
    assert isinstance(tag("p"), Markup)


def test_the_style_of_a_page_is_the_one_that_its_policy_names() -> None:
    """Content Security Policy, 2.3.1: the hash is of what stands in the element."""
    style = page("T").partition("<style>")[2].partition("</style>")[0]
    assert b64decode(STYLE_HASH.removeprefix("'sha256-").removesuffix("'")) == sha256(style.encode()).digest()
    assert "&lt;" in page("<x>")
