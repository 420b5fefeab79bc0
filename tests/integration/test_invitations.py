"""How people come to an account: invitations by ad-hoc commands and by operators (XEP-0401), in-band registration with a
token (XEP-0445), subscriptions with one (XEP-0379), pages in a browser, and questions (XEP-0158). Real processes."""

from __future__ import annotations

import http.client
import itertools
import re
import socket
import ssl
import time
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest

from stentor.client import Refused
from tests.support.client import SASL, Client, Element, condition, place, sign_in
from tests.support.cluster import FACTOR, Account, RunningCluster, start_cluster, wait_until

COMMANDS = "{http://jabber.org/protocol/commands}"
FORM = "{jabber:x:data}"
REGISTER = "jabber:iq:register"
ROSTER = "{jabber:iq:roster}"
PAGES = "https://chat.example"  # where the links point; tests go to the listener itself

_names = itertools.count(1)


@pytest.fixture(scope="module")
def invited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    options = ("registration.mode=invite", "registration.invitations=3", "registration.per_address=0",
               f"http.public_url={PAGES}", "http.request_timeout_s=1")  # fmt: skip
    sets = [part for option in options for part in ("--set", option)]
    running = start_cluster(tmp_path_factory.mktemp("invited"), "--tls", "optional", *sets)
    yield running
    assert running.stop() == 0


def a_name() -> str:
    return f"guest{next(_names)}"


# --- what is said


class Invitation(NamedTuple):
    uri: str
    url: str
    expire: str

    @property
    def token(self) -> str:
        found = re.search(r"preauth=([a-z2-7]+)", self.uri)
        assert found is not None
        return found[1]


def run(client: Client, name: str, form: str = "") -> Element:
    command = f"<command xmlns='{COMMANDS[1:-1]}' node='urn:xmpp:invite#{name}'"
    return client.iq("set", f"{command}>{form}</command>" if form else f"{command} action='execute'/>", client.domain)


def invite(client: Client, name: str = "invite", **fields: str) -> Invitation:
    answers = "".join(
        f"<field var='{var.replace('_', '-')}'><value>{value}</value></field>" for var, value in fields.items()
    )
    answer = run(client, name, f"<x xmlns='{FORM[1:-1]}' type='submit'>{answers}</x>" if fields else "")
    assert answer.get("type") == "result", condition(answer)
    command = answer.find(f"{COMMANDS}command")
    assert command is not None
    assert command.get("status") == "completed"
    told = {field.get("var"): field.findtext(f"{FORM}value") for field in command.iter(f"{FORM}field")}
    assert told["FORM_TYPE"] == "urn:xmpp:invite#invitation"
    return Invitation(told["uri"] or "", told.get("landing-url") or "", told["expire"] or "")


def stranger(cluster: RunningCluster) -> Client:
    client = Client(cluster)
    features = client.open()
    assert features.find("{urn:xmpp:ibr-token:0}register") is not None
    return client


def preauth(client: Client, token: str) -> Element:
    return client.iq("set", f"<preauth xmlns='urn:xmpp:pars:0' token='{token}'/>", client.domain)


def register(client: Client, username: str, password: str = "secret") -> Element:
    inner = f"<username>{username}</username><password>{password}</password>"
    return client.iq("set", f"<query xmlns='{REGISTER}'>{inner}</query>", client.domain)


def new_account(cluster: RunningCluster, token: str, username: str = "") -> Account:
    """By a client that has an invitation (XEP-0445)."""
    username = username or a_name()
    with stranger(cluster) as client:
        accepted = preauth(client, token)
        assert accepted.get("type") == "result", condition(accepted)
        made = register(client, username)
        assert made.get("type") == "result", condition(made)
    return Account(f"{username}@{cluster.domain}", "secret")


def refusal(cluster: RunningCluster, token: str) -> str:
    """What a client hears of a token that is good for nothing."""
    with stranger(cluster) as client:
        return condition(preauth(client, token))


