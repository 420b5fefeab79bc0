"""The administration API and its OpenAPI document, against a real cluster: every command is used once as it is meant,
then as nobody should; every answer and error is what the document says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import APIOperation, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks as openapi_checks

from stentor.client import Api, Refused
from tests.support.client import CLIENT, condition, sign_in
from tests.support.cluster import FACTOR, Account, RunningCluster, start_cluster, wait_until

FUZZ_S: Final = 45.0  # all operations together
LINE: Final = 8_000  # a longer request line is refused before anybody asks what it means
CHECKS: Final = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.unsupported_method,
]


class Described:
    """A cluster and what its API says of itself."""

    def __init__(self, cluster: RunningCluster) -> None:
        self.cluster = cluster
        self.api = cluster.api
        self.document = self.api.call("GET", "/openapi.json")
        schema = schemathesis.openapi.from_dict(self.document)
        found: list[APIOperation[Any, Any, Any, Any]] = []
        for result in schema.get_all_operations():
            assert isinstance(result, Ok), result.err()
            found.append(result.ok())
        self.operations = {str(one.definition.raw["operationId"]): one for one in found}
        self.used: set[str] = set()

    def headers(self, token: str = "") -> dict[str, str]:
        return {"Authorization": f"Bearer {token or self.api.token}"}

    def use(self, name: str, status: int = 200, /, *, token: str = "", **given: Any) -> Any:
        """Use a command; parameters are told by their names. The answer must be as the document has it."""
        operation = self.operations[name]
        places: dict[str, dict[str, Any]] = {"path": {}, "query": {}}
        for parameter in operation.definition.raw["parameters"]:
            if parameter["name"] in given:
                places[parameter["in"]][parameter["name"]] = given.pop(parameter["name"])
        body: dict[str, Any] = {"body": given, "media_type": "application/json"} if given else {}
        case = operation.Case(path_parameters=places["path"], query=places["query"], **body)
        response = case.call(base_url=self.api.url, headers=self.headers(token))
        assert response.status_code == status, (name, response.text)
        case.validate_response(response, checks=CHECKS[:4])
        if status == 200:
            self.used.add(name)
        return json.loads(response.text)

    def is_refused(self, token: str) -> bool:
        """Whether a token is of no use."""
        try:
            Api(self.api.url, token).call("GET", "/users")
        except Refused as refused:
            return refused.status == 401
        return False


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Described]:
    running = start_cluster(
        tmp_path_factory.mktemp("administration"), "--tls", "optional", "--set", "registration.mode=invite",
        "--set", 'server.admins=["boss@localhost"]',
    )  # fmt: skip
    yield Described(running)
    assert running.stop() == 0


def use_accounts(described: Described) -> None:
    use, domain = described.use, described.cluster.domain
    jid = f"juliet@{domain}"
    assert use("user add", jid=f"Juliet@{domain}", password="secret") == {"jid": jid}
    assert "exists" in use("user add", 409, jid=jid, password="secret")["error"]
    use("user passwd", jid=jid, password="other")
    use("user ban", jid=jid, reason="spam", until="2037-01-31T12:00:00Z")
    assert use("user show", jid=jid)["restrictions"][0]["kind"] == "ban"
    use("user quarantine", jid=jid, reason="spam", by="prince")
    assert [one["by"] for one in use("user restricted")["restrictions"]] == ["operator", "prince"]
    assert use("user unban", jid=jid)["was"] is True
    assert use("user release", jid=jid)["was"] is True
    assert use("user devices", jid=jid) == {"devices": []}
    use("user logout", jid=jid)
    use("user logout device", jid=jid, device="00ff")
    romeo = f"romeo@{domain}"
    use("roster add", jid=jid, contact=romeo, name="Romeo", groups=["Friends"], subscription="to")
    (contact,) = use("roster list", jid=jid)["contacts"]
    assert (contact["jid"], contact["name"], contact["subscription"]) == (romeo, "Romeo", "to")
    use("roster del", jid=jid, contact=romeo)
    use("roster del", 404, jid=jid, contact=romeo)
    use("roster add", 409, jid=jid, contact=jid)
    assert use("roster list", jid=jid) == {"contacts": []}
    use("message send", jid=jid, subject="Tonight", body="Maintenance")
    use("message send", 404, jid=f"nobody@{domain}", body="Maintenance")
    begun = use("announce", body="Maintenance", domain=domain, rate=1)
    assert use("job show", id=begun["id"])["state"] == "running"
    assert use("job abort", id=begun["id"])["state"] == "aborted"
    use("job abort", 404, id=begun["id"])
    assert use("job list", limit=1)["jobs"][0]["id"] == begun["id"]
    made = use("invite create", kind="account", domain=domain, user="paris", contact=jid)
    assert use("invite list")["invitations"][-1]["id"] == made["id"]
    use("invite revoke", id=made["id"])
    for number in range(3):
        use("user add", jid=f"page-{number}@{domain}", password="secret")
    first = use("user list", search="page-", limit=2)
    assert [one["jid"] for one in first["users"]] == [f"page-{number}@{domain}" for number in range(2)]
    rest = use("user list", search="page-", limit=2, after=first["next"])
    assert rest == {"users": [{"jid": f"page-2@{domain}"}], "next": None}
    use("user del", jid=f"page-2@{domain}")
    begun = use("user erase", jid=f"page-1@{domain}", rooms=True)
    wait_until(lambda: bool(use("user erase show", id=int(begun["id"]))["is_finished"]), 15, "it is erased")


def use_rooms(described: Described) -> None:
    use = described.use
    jid = f"verona@conference.{described.cluster.domain}"
    use("room create", jid=jid, owner=f"juliet@{described.cluster.domain}", config={"roomname": "Verona"})
    assert use("room list")["rooms"][0]["name"] == "Verona"
    assert use("room show", jid=jid)["config"]["roomname"] == "Verona"
    use("room set", jid=jid, config={"membersonly": "1"})
    use("room set", 400, jid=jid, config={"nonsense": "1"})
    use("room affiliation", jid=jid, user=f"romeo@{described.cluster.domain}", affiliation="member")
    assert len(use("room affiliations", jid=jid)["affiliations"]) == 2
    assert use("room occupants", jid=jid) == {"occupants": []}
    assert use("room history", jid=jid) == {"history": []}
    use("room destroy", jid=jid)
    use("room show", 404, jid=jid)


def use_traces_and_moves(described: Described) -> None:
    use, domain = described.use, described.cluster.domain
    jid, room = f"juliet@{domain}", f"mantua@conference.{domain}"
    begun = use("trace", jid=jid, seconds=60)
    assert begun["hint"] == ""
    assert [one["jid"] for one in use("trace list")["traces"]] == [jid]
    use("message send", jid=jid, body="seen")
    assert use("trace events", id=begun["id"], after="0")["events"]
    use("trace stop", id=begun["id"])
    assert use("trace events", id=begun["id"])["is_over"]
    use("trace events", 404, id="router-0-ffff")
    use("trace", 400, jid=f"{jid}/balcony")
    assert "no account" in use("trace", jid=f"nobody@{domain}", seconds=1)["hint"]
    things = [{"kind": "contact", "jid": f"nurse@{domain}", "name": "Nurse", "groups": [], "subscription": "none",
               "ask": False, "approved": False}]  # fmt: skip
    (result,) = use("import user", jid=jid, things=things, dry_run=True)["results"]
    assert use("import user", jid=jid, things=things)["results"] == [result]
    (again,) = use("import user", jid=jid, things=things)["results"]
    assert again["status"] != result["status"], "it is there already"
    use("import user", 400, jid=jid, things=[{"kind": "nonsense"}])
    told = use("export user", jid=jid)["things"]
    assert f"nurse@{domain}" in {thing["jid"] for thing in told if thing["kind"] == "contact"}
    use("export items", 404, jid=jid, node="nothing")
    assert use("export messages", jid=jid)["things"]
    assert use("export waiting", jid=jid)["things"]
    use("import room", jid=room, things=[{"kind": "room", "options": {"roomname": "Mantua"}}])
    assert use("room show", jid=room)["config"]["roomname"] == "Mantua"


def use_the_rest(described: Described) -> None:
    use = described.use
    assert use("session list", count="true") == {"count": 0}
    assert use("session list") == {"sessions": [], "next": None}
    use("session show", 404, jid=f"juliet@{described.cluster.domain}/balcony")
    assert use("session kick", jid=f"juliet@{described.cluster.domain}") == {"ended": 0}
    assert use("report list") == {"reports": [], "next": None}
    use("report show", 404, id=1)
    use("report close", 404, id=1, note="nothing")
    assert use("blocklist list") == {"blocklists": []}
    use("blocklist check", jid="romeo@example.net")
    use("blocklist refresh", 409)
    assert use("s2s list") == {"peers": []}
    use("s2s retry", 404, domain="example.net")
    assert use("s2s streams", domain="example.net") == {"streams": [], "failures": [], "problems": []}
    use("s2s close", 404, domain="example.net")
    (numbers,) = use("stats", domain=described.cluster.domain)["domains"]
    assert (numbers["sessions"], numbers["banned"]) == (0, 0)
    assert use("cluster status")["shards"]["unowned"] == 0
    use("cluster drain", 404, node="nobody")
    shown = use("config show")["processes"]
    assert {one["role"] for one in shown} >= {"c2s", "router"}
    assert [one["problem"] for one in shown] == [""] * len(shown)
    assert described.api.token not in json.dumps(shown)
    assert all(one["changes"] == [] for one in use("config diff")["processes"])
    use("config reload", node="c2s-0")
    use("config show", 404, node="nobody")
    before = use("log level", node="all", level="debug", logger="s2s.dns", for_s=60)["processes"]
    assert {one["before"] for one in before} == {"as everywhere"}
    certificates = use("tls list")
    assert certificates["problems"] == []
    assert any(described.cluster.domain in one["names"] for one in certificates["certificates"])
    use("token create", name="shown", scopes=["users:read"], expires_s=60)
    assert "shown" in {one["name"] for one in use("token list")["tokens"]}
    use("token revoke", name="shown")
    assert use("audit list", limit=1)["deeds"][0]["command"] == "token revoke"


#: What needs a state that other tests make: a session, a report, a peer, a process to lose.
ELSEWHERE: Final = {
    "archive export", "archive purge", "session show", "report show", "report close", "blocklist refresh", "s2s retry",
    "cluster drain", "export items", "s2s close",
}  # fmt: skip


def test_every_command_answers_as_the_document_says(described: Described) -> None:
    use_accounts(described)
    use_rooms(described)
    use_traces_and_moves(described)
    use_the_rest(described)
    assert described.used == set(described.operations) - ELSEWHERE


@pytest.mark.parametrize(
    ("name", "given", "word"),
    [
        ("user add", {"jid": "a@b", "password": "p", "passwort": "p"}, "passwort"),
        ("user add", {"jid": "a@b"}, "password"),
        ("user add", {"jid": "a@b", "password": "nul\0"}, "password"),
        ("user list", {"limit": 0}, "limit"),
        ("user list", {"limit": "many"}, "limit"),
        ("report list", {"after": "yesterday"}, "after"),
        ("report show", {"id": 2**63}, "id"),
        ("room set", {"jid": "x@conference.localhost", "config": {"roomname": 3}}, "config"),
    ],
)
def test_what_is_wrong_is_named(described: Described, name: str, given: dict[str, Any], word: str) -> None:
    assert word in described.use(name, 400, **given)["error"]


def test_a_token_may_what_its_scopes_say(described: Described) -> None:
    use, domain = described.use, described.cluster.domain
    token = use("token create", name="helpdesk", scopes=["users:read", "users:write", "tokens:write"])["token"]
    jid = f"helped@{domain}"
    assert use("user add", token=token, jid=jid, password="secret") == {"jid": jid}
    refused = use("session list", 403, token=token)
    assert "sessions:read" in refused["error"]
    assert "sessions:read" in refused["remedy"]
    (deed,) = use("audit list", who="helpdesk", what=jid)["deeds"]
    assert (deed["command"], deed["on"], deed["outcome"], deed["address"]) == ("user add", jid, "done", "127.0.0.1")
    assert "secret" not in json.dumps(use("audit list"))
    more = use("token create", 403, token=token, name="more", scopes=["users:read", "cluster:write"])
    assert "cluster:write" in more["error"]
    for name in (f"Boss@{domain}", f"boss@{domain.upper()}"):
        assert "admins:write" in use("user add", 403, token=token, jid=name, password="taken over")["error"]
    made = use("invite create", 403, token=token, kind="account", user="Boss", domain=domain)
    assert "administrator" in made["error"]
    (known,) = [one for one in use("token list")["tokens"] if one["name"] == "helpdesk"]
    assert known["used_at"] is not None
    assert token not in json.dumps(use("token list"))
    use("token revoke", name="helpdesk")
    use("user list", 401, token=token)


def test_a_token_that_has_expired_is_none(described: Described) -> None:
    token = described.use("token create", name="brief", scopes=["users:read"], expires_s=0.2)["token"]
    wait_until(lambda: described.is_refused(token), 10, "the token has expired")
    described.use("token create", 409, name="brief", scopes=["users:read"])
    described.use("user list", 401, token=token[:-1] + "-")


def test_what_fails_is_in_the_audit_log_too(described: Described) -> None:
    described.use("user del", 404, jid=f"nobody@{described.cluster.domain}")
    deed = described.use("audit list", limit=1, what="user del")["deeds"][0]
    assert (deed["who"], deed["outcome"][:4]) == ("admin.token", "404:")
    assert described.use("audit list", since="2100-01-01") == {"deeds": [], "next": None}
    logs = "".join(described.cluster.log(router.node) for router in described.cluster.processes("router"))
    assert f'"on": "nobody@{described.cluster.domain}"' in logs


def test_the_command_line_makes_tokens(described: Described) -> None:
    made = described.cluster.command("token", "create", "cli", "--scope", "users:read", "--expires", "90d")
    assert made.returncode == 0, made.stderr
    described.use("user list", token=made.stdout.strip())
    assert "cli  users:read  until 20" in described.cluster.command("token", "list").stdout
    assert described.cluster.command("token", "revoke", "cli").stdout == "cli revoked\n"
    listed = described.cluster.command("audit", "list", "--since", "1h", "--what", "token")
    assert "admin.token  127.0.0.1  token revoke  cli  done\n" in listed.stdout
    wrong = described.cluster.command("token", "create", "cli", "--scope", "users:everything")
    assert (wrong.returncode, "users:everything" in wrong.stderr or "scopes" in wrong.stderr) == (1, True)


def test_an_announcement_reaches_everybody_once(described: Described) -> None:
    cluster = described.cluster
    online, away = cluster.account("online"), cluster.account("away")
    with sign_in(cluster, online) as client:
        client.send("<presence/>")
        client.ping()
        told = cluster.command(
            "announce", "Tonight", "--to", "online", "--type", "headline", "--domain", cluster.domain
        )
        assert told.returncode == 0, told.stderr
        assert "done: " in told.stdout
        assert client.body() == "Tonight"
        told = cluster.command("announce", "To all", "--rate", "1000")
        assert told.returncode == 0, told.stderr
        assert client.body() == "To all"
    with sign_in(cluster, away) as client:
        client.send("<presence/>")
        assert client.body() == "To all"
        with pytest.raises(TimeoutError):
            client.body(0.5)  # the headline was not for who was away, and nothing comes twice
    exported = cluster.command("archive", "export", away.jid)
    (line,) = exported.stdout.splitlines()
    assert "<body>To all</body>" in json.loads(line)["stanza"]
    assert described.use("audit list", what=away.jid)["deeds"][0]["command"] == "archive export"
    purged = cluster.command("archive", "purge", away.jid)
    assert (purged.returncode, "done: 0" in purged.stdout) == (0, True)  # all of it is younger than a day
    described.use("archive export", jid=away.jid, since="2020-01-01")
    described.use("archive purge", jid=away.jid, before="2020-01-01")


def test_a_reload_counts_where_it_says_so(described: Described) -> None:
    """The file says that a roster has one contact at most: so it is from then on, in each router."""
    file = described.cluster.directory / "stentor.toml"
    before = file.read_text()
    jid = described.cluster.account("few").jid
    try:
        file.write_text(before.replace("roster = 5000", "roster = 1").replace("port = 7400", "port = 7401"))
        assert file.read_text() != before
        differ = {change["key"] for one in described.use("config diff")["processes"] for change in one["changes"]}
        assert "limits.roster" in differ
        done = described.use("config reload")["processes"]
        of_routers = {
            change["key"]: change["effect"] for one in done if one["role"] == "router" for change in one["changes"]
        }
        assert of_routers["limits.roster"] == "applied"
        described.use("roster add", jid=jid, contact="one@example.org")
        assert "full" in described.use("roster add", 409, jid=jid, contact="two@example.org")["error"]
        file.write_text("[rooms]\nhistroy = 1\n")
        problems = [one["problem"] for one in described.use("config reload")["processes"]]
        assert all("rooms.histroy" in problem for problem in problems)
        assert described.cluster.command("config", "reload").returncode == 1
    finally:
        file.write_text(before)
    described.use("config reload")
    described.use("roster add", jid=jid, contact="two@example.org")


COMMAND: Final = (
    "<command xmlns='http://jabber.org/protocol/commands' node='http://jabber.org/protocol/admin#{}' action='complete'>"
    "<x xmlns='jabber:x:data' type='submit'>{}</x></command>"
)


def test_an_administrator_does_it_from_a_client(described: Described) -> None:
    """XEP-0133: the same command, with a row of the audit log that names who."""
    cluster, domain = described.cluster, described.cluster.domain
    described.use("user add", jid=f"boss@{domain}", password="secret")
    victim = cluster.account("spammer")
    fields = f"<field var='accountjids'><value>{victim.jid}</value></field>"
    with sign_in(cluster, Account(f"boss@{domain}", "secret")) as boss, sign_in(cluster, victim) as spammer:
        refused = spammer.iq("set", COMMAND.format("disable-user", fields), domain)
        assert condition(refused) == "forbidden"
        done = boss.iq("set", COMMAND.format("disable-user", fields), domain)
        assert done.get("type") == "result", condition(done)
        assert spammer.end() == "policy-violation"
        unknown = boss.iq("set", COMMAND.format("delete-user", fields.replace("spammer", "nobody")), domain)
        assert condition(unknown) == "item-not-found"
        listed = boss.iq("set", COMMAND.format("get-disabled-users-list", ""), domain)
        assert victim.jid in [value.text for value in listed.iter("{jabber:x:data}value")]
    done_by = described.use("audit list", who=f"boss@{domain}")["deeds"]
    assert [(deed["command"], deed["outcome"][:4]) for deed in done_by] == [("user del", "404:"), ("user ban", "done")]
    (ban,) = described.use("user show", jid=victim.jid)["restrictions"]
    assert ban["by"] == f"boss@{domain}"


def test_an_account_reads_what_an_operator_writes(described: Described) -> None:
    reader = described.cluster.account("reader")
    with sign_in(described.cluster, reader) as client:
        client.send("<presence/>")
        client.ping()
        described.use("message send", jid=reader.jid, body="Maintenance at <four>", subject="Tonight")
        message = client.expect(lambda element: element.tag == f"{CLIENT}message")
        assert message.get("from") == described.cluster.domain
        assert message.findtext(f"{CLIENT}body") == "Maintenance at <four>"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_whatever_is_sent_is_answered_as_the_document_says(described: Described) -> None:
    """Made-up requests, right and wrong, of every operation, for a bounded time; never a 5xx, never an answer that is
    not described, and what is described as wrong is refused."""
    share_s, judged = FUZZ_S / len(described.operations) / 2, 0
    for operation in described.operations.values():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            try:
                strategy = operation.as_strategy(generation_mode=mode)
            except schemathesis.errors.SchemathesisError:
                continue
            judged += fuzz(described, strategy, share_s)
    assert judged > 2 * len(described.operations)


def fuzz(described: Described, strategy: Any, seconds: float) -> int:
    """Returns how many requests were judged."""
    judged = 0
    give_up_at = time.monotonic() + seconds
    headers = described.headers()
    checks = [*CHECKS, openapi_checks.negative_data_rejection]

    @hypothesis.settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategy)
    def judge(case: Any) -> None:
        nonlocal judged
        if time.monotonic() > give_up_at or len(quote(str(case.path_parameters) + str(case.query))) > LINE:
            return
        case.call_and_validate(base_url=described.api.url, headers=headers, checks=checks, timeout=10 * FACTOR)
        judged += 1

    try:
        judge()
    except hypothesis.errors.Unsatisfiable:
        pass  # a command without parameters cannot be given wrong ones
    return judged
