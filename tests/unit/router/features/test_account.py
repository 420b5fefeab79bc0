"""In-band registration (XEP-0077): signed in, and (through `router/admission.py`) not yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Literal, cast

import pytest

from cluster.shards import ShardMap, shard_of
from cluster.wire import Envelope, Epoch, Incarnation, Shard
from router.admission import Admission
from router.batch import Batch
from router.entity import Session
from router.features import account
from router.features.account import check_new_account, derive_all, registration_form
from router.owner import Loaded, Owner
from router.pipeline import Pipeline
from router.registration import TAKEN, Registration
from router.settings import Settings
from router.turn import Request
from storage import accounts, devices, erasures, invitations
from storage.store import Store
from tests.support.turns import DOMAIN, World, error
from xmpp import ns, scram
from xmpp.errors import (
    BadRequest,
    Conflict,
    Gone,
    ItemNotFound,
    NotAcceptable,
    NotAllowed,
    ServiceUnavailable,
    StanzaError,
    UnexpectedRequest,
)

JULIET, ROMEO, BILL = "juliet@example.com", "romeo@example.com", "bill@example.com"
BAD_REQUEST = error("bad-request", "modify")
NOT_ACCEPTABLE = error("not-acceptable", "modify")
OPEN = Settings(domains=frozenset({DOMAIN}), registration_mode="open", reserved_names=frozenset({"admin"}))


class Scene:
    """Juliet with two sessions."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.world = World(settings)
        self.account = self.world.account(JULIET)
        self.balcony = self.world.online(self.account, "balcony")
        self.chamber = self.world.bind(self.account, "chamber")

    def ask(self, type: str, inner: str, to: str | None = None, session: Session | None = None) -> list[str]:
        session = session or self.balcony
        address = f' to="{to}"' if to else ""
        self.world.say(session, f'<iq{address} type="{type}" id="r"><query xmlns="{ns.REGISTER}">{inner}</query></iq>')
        return self.world.heard(session)

    def is_unchanged(self) -> bool:
        return (self.world.writes, self.world.closed, self.world.reloads) == ([], [], [])


@pytest.fixture
def scene() -> Scene:
    return Scene()


def password(new: str, username: str = "juliet") -> str:
    return f"<username>{username}</username><password>{new}</password>"


def result(session: Session, to: str | None) -> str:
    back = f' from="{to}"' if to else ""
    return f'<iq to="{session.jid}"{back} type="result" id="r"/>'


# --- who is signed in is registered (3.1)


@pytest.mark.parametrize("to", [None, DOMAIN, JULIET])
def test_the_registration_on_file(scene: Scene, to: str | None) -> None:
    (answer,) = scene.ask("get", "", to)
    back = f' from="{to}"' if to else ""
    assert answer.startswith(
        f'<iq to="{scene.balcony.jid}"{back} type="result" id="r"><query xmlns="{ns.REGISTER}"><registered/><instructions>'
    )
    assert answer.endswith("</instructions><username>juliet</username><password/></query></iq>")


# --- passwords that are kept elsewhere

ELSEWHERE = Settings(
    domains=frozenset({DOMAIN}), registration_mode="open", passwords_elsewhere={DOMAIN: "Go to https://id.example.com/"}
)


def test_who_is_registered_elsewhere_is_told_where() -> None:
    scene = Scene(ELSEWHERE)
    (answer,) = scene.ask("get", "")
    assert "<instructions>Go to https://id.example.com/</instructions><username>juliet</username></query>" in answer


def test_a_password_that_is_kept_elsewhere_is_not_changed_here() -> None:
    scene = Scene(ELSEWHERE)
    (answer,) = scene.ask("set", password("R0m30"))
    assert "<not-allowed" in answer
    assert "https://id.example.com/" in answer
    assert scene.is_unchanged()


# --- a new password (3.3)


