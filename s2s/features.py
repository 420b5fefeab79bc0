"""What streams between servers offer in <stream:features/> (RFC 6120, 4.3.2): ours, and reading the peer's."""

from __future__ import annotations

from typing import NamedTuple

from lxml import etree

from xmpp import ns
from xmpp.xml import child_texts, element, parse_children, split_tag, text_of

EXTERNAL = "EXTERNAL"


class Features(NamedTuple):
    """The offers of the peer. `max_bytes` is the largest element that it takes (XEP-0478), None if it does not say."""

    has_starttls: bool = False
    has_external: bool = False
    has_dialback: bool = False
    has_dialback_errors: bool = False
    has_bidi: bool = False
    has_management: bool = False
    max_bytes: int | None = None


def before_tls(*, is_required: bool, others: bytes) -> bytes:
    """Features of a stream without TLS; where TLS is required there are no others."""
    starttls = element("starttls", ns.TLS, None, *([b"<required/>"] if is_required else []))
    return _features(starttls + (b"" if is_required else others))


def after_tls(*, external: bool, bidi: bool, limits: bytes) -> bytes:
    """Features of a stream on which no domain is authenticated. EXTERNAL is for who has a certificate that we trust,
    and that proves its domain (XEP-0178, 3)."""
    mechanisms = element("mechanisms", ns.SASL, None, element("mechanism", None, None, EXTERNAL)) if external else b""
    return _features(mechanisms + offers(bidi=bidi, limits=limits))


def after_login(limits: bytes) -> bytes:
    """Features of an authenticated stream."""
    return _features(offers(bidi=False, limits=limits))


def offers(*, bidi: bool, limits: bytes) -> bytes:
    """What needs neither TLS nor authentication to be offered. Dialback stays, for more pairs of domains (XEP-0220,
    2.6); whether a stream has two directions is settled before it has any (XEP-0288, 2.2)."""
    dialback = element("dialback", ns.DIALBACK_FEATURE, None, b"<errors/>")
    return dialback + (element("bidi", ns.BIDI_FEATURE) if bidi else b"") + element("sm", ns.SM) + limits


def stream_limits(max_bytes: int, idle_seconds: float) -> bytes:
    """XEP-0478: the largest first-level element, and how long a stream may be silent."""
    return element(
        "limits",
        ns.STREAM_LIMITS,
        None,
        element("max-bytes", None, None, str(max_bytes)),
        element("idle-seconds", None, None, str(int(idle_seconds))),
    )


def parse(inner: bytes) -> Features:
    """Read the inside of the peer's <stream:features/>; what we do not know is passed over."""
    found = {split_tag(str(child.tag)): child for child in parse_children(inner, ns.SERVER)}
    mechanisms = found.get((ns.SASL, "mechanisms"))
    dialback = found.get((ns.DIALBACK_FEATURE, "dialback"))
    return Features(
        has_starttls=(ns.TLS, "starttls") in found,
        has_external=mechanisms is not None
        and any(text_of(child) == EXTERNAL for child in mechanisms if split_tag(str(child.tag))[1] == "mechanism"),
        has_dialback=dialback is not None,
        has_dialback_errors=dialback is not None and len(dialback) > 0,
        has_bidi=(ns.BIDI_FEATURE, "bidi") in found,
        has_management=(ns.SM, "sm") in found,
        max_bytes=_max_bytes(found.get((ns.STREAM_LIMITS, "limits"))),
    )


def limits_in(inner: bytes) -> int | None:
    """The largest element that a peer takes, from the inside of its <bidi/> (XEP-0478, 3.2)."""
    children = parse_children(inner, ns.SERVER)
    return _max_bytes(next((child for child in children if split_tag(str(child.tag))[0] == ns.STREAM_LIMITS), None))


def _max_bytes(limits: etree._Element | None) -> int | None:
    text = child_texts(limits, ns.STREAM_LIMITS).get("max-bytes", "").strip() if limits is not None else ""
    # RFC 6120, 13.12: nobody may take less than 10,000 bytes; a smaller number is a mistake.
    return max(10_000, int(text)) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _features(offered: bytes) -> bytes:
    return b"<stream:features>%b</stream:features>" % offered
