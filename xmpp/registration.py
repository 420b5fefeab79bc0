"""In-band registration (XEP-0077): what a request gives, as elements or as a form (XEP-0004)."""

from __future__ import annotations

from lxml import etree

from xmpp import forms, ns
from xmpp.xml import child_texts


def given(query: etree._Element) -> dict[str, str]:
    """The fields by name, of the form where there is one. Raises BadRequest."""
    x = forms.find(query)
    if x is None:
        return child_texts(query, ns.REGISTER)
    return {name: values[0] for name, values in forms.parse_submit(x).fields if values}
