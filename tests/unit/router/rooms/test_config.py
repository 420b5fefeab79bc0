"""The configuration of a room: as a form, as JSON, as what service discovery tells (XEP-0045, 10.2 and 15)."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from router.rooms import config as configs
from router.rooms.config import RoomConfig
from xmpp.disco import Form
from xmpp.errors import NotAcceptable
from xmpp.xml import parse_document

OTHER = RoomConfig(
    roomname="Verona", roomdesc="<fair>", lang="it", publicroom=False, persistentroom=True, moderatedroom=True,
    membersonly=True, passwordprotectedroom=True, roomsecret="capulet", whois="anyone", changesubject=True,
    allowinvites=False, allowpm="none", getmemberlist=("moderator",), presencebroadcast=("moderator", "visitor"),
    maxusers=50, enablelogging=False, slow_mode_duration=20, forwardmentions=False, keepformembers="never",
    mentions_count=3, mentions_individual="none", mentions_channel="none", mentions_associations="moderators",
    mentions_hats="moderators",
)  # fmt: skip


def filled_in(config: RoomConfig) -> tuple[Form, Form]:
    return _filled_in(configs.to_form(config)), _filled_in(configs.mentions_form(config))


def from_both(config: RoomConfig, forms: tuple[Form, Form]) -> RoomConfig:
    return configs.from_form(configs.from_form(config, forms[0]), forms[1])


def _filled_in(written: bytes) -> Form:
    form = parse_document(written)
    found = [
        (field.get("var") or "", tuple(value.text or "" for value in field.findall("{jabber:x:data}value")))
        for field in form
    ]
    return Form(found[0][1][0], tuple(found[1:]))


def test_every_field_goes_through_the_form_and_back() -> None:
    assert {getattr(OTHER, field.name) == field.default for field in fields(RoomConfig)} == {False}
    assert from_both(RoomConfig(), filled_in(OTHER)) == OTHER
    assert from_both(OTHER, filled_in(RoomConfig(roomsecret="x"))) == RoomConfig(roomsecret="x")


def test_every_field_goes_through_the_database_and_back() -> None:
    assert configs.from_json(json.loads(configs.to_json(OTHER))) == OTHER
    assert not configs.is_locked(json.loads(configs.to_json(OTHER)))
    assert configs.is_locked(json.loads(configs.to_json(OTHER, is_locked=True)))
    assert configs.from_json({"roomname": "Verona", "of_tomorrow": 1}) == RoomConfig(roomname="Verona")


def test_what_is_left_out_stays_and_what_is_unknown_is_passed_over() -> None:
    form = Form("", (("muc#roomconfig_roomname", ("Mantua",)), ("x-unknown", ("1",))))
    assert configs.from_form(OTHER, form) == replace(OTHER, roomname="Mantua")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("moderatedroom", "perhaps"), ("whois", "nobody"), ("allowpm", "some"), ("maxusers", "-1"), ("maxusers", "1e3"),
        ("presencebroadcast", "king"), ("roomname", "x" * 5_000), ("passwordprotectedroom", "1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_not_acceptable(name: str, value: str) -> None:
    with pytest.raises(NotAcceptable):
        configs.from_form(RoomConfig(), Form("", ((f"muc#roomconfig_{name}", (value,)),)))


def test_occupants_are_told_what_concerns_them() -> None:
    plain = RoomConfig()
    assert configs.status_codes(plain, plain) == ()
    assert configs.status_codes(plain, replace(plain, roomname="x")) == (104,)
    assert configs.status_codes(plain, replace(plain, whois="anyone")) == (172,)
    assert configs.status_codes(replace(plain, whois="anyone"), plain) == (173,)
    assert configs.status_codes(plain, replace(plain, enablelogging=False)) == (171,)
    assert configs.status_codes(replace(plain, enablelogging=False), plain) == (170,)


def test_discovery_tells_what_a_room_is() -> None:
    assert configs.features(RoomConfig()) == (
        "muc_public", "muc_open", "muc_unmoderated", "muc_semianonymous", "muc_unsecured", "muc_temporary",
    )  # fmt: skip
    assert configs.features(OTHER) == (
        "muc_hidden", "muc_membersonly", "muc_moderated", "muc_nonanonymous", "muc_passwordprotected", "muc_persistent",
    )  # fmt: skip
    told = dict(configs.info_fields(OTHER, occupants=3, subject="balcony"))
    assert told["muc#roominfo_occupants"] == ("3",)
    assert told["muc#roominfo_description"] == ("<fair>",)
