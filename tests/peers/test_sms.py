"""The SMS gateway between Prosody, with slixmpp as its users' client, and a short message centre on npm's smpp; kannel is
a second client of that centre."""

from __future__ import annotations

import itertools
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.peers.sms.programs import HOST, Gateway, Kannel, Prosody, Smsc, Stentor
from tests.peers.sms.user import GATEWAY, Refused, User
from tests.support.cluster import FACTOR, wait_until

NURSE = "+491701234567"
OURS = "4915550000"
ACCOUNTS: dict[str, Any] = {"stentor": {"password": "p"}}
XMPP_QUEUE = 'stentor_sms_queue{for="xmpp"}'
SMSC_QUEUE = 'stentor_sms_queue{for="smsc"}'

_names = itertools.count(1)


@pytest.fixture(scope="module")
def prosody(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prosody]:
    with Prosody(tmp_path_factory.mktemp("prosody")) as server:
        yield server


class Setup:
    """What one test runs; everything is ended after it."""

    def __init__(self, directory: Path, prosody: Prosody | Stentor, stack: ExitStack) -> None:
        self.directory, self.prosody, self._stack = directory, prosody, stack
        self._port: int | None = None

    def smsc(self, **settings: Any) -> Smsc:
        """A short message centre; the next one has the port of the last."""
        accounts = settings.pop("accounts", ACCOUNTS)
        smsc = self._stack.enter_context(Smsc(self.directory, accounts, self._port, **settings))
        self._port = smsc.port
        return smsc

    def gateway(self, *settings: str, ready: bool = True) -> Gateway:
        """A gateway, with the book of the last one."""
        assert self._port is not None
        gateway = Gateway(self.directory, self.prosody.component, self._port, *settings)
        self._stack.enter_context(gateway)
        if ready:
            gateway.wait_ready()
        return gateway

    def user(self, registers: bool = True) -> User:
        """A user of Prosody, registered with the gateway."""
        name = f"user{next(_names)}"
        self.prosody.add_user(name)
        user = self._stack.enter_context(User(name, self.prosody.c2s))
        if registers:
            user.register()
            user.presence(GATEWAY)
        return user

    def kannel(self, smsc: Smsc) -> Kannel:
        """kannel, bound to the centre."""
        kannel = self._stack.enter_context(Kannel(self.directory, smsc.port))
        smsc.event("bind", system_id="kannel", status=0)
        return kannel


@pytest.fixture
def setup(tmp_path: Path, prosody: Prosody) -> Iterator[Setup]:
    with ExitStack() as stack:
        yield Setup(tmp_path, prosody, stack)


def wait_for_queue(gateway: Gateway, sample: str, count: int) -> None:
    wait_until(lambda: gateway.metric(sample) == count, 20, f"{sample} is {count}")


# --- gateway interaction (XEP-0100)


def test_a_user_finds_the_gateway_registers_and_leaves(setup: Setup) -> None:
    setup.smsc()
    setup.gateway('numbers.pool=["+4915550001", "+4915550002"]')
    user = setup.user(registers=False)
    identities, features = user.info(GATEWAY)
    assert identities == {("gateway", "sms")}
    assert {"jabber:iq:register", "jabber:iq:gateway"} <= features
    assert "registered" not in user.registration()
    with pytest.raises(Refused, match="not-acceptable"):
        user.register("+4930000000")
    user.register("+4915550002")
    assert {"registered": "", "phone": "+4915550002"}.items() <= user.registration().items()
    user.presence(GATEWAY, "subscribe")
    user.presence(GATEWAY)
    assert user.ask_address("0170 1234567") == f"{NURSE}@{GATEWAY}"
    user.subscribe(f"{NURSE}@{GATEWAY}")
    user.presence(f"{NURSE}@{GATEWAY}", "subscribed")
    user.presence(f"{NURSE}@{GATEWAY}")
    assert user.items() == {f"{NURSE}@{GATEWAY}"}
    assert user.info(f"{NURSE}@{GATEWAY}")[0] == {("client", "sms")}
    user.unregister()
    user.presence(f"{NURSE}@{GATEWAY}", "unsubscribed")
    user.presence(f"{NURSE}@{GATEWAY}", "unavailable")
    user.presence(GATEWAY, "unavailable")
    assert "registered" not in user.registration()
    assert user.error(user.message(NURSE, "hello")).error == "registration-required"


