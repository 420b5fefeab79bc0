"""The archive's reads (`storage/archive.py`) over a list of rows, as plainly as can be: what SQL is compared with, and
what the database answers in unit tests of the router."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from storage import archive
from storage.archive import Ends, Found, Query
from storage.log import ARCHIVE, Row
from xmpp.jid import bare_of
from xmpp.xml import text_of


class Model:
    """Any account's archive. `step`: rows that one read looks at where it may look in vain."""

    def __init__(self, rows: Callable[[], Iterable[Row]], step: int = archive.STEP) -> None:
        self._rows = rows
        self.step = step
        self.reads = 0  # of pages

    def functions(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        """What stands for each function of the repository."""
        return {
            archive.has_all: self.has_all,
            archive.find: self.find,
            archive.at_index: self.at_index,
            archive.count: self.count,
            archive.around: self.around,
            archive.ends: self.ends,
        }

    def all(self, owner: int) -> list[Row]:
        """Every row of an archive, in order."""
        return sorted((row for row in self._rows() if row.owner == owner and row.class_ == ARCHIVE), key=lambda r: r.id)

    def matching(self, query: Query) -> list[Row]:
        """The result set of a query."""
        return [row for row in self.all(query.owner) if matches(row, query)]

    def has_all(self, owner: int, ids: Sequence[int]) -> bool:
        return set(ids) <= {row.id for row in self.all(owner)}

    def find(self, query: Query, limit: int, is_backwards: bool) -> Found:
        self.reads += 1
        rows = [row for row in self.all(query.owner) if query.after < row.id < query.before]
        if is_backwards:
            rows.reverse()
        is_filtered = query.peer is not None or query.address is not None or query.text is not None
        looked_at = rows[: self.step] if is_filtered else rows
        found = [row for row in looked_at if matches(row, query)]
        if len(found) >= limit:
            return Found(found[:limit], found[limit - 1].id)
        return Found(found, looked_at[-1].id if is_filtered and len(looked_at) == self.step else None)

    def at_index(self, query: Query, index: int) -> int | None:
        rows = self.matching(query)
        return rows[index].id if index < len(rows) else None

    def count(self, query: Query, most: int) -> int | None:
        number = len(self.matching(query))
        return number if number <= most else None

    def around(self, query: Query, first: int, last: int) -> tuple[int | None, int | None]:
        before = self.count(query._replace(before=min(first, query.before)), query.counted)
        return before, self.count(query._replace(after=max(last, query.after)), query.counted)

    def ends(self, owner: int) -> Ends | None:
        rows = self.all(owner)
        return Ends(rows[0].id, rows[-1].id) if rows else None


def matches(row: Row, query: Query) -> bool:
    """Whether a row belongs to the result set of a query."""
    message = row.stanza
    parties = (message.to or "", message.from_ or "")
    if not query.after < row.id < query.before or (query.ids is not None and row.id not in query.ids):
        return False
    if query.peer is not None and query.peer != bare_of(parties[0] if row.dir else parties[1]):
        return False
    if query.address is not None and query.address not in parties:
        return False
    if query.text is None:
        return True
    bodies = [text_of(child) for child in message.children() if child.tag == "{jabber:client}body"]
    words = {word.lower() for body in bodies for word in re.findall(r"\w+", body)}
    wanted = re.findall(r"\w+", query.text.lower())
    return bool(wanted) and words.issuperset(wanted)
