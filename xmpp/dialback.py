"""Server Dialback (XEP-0220): keys, and the elements <db:result/> and <db:verify/> as values.

Three servers take part. The *originating* one (XEP-0220 calls it initiating, too) sends a key on its stream; the
*receiving* one has it verified by the *authoritative* one, which it finds by DNS. Who does what on a stream, and when,
is in `s2s/dialback.py` and `s2s/outgoing.py`.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, NamedTuple

from xmpp import errors, ns
from xmpp.errors import JidError, StanzaError
from xmpp.jid import JID
from xmpp.stream import Element
from xmpp.xml import element, parse_children, split_tag

RESULT: Final = f"{ns.DIALBACK} result"
VERIFY: Final = f"{ns.DIALBACK} verify"
_TYPES: Final = (None, "valid", "invalid", "error")


class Dialback(NamedTuple):
    """One of the elements. Without a `type` it asks and has a `key`; else it answers. The addresses are prepared
    domains. `id`, of a verification only, is that of the stream on which the key was sent. `condition` is the stanza
    error condition of type "error" (XEP-0220, 2.5)."""

    name: str  # RESULT or VERIFY
    to: str
    from_: str
    id: str = ""
    type: str | None = None
    key: str = ""
    condition: str = ""


def make_key(secret: bytes, receiving: str, originating: str, stream_id: str) -> str:
    """The key of a stream (XEP-0185): whoever knows the secret can verify it, and nothing need be remembered.

    `stream_id` is the id of the header with which the receiving server has answered.
    """
    text = f"{receiving} {originating} {stream_id}"
    return hmac.new(hashlib.sha256(secret).hexdigest().encode(), text.encode(), "sha256").hexdigest()


def is_key(key: str, secret: bytes, receiving: str, originating: str, stream_id: str) -> bool:
    """Whether it is the key of this stream; how long that takes tells nothing of the right one."""
    return hmac.compare_digest(key.encode(), make_key(secret, receiving, originating, stream_id).encode())


def parse(event: Element) -> Dialback:
    """Read one of the elements; raises StreamError where a `to`, `from`, `id` or `type` is missing or is none."""
    get = event.attributes.get
    id, type = get("id", ""), get("type")
    if type not in _TYPES or (event.name == VERIFY and not id):
        raise errors.BadFormat("This is not an element of Server Dialback (XEP-0220).")
    condition = _condition(event.inner) if type == "error" else ""
    key = event.text.strip() if type is None else ""
    return Dialback(event.name, parse_domain(get("to")), parse_domain(get("from")), id, type, key, condition)


def parse_domain(text: str | None) -> str:
    """The address of a server, prepared; raises ImproperAddressing (RFC 6120, 4.9.3.7) for anything else."""
    try:
        jid = JID.parse(text or "")
    except JidError as problem:
        raise errors.ImproperAddressing("The 'to' or 'from' is missing, or is no domain.") from problem
    if jid.local or jid.resource:
        raise errors.ImproperAddressing("The 'to' and 'from' of a server are domains.")
    return jid.domain


def ask(name: str, *, to: str, from_: str, key: str, id: str = "") -> bytes:
    """`<db:result/>` with our key, or `<db:verify/>` with somebody else's (XEP-0220, 2.1)."""
    return _element(name, {"from": from_, "to": to, "id": id or None}, key)


def answer(question: Dialback, outcome: bool | StanzaError) -> bytes:
    """The answer: valid, invalid, or why that cannot be told (XEP-0220, 2.2 and 2.5)."""
    type = "error" if isinstance(outcome, StanzaError) else "valid" if outcome else "invalid"
    attributes = {"from": question.to, "to": question.from_, "id": question.id or None, "type": type}
    return _element(question.name, attributes, outcome.to_bytes() if isinstance(outcome, StanzaError) else b"")


def _element(name: str, attributes: dict[str, str | None], content: bytes | str) -> bytes:
    # COMPAT: some servers take only the prefix "db" (XEP-0220, 2.4.1); our stream header declares it.
    return element(f"db:{name.rpartition(' ')[2]}", None, attributes, content)


def _condition(inner: bytes) -> str:
    """The condition inside <error/>, "undefined-condition" where there is none."""
    for child in parse_children(inner, ns.SERVER):
        if split_tag(str(child.tag))[1] == "error":
            for part in child:
                namespace, local = split_tag(str(part.tag))
                if namespace == ns.STANZAS and local != "text":
                    return local
    return "undefined-condition"
