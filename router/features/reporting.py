"""Reports of spam and abuse, made while blocking (XEP-0377): they wait for the operators, who are told, with copies of
the messages that they name. Where the operator wants so, reports by enough users put an account into quarantine."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, NamedTuple

from lxml import etree

from cluster import metrics
from router.events import Reported
from router.feature import Feature
from router.turn import Turn
from storage import reports
from storage.reports import Context
from xmpp import ns
from xmpp import stanza as stanzas
from xmpp.jid import bare_of, domain_of
from xmpp.stanza import HAS_BODY
from xmpp.xml import element, text_of

feature = Feature("reporting", xep=((377, "0.4.1"),), server_features=(ns.REPORTING,), account_features=(ns.REPORTING,))

TEXT: Final = 2_000  # characters
IDS: Final = 50  # stanzas that one report names
REASONS: Final = {f"{ns.REPORTING.removesuffix(':1')}:{word}": word for word in ("spam", "abuse")}
BY: Final = "reports"  # who puts accounts into quarantine

made = metrics.counter(
    "stentor_reports_total", "Reports of users (XEP-0377)",
    {"reason": ["spam", "abuse", "other"], "result": ["kept", "limited"]},
)  # fmt: skip


class _Report(NamedTuple):
    reported: str
    reason: str
    text: str
    ids: tuple[str, ...]


@feature.on_event(Reported)
def receive(turn: Turn, event: Reported) -> None:
    """The JID is blocked in this turn, whatever becomes of the report ("just as they would if no report were
    present")."""
    entity = turn.entity
    assert entity.key is not None
    report = _read(event.jid, event.report)
    ids = [int(id_) for id_ in report.ids if id_.isascii() and id_.isdigit() and len(id_) < 20]
    turn.fetch(reports.context, partial(_keep, report), entity.key, entity.bare, bare_of(report.reported), ids)


def _read(jid: str, report: etree._Element) -> _Report:
    ids = [one.get("id") or "" for one in report.iterchildren(f"{{{ns.SID}}}stanza-id")][:IDS]
    text = text_of(report.find(f"{{{ns.REPORTING}}}text")).strip()[:TEXT]
    reason = report.get("reason") or ""
    return _Report(jid, REASONS.get(reason, reason[:100]), text, tuple(id_[:100] for id_ in ids if id_))


def _keep(report: _Report, turn: Turn, context: Context) -> None:
    turn.stanza = None  # its sender has been answered
    entity, settings = turn.entity, turn.settings
    word = report.reason if report.reason in REASONS.values() else "other"
    if context.made >= settings.reports_per_day:
        made.labels(word, "limited").inc()
        return
    copies = [stanzas.encode(row.stanza, entity.bare).decode() for row in context.rows]
    turn.write(reports.add, context.id, entity.bare, report.reported, report.reason, report.text, report.ids, copies)
    made.labels(word, "kept").inc()
    _tell_admins(turn, report, context.id)
    accused = bare_of(report.reported)
    enough = settings.quarantine_reports
    is_ours = domain_of(accused) in settings.domains and accused not in settings.admins
    if enough and context.others + 1 >= enough and is_ours:
        why = f"{context.others + 1} users have reported this account within a day."
        turn.call(accused, "admin.restrict", _done, "quarantine", why, BY, None, True)


def _tell_admins(turn: Turn, report: _Report, id_: int) -> None:
    entity = turn.entity
    words = f"{entity.bare} has reported {report.reported} ({report.reason or 'without a reason'})"
    body = f"{words}: {report.text}" if report.text else f"{words}."
    inner = element("body", None, None, f"{body}\nThe rest: stentor report show {id_}")
    for admin in sorted(turn.settings.admins):
        turn.send(
            stanzas.message(to=admin, from_=domain_of(entity.bare), id=f"report-{id_}", inner=inner, flags=HAS_BODY)
        )


def _done(turn: Turn, value: Any) -> None:
    """A quarantine is told of by whoever imposes it."""
