"""Slots for files (XEP-0363): who gets one, what it says, what is said where there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from lxml import etree

from router.feature import At
from router.features import upload as feature
from router.settings import Settings, Uploads
from router.uploading import services_for
from storage import uploads
from storage.restrictions import Restriction
from storage.uploads import Draft, Quota, Verdict
from tests.support.turns import NOW, PLAIN, World, error
from xmpp import ns, upload
from xmpp.upload import Permit

KEY = b"k" * 32
GRANTED = Verdict(KEY)
HTTP = ns.HTTP_UPLOAD
PURPOSE = ns.HTTP_UPLOAD_PURPOSE
SERVICE = "upload.example.com"
OFFERED = Uploads(
    {"example.com": SERVICE},
    "https://{domain}",
    file_bytes=10_000,
    day_bytes=50_000,
    types=("image/*", "application/octet-stream"),
)


def settings(**changes: Any) -> Settings:
    return replace(PLAIN, uploads=replace(OFFERED, **changes), upload_domains=frozenset({SERVICE}))


class Asking:
    """Romeo asks; the database says `verdict` and remembers what it was asked."""

    def __init__(self, offered: Settings | None = None, verdict: Verdict = GRANTED) -> None:
        self.world = World(offered or settings())
        self.asked: list[tuple[Draft, Quota]] = []

        def grant(draft: Draft, quota: Quota) -> Verdict:
            self.asked.append((draft, quota))
            return verdict

        self.world.database[uploads.grant] = grant
        self.romeo = self.world.account("romeo@example.com")
        self.session = self.world.online(self.romeo)

    def iq(self, payload: str, to: str = SERVICE, type: str = "get") -> etree._Element:
        self.world.heard(self.session)
        self.world.say(self.session, f"<iq type='{type}' id='x' to='{to}'>{payload}</iq>")
        (answer,) = self.world.heard(self.session)
        return etree.fromstring(answer)

    def slot(
        self, size: str = "5000", name: str = "a.png", type: str = " content-type='image/png'", inner: str = ""
    ) -> etree._Element:
        return self.iq(f"<request xmlns='{HTTP}' filename='{name}' size='{size}'{type}>{inner}</request>")


def text(answer: etree._Element) -> str:
    return etree.tostring(answer).decode()


def test_a_slot_is_signed_and_says_what_was_asked_for() -> None:
    asking = Asking()
    answer = asking.slot(name="tr\u00e8s cool.png")
    assert (answer.get("type"), answer.get("from")) == ("result", SERVICE)
    put, get = answer.find(f"{{{HTTP}}}slot/{{{HTTP}}}put"), answer.find(f"{{{HTTP}}}slot/{{{HTTP}}}get")
    assert put is not None
    assert get is not None
    url = get.get("url") or ""
    assert put.get("url") == url
    assert url.startswith("https://example.com/upload/")
    id_, name = urlsplit(url).path.split("/")[2:]
    file = upload.parse(KEY, id_, unquote(name))
    assert file is not None
    assert tuple(file)[1:] == ("tr\u00e8s cool.png", 5_000, "image/png", int(NOW + OFFERED.expire_s))
    (header,) = put
    assert header.get("name") == "Authorization"
    token = (header.text or "").removeprefix("Bearer ")
    permit = upload.permitted(KEY, file, token)
    assert permit == Permit("example.com", upload.account_tag("romeo@example.com"), int(NOW) + 300, int(NOW) + 301)
    ((draft, quota),) = asking.asked
    assert asking.romeo.key is not None
    expires_at = NOW + OFFERED.expire_s
    assert draft == Draft(file.object, asking.romeo.key, 5_000, False, "image/png", 361, expires_at)
    assert quota == Quota(OFFERED.user_bytes, OFFERED.kept_bytes, 50_000)


def test_no_two_files_have_one_place() -> None:
    asking = Asking()
    for _ in range(3):
        asking.slot()
    assert len({draft.id for draft, _ in asking.asked}) == 3


def test_the_slot_is_over_after_the_upload_can_be() -> None:
    """What the row waits for ends later than what the permit permits."""
    asking = Asking(settings(slowest_bytes_per_s=10))
    answer = asking.slot()
    token = (answer.findtext(f".//{{{HTTP}}}header") or "").removeprefix("Bearer ")
    ((draft, _),) = asking.asked
    file = upload.File(draft.id, "a.png", 5_000, "image/png", int(NOW + OFFERED.expire_s))
    permit = upload.permitted(KEY, file, token)
    assert permit is not None
    assert permit.end == NOW + 300 + 501
    assert draft.settle_s == 300 + 501 + feature.SLACK_S


@pytest.mark.parametrize(
    "request_",
    [
        {"size": "0"}, {"size": "-1"}, {"size": "1.5"}, {"size": ""}, {"size": "\u0663"}, {"size": "9" * 30}, {"name": ""},
        {"type": " content-type='x'"}, {"type": " content-type='a/b/c'"}, {"inner": f"<other xmlns='{PURPOSE}'/>"},
        {"inner": f"<profile xmlns='{PURPOSE}'/><message xmlns='{PURPOSE}'/>"},
        {"inner": f"<ephemeral xmlns='{PURPOSE}'/>"}, {"inner": f"<ephemeral xmlns='{PURPOSE}' expire-before='tomorrow'/>"},
        {"inner": f"<ephemeral xmlns='{PURPOSE}' expire-before='2027-01-15T07:59:59Z'/>"},
    ],
)  # fmt: skip
def test_what_is_no_request(request_: dict[str, str]) -> None:
    asking = Asking()
    assert error("bad-request", "modify") in text(asking.slot(**request_))
    assert asking.asked == []


def test_too_large_and_of_a_wrong_type() -> None:
    asking = Asking()
    answer = text(asking.slot("10001"))
    assert error("not-acceptable", "modify") in answer
    assert f'<file-too-large xmlns="{HTTP}"><max-file-size>10000</max-file-size></file-too-large>' in answer
    assert error("not-acceptable", "modify") in text(asking.slot(type=" content-type='text/html'"))
    assert asking.asked == []
    asking.slot(type="")
    assert len(asking.asked) == 1


def test_no_room() -> None:
    answer = text(Asking(verdict=Verdict(None, 0, 0, 49_000)).slot())
    assert error("resource-constraint", "wait") in answer
    assert f'<retry xmlns="{HTTP}" stamp="2027-01-16T00:00:00.000Z"/>' in answer


def test_purposes() -> None:
    asking = Asking()
    asking.slot(inner=f"<profile xmlns='{PURPOSE}'/>")
    asking.slot(inner=f"<permanent xmlns='{PURPOSE}'/>")
    asking.slot(inner=f"<message xmlns='{PURPOSE}'/>")
    asking.slot(inner=f"<ephemeral xmlns='{PURPOSE}' expire-before='2027-01-15T08:01:00+00:00'/>")
    assert [(draft.is_kept, draft.expires_at) for draft, _ in asking.asked] == [
        (True, None), (True, None), (False, NOW + OFFERED.expire_s), (False, NOW + 60),
    ]  # fmt: skip


# --- who may


def features(asking: Asking) -> set[str]:
    answer = asking.iq(f"<query xmlns='{ns.DISCO_INFO}'/>")
    return {feature.get("var") or "" for feature in answer.iter("{*}feature")}


def is_listed(asking: Asking) -> bool:
    answer = asking.iq(f"<query xmlns='{ns.DISCO_ITEMS}'/>", "example.com")
    return SERVICE in [item.get("jid") for item in answer.iter("{*}item")]


def test_what_the_service_is() -> None:
    asking = Asking()
    assert HTTP in features(asking)
    assert is_listed(asking)
    answer = text(asking.iq(f"<query xmlns='{ns.DISCO_INFO}'/>"))
    assert '<identity category="store" type="file" name="HTTP File Upload"/>' in answer
    assert '<field var="max-file-size"><value>10000</value></field>' in answer
    assert not any(name.endswith(("profile", "permanent")) for name in features(Asking(settings(kept_bytes=0))))
    assert error("item-not-found", "cancel") in text(asking.iq(f"<query xmlns='{ns.DISCO_INFO}' node='x'/>"))
    assert asking.iq(f"<ping xmlns='{ns.PING}'/>").get("type") == "result"


@pytest.mark.parametrize("allow", [{"*"}, {"example.com"}, {"romeo@example.com", "juliet@example.com"}])
def test_whom_the_operator_allows(allow: set[str]) -> None:
    asking = Asking(settings(allow=frozenset(allow)))
    assert is_listed(asking)
    assert asking.slot().get("type") == "result"


@pytest.mark.parametrize("allow", [set(), {"juliet@example.com"}, {"example.net"}])
def test_whom_the_operator_does_not_allow(allow: set[str]) -> None:
    asking = Asking(settings(allow=frozenset(allow)))
    assert not is_listed(asking)
    assert error("forbidden", "auth") in text(asking.slot())
    assert error("forbidden", "auth") in text(asking.iq(f"<query xmlns='{ns.DISCO_INFO}'/>"))
    assert asking.asked == []


def test_guests_only_by_the_name_of_their_domain() -> None:
    for allow, may in (({"*"}, False), ({"example.com"}, True)):
        asking = Asking(settings(allow=frozenset(allow)))
        asking.romeo.data["restrictions"] = {"guest": Restriction("guest", "", "", NOW, None)}
        assert is_listed(asking) is may
        assert (asking.slot().get("type") == "result") is may


def test_without_a_storage_there_is_no_service() -> None:
    asking = Asking(PLAIN)
    assert not is_listed(asking)


def test_a_component_that_is_named_may() -> None:
    """As gateways do: the domain itself asks."""
    world = World(settings())
    component = world.nobody("irc.example.org")
    component.key = 7
    component.is_peer = True
    known = replace(world.settings, components={"irc.example.org": object()})  # type: ignore[dict-item]  # only its name counts
    assert services_for(known, component) == {}
    named = replace(OFFERED, allow=frozenset({"*", "irc.example.org"}))
    assert services_for(replace(known, uploads=named), component) == {SERVICE: "example.com"}
    assert services_for(replace(world.settings, uploads=named), component) == {}, "another server of that name"


def test_every_answer_is_at_the_service() -> None:
    """No handler of this feature can be reached by other servers, or by way of an account."""
    assert {at for at, _, _ in feature.feature.iq_handlers} == {At.UPLOAD}
