"""Rooms from elsewhere: what they are, who is something to them, what was said in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from router.importing.messages import Draft, place, row_of
from router.importing.reading import Unfit, id_of, read_jid, read_stanza, without
from router.importing.results import DONE, IMPORTED, KNOWN, Result, Thing, left_out
from router.recipients import with_stanza_id
from router.rooms import administering, joining, retracting
from router.rooms import config as configs
from router.rooms.config import RoomConfig
from router.rooms.policy import Affiliation
from router.rooms.room import Room
from router.turn import Turn
from storage import rooms
from storage.importing import ARCHIVED
from storage.log import ARCHIVE, TO_OWNER, Row
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.errors import JidError, NotAcceptable
from xmpp.jid import JID, bare_of
from xmpp.stanza import HAS_DELAY, HAS_MUC_USER, HAS_STANZA_ID, HAS_SUBJECT, MESSAGE, TO_FULL, Stanza
from xmpp.timestamp import format_moment
from xmpp.xml import element

AFFILIATIONS: Final = {one.name.lower(): one for one in Affiliation}
_REASON: Final = 1_000
# What only the room says.
_OURS: Final = (
    f"{{{ns.OCCUPANT_ID}}}occupant-id", f"{{{ns.MUC_USER}}}x", f"{{{ns.DELAY}}}delay", f"{{{ns.ADDRESS}}}addresses",
    f"{{{ns.SID}}}stanza-id", "{urn:xmpp:mam:tmp}archived",
)  # fmt: skip


def room(turn: Turn, thing: Thing, key: int, is_dry: bool) -> Result:
    """A room that is not there is made; one that is stays as it is."""
    if turn.entity.room is not None:
        return KNOWN
    config, wrong = _config(turn.settings.room_defaults, thing["options"])
    if not is_dry:
        made = joining.make_room(turn, key, config, is_locked=False)
        if thing["subject"]:
            _set_subject(turn, made, thing)
    return Result(IMPORTED, "; ".join(wrong)) if wrong else DONE


def _config(config: RoomConfig, given: dict[str, str]) -> tuple[RoomConfig, list[str]]:
    wrong: list[str] = []
    secret: dict[str, str] = {}
    if given.get("passwordprotectedroom") == "1":  # only both together can be
        secret = {name: given[name] for name in ("passwordprotectedroom", "roomsecret") if name in given}
    others = {name: value for name, value in given.items() if name not in ("passwordprotectedroom", "roomsecret")}
    each: list[dict[str, str]] = [{"persistentroom": "1"}, secret, *({name: value} for name, value in others.items())]
    for options in each:
        try:
            config = configs.with_options(config, options)
        except NotAcceptable as problem:
            shown = ", ".join(f"{name}={value[:60]}" for name, value in options.items() if name != "roomsecret")
            wrong.append(f"option {shown} cannot be set here: {problem.text}")
    return config, wrong


def _set_subject(turn: Turn, made: Room, thing: Thing) -> None:
    inner, flags = element("subject", None, None, thing["subject"]), HAS_SUBJECT | TO_FULL
    if thing["subject_at"] is not None:
        stamp = format_moment(min(turn.now, thing["subject_at"] / 1_000_000))
        inner, flags = inner + element("delay", ns.DELAY, {"from": made.bare, "stamp": stamp}), flags | HAS_DELAY
    from_ = _occupant(made.bare, thing["subject_nick"])
    said = stanzas.message(to=None, from_=from_, type="groupchat", inner=inner, flags=flags)
    made.subject = said
    turn.write(rooms.set_subject, made.key, rooms.packed(said))


def affiliation(turn: Turn, thing: Thing, is_dry: bool) -> Result:
    """What somebody is to the room, if they are nothing to it yet; and their nickname."""
    jid, new = bare_of(read_jid(thing["jid"])), AFFILIATIONS.get(thing["affiliation"])
    if new is None:
        return left_out(f"{thing['affiliation'][:40]!r} is no affiliation of {jid}")
    found: Room | None = turn.entity.room
    if new == Affiliation.NONE:
        return KNOWN
    if found is None:
        return DONE if is_dry else left_out("there is no such room")
    if jid in found.versions or jid in found.affiliations:
        return KNOWN
    if not is_dry:
        nick = _nick_of(found, thing["nick"], new)
        if nick is not None:
            found.reserved[nick] = jid
        administering.set_affiliation(turn, found, jid, new, thing["reason"][:_REASON] or None)
    return DONE


def _nick_of(found: Room, nick: str, new: Affiliation) -> str | None:
    try:
        prepared = JID.of("", "x", nick).resource if nick else ""
    except JidError:
        return None
    return prepared if prepared and new > Affiliation.NONE and prepared not in found.reserved else None


def draft(bare: str, thing: Thing) -> tuple[Draft, str]:
    """Something that was said in a room, and by whom (bare JID, "" where that is not known). Raises Unfit."""
    message = read_stanza(thing["xml"], MESSAGE)
    jid = bare_of(read_jid(thing["jid"])) if thing["jid"] else ""
    nick = thing["nick"] or (message.from_ or "").partition("/")[2]
    said = without(message, lambda child: child.tag in _OURS)._replace(
        type="groupchat", to=None, from_=_occupant(bare, nick)
    )
    flags = said.flags & ~(HAS_MUC_USER | HAS_DELAY | HAS_STANZA_ID) | TO_FULL
    said = said._replace(flags=flags)
    return Draft(id_of(thing["at"], thing["id"], said), TO_OWNER, bare, said), jid


def _occupant(bare: str, nick: str) -> str:
    try:
        return read_jid(f"{bare}/{nick}") if nick else bare
    except Unfit:
        return bare


def said(turn: Turn, drafts: Sequence[tuple[Draft, str]], known: Sequence[Row], is_dry: bool) -> list[Result]:
    """Rows for what was said. Who is something to the room is known by the id that the room gives them (XEP-0421)."""
    found: Room | None = turn.entity.room
    if found is None:
        return [DONE if is_dry else left_out("there is no such room")] * len(drafts)
    results, rows, news = list[Result](), {row.id: row for row in known}, list[Row]()
    for one, jid in drafts:
        own = one
        if jid:
            id_ = element("occupant-id", ns.OCCUPANT_ID, {"id": found.occupant_id(jid)})
            own = one._replace(message=one.message.with_inner(one.message.inner + id_))
        try:
            placed = place(own, rows)
        except Unfit as problem:
            results.append(left_out(str(problem)))
            continue
        results.append(KNOWN if placed is None else DONE)
        if placed is not None and not is_dry:
            rows[placed.id] = row = row_of(turn.entity, placed, ARCHIVE, ARCHIVED)
            news.append(row)
    if news:
        turn.rows += tuple(news)
        turn.comes_after(max(row.id for row in news))
        _into_history(found, news)
    return results


def _into_history(found: Room, news: Sequence[Row]) -> None:
    """Who comes in sees the newest messages, in their order."""
    merged: dict[int, Stanza] = dict(found.history)
    for row in news:
        if retracting.is_shown_later(row.stanza):
            merged[row.id] = with_stanza_id(row.stanza, found.bare, row.id)
    found.history.clear()
    found.history.extend(sorted(merged.items())[-(found.history.maxlen or 0) :])