@pytest.mark.parametrize("to", [None, DOMAIN, JULIET])
def test_a_new_password_is_stored_and_confirmed(scene: Scene, to: str | None) -> None:
    assert scene.ask("set", password("R0m30"), to) == [result(scene.balcony, to)]
    assert [(write.statement, write.arguments) for write in scene.world.writes] == [
        (accounts.set_credentials, (scene.account.key, ("R0m30",))),
        (devices.invalidate_all, (scene.account.key, b"")),  # tokens that were given for the old one are void
    ]
    assert scene.world.closed == [], "sessions live on"


def test_the_username_is_prepared_and_the_password_is_not(scene: Scene) -> None:
    assert scene.ask("set", password(" Ř&amp;😀 ", "JULIET")) == [result(scene.balcony, None)]
    assert scene.world.writes[0].arguments[1] == (" Ř&😀 ",)


@pytest.mark.parametrize(
    ("inner", "condition"),
    [
        ("", BAD_REQUEST),
        ("<username>juliet</username>", BAD_REQUEST),
        ("<password>x</password>", BAD_REQUEST),
        (password(""), BAD_REQUEST),  # "MUST NOT change the password to a null value"
        ("<username>juliet</username><password/>", BAD_REQUEST),
        (password("x", ""), BAD_REQUEST),
        (password("x", "a@b"), BAD_REQUEST),
        (password("x").replace("<password", '<password xmlns="urn:x"'), BAD_REQUEST),
        (password("x", "romeo"), error("not-allowed", "cancel")),
        (password("x" * 1025), NOT_ACCEPTABLE),
        (password("ř" * 513), NOT_ACCEPTABLE),
        (password("a\u0627b"), NOT_ACCEPTABLE),  # RFC 4013, 2.3: right-to-left and left-to-right mixed
        (password("\u00ad"), NOT_ACCEPTABLE),  # nothing is left of it
    ],
)
def test_passwords_that_are_refused(scene: Scene, inner: str, condition: str) -> None:
    (answer,) = scene.ask("set", inner, DOMAIN)
    assert answer.startswith(f'<iq to="{scene.balcony.jid}" from="{DOMAIN}" type="error" id="r">{condition}')
    assert "password>" not in answer, '"SHOULD NOT return the original XML"'
    assert scene.is_unchanged()


def test_credentials_of_each_hash_have_salts_of_their_own() -> None:
    credentials = derive_all("pencil")
    assert {one.hash for one in credentials} == set(scram.HASHES)
    assert all(scram.check_password(one, "pencil") and not scram.check_password(one, "pen") for one in credentials)
    assert len({one.salt for one in credentials}) == len(credentials)


# --- the end of an account (3.2)


@pytest.mark.parametrize("to", [None, DOMAIN, JULIET])
def test_an_account_that_is_cancelled_is_gone(scene: Scene, to: str | None) -> None:
    """3.2: the result, then all its sessions end with <not-authorized/>."""
    assert scene.ask("set", "<remove/>", to) == [result(scene.balcony, to)]
    assert scene.world.closed == [(scene.balcony.jid, "not-authorized"), (scene.chamber.jid, "not-authorized")]
    write, forgotten = scene.world.writes
    others = write.arguments[1:]
    assert write.statement is erasures.begin
    assert others == (JULIET, scene.account.shard, False, "user", scene.world.settings.reuse_after_days)
    assert (forgotten.statement, forgotten.arguments) == (invitations.forget, (JULIET,))
    assert scene.world.reloads == [JULIET]


def test_its_subscriptions_are_cancelled_both_ways(scene: Scene) -> None:
    """3.2: "SHOULD also cancel all existing presence subscriptions related to that entity"."""
    romeo = scene.world.online(scene.world.account(ROMEO), "orchard")
    scene.world.friends(scene.account, romeo.entity)
    scene.ask("set", "<remove/>")
    assert scene.world.heard(romeo) == [
        f'<presence to="{ROMEO}" from="{scene.balcony.jid}" type="unavailable"/>',
    ], "what concerns the roster is for sessions that have asked for it"
    assert romeo.entity.roster.contacts[JULIET].subscription == "none"
    assert scene.account.roster.contacts == {}


@pytest.mark.parametrize(
    "inner", ["<remove/><username>juliet</username>", "<remove/><remove/>", '<remove/><x xmlns="urn:x"/>']
)
def test_remove_stands_alone(scene: Scene, inner: str) -> None:
    (answer,) = scene.ask("set", inner)
    assert BAD_REQUEST in answer
    assert scene.is_unchanged()


