"""How a room is: its configuration, and the forms in which it is told and set (XEP-0045, 6.4, 10.2, 15.5). Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from router import options
from router.options import Kind
from xmpp import forms, ns
from xmpp.disco import Form
from xmpp.errors import NotAcceptable
from xmpp.forms import Field
from xmpp.xml import element

ROLES: Final = ("moderator", "participant", "visitor")
FORM: Final = f"{ns.MUC}#roomconfig"
_FIELD: Final = "muc#roomconfig_"
_LOCKED: Final = "is_locked"


@dataclass(frozen=True, slots=True)
class RoomConfig:
    """The names are those of `muc#roomconfig_…`."""

    roomname: str = ""
    roomdesc: str = ""
    lang: str = ""
    publicroom: bool = True
    persistentroom: bool = False
    moderatedroom: bool = False
    membersonly: bool = False
    passwordprotectedroom: bool = False
    roomsecret: str = ""
    whois: str = "moderators"  # or "anyone"
    changesubject: bool = False  # whether participants may
    allowinvites: bool = True
    allowpm: str = "anyone"  # or "participants", "moderators", "none"
    getmemberlist: tuple[str, ...] = ROLES
    presencebroadcast: tuple[str, ...] = ROLES
    maxusers: int = 0  # 0: as many as the service allows
    enablelogging: bool = True
    slow_mode_duration: int = 0  # seconds between two messages of a user (XEP-0500); 0: as they like
    forwardmentions: bool = True  # to members who are away (XEP-0452)
    keepformembers: str = (
        "membersonly"  # when members who are away get what is said: "always", "never", or in such rooms
    )
    # XEP-0513: who may mention whom ("participants", "moderators", "none"), and how often in a message.
    mentions_count: int = 20
    mentions_individual: str = "participants"
    mentions_channel: str = "moderators"
    mentions_associations: str = "participants"
    mentions_hats: str = "participants"

    @property
    def keeps_for_members(self) -> bool:
        """Whether members who are away get what is said: never of a room that shall not be archived."""
        if not self.enablelogging:
            return False
        return self.keepformembers == "always" or (self.keepformembers == "membersonly" and self.membersonly)


def _roles(values: tuple[str, ...]) -> tuple[str, ...]:
    if not set(values) <= set(ROLES):
        raise NotAcceptable(f"Roles are {', '.join(ROLES)}.")
    return tuple(role for role in ROLES if role in values)


def _number(values: tuple[str, ...]) -> int:
    text = values[0] if values else ""
    if text in ("", "none"):
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 8):
        raise NotAcceptable("A number is written in digits.")
    return int(text)


def _integer(least: int) -> bytes:
    """XEP-0122: how a number is checked before it is sent."""
    return element("validate", ns.VALIDATE, {"datatype": "xs:integer"}, element("range", None, {"min": str(least)}))


_MOST: Final = ("10", "20", "50", "100", "1000", "none")
_PM: Final = ("anyone", "participants", "moderators", "none")
_WHO: Final = ("participants", "moderators", "none")
_KEPT: Final = ("membersonly", "always", "never")
_KINDS: Final = {
    "roomname": Kind("text-single", "Name", options.text),
    "roomdesc": Kind("text-single", "Description", options.text),
    "lang": Kind("text-single", "Language of what is said", options.text),
    "publicroom": Kind("boolean", "Listed among the rooms", options.boolean),
    "persistentroom": Kind("boolean", "Stays when nobody is there", options.boolean),
    "moderatedroom": Kind("boolean", "Who comes in must be given voice", options.boolean),
    "membersonly": Kind("boolean", "For members alone", options.boolean),
    "passwordprotectedroom": Kind("boolean", "Wants a password", options.boolean),
    "roomsecret": Kind("text-private", "Password", options.text),
    "whois": Kind(
        "list-single", "Who sees addresses", options.one_of("moderators", "anyone"), ("moderators", "anyone")
    ),
    "changesubject": Kind("boolean", "Participants may change the subject", options.boolean),
    "allowinvites": Kind("boolean", "Occupants may invite others", options.boolean),
    "allowpm": Kind("list-single", "Who may send private messages", options.one_of(*_PM), _PM),
    "getmemberlist": Kind("list-multi", "Who may see the lists of members", _roles, ROLES),
    "presencebroadcast": Kind("list-multi", "Whose presence is shown", _roles, ROLES),
    "maxusers": Kind("list-single", "Most occupants", _number, _MOST),
    "enablelogging": Kind("boolean", "Messages are archived", options.boolean),
    "slow_mode_duration": Kind(
        "text-single", "Seconds between two messages of a user, 0: as they like", _number, (), _integer(0)
    ),
    "forwardmentions": Kind("boolean", "Members who are away are told when they are mentioned", options.boolean),
    "keepformembers": Kind("list-single", "Members who are away get what is said", options.one_of(*_KEPT), _KEPT),
}
_MENTIONS: Final = {
    "mentions_count": Kind("text-single", "Most mentions in a message", _number, (), _integer(0)),
    "mentions_individual": Kind("list-single", "Who may mention somebody", options.one_of(*_WHO), _WHO),
    "mentions_channel": Kind("list-single", "Who may mention everybody", options.one_of(*_WHO), _WHO),
    "mentions_associations": Kind("list-single", "Who may mention roles and affiliations", options.one_of(*_WHO), _WHO),
    "mentions_hats": Kind("list-single", "Who may mention those with a hat", options.one_of(*_WHO), _WHO),
}
_ALL: Final = {**_KINDS, **_MENTIONS}
# Not registered with any form: XEP-0068, 3.4.
_VARS: Final = {"keepformembers": "x-stentor_keepformembers"}


def _var(name: str) -> str:
    """What a field is called in the form."""
    if name in _MENTIONS:
        return name.replace("_", "#")
    return _VARS.get(name) or f"{_FIELD}{name}"


def to_form(config: RoomConfig) -> bytes:
    """10.2: the form, filled in as the room is."""
    return forms.to_fill_in(FORM, [_field(name, kind, getattr(config, name)) for name, kind in _KINDS.items()])


def mentions_form(config: RoomConfig) -> bytes:
    """XEP-0513, 3.6: the form that says who may mention whom."""
    return forms.to_fill_in(
        ns.MENTIONS, [_field(name, kind, getattr(config, name)) for name, kind in _MENTIONS.items()]
    )


def _field(name: str, kind: Kind, value: Any) -> Field:
    return options.shown(kind, _var(name), (value or "none") if name == "maxusers" else value)


def from_form(config: RoomConfig, form: Form) -> RoomConfig:
    """What is left out stays as it is, what is not known is not looked at. Raises NotAcceptable."""
    given = dict(form.fields)
    known = _MENTIONS if form.form_type == ns.MENTIONS else _KINDS
    changed = replace(
        config, **{name: kind.read(given[_var(name)]) for name, kind in known.items() if _var(name) in given}
    )
    if changed.passwordprotectedroom and not changed.roomsecret:
        raise NotAcceptable("A room that wants a password needs one.")
    return changed


def with_options(config: RoomConfig, chosen: Mapping[str, str]) -> RoomConfig:
    """What an operator wants: names without prefix, the values of a list parted by commas. Raises NotAcceptable."""
    unknown = chosen.keys() - _ALL.keys()
    if unknown:
        raise NotAcceptable(f"There is no option {', '.join(sorted(unknown))}.")
    fields_ = tuple(
        (_var(name), tuple(value.split(",")) if _ALL[name].type == "list-multi" else (value,))
        for name, value in chosen.items()
    )
    return from_form(from_form(config, Form(FORM, fields_)), Form(ns.MENTIONS, fields_))


def told(config: RoomConfig) -> dict[str, Any]:
    """What an operator is told: everything but the password."""
    return {name: value for name, value in asdict(config).items() if name != "roomsecret"}


def to_json(config: RoomConfig, *, is_locked: bool = False) -> str:
    """As the database keeps it."""
    return json.dumps({**asdict(config), _LOCKED: is_locked})


def is_locked(known: Mapping[str, Any]) -> bool:
    """Whether the room of this JSON waits for its owner to say how it shall be (10.1.1)."""
    return bool(known.get(_LOCKED))


def from_json(known: Mapping[str, Any]) -> RoomConfig:
    """What other versions know, and this one does not, is left out."""
    names = {field.name for field in fields(RoomConfig)}
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
    return RoomConfig(**{name: value for name, value in values.items() if name in names})


def keeps_for_members(known: Mapping[str, Any]) -> bool:
    """The same of a room's JSON."""
    return from_json(known).keeps_for_members


