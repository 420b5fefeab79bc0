"""Building and reading small pieces of XML with plain functions.

Written pieces are bytes, made by string work alone; lxml is used only to read the inside of one stanza, on demand.
Streams are never given to lxml (see `xmpp/stream.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lxml import etree

ATTRIBUTE_SPECIAL = re.compile(r'[&<>"\t\n\r]')
_ATTRIBUTE_ESCAPES = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "\t": "&#9;",
    "\n": "&#10;",
    "\r": "&#13;",
}
_TEXT_SPECIAL = re.compile(r"[&<>\r]")

# One parser for the inside of stanzas: no entities, no DTD, no network (RFC 6120, 11.1). `recover`, because libxml2
# would refuse namespace names that are no URIs, which are well-formed all the same (Namespaces in XML 1.0, 2.1).
_PARSER = etree.XMLParser(
    resolve_entities=False,
    no_network=True,
    load_dtd=False,
    remove_comments=False,
    huge_tree=False,
    collect_ids=False,
    recover=True,
)


def escape_attribute(value: str) -> str:
    """Escape a value for a double-quoted attribute; tab, newline and carriage return would otherwise be normalised."""
    if ATTRIBUTE_SPECIAL.search(value) is None:
        return value
    return ATTRIBUTE_SPECIAL.sub(lambda match: _ATTRIBUTE_ESCAPES[match[0]], value)


def escape_text(value: str) -> str:
    """Escape character data; `>` too, because `]]>` may not appear in it (XML 1.0, 2.4)."""
    if _TEXT_SPECIAL.search(value) is None:
        return value
    return _TEXT_SPECIAL.sub(lambda match: _ATTRIBUTE_ESCAPES[match[0]], value)


def element(
    name: str,
    xmlns: str | None = None,
    attributes: Mapping[str, str | None] | None = None,
    *children: bytes | str,
) -> bytes:
    """Serialise one element. Children that are `bytes` are XML already; a `str` is text and is escaped.

    Attributes whose value is None are left out.
    """
    parts = [f"<{name}"]
    if xmlns is not None:
        parts.append(f' xmlns="{escape_attribute(xmlns)}"')
    if attributes:
        for key, value in attributes.items():
            if value is not None:
                parts.append(f' {key}="{escape_attribute(value)}"')
    start = "".join(parts).encode()
    inner = b"".join(child if isinstance(child, bytes) else escape_text(child).encode() for child in children)
    if not inner:
        return start + b"/>"
    return b"%b>%b</%b>" % (start, inner, name.encode())


def parse_children(inner: bytes, default_namespace: str = "jabber:client") -> list[etree._Element]:
    """Parse the inside of a stanza into its child elements.

    `inner` comes from a stream parser that has already held it to the limits of restricted XML.
    """
    root = etree.fromstring(b'<stanza xmlns="%b">%b</stanza>' % (default_namespace.encode(), inner), _PARSER)
    return [child for child in root if isinstance(child.tag, str)]


def serialise(node: etree._Element) -> bytes:
    """The bytes of one parsed element, with the namespace declarations it needs to stand alone; no tail text."""
    return etree.tostring(node, with_tail=False)


def text_of(node: etree._Element | None) -> str:
    """The text of an element, "" where there is none."""
    return (node.text or "") if node is not None else ""


def child_texts(node: etree._Element, namespace: str) -> dict[str, str]:
    """The text of each child in this namespace, by its local name."""
    names = [(split_tag(str(child.tag)), child) for child in node]
    return {local: text_of(child) for (of, local), child in names if of == namespace}


def parse_document(document: bytes) -> etree._Element:
    """Parse bytes that a stream parser has accepted, with the declarations that surround them."""
    return etree.fromstring(document, _PARSER)


def canonical(node: etree._Element, default_namespace: str) -> bytes:
    """The content of an element written so that it means the same wherever `default_namespace` is the default:
    every namespace declared where it is used, none for the default itself."""
    parts = [escape_text(node.text or "").encode()]
    for child in node:
        parts.append(canonical_element(child, default_namespace))
        parts.append(escape_text(child.tail or "").encode())
    return b"".join(parts)


def canonical_element(node: etree._Element, default_namespace: str) -> bytes:
    """One element in that form, itself included."""
    namespace, local = split_tag(str(node.tag))
    head = f"<{local}"
    if namespace != default_namespace:
        head += f' xmlns="{escape_attribute(namespace)}"'
    for index, (key, value) in enumerate(node.attrib.items()):
        of, attribute = split_tag(str(key))
        if not of:
            head += f' {attribute}="{escape_attribute(str(value))}"'
        elif of == "http://www.w3.org/XML/1998/namespace":
            head += f' xml:{attribute}="{escape_attribute(str(value))}"'
        else:
            head += f' xmlns:n{index}="{escape_attribute(of)}" n{index}:{attribute}="{escape_attribute(str(value))}"'
    inner = canonical(node, namespace)
    if not inner:
        return head.encode() + b"/>"
    return b"%b>%b</%b>" % (head.encode(), inner, local.encode())


def split_tag(name: str) -> tuple[str, str]:
    """The namespace and the local name in lxml's "{namespace}local". A namespace name may have braces too, which
    `etree.QName` refuses."""
    if not name.startswith("{"):
        return "", name
    namespace, _, local = name[1:].rpartition("}")
    return namespace, local
