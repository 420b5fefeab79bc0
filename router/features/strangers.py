"""People who are not contacts of an account: what of theirs comes in, and how much within an hour. An account that
writes to too many of them may be put into quarantine by itself.

Nobody is a stranger who is in the roster, whom the account has written to, called or joined (as rooms), or who is of
this server: its services, its administrators. What is counted is in the memory of the account's owner: the next owner
begins anew, and knows only the roster.
"""

from __future__ import annotations

from typing import Final

from cluster import metrics
from router import restrictions
from router.entity import Entity
from router.feature import Feature, Stage
from router.restrictions import told
from router.settings import Strangers
from router.turn import Turn
from xmpp.errors import PolicyViolation, ResourceConstraint
from xmpp.jid import bare_of, domain_of
from xmpp.stanza import HAS_BODY, HAS_EVENT, Stanza

feature = Feature("strangers")

DATA: Final = "strangers"
MOST: Final = 1_000  # people remembered of one account
HOUR_S: Final = 3_600.0
BY: Final = "strangers"  # who puts accounts into quarantine

screened = metrics.counter(
    "stentor_strangers_total", "What strangers have sent to accounts",
    {"kind": ["message", "subscription"], "origin": ["local", "remote"], "result": ["accepted", "limited", "refused"]},
)  # fmt: skip


class _Known:
    """What an account's owner remembers of people who are not in its roster."""

    __slots__ = ("addressed", "by_sender", "heard", "met", "since", "total")

    def __init__(self, now: float) -> None:
        self.addressed: dict[str, None] = {}  # bare JIDs that the account has turned to, the last ones
        self.heard: dict[str, None] = {}  # strangers that have turned to the account, the last ones
        self.since = now  # of what follows: the present hour
        self.total = 0  # what strangers have sent
        self.by_sender: dict[str, int] = {}
        self.met = 0  # strangers that the account has written to and not heard of

    def turn_the_hour(self, now: float) -> None:
        """What was counted an hour ago does not count."""
        if now - self.since >= HOUR_S:
            self.since, self.total, self.met = now, 0, 0
            self.by_sender.clear()


def _remember(people: dict[str, None], bare: str) -> None:
    if len(people) >= MOST:
        del people[next(iter(people))]
    people[bare] = None


def _known(turn: Turn) -> _Known:
    data = turn.entity.data
    known: _Known | None = data.get(DATA)
    if known is None:
        known = data[DATA] = _Known(turn.now)
    known.turn_the_hour(turn.now)
    return known


# --- what comes in


@feature.on_message(Stage.IN_SCREEN)
def screen_message(turn: Turn, message: Stanza) -> bool:
    """Rooms are nobody's contact, and what is told of nodes is no message of anybody."""
    policy, from_ = turn.settings.strangers, message.from_
    if policy is None or from_ is None:
        return False
    contact = turn.entity.roster.contacts.get(from_.partition("/")[0])
    if contact is not None and (contact.in_roster or contact.shared):
        return False  # as `is_listed`, in half the time
    if message.type in ("groupchat", "error") or message.flags & (HAS_EVENT | HAS_BODY) == HAS_EVENT:
        return False
    if not _is_stranger(turn, from_):
        return False
    if turn.settings.blocklists.refuses(bare_of(from_), "strangers"):
        raise PolicyViolation("You are on a list of abusers that this server goes by.", type="cancel")
    wanted = _policy_for(turn, policy, from_)
    if wanted in ("requests", "refuse"):
        _count(turn, "message", from_, "refused")
        raise PolicyViolation("This account takes no messages of people who are not its contacts.", type="cancel")
    if message.flags & HAS_BODY:
        _admit(turn, policy, wanted, "message", bare_of(from_))
    return False


@feature.on_presence(Stage.IN_SCREEN)
def screen_request(turn: Turn, presence: Stanza) -> bool:
    """RFC 6121, 3.1.3: what is refused is not answered, as by somebody who does not care to."""
    policy, from_ = turn.settings.strangers, presence.from_
    if presence.type != "subscribe" or policy is None or from_ is None:
        return False
    contact = turn.entity.roster.contacts.get(bare_of(from_))
    if (contact is not None and contact.is_listed) or not _is_stranger(turn, from_):
        return False
    if turn.settings.blocklists.refuses(bare_of(from_), "strangers"):
        return True
    wanted = _policy_for(turn, policy, from_)
    if wanted == "refuse":
        _count(turn, "subscription", from_, "refused")
        return True
    try:
        _admit(turn, policy, wanted, "subscription", bare_of(from_))
    except (PolicyViolation, ResourceConstraint):
        return True
    return False


