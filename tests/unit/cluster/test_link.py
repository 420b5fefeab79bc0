"""Links (cluster/link.py; docs/delivery.md, rules 1 and 2) over a channel that loses, repeats and reorders."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.link import FULL_TOO_LONG_S, RESEND_S, WINDOW_BYTES, ReceiveLink, SendLink
from cluster.wire import NO_ACK, SUBMIT, Ack, Incarnation, unpack_frame

A = Incarnation("c2s-0#00000000000000aa")
B = Incarnation("router-0#00000000000000bb")
ACTIONS = ["offer", "deliver", "lose", "repeat", "acknowledge", "lose_ack", "repeat_ack", "wait", "give_up"]


@dataclass
class Channel:
    """A to B, with everything under way in sight. Frames and acknowledgements arrive in any order, or never."""

    send: SendLink = field(default_factory=lambda: SendLink(A, B, 1))
    receive: ReceiveLink = field(default_factory=ReceiveLink)
    now: float = 0.0
    frames: list[bytes] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    offered: dict[int, list[int]] = field(default_factory=lambda: {1: []})  # by generation
    accepted: dict[int, list[int]] = field(default_factory=dict)
    item: int = 0

    def offer(self) -> None:
        self.item += 1
        self.offered[self.send.generation].append(self.item)
        self.frames.append(self.send.offer([(SUBMIT, self.item)], NO_ACK, self.now))

    def arrive(self, frame: bytes) -> None:
        _, _, generation, _, seq, _, envelopes = unpack_frame(frame)
        if self.receive.accept(generation, seq):
            self.accepted.setdefault(generation, []).extend(envelope[1] for envelope in envelopes)
        self.acks.append(self.receive.ack)

    def wait(self) -> None:
        self.now += RESEND_S
        self.frames += self.send.resend(self.now)

    def give_up(self) -> None:
        """Rule 2: the next link has a higher generation, and starts at 1."""
        generation = self.send.generation + 1
        self.send = SendLink(A, B, generation)
        self.offered[generation] = []

    def act(self, action: str, at: int) -> None:
        frames, acks = self.frames, self.acks
        if action == "offer":
            self.offer()
        elif action == "wait":
            self.wait()
        elif action == "give_up":
            self.give_up()
        elif action in ("deliver", "lose", "repeat") and frames:
            frame = frames[at % len(frames)] if action == "repeat" else frames.pop(at % len(frames))
            if action != "lose":
                self.arrive(frame)
        elif action in ("acknowledge", "lose_ack", "repeat_ack") and acks:
            ack = acks[at % len(acks)] if action == "repeat_ack" else acks.pop(at % len(acks))
            if action != "lose_ack":
                self.send.acknowledged(ack)

    def heal(self) -> None:
        """From now on what is sent arrives; what was under way arrives late, in the wrong order."""
        for _ in range(3):
            self.wait()
            while self.frames:
                self.arrive(self.frames.pop())
            while self.acks:
                self.send.acknowledged(self.acks.pop())
            self.now += RESEND_S
            for frame in self.send.resend(self.now):
                self.arrive(frame)
            while self.acks:
                self.send.acknowledged(self.acks.pop(0))


@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 50)), max_size=120))
def test_what_is_accepted_is_in_order_once_and_complete_after_resends(actions: list[tuple[str, int]]) -> None:
    channel = Channel()
    for action, at in actions:
        channel.act(action, at)
        for generation, items in channel.accepted.items():
            assert items == channel.offered[generation][: len(items)], "in order, once, without holes"
        generation, last = channel.receive.ack
        if generation == channel.send.generation:
            missing = len(channel.offered[generation]) - last
            assert channel.send.unacknowledged >= missing, "nothing that was not accepted is forgotten"
    channel.heal()
    last_generation = channel.send.generation
    assert channel.accepted.get(last_generation, []) == channel.offered[last_generation]
    assert channel.send.unacknowledged == 0


@given(st.lists(st.integers(1, 5), max_size=30), st.data())
def test_generations_only_go_up(generations: list[int], data: st.DataObject) -> None:
    receive = ReceiveLink()
    before = receive.ack
    for generation in generations:
        receive.accept(generation, data.draw(st.integers(1, 4)))
        assert receive.ack >= before
        before = receive.ack


def test_a_generation_starts_at_1() -> None:
    receive = ReceiveLink()
    assert [receive.accept(1, 1), receive.accept(1, 2), receive.accept(2, 3)] == [True, True, False]
    assert receive.ack == (2, 0), "the higher generation is known, its first frame is still to come"
    assert [receive.accept(1, 3), receive.accept(2, 1), receive.accept(2, 2)] == [False, True, True]


def test_a_late_ack_of_an_older_generation_says_nothing_of_this_one() -> None:
    # tests/sim found links stuck without: it would drop the first frames of the new generation.
    send = SendLink(A, B, 2)
    send.offer([(SUBMIT, 1)], NO_ACK, 0.0)
    assert not send.acknowledged((1, 5))
    assert not send.acknowledged((3, 5)), "nor one of a generation that is none of mine"
    assert not send.acknowledged(NO_ACK)
    assert send.unacknowledged == 1
    assert send.acknowledged((2, 1))
    assert not send.acknowledged((2, 1)), "no news"
    assert send.unacknowledged == 0


def test_frames_say_who_to_whom_and_what_was_received() -> None:
    send = SendLink(A, B, 4)
    assert unpack_frame(send.offer([(SUBMIT, 1)], (7, 3), 0.0)) == (1, A, 4, B, 1, (7, 3), ((SUBMIT, 1),))
    assert unpack_frame(send.offer([(SUBMIT, 2)], (7, 4), 0.0))[4] == 2
    assert send.last_seq == 2
    assert unpack_frame(send.sign_of_life((7, 5))) == (1, A, 4, B, 0, (7, 5), ())
    assert send.last_seq == 2, "a sign of life takes no number"


def test_all_is_resent_in_order_half_a_second_after_the_oldest() -> None:
    send = SendLink(A, B, 1)
    first = send.offer([(SUBMIT, 1)], NO_ACK, 0.0)
    second = send.offer([(SUBMIT, 2)], NO_ACK, 0.4)
    assert send.resend(0.49) == []
    assert send.resend(0.5) == [first, second]
    assert send.resend(0.99) == [], "each resend waits its time"
    send.acknowledged((1, 1))
    assert send.resend(1.0) == [second]
    send.acknowledged((1, 2))
    assert send.resend(9.0) == []


def full(now: float) -> SendLink:
    send = SendLink(A, B, 1, window_frames=3)
    was_full = [send.is_full]
    for item in range(3):
        send.offer([(SUBMIT, item)], NO_ACK, now)
        was_full.append(send.is_full)
    assert was_full == [False, False, False, True]
    return send


def test_a_window_full_for_10_seconds_is_given_up() -> None:
    send = full(100.0)
    assert not send.is_given_up(100.0 + FULL_TOO_LONG_S - 0.1)
    assert send.is_given_up(100.0 + FULL_TOO_LONG_S)
    assert not SendLink(A, B, 1).is_given_up(1e9), "silence alone is membership's matter"


def test_an_ack_in_between_gives_a_window_its_time_anew() -> None:
    send = full(100.0)
    send.acknowledged((1, 1))
    assert not send.is_given_up(200.0)
    send.offer([(SUBMIT, 4)], NO_ACK, 200.0)
    assert not send.is_given_up(209.9)
    assert send.is_given_up(210.0)


def test_an_ack_without_news_gives_no_time() -> None:
    send = full(100.0)
    send.acknowledged((1, 0))
    send.acknowledged((0, 3))
    send.resend(105.0)
    assert send.is_given_up(110.0)


@pytest.mark.parametrize("frames", [1, 4])
def test_a_window_is_bounded_in_bytes_too(frames: int) -> None:
    send = SendLink(A, B, 1)
    piece = bytes(WINDOW_BYTES // frames)
    was_full = [send.is_full]
    for item in range(frames):
        send.offer([(SUBMIT, item, piece)], NO_ACK, 0.0)
        was_full.append(send.is_full)
    assert was_full == [False] * frames + [True]
    send.acknowledged((1, 1))
    assert send.is_full is False
