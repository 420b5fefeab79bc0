"""The auditor finds what is planted, each kind under its own name, and nothing where all is well or explained."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.checker import UNTOLD_S, Verdict, check
from tests.faults.ledger import Absence, Archived, Bounced, Connection, Key, Received, Sent, UserLog, Write

MESSAGES = 6
FIRST = Key(0, 0, 1)


def user(side: int, *, is_managed: bool = True) -> UserLog:
    """A user of pair 0 with one stream that lasts."""
    log = UserLog(f"user{side}@localhost", 0, side, is_managed, archive=[], is_back=True)
    log.connections.append(Connection(1, 1, f"user{side}@localhost/till", "bound", 0.0, 0.0))
    return log


def world(*, is_managed: bool = True) -> list[UserLog]:
    """Romeo (side 0) sends six messages, one a second, and Juliet (side 1) answers each; all goes well."""
    romeo, juliet = user(0, is_managed=is_managed), user(1, is_managed=is_managed)
    for seq in range(1, MESSAGES + 1):
        for author, reader in ((romeo, juliet), (juliet, romeo)):
            send(author, reader, seq, float(seq))
    return [romeo, juliet]


def send(author: UserLog, reader: UserLog, seq: int, at: float) -> None:
    """A message that goes well."""
    key = Key(0, author.side, seq)
    sent = Sent(key, f"id-{author.side}-{seq}", f"body {seq}", [Write(at, 1, 1)], at + 0.1)
    author.sent[key] = sent
    reader.received.append(received(author, key, at + 0.1))
    for archive in (author.archive, reader.archive):
        assert archive is not None
        archive.append(Archived(key, row_id(key), sent.id, sent.body, author.connections[0].jid))


def row_id(key: Key, of: str = "") -> str:
    """The archive id of a message."""
    return f"{key.direction}-{key.seq}{of}"


def received(
    author: UserLog, key: Key, at: float, *, stanza_id: str | None = None, is_delayed: bool = False, session: int = 1,
    stream: int = 1,
) -> Received:  # fmt: skip
    """A message as its reader sees it."""
    sent, from_ = author.sent[key], author.connections[0].jid
    stanza_id = stanza_id or row_id(key)
    return Received(key, at, sent.id, sent.body, from_, stanza_id, is_delayed, session, stream)


def breaks(log: UserLog, at: float, how: str, reason: str = "connection lost") -> Connection:
    """The stream of a user is lost, the next one begins half a second later."""
    before = log.connections[-1]
    before.ended_at, before.reason = at, reason
    session = before.session + (how == "bound")
    log.connections.append(Connection(session, before.stream + 1, before.jid, how, at + 0.5, at + 0.5))
    return log.connections[-1]


def rules(logs: list[UserLog]) -> list[str]:
    """The broken rules."""
    return sorted(finding.rule for finding in check(logs).findings)


def forget(logs: list[UserLog], key: Key, *, also_in_archive: bool) -> None:
    """Juliet never gets a message."""
    juliet = logs[1]
    juliet.received = [one for one in juliet.received if one.key != key]
    if also_in_archive and juliet.archive is not None:
        juliet.archive = [row for row in juliet.archive if row.key != key]


def test_where_all_is_well_nothing_is_found() -> None:
    verdict = check(world())
    assert verdict.findings == []
    assert (verdict.users, verdict.sent, verdict.acked, verdict.received) == (2, 12, 12, 12)
    assert (verdict.dropped, verdict.resumed, verdict.resent, verdict.redelivered) == (0, 0, 0, 0)
    assert verdict.silence.seconds == pytest.approx(0.1)
    assert verdict.cells()[:4] == ["2", "12", "12", "12"]
    assert len(verdict.cells()) == len(Verdict.COLUMNS)


# --- C1


@pytest.mark.parametrize("is_managed", [True, False])
def test_an_acknowledged_message_that_is_nowhere_is_lost(is_managed: bool) -> None:
    logs = world(is_managed=is_managed)
    forget(logs, FIRST, also_in_archive=True)
    assert rules(logs) == ["C1 lost"]


def test_without_an_archive_only_what_came_counts() -> None:
    logs = world(is_managed=False)
    logs[0].archive = logs[1].archive = None
    assert rules(logs) == []
    forget(logs, FIRST, also_in_archive=True)
    assert rules(logs) == ["C1 lost"]
    assert not check(logs).has_archive


def test_the_archive_is_enough_for_a_plain_client_and_not_for_one_that_acknowledges() -> None:
    plain, managed = world(is_managed=False), world()
    for logs in (plain, managed):
        forget(logs, FIRST, also_in_archive=False)
    assert rules(plain) == []
    assert check(plain).archive_only == 1
    assert rules(managed) == ["C1 unseen"]


def test_an_error_is_an_answer_but_not_beside_a_delivery() -> None:
    logs = world()
    logs[0].bounced.append(Bounced(FIRST, 2.0, "service-unavailable"))
    assert rules(logs) == ["C2 both"]
    forget(logs, FIRST, also_in_archive=True)
    assert rules(logs) == []
    assert check(logs).bounced == 1


def test_what_is_never_acknowledged_is_stuck() -> None:
    logs = world()
    logs[0].sent[FIRST].acked_at = None
    assert rules(logs) == ["C1 stuck"]
    assert check(logs).acked == 11


def test_what_is_acknowledged_is_in_the_senders_archive() -> None:
    logs = world()
    assert logs[0].archive is not None
    logs[0].archive = [row for row in logs[0].archive if row.key != FIRST]
    assert rules(logs) == ["C1 unfiled"]


def test_everybody_is_back_and_saw_nothing_impossible() -> None:
    logs = world()
    logs[1].is_back = False
    logs[0].complaints.append("h=3 after h=5")
    assert rules(logs) == ["C0 protocol", "C1 away"]


# --- C2


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one._replace(key=Key(0, 0, 99)),
        lambda one: one._replace(key=Key(7, 0, 1)),
        lambda one: one._replace(body="body of another"),
        lambda one: one._replace(id="another"),
        lambda one: one._replace(from_="romeo@elsewhere.example/till"),
    ],
    ids=["unsent", "of another pair", "body", "id", "from"],
)
def test_what_came_was_sent_so(change: Callable[[Received], Received]) -> None:
    logs = world()
    logs[1].received[-1] = change(logs[1].received[-1])
    assert "C2 ghost" in rules(logs)


def test_what_is_archived_was_sent_so() -> None:
    logs = world()
    assert logs[1].archive is not None
    logs[1].archive.append(Archived(Key(0, 0, 99), "x", "id", "body", "user0@localhost/till"))
    logs[1].archive[0] = logs[1].archive[0]._replace(body="another")
    assert rules(logs) == ["C2 ghost", "C2 ghost"]


def test_a_users_own_message_does_not_come_back() -> None:
    logs = world()
    logs[0].received.append(received(logs[0], FIRST, 9.0))
    assert rules(logs) == ["C2 ghost"]


# --- C3


def test_a_message_comes_once_on_a_stream() -> None:
    logs = world()
    logs[1].received.append(received(logs[0], Key(0, 0, MESSAGES), 9.0))
    assert rules(logs) == ["C3 doubled"]


def test_after_a_resume_nothing_comes_again() -> None:
    logs = world()
    breaks(logs[1], 6.2, "resumed")
    logs[1].received.append(received(logs[0], Key(0, 0, MESSAGES), 7.0, stream=2))
    assert rules(logs) == ["C3 doubled"]
    assert check(logs).resumed == 1


def test_after_a_new_bind_what_came_last_may_come_again() -> None:
    logs = world()
    breaks(logs[1], 6.2, "bound")
    again = received(logs[0], Key(0, 0, MESSAGES), 7.0, session=2, stream=2)
    logs[1].received.append(again)
    assert rules(logs) == []
    assert check(logs).redelivered == 1
    logs[1].received[-1] = again._replace(stanza_id="another")
    assert rules(logs) == ["C3 doubled", "C3 id"]


def test_what_the_server_must_have_known_does_not_come_again() -> None:
    logs = world()
    end = 1.1 + UNTOLD_S + 1
    breaks(logs[1], end, "bound")
    logs[1].received.append(received(logs[0], FIRST, end + 1, session=2, stream=2))
    assert rules(logs) == ["C3 doubled"]


def test_who_leaves_properly_gets_nothing_twice_but_what_came_behind_the_good_bye() -> None:
    logs = world()
    breaks(logs[1], 6.2, "bound", "left")
    logs[1].connections[0].closing_at = 6.15
    last = Key(0, 0, MESSAGES)  # came at 6.1
    logs[1].received.append(received(logs[0], last, 8.0, session=2, stream=2))
    assert rules(logs) == ["C3 doubled"]
    logs[1].connections[0].closing_at = 6.05
    assert rules(logs) == []


def test_what_the_sender_wrote_in_two_sessions_may_come_twice() -> None:
    logs = world()
    sent = logs[0].sent[Key(0, 0, MESSAGES)]
    breaks(logs[0], 6.2, "bound")
    sent.writes.append(Write(6.7, 2, 2))
    twice = received(logs[0], sent.key, 6.8, stanza_id="second")
    logs[1].received.append(twice)
    for log in logs:
        assert log.archive is not None
        log.archive.append(Archived(sent.key, "second", sent.id, sent.body, logs[0].connections[0].jid))
    assert rules(logs) == []
    assert check(logs).resent == 1
    logs[1].received.append(twice._replace(at=6.9, stanza_id=row_id(sent.key)))
    assert rules(logs) == ["C3 doubled"]  # three times


def test_what_was_written_again_after_a_resume_counts_once() -> None:
    logs = world()
    sent = logs[0].sent[Key(0, 0, MESSAGES)]
    breaks(logs[0], 6.2, "resumed")
    sent.writes.append(Write(6.7, 1, 2))
    assert logs[1].archive is not None
    logs[1].archive.append(Archived(sent.key, "second", sent.id, sent.body, logs[0].connections[0].jid))
    logs[1].received.append(received(logs[0], sent.key, 6.8, stanza_id="second"))
    assert rules(logs) == ["C3 doubled", "C3 doubled"]  # shown and archived


def test_stanza_ids_are_those_of_the_archive() -> None:
    logs = world()
    logs[1].received[0] = logs[1].received[0]._replace(stanza_id="unknown")
    assert rules(logs) == ["C3 id"]


def test_the_archive_has_each_id_once() -> None:
    logs = world()
    assert logs[1].archive is not None
    logs[1].archive.append(logs[1].archive[-1])
    assert rules(logs) == ["C3 doubled"]


# --- C4


def test_messages_come_in_order() -> None:
    logs = world()
    came = logs[1].received
    came[2], came[3] = came[3], came[2]
    assert rules(logs) == ["C4 order"]


def test_order_holds_across_streams() -> None:
    logs = world()
    breaks(logs[1], 6.2, "resumed")
    came = logs[1].received
    came.append(came.pop(0)._replace(at=7.0, stream=2))
    assert rules(logs) == ["C4 order"]


def test_messages_are_archived_in_order() -> None:
    logs = world()
    archive = logs[1].archive
    assert archive is not None
    archive[0], archive[2] = archive[2], archive[0]
    assert rules(logs) == ["C4 archive"]


def test_a_repeated_block_may_begin_again_but_runs_forward() -> None:
    logs = world()
    breaks(logs[1], 6.2, "bound")
    repeats = [received(logs[0], Key(0, 0, seq), 7.0, session=2, stream=2) for seq in (4, 5, 6)]
    logs[1].received += repeats
    assert rules(logs) == []
    assert check(logs).redelivered == 3
    logs[1].received[-3:] = [repeats[1], repeats[0], repeats[2]]
    assert rules(logs) == ["C4 order"]


def test_what_a_lost_session_had_not_read_may_come_late_if_it_says_so() -> None:
    logs = world()
    breaks(logs[1], 2.5, "bound")
    late = logs[1].received.pop(1)._replace(at=8.0, session=2, stream=2)
    logs[1].received.append(late._replace(is_delayed=True))
    assert rules(logs) == []
    logs[1].received[-1] = late
    assert rules(logs) == ["C4 order"]
    logs[0].sent[late.key].writes[0] = Write(3.2, 1, 1)  # the new session was there before it
    logs[1].received[-1] = late._replace(is_delayed=True)
    assert rules(logs) == ["C4 order"]
    logs[0].sent[late.key].writes[0] = Write(2.0, 1, 1)
    assert rules(logs) == []
    logs[1].connections[0].reason = "left"  # then it was offline, and comes before everything new
    assert rules(logs) == ["C4 order"]


def test_before_a_session_is_available_what_is_for_it_alone_comes_but_in_order() -> None:
    logs = world()
    bound = breaks(logs[1], 3.2, "bound", "left")
    bound.available_at = 5.5
    came = [one._replace(session=2, stream=2) for one in logs[1].received[3:]]  # 4 at 4.1, 5 at 5.1, 6 at 6.1
    offline = logs[1].received.pop(2)._replace(at=5.6, session=2, stream=2, is_delayed=True)
    logs[1].received[2:] = [*came[:2], offline, came[2]]
    assert rules(logs) == []
    bound.available_at = 4.5  # then 5 should have waited for 3
    assert rules(logs) == ["C4 order"]
    bound.available_at = 5.5
    logs[1].received[2:] = [came[1], came[0], offline, came[2]]
    assert rules(logs) == ["C4 order"]


# --- C7


def test_silence_is_the_longest_wait_for_anything() -> None:
    logs = world()
    logs[0].sent[FIRST].acked_at = 3.0
    assert check(logs).silence.seconds == pytest.approx(2.0)
    logs[1].received[-1] = logs[1].received[-1]._replace(at=10.0)
    assert check(logs).silence.seconds == pytest.approx(4.0)
    breaks(logs[0], 10.0, "resumed").began_at = 15.0
    verdict = check(logs)
    assert verdict.silence.seconds == pytest.approx(5.0)
    assert verdict.dropped == 1


def test_waiting_before_the_fault_or_by_those_who_had_left_is_no_silence() -> None:
    logs = world()
    logs[0].sent[FIRST].acked_at = 3.0
    assert check(logs, since=3.5).silence.seconds == pytest.approx(0.1)
    logs[1].received[-1] = logs[1].received[-1]._replace(at=10.0)
    logs[1].absences.append(Absence(5.0, 9.0))
    assert check(logs, since=3.5).silence.seconds == pytest.approx(0.1)
    breaks(logs[0], 10.0, "bound", "left").began_at = 15.0
    assert check(logs, since=3.5).silence.seconds == pytest.approx(0.1)