@pytest.mark.parametrize("namespace", ["urn:x", "{a}b", "a}", ns.REGISTER + "}"])
def test_another_namespaces_remove_is_none(scene: Scene, namespace: str) -> None:
    (answer,) = scene.ask("set", f'<remove xmlns="{namespace}"/>')
    assert BAD_REQUEST in answer
    assert scene.is_unchanged()


# --- whose account, and where


@pytest.mark.parametrize(
    ("type", "inner"), [("get", ""), ("set", "<remove/>"), ("set", password("x")), ("set", password("x", "romeo"))]
)
def test_another_account_is_none_of_ones_business(scene: Scene, type: str, inner: str) -> None:
    romeo = scene.world.bind(scene.world.account(ROMEO))
    (answer,) = scene.ask(type, inner, JULIET, romeo)
    assert error("service-unavailable", "cancel") in answer
    assert scene.is_unchanged()


@pytest.mark.parametrize(
    ("type", "inner", "condition"),
    [
        ("get", "", error("service-unavailable", "cancel")),
        ("set", "<remove/>", error("registration-required", "auth")),
        ("set", password("x"), error("registration-required", "auth")),
    ],
)
def test_at_another_domain_of_the_server_one_has_no_account(type: str, inner: str, condition: str) -> None:
    scene = Scene(Settings(domains=frozenset({DOMAIN, "example.org"})))
    (answer,) = scene.ask(type, inner, "example.org")
    assert condition in answer
    assert scene.is_unchanged()


# --- new accounts: the rules (3.1)


def test_the_form() -> None:
    form = registration_form(DOMAIN).decode()
    assert form.startswith(f'<query xmlns="{ns.REGISTER}"><instructions>')
    assert "</instructions><username/><password/><x " in form
    assert DOMAIN in form
    assert '<field type="text-private" var="password" label="Password"><required/></field></x></query>' in form


def test_the_form_with_a_question_is_the_only_one() -> None:
    """XEP-0158, 4: the challenge is a hidden field; who cannot do forms shall not think that two elements are enough."""
    form = registration_form(DOMAIN, question=("7-1", "Which colour has <grass>?")).decode()
    assert "</instructions><x " in form
    assert f'<field type="hidden" var="FORM_TYPE"><value>{ns.CAPTCHA}</value></field>' in form
    assert '<field type="hidden" var="challenge"><value>7-1</value></field>' in form
    assert '<field type="text-single" var="qa" label="Which colour has &lt;grass&gt;?"><required/></field>' in form


def test_the_form_of_an_invitation_to_a_name_has_the_name() -> None:
    """XEP-0445, 2.1."""
    form = registration_form(DOMAIN, "juliet").decode()
    assert "<username>juliet</username>" in form
    assert 'label="User name"><value>juliet</value>' in form


def test_a_new_accounts_jid_is_prepared() -> None:
    assert check_new_account(OPEN, DOMAIN, "Bill", "Calliope").bare == "bill@example.com"


@pytest.mark.parametrize(
    ("username", "given", "refusal"),
    [
        ("", "x", NotAcceptable),
        ("bill", "", NotAcceptable),  # "This includes providing an empty password element"
        ("", "", NotAcceptable),
        ("b ill", "x", NotAcceptable),
        ("bill@example.com", "x", NotAcceptable),
        ("bill/x", "x", NotAcceptable),
        ("b" * 1024, "x", NotAcceptable),
        ("bill", "x" * 1025, NotAcceptable),
        ("admin", "x", NotAllowed),
        ("ADMIN", "x", NotAllowed),
        ("\uff21dmin", "x", NotAllowed),  # a full-width A, which preparation maps
    ],
)
def test_accounts_that_nobody_can_make(username: str, given: str, refusal: type[StanzaError]) -> None:
    with pytest.raises(refusal):
        check_new_account(OPEN, DOMAIN, username, given)


# --- new accounts: on the way to the database


