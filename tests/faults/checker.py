"""The auditor of the fault suite: judges what clients wrote down (`ledger.py`), and knows nothing else.

C1: what was acknowledged was received, or is in the recipient's archive, or came back as an error; everything is
    acknowledged in the end; clients with stream management are *shown* everything; everybody is back.
C2: nothing came that was not sent so, and nothing both came and bounced.
C3: nothing came twice without a reason that the client can see: the sender wrote it again in a new session with the
    same id, or the recipient bound anew before the server could know that it had it (same stanza-id then).
C4: what one user sends to another comes in order, and stands so in the archive. What is repeated may begin again at an
    earlier place, but runs forward: for each j, the j-th comings are in order.
C7: how long a client waited: for an acknowledgement, for a message, for its next stream.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple, TypeVar

from tests.faults.ledger import Archived, Connection, Key, Received, Sent, UserLog

# What a client has said to have may be unknown where it counts for so long: a c2s tells it once a second, and holds
# what it could not tell while its router or the database is away.
UNTOLD_S: Final = 10.0


Got = TypeVar("Got", Received, Archived)


class Finding(NamedTuple):
    """A broken rule."""

    rule: str
    text: str
    key: Key | None = None


class Silence(NamedTuple):
    """How long somebody waited, for what, and when that was over."""

    seconds: float
    what: str
    ended_at: float


QUIET: Final = Silence(0.0, "", 0.0)


@dataclass(slots=True)
class Verdict:
    """What the auditor says about one run."""

    users: int = 0
    sent: int = 0
    acked: int = 0
    received: int = 0
    bounced: int = 0
    archive_only: int = 0  # of plain clients: in a socket that broke
    resent: int = 0  # came again because the sender had bound anew
    redelivered: int = 0  # came again because the recipient had bound anew
    dropped: int = 0  # streams that ended against the client's will
    resumed: int = 0
    failed_resumes: int = 0
    silence: Silence = QUIET
    has_archive: bool = True
    findings: list[Finding] = field(default_factory=list)

    def add(self, rule: str, text: str, key: Key | None = None) -> None:
        """A rule is broken."""
        self.findings.append(Finding(rule, text, key))

    def count(self, rule: str) -> int:
        """How often a rule, or one of a group, is broken."""
        return sum(finding.rule.startswith(rule) for finding in self.findings)

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "users", "sent", "acked", "came", "lost", "unseen", "stuck", "ghosts", "doubled", "misordered", "other",
        "bounced", "resent", "again", "archive", "dropped", "resumed", "failed", "silence",
    )  # fmt: skip

    def cells(self) -> list[str]:
        """The run as a line of a table."""
        rules = ("C1 lost", "C1 unseen", "C1 stuck", "C2", "C3", "C4")
        counted = [self.count(rule) for rule in rules]
        other = len(self.findings) - sum(counted)
        numbers = [
            self.users, self.sent, self.acked, self.received, *counted, other, self.bounced, self.resent,
            self.redelivered, self.archive_only, self.dropped, self.resumed, self.failed_resumes,
        ]  # fmt: skip
        return [*map(str, numbers), f"{self.silence.seconds:.2f}"]


def check(logs: Sequence[UserLog], since: float = 0.0) -> Verdict:
    """Judge a run. Waiting counts where it ended after `since`, when the first fault began."""
    verdict = Verdict(users=len(logs), has_archive=all(log.archive is not None for log in logs))
    by_seat = {(log.pair, log.side): log for log in logs}
    silences: list[Silence] = []
    for sender in logs:
        recipient = by_seat[sender.pair, 1 - sender.side]
        _check_fate(verdict, sender, recipient)
        silences.extend(_waits(sender, recipient))
    for log in logs:
        partner = by_seat[log.pair, 1 - log.side]
        _check_truth(verdict, log, partner)
        _check_twice(verdict, log, partner)
        _check_order(verdict, log, partner)
        _check_streams(verdict, log)
        silences.extend(_gaps(log))
    verdict.silence = max((s for s in silences if s.ended_at >= since), default=verdict.silence)
    return verdict


# --- C1


def _check_fate(verdict: Verdict, sender: UserLog, recipient: UserLog) -> None:
    came = {received.key for received in recipient.received}
    bounced = {error.key for error in sender.bounced}
    kept = {row.key for row in recipient.archive or ()}
    filed = {row.key for row in sender.archive or ()}
    verdict.sent += len(sender.sent)
    verdict.received += len(came & sender.sent.keys())
    verdict.bounced += len(bounced)
    for key, sent in sender.sent.items():
        who = f"{_name(key)} from {_kind(sender)} to {_kind(recipient)}"
        if key in came and key in bounced:
            verdict.add("C2 both", f"{who} came and bounced", key)
        if sent.acked_at is None:
            if key not in bounced:
                verdict.add("C1 stuck", f"{who} was never acknowledged, {_history(sent)}", key)
            continue
        verdict.acked += 1
        if key not in came and key not in bounced:
            if key not in kept:
                verdict.add(
                    "C1 lost",
                    f"{who} was acknowledged and is nowhere, {_history(sent)}; {_life(recipient, sent.writes[0].at)}",
                    key,
                )
            elif recipient.is_managed:
                verdict.add(
                    "C1 unseen",
                    f"{who} is in the archive and was never shown, {_history(sent)}; {_life(recipient, sent.writes[0].at)}",
                    key,
                )
            else:
                verdict.archive_only += 1
        if sender.archive is not None and key not in filed and key not in bounced:
            verdict.add(
                "C1 unfiled", f"{who} was acknowledged and is not in the sender's archive, {_history(sent)}", key
            )


# --- C2


def _check_truth(verdict: Verdict, log: UserLog, partner: UserLog) -> None:
    for received in log.received:
        _check_one(verdict, "came", received, log, partner)
    for row in log.archive or ():
        _check_one(verdict, "archived", row, log, partner)


def _check_one(verdict: Verdict, verb: str, got: Received | Archived, log: UserLog, partner: UserLog) -> None:
    key = got.key
    author = partner if key.direction == partner.side else log
    sent = author.sent.get(key) if key.pair == log.pair else None
    if sent is None or (isinstance(got, Received) and author is log):
        verdict.add("C2 ghost", f"{_name(key)} {verb} at {log.bare} and was not sent", key)
    elif (got.id, got.body) != (sent.id, sent.body):
        verdict.add("C2 ghost", f"{_name(key)} {verb} at {log.bare} as {got.id} {got.body!r}, sent as {sent.id}", key)
    elif got.from_ not in {connection.jid for connection in author.connections}:
        verdict.add("C2 ghost", f"{_name(key)} {verb} at {log.bare} from {got.from_}", key)


# --- C3


def _check_twice(verdict: Verdict, log: UserLog, partner: UserLog) -> None:
    comings: defaultdict[Key, list[Received]] = defaultdict(list)
    for received in log.received:
        comings[received.key].append(received)
    streams = {connection.stream: connection for connection in log.connections}
    for key, all_of_it in comings.items():
        sent = partner.sent.get(key)
        if sent is not None and len(all_of_it) > 1:
            _check_repeats(verdict, all_of_it, sent, streams, log)
    rows: defaultdict[Key, set[str]] = defaultdict(set)
    for row in log.archive or ():
        if row.archive_id in rows[row.key]:
            verdict.add("C3 doubled", f"{_name(row.key)} has archive id {row.archive_id} twice at {log.bare}", row.key)
        rows[row.key].add(row.archive_id)
    for key, ids in rows.items():
        author = partner if key.direction == partner.side else log
        allowed = author.sent[key].sessions if key in author.sent else 1
        if len(ids) > allowed:
            verdict.add(
                "C3 doubled", f"{_name(key)} is archived {len(ids)} times at {log.bare}, written {allowed}", key
            )
    if log.archive is not None:
        for received in log.received:
            if received.stanza_id is not None and received.stanza_id not in rows[received.key]:
                verdict.add(
                    "C3 id", f"{_name(received.key)} came as {received.stanza_id}, archived as otherwise", received.key
                )


def _check_repeats(
    verdict: Verdict, comings: Sequence[Received], sent: Sent, streams: dict[int, Connection], log: UserLog
) -> None:
    """Each coming but the first needs a reason."""
    seen: list[Received] = []
    own_rows = 0  # comings that are explained by a writing of their own
    for coming in comings:
        same = [earlier for earlier in seen if earlier.stanza_id == coming.stanza_id]
        if coming.stanza_id is None or not same:
            own_rows += 1
            if own_rows <= sent.sessions:
                verdict.resent += bool(seen)
                seen.append(coming)
                continue
            own_rows -= 1
        if same and _may_be_unknown(same[-1], coming, streams):
            verdict.redelivered += 1
        else:
            first = seen[0]
            verdict.add(
                "C3 doubled",
                f"{_name(coming.key)} came to {_kind(log)} on stream {first.stream} (session {first.session}, id "
                f"{first.stanza_id}) and {coming.at - first.at:.2f} s later on stream {coming.stream} (session "
                f"{coming.session}, id {coming.stanza_id}), {_history(sent)}; {_life(log, first.at)}",
                coming.key,
            )
        seen.append(coming)


def _may_be_unknown(earlier: Received, again: Received, streams: dict[int, Connection]) -> bool:
    """Whether the server could not know that the recipient had it: it came last thing before the stream was lost, or
    behind the recipient's good-bye."""
    before = streams[earlier.stream]
    if again.session == earlier.session or before.ended_at is None:
        return False
    if before.reason == "left":
        return before.closing_at is not None and earlier.at >= before.closing_at
    return before.ended_at - earlier.at < UNTOLD_S