def _is_stranger(turn: Turn, jid: str) -> bool:
    entity, settings = turn.entity, turn.settings
    bare, domain = bare_of(jid), domain_of(jid)
    if not entity.exists or bare == entity.bare or bare in settings.domains or bare in settings.admins:
        return False
    if domain in settings.room_domains or domain in settings.service_domains or domain in settings.components:
        return False
    known: _Known | None = entity.data.get(DATA)
    return known is None or bare not in known.addressed


def _policy_for(turn: Turn, policy: Strangers, from_: str) -> str:
    own = policy.domains.get(domain_of(turn.entity.bare))
    return own or (policy.local if domain_of(from_) in turn.settings.domains else policy.remote)


def _admit(turn: Turn, policy: Strangers, wanted: str, kind: str, bare: str) -> None:
    """Count it, if it may come in."""
    known = _known(turn)
    sent = known.by_sender.get(bare, 0)
    if policy.sender_per_hour and sent >= policy.sender_per_hour:
        _count(turn, kind, bare, "limited")
        raise PolicyViolation("Too much for somebody who has not answered. Try again in an hour.", type="wait")
    if wanted in ("limit", "requests") and policy.per_hour and known.total >= policy.per_hour:
        _count(turn, kind, bare, "limited")
        raise ResourceConstraint("Too many strangers want something of this account. Try again in an hour.")
    if bare in known.by_sender or len(known.by_sender) < MOST:
        known.by_sender[bare] = sent + 1
    known.total += 1
    _remember(known.heard, bare)
    _count(turn, kind, bare, "accepted")


def _count(turn: Turn, kind: str, from_: str, result: str) -> None:
    origin = "local" if domain_of(from_) in turn.settings.domains else "remote"
    screened.labels(kind, origin, result).inc()


# --- what goes out


@feature.on_message(Stage.OUT_SCREEN)
def note_message(turn: Turn, message: Stanza) -> bool:
    """Whoever is written to may answer."""
    to, policy = message.to, turn.settings.strangers
    if policy is None or to is None or to.partition("/")[0] in turn.entity.roster.contacts:
        return False
    return _note(turn, policy, message, to)


@feature.on_presence(Stage.OUT_SCREEN)
@feature.on_any_iq(Stage.OUT_SCREEN)
def note_other(turn: Turn, stanza: Stanza) -> bool:
    """Whoever is shown presence, as rooms are, or asked something, likewise. An answer is no such thing."""
    to = stanza.to
    if to is not None and turn.settings.strangers is not None and stanza.type in (None, "subscribe", "get", "set"):
        bare = bare_of(to)
        if bare not in turn.entity.roster.contacts and "@" in bare:
            _address(turn.entity, _known(turn), bare)
    return False


def _note(turn: Turn, policy: Strangers, message: Stanza, to: str) -> bool:
    entity, bare = turn.entity, bare_of(to)
    known = _known(turn)
    if bare in known.addressed or bare == entity.bare:
        return False
    is_new = bare not in known.heard and _is_stranger(turn, to)
    _address(entity, known, bare)
    if not is_new or not policy.quarantine_after or not message.flags & HAS_BODY:
        return False
    known.met += 1
    if known.met <= policy.quarantine_after or entity.key is None or entity.bare in turn.settings.admins:
        return False
    if restrictions.restriction(entity, "quarantine", turn.now) is None:
        reason = f"Messages to more than {policy.quarantine_after} strangers within an hour."
        restrictions.impose(turn, "quarantine", reason, BY, None, is_rule=True)
    found = restrictions.restriction(entity, "quarantine", turn.now)
    assert found is not None
    turn.fail(message, PolicyViolation(told(found), type="cancel"))  # raised, it would undo the quarantine
    return True


def _address(entity: Entity, known: _Known, bare: str) -> None:
    if bare not in known.addressed and bare != entity.bare:
        _remember(known.addressed, bare)
