"""What the gateway keeps, in SQLite: one method, one statement. Whoever calls is inside a transaction (`store.py`).

Three queues are here. `parts` wait for the SMSC, and then for their delivery report; `stanzas` wait for the XMPP
server; `fragments` wait for the rest of their message.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Final, NamedTuple

from s2s.gateways.sms.parts import Encoded, Place
from s2s.gateways.sms.reports import Report, State
from xmpp import stanza as stanzas
from xmpp.stanza import Stanza

VERSION: Final = 1

SCHEMA: Final = """
CREATE TABLE registrations (user TEXT PRIMARY KEY, number TEXT UNIQUE);
CREATE TABLE contacts (user TEXT, number TEXT, PRIMARY KEY (user, number)) WITHOUT ROWID;
CREATE TABLE conversations (number TEXT, ours TEXT, user TEXT, PRIMARY KEY (number, ours)) WITHOUT ROWID;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, sender TEXT, user TEXT, stanza_id TEXT, type TEXT, number TEXT, ours TEXT,
    wants_receipt INTEGER, data_coding INTEGER, esm_class INTEGER, last_status INTEGER DEFAULT 0, at REAL
);
CREATE TABLE parts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, message INTEGER REFERENCES messages ON DELETE CASCADE, content BLOB,
    state TEXT DEFAULT 'queued', smsc_id TEXT, tries INTEGER DEFAULT 0, not_before REAL DEFAULT 0
);
CREATE INDEX parts_queued ON parts (id) WHERE state = 'queued';
CREATE INDEX parts_of_message ON parts (message);
CREATE INDEX parts_reported ON parts (smsc_id) WHERE smsc_id IS NOT NULL;
CREATE INDEX messages_of_user ON messages (user);
CREATE INDEX messages_by_age ON messages (at);
CREATE TABLE early_reports (
    smsc_id TEXT, number TEXT, state TEXT, error TEXT, at REAL, PRIMARY KEY (smsc_id, number)
) WITHOUT ROWID;
CREATE TABLE fragments (
    source TEXT, ours TEXT, reference INTEGER, total INTEGER, sequence INTEGER, coding INTEGER, content BLOB, at REAL,
    PRIMARY KEY (source, ours, reference, total, sequence)
) WITHOUT ROWID;
CREATE TABLE seen (fingerprint BLOB, session INTEGER, at REAL);
CREATE INDEX seen_fingerprint ON seen (fingerprint);
CREATE INDEX seen_at ON seen (at);
CREATE TABLE stanzas (
    id INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT, recipient TEXT, sender TEXT, stanza_id TEXT, inner BLOB, at REAL
);
CREATE TABLE binds (session INTEGER PRIMARY KEY AUTOINCREMENT, ended_at REAL);
"""
SESSIONS: Final = "CREATE TEMP TABLE sessions (user TEXT, resource TEXT, PRIMARY KEY (user, resource)) WITHOUT ROWID"


class Message(NamedTuple):
    """A message from a user to a phone, as it was accepted."""

    id: int
    sender: str
    user: str
    stanza_id: str | None
    type: str | None
    number: str
    ours: str
    wants_receipt: bool
    last_status: int


class Part(NamedTuple):
    """A part that waits for the SMSC."""

    id: int
    content: bytes
    number: str
    ours: str
    data_coding: int
    esm_class: int


class Waiting(NamedTuple):
    """A stanza that waits for the XMPP server, and since when (Unix seconds)."""

    id: int
    stanza: Stanza
    at: float


class Group(NamedTuple):
    """The fragments that belong together."""

    source: str
    ours: str
    reference: int
    total: int


_MESSAGE: Final = "id, sender, user, stanza_id, type, number, ours, wants_receipt, last_status"


class Book:
    """The tables, in a connection whose transactions somebody else begins and ends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def prepare(self) -> None:
        """Make the tables of a new file; raises ValueError where they are of another version."""
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise ValueError(f"the file has version {version}, this gateway reads {VERSION}")
        if version == 0:
            self._db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute(SESSIONS)

    # --- registrations

    def register(self, user: str, number: str | None) -> None:
        """Register a user, or change the number of one."""
        self._db.execute(
            "INSERT INTO registrations VALUES (?, ?) ON CONFLICT (user) DO UPDATE SET number = excluded.number",
            (user, number),
        )

    def unregister(self, user: str) -> None:
        """Forget a user; messages that were accepted stay on their way."""
        for table in ("registrations", "contacts", "conversations", "sessions"):
            self._db.execute(f"DELETE FROM {table} WHERE user = ?", (user,))

    def is_registered(self, user: str) -> bool:
        """Whether the user is."""
        return self._db.execute("SELECT 1 FROM registrations WHERE user = ?", (user,)).fetchone() is not None

    def number_of(self, user: str) -> str | None:
        """The number of the pool that a user has."""
        row = self._db.execute("SELECT number FROM registrations WHERE user = ?", (user,)).fetchone()
        return None if row is None else row[0]

    def owner_of(self, number: str) -> str | None:
        """The user who has this number of the pool."""
        row = self._db.execute("SELECT user FROM registrations WHERE number = ?", (number,)).fetchone()
        return None if row is None else str(row[0])

    def registered(self) -> list[str]:
        """Every user."""
        return [user for (user,) in self._db.execute("SELECT user FROM registrations ORDER BY user")]

    def taken(self) -> set[str]:
        """The numbers of the pool that users have."""
        rows = self._db.execute("SELECT number FROM registrations WHERE number IS NOT NULL")
        return {number for (number,) in rows}

    # --- contacts and sessions

    def add_contact(self, user: str, number: str) -> None:
        """The user sees the presence of this number."""
        self._db.execute("INSERT OR IGNORE INTO contacts VALUES (?, ?)", (user, number))

    def remove_contact(self, user: str, number: str) -> None:
        """Not any more."""
        self._db.execute("DELETE FROM contacts WHERE user = ? AND number = ?", (user, number))

    def contacts(self, user: str) -> list[str]:
        """The numbers whose presence the user sees."""
        rows = self._db.execute("SELECT number FROM contacts WHERE user = ? ORDER BY number", (user,))
        return [number for (number,) in rows]

    def log_in(self, user: str, resource: str) -> bool:
        """A device of the user is there; whether that is news."""
        return bool(self._db.execute("INSERT OR IGNORE INTO sessions VALUES (?, ?)", (user, resource)).rowcount)

    def log_out(self, user: str, resource: str) -> bool:
        """It is gone, "" for all of them; whether that is news."""
        where = "user = ?1 AND ?2 IN (resource, '')"
        return bool(self._db.execute(f"DELETE FROM sessions WHERE {where}", (user, resource)).rowcount)

    def log_out_all(self) -> None:
        """Nobody is known to be there."""
        self._db.execute("DELETE FROM sessions")

    def sessions(self) -> list[str]:
        """The full JIDs of all devices that are there."""
        rows = self._db.execute("SELECT user, resource FROM sessions ORDER BY user, resource")
        return [f"{user}/{resource}" if resource else user for user, resource in rows]

    # --- conversations

    def wrote(self, user: str, number: str, ours: str) -> None:
        """The user has written to this number from ours: answers are for the last who did."""
        self._db.execute("INSERT OR REPLACE INTO conversations VALUES (?, ?, ?)", (number, ours, user))

    def last_writer(self, number: str, ours: str) -> str | None:
        """Who has."""
        row = self._db.execute(
            "SELECT user FROM conversations WHERE number = ? AND ours = ?", (number, ours)
        ).fetchone()
        return None if row is None else str(row[0])

    # --- messages to phones

    def waiting_parts(self, user: str | None = None) -> int:
        """How many parts wait for the SMSC, of this user or of all."""
        sql = "SELECT count(*) FROM parts WHERE state = 'queued'"
        if user is not None:
            sql += " AND message IN (SELECT id FROM messages WHERE user = ?)"
        (count,) = self._db.execute(sql, () if user is None else (user,)).fetchone()
        return int(count)

    def next_reference(self) -> int:
        """The 8 bit reference for the parts of the next message."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'messages'").fetchone()
        return (int(row[0]) + 1 if row else 1) % 256

    def add_message(
        self, *, sender: str, user: str, stanza_id: str | None, type: str | None, number: str, ours: str,
        wants_receipt: bool, encoded: Encoded, at: float,
    ) -> None:  # fmt: skip
        """Queue a message with its parts."""
        message = self._db.execute(
            "INSERT INTO messages (sender, user, stanza_id, type, number, ours, wants_receipt, data_coding, esm_class,"
            " at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (sender, user, stanza_id, type, number, ours, wants_receipt, encoded.data_coding, encoded.esm_class, at),
        ).lastrowid
        self._db.executemany(
            "INSERT INTO parts (message, content) VALUES (?, ?)", ((message, content) for content in encoded.parts)
        )

    def due_parts(self, now: float, limit: int) -> list[Part]:
        """The first parts that wait for the SMSC and may be sent now."""
        rows = self._db.execute(
            "SELECT p.id, p.content, m.number, m.ours, m.data_coding, m.esm_class FROM parts p"
            " JOIN messages m ON m.id = p.message WHERE p.state = 'queued' AND p.not_before <= ?"
            " ORDER BY p.id LIMIT ?",
            (now, limit),
        )
        return [Part(*row) for row in rows]

    def message_of(self, part: int) -> Message | None:
        """The message that a part belongs to."""
        row = self._db.execute(
            f"SELECT {_MESSAGE} FROM messages WHERE id = (SELECT message FROM parts WHERE id = ?)", (part,)
        ).fetchone()
        return None if row is None else Message(*row)

    def accepted(self, part: int, smsc_id: str | None) -> None:
        """The SMSC has the part, and calls it so."""
        self._db.execute("UPDATE parts SET state = 'accepted', smsc_id = ? WHERE id = ?", (smsc_id, part))

    def refused(self, part: int, status: int) -> None:
        """The SMSC refused the part for now, with this status."""
        self._db.execute(
            "UPDATE messages SET last_status = ? WHERE id = (SELECT message FROM parts WHERE id = ?)", (status, part)
        )

    def count_try(self, part: int) -> int:
        """How often the part was refused, this time included."""
        (tries,) = self._db.execute(
            "UPDATE parts SET tries = tries + 1 WHERE id = ? RETURNING tries", (part,)
        ).fetchone()
        return int(tries)

    def postpone(self, part: int, not_before: float) -> None:
        """Not to be sent before this moment."""
        self._db.execute("UPDATE parts SET not_before = ? WHERE id = ?", (not_before, part))

    def part_called(self, smsc_id: str, number: str | None) -> int | None:
        """The accepted part that the SMSC calls so, to this number if one is given."""
        sql = "SELECT p.id FROM parts p JOIN messages m ON m.id = p.message WHERE p.smsc_id = ?"
        arguments: tuple[str, ...] = (smsc_id,)
        if number is not None:
            sql, arguments = f"{sql} AND m.number = ?", (smsc_id, number)
        row = self._db.execute(f"{sql} ORDER BY p.id DESC", arguments).fetchone()
        return None if row is None else int(row[0])

    def delivered(self, part: int) -> None:
        """The part has reached the phone."""
        self._db.execute("UPDATE parts SET state = 'delivered', smsc_id = NULL WHERE id = ?", (part,))

    def undelivered_parts(self, message: int) -> int:
        """How many parts of a message have not."""
        (count,) = self._db.execute(
            "SELECT count(*) FROM parts WHERE message = ? AND state != 'delivered'", (message,)
        ).fetchone()
        return int(count)

    def remove_message(self, message: int) -> None:
        """Nothing more is expected of it."""
        self._db.execute("DELETE FROM messages WHERE id = ?", (message,))

    def given_up(self, before: float) -> list[Message]:
        """Messages from before this moment that the SMSC has not taken in full."""
        rows = self._db.execute(
            f"SELECT {_MESSAGE} FROM messages WHERE at < ?"
            " AND id IN (SELECT message FROM parts WHERE state = 'queued')",
            (before,),
        )
        return [Message(*row) for row in rows]

    def remove_unreported(self, before: float) -> int:
        """Messages whose report has not come by now are forgotten; returns how many."""
        rows = self._db.execute(
            "DELETE FROM messages WHERE at < ? AND id NOT IN (SELECT message FROM parts WHERE state = 'queued')",
            (before,),
        )
        return rows.rowcount

    def add_early_report(self, report: Report, number: str, at: float) -> None:
        """A report from this number that overtook the answer to its submit."""
        self._db.execute(
            "INSERT OR REPLACE INTO early_reports VALUES (?, ?, ?, ?, ?)",
            (report.message_id, number, report.state, report.error, at),
        )

    def take_early_report(self, smsc_ids: Collection[str], number: str) -> Report | None:
        """The report from this number that has come already under one of these ids."""
        marks = ", ".join("?" * len(smsc_ids))
        row = self._db.execute(
            f"DELETE FROM early_reports WHERE smsc_id IN ({marks}) AND number = ? RETURNING smsc_id, state, error",
            (*smsc_ids, number),
        ).fetchone()
        if row is None:
            return None
        state: State = row[1]
        return Report(row[0], state, row[2])

    def remove_early_reports(self, before: float) -> None:
        """Those that were for nobody."""
        self._db.execute("DELETE FROM early_reports WHERE at < ?", (before,))

    # --- messages from phones

    def begin_bind(self) -> int:
        """A number for a new SMPP session, higher than all before."""
        return int(self._db.execute("INSERT INTO binds VALUES (NULL, NULL)").lastrowid or 0)

    def end_bind(self, session: int, at: float) -> None:
        """The session is over."""
        self._db.execute("UPDATE binds SET ended_at = ? WHERE session = ?", (at, session))

    def saw(self, fingerprint: bytes, session: int, at: float) -> None:
        """This was received."""
        self._db.execute("INSERT INTO seen VALUES (?, ?, ?)", (fingerprint, session, at))

    def forget_seen(self, fingerprint: bytes, session: int, doubt_s: float) -> bool:
        """Whether this was received in an earlier session, so shortly before its end that the SMSC may not have seen
        the answer; each time counts once."""
        row = self._db.execute(
            "DELETE FROM seen WHERE rowid = (SELECT s.rowid FROM seen s LEFT JOIN binds b ON b.session = s.session"
            " WHERE s.fingerprint = ? AND s.session < ? AND s.at >= coalesce(b.ended_at, s.at) - ? LIMIT 1)"
            " RETURNING 1",
            (fingerprint, session, doubt_s),
        ).fetchone()
        return row is not None

    def was_seen(self, fingerprint: bytes) -> bool:
        """Whether this was received at all."""
        return self._db.execute("SELECT 1 FROM seen WHERE fingerprint = ?", (fingerprint,)).fetchone() is not None

    def remove_seen(self, before: float) -> None:
        """What can no longer be repeated."""
        self._db.execute("DELETE FROM seen WHERE at < ?", (before,))
        self._db.execute("DELETE FROM binds WHERE ended_at < ?", (before,))

    def add_fragment(self, source: str, ours: str, place: Place, coding: int, content: bytes, at: float) -> Group:
        """Keep a part of a message; of two with the same place the later one counts."""
        group = Group(source, ours, place.reference, place.total)
        self._db.execute(
            "INSERT OR REPLACE INTO fragments VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*group, place.sequence, coding, content, at),
        )
        return group

    def fragments(self, group: Group) -> dict[int, tuple[int, bytes]]:
        """Sequence -> coding and content."""
        rows = self._db.execute(
            "SELECT sequence, coding, content FROM fragments"
            " WHERE source = ? AND ours = ? AND reference = ? AND total = ?",
            group,
        )
        return {sequence: (coding, content) for sequence, coding, content in rows}

    def remove_fragments(self, group: Group) -> None:
        """They were put together."""
        self._db.execute("DELETE FROM fragments WHERE source = ? AND ours = ? AND reference = ? AND total = ?", group)

    def stale_groups(self, before: float) -> list[Group]:
        """Messages whose first part came before this moment."""
        rows = self._db.execute(
            "SELECT source, ours, reference, total FROM fragments GROUP BY 1, 2, 3, 4 HAVING min(at) < ?", (before,)
        )
        return [Group(*row) for row in rows]

    # --- stanzas for the XMPP server

    def add_stanza(self, message: Stanza, at: float) -> None:
        """Queue a message; without an id it gets one."""
        self._db.execute(
            "INSERT INTO stanzas (type, recipient, sender, stanza_id, inner, at)"
            " VALUES (?, ?, ?, coalesce(?, lower(hex(randomblob(8)))), ?, ?)",
            (message.type, message.to, message.from_, message.id, message.inner, at),
        )

    def waiting_stanzas(self, limit: int) -> list[Waiting]:
        """The first ones."""
        rows = self._db.execute(
            "SELECT id, type, recipient, sender, stanza_id, inner, at FROM stanzas ORDER BY id LIMIT ?", (limit,)
        )
        return [
            Waiting(id_, stanzas.message(type=type_, to=to, from_=from_, id=stanza_id, inner=inner), at)
            for id_, type_, to, from_, stanza_id, inner, at in rows
        ]

    def count_stanzas(self) -> int:
        """How many wait."""
        (count,) = self._db.execute("SELECT count(*) FROM stanzas").fetchone()
        return int(count)

    def remove_stanzas(self, up_to: int) -> None:
        """The server has them."""
        self._db.execute("DELETE FROM stanzas WHERE id <= ?", (up_to,))