def roster(client: Client) -> dict[str, str]:
    answer = client.iq("get", f"<query xmlns='{ROSTER[1:-1]}'/>")
    return {item.get("jid") or "": item.get("subscription") or "" for item in answer.iter(f"{ROSTER}item")}


def roster_push(client: Client, jid: str, subscription: str) -> None:
    def matches(element: Element) -> bool:
        item = element.find(f"{ROSTER}query/{ROSTER}item")
        return item is not None and (item.get("jid"), item.get("subscription")) == (jid, subscription)

    client.expect(matches)


class Page(NamedTuple):
    status: int
    text: str
    headers: dict[str, str]


def browse(cluster: RunningCluster, token: str, headers: dict[str, str] | None = None, **form: str) -> Page:
    """GET the page of a token, or POST a form to it."""
    connection = http.client.HTTPConnection(cluster.host, cluster.facts["ports"]["http"], timeout=30 * FACTOR)
    try:
        sent = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        body = urlencode(form) if form else None
        connection.request("POST" if form else "GET", f"/invite/{token}", body, sent | (headers or {}))
        response = connection.getresponse()
        return Page(response.status, response.read().decode(), {k.lower(): v for k, v in response.getheaders()})
    finally:
        connection.close()


def may_sign_in(cluster: RunningCluster, account: Account, password: str = "") -> bool:
    with Client(cluster) as client:
        client.open()
        return client.plain(account, password or account.password).tag == f"{SASL}success"


# --- from user to user


@pytest.mark.parametrize("other_router", [False, True])
def test_who_is_invited_registers_and_both_are_contacts(invited: RunningCluster, other_router: bool) -> None:
    """XEP-0401, 4.1 and 4.5: the inviter is told by a roster push; also where the two have different routers."""
    for _ in range(30):
        inviter = invited.account("inviter")
        with sign_in(invited, inviter) as romeo:
            roster(romeo)  # its client wants roster pushes
            invitation = invite(romeo)
            assert invitation.uri == f"xmpp:{romeo.bare}?roster;preauth={invitation.token};ibr=y"
            assert invitation.url == f"{PAGES}/invite/{invitation.token}"
            account = new_account(invited, invitation.token)
            with sign_in(invited, account) as juliet:
                if (place(invited, romeo)[1] != place(invited, juliet)[1]) != other_router:
                    continue
                roster_push(romeo, account.jid, "both")
                assert roster(juliet) == {romeo.bare: "both"}
                assert roster(romeo) == {juliet.bare: "both"}
                romeo.presence(None, juliet.jid)
                juliet.presence(None, romeo.jid)
                juliet.message(romeo.bare, "it was the nightingale")
                assert romeo.body() == "it was the nightingale"
                return
    pytest.fail("the accounts did not spread over the routers")


def test_a_token_is_good_once_and_not_used_before_the_account_is_there(invited: RunningCluster) -> None:
    """XEP-0445, 3."""
    with sign_in(invited, invited.account()) as romeo:
        token = invite(romeo).token
    with stranger(invited) as client, stranger(invited) as other:
        assert preauth(client, token).get("type") == "result"
        assert preauth(other, token).get("type") == "result", "looked at, not used"
        assert condition(register(client, romeo.bare.partition("@")[0])) == "conflict"
        assert condition(register(client, "")) == "not-acceptable"
        assert register(client, a_name()).get("type") == "result"
        assert condition(register(other, a_name())) == "item-not-found"
    assert refusal(invited, token) == "item-not-found"
    page = browse(invited, token)
    assert (page.status, "used up" in page.text) == (410, True)
    assert browse(invited, token, username=a_name(), password="x").status == 410


def test_without_a_token_nobody_registers(invited: RunningCluster) -> None:
    with stranger(invited) as client:
        assert condition(register(client, a_name())) == "not-allowed"
        assert condition(client.iq("get", f"<query xmlns='{REGISTER}'/>")) == "not-allowed"
        assert condition(preauth(client, "nonsense")) == "item-not-found"
        assert condition(register(client, a_name())) == "not-allowed"


