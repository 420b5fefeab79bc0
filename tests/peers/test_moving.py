"""Moving in from the servers that other people wrote, and out to them: people who lived there sign in here with the
password that they had, find their contacts, what they wrote and what waited for them, and are what they were in rooms.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import pytest

from tests.peers.slixmpp_client import Archived, LoginFailed, Preferences, Slixmpp, befriend
from tests.support.client import sign_in
from tests.support.cluster import Account, RunningCluster, start_cluster
from tests.support.peers.ejabberd import Ejabberd
from tests.support.peers.peers import running_peers
from tests.support.peers.process import program
from tests.support.peers.prosody import Prosody
from tests.support.rooms import archived, join

TEXT: Final = "Grüße & <薔薇> 😀 \"'\\ \n\u00a0end"
PASSWORD: Final = 'pässword & "more" 薔薇'
NODE: Final = "urn:example:mood"
PEP: Final = f"pep_{NODE}"
Old = Prosody | Ejabberd


@dataclass(frozen=True, slots=True)
class Lives:
    """What two people had at the old server, as it told them themselves."""

    server: Old
    juliet: Account
    romeo: Account
    room: str
    archives: dict[str, list[Archived]]
    rosters: dict[str, dict[str, Any]]

    @property
    def domain(self) -> str:
        """Theirs."""
        return self.server.domain


def live(server: Old) -> Lives:
    """Everything that shall come along, done by clients."""
    juliet, romeo = (server.account(name, PASSWORD) for name in ("juliet", "romeo"))
    nurse = server.account("nurse", PASSWORD)
    room = f"verona@conference.{server.domain}"
    with Slixmpp(server, juliet) as one:
        with Slixmpp(server, romeo) as other:
            befriend(one, other)
            one.put_contact(romeo.jid, 'Romeo "R" 薔薇', ("Friends", "Verona é"))
            for number in range(12):
                one.message(romeo.jid, f"{TEXT} {number}")
                assert other.body(juliet.jid).endswith(str(number))
            other.message(juliet.jid, "back")
            assert one.body(romeo.jid) == "back"
        one.presence(romeo.jid, "unavailable")
        one.put_contact("friar@verona.example", "Friar")
        one.subscription("subscribe", "friar@verona.example")
        one.subscription("subscribe", nurse.jid)
        one.publish_vcard("Juliet Capulet é", "jul")
        one.block("tybalt@verona.example")
        one.ask(
            "set", "<query xmlns='jabber:iq:private'><exodus xmlns='exodus:prefs'><nick>H é</nick></exodus></query>"
        )
        payload = ElementTree.fromstring(f"<mood xmlns='urn:example'>{'x' * 10}é</mood>")
        one.plugin("xep_0060", lambda p: p.publish(juliet.jid, NODE, id="current", payload=payload))
        open_room(one, room, romeo.jid)
        one.message(romeo.jid, "while you were away")
        one.message(romeo.jid, f"{TEXT} away")
        one.ping(server.domain)
    clients: dict[str, Callable[[], Slixmpp]] = {juliet.jid: lambda: Slixmpp(server, juliet)}
    archives, rosters = {}, {}
    for jid, make in clients.items():
        with make() as client:
            archives[jid], rosters[jid] = client.archive(page=50), client.roster()
    assert len(archives[juliet.jid]) == 15
    return Lives(server, juliet, romeo, room, archives, rosters)


def open_room(client: Slixmpp, room: str, member: str) -> None:
    """A room that stays, for members alone, with something said in it."""
    client.join(room, "jul")

    async def configure(plugin: Any) -> None:
        form = plugin.xmpp.plugin["xep_0004"].make_form("submit")
        form.add_field(var="FORM_TYPE", ftype="hidden", value="http://jabber.org/protocol/muc#roomconfig")
        for name, value in (("roomname", "Verona é"), ("persistentroom", "1"), ("membersonly", "1")):
            form.add_field(var=f"muc#roomconfig_{name}", value=value)
        await plugin.set_room_config(room, form)
        await plugin.set_affiliation(room, "member", jid=member)
        plugin.set_subject(room, "The subject é")

    client.plugin("xep_0045", configure)
    for number in range(5):
        client.say(room, f"To all {number} 薔薇")
        assert client.messages.take(lambda m: m.type == "groupchat" and m.body != "").body.endswith("薔薇")
    client.leave(room, "jul")
    client.occupant(f"{room}/jul", "unavailable")


@pytest.fixture(scope="module")
def prosody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    """People of a Prosody that keeps SCRAM-SHA-256 in files; it has stopped."""
    settings = 'password_hash = "SHA-256"\n'
    with running_peers(tmp_path_factory.mktemp("prosody")) as peers:
        server = peers.prosody(
            "pr.example", muc=True, modules=("private",), authentication="internal_hashed", settings=settings
        )
        lives = live(server)
        server.process.stop()
        yield lives


@pytest.fixture(scope="module")
def ejabberd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    """People of an ejabberd that keeps SCRAM-SHA-1; it has written both of its exports."""
    with running_peers(tmp_path_factory.mktemp("ejabberd")) as peers:
        server = peers.ejabberd("ej.example", muc=True, settings={"auth_password_format": "scram"})
        lives = live(server)
        (folder := server.directory / "exported").mkdir()
        server.command("export_piefxis", dir=str(folder))
        server.command("dump", file=str(folder / "dump.txt"))
        yield lives


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Where they move: it serves the domains that they had."""
    domains = ("--domain", "pr.example", "--domain", "ej.example", "--domain", "new.example", "--domain", "sql.example")
    running = start_cluster(
        tmp_path_factory.mktemp("new"), *domains, "--tls", "optional", "--set", "limits.enabled=false"
    )
    yield running
    assert running.stop() == 0


