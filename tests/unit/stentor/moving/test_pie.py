"""XEP-0227, as the specification shows it and as servers write it; and what is written here is read here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stentor.moving.pie import PIE, PIE_OLD, Pie
from stentor.moving.pie_writer import write_file, write_folder
from stentor.moving.things import (
    Account,
    Blocked,
    Contact,
    Item,
    LeftOut,
    Message,
    Node,
    Preferences,
    Private,
    Request,
    Thing,
    Unreadable,
    VCard,
    Waiting,
    as_json,
)

SECOND = 1_000_000
KEY = "A" * 27 + "="  # twenty bytes


def things(tmp_path: Path, inside: str, namespace: str = PIE, attributes: str = "") -> tuple[Account, list[Thing]]:
    file = tmp_path / "data.xml"
    file.write_text(
        f"<server-data xmlns='{namespace}'><host jid='capulet.com'><user name='juliet'{attributes}>{inside}</user></host></server-data>"
    )
    source = Pie(file)
    ((jid, account),) = source.accounts()
    assert jid == "juliet@capulet.com"
    assert isinstance(account, Account)
    return account, [thing for _, thing in source.data()]


def test_passwords_and_credentials(tmp_path: Path) -> None:
    assert things(tmp_path, "", attributes=" password='s3crEt'")[0] == Account((), "s3crEt")
    assert things(tmp_path, "", PIE_OLD, " password='s3crEt'")[0].password == "s3crEt"
    scram = (
        "<vCard xmlns='vcard-temp'/><scram-credentials xmlns='urn:xmpp:pie:0#scram' mechanism='SCRAM-SHA-1'><iter-count>4096</iter-count>"
        f"<salt>c2FsdA==</salt><server-key>{KEY}</server-key><stored-key>{KEY}</stored-key></scram-credentials>"
    )
    account, _ = things(tmp_path, scram)
    (one,) = account.credentials
    assert (one.hash, one.salt, one.iterations) == ("SHA-1", "c2FsdA==", 4096)
    account, rest = things(tmp_path, scram.replace("SHA-1", "SHA-3"))
    assert account.credentials == ()
    assert [thing.what for thing in rest if isinstance(thing, LeftOut)] == ["credentials"]


def test_rosters_and_requests(tmp_path: Path) -> None:
    roster = (
        "<query xmlns='jabber:iq:roster'><item jid='romeo@montague.net' name='Romeo' subscription='both'><group>Friends</group></item>"
        "<item jid='nurse@capulet.com' ask='subscribe'/></query>"
        "<presence xmlns='jabber:client' type='subscribe' from='paris@verona.lit'><status>Hi</status></presence>"
    )
    assert things(tmp_path, roster)[1] == [
        Contact("romeo@montague.net", "Romeo", ("Friends",), "both"),
        Contact("nurse@capulet.com", ask=True),
        Request(
            "paris@verona.lit", '<presence type="subscribe" from="paris@verona.lit"><status>Hi</status></presence>'
        ),
    ]


def test_what_comes_last_does_so_wherever_it_stands(tmp_path: Path) -> None:
    """A message that waits may be in the archive, which is read first."""
    inside = (
        "<offline-messages><message xmlns='jabber:client' from='a@b'><body>1</body><delay xmlns='urn:xmpp:delay' stamp='1970-01-01T00:00:02Z'/>"
        "</message><message xmlns='jabber:client' from='a@b'><body>2</body></message></offline-messages>"
        "<vCard xmlns='vcard-temp'><FN>J</FN></vCard><query xmlns='jabber:iq:private'><a xmlns='urn:a'/><b xmlns='urn:b'/></query>"
        "<archive xmlns='urn:xmpp:pie:0#mam'><result xmlns='urn:xmpp:mam:2' id='x'><forwarded xmlns='urn:xmpp:forward:0'>"
        "<delay xmlns='urn:xmpp:delay' stamp='1970-01-01T00:00:01.5Z'/><message xmlns='jabber:client' to='a@b'><body>0</body></message>"
        "</forwarded></result><result xmlns='urn:xmpp:mam:2'/></archive>"
    )
    assert things(tmp_path, inside)[1] == [
        Message(3 * SECOND // 2, "x", '<message to="a@b"><body>0</body></message>'),
        LeftOut("message", "something in the archive is no message with its time"),
        VCard('<vCard xmlns="vcard-temp"><FN>J</FN></vCard>'),
        Private('<a xmlns="urn:a"/>'),
        Private('<b xmlns="urn:b"/>'),
        Waiting(2 * SECOND, '<message from="a@b"><body>1</body></message>'),
        LeftOut("waiting", "a message that waits does not say when it was sent"),
    ]


def test_messages_of_one_second_keep_their_order(tmp_path: Path) -> None:
    result = (
        "<result xmlns='urn:xmpp:mam:2' id='{0}'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='1970-01-01T00:00:01Z'/>"
        "<message xmlns='jabber:client'><body>{0}</body></message></forwarded></result>"
    )
    inside = "<archive xmlns='urn:xmpp:pie:0#mam'>" + "".join(result.format(n) for n in range(3)) + "</archive>"
    found = [thing for thing in things(tmp_path, inside)[1] if isinstance(thing, Message)]
    assert [(one.at - SECOND, one.id) for one in found] == [(0, "0"), (1, "1"), (2, "2")]


def test_privacy_lists_that_block(tmp_path: Path) -> None:
    inside = (
        "<query xmlns='jabber:iq:privacy'><default name='public'/><list name='public'><item type='jid' value='tybalt@b' action='deny' order='1'/>"
        "<item type='jid' value='paris@b' action='deny' order='2'><message/></item><item action='allow' order='3'/></list>"
        "<list name='other'><item type='group' value='Foes' action='deny' order='1'/></list></query>"
        "<blocklist xmlns='urn:xmpp:blocking'><item jid='friar@b'/></blocklist>"
    )
    found = things(tmp_path, inside)[1]
    assert [thing for thing in found if isinstance(thing, Blocked)] == [Blocked("tybalt@b"), Blocked("friar@b")]
    assert len([thing for thing in found if isinstance(thing, LeftOut)]) == 2


def test_what_is_not_known_is_told(tmp_path: Path) -> None:
    (found,) = things(tmp_path, "<odd xmlns='urn:odd'><more/></odd>")[1]
    assert found == LeftOut("unknown", "<odd xmlns='urn:odd'/> is not known")


@pytest.mark.parametrize(
    "text",
    [
        "<other/>",
        "<server-data xmlns='urn:xmpp:pie:0'><host/></server-data>",
        "<server-data xmlns='urn:xmpp:pie:0'><host jid='a'><user/></host></server-data>",
        "",
    ],
)
def test_no_such_document(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.xml").write_text(text)
    with pytest.raises(Unreadable):
        list(Pie(tmp_path / "data.xml").accounts())


@dataclass
class Told:
    """An account, as the administration API tells it."""

    jid: str
    all: list[Thing]
    things: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.things = [as_json(thing) for thing in self.all if not isinstance(thing, Item | Message | Waiting)]

    def items(self, node: str) -> Iterator[dict[str, Any]]:
        return (as_json(one) for one in self.all if isinstance(one, Item) and one.node == node)

    def messages(self) -> Iterator[dict[str, Any]]:
        return (as_json(one) for one in self.all if isinstance(one, Message))

    def waiting(self) -> Iterator[dict[str, Any]]:
        return (as_json(one) for one in self.all if isinstance(one, Waiting))


ALL: list[Thing] = [
    Account(()),
    Contact("romeo@b", 'R "&<', ("A & B", "é"), "from", True, True),
    Request("paris@b", '<presence type="subscribe" from="paris@b"><status>&lt;é</status></presence>'),
    Request("bare@b", '<presence from="bare@b" type="subscribe"/>'),
    Blocked("tybalt@b"),
    Preferences("roster", ("a@b",), ("c@d",)),
    Node("urn:n", {"pubsub#access_model": ("whitelist",), "pubsub#title": ("A & B",)}, {"x@y": "member"}, ("z@y",)),
    Node("urn:empty"),
    Item("urn:n", "1", '<a xmlns="urn:a"><b xmlns="">é</b></a>', "juliet@capulet.com"),
    Item("urn:n", "2", ""),
    Message(
        1_500_000_000_123_000, "77", '<message to="a@b" type="chat" xml:lang="de"><body>é &amp; &lt;</body></message>'
    ),
    Message(1_500_000_001_000_000, "78", "<message/>"),
    VCard('<vCard xmlns="vcard-temp"><FN>J</FN></vCard>'),
    Private('<a xmlns="urn:a"/>'),
    Waiting(1_500_000_001_000_000, '<message from="a@b"><body>x</body></message>'),
    Waiting(1_500_000_002_000_000, '<message from="a@b"/>'),
]


@pytest.mark.parametrize("is_folder", [True, False])
def test_what_is_written_is_read(tmp_path: Path, is_folder: bool) -> None:
    accounts = [
        Told("jül%2fi..et@capulet.com", ALL),
        Told("nurse@capulet.com", [Account(())]),
        Told("a@b.example", ALL),
    ]
    if is_folder:
        write_folder(accounts, tmp_path / "out")
        source = Pie(tmp_path / "out" / "server-data.xml")
    else:
        write_file(accounts, tmp_path / "out.xml")
        source = Pie(tmp_path / "out.xml")
    assert [jid for jid, _ in source.accounts()] == [account.jid for account in accounts]
    found: dict[str, list[Thing]] = {}
    for jid, thing in source.data():
        found.setdefault(jid, []).append(thing)
    assert "nurse@capulet.com" not in found
    for jid in (accounts[0].jid, accounts[2].jid):
        assert sorted(map(repr, found[jid])) == sorted(map(repr, ALL[1:]))