@pytest.mark.parametrize("has", ["no token", "a wrong token", "a link for a password", "an invitation to another name"])
def test_without_a_token_for_it_no_name_is_told_from_another(invited: RunningCluster, has: str) -> None:
    """Whether a name is taken, only those learn who might have it (XEP-0077, XEP-0445)."""
    tokens = {
        "a wrong token": "a" * 40,
        "a link for a password": operators(invited, kind="reset", jid=invited.account().jid),
        "an invitation to another name": operators(invited, kind="account", domain=invited.domain, user=a_name()),
    }
    taken, free = invited.account(), a_name()
    heard = []
    for name in (taken.jid.partition("@")[0], free):
        with stranger(invited) as client:
            if has in tokens:
                preauth(client, tokens[has])
            for inner in ("<password>new</password>", "", "<remove/>"):
                query = f"<query xmlns='{REGISTER}'><username>{name}</username>{inner}</query>"
                answer = client.iq("set", query, client.domain)
                assert answer.get("type") == "error"
                del answer.attrib["id"]
                heard.append(ElementTree.tostring(answer).decode().replace(name, "NAME"))
    assert heard[:3] == heard[3:]
    assert may_sign_in(invited, taken)


def test_who_has_an_account_becomes_a_contact_by_the_token(invited: RunningCluster) -> None:
    """XEP-0379, 3.4 to 3.6."""
    with sign_in(invited, invited.account()) as romeo, sign_in(invited, invited.account()) as juliet:
        roster(romeo)
        roster(juliet)
        token = invite(romeo).token
        ask = f"<presence type='subscribe' to='{romeo.bare}'><preauth xmlns='urn:xmpp:pars:0' token='%s'/></presence>"
        juliet.send(ask % token)
        roster_push(romeo, juliet.bare, "both")
        roster_push(juliet, romeo.bare, "both")
        romeo.presence(None, juliet.jid)
        juliet.presence(None, romeo.jid)
        with sign_in(invited, invited.account()) as paris:
            paris.send(ask % token)  # it is used up: romeo is asked, as by anybody
            romeo.presence("subscribe", paris.bare)
            assert roster(paris) == {romeo.bare: "none"}


def test_a_token_of_somebody_else_approves_nothing(invited: RunningCluster) -> None:
    """XEP-0379, 4.1: as if there were none; and it is still good where it belongs."""
    with sign_in(invited, invited.account()) as romeo, sign_in(invited, invited.account()) as mercutio:
        token = invite(romeo).token
        with sign_in(invited, invited.account()) as juliet:
            ask = "<presence type='subscribe' to='%s'><preauth xmlns='urn:xmpp:pars:0' token='%s'/></presence>"
            roster(juliet)
            juliet.send(ask % (mercutio.bare, token))
            mercutio.presence("subscribe", juliet.bare)
            juliet.send(ask % (romeo.bare, token))
            juliet.presence("subscribed", romeo.bare)


def test_an_account_has_so_many_unused_invitations(invited: RunningCluster) -> None:
    with sign_in(invited, invited.account()) as romeo:
        tokens = [invite(romeo).token for _ in range(3)]
        assert condition(run(romeo, "invite")) == "resource-constraint"
        new_account(invited, tokens[0])
        invite(romeo)
        assert condition(run(romeo, "invite")) == "resource-constraint"