def bring(cluster: RunningCluster, *arguments: object) -> dict[str, Any]:
    """Run an import; what it says."""
    done = cluster.command("import", *map(str, arguments), "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def data_of(lives: Lives) -> Path:
    """Prosody's data folder."""
    return lives.server.directory / "data"


def check_people(cluster: RunningCluster, lives: Lives, mechanism: str) -> None:
    """What clients find at the new server is what they had at the old one."""
    with Slixmpp(cluster, lives.juliet, mechanism=mechanism) as juliet:
        assert juliet.roster() == lives.rosters[lives.juliet.jid]
        assert {contact.subscription for contact in juliet.roster().values()} == {"both", "none"}
        assert juliet.blocked() == {"tybalt@verona.example"}
        assert juliet.vcard(lives.juliet.jid) == ("Juliet Capulet é", ["jul"])
        now = juliet.archive(page=50)
        assert [(m.from_, m.to, m.body) for m in now] == [
            (m.from_, m.to, m.body) for m in lives.archives[lives.juliet.jid]
        ]
        apart = [abs((a.at - b.at).total_seconds()) for a, b in zip(now, lives.archives[lives.juliet.jid], strict=True)]
        assert max(apart) < 0.1
        assert juliet.messages.left() == []  # what she has read does not come again
        with Slixmpp(cluster, lives.romeo, mechanism=mechanism) as romeo:
            assert [romeo.body(), romeo.body()] == ["while you were away", f"{TEXT} away"]
            juliet.presence(romeo.jid)  # they are still each other's contacts
            assert [m.body for m in romeo.archive(page=50)] == [m.body for m in now]
    check_private(cluster, lives, lives.domain)
    check_room(cluster, lives)


def check_private(cluster: RunningCluster, lives: Lives, domain: str) -> None:
    """What others do not see."""
    with sign_in(cluster, lives.juliet) as client:
        answer = client.iq("get", "<query xmlns='jabber:iq:private'><exodus xmlns='exodus:prefs'/></query>")
        assert answer.findtext(".//{exodus:prefs}nick") == "H é"
        items = f"<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='{NODE}'/></pubsub>"
        answer = client.iq("get", items)
        assert answer.findtext(".//{urn:example}mood") == f"{'x' * 10}é"
    nurse = Account(next(jid for jid in users(cluster, domain) if jid.startswith("nurse")), PASSWORD)
    with sign_in(cluster, nurse) as client:
        client.presence("subscribe", lives.juliet.jid)  # Juliet's request still waits for an answer


def check_room(cluster: RunningCluster, lives: Lives) -> None:
    """Juliet owns it, Romeo is a member, and what was said is there."""
    with sign_in(cluster, lives.juliet) as client:
        entered = join(client, lives.room, "jul")
        item = entered.find(".//{http://jabber.org/protocol/muc#user}item")
        assert item is not None
        assert item.get("affiliation") == "owner"
        subject = client.expect(
            lambda e: e.find("{jabber:client}subject") is not None and e.find("{jabber:client}body") is None
        )
        assert subject.findtext("{jabber:client}subject") == "The subject é"
        said = [m.findtext("{jabber:client}body") for m in archived(client, lives.room)]
        assert [body for body in said if body] == [f"To all {number} 薔薇" for number in range(5)]
    shown = cluster.api.call("GET", f"/rooms/{lives.room}")["config"]
    assert (shown["roomname"], shown["membersonly"], shown["persistentroom"]) == ("Verona é", True, True)
    affiliations = cluster.api.call("GET", f"/rooms/{lives.room}/affiliations")["affiliations"]
    assert affiliations == {lives.juliet.jid: "owner", lives.romeo.jid: "member"}
    history = cluster.api.call("GET", f"/rooms/{lives.room}/history")["history"]
    assert [one["nick"] for one in history if one["body"]] == ["jul"] * 5


def at(account: Account, domain: str) -> Account:
    return Account(f"{account.jid.partition('@')[0]}@{domain}", account.password)


def users(cluster: RunningCluster, domain: str) -> list[str]:
    return [user["jid"] for user in cluster.api.call("GET", "/users", query={"domain": domain})["users"]]


def test_people_of_a_prosody_move_in(cluster: RunningCluster, prosody: Lives) -> None:
    before = bring(cluster, "prosody", data_of(prosody), "--dry-run")
    assert users(cluster, "pr.example") == []
    done = bring(cluster, "prosody", data_of(prosody))
    assert done["left_out"] == {}, done["reasons"]
    assert done["imported"] == before["imported"]
    again = bring(cluster, "prosody", data_of(prosody))
    assert again["imported"] == {}
    assert again["there"] == done["imported"]
    check_people(cluster, prosody, "SCRAM-SHA-256")
    once_more = bring(cluster, "prosody", data_of(prosody))  # also after what waited was read
    assert once_more["imported"] == {}


def test_people_of_an_ejabberd_move_in(cluster: RunningCluster, ejabberd: Lives) -> None:
    exported = ejabberd.server.directory / "exported"
    done = bring(cluster, "ejabberd", exported)
    assert done["left_out"] == {}, done["reasons"]
    again = bring(cluster, "ejabberd", exported)
    assert again["imported"] == {}
    check_people(cluster, ejabberd, "SCRAM-SHA-1")
    assert bring(cluster, "ejabberd", exported)["imported"] == {}


def test_the_portable_format_alone_brings_accounts(cluster: RunningCluster, ejabberd: Lives) -> None:
    """Under another domain: addresses in rosters and messages follow."""
    exported = ejabberd.server.directory / "exported"
    file = next(file for file in exported.glob("*.xml") if b"<server-data" in file.read_bytes())
    done = bring(cluster, "xep0227", file, "--domain-map", "ej.example=new.example")
    assert done["left_out"] == {}, done["reasons"]
    romeo = Account(ejabberd.romeo.jid.replace("ej.example", "new.example"), PASSWORD)
    with Slixmpp(cluster, romeo, mechanism="SCRAM-SHA-1") as client:
        juliet = ejabberd.juliet.jid.replace("ej.example", "new.example")
        assert client.body(juliet) == "while you were away"
        assert client.roster()[juliet].subscription == "both"


def test_a_wrong_password_is_wrong_here_too(cluster: RunningCluster, prosody: Lives) -> None:
    bring(cluster, "prosody", data_of(prosody), "--host", "pr.example")
    with pytest.raises(LoginFailed) as failed:
        Slixmpp(cluster, Account(prosody.juliet.jid, "secret"), mechanism="SCRAM-SHA-256")
    assert failed.value.condition == "not-authorized"


def test_a_prosody_that_keeps_its_data_in_sqlite(cluster: RunningCluster, prosody: Lives) -> None:
    """Prosody's own migrator makes the database of the files. Where root runs it, it becomes another user."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(data_of(prosody), folder / "data")
        database, config = folder / "prosody.sqlite", folder / "migrator.cfg.lua"
        hosts = (
            f'["pr.example"] = {{ "accounts", "roster", "vcard", "private", "blocklist", "pep", "{PEP}-archive", '
            '"archive-archive", "offline-archive" }, '
            '["conference.pr.example"] = { "config", "persistent", "muc_log-archive" }'
        )
        config.write_text(
            f'files {{ hosts = {{ {hosts} }}; type = "internal"; path = {json.dumps(str(folder / "data"))} }}\n'
            f'sql {{ type = "sql"; driver = "SQLite3"; database = {json.dumps(str(database))} }}\n'
        )
        for file in (folder, *folder.rglob("*")):
            file.chmod(0o777)
        command = [program("prosody-migrator"), "--config", str(config), "files", "sql"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        names = ("pr.example=sql.example", "conference.pr.example=conference.sql.example")
        options = [word for pair in names for word in ("--domain-map", pair)]
        found = bring(cluster, "prosody", database, *options)
        assert found["left_out"] == {}, found["reasons"]
        assert bring(cluster, "prosody", database, *options)["imported"] == {}
    moved = replace(
        prosody, juliet=at(prosody.juliet, "sql.example"), romeo=at(prosody.romeo, "sql.example"),
        room="verona@conference.sql.example",
    )  # fmt: skip
    with Slixmpp(cluster, moved.juliet, mechanism="SCRAM-SHA-256") as one:
        bodies = [m.body for m in one.archive(page=50)]
        assert one.vcard(moved.juliet.jid) == ("Juliet Capulet é", ["jul"])
        assert one.roster()[moved.romeo.jid].groups == ("Friends", "Verona é")
    assert bodies == [m.body for m in prosody.archives[prosody.juliet.jid]]
    check_private(cluster, moved, "sql.example")
    check_room(cluster, moved)


# --- out again


def test_everything_moves_to_another_cluster(
    cluster: RunningCluster, prosody: Lives, tmp_path: Path, new_cluster: Callable[..., RunningCluster]
) -> None:
    bring(cluster, "prosody", data_of(prosody))
    juliet, romeo = prosody.juliet, prosody.romeo
    with Slixmpp(cluster, juliet) as one:
        one.set_bookmarks({prosody.room: "jul"})
        one.message(romeo.jid, "the last word")
        one.set_preferences(Preferences("roster", frozenset({"friar@verona.example"})))
    out, file = tmp_path / "out", tmp_path / "out.xml"
    for target in (out, file):
        done = cluster.command("export", "xep0227", "--domain", "pr.example", "--out", str(target))
        assert done.returncode == 0, done.stderr
        assert target.stat().st_mode & 0o077 == 0
    other = new_cluster("--domain", "pr.example", "--tls", "optional", "--set", "limits.enabled=false")
    found = bring(other, "xep0227", out / "server-data.xml")
    assert found["left_out"] == {}, found["reasons"]
    for jid in users(cluster, "pr.example"):
        assert told(other, jid) == told(cluster, jid), jid
    assert bring(other, "xep0227", out / "server-data.xml")["imported"] == {}
    assert bring(other, "xep0227", file)["imported"] == {}
    with Slixmpp(other, romeo, mechanism="SCRAM-SHA-256") as client:
        assert client.body(juliet.jid) == "the last word"
    with Slixmpp(other, juliet, mechanism="SCRAM-SHA-256") as client:
        assert client.roster() == prosody.rosters[juliet.jid]
        assert client.bookmarks() == {prosody.room: "jul"}
        assert len(client.archive(page=50)) == 16
    assert bring(other, "xep0227", file)["imported"] == {}  # what waited was read, and does not wait again


def told(cluster: RunningCluster, jid: str) -> dict[str, list[Any]]:
    """Everything that there is of an account."""
    path = f"/export/users/{jid}"
    found = {"things": cluster.api.call("GET", path)["things"]}
    pages: list[tuple[str, dict[str, str]]] = [("messages", {}), ("waiting", {})]
    pages += [("items", {"node": thing["node"]}) for thing in found["things"] if thing["kind"] == "node"]
    for what, query in pages:
        after: str | None = ""
        while after is not None:
            page = cluster.api.call("GET", f"{path}/{what}", query={**query, "after": after})
            found.setdefault(f"{what} {query}", []).extend(page["things"])
            after = page["after"]
    return found


def test_ejabberd_takes_what_is_exported(cluster: RunningCluster, ejabberd: Lives, tmp_path: Path) -> None:
    bring(cluster, "ejabberd", ejabberd.server.directory / "exported")
    account = cluster.account("mercutio", PASSWORD, domain="ej.example")
    with Slixmpp(cluster, account) as one:
        one.put_contact("romeo@verona.example", "Romeo é", ("Friends",))
        one.publish_vcard("Mercutio", "merc")
        one.block("tybalt@verona.example")
    file = tmp_path / "mercutio.xml"
    done = cluster.command("export", "xep0227", "--user", account.jid, "--for", "ejabberd", "--out", str(file))
    assert done.returncode == 0, done.stderr
    server = ejabberd.server
    assert isinstance(server, Ejabberd)
    assert server.command("import_piefxis", file=str(file)) == 0
    with Slixmpp(server, account, mechanism="SCRAM-SHA-1") as one:
        assert one.roster()["romeo@verona.example"].groups == ("Friends",)
        assert one.vcard(account.jid) == ("Mercutio", ["merc"])
        assert one.blocked() == {"tybalt@verona.example"}


def test_prosody_takes_what_is_exported(cluster: RunningCluster, tmp_path: Path) -> None:
    account = cluster.account("benvolio", PASSWORD, domain="pr.example")
    with Slixmpp(cluster, account) as one:
        one.put_contact("romeo@verona.example", "Romeo é", ("Friends",))
        one.publish_vcard("Benvolio", "ben")
        one.message("romeo@verona.example", TEXT)
    stores = ("accounts", "roster", "vcard", "private", "archive", "pep")
    kept = ", ".join(f'{store} = "xep0227"' for store in stores)
    with running_peers(tmp_path / "peers") as peers:
        settings = f'password_hash = "SHA-256"\nstorage = {{ {kept} }}\n'
        server = peers.prosody("pr.example", authentication="internal_hashed", settings=settings)
        out = server.directory / "data" / f"{account.jid}.xml"
        out.parent.mkdir(exist_ok=True)
        done = cluster.command("export", "xep0227", "--user", account.jid, "--out", str(out))
        assert done.returncode == 0, done.stderr
        with Slixmpp(server, account, mechanism="SCRAM-SHA-256") as one:
            assert one.roster()["romeo@verona.example"].groups == ("Friends",)
            assert one.vcard(account.jid) == ("Benvolio", ["ben"])