class Server:
    """A router that owns Bill's shard: the owner's real core, and a database in memory."""

    def __init__(self, settings: Settings) -> None:
        me = Incarnation("router-1/1")
        self.owner = Owner(me, Pipeline((account.feature,), settings.domains), settings, self, ShardMap())
        self.changed: list[str] = []
        self.erased: set[str] = set()  # names that somebody had
        self.registration = Registration(self.owner, self._derive, self.changed.append, self._read)
        self.admission = Admission(
            cast(Store, SimpleNamespace(run=self.run_statement)),
            self.registration,
            settings,
            b"key",
            self.wall,
            self._ask,
        )
        self.owner.hold(shard_of(BILL), Epoch(1))
        self.keys: dict[str, int] = {}
        self.derived = 0
        self.meanwhile: Callable[[], object] = lambda: None  # happens while a password is hashed
        self._ids = 0

    async def _derive(self, password: str) -> tuple[str, ...]:
        self.derived += 1
        self.meanwhile()
        return (scram.prepare_password(password),)

    async def _read(self, statement: object, bare: str, also_finished: bool) -> bool:
        """Whether the name is kept free."""
        assert statement is erasures.is_reserved
        return also_finished and bare in self.erased

    def ask(self, type: str, **given: str) -> bytes:
        """A stream on which nobody is signed in asks."""

        async def run() -> bytes:
            return await self.admission.answer(DOMAIN, type, given, "192.0.2.1")

        return asyncio.run(run())

    async def _ask(self, *asked: object) -> None:
        raise AssertionError("nobody has invited anybody")

    # the database, as far as it is asked outside turns

    async def run_statement(self, statement: object, *arguments: object) -> bool:
        """Nobody has reserved anything."""
        assert statement is invitations.is_reserved
        return False

    # what an owner needs (router/owner.py, Effects)

    def bits(self, count: int) -> int:
        """None: ids follow each other."""
        return 0

    def look(self, bare: str, epoch: Epoch, key: int, origin: int, above: int) -> None:
        raise AssertionError("nothing is offered again")

    def replay(self, wanted: object) -> None:
        raise AssertionError("nothing is taken over")

    def send(self, to: Incarnation, envelope: Envelope) -> bool:
        raise AssertionError("there is nobody else")

    def commit(self, batch: Batch) -> None:
        for write in batch.writes:
            assert write.statement is accounts.create
            bare, shard, credentials = write.arguments
            assert shard == shard_of(bare)
            assert credentials in (("Calliope",), ())
            self.keys[bare] = len(self.keys) + 1
        self.owner.queue.committed()

    def load(self, bare: str, shard: Shard, epoch: Epoch) -> None:
        self.owner.loaded(bare, epoch, Loaded(self.keys.get(bare), True, ()))

    def run(self, request: Request, token: int) -> None:
        raise AssertionError("nothing takes time")

    def new_id(self) -> int:
        self._ids += 1
        return self._ids

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 0.0


def test_the_form_and_then_an_account() -> None:
    """3.1, examples 1 to 5, on a stream on which nobody is signed in."""
    server = Server(OPEN)
    assert server.ask("get") == registration_form(DOMAIN)
    assert server.keys == {}
    assert server.ask("set", username="Bill", password="Calliope", email="bard@shakespeare.lit") == b""
    assert server.keys == {BILL: 1}
    assert server.changed == [BILL], "what was cached of the name is void"


def test_an_account_that_exists_is_a_conflict() -> None:
    server = Server(OPEN)
    server.ask("set", username="bill", password="Calliope")
    for username in ("bill", "BILL"):
        with pytest.raises(Conflict):
            server.ask("set", username=username, password="m1cro$oft")
    assert server.keys == {BILL: 1}
    assert server.derived == 1, "no password is hashed for a name that is taken"