def test_an_invitation_to_a_name_reserves_it(invited: RunningCluster) -> None:
    """XEP-0401, 4.4; XEP-0445, 2.1 and 4."""
    name = a_name()
    with sign_in(invited, invited.account()) as romeo:
        form = run(romeo, "create-account")
        assert {field.get("var") for field in form.iter(f"{FORM}field")} == {
            "FORM_TYPE",
            "username",
            "roster-subscription",
        }
        for_name = invite(romeo, "create-account", username=name, roster_subscription="1")
        assert for_name.uri == f"xmpp:{name}@{invited.domain}?register;preauth={for_name.token}"
        for_any = invite(romeo, "create-account", roster_subscription="0")
        assert for_any.uri == f"xmpp:{invited.domain}?register;preauth={for_any.token}"
        assert condition(run(romeo, "create-account", f"<x xmlns='{FORM[1:-1]}' type='submit'><field var='username'>"
                             f"<value>{name}</value></field></x>")) == "conflict"  # fmt: skip
    with stranger(invited) as client:
        preauth(client, for_any.token)
        assert condition(register(client, name)) == "conflict"
        preauth(client, for_name.token)
        shown = client.iq("get", f"<query xmlns='{REGISTER}'/>")
        assert shown.findtext(f"{{{REGISTER}}}query/{{{REGISTER}}}username") == name
        assert condition(register(client, a_name())) == "not-allowed"
    account = new_account(invited, for_name.token, name)
    with sign_in(invited, account) as juliet:
        assert roster(juliet) == {romeo.bare: "both"}
    with sign_in(invited, new_account(invited, for_any.token)) as nobody:
        assert roster(nobody) == {}


# --- in a browser


def test_the_page_says_who_invites_and_makes_an_account(invited: RunningCluster) -> None:
    """XEP-0401, 4.2."""
    with sign_in(invited, invited.account()) as romeo:
        roster(romeo)
        invitation = invite(romeo)
        page = browse(invited, invitation.token, {"User-Agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0)"})
        assert page.status == 200
        assert f"{romeo.bare} invites you to chat" in page.text
        assert f'href="{invitation.uri.replace("&", "&amp;")}"' in page.text
        assert page.text.index("Monal") < page.text.index("Conversations"), "this browser's platform first"
        assert '<html lang="en">' in page.text
        assert "<script" not in page.text
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["referrer-policy"] == "no-referrer"
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
        name = a_name()
        own = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
        differs = browse(invited, invitation.token, own, username=name, password="a", again="b")
        assert (differs.status, "differ" in differs.text, f'value="{name}"' in differs.text) == (400, True, True)
        taken = browse(invited, invitation.token, own, username=romeo.bare.partition("@")[0], password="a", again="a")
        assert (taken.status, "taken" in taken.text) == (409, True)
        odd = browse(invited, invitation.token, own, username='"><b>', password="a")
        assert (odd.status, "<b>" in odd.text) == (400, False)
        made = browse(invited, invitation.token, own, username=name, password="päss", again="päss")
        assert (made.status, f"{name}@{invited.domain}" in made.text) == (201, True)
        assert f"{romeo.bare} is your first contact" in made.text
        roster_push(romeo, f"{name}@{invited.domain}", "both")
    with sign_in(invited, Account(f"{name}@{invited.domain}", "päss")) as juliet:
        assert roster(juliet) == {romeo.bare: "both"}


def test_forms_of_other_sites_and_other_things_are_refused(invited: RunningCluster) -> None:
    token = operators(invited, kind="account", domain=invited.domain)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        assert browse(invited, token, headers, username=a_name(), password="x").status == 403
    assert browse(invited, token, {"Content-Type": "text/plain"}, username=a_name(), password="x").status == 415
    assert browse(invited, token, username=a_name(), password="x" * 20_000).status == 413
    assert browse(invited, token, {"Origin": f"http://{invited.host}:{invited.facts['ports']['http']}"},
                  username=a_name(), password="x").status == 201  # fmt: skip


def test_unknown_expired_and_revoked_links_look_the_same(invited: RunningCluster) -> None:
    unknown = browse(invited, "a" * 40)
    assert (unknown.status, "leads nowhere" in unknown.text) == (404, True)
    expiring = operators(invited, kind="account", domain=invited.domain, expires_s=1)
    with stranger(invited) as client:
        assert preauth(client, expiring).get("type") == "result"
        wait_until(lambda: browse(invited, expiring).status == 404, 10, "the link has expired")
        assert browse(invited, expiring)[:2] == unknown[:2]
        assert refusal(invited, expiring) == "item-not-found"
        # XEP-0445, 3: time is looked at when the token is given, and not again.
        assert register(client, a_name()).get("type") == "result"
    made = invited.api.call("POST", "/invitations", {"kind": "account", "domain": invited.domain})
    with stranger(invited) as client:
        preauth(client, made["token"])
        assert invited.command("invite", "revoke", str(made["id"])).stdout == f"{made['id']} revoked\n"
        assert condition(register(client, a_name())) == "not-allowed"
    assert browse(invited, made["token"])[:2] == unknown[:2]
    assert refusal(invited, made["token"]) == "item-not-found"
    assert browse(invited, made["token"], username=a_name(), password="x")[:2] == unknown[:2]