# --- C4


def _check_order(verdict: Verdict, log: UserLog, partner: UserLog) -> None:
    due = [received for received in log.received if not _is_late(received, log, partner)]
    early = [received for received in due if _is_early(received, log)]
    live = [received for received in due if not received.is_delayed]
    found = list(_backwards([received for received in due if received not in early]))
    found += [pair for pair in _backwards(live) if pair not in found]
    for before, after in found:
        verdict.add(
            "C4 order",
            f"{_name(after.key)} came to {_kind(log)} {after.at - before.at:.3f} s after {_name(before.key)}, "
            f"on streams {before.stream} and {after.stream}; {_comings(log, after)}; {_life(log, after.at)}",
            after.key,
        )
    for row_before, row_after in _backwards(log.archive or ()):
        verdict.add(
            "C4 archive",
            f"{_name(row_after.key)} is archived after {_name(row_before.key)} at {log.bare}",
            row_after.key,
        )


def _is_late(received: Received, log: UserLog, partner: UserLog) -> bool:
    """What an earlier session was given and lost may come after newer ones, if it says so: it bears a delay, it is
    older than the session that it comes to, and the session before did not end as its client wished."""
    sent = partner.sent.get(received.key)
    if not received.is_delayed or sent is None:
        return False
    before = [connection for connection in log.connections if connection.session < received.session]
    now = next(connection for connection in log.connections if connection.session == received.session)
    return bool(before) and before[-1].reason != "left" and sent.writes[0].at < now.began_at