def test_the_name_of_an_erased_account_is_taken_by_nobody_for_a_while() -> None:
    """What is told is what would be told of any account: whether there was one is nobody's business."""
    server = Server(OPEN)
    server.erased.add(BILL)
    with pytest.raises(Conflict) as refused:
        server.ask("set", username="bill", password="Calliope")
    assert refused.value.text == TAKEN
    with pytest.raises(Gone):
        asyncio.run(server.registration.create(BILL, "Calliope"))
    assert server.keys == {}
    asyncio.run(server.registration.create(BILL, "Calliope", is_reused=True))
    assert server.keys == {BILL: 1}, "operators may give it back to the same person"


def test_of_two_who_want_a_name_at_once_one_gets_it() -> None:
    server = Server(OPEN)

    def another() -> None:
        server.meanwhile = lambda: None
        entity = server.owner.entities[BILL]
        assert entity.is_loaded
        assert not entity.exists
        entity.key = 1

    server.meanwhile = another
    with pytest.raises(Conflict):
        server.ask("set", username="bill", password="Calliope")
    assert server.derived == 1
    assert server.keys == {}


def test_the_administrators_new_password_needs_an_account_before_it_is_hashed() -> None:
    server = Server(OPEN)
    with pytest.raises(ItemNotFound):
        asyncio.run(server.registration.set_password(BILL, "Calliope"))
    assert server.derived == 0
    assert server.changed == []


def test_who_has_not_signed_in_has_nothing_to_remove() -> None:
    """3.2, table: "the IQ get does not contain a 'from' address because the entity is not registered"."""
    server = Server(OPEN)
    with pytest.raises(UnexpectedRequest):
        server.ask("set", remove="", username="bill", password="Calliope")
    assert server.keys == {}


@pytest.mark.parametrize("type", ["result", "error", "", "fetch"])
def test_only_get_and_set_are_requests(type: str) -> None:
    server = Server(OPEN)
    with pytest.raises(BadRequest):
        server.ask(type, username="bill", password="Calliope")
    assert server.keys == {}


@pytest.mark.parametrize(
    "given",
    [{}, {"username": "bill"}, {"password": "x"}, {"username": "bill", "password": ""}],
)
def test_what_is_missing_is_not_acceptable(given: dict[str, str]) -> None:
    """3.1: "MUST return a <not-acceptable/> error"."""
    server = Server(OPEN)
    with pytest.raises(NotAcceptable):
        server.ask("set", **given)
    assert server.keys == {}


def test_an_unusable_password_is_not_acceptable() -> None:
    server = Server(OPEN)
    with pytest.raises(NotAcceptable):
        server.ask("set", username="bill", password="\u00ad")
    assert server.keys == {}


def test_reserved_names_are_nobodys() -> None:
    server = Server(OPEN)
    with pytest.raises(NotAllowed):
        server.ask("set", username="Admin", password="x")
    assert server.keys == {}


@pytest.mark.parametrize(
    ("mode", "refusal"), [("closed", ServiceUnavailable), ("invite", NotAllowed)], ids=["closed", "invite"]
)
def test_nobody_registers_unless_the_operator_says_so(
    mode: Literal["closed", "invite"], refusal: type[StanzaError]
) -> None:
    """3.1: "If the host does not support In-Band Registration, it MUST return a <service-unavailable/> error"."""
    server = Server(Settings(domains=frozenset({DOMAIN}), registration_mode=mode))
    for type, given in (("get", {}), ("set", {"username": "bill", "password": "Calliope"})):
        with pytest.raises(refusal):
            server.ask(type, **given)
    assert server.keys == {}


# --- accounts of a domain whose passwords are kept elsewhere


def test_no_account_is_made_with_a_password_that_is_not_kept_here() -> None:
    server = Server(ELSEWHERE)
    for given in ({}, {"username": "bill", "password": "Calliope"}):
        with pytest.raises(NotAllowed, match="Go to"):
            server.ask("set" if given else "get", **given)
    for act in (server.registration.create, server.registration.set_password):
        with pytest.raises(NotAllowed, match="Go to"):
            asyncio.run(act(BILL, "Calliope"))
    assert server.keys == {}
    assert server.derived == 0


def test_who_comes_from_elsewhere_gets_an_account_once() -> None:
    server = Server(ELSEWHERE)
    for _ in range(2):
        asyncio.run(server.registration.admit(BILL))
    assert server.keys == {BILL: 1}