def test_a_link_sets_a_new_password_and_ends_sessions_if_asked(invited: RunningCluster) -> None:
    account = invited.account()
    token = operators(invited, kind="reset", jid=account.jid)
    page = browse(invited, token)
    assert (page.status, f"A new password for {account.jid}" in page.text) == (200, True)
    assert refusal(invited, token) == "item-not-found", "it is no invitation to an account"
    with sign_in(invited, account) as juliet:
        done = browse(invited, token, password="new", again="new", end="1")
        assert (done.status, "has a new password" in done.text) == (200, True)
        assert juliet.end() == "policy-violation"
    assert not may_sign_in(invited, account)
    assert may_sign_in(invited, account, "new")
    assert browse(invited, token, password="newer").status == 410
    again = operators(invited, kind="reset", jid=account.jid)
    with sign_in(invited, Account(account.jid, "new")) as juliet:
        assert browse(invited, again, password="newest").status == 200
        juliet.ping()


def test_a_link_for_a_password_tells_of_no_other_name(invited: RunningCluster) -> None:
    """Whoever has one, or none, may put any name into the form."""
    account, taken = invited.account(), invited.account()
    names = taken.jid.partition("@")[0], a_name()

    def submit(token: str, name: str, again: str) -> Page:
        return browse(invited, token, username=name, jid=f"{name}@{invited.domain}", password="new", again=again)

    for token, status, done in (
        (operators(invited, kind="reset", jid=account.jid), 400, [200, 410]),  # a link is good once
        ("a" * 40, 404, [404, 404]),
    ):
        one, two = (submit(token, name, "other") for name in names)
        assert one[:2] == two[:2]
        assert one.status == status
        assert [submit(token, name, "new").status for name in names] == done
    assert may_sign_in(invited, account, "new")
    assert may_sign_in(invited, taken)
    assert not may_sign_in(invited, taken, "new")


def test_what_a_removed_account_has_made_is_worth_nothing(invited: RunningCluster) -> None:
    account = invited.account()
    with sign_in(invited, account) as romeo:
        token = invite(romeo).token
    reset = operators(invited, kind="reset", jid=account.jid)
    invited.command("user", "del", account.jid)
    assert [browse(invited, dead).status for dead in (token, reset)] == [404, 404]


def test_a_connection_that_says_nothing_is_ended(invited: RunningCluster) -> None:
    with socket.create_connection((invited.host, invited.facts["ports"]["http"]), 10 * FACTOR) as slow:
        slow.sendall(b"GET /invite/x HTTP/1.1\r\nHost: x\r\n")
        started = time.monotonic()
        slow.settimeout(10 * FACTOR)
        try:
            assert slow.recv(100) == b""
        except ConnectionResetError:
            pass
        assert time.monotonic() - started < 8 * FACTOR
    assert "Traceback" not in invited.log("c2s-0") + invited.log("c2s-1")
    browse(invited, "x")
    metrics = "".join(invited.get(node, "/metrics")[1] for node in ("c2s-0", "c2s-1"))
    for series in ('requests_total{route="invite",status="4xx"}', 'dropped_total{reason="slow"}'):
        assert re.search(rf"^stentor_c2s_http_{re.escape(series)} [1-9]", metrics, re.MULTILINE), series


# --- operators


def operators(cluster: RunningCluster, **body: object) -> str:
    """The token of an invitation that an operator makes."""
    return str(cluster.api.call("POST", "/invitations", body)["token"])


