"""Service discovery payloads (XEP-0030) and the hash of entity capabilities (XEP-0115, 5.1)."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1
from typing import NamedTuple

from xmpp import ns
from xmpp.xml import element


class Identity(NamedTuple):
    """What an entity is."""

    category: str
    type: str
    name: str = ""
    lang: str = ""


class Form(NamedTuple):
    """Extended information (XEP-0128): the FORM_TYPE, and the other fields with their values."""

    form_type: str
    fields: tuple[tuple[str, tuple[str, ...]], ...]


class Info(NamedTuple):
    """What disco#info tells of an entity."""

    identities: tuple[Identity, ...]
    features: tuple[str, ...]
    forms: tuple[Form, ...] = ()


def info_payload(info: Info, node: str | None = None) -> bytes:
    """The `<query/>` of a disco#info result (XEP-0030, 3.1)."""
    identities = (
        element(
            "identity",
            None,
            {"category": i.category, "type": i.type, "name": i.name or None, "xml:lang": i.lang or None},
        )
        for i in info.identities
    )
    features = (element("feature", None, {"var": feature}) for feature in sorted(info.features))
    forms = (result_form(form) for form in info.forms)
    return element("query", ns.DISCO_INFO, {"node": node}, *identities, *features, *forms)


def items_payload(items: tuple[tuple[str, str], ...], node: str | None = None) -> bytes:
    """The `<query/>` of a disco#items result: (JID, name) pairs."""
    written = (element("item", None, {"jid": jid, "name": name or None}) for jid, name in items)
    return element("query", ns.DISCO_ITEMS, {"node": node}, *written)


def result_form(form: Form) -> bytes:
    """A form that tells something (XEP-0004, 3.1: type "result")."""
    type_ = element("field", None, {"var": "FORM_TYPE", "type": "hidden"}, element("value", None, None, form.form_type))
    fields = (
        element("field", None, {"var": var}, *(element("value", None, None, value) for value in values))
        for var, values in form.fields
    )
    return element("x", ns.DATA_FORMS, {"type": "result"}, type_, *fields)


def caps_hash(info: Info) -> str:
    """The verification string's SHA-1, base64 (XEP-0115, 5.1)."""
    return b64encode(sha1(caps_string(info).encode(), usedforsecurity=False).digest()).decode()


def caps_string(info: Info) -> str:
    """XEP-0115, 5.1: what is hashed."""
    parts = [f"{i.category}/{i.type}/{i.lang}/{i.name}<" for i in sorted(info.identities, key=_identity_order)]
    parts += [f"{feature}<" for feature in sorted(set(info.features), key=str.encode)]
    for form in sorted(info.forms, key=lambda form: form.form_type.encode()):
        parts.append(f"{form.form_type}<")
        for var, values in sorted(form.fields, key=lambda field: field[0].encode()):
            parts.append(f"{var}<")
            parts += [f"{value}<" for value in sorted(values, key=str.encode)]
    return "".join(parts)


def _identity_order(identity: Identity) -> tuple[bytes, bytes, bytes]:
    return identity.category.encode(), identity.type.encode(), identity.lang.encode()
