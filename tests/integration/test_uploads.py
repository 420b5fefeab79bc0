"""Files by HTTP (XEP-0363): slots, PUT, GET, quotas, expiry and erasure, with real processes and a folder."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha1
from typing import Any, LiteralString
from urllib.parse import urlsplit
from xml.etree import ElementTree

import psycopg
import pytest

from tests.support.client import Client, Element, condition, sign_in
from tests.support.cluster import FACTOR, Account, RunningCluster, start_cluster, wait_until
from tests.support.uploads import NS, PURPOSE, Slot, ask_slot, get, put, request, slot, slot_of

DISCO_INFO = "http://jabber.org/protocol/disco#info"
DISCO_ITEMS = "http://jabber.org/protocol/disco#items"
USER_BYTES = 30_000_000
DAY_BYTES = 25_000_000


@pytest.fixture(scope="module")
def uploading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    options = (
        "upload.file_bytes=20000000", f"upload.bytes_per_user={USER_BYTES}", f"upload.bytes_per_day={DAY_BYTES}",
        "upload.kept_bytes_per_user=20000", "upload.stall_s=2", 'upload.types=["image/*","text/*","video/mp4","application/octet-stream"]',
        'upload.allow=["*","irc.localhost"]', 'components.domains={"irc.localhost":{"secret":"12345678"},"sms.localhost":{"secret":"12345678"}}',
        'authentication.domains={"guests.localhost":{"backend":"anonymous"}}',
    )  # fmt: skip
    sets = [part for option in options for part in ("--set", option)]
    domains = ("--domain", "localhost", "--domain", "guests.localhost")
    running = start_cluster(tmp_path_factory.mktemp("uploading"), "--tls", "optional", *domains, *sets)
    yield running
    assert running.stop() == 0


@pytest.fixture
def romeo(uploading: RunningCluster) -> Iterator[Client]:
    with sign_in(uploading, uploading.account("romeo")) as client:
        yield client


def stored(cluster: RunningCluster) -> set[str]:
    """Every file in the storage, also what is being written."""
    folder = cluster.directory / "uploads"
    return {path.name for path in folder.rglob("*") if path.is_file()}


def metric(cluster: RunningCluster, node: str, name: str, labels: str) -> float:
    found = re.search(rf"^{name}(?:\{{{labels}\}})? (\S+)$", cluster.get(node, "/metrics")[1], re.MULTILINE)
    assert found is not None, name
    return float(found[1])


# --- what there is


def test_a_user_finds_the_service_of_the_own_domain(romeo: Client) -> None:
    items = romeo.iq("get", f"<query xmlns='{DISCO_ITEMS}'/>", romeo.domain)
    found = [item.get("jid") or "" for item in items.iter(f"{{{DISCO_ITEMS}}}item")]
    assert [jid for jid in found if jid.startswith("upload.")] == ["upload.localhost"]
    info = romeo.iq("get", f"<query xmlns='{DISCO_INFO}'/>", "upload.localhost")
    features = {feature.get("var") for feature in info.iter(f"{{{DISCO_INFO}}}feature")}
    assert "urn:xmpp:http:upload:0" in features
    assert {f"{PURPOSE}#{name}" for name in ("message", "profile", "ephemeral", "permanent")} <= features
    fields = {field.get("var"): field.findtext("{jabber:x:data}value") for field in info.iter("{jabber:x:data}field")}
    assert fields == {"FORM_TYPE": "urn:xmpp:http:upload:0", "max-file-size": "20000000"}


def test_one_sends_and_anybody_fetches_from_any_c2s(uploading: RunningCluster, romeo: Client) -> None:
    data = os.urandom(300_000)
    given = slot(romeo, "très cool.jpg", len(data), "image/jpeg")
    assert re.fullmatch(r"http://localhost:\d+/upload/[A-Za-z0-9_-]{60,90}/tr%C3%A8s%20cool\.jpg", given.put)
    assert given.put == given.get
    assert list(given.headers) == ["Authorization"]
    assert get(uploading, given).status == 404
    assert put(uploading, given, data, {"Content-Type": "image/jpeg"}).status == 201
    before = {
        node: metric(uploading, node, "stentor_upload_bytes_total", 'direction="out"') for node in ("c2s-0", "c2s-1")
    }

    def both_have_served() -> bool:
        found = get(uploading, given)
        assert (found.status, found.body) == (200, data)
        return all(
            metric(uploading, node, "stentor_upload_bytes_total", 'direction="out"') > had
            for node, had in before.items()
        )

    wait_until(both_have_served, 20, "both c2s have sent it")


def test_what_does_not_fit_into_a_part_is_streamed(uploading: RunningCluster, romeo: Client) -> None:
    data = os.urandom(12_000_000)
    given = slot(romeo, "big.bin", len(data))
    assert put(uploading, given, data).status == 201
    assert get(uploading, given).body == data


def test_headers_keep_it_inert(uploading: RunningCluster, romeo: Client) -> None:
    given = slot(romeo, "a.png", 5, "image/png")
    assert put(uploading, given, b"bytes").status == 201
    headers = get(uploading, given).headers
    assert headers["content-type"] == "image/png"
    assert headers["content-disposition"] == 'inline; filename="a.png"'
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert headers["access-control-allow-origin"] == "*"
    assert headers["cache-control"] == "private, max-age=604800, immutable"


@pytest.mark.parametrize(
    ("name", "type"),
    [
        ("x.html", "text/html"),
        ("x.svg", "image/svg+xml"),
        ("x.xml", "text/xml"),
        ("x.txt", "text/plain"),
        ("x", None),
    ],
)
def test_a_script_is_never_shown(uploading: RunningCluster, romeo: Client, name: str, type: str | None) -> None:
    script = b"<script>alert(1)</script>"
    given = slot(romeo, name, len(script), type)
    assert put(uploading, given, script).status == 201
    # Whatever the URL or the request says: the type and the name are those of the slot.
    headers = get(uploading, given, {"Accept": "text/html"}).headers
    assert headers["content-type"] == (type or "application/octet-stream")
    assert headers["content-disposition"].startswith("attachment;")
    assert "sandbox" in headers["content-security-policy"]
    other_name = given.get.rpartition("/")[0] + "/other.html"
    assert request(uploading, "GET", other_name).status == 404


def test_pages_of_other_sites_may_do_it(uploading: RunningCluster, romeo: Client) -> None:
    given = slot(romeo, "a.txt", 5, "text/plain")
    asks = {"Origin": "https://chat.example", "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "authorization, content-type"}  # fmt: skip
    preflight = request(uploading, "OPTIONS", given.put, None, asks)
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert {"PUT", "GET", "HEAD", "OPTIONS"} <= set(preflight.headers["access-control-allow-methods"].split(", "))
    assert {"Authorization", "Content-Type"} <= set(preflight.headers["access-control-allow-headers"].split(", "))
    refused = request(uploading, "PUT", given.put, b"12345", {"Origin": "https://chat.example"})
    assert refused.status == 403
    assert refused.headers["access-control-allow-origin"] == "*"


# --- parts, tags


def test_parts_and_tags(uploading: RunningCluster, romeo: Client) -> None:
    data = bytes(range(256)) * 10_000
    given = slot(romeo, "film.mp4", len(data), "video/mp4")
    assert put(uploading, given, data).status == 201
    whole = get(uploading, given)
    tag = whole.headers["etag"]
    assert whole.headers["accept-ranges"] == "bytes"
    part = get(uploading, given, {"Range": "bytes=1000-1999999"})
    assert (part.status, part.body) == (206, data[1000:2_000_000])
    assert part.headers["content-range"] == f"bytes 1000-1999999/{len(data)}"
    assert get(uploading, given, {"Range": "bytes=-10"}).body == data[-10:]
    assert get(uploading, given, {"Range": f"bytes={len(data) - 5}-"}).body == data[-5:]
    beyond = get(uploading, given, {"Range": f"bytes={len(data)}-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")
    assert get(uploading, given, {"Range": "bytes=0-1,5-6"}).status == 200
    assert get(uploading, given, {"If-None-Match": f'"other", {tag}'}).status == 304
    assert get(uploading, given, {"If-None-Match": '"other"'}).status == 200
    assert get(uploading, given, {"Range": "bytes=0-9", "If-Range": tag}).status == 206
    assert get(uploading, given, {"Range": "bytes=0-9", "If-Range": '"other"'}).status == 200
    head = request(uploading, "HEAD", given.get)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(data)))
    assert head.headers["etag"] == tag


# --- what goes wrong while it is put


def raw(cluster: RunningCluster) -> socket.socket:
    return socket.create_connection((cluster.host, cluster.facts["ports"]["http"]), 10 * FACTOR)


def head_of(given: Slot, length: int | str, *more: str) -> bytes:
    lines = [f"PUT {urlsplit(given.put).path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}",
             f"Authorization: {given.headers['Authorization']}", *more]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode()


def test_an_upload_that_breaks_leaves_nothing_and_may_begin_anew(uploading: RunningCluster, romeo: Client) -> None:
    data = os.urandom(8_000_000)
    given = slot(romeo, "broken.bin", len(data))
    before = stored(uploading)
    with raw(uploading) as connection:
        connection.sendall(head_of(given, len(data)) + data[:7_000_000])
        wait_until(lambda: bool(stored(uploading) - before), 10, "a part is written")
        assert get(uploading, given).status == 404
    wait_until(lambda: stored(uploading) == before, 10, "nothing is left of it")
    assert get(uploading, given).status == 404
    assert put(uploading, given, data).status == 201
    assert get(uploading, given).body == data


def test_an_upload_that_stalls_is_ended(uploading: RunningCluster, romeo: Client) -> None:
    given = slot(romeo, "slow.bin", 6_000_000)
    before = stored(uploading)
    with raw(uploading) as connection:
        connection.sendall(head_of(given, 6_000_000) + b"x" * 5_500_000)
        started = time.monotonic()
        answer = connection.recv(1_000)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - started < 8 * FACTOR
    wait_until(lambda: stored(uploading) == before, 10, "nothing is left of it")


def test_the_same_again_is_fine_and_something_else_is_not(uploading: RunningCluster, romeo: Client) -> None:
    data = os.urandom(3_000_000)
    given = slot(romeo, "again.bin", len(data))
    assert put(uploading, given, data).status == 201
    tag = get(uploading, given).headers["etag"]
    assert put(uploading, given, data).status == 201
    other = data[:-1] + bytes([data[-1] ^ 1])
    assert put(uploading, given, other).status == 409
    found = get(uploading, given)
    assert (found.body == data, found.headers["etag"]) == (True, tag)


def test_only_what_the_slot_is_for(uploading: RunningCluster, romeo: Client) -> None:
    given = slot(romeo, "a.txt", 5, "text/plain")
    other = slot(romeo, "b.txt", 5, "text/plain")
    assert put(uploading, given, b"123456").status == 413
    assert put(uploading, given, b"1234").status == 400
    assert put(uploading, given, b"12345", {"Content-Type": "text/html"}).status == 415
    assert put(uploading, given, b"12345", {"Content-Encoding": "gzip"}).status == 415
    assert put(uploading, given, b"12345", {"Content-Range": "bytes 0-4/5"}).status == 400
    assert put(uploading, given._replace(headers={}), b"12345").status == 403
    assert put(uploading, given._replace(headers=other.headers), b"12345").status == 403
    assert put(uploading, given._replace(headers={"Authorization": "Bearer x"}), b"12345").status == 403
    assert (
        put(uploading, given._replace(headers={"Authorization": given.headers["Authorization"][:-1]}), b"12345").status
        == 403
    )
    assert get(uploading, given).status == 404
    assert put(uploading, given, b"12345", {"Content-Type": "text/plain; charset=utf-8"}).status == 201


def test_bodies_that_are_not_what_they_say(uploading: RunningCluster, romeo: Client) -> None:
    given = slot(romeo, "a.txt", 5)
    authorization = f"Authorization: {given.headers['Authorization']}"
    path = urlsplit(given.put).path

    def answer(sent: bytes) -> bytes:
        with raw(uploading) as connection:
            connection.sendall(sent)
            return connection.recv(1_000).partition(b"\r\n")[0]

    chunked = f"PUT {path} HTTP/1.1\r\nHost: x\r\n{authorization}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n"
    assert b" 411 " in answer(chunked.encode())
    both = chunked.replace("Transfer-Encoding", "Content-Length: 5\r\nTransfer-Encoding")
    assert b" 400 " in answer(both.encode())
    assert b" 400 " in answer(head_of(given, 5, "Content-Length: 6") + b"123456")
    assert b" 400 " in answer(head_of(given, "-5") + b"12345")
    assert get(uploading, given).status == 404


def test_who_waits_to_be_asked_for_the_body_is_refused_without_it(uploading: RunningCluster, romeo: Client) -> None:
    given = slot(romeo, "a.txt", 5)
    with raw(uploading) as connection:
        connection.sendall(head_of(given, 6_000_000, "Expect: 100-continue"))
        assert connection.recv(1_000).startswith(b"HTTP/1.1 413 ")
    with raw(uploading) as connection:
        connection.sendall(head_of(given, 5, "Expect: 100-continue"))
        assert connection.recv(1_000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"12345")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 201 ")


def test_made_up_paths_lead_nowhere(uploading: RunningCluster, romeo: Client) -> None:
    given = slot(romeo, "a.txt", 5)
    assert put(uploading, given, b"12345").status == 201
    id_, name = urlsplit(given.get).path.split("/")[2:]
    wrong = [f"/upload/{id_}/b.txt", f"/upload/{id_}", f"/upload/{id_}/", f"/upload/{id_}=/{name}", f"/upload/{id_}/{name}/",
             f"/upload/{id_[:-2]}AA/{name}", f"/upload/..%2f..%2f{id_}/{name}", f"/upload/{'A' * 64}/{name}",
             f"/upload/{id_}/..%2f{name}", "/upload/../run.json/x", f"/upload/%2e%2e/{name}", f"/upload/{id_}/%ff", f"/upload/{id_}/%00",
             f"/upload/{'A' * 5000}/{name}"]  # fmt: skip
    for path in wrong:
        with raw(uploading) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert b" 404 " in connection.recv(1_000).partition(b"\r\n")[0], path


# --- what is refused a slot


def error_of(answer: Element) -> Element:
    error = answer.find("{jabber:client}error")
    assert error is not None
    return error


def test_what_there_is_no_slot_for(romeo: Client) -> None:
    large = ask_slot(romeo, size=20_000_001)
    assert (condition(large), error_of(large).get("type")) == ("not-acceptable", "modify")
    assert error_of(large).findtext(f"{NS}file-too-large/{NS}max-file-size") == "20000000"
    assert condition(ask_slot(romeo, type="application/zip")) == "not-acceptable"
    for wrong in (
        {"size": 0},
        {"size": -1},
        {"name": ""},
        {"type": "no type"},
        {"inner": f"<other xmlns='{PURPOSE}'/>"},
    ):
        assert condition(ask_slot(romeo, **wrong)) == "bad-request", wrong
    assert condition(ask_slot(romeo, name="..")) == "not-acceptable"
    other = ask_slot(romeo, service="upload.guests.localhost")
    assert (condition(other), error_of(other).get("type")) == ("forbidden", "auth")
    assert condition(romeo.iq("set", f"<request xmlns='{NS[1:-1]}'/>", "upload.localhost")) == "feature-not-implemented"


def test_names_lose_what_is_dangerous(romeo: Client) -> None:
    def name_of(given: str) -> str:
        return slot(romeo, given).get.rpartition("/")[2]

    assert name_of("../../etc/passwd") == "passwd"
    assert name_of("C:\\x\\a.txt") == "a.txt"
    assert name_of("\u202egnp.exe") == "gnp.exe"
    assert name_of('a"b&<c>.txt') == "a%22b%26%3Cc%3E.txt"
    assert name_of("100%.txt") == "100%25.txt"


def test_nothing_comes_of_other_stanzas(romeo: Client) -> None:
    romeo.send("<message to='upload.localhost' id='m1'><body>x</body></message>")
    assert condition(romeo.expect(lambda e: e.get("id") == "m1")) == "service-unavailable"
    assert (
        condition(romeo.iq("get", f"<query xmlns='{DISCO_INFO}'/>", "somebody@upload.localhost"))
        == "service-unavailable"
    )


def test_guests_may_not(uploading: RunningCluster) -> None:
    with Client(uploading, domain="guests.localhost") as guest:
        guest.open()
        guest.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>")
        guest.expect(lambda element: element.tag.endswith("success"))
        guest.open()
        guest.bind()
        items = guest.iq("get", f"<query xmlns='{DISCO_ITEMS}'/>", "guests.localhost")
        assert not [
            item for item in items.iter(f"{{{DISCO_ITEMS}}}item") if (item.get("jid") or "").startswith("upload.")
        ]
        assert condition(ask_slot(guest)) == "forbidden"


class Component:
    """A gateway, as it asks for a slot."""

    def __init__(self, cluster: RunningCluster, domain: str) -> None:
        self.domain = domain
        self.socket = socket.create_connection((cluster.host, cluster.facts["ports"]["component"]), 10 * FACTOR)
        self.socket.settimeout(10 * FACTOR)
        header = f"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='{domain}'>"
        id_ = re.search(rb"id=[\"']([^\"']+)", self.say(header, b">"))
        assert id_ is not None
        secret = sha1(id_[1] + b"12345678").hexdigest()
        self.say(f"<handshake>{secret}</handshake>", b"handshake")

    def say(self, text: str, until: bytes) -> bytes:
        self.socket.sendall(text.encode())
        heard = b""
        while until not in heard or not heard.endswith(b">"):
            heard += self.socket.recv(10_000)
        return heard

    def ask_slot(self) -> Element:
        """`from` is the gateway itself."""
        request = f"<request xmlns='{NS[1:-1]}' filename='a.bin' size='5'/>"
        iq = f"<iq type='get' id='s1' from='{self.domain}' to='upload.localhost'>{request}</iq>"
        heard = self.say(iq, b"</iq>").decode().replace("<iq ", "<iq xmlns='jabber:client' ", 1)
        return ElementTree.fromstring(heard[heard.index("<iq") :])


def test_a_component_may_if_it_is_named(uploading: RunningCluster) -> None:
    irc = Component(uploading, "irc.localhost")
    with irc.socket:
        given = slot_of(irc.ask_slot())
        assert put(uploading, given, b"12345").status == 201
        assert get(uploading, given).body == b"12345"
    sms = Component(uploading, "sms.localhost")
    with sms.socket:
        assert condition(sms.ask_slot()) == "forbidden"


# --- quotas


def test_a_day_has_a_limit_and_the_answer_says_when_it_is_over(romeo: Client) -> None:
    slot(romeo, size=20_000_000)
    refused = ask_slot(romeo, size=5_000_001)
    error = error_of(refused)
    assert (condition(refused), error.get("type")) == ("resource-constraint", "wait")
    retry = error.find(f"{NS}retry")
    assert retry is not None
    tomorrow = time.strftime("%Y-%m-%d", time.gmtime(time.time() + 86_400))
    assert retry.get("stamp") == f"{tomorrow}T00:00:00.000Z"
    slot(romeo, size=5_000_000)  # the last byte of it


def test_what_is_kept_for_good_counts_apart(uploading: RunningCluster, romeo: Client) -> None:
    kept = slot(romeo, "me.png", 15_000, "image/png", f"<profile xmlns='{PURPOSE}'/>")
    assert put(uploading, kept, b"x" * 15_000).status == 201
    assert get(uploading, kept).headers["cache-control"].startswith("private, max-age=604800")
    refused = ask_slot(romeo, "you.png", 5_001, "image/png", f"<permanent xmlns='{PURPOSE}'/>")
    assert condition(refused) == "resource-constraint"
    assert error_of(refused).find(f"{NS}retry") is None
    too_large = ask_slot(romeo, "all.png", 20_001, "image/png", f"<profile xmlns='{PURPOSE}'/>")
    assert error_of(too_large).findtext(f"{NS}file-too-large/{NS}max-file-size") == "20000"


def moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


def test_a_file_that_is_to_be_gone_is_gone(uploading: RunningCluster, romeo: Client) -> None:
    assert condition(ask_slot(romeo, inner=f"<ephemeral xmlns='{PURPOSE}'/>")) == "bad-request"
    past = ask_slot(romeo, inner=f"<ephemeral xmlns='{PURPOSE}' expire-before='{moment(-5)}'/>")
    assert condition(past) == "bad-request"
    given = slot(romeo, inner=f"<ephemeral xmlns='{PURPOSE}' expire-before='{moment(4)}'/>")
    assert put(uploading, given, b"12345").status == 201
    assert get(uploading, given).status == 200
    wait_until(lambda: get(uploading, given).status == 410, 10, "it has expired")


# --- what becomes of slots and files


def sql(cluster: RunningCluster, statement: LiteralString, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(cluster.facts["database_url"], autocommit=True) as conn:
        cursor = conn.execute(statement, values)
        return cursor.fetchall() if cursor.description is not None else []


def usage(cluster: RunningCluster, client: Client) -> tuple[int, int, int]:
    """Files, their bytes, bytes of today."""
    (found,) = sql(
        cluster,
        "select files, bytes, day_bytes from upload_usage u join entities e on e.key = u.owner where jid = %s",
        client.bare,
    )
    return int(found[0]), int(found[1]), int(found[2])


def hurry(cluster: RunningCluster, client: Client) -> None:
    """What is to be done about the files of an account is due now."""
    sql(
        cluster,
        "update uploads set due_at = now() where owner = (select key from entities where jid = %s)",
        client.bare,
    )


def test_a_slot_that_nobody_has_used_gives_its_room_back(uploading: RunningCluster, romeo: Client) -> None:
    used, unused = slot(romeo, "used.bin", 100_000), slot(romeo, "unused.bin", 19_000_000)
    assert put(uploading, used, b"x" * 100_000).status == 201
    assert usage(uploading, romeo) == (2, 19_100_000, 19_100_000)
    assert condition(ask_slot(romeo, size=10_000_000)) == "resource-constraint"
    hurry(uploading, romeo)
    wait_until(lambda: usage(uploading, romeo) == (1, 100_000, 100_000), 20, "there is room again")
    assert sql(uploading, "select state from uploads where id = %s", object_of(used)) == [("stored",)]
    assert sql(uploading, "select state from uploads where id = %s", object_of(unused)) == []
    slot(romeo, size=10_000_000)
    assert get(uploading, used).status == 200


def object_of(given: Slot) -> bytes:
    return urlsafe_b64decode(urlsplit(given.get).path.split("/")[2][:24])[:16]


def test_files_go_when_their_time_is_over(uploading: RunningCluster, romeo: Client) -> None:
    given = slot(romeo, "old.bin", 5)
    assert put(uploading, given, b"12345").status == 201
    name = object_of(given).hex()
    assert name in stored(uploading)
    hurry(uploading, romeo)  # it is seen to be used
    wait_until(
        lambda: sql(uploading, "select state from uploads where id = %s", object_of(given)) == [("stored",)],
        20,
        "it is settled",
    )
    (due,) = sql(uploading, "select due_at - granted_at from uploads where id = %s", object_of(given))[0]
    assert abs(due - timedelta(days=30)) < timedelta(seconds=5)
    hurry(uploading, romeo)  # 30 days later
    wait_until(lambda: name not in stored(uploading), 20, "it is deleted")
    assert get(uploading, given).status == 404
    wait_until(lambda: usage(uploading, romeo) == (0, 0, 4_096), 10, "it does not count any more")


def test_what_a_process_that_died_was_writing_is_swept_away(uploading: RunningCluster, romeo: Client) -> None:
    given = slot(romeo, "half.bin", 8_000_000)
    before = stored(uploading)
    name = object_of(given).hex()
    with raw(uploading) as connection:
        connection.sendall(head_of(given, 8_000_000) + b"x" * 7_000_000)
        wait_until(lambda: bool(stored(uploading) - before), 10, "a part is written")
        writing = {
            node: metric(uploading, node, "stentor_upload_transfers", 'direction="in"') for node in ("c2s-0", "c2s-1")
        }
        (node,) = [node for node, count in writing.items() if count]
        pid = uploading.kill(node)
    uploading.wait_restarted(node, pid)
    assert {left for left in stored(uploading) if left.startswith(name)}
    with sign_in(uploading, Account(romeo.bare, "secret")) as again:
        hurry(uploading, again)
        wait_until(lambda: not {left for left in stored(uploading) if left.startswith(name)}, 20, "it is gone")


def test_a_drain_waits_for_an_upload(uploading: RunningCluster, romeo: Client) -> None:
    data = os.urandom(7_000_000)
    given = slot(romeo, "last.bin", len(data))
    with raw(uploading) as connection:
        connection.sendall(head_of(given, len(data)) + data[:6_000_000])

        def where() -> list[str]:
            nodes = ("c2s-0", "c2s-1")
            return [node for node in nodes if metric(uploading, node, "stentor_upload_transfers", 'direction="in"')]

        wait_until(lambda: len(where()) == 1, 10, "it is under way")
        (node,) = where()
        pid = uploading.kill(node, signal.SIGTERM)
        wait_until(lambda: metric(uploading, node, "stentor_draining", "") == 1, 10, "it drains")
        connection.sendall(data[6_000_000:])
        assert connection.recv(1_000).startswith(b"HTTP/1.1 201 ")
    uploading.wait_restarted(node, pid)
    assert get(uploading, given).body == data


def test_an_account_that_is_erased_takes_its_files_with_it(uploading: RunningCluster) -> None:
    account = uploading.account("leaving")
    before = stored(uploading)
    with sign_in(uploading, account) as client:
        slots = [slot(client, f"{n}.bin", 5) for n in range(3)]
        for given in slots[:2]:
            assert put(uploading, given, b"12345").status == 201
    assert len(stored(uploading) - before) == 2
    erasure = uploading.api.call("POST", "/erasures", {"jid": account.jid})

    def is_finished() -> bool:
        found = uploading.api.call("GET", f"/erasures/{erasure['id']}")
        return bool(found["is_finished"]) and found["removed"].get("uploads") == 3

    wait_until(is_finished, 20, "the account is erased, with its files")
    assert get(uploading, slots[0]).status == 404
