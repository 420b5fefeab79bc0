"""What a registration request gives (xmpp/registration.py; XEP-0077, 3.1 and 4)."""

from __future__ import annotations

import pytest

from xmpp import ns, registration
from xmpp.errors import BadRequest
from xmpp.xml import parse_children


def given(inner: str) -> dict[str, str]:
    (query,) = parse_children(f'<query xmlns="{ns.REGISTER}">{inner}</query>'.encode())
    return registration.given(query)


def test_elements_or_a_form() -> None:
    wanted = {"username": "bill", "password": "Calliope"}
    elements = "<username>bill</username><password>Calliope</password>"
    fields = "".join(f'<field var="{name}"><value>{value}</value></field>' for name, value in wanted.items())
    form = f'<x xmlns="{ns.DATA_FORMS}" type="submit">{fields}<field var="email"/></x>'
    assert given(elements) == given(form) == wanted
    assert given(elements.replace("bill", "mallory") + form) == wanted, "4: the form has precedence"
    assert given("") == {}


def test_a_form_that_is_none_is_a_bad_request() -> None:
    with pytest.raises(BadRequest):
        given(f'<x xmlns="{ns.DATA_FORMS}" type="form"/>')
