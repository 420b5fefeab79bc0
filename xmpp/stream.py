"""An XML stream (RFC 6120, 4 and 11): bytes in, events out; restricted XML within hard limits. No sockets.

One expat parser checks well-formedness and finds boundaries; no tree is built. A stanza is cut out of the input: its
attributes come unescaped from expat, its inner bytes stay as they came, unless they would mean something else in
another stream (declarations outside of them, or an explicit content namespace); then they are written anew.

Two ways to drive it. While a stream is negotiated, `push` and `next_event` go one event at a time, because what
follows may belong to a new stream (`restart`). Afterwards `feed` returns everything that a read completes.

Where the stream comes in frames (RFC 7395, 3.3), each is one first-level element, no more and no less.
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from xml.parsers import expat

from lxml import etree

from xmpp import errors, ns
from xmpp import stanza as stanzas
from xmpp.errors import StreamError
from xmpp.stanza import KINDS, Stanza
from xmpp.xml import canonical, escape_attribute, parse_document, split_tag

CLOSE_STREAM: Final = b"</stream:stream>"

# Every piece of a stanza is joined to what came before it, and expat reads an unfinished tag again from its beginning:
# for n bytes in pieces of p that is n² / 2p bytes, half a minute of computing for 256 KiB that come one by one. As much
# is done as the largest stanza needs in pieces of 80 bytes: no network makes them smaller.
SMALLEST_PIECE: Final = 80
REREAD_BYTES: Final = 262_144**2 // (2 * SMALLEST_PIECE)  # so much at least, however small the limits are

# A start tag: anything but quotes and '>', or quoted runs. Both '>' inside quotes and '/>' inside text are legal.
_START_TAG: Final = re.compile(rb"""<(?:[^>"']|"[^"]*"|'[^']*')*>""")
_ATTRIBUTE: Final = re.compile(rb"""\s([^\s=]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_LANG: Final = f"{ns.XML} lang"
_COMMON: Final = frozenset({"to", "from", "type", "id", _LANG})

# The content namespace of XEP-0114, and what is read as the same. COMPAT: slixmpp 1.17 writes the errors of a component
# in 'jabber:client', with `use_jc_ns` its stanzas, too; what it forwards (XEP-0297) is of the component's namespace.
_ALIAS: Final = {ns.COMPONENT: ns.CLIENT}
_HANDSHAKE: Final = f"{ns.COMPONENT} handshake"  # no stanza, and yet of the content namespace
_UNDEFINED_ENTITY: Final = expat.errors.codes[expat.errors.XML_ERROR_UNDEFINED_ENTITY]

_CHILD_FLAGS: Final = {
    f"{ns.RECEIPTS} request": stanzas.HAS_RECEIPT_REQUEST,
    f"{ns.RECEIPTS} received": stanzas.HAS_RECEIPT,
    f"{ns.HINTS} store": stanzas.HINT_STORE,
    f"{ns.HINTS} no-store": stanzas.HINT_NO_STORE,
    f"{ns.HINTS} no-permanent-store": stanzas.HINT_NO_PERMANENT_STORE,
    f"{ns.HINTS} no-copy": stanzas.HINT_NO_COPY,
    f"{ns.CARBONS} private": stanzas.CARBONS_PRIVATE,
    f"{ns.CAPS} c": stanzas.HAS_CAPS,
    f"{ns.MUC} x": stanzas.HAS_MUC,
    f"{ns.MUC_USER} x": stanzas.HAS_MUC_USER,
    f"{ns.DELAY} delay": stanzas.HAS_DELAY,
    f"{ns.PUBSUB_EVENT} event": stanzas.HAS_EVENT,
    f"{ns.MAM} result": stanzas.HAS_EVENT,
    f"{ns.IBB} data": stanzas.HAS_EVENT,
    f"{ns.RTT} rtt": stanzas.HAS_EVENT,
    f"{ns.DISPLAYED} displayed": stanzas.HAS_SYNC,
    f"{ns.SID} stanza-id": stanzas.HAS_STANZA_ID,
    f"{ns.SID} origin-id": stanzas.HAS_ORIGIN_ID,
    **{f"{ns.CHAT_STATES} {s}": stanzas.HAS_CHAT_STATE for s in ("active", "composing", "paused", "inactive", "gone")},
    **{f"{ns.MARKERS} {m}": stanzas.HAS_MARKER for m in ("received", "displayed", "acknowledged")},
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one first-level element may be: bytes in all, levels of nesting, attributes of one element, elements."""

    stanza_bytes: int = 262_144
    depth: int = 64
    attributes: int = 64
    elements: int = 5_000


_ONE: Final = "Each message is one element, no more and no less (RFC 7395, 3.3)."

_PREFIX: Final = re.compile(rb"<[^\s/>:]+:")  # of an element's name


class StreamOpen(NamedTuple):
    """A stream header (RFC 6120, 4.7). Addresses are as the peer wrote them."""

    to: str | None
    from_: str | None
    id: str | None
    version: str | None
    lang: str | None
    attributes: dict[str, str]
    has_dialback: bool = False  # a prefix of Server Dialback is declared (XEP-0220, 2.4.1)


class Element(NamedTuple):
    """A first-level element that is no stanza. `name` is "namespace local"."""

    name: str
    attributes: dict[str, str]
    inner: bytes

    @property
    def text(self) -> str:
        """Its character data."""
        return _text(self.inner) if b"<" in self.inner or b"&" in self.inner else self.inner.decode()


class StreamClose(NamedTuple):
    """`</stream:stream>`: the peer sends no more; nothing after it is read."""


class Violation(NamedTuple):
    """The peer broke a rule; nothing after it is read. The stream ends with this error."""

    error: StreamError


Event = Stanza | StreamOpen | Element | StreamClose | Violation


def open_stream(
    *, namespace: str, from_: str, id: str | None = None, to: str | None = None, lang: str | None = None,
    version: str | None = "1.0",
) -> bytes:  # fmt: skip
    """Our stream header (RFC 6120, 4.7); one between servers declares the prefix of dialback (XEP-0220, 2.4.1). Who
    opens the connection gives no `id`; `version` is None where no stream features follow (XEP-0114)."""
    attributes = {"version": version, "from": from_, "to": to, "id": id, "xml:lang": lang}
    written = "".join(f' {name}="{escape_attribute(value)}"' for name, value in attributes.items() if value)
    prefixes = f'xmlns:stream="{ns.STREAMS}"'
    if namespace == ns.SERVER:
        prefixes += f' xmlns:db="{ns.DIALBACK}"'
    return f'<?xml version="1.0"?><stream:stream xmlns="{namespace}" {prefixes}{written}>'.encode()


class StreamParser:
    """The parser of one direction of one connection; it lives through stream restarts."""

    __slots__ = (
        "_alias", "_attributes", "_base", "_begin", "_buffer", "_content", "_depth", "_elements", "_end", "_events",
        "_expat", "_flag_of", "_flags", "_frames", "_has_db", "_header", "_is_dead", "_is_slow", "_is_stepping",
        "_is_stopped", "_name", "_payload", "_reread", "_root_attributes", "_tail", "limits",
    )  # fmt: skip

    def __init__(self, content_namespace: str, limits: Limits, *, is_framed: bool = False) -> None:
        self.limits = limits
        self._frames: deque[bytes] | None = deque() if is_framed else None  # pushed and not yet parsed
        self._content = content_namespace
        self._alias = _ALIAS.get(content_namespace, content_namespace)
        self._flag_of = dict(_CHILD_FLAGS)
        for namespace in (self._content, self._alias):
            self._flag_of |= {
                f"{namespace} body": stanzas.HAS_BODY,
                f"{namespace} subject": stanzas.HAS_SUBJECT,
                f"{namespace} thread": stanzas.HAS_THREAD,
                f"{namespace} error": stanzas.HAS_ERROR,
            }
        self._expat: Any = None
        self._header = b""  # the peer's header, as seen; b"" before
        self._is_slow = False  # the header declares more than it needs: every stanza is written anew
        self._has_db = False  # the header declares "db", as between servers: stanzas that use it are written anew
        self._is_stepping = True
        self._is_stopped = False
        self._is_dead = False
        self._tail = b""  # pushed and not yet parsed (stepping), or the beginning of a stanza (flowing)
        self._reset()

    def _reset(self) -> None:
        self._buffer = b""
        self._base = 0  # expat's index of the buffer's first byte
        self._end = 0  # expat's index behind what is finished
        self._depth = 0
        self._begin = 0
        self._name = ""
        self._attributes: dict[str, str] = {}
        self._root_attributes: dict[str, str] = {}
        self._flags = 0
        self._payload: str | None = None
        self._elements = 0
        self._reread = 0  # bytes that were held back before, in sum over the pieces of what is not finished
        self._events: list[Event] = []

    # --- driving it

    def push(self, data: bytes) -> None:
        """Keep input for `next_event`; where it comes in frames, this is one."""
        if self._frames is None:
            self._tail += data
        else:
            self._frames.append(data)

    def next_event(self) -> Event | None:
        """The next event of what was pushed, None if more input is needed."""
        if self._is_dead or not (self._tail or self._events or self._frames):
            return None
        if not self._events:
            if self._frames:
                self._tail = self._frames.popleft()
            data, self._tail = self._tail, b""
            if not self._header and self._expat is None:
                # COMPAT: go-sendxmpp 0.5 (go-xmpp) ends <auth/> with a line feed, against RFC 6120, 6.3.5. Without a
                # security layer it is nothing; left before the XML declaration of the new stream it would be an error.
                data = data.lstrip(b" \t\r\n")
                if not data:
                    return None
            self._is_stopped = False
            self._parse(data)
            if self._is_stopped:
                # Expat has read beyond: what follows is parsed by a new one, of this stream or the next.
                rest = self._buffer[self._end - self._base :]
                self._drop_expat()
                self._tail = rest if self._frames is None else b""
                if self._frames is not None and rest.strip():
                    self._events.clear()
                    self._fail(errors.BadFormat(_ONE))
            elif self._frames is not None and not self._events:
                self._fail(errors.BadFormat(_ONE))
        return self._events.pop(0) if self._events else None

    def flow(self) -> list[Event]:
        """The negotiation is over: from here on `feed`. Returns what was pushed already."""
        self._is_stepping = self._is_stopped = False
        if self._frames:
            frames, self._frames = self._frames, deque()
            return [event for frame in frames for event in self.feed(frame)]
        data, self._tail = self._tail, b""
        return self.feed(data)

    def feed(self, data: bytes) -> list[Event]:
        """Everything that this input completes, in order; a Violation is the last there ever is."""
        if self._is_dead or not data:
            return []
        self._parse(data)
        events, self._events = self._events, []
        if self._frames is not None and not self._is_dead and not (len(events) == self._depth == 1 and self._is_done):
            self.close()
            return [Violation(errors.BadFormat(_ONE))]
        return events

    def restart(self, *, drop: bool = False) -> None:
        """The next byte begins a new stream (RFC 6120, 4.3.3). `drop`: what was pushed behind the last event is
        thrown away, because it came without the protection that the new stream has (RFC 6120, 5.4.3.3)."""
        rest = self._buffer[self._end - self._base :] + self._tail
        self._drop_expat()
        self._header = b""
        self._is_slow = self._has_db = False
        self._is_stepping = True
        self._tail = b"" if drop else rest
        if drop and self._frames is not None:
            self._frames.clear()

    @property
    def _is_done(self) -> bool:
        """Whether all input is."""
        return self._end - self._base == len(self._buffer)

    def hibernate(self) -> bool:
        """Give up the expat parser of a silent stream (some 12 KB); the next byte makes a new one. False where it
        is in the middle of something."""
        if self._expat is None or self._depth != 1 or self._end - self._base < len(self._buffer):
            return False
        self._drop_expat()
        return True

    def close(self) -> None:
        """Nothing is parsed any more; references in a circle are cut."""
        self._is_dead = True
        self._drop_expat()
        self._tail = b""
        if self._frames is not None:
            self._frames.clear()

    # --- parsing

    def _parse(self, data: bytes) -> None:
        if self._expat is None:
            self._wake()
        kept = self._buffer[self._end - self._base :]
        if kept:
            self._buffer = kept + data
            self._reread = self._reread + len(kept) if self._base == self._end else 0
            if self._reread > REREAD_BYTES and self._reread > self.limits.stanza_bytes**2 // (2 * SMALLEST_PIECE):
                self._fail(errors.StreamPolicyViolation("The stanza comes in too many pieces."))
                return
        else:
            self._buffer = data
            self._reread = 0
        self._base = self._end
        try:
            self._expat.Parse(data, False)
        except expat.ExpatError as problem:
            if not self._is_stopped and not self._is_dead:
                self._fail(_explain(problem, self._buffer, self._expat.ErrorByteIndex - self._base))
            return
        except StreamError as fault:
            self._fail(fault)
            return
        if self._is_stopped or self._is_dead:
            return
        if self._depth == 1:
            rest = self._buffer[self._end - self._base :]
            if not rest:
                return
            begun = rest.lstrip()
            self._end += len(rest) - len(begun)
            if not begun:
                return
            if not begun.startswith(b"<"):
                self._fail(errors.BadFormat("Text between stanzas."))
                return
        begin = self._begin if self._depth > 1 else self._end
        if len(self._buffer) - (begin - self._base) > self.limits.stanza_bytes:
            self._fail(errors.StreamPolicyViolation("The stanza is too large."))

    def _fail(self, fault: StreamError) -> None:
        self._events.append(Violation(fault))
        self.close()

    def _drop_expat(self) -> None:
        if self._expat is not None:
            self._ignore_rest()
            self._expat = None
        events = self._events
        self._reset()
        self._events = events

    def _wake(self) -> None:
        """A new expat parser; inside a stream, it is given the stream's header first."""
        parser = expat.ParserCreate("UTF-8", " ")
        parser.buffer_text = True
        if hasattr(parser, "SetReparseDeferralEnabled"):
            parser.SetReparseDeferralEnabled(False)  # else a stanza in small pieces is held back until more comes
        self._expat = parser
        if self._header:
            parser.Parse(self._header, False)
            self._depth = 1
            self._base = self._end = len(self._header)
        parser.StartElementHandler = _start_handler(self)
        parser.EndElementHandler = _end_handler(self)
        parser.XmlDeclHandler = _on_declaration
        parser.StartDoctypeDeclHandler = _refuse
        parser.CommentHandler = _refuse
        parser.ProcessingInstructionHandler = _refuse

    # --- what the handlers call, seldom

    def _opened(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        start = self._expat.CurrentByteIndex - self._base
        match = _START_TAG.match(self._buffer, start)
        tag = match[0] if match is not None else b""
        if not tag or b"\0" in tag:
            raise errors.UnsupportedEncoding("Streams are UTF-8 (RFC 6120, 11.6).")  # expat takes UTF-16 unasked
        if local != "stream":
            raise errors.BadFormat("The root element is not 'stream'.")
        if namespace != ns.STREAMS:
            raise errors.InvalidNamespace("The stream namespace is another.")
        declared = {name: (double or single).decode() for name, double, single in _ATTRIBUTE.findall(tag)}
        content = declared.get(b"xmlns")
        if content is not None and content not in (self._content, ns.STREAMS):
            raise errors.InvalidNamespace("The content namespace is another.")
        if tag.endswith(b"/>"):
            raise errors.BadFormat("The stream is closed where it is opened.")
        if self._buffer.startswith(codecs.BOM_UTF8):
            # RFC 6120, 11.6: no byte order mark, but a zero width no-break space; no document begins with one.
            raise errors.NotWellFormed("A byte order mark.")
        if start + len(tag) > self.limits.stanza_bytes:
            raise errors.StreamPolicyViolation("The stream header is too large.")
        if len(attributes) > self.limits.attributes:
            raise errors.StreamPolicyViolation("Too many attributes.")
        self._header = tag
        prefixes = {name: value for name, value in declared.items() if name.startswith(b"xmlns:")}
        has_dialback = ns.DIALBACK in prefixes.values()
        self._has_db = prefixes.get(b"xmlns:db") == ns.DIALBACK
        is_plain = prefixes.keys() == ({b"xmlns:stream", b"xmlns:db"} if self._has_db else {b"xmlns:stream"})
        self._is_slow = content != self._content or not is_plain or not tag.startswith(b"<stream:")
        get = attributes.get
        self._events.append(
            StreamOpen(
                get("to"), get("from"), get("id"), get("version"), get(_LANG), dict(attributes), has_dialback
            )
        )  # fmt: skip
        self._end = self._base + start + len(tag)
        self._stop()

    def _stop(self) -> None:
        """While stepping, the event just made is the only one: what follows waits."""
        if self._is_stepping:
            self._is_stopped = True
            self._ignore_rest()

    def _ignore_rest(self) -> None:
        """Whatever expat still reads of this input is no event."""
        for name in _HANDLERS:
            setattr(self._expat, name, None)

    def _closed(self) -> None:
        """`</stream:stream>`: nothing after it is read."""
        if self._expat.CurrentByteIndex != self._end:
            self._began(self._expat.CurrentByteIndex)
        self._events.append(StreamClose())
        self._is_dead = True
        self._ignore_rest()

    def _began(self, begin: int) -> None:
        """A first-level element begins, or the stream ends: between it and what was before there may be white space
        only."""
        gap = self._buffer[self._end - self._base : begin - self._base]
        if not gap.isspace():
            raise errors.BadFormat("Text between stanzas.")

    def _other(self, inner: bytes, raw: bytes) -> None:
        """A first-level element that is no stanza; `raw` is all of it."""
        namespace, _, local = self._name.rpartition(" ")
        if namespace == self._content and self._name != _HANDSHAKE:
            raise errors.UnsupportedStanzaType(f"'{local}' is no stanza.")
        if namespace == ns.SASL2 and inner and _PREFIX.search(raw) is not None:
            # Others' elements stand in it, and what their prefixes mean may be said further out.
            inner = canonical(self._parsed(raw), ns.SASL2)
        self._events.append(Element(self._name, self._attributes, inner))

    def _rewrite(self, raw: bytes) -> bytes:
        """The inner bytes in canonical form: declarations outside of them are resolved, the content namespace is
        inherited. `raw` is the whole stanza."""
        stanza = self._parsed(raw)
        if self._alias != self._content:
            for node in stanza.iter(f"{{{self._content}}}*"):
                node.tag = f"{{{self._alias}}}{split_tag(str(node.tag))[1]}"
        return canonical(stanza, self._alias)

    def _parsed(self, raw: bytes) -> etree._Element:
        # The header opens, the element stands in it; the root's own prefix closes it.
        root_name = re.split(rb"[\s>]", self._header[1:], maxsplit=1)[0]
        return parse_document(self._header + raw + b"</" + root_name + b">")[0]


def _start_handler(p: StreamParser) -> Callable[[str, dict[str, str]], None]:
    """The hottest function of a c2s: one call for each element."""
    parser = p._expat
    flag_of = p._flag_of

    def start(name: str, attributes: dict[str, str]) -> None:
        depth = p._depth
        if depth == 1:
            begin = parser.CurrentByteIndex
            if begin != p._end:
                p._began(begin)
            p._begin = begin
            p._name = name
            p._attributes = attributes
            p._flags = 0
            p._payload = None
            p._elements = 0
        elif depth == 2:
            p._flags |= flag_of.get(name, stanzas.HAS_OTHER)
            if p._payload is None:
                p._payload = name
        elif depth == 0:
            p._opened(name, attributes)
            p._depth = 1
            return
        elif depth > p.limits.depth:
            raise errors.StreamPolicyViolation("Elements are nested too deep.")
        p._depth = depth + 1
        p._elements += 1
        if p._elements > p.limits.elements:
            raise errors.StreamPolicyViolation("Too many elements in one stanza.")
        if len(attributes) > p.limits.attributes:
            raise errors.StreamPolicyViolation("Too many attributes.")

    return start


def _end_handler(p: StreamParser) -> Callable[[str], None]:
    parser = p._expat
    content, alias = p._content, p._alias
    kinds = {f"{namespace} {name}": kind for namespace in (content, alias) for name, kind in KINDS.items()}
    content_bytes, alias_bytes = content.encode(), alias.encode()
    is_aliased = alias != content
    new = tuple.__new__  # as Stanza(...), in half the time

    def end(name: str) -> None:
        depth = p._depth = p._depth - 1
        if depth > 1:
            return
        if depth == 0:
            p._closed()
            return
        buffer, base = p._buffer, p._base
        begin = p._begin - base
        match = _START_TAG.match(buffer, begin)
        assert match is not None
        tag_end = match.end()
        stop = parser.CurrentByteIndex - base  # at "</message>", or just behind "<presence/>"
        if buffer[tag_end - 2] == 47 and stop <= tag_end:  # "/>"
            inner, stop = b"", tag_end
        else:
            inner = buffer[tag_end:stop]
            stop = buffer.index(b">", stop) + 1  # the end tag may hold spaces: "</message >"
        if stop - begin > p.limits.stanza_bytes:
            raise errors.StreamPolicyViolation("The stanza is too large.")
        p._end = stop + base
        kind = kinds.get(p._name)
        if kind is None:
            p._other(inner, buffer[begin:stop])
        else:
            if (
                p._is_slow
                or content_bytes in inner
                or (is_aliased and alias_bytes in inner)
                or b"stream:" in inner
                or b"xmlns:" in match[0]
                or (p._has_db and b"db:" in inner)
            ):  # fmt: skip
                inner = p._rewrite(buffer[begin:stop])
            attributes = p._attributes
            get = attributes.get
            extra = None
            if not attributes.keys() <= _COMMON:
                extra = tuple(item for item in attributes.items() if item[0] not in _COMMON)
            fields = (
                kind, get("type"), get("to"), get("from"), get("id"), get(_LANG), p._flags,
                p._payload if kind == 3 else None, extra, inner,
            )  # fmt: skip
            p._events.append(new(Stanza, fields))
        if p._is_stepping:
            p._stop()

    return end


_HANDLERS: Final = (
    "StartElementHandler", "EndElementHandler", "XmlDeclHandler", "StartDoctypeDeclHandler", "CommentHandler",
    "ProcessingInstructionHandler",
)  # fmt: skip


def _on_declaration(version: str, encoding: str | None, standalone: int) -> None:
    if encoding is not None and encoding.upper() != "UTF-8":
        raise errors.UnsupportedEncoding("Streams are UTF-8 (RFC 6120, 11.6).")


def _refuse(*_: object) -> None:
    raise errors.RestrictedXml("No comments, processing instructions, DTDs or entities (RFC 6120, 11.1).")


def _explain(problem: expat.ExpatError, buffer: bytes, at: int) -> StreamError:
    """What expat found at this index of the buffer."""
    if problem.code == _UNDEFINED_ENTITY:
        return errors.RestrictedXml("Only the five predefined entities (RFC 6120, 11.1).")
    try:
        buffer[: at + 4].decode()
    except UnicodeDecodeError as fault:
        if fault.start <= at:  # else it is the cut behind the fourth byte
            return errors.UnsupportedEncoding("Streams are UTF-8 (RFC 6120, 4.9.3.22).")
    return errors.NotWellFormed(expat.ErrorString(problem.code))


def _text(inner: bytes) -> str:
    try:
        return str(parse_document(b"<x>" + inner + b"</x>").xpath("string()"))  # lxml's own string keeps the tree
    except etree.XMLSyntaxError:
        return ""  # a prefix declared on the element itself: no element with text of ours has one
