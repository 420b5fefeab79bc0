"""Reports while blocking (XEP-0377)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from router.features import reporting
from storage import reports
from storage.log import TO_OWNER, Row, pack_head
from storage.reports import Context
from tests.support.turns import DOMAIN, PLAIN, World, parse
from xmpp import ns

JULIET, TYBALT, ADMIN = (f"{name}@{DOMAIN}" for name in ("juliet", "tybalt", "admin"))
REPORT = f'<report xmlns="{ns.REPORTING}" reason="urn:xmpp:reporting:{{}}">{{}}</report>'


class Scene:
    """Juliet reports; what the database knows of her and of Tybalt is `made` and `others`."""

    def __init__(self) -> None:
        settings = dataclasses.replace(PLAIN, admins=frozenset({ADMIN}), reports_per_day=3, quarantine_reports=2)
        self.world = world = World(settings)
        self.juliet = world.online(world.account(JULIET), "balcony")
        self.admin = world.online(world.account(ADMIN), "desk")
        self.made = self.others = 0
        self.asked: list[tuple[Any, ...]] = []
        self.calls: list[tuple[Any, ...]] = []
        self.rows: list[Row] = []
        world.database[reports.context] = self._context
        world.database["admin.restrict"] = lambda *arguments: self.calls.append(arguments)

    def _context(self, *arguments: Any) -> Context:
        self.asked.append(arguments)
        return Context(12, self.made, self.others, self.rows)

    def block(self, *items: str) -> list[str]:
        self.world.written()
        self.world.say(self.juliet, f'<iq type="set" id="b"><block xmlns="{ns.BLOCKING}">{"".join(items)}</block></iq>')
        return self.world.heard(self.juliet)

    def report(self, reason: str = "spam", inner: str = "", jid: str = TYBALT) -> list[tuple[Any, ...]]:
        """Block and report; the reports that are kept."""
        answer = self.block(f'<item jid="{jid}">{REPORT.format(reason, inner)}</item>')
        assert len(answer) == 1
        assert 'type="result"' in answer[0], "the report is no part of the answer"
        return [write.arguments for write in self.world.writes if write.statement is reports.add]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_report_is_kept_and_the_admins_are_told(scene: Scene) -> None:
    """4 and 6: with a reason and a text; the JID is blocked as without a report."""
    (kept,) = scene.report("abuse", '<text xml:lang="en">Never came trouble to my house like this.</text>')
    assert kept == (12, JULIET, TYBALT, "abuse", "Never came trouble to my house like this.", (), [])
    assert TYBALT in scene.juliet.entity.blocks
    (told,) = scene.world.heard(scene.admin)
    assert told.startswith(f'<message to="{ADMIN}" from="{DOMAIN}"')
    assert f"{JULIET} has reported {TYBALT} (abuse): Never came trouble" in told
    assert "stentor report show 12" in told


def test_messages_that_are_named_are_copied_from_the_archive(scene: Scene) -> None:
    """6: <stanza-id/>, which may be of an archive that nobody here has."""
    said = parse(f'<message from="{TYBALT}/street" to="{JULIET}" id="1"><body>buy</body></message>')
    scene.rows = [Row(1, 1, 7, 1, TO_OWNER, 0, TYBALT, 1, 1, pack_head(said), said.inner)]
    ids = "".join(f'<stanza-id xmlns="{ns.SID}" by="{JULIET}" id="{id_}"/>' for id_ in ("7", "x-1"))
    (kept,) = scene.report("spam", ids)
    assert kept[5] == ("7", "x-1")
    assert kept[6] == [f'<message to="{JULIET}" from="{TYBALT}/street" id="1"><body>buy</body></message>']
    assert scene.asked[0][2:] == (TYBALT, [7])


def test_a_reason_that_is_not_known_is_kept_as_it_is(scene: Scene) -> None:
    scene.block(f'<item jid="{TYBALT}"><report xmlns="{ns.REPORTING}" reason="urn:x"/></item>')
    (write,) = [write for write in scene.world.writes if write.statement is reports.add]
    assert write.arguments[3] == "urn:x"


def test_each_report_is_of_its_own_item(scene: Scene) -> None:
    """7: "any abuse report only applies to a single JID"."""
    scene.block(f'<item jid="{TYBALT}"/>', f'<item jid="paris@{DOMAIN}">{REPORT.format("spam", "")}</item>')
    (write,) = [write for write in scene.world.writes if write.statement is reports.add]
    assert write.arguments[2] == f"paris@{DOMAIN}"
    assert {TYBALT, f"paris@{DOMAIN}"} <= scene.juliet.entity.blocks


def test_who_reports_too_much_blocks_only(scene: Scene) -> None:
    scene.made = 3
    assert scene.report() == []
    assert TYBALT in scene.juliet.entity.blocks
    assert scene.world.heard(scene.admin) == []


def test_reports_by_enough_users_put_an_account_into_quarantine(scene: Scene) -> None:
    scene.report()
    assert scene.calls == []
    scene.others = 1
    scene.report(jid=f"{TYBALT}/street")
    why = "2 users have reported this account within a day."
    assert scene.calls == [(TYBALT, "quarantine", why, reporting.BY, None, True)]
    scene.report(jid="paris@elsewhere.example")
    scene.report(jid=ADMIN)
    assert len(scene.calls) == 1, "neither others' users nor administrators"


def test_what_is_long_is_cut(scene: Scene) -> None:
    ids = "".join(f'<stanza-id xmlns="{ns.SID}" by="{JULIET}" id="{n}"/>' for n in range(reporting.IDS + 10))
    (kept,) = scene.report("spam", f"<text>{'x' * 9_000}</text>{ids}")
    assert (len(kept[4]), len(kept[5])) == (reporting.TEXT, reporting.IDS)
