"""Entity capabilities (XEP-0115, XEP-0390): what a presence says of its client, and whether an answer bears it out."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Final, NamedTuple

from lxml import etree

from xmpp import ns
from xmpp.disco import Form, Identity, Info, caps_string
from xmpp.stanza import HAS_CAPS, HAS_OTHER, Stanza
from xmpp.xml import text_of

# XEP-0300's names of the hash functions that are looked at; the second version (XEP-0390) forbids the first of them.
_ALGORITHMS: Final = {"sha-1": "sha1", "sha-256": "sha256", "sha-512": "sha512", "sha3-256": "sha3_256"}
_C: Final = f"{{{ns.CAPS}}}c"
_C2: Final = f"{{{ns.CAPS_2}}}c"
_HASH: Final = "{urn:xmpp:hashes:2}hash"
_LONGEST: Final = 200  # characters of a node or a hash


class Caps(NamedTuple):
    """What a client says of itself: the hash function (None: a client of before XEP-0115 1.4, which has none), the
    hash in base64, the node of disco#info that tells the rest."""

    algorithm: str | None
    ver: str
    node: str
    is_second: bool = False  # by XEP-0390

    @property
    def name(self) -> str:
        """What tells it from all others: what is known of one client with it holds for all. "" where nothing does."""
        if self.algorithm is None:
            return ""
        return f"{'2' if self.is_second else '1'} {self.algorithm} {self.ver}"


def of_presence(presence: Stanza) -> Caps | None:
    """The capabilities in a presence, None where there are none that can be understood."""
    if not presence.flags & (HAS_CAPS | HAS_OTHER):
        return None
    if b"/caps" not in presence.inner and b":caps" not in presence.inner:
        return None
    second: Caps | None = None
    for child in presence.children():
        if child.tag == _C:
            found = _first(child)
            if found is not None:
                return found
        elif child.tag == _C2:
            second = _second(child)
    return second


def _first(c: etree._Element) -> Caps | None:
    node, ver, algorithm = c.get("node") or "", c.get("ver") or "", c.get("hash")
    if not node or not ver or max(len(node), len(ver)) > _LONGEST:
        return None
    if algorithm is not None and algorithm not in _ALGORITHMS:
        return None
    return Caps(algorithm, ver, f"{node}#{ver}")


def _second(c: etree._Element) -> Caps | None:
    known = {hash_.get("algo"): text_of(hash_).strip() for hash_ in c.iterchildren(_HASH)}
    for algorithm in ("sha-256", "sha3-256", "sha-512"):
        ver = known.get(algorithm)
        if ver and len(ver) <= _LONGEST:
            return Caps(algorithm, ver, f"{ns.CAPS_2}#{algorithm}.{ver}", is_second=True)
    return None


class IllFormed(ValueError):
    """The answer may not be looked at (XEP-0115, 5.4)."""


def info_of(query: etree._Element) -> Info:
    """What a disco#info answer tells. Raises IllFormed where it has something twice (XEP-0115, 5.4, 3)."""
    identities, features, forms = [], [], []
    for child in query:
        if child.tag == f"{{{ns.DISCO_INFO}}}identity":
            lang = child.get(f"{{{ns.XML}}}lang") or ""
            identities.append(
                Identity(child.get("category") or "", child.get("type") or "", child.get("name") or "", lang)
            )
        elif child.tag == f"{{{ns.DISCO_INFO}}}feature":
            features.append(child.get("var") or "")
        elif child.tag == f"{{{ns.DATA_FORMS}}}x":
            form = _form(child)
            if form is not None:
                forms.append(form)
    types = [form.form_type for form in forms]
    for what in (identities, features, types):
        if len(set(what)) != len(what):
            raise IllFormed("The same is there twice.")
    return Info(tuple(identities), tuple(features), tuple(forms))


def _form(x: etree._Element) -> Form | None:
    """A form with a FORM_TYPE that is hidden; any other does not count (5.4, 3.6)."""
    type_, fields = "", []
    for field in x.iterchildren(f"{{{ns.DATA_FORMS}}}field"):
        values = tuple(text_of(value) for value in field.iterchildren(f"{{{ns.DATA_FORMS}}}value"))
        if field.get("var") != "FORM_TYPE":
            fields.append((field.get("var") or "", values))
        elif field.get("type") in ("hidden", None) and len(set(values)) == 1:
            type_ = values[0]
        elif len(set(values)) > 1:
            raise IllFormed("A form has two types.")  # 5.4, 3.5
    return Form(type_, tuple(fields)) if type_ else None


def is_borne_out(caps: Caps, info: Info) -> bool:
    """Whether the hash is that of the answer: then it holds for every client with the same (XEP-0115, 5.4;
    XEP-0390, 4.1)."""
    if caps.algorithm is None:
        return False
    text = second_string(info) if caps.is_second else caps_string(info).encode()
    digest = hashlib.new(_ALGORITHMS[caps.algorithm], text, usedforsecurity=False).digest()
    try:
        return b64decode(caps.ver, validate=True) == digest and b64encode(digest).decode() == caps.ver
    except ValueError:
        return False


def second_string(info: Info) -> bytes:
    """XEP-0390, 4.1: what is hashed."""
    features = _joined(f"{feature}\x1f" for feature in info.features)
    identities = _joined(f"{i.category}\x1f{i.type}\x1f{i.lang}\x1f{i.name}\x1f\x1e" for i in info.identities)
    forms = _joined(_joined(map(_field_string, _with_type(form))) + "\x1d" for form in info.forms)
    return f"{features}\x1c{identities}\x1c{forms}\x1c".encode()


def _field_string(field: tuple[str, tuple[str, ...]]) -> str:
    var, values = field
    return f"{var}\x1f" + _joined(f"{value}\x1f" for value in values) + "\x1e"


def _with_type(form: Form) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return (("FORM_TYPE", (form.form_type,)), *form.fields)


def _joined(parts: Iterable[str]) -> str:
    return "".join(sorted(parts, key=str.encode))
