"""Archives as operators purge them: what nobody has got yet stays (storage/purging.py)."""

from __future__ import annotations

from storage import accounts, purging
from storage.log import ARCHIVE, FROM_OWNER, QUEUE, TO_OWNER, Row, append_sql, columns, pack_head
from tests.support.database import asynchronous, connected
from xmpp import stanza as stanzas

JID = "romeo@example.org"


def row(owner: int, id_: int, class_: int, dir_: int) -> Row:
    head = pack_head(stanzas.message(to=JID, from_="juliet@example.org"))
    return Row(7, owner, id_, class_, dir_, 0, "juliet@example.org", 1, id_, head, b"<body>hi</body>")


@asynchronous
async def test_what_is_old_goes_and_what_nobody_has_got_stays(database: str) -> None:
    async with connected(database) as conn:
        key = await accounts.create(conn, JID, 7, ())
        assert key is not None
        await conn.execute("create table log_old partition of log_archive for values from (0) to (1000)")
        await conn.execute("create table log_old_queue partition of log_queue for values from (0) to (1000)")
        rows = [row(key, n, ARCHIVE, TO_OWNER) for n in (10, 20, 30, 40)]
        rows += [row(key, 15, ARCHIVE, FROM_OWNER), row(key, 12, QUEUE, TO_OWNER)]
        await conn.execute(append_sql("true"), columns(rows))
        await accounts.set_delivered(conn, key, 30, [20])
        assert [found.id for found in await purging.page(conn, key, 10, 10)] == [15, 20, 30, 40]
        assert await purging.count(conn, key, 50) == 3
        assert await purging.delete(conn, key, 50, 2) == 2  # the oldest first
        assert await purging.delete(conn, key, 50, 2) == 1
        assert await purging.delete(conn, key, 50, 2) == 0
        assert [found.id for found in await purging.page(conn, key, 0, 10)] == [20, 40]
        cursor = await conn.execute("select count(*) from log where class = %s", (QUEUE,))
        assert await cursor.fetchone() == (1,)
