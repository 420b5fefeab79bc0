"""Commands as XEP-0133 has them: which of the table a node means, what its form asks, how the answers are told.

Pure: `router/features/administration.py` speaks XEP-0050, and has what comes out of here run by
`router/administration/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from xmpp.errors import BadRequest
from xmpp.forms import Field

FORM: Final = "http://jabber.org/protocol/admin"
MOST: Final = 500  # accounts in a form, addresses in an answer

Filled = Mapping[str, tuple[str, ...]]
Use = tuple[str, dict[str, Any]]  # the name of a command, and what it is given
Told = tuple[tuple[str, tuple[str, ...]], ...]  # fields and their values


class Adhoc(NamedTuple):
    """A command of XEP-0133: `uses` says what to do, of the domain that is asked and the form; `told`, what the
    answers say. Without `fields` there is no form."""

    title: str
    uses: Callable[[str, Filled], list[Use]]
    fields: tuple[Field, ...] = ()
    told: Callable[[Sequence[Any]], Told] = lambda answers: ()


_JID: Final = Field("accountjid", "jid-single", (), "The account")
_JIDS: Final = Field("accountjids", "jid-multi", (), "The accounts")
_REASON: Final = Field("reason", "text-single", (), "What their users are told")
_PASSWORD: Final = Field("password", "text-private", (), "The password")
_AGAIN: Final = Field("password-verify", "text-private", (), "The password again")


def _one(filled: Filled, name: str) -> str:
    values = filled.get(name, ())
    if len(values) != 1 or not values[0]:
        raise BadRequest(f"'{name}' is missing.")
    return values[0]


def _accounts(filled: Filled) -> list[str]:
    found = [value for value in dict.fromkeys(filled.get(_JIDS.var, ())) if value]
    if not 0 < len(found) <= MOST:
        raise BadRequest(f"Name an account, and {MOST} at most.")
    return found


def _bare(text: str) -> str:
    """Clients let people choose a contact, and may tell a full JID."""
    return text.partition("/")[0]


def _each(command: str, *, also: Callable[[Filled], dict[str, Any]] = lambda filled: {}, full: bool = False) -> Any:
    def uses(domain: str, filled: Filled) -> list[Use]:
        more = also(filled)
        names = _accounts(filled) if full else list(dict.fromkeys(map(_bare, _accounts(filled))))
        return [(command, {"jid": jid, **more}) for jid in names]

    return uses


def _with_password(command: str) -> Any:
    def uses(domain: str, filled: Filled) -> list[Use]:
        password = _one(filled, _PASSWORD.var)
        if filled.get(_AGAIN.var, (password,)) != (password,):
            raise BadRequest("The passwords differ.")
        return [(command, {"jid": _bare(_one(filled, _JID.var)), "password": password})]

    return uses


def _number(key: str, field: str) -> Any:
    def told(answers: Sequence[Any]) -> Told:
        return ((field, (str(answers[0]["domains"][0][key]),)),)

    return (lambda domain, filled: [("stats", {"domain": domain})]), told


def _list(command: str, items: str, field: str, given: Callable[[str], dict[str, Any]]) -> Any:
    def told(answers: Sequence[Any]) -> Told:
        return ((field, tuple(one["jid"] for one in answers[0][items])),)

    return (lambda domain, filled: [(command, {**given(domain), "limit": MOST})]), told


def _counted(title: str, key: str, field: str) -> Adhoc:
    uses, told = _number(key, field)
    return Adhoc(title, uses, (), told)


def _listed(title: str, command: str, items: str, field: str, given: Callable[[str], dict[str, Any]]) -> Adhoc:
    uses, told = _list(command, items, field, given)
    return Adhoc(title, uses, (), told)


def _reason(filled: Filled) -> dict[str, Any]:
    return {"reason": " ".join(filled.get(_REASON.var, ())).strip() or "An administrator has disabled it."}


def _domain(domain: str) -> dict[str, Any]:
    return {"domain": domain}


def _last_logins(answers: Sequence[Any]) -> Told:
    """One line each: an account that is online is so now."""
    return (
        ("accountjids", tuple(one["jid"] for one in answers)),
        ("lastlogin", tuple("online" if one["sessions"] else one["last_at"] or "never" for one in answers)),
    )


def _statistics(answers: Sequence[Any]) -> Told:
    return (
        ("accountjids", tuple(one["jid"] for one in answers)),
        ("rostersize", tuple(str(one["contacts"]) for one in answers)),
        ("onlineresources", tuple(jid.partition("/")[2] for one in answers for jid in one["sessions"])),
    )


def _rosters(answers: Sequence[Any]) -> Told:
    contacts = [contact for answer in answers for contact in answer["contacts"] if contact["in_roster"]]
    return (("contacts", tuple(f"{one['jid']} {one['subscription']}" for one in contacts)),)


_ANNOUNCEMENT: Final = Field("announcement", "text-multi", (), "What they read")


def _announce(domain: str, filled: Filled) -> list[Use]:
    """4.23."""
    text = "\n".join(filled.get(_ANNOUNCEMENT.var, ())).strip()
    if not text:
        raise BadRequest("'announcement' is missing.")
    return [("announce", {"domain": domain, "to": "online", "body": text})]


NODES: Final[Mapping[str, Adhoc]] = {
    # XEP-0133, 4.1 to 4.20; those of lists end after so many, which the XEP lets whoever asks choose
    "add-user": Adhoc("Add an account", _with_password("user add"), (_JID, _PASSWORD, _AGAIN)),
    "delete-user": Adhoc("Delete accounts", _each("user del"), (_JIDS,)),
    "disable-user": Adhoc("Disable accounts", _each("user ban", also=_reason), (_JIDS, _REASON)),
    "reenable-user": Adhoc("Enable accounts again", _each("user unban"), (_JIDS,)),
    "end-user-session": Adhoc("End sessions", _each("session kick", full=True), (_JIDS,)),
    "change-user-password": Adhoc("Change a password", _with_password("user passwd"), (_JID, _PASSWORD)),
    "get-user-roster": Adhoc("Rosters", _each("roster list"), (_JIDS,), _rosters),
    "get-user-lastlogin": Adhoc("Last sign-ins", _each("user show"), (_JIDS,), _last_logins),
    "user-stats": Adhoc("Statistics of accounts", _each("user show"), (_JIDS,), _statistics),
    "announce": Adhoc("Announce to accounts online", _announce, (_ANNOUNCEMENT,)),
    "get-registered-users-num": _counted("Number of accounts", "accounts", "registeredusersnum"),
    "get-disabled-users-num": _counted("Number of disabled accounts", "banned", "disabledusersnum"),
    "get-online-users-num": _counted("Number of accounts online", "online", "onlineusersnum"),
    "get-registered-users-list": _listed("Accounts", "user list", "users", "registereduserjids", _domain),
    "get-disabled-users-list": _listed(
        "Disabled accounts", "user restricted", "restrictions", "disableduserjids",
        lambda domain: {"domain": domain, "kind": "ban"},
    ),
    "get-online-users-list": _listed("Sessions", "session list", "sessions", "onlineuserjids", _domain),
}  # fmt: skip
