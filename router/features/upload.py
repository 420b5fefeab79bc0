"""HTTP File Upload (XEP-0363), the slots: who may send which file, and by which URL. Files themselves go to and from
the c2s (`c2s/http/upload.py`); what becomes of them later is in `router/upload_keeper.py`.

An account's quota is decided in one statement of the database (`storage/uploads.py`), so nothing is remembered here.
"""

from __future__ import annotations

import secrets
from functools import partial
from typing import Final

from cluster import metrics
from router.feature import At, Feature
from router.settings import Uploads
from router.turn import Turn
from router.uploading import (
    KEPT,
    PURPOSES,
    Wanted,
    check_size,
    check_type,
    expiry,
    largest,
    longest_s,
    refusal,
    services_for,
    wanted_of,
)
from storage import uploads
from storage.uploads import Draft, Quota, Verdict
from xmpp import ns, upload
from xmpp.disco import Form, Identity, Info, info_payload, items_payload
from xmpp.errors import Forbidden, ItemNotFound, StanzaError
from xmpp.stanza import Stanza
from xmpp.upload import File, Permit
from xmpp.xml import element

feature = Feature("upload", xep=((363, "1.2.0"),))

SLACK_S: Final = 60  # clocks differ, and the storage takes a moment

_slots = metrics.counter(
    "stentor_upload_slots_total",
    "Slots that clients asked for: malformed, of a type or size that is not taken, without room, or not for them",
    {"result": ["granted", "malformed", "type", "too-large", "quota", "forbidden"]},
)


# --- what it is


@feature.on_iq("get", ns.DISCO_INFO, "query", at=At.UPLOAD)
def info(turn: Turn, iq: Stanza) -> None:
    """3: what it is, and the greatest file."""
    _require_no_node(iq, ns.DISCO_INFO)
    offered, _ = _offered(turn, iq)
    purposes = (name for name in PURPOSES if offered.kept_bytes or name not in KEPT)
    names = (ns.DISCO_INFO, ns.DISCO_ITEMS, ns.PING, ns.HTTP_UPLOAD)
    form = Form(ns.HTTP_UPLOAD, (("max-file-size", (str(largest(offered)),)),))
    found = Info(
        (Identity("store", "file", "HTTP File Upload"),),
        (*names, *(f"{ns.HTTP_UPLOAD_PURPOSE}#{name}" for name in purposes)),
        (form,),
    )
    turn.answer(iq, info_payload(found))


@feature.on_iq("get", ns.DISCO_ITEMS, "query", at=At.UPLOAD)
def items(turn: Turn, iq: Stanza) -> None:
    """Nothing belongs to it."""
    _require_no_node(iq, ns.DISCO_ITEMS)
    turn.answer(iq, items_payload(()))


@feature.on_iq("get", ns.PING, "ping", at=At.UPLOAD)
def ping(turn: Turn, iq: Stanza) -> None:
    """XEP-0199."""
    turn.answer(iq)


def _require_no_node(iq: Stanza, namespace: str) -> None:
    query = iq.child(namespace, "query")
    if query is not None and query.get("node") is not None:
        raise ItemNotFound


def _offered(turn: Turn, iq: Stanza) -> tuple[Uploads, str]:
    """What there is for whoever asks, and for which served domain."""
    offered, services = turn.settings.uploads, services_for(turn.settings, turn.entity)
    if offered is None or not services:
        raise Forbidden("You may not upload files here.")
    home = services.get(iq.to or "")
    if home is None:
        raise Forbidden(f"Your service for this is {', '.join(services)}.")
    return offered, home


# --- a slot


@feature.on_iq("get", ns.HTTP_UPLOAD, "request", at=At.UPLOAD)
def give_slot(turn: Turn, iq: Stanza) -> None:
    """4: a slot, or why there is none (6)."""
    try:
        offered, home = _offered(turn, iq)
    except Forbidden:
        _slots.labels("forbidden").inc()
        raise
    wanted = _checked(offered, iq, turn.now)
    object = secrets.token_bytes(upload.OBJECT_BYTES)
    expires_at = expiry(offered, wanted, turn.now)
    settle_s = offered.slot_s + longest_s(offered, wanted.size) + SLACK_S
    assert turn.entity.key is not None
    draft = Draft(
        object, turn.entity.key, wanted.counts_as, wanted.is_kept, wanted.type, settle_s,
        None if expires_at == upload.FOR_EVER else expires_at,
    )  # fmt: skip
    quota = Quota(offered.user_bytes, offered.kept_bytes, offered.day_bytes)
    until = int(turn.now) + offered.slot_s
    permit = Permit(home, upload.account_tag(turn.entity.bare), until, until + longest_s(offered, wanted.size))
    file = File(object, wanted.name, wanted.size, wanted.type, expires_at)
    turn.fetch(uploads.grant, partial(_granted, iq, wanted, file, permit), draft, quota)


def _granted(iq: Stanza, wanted: Wanted, file: File, permit: Permit, turn: Turn, verdict: Verdict) -> None:
    offered = turn.settings.uploads
    assert offered is not None
    if verdict.key is None:
        _slots.labels("quota").inc()
        raise refusal(offered, wanted, verdict, turn.now)
    _slots.labels("granted").inc()
    url = f"{offered.url.replace('{domain}', permit.domain)}/upload/{upload.path(verdict.key, file)}"
    token = upload.permission(verdict.key, file, permit)
    header = element("header", None, {"name": "Authorization"}, f"Bearer {token}")
    put, get = element("put", None, {"url": url}, header), element("get", None, {"url": url})
    turn.answer(iq, element("slot", ns.HTTP_UPLOAD, None, put, get))


def _checked(offered: Uploads, iq: Stanza, now: float) -> Wanted:
    """Raises StanzaError for what is not taken, and counts it."""
    result = "malformed"
    try:
        wanted = wanted_of(iq, now)
        result = "too-large"
        check_size(offered, wanted)
        result = "type"
        check_type(offered, wanted)
    except StanzaError:
        _slots.labels(result).inc()
        raise
    return wanted