def _is_early(received: Received, log: UserLog) -> bool:
    """What is addressed to a session may come before it is available, and so before what is offline for the account
    (RFC 6121, 8.5.3.1). It is in order with what else comes live."""
    bound = next(c for c in log.connections if c.session == received.session)
    return bound.available_at is None or received.at < bound.available_at


def _backwards(got: Iterable[Got]) -> Iterator[tuple[Got, Got]]:
    """Neighbours in the wrong order: for each sender and j, the j-th comings shall run forward."""
    times: defaultdict[Key, int] = defaultdict(int)
    last: dict[tuple[int, int, int], Got] = {}
    for one in got:
        key = one.key
        times[key] += 1
        run = (key.pair, key.direction, times[key])
        before = last.get(run)
        if before is not None and before.key.seq >= key.seq:
            yield before, one
        last[run] = one


# --- C7, and streams


def _waits(sender: UserLog, recipient: UserLog) -> Iterator[Silence]:
    """For acknowledgements and messages, unless somebody was logged out meanwhile."""
    came: dict[Key, Received] = {}
    for received in recipient.received:
        came.setdefault(received.key, received)
    for key, sent in sender.sent.items():
        began_at = sent.writes[0].at
        if sent.acked_at is not None and not sender.was_absent(began_at, sent.acked_at):
            yield Silence(sent.acked_at - began_at, f"{_kind(sender)} for the ack of {_name(key)}", sent.acked_at)
        if key in came and not (
            sender.was_absent(began_at, came[key].at) or recipient.was_absent(began_at, came[key].at)
        ):
            yield Silence(came[key].at - began_at, f"{_kind(recipient)} for {_name(key)}", came[key].at)


