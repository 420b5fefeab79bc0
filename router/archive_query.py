"""A query for an account's archive on its way (XEP-0313, 4): what it asks for, and how the page comes together.

The reads are in `storage/archive.py`. Each ends after so many rows; where that is not enough for the page, the next one
goes on from there. Nothing is kept from one query to the next: any page may be asked for at any time (4.3.2).
"""

from __future__ import annotations

from typing import Final

from lxml import etree

from router.entity import Session
from router.turn import Turn
from storage import archive
from storage.archive import Found, Query
from storage.log import Row, time_of
from xmpp import forms, ns, rsm
from xmpp import stanza as stanzas
from xmpp.errors import BadRequest, FeatureNotImplemented, ItemNotFound, JidError, JidMalformed, ResourceConstraint
from xmpp.forms import Field
from xmpp.jid import bare_of, prepare
from xmpp.stanza import HAS_EVENT, MESSAGE, Stanza
from xmpp.timestamp import format_moment, parse_moment
from xmpp.xml import element

TEXT_FIELD: Final = f"{{{ns.FULL_TEXT}}}fulltext"
FIELDS: Final = (
    Field("with", "jid-single"),
    Field("start"),
    Field("end"),
    Field("before-id"),
    Field("after-id"),
    # 4.1.5: a list that is open to values of the client.
    Field("ids", "list-multi", extra=element("validate", ns.VALIDATE, {"datatype": "xs:string"}, element("open"))),
    Field("include-groupchat", "boolean"),
    Field(TEXT_FIELD),
)
_NAMES: Final = frozenset(field.var for field in FIELDS)
_ID_DIGITS: Final = len(str(archive.LAST_ID))

TEXT_CHARACTERS: Final = 1_000  # of a full-text search
COUNTED: Final = 1_000_000  # rows looked at for a query that wants nothing but the count
COUNTED_OF_TEXT: Final = 20_000

SEARCH_S: Final = 60.0  # a search that has not gone on for so long is over
_SEARCHING: Final = "archive search"  # key in an entity's data: Unix seconds until which one is under way


def parse_jid(text: str) -> str:
    """A prepared address; raises JidMalformed."""
    try:
        return prepare(text.strip())
    except JidError as problem:
        raise JidMalformed(f"'{text[:100]}' is not a JID.") from problem


def query_of(owner: int, own: str, form: etree._Element | None) -> tuple[Query, list[int]]:
    """What the form of a query selects from the archive of `own` (a bare JID), and the ids that it names.
    Raises what 4.1 says is wrong with it."""
    whole = Query(owner)
    if form is None:
        return whole, []
    submitted = forms.parse_submit(form)
    if submitted.form_type != ns.MAM:
        raise BadRequest(f"The FORM_TYPE is not '{ns.MAM}'.")
    fields = {var: [value for value in values if value] for var, values in submitted.fields}
    for var in fields:
        if var not in _NAMES:
            raise FeatureNotImplemented(f"There is no field '{var[:100]}'.")  # 4.1.5
    after, before, ids, text = [whole.after], [whole.before], None, _single(fields, TEXT_FIELD)
    if (start := _single(fields, "start")) is not None:
        after.append(archive.first_since(_moment(start)) - 1)
    if (end := _single(fields, "end")) is not None:
        before.append(archive.first_beyond(_moment(end)))
    if (after_id := _single(fields, "after-id")) is not None:
        after.append(parse_id(after_id))
    if (before_id := _single(fields, "before-id")) is not None:
        before.append(parse_id(before_id))
    if fields.get("ids"):
        ids = tuple(parse_id(id_) for id_ in fields["ids"])
    if text is not None and len(text) > TEXT_CHARACTERS:
        raise BadRequest("The text to search for is too long.")
    groups = _single(fields, "include-groupchat")  # 4.1.4: what was kept of rooms is left out unless it is wanted
    if groups not in (None, "true", "1", "false", "0"):
        raise BadRequest("'include-groupchat' is true or false.")
    with_groups = groups in ("true", "1")
    selected = whole._replace(after=max(after), before=min(before), ids=ids, text=text, with_groups=with_groups)
    if (with_ := _single(fields, "with")) is not None:
        selected = _with(selected, parse_jid(with_), own)
    named = [parse_id(id_) for id_ in (after_id, before_id) if id_ is not None]
    return selected, [*named, *(ids or ())]