def features(config: RoomConfig) -> tuple[str, ...]:
    """6.4: what disco#info says of it."""
    return (
        "muc_public" if config.publicroom else "muc_hidden",
        "muc_membersonly" if config.membersonly else "muc_open",
        "muc_moderated" if config.moderatedroom else "muc_unmoderated",
        "muc_nonanonymous" if config.whois == "anyone" else "muc_semianonymous",
        "muc_passwordprotected" if config.passwordprotectedroom else "muc_unsecured",
        "muc_persistent" if config.persistentroom else "muc_temporary",
    )


def info_fields(config: RoomConfig, *, occupants: int, subject: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The fields of `muc#roominfo` (15.5.4)."""
    told = {
        "description": config.roomdesc,
        "lang": config.lang,
        "occupants": str(occupants),
        "subject": subject,
        "subjectmod": "true" if config.changesubject else "false",
        "slow_mode_duration": str(config.slow_mode_duration),
    }
    mentions = tuple((_var(name), (str(getattr(config, name)),)) for name in _MENTIONS)
    return (*((f"muc#roominfo_{name}", (value,)) for name, value in told.items() if value), *mentions)


def changed_mentions(before: RoomConfig, after: RoomConfig) -> Form:
    """XEP-0513, 3.6: the fields that a change has touched."""
    changed = [name for name in _MENTIONS if getattr(before, name) != getattr(after, name)]
    return Form(ns.MENTIONS, tuple((_var(name), (str(getattr(after, name)),)) for name in changed))


def status_codes(before: RoomConfig, after: RoomConfig) -> tuple[int, ...]:
    """10.2.1: what a change has to tell occupants."""
    codes: list[int] = []
    if before.enablelogging != after.enablelogging:
        codes.append(170 if after.enablelogging else 171)
    if before.whois != after.whois:
        codes.append(172 if after.whois == "anyone" else 173)
    if replace(before, enablelogging=after.enablelogging, whois=after.whois) != after:
        codes.append(104)
    return tuple(codes)