def _gaps(log: UserLog) -> Iterator[Silence]:
    """Between a stream that was lost and the next one."""
    for before, after in zip(log.connections, log.connections[1:], strict=False):
        if before.ended_at is not None and before.reason != "left":
            what = f"{_kind(log)} for a stream after {before.reason!r}"
            yield Silence(after.began_at - before.ended_at, what, after.began_at)


def _check_streams(verdict: Verdict, log: UserLog) -> None:
    verdict.dropped += sum(c.ended_at is not None and c.reason != "left" for c in log.connections)
    verdict.resumed += sum(c.how == "resumed" for c in log.connections)
    verdict.failed_resumes += log.failed_resumes
    for complaint in log.complaints:
        verdict.add("C0 protocol", f"{_kind(log)} {log.bare}: {complaint}")
    if not log.is_back:
        last = log.connections[-1].reason if log.connections else "never signed in"
        verdict.add("C1 away", f"{_kind(log)} {log.bare} did not come back: {last}")


# --- words


def _name(key: Key) -> str:
    return f"message {key.pair}.{key.direction}.{key.seq}"


def _kind(log: UserLog) -> str:
    return f"{'managed' if log.is_managed else 'plain'} user {log.pair}.{log.side}"


def _comings(log: UserLog, around: Received) -> str:
    """What came from the same sender before and after."""
    same = [one for one in log.received if one.key[:2] == around.key[:2]]
    at = same.index(around)
    words = (
        f"{one.key.seq}{' (delayed)' if one.is_delayed else ''} at {one.at:.3f}"
        for one in same[max(0, at - 10) : at + 5]
    )
    return f"came: {', '.join(words)}"


def _life(log: UserLog, at: float) -> str:
    """The streams of a user around a moment."""
    now = sum(connection.began_at <= at for connection in log.connections)
    words = []
    for connection in log.connections[max(0, now - 2) : now + 2]:
        words.append(
            f"{connection.how} {connection.stream} (session {connection.session}) at {connection.began_at:.3f}"
            + (f", closing {connection.closing_at:.3f}" if connection.closing_at is not None else "")
            + (f" until {connection.ended_at:.3f}, {connection.reason}" if connection.ended_at is not None else "")
        )
    return f"streams of {_kind(log)}: {'; '.join(words) or 'none'}"


def _history(sent: Sent) -> str:
    writes = ", ".join(f"{write.at:.3f} on stream {write.stream}" for write in sent.writes)
    acked = f"{sent.acked_at:.3f}" if sent.acked_at is not None else "never"
    return f"written {writes}; acknowledged {acked}"