def test_numbers_come_and_go_with_the_user_and_the_gateway(setup: Setup) -> None:
    setup.smsc()
    gateway = setup.gateway()
    user = setup.user()
    number = f"{NURSE}@{GATEWAY}"
    user.subscribe(number)
    user.presence(number)
    user.send_presence("unavailable")
    user.send_presence()
    user.presence(GATEWAY)
    user.presence(number)
    assert gateway.stop() == 0
    user.presence(GATEWAY, "unavailable")
    user.presence(number, "unavailable")
    setup.gateway()
    user.presence(GATEWAY)
    user.presence(number)


# --- messages


TEXTS = ("hello", "Grüße aus Verona: [€] {~} ^\\|", "薔薇", "🌹 <&>", "two\nlines")


def test_texts_of_any_alphabet_both_ways(setup: Setup) -> None:
    smsc = setup.smsc()
    setup.gateway()
    user = setup.user()
    for text in TEXTS:
        user.message(NURSE, text)
        submit = smsc.event("submit")
        assert submit["text"] == text
        assert (submit["destination"], submit["destination_ton"], submit["source"]) == (NURSE[1:], 1, OURS)
        assert submit["data_coding"] == (0 if text in (TEXTS[0], TEXTS[1], TEXTS[4]) else 8)
        assert submit["udh"] == []
        for coding in (0, 8) if submit["data_coding"] == 0 else (8,):
            smsc.deliver("stentor", NURSE[1:], OURS, text, data_coding=coding, tag=text)
            assert smsc.event("delivered", tag=text)["status"] == 0
            assert user.body(NURSE) == text
    smsc.deliver("stentor", NURSE[1:], OURS, hex=b"Gr\xfc\xdfe".hex(), data_coding=3)
    assert user.body(NURSE) == "Grüße"
    user.type_to(NURSE)
    user.message(NURSE, "the last one")
    assert smsc.event("submit")["text"] == "the last one"


