"""Signing in by XEP-0388 over real processes: tokens across processes, devices, what a resource brings at once."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from tests.support.client import Client, sign_in
from tests.support.cluster import Account, RunningCluster
from xmpp import tokens

SASL2: Final = "{urn:xmpp:sasl:2}"
BIND2: Final = "{urn:xmpp:bind:0}"
FAST: Final = "urn:xmpp:fast:0"
NONE: Final = "HT-SHA-256-NONE"
PHONE: Final = "<user-agent id='the-phone'><software>Test</software><device>phone</device></user-agent>"
LAPTOP: Final = PHONE.replace("phone", "laptop")
BIND: Final = "<bind xmlns='urn:xmpp:bind:0'><tag>test</tag><enable xmlns='urn:xmpp:carbons:2'/></bind>"
WANTED: Final = f"<request-token xmlns='{FAST}' mechanism='{NONE}'/>"


def connect(cluster: RunningCluster, account: Account) -> Client:
    client = Client(cluster, domain=account.jid.partition("@")[2])
    client.open()
    return client


def say(client: Client, mechanism: str, initial: bytes, inner: str) -> Element:
    first = f"<initial-response>{b64encode(initial).decode()}</initial-response>"
    client.send(f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>{first}{inner}</authenticate>")
    return client.expect(lambda element: element.tag.startswith(SASL2))


def with_password(client: Client, account: Account, inner: str) -> Element:
    local = account.jid.partition("@")[0]
    success = say(client, "PLAIN", f"\0{local}\0{account.password}".encode(), inner)
    assert success.tag == f"{SASL2}success", ElementTree.tostring(success)
    remember(client, success)
    return success


def with_token(client: Client, account: Account, token: str, inner: str, agent: str = PHONE, fast: str = "") -> Element:
    initial = account.jid.partition("@")[0].encode() + b"\0" + tokens.prove(token, b"")
    answer = say(client, NONE, initial, f"{agent}<fast xmlns='{FAST}' {fast}/>{inner}")
    if answer.tag == f"{SASL2}success":
        said = b64decode(answer.findtext(f"{SASL2}additional-data") or "")
        assert said == hmac.digest(token.encode(), b"Responder", "sha256"), "the server knows the token, too"
        remember(client, answer)
    return answer


def remember(client: Client, success: Element) -> None:
    client.jid = success.findtext(f"{SASL2}authorization-identifier") or ""
    client.bare = client.jid.partition("/")[0]


def token_in(success: Element) -> str:
    node = success.find(f"{{{FAST}}}token")
    return "" if node is None else node.get("token") or ""


def condition(failure: Element) -> str:
    assert failure.tag == f"{SASL2}failure", ElementTree.tostring(failure)
    return failure[0].tag.partition("}")[2]


def first_token(cluster: RunningCluster, account: Account, agent: str = PHONE) -> str:
    with connect(cluster, account) as client:
        token = token_in(with_password(client, account, agent + WANTED))
    assert len(token) >= 43, "32 bytes of randomness"
    return token


@pytest.fixture
def account(cluster: RunningCluster) -> Account:
    return cluster.account()


def test_a_token_is_good_until_a_newer_one_was_used(cluster: RunningCluster, account: Account) -> None:
    """XEP-0484, 3.5: the former "MUST NOT" be void "until the new token is actually used by the client"."""
    first = first_token(cluster, account)
    with connect(cluster, account) as client:
        second = token_in(with_token(client, account, first, WANTED))
    assert second not in ("", first)
    with connect(cluster, account) as client:
        third = token_in(with_token(client, account, first, WANTED))  # the second never arrived
    assert third not in ("", first, second)
    with connect(cluster, account) as client:
        assert condition(with_token(client, account, second, "")) == "not-authorized"
        assert with_token(client, account, third, BIND).find(f"{BIND2}bound") is not None
    with connect(cluster, account) as client:
        assert condition(with_token(client, account, first, "")) == "not-authorized"
        assert with_token(client, account, third, "").tag == f"{SASL2}success"


def test_everything_in_the_first_flight_behind_tls(cluster: RunningCluster, account: Account) -> None:
    """XEP-0509, on whichever c2s: the version of the features is the same on both. With another one the client hears
    the features first, and chooses anew."""
    local = account.jid.partition("@")[0]
    token = first_token(cluster, account)
    version = ""
    for number in range(8):
        with Client(cluster, direct_tls=True, domain=account.jid.partition("@")[2]) as client:
            known = f"<config-version xmlns='urn:xmpp:iap:0' scheme='opaque' value='{version}'/>"
            initial = b64encode(local.encode() + b"\0" + tokens.prove(token, b"")).decode()
            authenticate = (
                f"<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{NONE}'><initial-response>{initial}"
                f"</initial-response>{PHONE}<fast xmlns='{FAST}'/>{BIND}%s</authenticate>"
            )
            header = (
                "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' "
                f"from='{account.jid}' to='{client.domain}'>"
            )
            client.send(header + authenticate % known)
            offered, answer = client.read(), client.read()
            found = offered.find("{urn:xmpp:iap:0}config-version")
            assert found is not None
            if number == 0:
                assert condition(answer) == "aborted"
                assert answer.find("{urn:xmpp:iap:0}config-version-mismatch") is not None
                version = found.get("value") or ""
                client.send(authenticate % "")
                answer = client.read()
            assert found.get("value") == version
            assert answer.tag == f"{SASL2}success", ElementTree.tostring(answer)
            assert answer.find(f"{BIND2}bound") is not None


def test_a_token_is_of_one_device_and_one_account(cluster: RunningCluster, account: Account) -> None:
    token = first_token(cluster, account)
    with connect(cluster, account) as client:
        assert condition(with_token(client, account, token, "", LAPTOP)) == "not-authorized"
        assert condition(with_token(client, cluster.account(), token, "")) == "not-authorized"
        nobody = Account(f"nobody-at-all@{cluster.domain}", "")
        assert condition(with_token(client, nobody, token, "")) == "not-authorized"


def test_a_client_gives_its_token_up(cluster: RunningCluster, account: Account) -> None:
    """XEP-0484, 3.6."""
    token = first_token(cluster, account)
    with connect(cluster, account) as client:
        assert token_in(with_token(client, account, token, "", fast="invalidate='true'")) == ""
    with connect(cluster, account) as client:
        assert condition(with_token(client, account, token, "")) == "not-authorized"


@pytest.mark.parametrize("by", ["user", "operator"])
def test_a_new_password_voids_the_tokens_of_other_devices(cluster: RunningCluster, account: Account, by: str) -> None:
    phones, laptops = first_token(cluster, account), first_token(cluster, account, LAPTOP)
    local = account.jid.partition("@")[0]
    with connect(cluster, account) as client:
        with_token(client, account, phones, BIND)
        if by == "user":
            query = f"<query xmlns='jabber:iq:register'><username>{local}</username><password>new</password></query>"
            assert client.iq("set", query).get("type") == "result"
        else:
            cluster.api.call("PUT", f"/users/{account.jid}/password", {"password": "new"})
    with connect(cluster, account) as client:
        assert condition(with_token(client, account, laptops, "", LAPTOP)) == "not-authorized"
        answer = with_token(client, account, phones, "")
        assert answer.tag == (f"{SASL2}success" if by == "user" else f"{SASL2}failure")


def test_a_device_has_one_session_and_the_same_resource(cluster: RunningCluster, account: Account) -> None:
    """XEP-0386, 3.2."""
    with connect(cluster, account) as first, connect(cluster, account) as second, connect(cluster, account) as other:
        with_password(first, account, PHONE + BIND)
        with_password(other, account, LAPTOP + BIND)
        with_password(second, account, PHONE + BIND.replace("test", "another"))
        assert first.end() == "conflict"
        assert re.fullmatch(r"test/[a-z2-7]{12}", first.jid.partition("/")[2])
        assert second.jid.partition("/")[2] == "another/" + first.jid.rpartition("/")[2]
        other.ping()
        with connect(cluster, account) as third:
            with_password(third, account, PHONE + BIND.replace("test", "another"))
            assert third.jid == second.jid
            assert second.end() == "conflict"


def test_devices_are_listed_and_revoked(cluster: RunningCluster, account: Account) -> None:
    """XEP-0494."""
    token = first_token(cluster, account)
    with connect(cluster, account) as phone, sign_in(cluster, account, "old") as old:
        with_token(phone, account, token, BIND)
        cam = "{urn:xmpp:cam:0}"
        (listed,) = old.iq("get", "<list xmlns='urn:xmpp:cam:0'/>")
        (known,) = [client for client in listed if client.find(f"{cam}auth/{cam}fast") is not None]
        assert known.get("connected") == "true"
        assert known.findtext(f"{cam}user-agent/{cam}device") == "phone"
        revoked = old.iq("set", f"<revoke xmlns='urn:xmpp:cam:0' id='{known.get('id')}'/>")
        # The token was got by the password, before the device was seen with it: only its sessions count.
        assert revoked.get("type") == "result"
        assert phone.end() == "not-authorized"
    with connect(cluster, account) as phone:
        assert condition(with_token(phone, account, token, "")) == "not-authorized"


def test_operators_see_devices_and_log_them_out(cluster: RunningCluster, account: Account) -> None:
    phones, laptops = first_token(cluster, account), first_token(cluster, account, LAPTOP)
    with connect(cluster, account) as phone, connect(cluster, account) as laptop:
        with_token(phone, account, phones, BIND)
        with_token(laptop, account, laptops, BIND, LAPTOP)
        shown = cluster.command("user", "devices", account.jid)
        assert "Test on phone, by token" in shown.stdout
        (line,) = [line for line in shown.stdout.splitlines() if "phone" in line]
        done = cluster.command("user", "logout", account.jid, "--device", line.split()[0])
        assert (done.returncode, done.stdout) == (0, "1 sessions ended\n")
        assert phone.end() == "not-authorized"
        laptop.ping()
        assert cluster.command("user", "logout", account.jid).stdout == "1 sessions ended\n"
        assert laptop.end() == "not-authorized"
    with connect(cluster, account) as laptop:
        assert condition(with_token(laptop, account, laptops, "", LAPTOP)) == "not-authorized"
    assert cluster.command("user", "logout", account.jid, "--device", "x").returncode == 1
    assert cluster.command("user", "devices", f"nobody-at-all@{cluster.domain}").returncode == 1


def test_who_binds_so_finds_what_waited_in_the_archive_and_gets_the_rest(
    cluster: RunningCluster, account: Account
) -> None:
    """XEP-0386, 3.2: "Clear the offline messages"; but what the archive does not have is delivered."""
    with sign_in(cluster, cluster.account()) as juliet:
        juliet.message(account.jid, "kept")
        juliet.send(
            f"<message to='{account.jid}' type='chat' id='n'><body>passing</body>"
            "<no-permanent-store xmlns='urn:xmpp:hints'/></message>"
        )
        juliet.ping()
        with connect(cluster, account) as phone:
            success = with_password(phone, account, PHONE + BIND)
            metadata = success.find(f"{BIND2}bound/{{urn:xmpp:mam:2}}metadata")
            assert metadata is not None
            end = metadata.find("{urn:xmpp:mam:2}end")
            assert end is not None
            page = phone.iq("set", "<query xmlns='urn:xmpp:mam:2' queryid='q'/>")
            assert f'<last xmlns="http://jabber.org/protocol/rsm">{end.get("id")}</last>' in canonical(page)
            phone.send("<presence/>")
            assert phone.body() == "passing"
            juliet.message(account.jid, "later")
            assert phone.body() == "later"
        with sign_in(cluster, account) as old:
            old.ping()
            with pytest.raises(TimeoutError):
                old.body(0.3)


def canonical(element: Element) -> str:
    """Without prefixes that Python makes up."""
    last = element.find(".//{http://jabber.org/protocol/rsm}last")
    return f'<last xmlns="http://jabber.org/protocol/rsm">{last.text}</last>' if last is not None else ""


def test_carbons_are_there_from_the_first_moment(cluster: RunningCluster, account: Account) -> None:
    with (
        connect(cluster, account) as phone,
        sign_in(cluster, account) as old,
        sign_in(cluster, cluster.account()) as juliet,
    ):
        with_password(phone, account, PHONE + BIND)
        juliet.message(old.jid, "to the other")
        assert old.body() == "to the other"
        copy = phone.expect(lambda e: e.find("{urn:xmpp:carbons:2}received") is not None)
        assert "to the other" in ElementTree.tostring(copy, encoding="unicode")


def test_scram_proves_what_was_offered(cluster: RunningCluster, account: Account) -> None:
    """XEP-0474, with the offer of RFC 6120 and with that of XEP-0388."""
    with connect(cluster, account) as client:
        first = b64encode(f"n,,n={account.jid.partition('@')[0]},r=abc".encode()).decode()
        client.send(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-256'>{first}</auth>")
        challenge = client.expect(lambda element: element.tag.endswith("challenge"))
        offered = "\x1e".join(["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"])
        digest = b64encode(hashlib.sha256(offered.encode()).digest()).decode()
        assert b64decode(challenge.text or "").decode().endswith(f",h={digest}")


def test_whom_the_operator_has_banned_learns_why_by_the_right_token_and_password_alone(
    cluster: RunningCluster, account: Account
) -> None:
    token = first_token(cluster, account)
    assert cluster.command("user", "ban", account.jid, "--reason", "Spam").returncode == 0
    with connect(cluster, account) as client:
        assert condition(with_token(client, account, token + "x", "")) == "not-authorized"
        failures = [with_token(client, account, token, "")]
    with connect(cluster, account) as client:
        local = account.jid.partition("@")[0]
        failures.append(say(client, "PLAIN", f"\0{local}\0{account.password}".encode(), PHONE))
    for failure in failures:
        assert condition(failure) == "account-disabled"
        assert failure.findtext(f"{SASL2}text") == "This account is disabled. Reason: Spam"
    assert cluster.command("user", "unban", account.jid).returncode == 0
    with connect(cluster, account) as client:
        assert with_token(client, account, token, "").tag == f"{SASL2}success"
