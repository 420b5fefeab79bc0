"""What an import promises of a running cluster: nothing twice, nothing moved in time, nothing read a second time, and
for everything that does not come along a reason."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import psycopg
import pytest

from stentor.client import Api, Refused
from tests.support.client import Client, sign_in
from tests.support.cluster import Account, RunningCluster, wait_until
from tests.support.rooms import archived, join

MINUTE = 60_000_000
DAY = 86_400_000_000
OLD = int(datetime(2015, 3, 1, 12, tzinfo=UTC).timestamp()) * 1_000_000


def now_us() -> int:
    return int(time.time() * 1_000_000)


def bring(api: Api, jid: str, *things: dict[str, Any], **options: bool) -> list[dict[str, str]]:
    """What became of things."""
    what = "rooms" if "@conference." in jid else "users"
    found: list[dict[str, str]] = api.call("POST", f"/import/{what}/{jid}", {"things": list(things), **options})[
        "results"
    ]
    return found


def statuses(results: list[dict[str, str]]) -> list[str]:
    return [result["status"] for result in results]


def message(at: int, body: str, from_: str, to: str, **more: str) -> dict[str, Any]:
    xml = f"<message from='{from_}' to='{to}' type='chat' id='{body}'><body>{body}</body></message>"
    return {"kind": "message", "at": at, "id": body, "xml": xml, **more}


def waiting(at: int, body: str, from_: str, to: str) -> dict[str, Any]:
    return {"kind": "waiting", "at": at, "xml": message(at, body, from_, to)["xml"]}


def bodies(client: Client, form: str = "", to: str | None = None) -> list[str | None]:
    return [m.findtext("{jabber:client}body") for m in archived(client, to, form)]


def silence(client: Client) -> list[str | None]:
    """Everything that has come by now: bodies of messages."""
    client.ping()
    found = [e.findtext("{jabber:client}body") for e in client._waiting if e.tag == "{jabber:client}message"]
    client._waiting.clear()
    return found


def test_an_archive_of_long_ago_keeps_its_times_and_its_order(cluster: RunningCluster) -> None:
    juliet = cluster.account("juliet")
    moments = [OLD, OLD + 1, OLD + 400 * DAY, now_us() - DAY]
    things = [message(at, f"{n}", "r@b.example/x", juliet.jid) for n, at in enumerate(moments)]
    sent = message(OLD + 2, "sent", f"{juliet.jid}/old", "r@b.example")
    assert statuses(bring(cluster.api, juliet.jid, *reversed(things), sent)) == ["imported"] * 5
    assert statuses(bring(cluster.api, juliet.jid, *things, sent)) == ["there"] * 5
    with sign_in(cluster, juliet) as client:
        assert silence(client) == []  # it was read where it comes from
        assert bodies(client) == ["0", "1", "sent", "2", "3"]
        form = "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field><field var='end'><value>2015-12-31T00:00:00Z</value></field></x>"
        assert bodies(client, form) == ["0", "1", "sent"]
        with_ = form.replace("'end'", "'with'").replace("2015-12-31T00:00:00Z", "r@b.example")
        assert bodies(client, with_) == ["0", "1", "sent", "2", "3"]
        answer = client.iq("get", "<metadata xmlns='urn:xmpp:mam:2'/>")
        start = answer.find("{urn:xmpp:mam:2}metadata/{urn:xmpp:mam:2}start")
        assert start is not None
        assert start.get("timestamp", "").startswith("2015-03-01T12:00:00")


def test_what_was_not_read_waits_once(cluster: RunningCluster) -> None:
    """Also the newest of all, and also where the archive has it."""
    juliet, at = cluster.account("juliet"), now_us() - MINUTE
    archive = [message(at + n * 1_000_000, f"{n}", "r@b.example/x", juliet.jid) for n in range(3)]
    unread = [waiting(at + n * 1_000_000 + 300_000, f"{n}", "r@b.example/x", juliet.jid) for n in (1, 2)]
    unread.append(waiting(at + 9_000_000, "not archived", "r@b.example/x", juliet.jid))
    assert statuses(bring(cluster.api, juliet.jid, *archive, *unread)) == ["imported"] * 6
    assert statuses(bring(cluster.api, juliet.jid, *archive, *unread)) == ["there"] * 6
    with sign_in(cluster, juliet) as client:
        assert silence(client) == ["1", "2", "not archived"]
        assert bodies(client) == ["0", "1", "2"]
    assert statuses(bring(cluster.api, juliet.jid, *archive, *unread)) == ["there"] * 6
    with sign_in(cluster, juliet) as client:
        assert silence(client) == []


def test_what_waits_here_already_still_does(cluster: RunningCluster) -> None:
    """Messages that came here before are older than some of what is imported, and are not taken for read."""
    juliet, romeo = cluster.account("juliet"), cluster.account("romeo")
    with sign_in(cluster, romeo) as client:
        client.message(juliet.jid, "here before")
        client.ping()
    things = [
        message(now_us() - 1_000, "archived", "r@b.example/x", juliet.jid),
        waiting(now_us() - DAY, "old", "r@b.example", juliet.jid),
    ]
    assert statuses(bring(cluster.api, juliet.jid, *things)) == ["imported", "imported"]
    with sign_in(cluster, juliet) as client:
        assert sorted(map(str, silence(client))) == ["here before", "old"]


def test_another_owner_knows_what_was_imported(new_cluster: Callable[..., RunningCluster]) -> None:
    cluster = new_cluster(
        "--router", "2", "--c2s", "1", "--s2s", "0", "--tls", "optional", "--set", "limits.enabled=false"
    )
    people = [cluster.account("juliet") for _ in range(6)]
    for juliet in people:
        at = now_us() - 5_000_000
        things = [
            message(at, "read", "r@b.example/x", juliet.jid),
            waiting(at + 100, "unread", "r@b.example/x", juliet.jid),
        ]
        assert statuses(bring(cluster.api, juliet.jid, *things)) == ["imported", "imported"]
    cluster.kill("router-0", signal.SIGKILL)
    for juliet in people:
        with sign_in(cluster, juliet) as client:
            assert silence(client) == ["unread"], juliet.jid


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        (message(now_us() + DAY * 365, "x", "r@b.example", "ME"), "future"),
        (message(1, "x", "r@b.example", "ME"), "before 1999"),
        (message(OLD, "x", "r@b.example", "s@b.example"), "neither from nor to"),
        (message(OLD, "x", "r@b.example/x", "ME") | {"xml": "<message from='r@b.example' to='ME' type='groupchat'/>"}, "room"),
        (message(OLD, "x", "r@b.example/x", "ME") | {"xml": "<message from='r@b.example'"}, "no message"),
        (message(OLD, "x", "r@b.example/x", "ME") | {"xml": "<message/><message/>"}, "no message"),
        (message(OLD, "x", "r@b.example/x", "ME") | {"xml": "<iq/>"}, "no message"),
        (message(OLD, "x", "r@@b.example/x", "ME"), "no JID"),
        (waiting(now_us() - 1000, "x", "r@b.example", "s@b.example"), "not to"),
        ({"kind": "contact", "jid": "ME"}, "their own roster"),
        ({"kind": "contact", "jid": "a@b.example", "subscription": "all"}, "subscription"),
        ({"kind": "contact", "jid": "a@b.example", "groups": [""]}, "group"),
        ({"kind": "contact", "jid": "@"}, "no JID"),
        ({"kind": "block", "jid": " "}, "no JID"),
        ({"kind": "vcard", "xml": "<x xmlns='urn:x'/>"}, "no vCard"),
        ({"kind": "vcard", "xml": "</message><message>"}, "no message"),
        ({"kind": "private", "xml": "<x xmlns='jabber:client'/>"}, "namespace"),
        ({"kind": "item", "node": "urn:none", "id": "1"}, "no node"),
        ({"kind": "item", "node": "urn:none", "id": ""}, "no name"),
        ({"kind": "node", "node": ""}, "name of a node"),
    ],
)  # fmt: skip
def test_what_does_not_come_along_has_a_reason(cluster: RunningCluster, thing: dict[str, Any], why: str) -> None:
    juliet = cluster.account("juliet")
    own = json.loads(json.dumps(thing).replace("ME", juliet.jid))
    (result,) = bring(cluster.api, juliet.jid, own)
    assert result["status"] == "left_out"
    assert why in result["note"]


@pytest.mark.parametrize(
    "things",
    [
        None, [], ["x"], [{"kind": "none"}], [{"kind": "room"}], [{"kind": "contact"}], [{"kind": "message", "at": -1, "xml": ""}],
        [{"kind": "contact", "jid": 1}], [{"kind": "contact", "jid": "\ud800"}], [{"kind": "block", "jid": "a"}] * 501,
        [{"kind": "account", "credentials": [{"hash": "SHA-1", "salt": "", "iterations": 1, "stored_key": "", "server_key": ""}]}],
        [{"kind": "message", "at": 2**70, "xml": ""}], [{"kind": "message", "at": True, "xml": ""}],
    ],
)  # fmt: skip
def test_what_is_malformed_is_refused_as_a_whole(cluster: RunningCluster, things: Any) -> None:
    juliet = cluster.account("juliet")
    with pytest.raises(Refused) as refused:
        cluster.api.call("POST", f"/import/users/{juliet.jid}", {"things": things})
    assert refused.value.status == 400


def test_clients_that_are_there_see_new_contacts(cluster: RunningCluster) -> None:
    juliet = cluster.account("juliet")
    with sign_in(cluster, juliet) as client:
        client.iq("get", "<query xmlns='jabber:iq:roster'/>")
        contact = {"kind": "contact", "jid": "r@b.example", "name": "R", "groups": ["G"], "subscription": "both"}
        request = {
            "kind": "request",
            "jid": "p@b.example",
            "xml": "<presence type='subscribe' from='p@b.example'><status>Hi</status></presence>",
        }
        assert statuses(bring(cluster.api, juliet.jid, contact, request)) == ["imported", "imported"]
        push = client.expect(lambda e: e.tag == "{jabber:client}iq" and e.get("type") == "set")
        (item,) = push[0]
        assert (item.get("jid"), item.get("subscription")) == ("r@b.example", "both")
        assert statuses(bring(cluster.api, juliet.jid, contact | {"name": "other"}, request)) == ["there", "there"]


def test_nodes_keep_what_they_are(cluster: RunningCluster) -> None:
    juliet = cluster.account("juliet")
    options = {"pubsub#access_model": ["whitelist"], "pubsub#max_items": ["2"], "pubsub#odd": ["x"]}
    node = {
        "kind": "node",
        "node": "urn:n",
        "options": options,
        "affiliations": {"r@b.example": "member", "bad": "odd"},
    }
    items = [
        {"kind": "item", "node": "urn:n", "id": f"{n}", "xml": f"<n xmlns='urn:n'>{n}</n>", "at": OLD + n * 1000}
        for n in range(3)
    ]
    results = bring(cluster.api, juliet.jid, node, *items)
    assert statuses(results) == ["imported"] * 4
    assert "pubsub#odd=x cannot be set" in results[0]["note"]
    with sign_in(cluster, juliet) as client:
        answer = client.iq("get", "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:n'/></pubsub>")
        assert [e.text for e in answer.iter("{urn:n}n")] == ["1", "2"]  # it keeps two
    exported = cluster.api.call("GET", f"/export/users/{juliet.jid}")["things"]
    (told,) = (thing for thing in exported if thing["kind"] == "node")
    assert told["options"]["pubsub#access_model"] == ["whitelist"]
    assert told["affiliations"] == {"r@b.example": "member"}


def test_old_bookmarks_are_rooms_in_every_way(cluster: RunningCluster) -> None:
    juliet = cluster.account("juliet")
    storage = "<storage xmlns='storage:bookmarks'><conference jid='v@c.example' autojoin='1'><nick>j</nick></conference><url url='http://x'/></storage>"
    thing = {"kind": "private", "xml": storage}
    assert statuses(bring(cluster.api, juliet.jid, thing)) == ["imported"]
    assert statuses(bring(cluster.api, juliet.jid, thing)) == ["there"]
    with sign_in(cluster, juliet) as client:
        answer = client.iq("get", "<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query>")
        kept = answer.find(".//{storage:bookmarks}storage")
        assert kept is not None
        assert [child.tag.rpartition("}")[2] for child in kept] == ["conference", "url"]
        items = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:bookmarks:1'/></pubsub>"
        assert client.iq("get", items).find(".//{urn:xmpp:bookmarks:1}conference") is not None


def test_a_picture_in_a_vcard_is_the_avatar(cluster: RunningCluster) -> None:
    juliet = cluster.account("juliet")
    card = "<vCard xmlns='vcard-temp'><PHOTO><TYPE>image/png</TYPE><BINVAL>iVBORw0KGgo=</BINVAL></PHOTO></vCard>"
    assert statuses(bring(cluster.api, juliet.jid, {"kind": "vcard", "xml": card})) == ["imported"]
    with sign_in(cluster, juliet) as client:
        items = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='urn:xmpp:avatar:metadata'/></pubsub>"
        assert client.iq("get", items).find(".//{urn:xmpp:avatar:metadata}info") is not None


def test_a_room_with_what_was_said_long_ago(cluster: RunningCluster) -> None:
    juliet = cluster.account("juliet")
    room = f"verona-{time.monotonic_ns()}@conference.{cluster.domain}"
    things: list[dict[str, Any]] = [
        {"kind": "room", "options": {"roomname": "V", "membersonly": "1", "maxusers": "200", "whois": "odd"}, "subject": "S", "subject_nick": "j", "subject_at": OLD},
        {"kind": "affiliation", "jid": juliet.jid, "affiliation": "owner", "nick": "jul"},
        {"kind": "affiliation", "jid": "r@b.example", "affiliation": "outcast", "reason": "x"},
        *(message(OLD + n, f"{n}", f"{room}/jul", room, nick="jul", jid=juliet.jid) for n in range(3)),
    ]  # fmt: skip
    results = bring(cluster.api, room, *things)
    assert statuses(results) == ["imported"] * 6
    assert "whois=odd" in results[0]["note"]
    assert statuses(bring(cluster.api, room, *things)) == ["there"] * 6
    with sign_in(cluster, juliet) as client:
        entered = join(client, room, "jul")
        item = entered.find(".//{http://jabber.org/protocol/muc#user}item")
        assert item is not None
        assert item.get("affiliation") == "owner"
        own_id = entered.find("{urn:xmpp:occupant-id:0}occupant-id")
        assert own_id is not None
        shown = [client.expect(is_said) for _ in range(3)]
        assert [e.findtext("{jabber:client}body") for e in shown] == ["0", "1", "2"]
        delay = shown[0].find("{urn:xmpp:delay}delay")
        assert delay is not None
        assert delay.get("stamp", "").startswith("2015-03-01")
        said = archived(client, room)
        assert [m.findtext("{jabber:client}body") for m in said] == ["0", "1", "2"]
        assert {m.find("{urn:xmpp:occupant-id:0}occupant-id").get("id") for m in said} == {own_id.get("id")}  # type: ignore[union-attr]


def is_said(element: Element) -> bool:
    return element.tag == "{jabber:client}message" and element.find("{jabber:client}body") is not None


def test_rooms_for_members_tell_those_who_are_away_nothing_old(cluster: RunningCluster) -> None:
    juliet = cluster.account("juliet")
    room = f"verona-{time.monotonic_ns()}@conference.{cluster.domain}"
    bring(
        cluster.api,
        room,
        {"kind": "room", "options": {"membersonly": "1"}},
        {"kind": "affiliation", "jid": juliet.jid, "affiliation": "member"},
    )
    bring(cluster.api, room, message(now_us() - MINUTE, "old", f"{room}/r", room, nick="r"))
    with sign_in(cluster, juliet) as client:
        assert silence(client) == []


def test_passwords_of_accounts_that_exist(cluster: RunningCluster) -> None:
    juliet = cluster.account("juliet", "before")
    thing = {"kind": "account", "password": "after"}
    assert statuses(bring(cluster.api, juliet.jid, thing)) == ["there"]
    with sign_in(cluster, juliet):
        pass
    assert statuses(bring(cluster.api, juliet.jid, thing, passwords=True)) == ["imported"]
    with sign_in(cluster, Account(juliet.jid, "after")):
        pass


def test_a_name_that_was_erased_stays_so(cluster: RunningCluster) -> None:
    juliet = cluster.account("juliet")
    assert cluster.command("user", "erase", juliet.jid).returncode == 0
    (result, other) = bring(
        cluster.api, juliet.jid, {"kind": "account", "password": "x"}, {"kind": "block", "jid": "a@b"}
    )
    assert (result["status"], other["status"]) == ("left_out", "left_out")
    assert "erased" in result["note"]


def test_a_dry_run_changes_nothing(cluster: RunningCluster) -> None:
    juliet = f"nobody-{time.monotonic_ns()}@{cluster.domain}"
    room = f"verona-{time.monotonic_ns()}@conference.{cluster.domain}"
    things = [
        {"kind": "account", "password": "x"},
        {"kind": "contact", "jid": "a@b.example"},
        message(OLD, "x", "r@b.example", juliet),
        {"kind": "vcard", "xml": "<vCard xmlns='vcard-temp'/>"},
    ]
    assert statuses(bring(cluster.api, juliet, *things, dry_run=True)) == [
        "imported",
        "imported",
        "imported",
        "left_out",
    ]
    assert statuses(bring(cluster.api, room, {"kind": "room"}, message(OLD, "x", room, room), dry_run=True)) == [
        "imported",
        "imported",
    ]
    with pytest.raises(Refused):
        cluster.api.call("GET", f"/users/{juliet}")
    with pytest.raises(Refused):
        cluster.api.call("GET", f"/rooms/{room}")
    with psycopg.connect(cluster.facts["database_url"]) as conn:
        assert conn.execute("select count(*) from entities where jid = any (%s)", ([juliet, room],)).fetchone() == (0,)


def test_old_messages_go_where_archives_are_not_kept_for_so_long(new_cluster: Callable[..., RunningCluster]) -> None:
    cluster = new_cluster(
        "--router", "1", "--c2s", "1", "--s2s", "0", "--set", "archive.keep_days=30", "--set", "archive.offline_days=10"
    )
    juliet = cluster.account("juliet")
    results = bring(
        cluster.api, juliet.jid, message(OLD, "x", "r@b.example", juliet.jid),
        message(now_us() - 20 * DAY, "y", "r@b.example", juliet.jid), waiting(now_us() - 20 * DAY, "z", "r@b.example", juliet.jid),
    )  # fmt: skip
    assert [(one["status"], one["note"]) for one in results] == [
        ("left_out", "it is older than 30 days (archive.keep_days)"),
        ("imported", ""),
        ("left_out", "it is older than 10 days (archive.offline_days)"),
    ]


# --- the command


def write_pie(file: Path, users: str, domain: str = "localhost") -> Path:
    file.write_text(f"<server-data xmlns='urn:xmpp:pie:0'><host jid='{domain}'>{users}</host></server-data>")
    return file


def test_a_broken_file_says_where_and_what_was_imported(cluster: RunningCluster, tmp_path: Path) -> None:
    name = f"u{time.monotonic_ns()}"
    file = write_pie(tmp_path / "a.xml", f"<user name='{name}' password='x'/>\n<user name='b'></usr>")
    done = cluster.command("import", "xep0227", str(file))
    assert done.returncode == 1
    assert f"{file}, line 2" in done.stderr
    assert "account" in done.stdout
    assert cluster.api.call("GET", f"/users/{name}@localhost")["contacts"] == 0


def test_accounts_that_exist(cluster: RunningCluster, tmp_path: Path) -> None:
    juliet = cluster.account("juliet")
    local, new = juliet.jid.partition("@")[0], f"u{time.monotonic_ns()}"
    roster = "<query xmlns='jabber:iq:roster'><item jid='a@b.example'/></query>"
    file = write_pie(
        tmp_path / "a.xml", f"<user name='{new}' password='x'/><user name='{local}' password='x'>{roster}</user>"
    )
    done = cluster.command("import", "xep0227", str(file), "--existing", "fail")
    assert (done.returncode, f"{juliet.jid} exists here already" in done.stderr) == (1, True)
    with pytest.raises(Refused):
        cluster.api.call("GET", f"/users/{new}@localhost")
    done = cluster.command("import", "xep0227", str(file), "--existing", "skip", "--json")
    found = json.loads(done.stdout)
    assert (found["imported"], found["left_out"]) == ({"account": 1}, {"account": 1})
    assert cluster.api.call("GET", f"/users/{juliet.jid}")["contacts"] == 0
    done = cluster.command("import", "xep0227", str(file), "--json")
    assert json.loads(done.stdout)["imported"] == {"contact": 1}
    assert cluster.api.call("GET", f"/users/{juliet.jid}")["contacts"] == 1


def test_what_this_cluster_exported_is_there_already(cluster: RunningCluster, tmp_path: Path) -> None:
    """A client's own way to write XML is no other message."""
    juliet, file = cluster.account("juliet"), tmp_path / "a.xml"
    with sign_in(cluster, juliet) as client:
        client.send(
            f"<message to='{juliet.jid}' type='chat' id='own'><body >O &#x65;</body><x:x xmlns:x='u:x' b='1' a='2'/></message>"
        )
        client.ping()
        before = bodies(client)
        assert before == ["O e"]
        exported = cluster.command("export", "xep0227", "--user", juliet.jid, "--out", str(file))
        assert exported.returncode == 0, exported.stderr
        done = cluster.command("import", "xep0227", str(file), "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert "message" not in found["imported"], found
        assert found["there"]["message"] == 1, found
        assert bodies(client) == before


def test_a_domain_that_is_not_served_is_told(cluster: RunningCluster, tmp_path: Path) -> None:
    file = write_pie(tmp_path / "a.xml", "<user name='a'><vCard xmlns='vcard-temp'/></user>", "elsewhere.example")
    done = cluster.command("import", "xep0227", str(file), "--json")
    found = json.loads(done.stdout)
    assert found["left_out"] == {"account": 1, "vcard": 1}
    assert "elsewhere.example is not served here" in found["reasons"][0]["why"]


def test_an_import_that_is_interrupted_goes_on(cluster: RunningCluster, tmp_path: Path) -> None:
    name = f"u{time.monotonic_ns()}"
    users = "".join(f"<user name='{name}-{number}' password='x'/>" for number in range(300))
    file = write_pie(tmp_path / "a.xml", users)
    command = [
        sys.executable,
        "-m",
        "stentor",
        "import",
        "xep0227",
        str(file),
        "--json",
        "--data",
        str(cluster.directory),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: is_there(cluster, f"{name}-3@localhost"), 20, "something is imported")
        process.send_signal(signal.SIGINT)
        told, wrong = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted" in wrong
    first = json.loads(told)
    assert not first["is_whole"]
    done = json.loads(cluster.command("import", "xep0227", str(file), "--json").stdout)
    assert done["is_whole"]
    assert done["there"] == first["imported"]
    assert done["imported"]["account"] + done["there"]["account"] == 300


def is_there(cluster: RunningCluster, jid: str) -> bool:
    try:
        cluster.api.call("GET", f"/users/{jid}")
    except Refused:
        return False
    return True


@pytest.mark.parametrize("pair", ["x", "=y", "x="])
def test_a_domain_map_that_is_none(cluster: RunningCluster, tmp_path: Path, pair: str) -> None:
    file = write_pie(tmp_path / "a.xml", "")
    done = cluster.command("import", "xep0227", str(file), "--domain-map", pair)
    assert done.returncode == 2
    assert "OLD=NEW" in done.stderr


def test_something_else_than_was_said(cluster: RunningCluster, tmp_path: Path) -> None:
    (tmp_path / "odd.txt").write_text("hello")
    for what in ("prosody", "ejabberd", "xep0227"):
        done = cluster.command("import", what, str(tmp_path / "odd.txt"))
        assert done.returncode == 1, what
        assert "odd.txt" in done.stderr
        assert "a bug" not in done.stderr