def test_operators_invite_from_the_command_line(invited: RunningCluster) -> None:
    contact = invited.account()
    made = invited.command("invite", "create", "--uses", "2", "--contact", contact.jid, "--expires", "2h")
    assert made.returncode == 0, made.stderr
    told = dict(line.split(maxsplit=1) for line in made.stdout.splitlines())
    token = told["page"].rpartition("/")[2]
    assert told["uri"] == f"xmpp:{invited.domain}?register;preauth={token}"
    names = [new_account(invited, token).jid for _ in range(2)]
    assert refusal(invited, token) == "item-not-found"
    with sign_in(invited, contact) as romeo:
        assert roster(romeo) == dict.fromkeys(names, "both")
    listed = invited.command("invite", "list").stdout
    assert f"{told['id']}  account  used  2/2  {invited.domain}  contact {contact.jid}  by operator" in listed
    assert token not in listed
    with pytest.raises(Refused, match="does not exist"):
        operators(invited, kind="reset", jid=f"nobody@{invited.domain}")
    with pytest.raises(Refused, match="is reserved"):
        operators(invited, kind="account", domain=invited.domain, user="admin")


# --- open registration


@pytest.fixture(scope="module")
def open_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    options = ("registration.mode=open", "registration.per_address=6",
               'registration.questions=[{"question": "Who loves Juliet?", "answers": ["Romeo"]}]')  # fmt: skip
    sets = [part for option in options for part in ("--set", option)]
    running = start_cluster(tmp_path_factory.mktemp("open"), "--tls", "optional", "--c2s", "1", *sets)
    yield running
    assert running.stop() == 0


def test_the_listener_speaks_tls_by_the_certificates_of_the_domains(open_cluster: RunningCluster) -> None:
    context = ssl.create_default_context(cafile=str(open_cluster.certificate))
    port = open_cluster.facts["ports"]["https"]
    plain = socket.create_connection((open_cluster.host, port), 10 * FACTOR)
    with context.wrap_socket(plain, server_hostname=open_cluster.domain) as tls:
        tls.sendall(b"GET /invite/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: tls.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"This link leads nowhere" in answer


def test_whoever_answers_the_question_registers_until_there_were_too_many(open_cluster: RunningCluster) -> None:
    """XEP-0158, 4: by a form; XEP-0077, 4: the form is in place of the elements."""
    name = a_name()
    with stranger(open_cluster) as client:
        shown = client.iq("get", f"<query xmlns='{REGISTER}'/>")
        fields = {field.get("var"): field for field in shown.iter(f"{FORM}field")}
        assert fields["qa"].get("label") == "Who loves Juliet?"
        challenge = fields["challenge"].findtext(f"{FORM}value")
        assert condition(register(client, name)) == "not-acceptable"

        def submit(**given: str | None) -> Element:
            inner = "".join(f"<field var='{var}'><value>{value}</value></field>" for var, value in given.items())
            query = f"<query xmlns='{REGISTER}'><x xmlns='{FORM[1:-1]}' type='submit'>{inner}</x></query>"
            return client.iq("set", query, client.domain)

        given = {"username": name, "password": "secret", "challenge": challenge}
        assert condition(submit(**given, qa="Paris")) == "not-acceptable"
        assert condition(submit(**given | {"challenge": "0-9999999999-00"}, qa="Romeo")) == "not-acceptable"
        assert submit(**given, qa=" romeo ").get("type") == "result"
        assert submit(**given | {"username": a_name()}, qa="romeo").get("type") == "result"
        assert condition(submit(**given, qa="romeo")) == "conflict"
        assert condition(submit(**given | {"username": a_name()}, qa="romeo")) == "resource-constraint"
    with sign_in(open_cluster, Account(f"{name}@{open_cluster.domain}", "secret")) as romeo:
        invitation = invite(romeo)
        assert invitation.url.startswith("http://localhost:"), "this cluster has pages of its own"
