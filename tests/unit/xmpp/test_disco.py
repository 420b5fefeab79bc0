"""Service discovery payloads (XEP-0030, XEP-0128) and the hash of capabilities (XEP-0115)."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1

from hypothesis import given
from hypothesis import strategies as st

from xmpp import ns
from xmpp.disco import Form, Identity, Info, caps_hash, info_payload, items_payload
from xmpp.xml import parse_document, text_of

FEATURES = (ns.DISCO_INFO, ns.DISCO_ITEMS, ns.MUC, ns.CAPS)
# XEP-0115, 5.2 and 5.3
SIMPLE = Info((Identity("client", "pc", "Exodus 0.9.1"),), FEATURES)
COMPLEX = Info(
    (Identity("client", "pc", "Psi 0.11", "en"), Identity("client", "pc", "\u03a8 0.11", "el")),
    FEATURES,
    (
        Form(
            "urn:xmpp:dataforms:softwareinfo",
            (
                ("ip_version", ("ipv4", "ipv6")),
                ("os", ("Mac",)),
                ("os_version", ("10.5.1",)),
                ("software", ("Psi",)),
                ("software_version", ("0.11",)),
            ),
        ),
    ),
)


def test_the_examples_of_the_xep() -> None:
    assert caps_hash(SIMPLE) == "QgayPKawpkPSDYmwT/WM94uAlu0="
    assert caps_hash(COMPLEX) == "q07IKJEyjvHSyhy//CH0CxmKi8w="


@given(
    st.permutations(COMPLEX.identities),
    st.permutations(FEATURES),
    st.permutations(COMPLEX.forms[0].fields),
    st.booleans(),
)
def test_the_order_in_which_things_are_told_is_no_matter(
    identities: list[Identity], features: list[str], fields: list[tuple[str, tuple[str, ...]]], reverse: bool
) -> None:
    form = Form(COMPLEX.forms[0].form_type, tuple((var, values[:: -1 if reverse else 1]) for var, values in fields))
    assert caps_hash(Info(tuple(identities), tuple(features), (form,))) == caps_hash(COMPLEX)


def test_a_feature_told_twice_counts_once() -> None:
    assert caps_hash(SIMPLE._replace(features=FEATURES + FEATURES)) == caps_hash(SIMPLE)


def test_whatever_is_told_is_hashed() -> None:
    others = [
        SIMPLE._replace(identities=()),
        SIMPLE._replace(identities=(Identity("client", "pc", "Exodus 0.9.2"),)),
        SIMPLE._replace(identities=(Identity("client", "phone", "Exodus 0.9.1"),)),
        SIMPLE._replace(identities=(Identity("client", "pc", "Exodus 0.9.1", "en"),)),
        SIMPLE._replace(features=FEATURES[1:]),
        SIMPLE._replace(forms=(Form("a", ()),)),
        SIMPLE._replace(forms=(Form("a", (("b", ("c",)),)),)),
        SIMPLE._replace(forms=(Form("a", (("b", ("c", "d")),)),)),
    ]
    assert len({caps_hash(info) for info in (SIMPLE, *others)}) == len(others) + 1


def test_octets_are_compared_not_letters() -> None:
    """XEP-0115, 5.1: i;octet (RFC 4790, 9.3)."""
    features = ("a", "B", "\u00e9", "z", "\U0001f600", "\uff21")
    expected = b64encode(sha1("B<a<z<\u00e9<\uff21<\U0001f600<".encode()).digest()).decode()
    assert {caps_hash(Info((), features[i:] + features[:i])) for i in range(len(features))} == {expected}


def test_info_is_told_with_everything_in_it() -> None:
    query = parse_document(info_payload(COMPLEX, "urn:node#1"))
    assert query.tag == f"{{{ns.DISCO_INFO}}}query"
    assert dict(query.attrib.items()) == {"node": "urn:node#1"}
    identities = query.findall(f"{{{ns.DISCO_INFO}}}identity")
    assert [dict(identity.attrib.items()) for identity in identities] == [
        {"category": "client", "type": "pc", "name": "Psi 0.11", f"{{{ns.XML}}}lang": "en"},
        {"category": "client", "type": "pc", "name": "\u03a8 0.11", f"{{{ns.XML}}}lang": "el"},
    ]
    assert [feature.get("var") for feature in query.findall(f"{{{ns.DISCO_INFO}}}feature")] == sorted(FEATURES)
    (form,) = query.findall(f"{{{ns.DATA_FORMS}}}x")
    assert form.get("type") == "result"
    fields = {field.get("var"): [text_of(value) for value in field] for field in form}
    assert fields == {
        "FORM_TYPE": ["urn:xmpp:dataforms:softwareinfo"],
        **{v: list(values) for v, values in COMPLEX.forms[0].fields},
    }
    assert form[0].get("type") == "hidden"  # XEP-0128, 2


def test_what_is_not_known_is_not_told() -> None:
    assert info_payload(Info((Identity("server", "im"),), ())).decode() == (
        '<query xmlns="http://jabber.org/protocol/disco#info"><identity category="server" type="im"/></query>'
    )
    assert items_payload(()) == b'<query xmlns="http://jabber.org/protocol/disco#items"/>'


def test_items_are_told_with_their_names() -> None:
    query = parse_document(items_payload((("rooms.example.org", "Rooms & more"), ("a@b/<", "")), "n"))
    assert query.tag == f"{{{ns.DISCO_ITEMS}}}query"
    assert query.get("node") == "n"
    assert [dict(item.attrib.items()) for item in query] == [
        {"jid": "rooms.example.org", "name": "Rooms & more"},
        {"jid": "a@b/<"},
    ]