def parse_id(text: str) -> int:
    """An id of an archive as a number; raises ItemNotFound where none is written so."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= _ID_DIGITS else -1
    if not 0 <= number <= archive.LAST_ID or str(number) != text:
        raise ItemNotFound(f"There is no message '{text[:100]}'.")
    return number


def _single(fields: dict[str, list[str]], var: str) -> str | None:
    values = fields.get(var, ())
    if len(values) > 1:
        raise BadRequest(f"'{var}' has more than one value.")
    return values[0] if values else None


def _moment(text: str) -> int:
    try:
        return parse_moment(text)
    except ValueError as problem:
        raise BadRequest(str(problem)) from problem


def _with(selected: Query, jid: str, own: str) -> Query:
    """4.1.1: a bare JID stands for all its resources, the account's own for what it sent to itself. The own full one
    may be on either side of any message."""
    bare = bare_of(jid)
    if bare == jid:
        return selected._replace(peer=bare)
    return selected._replace(address=jid) if bare == own else selected._replace(peer=bare, address=jid)


class Reading:
    """One query, from its request to its answer, for a session of the account or (turn.session None) for whoever may
    read a room's archive. Raises what is wrong with the request."""

    def __init__(self, turn: Turn, iq: Stanza, owner: int | None = None) -> None:
        """`owner`: whose rows they are, if not the entity's own (a node: XEP-0442)."""
        node, key = iq.child(ns.MAM, "query"), turn.entity.key if owner is None else owner
        assert node is not None
        assert key is not None
        self._iq = iq
        self._session: Session | None = turn.session
        self._own = turn.entity.bare
        self._queryid = node.get("queryid")
        self._is_flipped = node.find(f"{{{ns.MAM}}}flip-page") is not None
        self._query, self._named = query_of(key, self._own, forms.find(node))
        page = self._page = rsm.parse(node)
        most = turn.settings.archive_page
        self._limit = most if page.max is None else min(page.max, most)
        self._is_backwards = page.before is not None
        self._rows: list[Row] = []
        after, before = self._query.after, self._query.before
        if page.after is not None:
            self._named.append(parse_id(page.after))
            after = max(after, self._named[-1])
        if page.before:
            self._named.append(parse_id(page.before))
            before = min(before, self._named[-1])
        self._rest = self._query._replace(after=after, before=before)  # what is still to be read
        if self._query.text is not None and self._has_index():
            raise FeatureNotImplemented("A search has no index.")  # XEP-0059, 2.6

    def _has_index(self) -> bool:
        """XEP-0059, 2.6: "only if the UID [...] is not known"."""
        return self._page.index is not None and self._page.after is None and self._page.before is None

    def begin(self, turn: Turn) -> None:
        """Ask for the first read."""
        self._is_under_way(turn)
        if self._named:
            turn.fetch(archive.has_all, self._named_found, self._query.owner, tuple(self._named))
        else:
            self._read_page(turn)

    def _named_found(self, turn: Turn, has_all: bool) -> None:
        if not has_all:
            self._is_over(turn)
            raise ItemNotFound("A message that the query names is not in the archive.")  # 4.1.3, 4.3.2
        self._read_page(turn)

    def _read_page(self, turn: Turn) -> None:
        if self._limit == 0:
            most = COUNTED if self._query.text is None else COUNTED_OF_TEXT
            turn.fetch(archive.count, self._counted_all, self._query, most)
        elif self._has_index():
            assert self._page.index is not None
            turn.fetch(archive.at_index, self._begins_at, self._query, self._page.index)
        else:
            self._read(turn)

    def _counted_all(self, turn: Turn, number: int | None) -> None:
        self._answer(turn, number == 0, None, number)

    def _begins_at(self, turn: Turn, id_: int | None) -> None:
        """XEP-0059, 2.6: the page at an index; an empty one behind the end."""
        self._rest = self._rest._replace(after=archive.LAST_ID if id_ is None else id_ - 1)
        self._read(turn)

    def _read(self, turn: Turn) -> None:
        wanted = self._limit + 1 - len(self._rows)  # one more tells that there is more
        turn.fetch(archive.find, self._found, self._rest, wanted, self._is_backwards)

    def _found(self, turn: Turn, found: Found) -> None:
        """Enough, or the end, or a look at more rows."""
        rows, position = self._rows, found.position
        rows += found.rows
        is_full = len(rows) > self._limit or sum(len(row.inner) for row in rows) >= archive.MOST_BYTES
        if position is not None and not is_full:
            self._rest = (
                self._rest._replace(before=position) if self._is_backwards else self._rest._replace(after=position)
            )
            session = self._session
            if session is None or turn.entity.sessions.get(session.resource) is session:
                self._is_under_way(turn, again=True)
                self._read(turn)
            else:
                self._is_over(turn)  # nobody waits for it any more
            return
        is_complete = position is None
        del rows[self._limit :]
        if self._is_backwards:
            rows.reverse()

        def counted(later: Turn, numbers: tuple[int | None, int | None]) -> None:
            before, behind = numbers
            total = None if before is None or behind is None else before + len(rows) + behind
            self._answer(later, is_complete, before, total)

        if is_complete and not self._has_index() and not self._page.after and not self._page.before:
            counted(turn, (0, 0))
        else:
            first, last = (rows[0].id, rows[-1].id) if rows else (archive.LAST_ID, archive.LAST_ID)
            turn.fetch(archive.around, counted, self._query, first, last)

    def _answer(self, turn: Turn, is_complete: bool, index: int | None, total: int | None) -> None:
        """4.2: the messages, then the answer that says they were all. What is read is committed, and nothing will
        ever be put in before it: it is stable (4.3.2)."""
        self._is_over(turn)
        rows = self._rows
        for row in reversed(rows) if self._is_flipped else rows:
            if self._session is not None:
                turn.deliver(self._session, self._result(row))
            else:
                turn.send(self._result(row))
        first, last = (str(rows[0].id), str(rows[-1].id)) if rows else (None, None)
        attributes = {"complete": "true" if is_complete else None, "stable": "true"}
        set_ = rsm.build(first=first, last=last, index=index, count=total)
        turn.answer(self._iq, element("fin", ns.MAM, attributes, set_))

    def _result(self, row: Row) -> Stanza:
        """4.2: a message as it was sent or received, and when."""
        delay = element("delay", ns.DELAY, {"stamp": format_moment(time_of(row.id))})
        message = stanzas.encode(row.stanza, self._own if self._session is not None else None, ns.CLIENT)
        forwarded = element("forwarded", ns.FORWARD, None, delay, message)
        inner = element("result", ns.MAM, {"queryid": self._queryid, "id": str(row.id)}, forwarded)
        to = self._session.jid if self._session is not None else self._iq.from_
        return Stanza(MESSAGE, None, to, self._own, None, None, HAS_EVENT, None, None, inner)

    # --- one search at a time: without an index, each is work for the database

    def _is_under_way(self, turn: Turn, again: bool = False) -> None:
        if self._query.text is None:
            return
        data = turn.entity.data
        if not again and data.get(_SEARCHING, 0.0) > turn.now:
            raise ResourceConstraint("Another search is under way.")
        data[_SEARCHING] = turn.now + SEARCH_S

    def _is_over(self, turn: Turn) -> None:
        if self._query.text is not None:
            turn.entity.data.pop(_SEARCHING, None)
