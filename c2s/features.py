"""What a client stream offers in <stream:features/> (RFC 6120, 4.3.2), before and after signing in."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from c2s import sasl2
from xmpp import ns
from xmpp.xml import element


class Offered(NamedTuple):
    """What is offered before anybody has signed in, and the version of it (XEP-0509): the same from every process that
    offers the same; "" where there is nothing to sign in by."""

    features: bytes
    version: str


@lru_cache(maxsize=256)  # each connection gets the same as thousands before it
def before_login(
    *,
    starttls: bool,
    is_tls_required: bool,
    mechanisms: tuple[str, ...],
    token_mechanisms: tuple[str, ...],
    bindings: tuple[str, ...],
    may_register: bool,
    limits: bytes,
    takes_invitations: bool = False,
    upgrades: tuple[str, ...] = (),
) -> Offered:
    """Features of a stream on which nobody is signed in."""
    offers = []
    if starttls:
        offers.append(element("starttls", ns.TLS, None, *([b"<required/>"] if is_tls_required else [])))
    if mechanisms:
        offers.append(
            element("mechanisms", ns.SASL, None, *(element("mechanism", None, None, name) for name in mechanisms))
        )
        offers.append(sasl2.offer(mechanisms, token_mechanisms, upgrades))
        if any(name.endswith("-PLUS") for name in mechanisms):  # XEP-0440: which channel-binding types these may use
            types = (element("channel-binding", None, {"type": name}) for name in bindings)
            offers.append(element("sasl-channel-binding", ns.SASL_CHANNEL_BINDING, None, *types))
    if takes_invitations:
        offers.append(element("register", ns.IBR_TOKEN))  # XEP-0445, 2
    if may_register:
        offers.append(element("register", ns.REGISTER_FEATURE))
    offers.append(limits)
    version = ""
    if mechanisms:  # XEP-0509, 2.3.1: "a hash [...] of the rendered features, absent the <config-version>"
        version = b64encode(hashlib.sha256(b"".join(offers)).digest()).decode()
        offers.append(element("config-version", ns.PIPELINING, {"scheme": "opaque", "value": version}))
    return Offered(_features(offers), version)


@lru_cache(maxsize=256)
def after_login(of_domain: bytes, limits: bytes) -> bytes:
    """Features of an authenticated stream: binding, the no-op session of RFC 3921, and what routers add (roster
    versioning, pre-approval, entity capabilities)."""
    session = element("session", ns.SESSION, None, b"<optional/>")
    return _features(
        [element("bind", ns.BIND), session, element("sm", ns.SM), element("csi", ns.CSI), of_domain, limits]
    )


@lru_cache(maxsize=256)
def after_bind(of_domain: bytes, limits: bytes, *, is_managed: bool) -> bytes:
    """Features of a stream that has signed in by XEP-0388 and has its session already. What is in force is not offered:
    clients take what they are offered (COMPAT: @xmpp/client 0.14 would enable stream management a second time)."""
    sm = b"" if is_managed else element("sm", ns.SM)
    return _features([sm, element("csi", ns.CSI), of_domain, limits])


def stream_limits(max_bytes: int, idle_seconds: float | None) -> bytes:
    """XEP-0478: the largest first-level element, and how long a stream may be silent."""
    idle = [element("idle-seconds", None, None, str(int(idle_seconds)))] if idle_seconds is not None else []
    return element("limits", ns.STREAM_LIMITS, None, element("max-bytes", None, None, str(max_bytes)), *idle)


def _features(offers: Sequence[bytes]) -> bytes:
    return b"<stream:features>%b</stream:features>" % b"".join(offers)