@pytest.mark.parametrize(
    ("text", "sizes"), [("Wherefore art thou? " * 20, [153, 153, 94]), ("🌹" * 100, [66, 66, 66, 2])]
)
def test_long_texts_both_ways(setup: Setup, text: str, sizes: list[int]) -> None:
    smsc = setup.smsc()
    setup.gateway()
    user = setup.user()
    user.message(NURSE, text)
    submits = [smsc.event("submit") for _ in sizes]
    assert "".join(submit["text"] for submit in submits) == text
    assert [len(submit["text"].encode("utf-16-be")) // 2 for submit in submits] == sizes
    elements = [bytes.fromhex(submit["udh"][0]) for submit in submits]
    assert [element[:2] + element[3:] for element in elements] == [
        bytes([0, 3, len(sizes), number]) for number in range(1, len(sizes) + 1)
    ]
    assert len({element[2] for element in elements}) == 1
    # Back again, the last part first; then by SAR parameters, and as one message_payload.
    for submit, element in reversed(list(zip(submits, elements, strict=True))):
        header = bytes([len(element)]) + element
        smsc.deliver("stentor", NURSE[1:], OURS, submit["text"], udh=header.hex(), data_coding=submit["data_coding"])
    assert user.body(NURSE) == text
    for number, submit in enumerate(submits, 1):
        sar = [7, len(submits), number]
        smsc.deliver("stentor", NURSE[1:], OURS, submit["text"], sar=sar, data_coding=submit["data_coding"])
    assert user.body(NURSE) == text
    smsc.deliver("stentor", NURSE[1:], OURS, text, payload=True, data_coding=submits[0]["data_coding"])
    assert user.body(NURSE) == text


def test_a_receipt_comes_with_the_report_and_an_error_with_a_bad_one(setup: Setup) -> None:
    smsc = setup.smsc()
    gateway = setup.gateway()
    user = setup.user()
    good, bad = user.message(NURSE, "good " * 50), user.message(NURSE, "bad")
    first, second, third = (smsc.event("submit") for _ in range(3))
    assert user.messages.left() == []
    for submit, stat in ((second, "DELIVRD"), (third, "UNDELIV"), (first, "DELIVRD")):
        smsc.order("report", account="stentor", id=submit["id"], stat=stat, source=NURSE[1:], destination=OURS)
        assert smsc.event("delivered", tag=f"report {submit['id']}")["status"] == 0
    assert user.error(bad).error == "recipient-unavailable"
    user.receipt(good)
    wait_for_queue(gateway, XMPP_QUEUE, 0)  # Prosody has confirmed them
    assert user.messages.left() == []


def test_a_number_that_does_not_exist_is_an_error(setup: Setup) -> None:
    smsc = setup.smsc()
    setup.gateway()
    user = setup.user()
    smsc.order("refuse", statuses=[0x0B])
    assert user.error(user.message(NURSE, "hello")).error == "item-not-found"
    assert user.error(user.message("nurse", "hello")).error == "item-not-found"


def test_numbers_of_ones_own_and_nobodys(setup: Setup) -> None:
    smsc = setup.smsc()
    user, reception = setup.user(registers=False), setup.user(registers=False)
    setup.gateway(f'numbers.assigned={{"+4930111111": "{user.bare}"}}', f"numbers.default_jid={reception.bare}")
    user.register()
    user.message(NURSE, "hello")
    assert smsc.event("submit")["source"] == "4930111111"
    smsc.deliver("stentor", "491709999999", "4930111111", "to the user")
    assert user.body("+491709999999") == "to the user"
    smsc.deliver("stentor", "491709999999", OURS, "to whom it concerns")
    assert reception.body("+491709999999") == "to whom it concerns"


# --- links that break


def test_nothing_is_lost_when_the_smsc_dies_in_mid_flow(setup: Setup) -> None:
    """What it had answered is not sent again; what it had read and not answered is, because nobody can know."""
    smsc = setup.smsc()
    gateway = setup.gateway("smpp.window=5")
    user = setup.user()
    texts = [f"text {number}" for number in range(60)]
    for text in texts[:20]:
        user.message(NURSE, text)
    answered = [smsc.event("submit")["text"] for _ in range(20)]
    wait_for_queue(gateway, SMSC_QUEUE, 0)
    smsc.order("be_silent", **{"is": True})
    for text in texts[20:40]:
        user.message(NURSE, text)
    swallowed = [smsc.event("submit")["text"] for _ in range(5)]
    smsc.kill()
    gateway.wait_unready("bind_transceiver", "cannot be reached")
    for text in texts[40:]:
        user.message(NURSE, text)
    wait_for_queue(gateway, SMSC_QUEUE, 40)
    again = setup.smsc(first_id=1000, reports="DELIVRD")
    later = [again.event("submit", 30)["text"] for _ in range(40)]
    assert answered == texts[:20]
    assert swallowed == texts[20:25]
    assert later == texts[20:]
    wait_for_queue(gateway, SMSC_QUEUE, 0)
    assert again.submits() == []


def test_nothing_is_lost_when_the_connection_breaks_again_and_again(setup: Setup) -> None:
    smsc = setup.smsc()
    gateway = setup.gateway("smpp.window=3")
    user = setup.user()
    texts = [f"text {number}" for number in range(100)]
    seen: list[str] = []
    for number, text in enumerate(texts):
        user.message(NURSE, text)
        if number % 25 == 20:
            seen.append(smsc.event("submit")["text"])
            smsc.order("cut")
            smsc.event("bind", status=0)
    while len(set(seen)) < len(texts):
        seen.append(smsc.event("submit")["text"])
    wait_for_queue(gateway, SMSC_QUEUE, 0)
    seen += [submit["text"] for submit in smsc.submits()]
    assert set(seen) == set(texts)
    assert len(seen) - len(texts) <= 4 * 3  # a cut may hide the answers to one window


def test_a_gateway_that_was_killed_goes_on_where_it_was(setup: Setup) -> None:
    smsc = setup.smsc()
    gateway = setup.gateway()
    user = setup.user()
    smsc.kill()
    gateway.wait_unready("bind_transceiver", "cannot be reached")
    ids = [user.message(NURSE, f"text {number}") for number in range(10)]
    wait_for_queue(gateway, SMSC_QUEUE, 10)
    gateway.kill()
    smsc = setup.smsc(reports="DELIVRD")
    gateway = setup.gateway()
    assert [smsc.event("submit")["text"] for _ in ids] == [f"text {number}" for number in range(10)]
    for id_ in ids:
        user.receipt(id_)
    wait_for_queue(gateway, SMSC_QUEUE, 0)
    assert smsc.submits() == []


def test_what_the_smsc_was_told_is_safe_survives_both_sides(tmp_path: Path) -> None:
    """The XMPP server is away, then the gateway is killed: the user gets the message once, with its time."""
    with ExitStack() as stack:
        prosody = Prosody(tmp_path)
        stack.callback(lambda: prosody.stop())
        setup = Setup(tmp_path, prosody, stack)
        smsc = setup.smsc()
        gateway = setup.gateway()
        user = setup.user()
        user.message(NURSE, "hello")
        smsc.event("submit")
        user.close()
        prosody.kill()
        gateway.wait_unready("component", "cannot be reached")
        smsc.deliver("stentor", NURSE[1:], OURS, "art thou there?", tag="mo")
        assert smsc.event("delivered", tag="mo")["status"] == 0
        gateway.kill()
        prosody = setup.prosody = Prosody(tmp_path, prosody.c2s, prosody.component)
        with User(user.bare.partition("@")[0], prosody.c2s) as again:
            gateway = setup.gateway()
            assert again.body(NURSE) == "art thou there?"
            wait_for_queue(gateway, XMPP_QUEUE, 0)
            assert again.messages.left() == []


def test_messages_from_phones_survive_kills_of_the_gateway(setup: Setup) -> None:
    """The SMSC repeats what was not answered, as SMSCs do. Each text reaches the user under one id: what comes twice is
    the gateway's own repetition of what Prosody had not confirmed."""
    smsc = setup.smsc()
    gateway = setup.gateway()
    user = setup.user()
    user.message(NURSE, "hello")
    smsc.event("submit")
    wanted = [f"text {number}" for number in range(1_000)]
    unanswered = dict.fromkeys(wanted)
    for is_last in (False, False, False, True):
        for text in unanswered:
            smsc.deliver("stentor", NURSE[1:], OURS, text, tag=text)
        while unanswered:
            unanswered.pop(smsc.event("delivered", status=0)["tag"])
            if not is_last:
                break
        if not is_last:
            gateway.kill()
            smsc.event("closed")  # no answer comes after it
            for event in smsc.events.left():
                if event["event"] == "delivered":
                    unanswered.pop(smsc.event("delivered", tag=event["tag"], status=0)["tag"])
            gateway = setup.gateway()
    wait_for_queue(gateway, XMPP_QUEUE, 0)
    smsc.deliver("stentor", NURSE[1:], OURS, "last")
    arrived: dict[str, set[str]] = {}
    while (message := user.text(NURSE)).body != "last":
        arrived.setdefault(message.body, set()).add(message.id)
    assert arrived.keys() == set(wanted)
    assert {text: ids for text, ids in arrived.items() if len(ids) > 1} == {}


def test_a_link_that_does_not_answer_is_made_anew(setup: Setup) -> None:
    smsc = setup.smsc()
    setup.gateway("smpp.timeout_s=1", "smpp.enquire_link_s=1")
    smsc.event("bind", status=0)
    smsc.event("enquire_link")
    user = setup.user()
    smsc.order("be_silent", **{"is": True})
    user.message(NURSE, "hello")
    assert not smsc.event("submit")["is_answered"]
    smsc.event("closed")
    smsc.event("bind", status=0)
    smsc.order("be_silent", **{"is": False})
    assert smsc.event("submit", is_answered=True)["text"] == "hello"


def test_parts_that_the_smsc_repeats_after_a_break_are_absorbed(setup: Setup) -> None:
    smsc = setup.smsc()
    setup.gateway()
    user = setup.user()
    user.message(NURSE, "hello")
    smsc.event("submit")
    parts = [("050003070201", "Wherefore "), ("050003070202", "art thou?")]
    for times in range(2):
        for udh, text in parts:
            smsc.deliver("stentor", NURSE[1:], OURS, text, udh=udh, tag=text)
            assert smsc.event("delivered", tag=text)["status"] == 0
        smsc.deliver("stentor", NURSE[1:], OURS, "ok", tag="ok")
        assert smsc.event("delivered", tag="ok")["status"] == 0
        if times == 0:
            smsc.order("cut")
            smsc.event("bind", status=0)
            smsc.event("bind", status=0)
    smsc.deliver("stentor", NURSE[1:], OURS, "last")
    assert [user.text(NURSE).body for _ in range(3)] == ["Wherefore art thou?", "ok", "last"]


# --- an SMSC that says no


def test_throttling_slows_down_and_loses_nothing(setup: Setup) -> None:
    smsc = setup.smsc()
    gateway = setup.gateway("smpp.window=1")
    user = setup.user()
    smsc.order("refuse", statuses=[0x58, 0x14])
    for text in ("first", "second", "third"):
        user.message(NURSE, text)
    submits = [smsc.event("submit") for _ in range(5)]
    assert [submit["text"] for submit in submits] == ["first", "first", "first", "second", "third"]
    assert [submit["status"] for submit in submits] == [0x58, 0x14, 0, 0, 0]
    assert submits[1]["at"] - submits[0]["at"] >= 950  # milliseconds; each pause is twice the last
    assert submits[2]["at"] - submits[1]["at"] >= 1950
    assert gateway.metric('stentor_sms_out_parts_total{result="throttled"}') == 2
    assert "Set smpp.per_second to what the operator allows" in gateway.log()


def test_throttling_without_end_is_told_to_the_sender(setup: Setup) -> None:
    smsc = setup.smsc()
    setup.gateway("outgoing.give_up_s=2")
    user = setup.user()
    smsc.order("refuse", statuses=[0x58] * 100)
    answer = user.error(user.message(NURSE, "hello"))
    assert (answer.error, answer.error_text) == ("resource-constraint", "The SMS network is too busy.")


def test_the_agreed_rate_is_kept(setup: Setup) -> None:
    smsc = setup.smsc()
    setup.gateway("smpp.per_second=10")
    user = setup.user()
    for number in range(30):
        user.message(NURSE, str(number))
    times = [smsc.event("submit")["at"] for _ in range(30)]
    assert times[-1] - times[0] >= 1900  # 10 at once, 20 at 100 ms each; some before


def test_a_refused_bind_is_told_with_its_remedy_and_tried_again(setup: Setup) -> None:
    smsc = setup.smsc()
    smsc.order("refuse_binds", status=0x0E)
    gateway = setup.gateway(ready=False)
    gateway.wait_unready("bind_transceiver", "the SMSC refuses the bind: the password is wrong (ESME_RINVPASWD)")
    assert "Correct smpp.password" in gateway.log()
    assert gateway.get("/healthz")[0] == 200
    smsc.order("refuse_binds", status=0)
    gateway.wait_ready()


def test_a_wrong_secret_is_told_with_its_remedy(setup: Setup) -> None:
    setup.smsc()
    gateway = setup.gateway("component.secret=wrong", ready=False)
    gateway.wait_unready("component", "the server refuses: not-authorized")
    assert "component.secret is not the one that the server has" in gateway.log()


def test_a_second_gateway_on_the_same_book_is_refused(setup: Setup) -> None:
    smsc = setup.smsc()
    gateway = setup.gateway()
    config = str(setup.directory / "sms.toml")
    done = subprocess.run(
        [sys.executable, "-m", "stentor", "sms", "--config", config, "--set", f"admin.port={smsc.port + 1}"],
        capture_output=True, text=True, timeout=30 * FACTOR, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "another gateway uses it" in done.stderr
    assert gateway.unready() == {}


def test_it_says_goodbye(setup: Setup, prosody: Prosody) -> None:
    smsc = setup.smsc()
    gateway = setup.gateway()
    assert gateway.stop() == 0
    smsc.event("unbind")
    assert "error" not in gateway.log()
    assert "component disconnected" in prosody.log()


# --- other binds, other programs


def test_a_pair_of_links(setup: Setup) -> None:
    smsc = setup.smsc(reports="DELIVRD")
    setup.gateway("smpp.bind=pair")
    assert {smsc.event("bind")["command"] for _ in range(2)} == {"bind_transmitter", "bind_receiver"}
    user = setup.user()
    id_ = user.message(NURSE, "hello")
    assert smsc.event("submit")["text"] == "hello"
    user.receipt(id_)
    smsc.deliver("stentor", NURSE[1:], OURS, "hello yourself")
    assert user.body(NURSE) == "hello yourself"


def test_tls_verifies_the_smsc(setup: Setup, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert(HOST)
    key, cert, ca = tmp_path / "key.pem", tmp_path / "cert.pem", tmp_path / "ca.pem"
    issued.private_key_pem.write_to_path(str(key))
    issued.cert_chain_pems[0].write_to_path(str(cert))
    authority.cert_pem.write_to_path(str(ca))
    setup.smsc(key=str(key), cert=str(cert))
    gateway = setup.gateway("smpp.tls=true", ready=False)
    gateway.wait_unready("bind_transceiver", "certificate verify failed")
    assert gateway.stop() == 0
    assert ssl.create_default_context(cafile=str(ca))
    setup.gateway("smpp.tls=true", f"smpp.ca={ca}")


def test_a_message_to_kannel_and_one_back(setup: Setup) -> None:
    """Through two clients of the centre that have nothing in common: ours and kannel's."""
    accounts = {**ACCOUNTS, "kannel": {"password": "k", "numbers": ["4930777777"]}}
    accounts["stentor"] = {"password": "p", "numbers": [OURS]}
    smsc = setup.smsc(accounts=accounts, reports="DELIVRD")
    setup.gateway()
    kannel = setup.kannel(smsc)
    user = setup.user()
    for text in ("hello kannel", "薔薇 🌹", "Wherefore art thou? " * 12):
        id_ = user.message("+4930777777", text)
        received = kannel.received()
        content = received["hex"].encode("latin-1")
        assert content.decode("utf-16-be" if received["coding"] == "2" else "ascii") == text
        assert received["from"].lstrip("+") == OURS
        user.receipt(id_)
    for text in ("hello yourself", "Grüße 🌹", "薔薇 " * 60):
        assert "Accepted" in kannel.send("+4930777777", f"+{OURS}", text)
        assert user.body("+4930777777") == text


# --- the same with ourselves as the XMPP server


@pytest.fixture(scope="module")
def stentor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stentor]:
    server = Stentor(tmp_path_factory.mktemp("stentor") / "cluster")
    yield server
    assert server.stop() == 0


@pytest.mark.parametrize(
    "test",
    [
        test_a_user_finds_the_gateway_registers_and_leaves,
        test_numbers_come_and_go_with_the_user_and_the_gateway,
        test_texts_of_any_alphabet_both_ways,
        test_a_receipt_comes_with_the_report_and_an_error_with_a_bad_one,
        test_a_gateway_that_was_killed_goes_on_where_it_was,
        test_messages_from_phones_survive_kills_of_the_gateway,
        test_a_message_to_kannel_and_one_back,
    ],
)
def test_with_stentor_as_the_server(test: Callable[[Setup], None], tmp_path: Path, stentor: Stentor) -> None:
    with ExitStack() as stack:
        test(Setup(tmp_path, stentor, stack))
