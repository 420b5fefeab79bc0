"""The wire format: what one process says to another, as positional msgpack arrays (docs/delivery.md names the rules).

A *frame* carries a batch of *envelopes* over one link:

    [wire version, sender incarnation, link generation, receiver incarnation, seq, ack, [envelope, ...]]

`ack` is (generation, seq) of the other direction: a number alone would acknowledge frames of the wrong generation.

An envelope is a tuple whose first item is its kind. The bus hands on `envelope[:ARITY[kind]]`, so that a newer
neighbour may append fields. Everything here is a value; links and sockets are elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NewType

import msgpack

WIRE_VERSION: Final = 1
SUPPORTED_VERSIONS: Final = frozenset({1})

Incarnation = NewType("Incarnation", str)  # one run of one process: "NODE#16 hex digits"
Shard = NewType("Shard", int)
Epoch = NewType("Epoch", int)
SessionId = NewType("SessionId", int)  # 63 random bits, unique in the cluster; also the origin of what a session sends
LogId = NewType("LogId", int)

Envelope = tuple[Any, ...]
Ack = tuple[int, int]  # generation, seq
NO_ACK: Final[Ack] = (0, 0)

# --- greetings: outside the link's sequence (seq 0), repeated until answered
HELLO: Final = 1  # role, node, address, versions: who I am, and where my bus listens
WELCOME: Final = 2  # the same, as the answer to HELLO
NODES: Final = 3  # [(incarnation, role, address), ...]: the routers there are (router -> c2s, s2s)
GOODBYE: Final = 4  # reason: this process ends now; its links are closed

# --- c2s (and s2s) -> router
SUBMIT: Final = 10  # shard, epoch, sid, gen, n, stanza, again: whether it was offered to somebody before
ACKNOWLEDGED: Final = 11  # shard, epoch, sid, gen, q: the client has everything up to q
ATTACH: Final = 12  # shard, epoch, request, bare, resource or None, edge facts
DETACH: Final = 13  # shard, epoch, sid, gen, reason: the stream has ended for good
ANNOUNCE: Final = 14  # shard, epoch, [announcement, ...]: every session of mine in this shard
ENABLED: Final = 16  # shard, epoch, sid, gen, n0, q0: the client counts from here on and may resume (XEP-0198)
RESUME: Final = 17  # shard, epoch, request, bare, sid, h (modulo 2^32): answered by ATTACHED or REFUSED
ACTIVITY: Final = 18  # shard, epoch, sid, gen, active: whether somebody looks at the client (XEP-0352)
READ: Final = 19  # shard, epoch, bare, [id, ...]: clients of sessions that are over had these rows of their log
CALL: Final = 15  # shard, epoch, request, method, arguments: see router/calls.py
RELAY: Final = 21  # mark, request, data: for the c2s of this mark (c2s/http/relay.py; c2s alone sends it)
TRACED: Final = (
    22  # [([trace id, ...], event), ...], dropped: what was decided about stanzas (any -> the router that gathers)
)
UNREACHABLE: Final = 20  # shard, epoch, remote, local, condition, text, is permanent: the answer to DIAL that failed
REPORT: Final = 23  # request, ok, value: answer to ORDER; not ok: what is wrong, in words (any -> router)

# --- router -> c2s (and s2s)
DELIVER: Final = (
    30  # [(shard, epoch, sid, gen, q, id), ...], stanza: one copy for all of a process; id below 0: a room's
)
CONFIRMED: Final = 31  # shard, epoch, sid, gen, conf: everything up to conf is safe
REVOKED: Final = 32  # shard, epoch, sid, gen, reason: attachments below gen are over
ATTACHED: Final = 33  # shard, epoch, request, sid, gen, resource, conf, q, state, last id, n0, q0, resumable, rooms
REFUSED: Final = 34  # shard, epoch, request, condition, text, h: answer to ATTACH and RESUME; h: None if not known
STATE: Final = 35  # shard, epoch, sid, gen, state: opaque, to be kept for the next owner
WANT: Final = 36  # shard, epoch: announce this shard's sessions
ANSWER: Final = 37  # request, ok, value: answer to CALL; not ok: value is a condition
MAP: Final = 38  # [(shard, epoch, owner), ...]

DRAIN: Final = 39  # reason: an operator wants this process to hand over and end (router -> any)

ORDER: Final = 44  # request, name, arguments: what operators ask of one process (router -> any; cluster/orders.py)

DIAL: Final = 40  # shard, epoch, remote, local: stanzas of this local domain wait for a stream to a domain (-> s2s)

ACTIVATE: Final = 41  # name: a bytestream shall begin (-> c2s; c2s/bytestreams.py)
TRACE: Final = (
    43  # [(trace id, bare JID, seconds left), ...]: all that this router gathers (-> any; cluster/tracing.py)
)

RELAYED: Final = 42  # mark of the sender, request, data: what a c2s has for another; ("nobody",), ("gone",): ours

# --- router -> router
FORWARD: Final = 50  # shard, epoch, origin, n, retry, [(to, prev, epoch of to), ...], [stanza, ...], origin id
CONFIRM: Final = 51  # origin, to, n: everything of this origin to this recipient up to n is accepted
AGAIN: Final = 52  # origin, to: there is a gap; offer the queue again from its front
# Rooms: between the owner of a room and the routers of its occupants (router/rooms/fanout.py, mirror.py). `parts`:
# [(audience, [sid, ...], [stanza, ...]), ...]; `members`: [(sid, role), ...].
CAST: Final = 53  # shard, epoch, room, id before it, id or None, parts, members
CHECK: Final = 54  # shard, epoch, room, [(sid, full JID), ...]: are these sessions there, how far have they come?
MARKS: Final = 55  # shard, epoch, room, [(sid, id), ...]: the answer; -1: no such session, 0: it knows of nothing
REPLAY: Final = (
    56  # shard, epoch, room, id of the last event, [(id, parts), ...], parts for who knows of nothing, members
)

ARITY: Final = {
    HELLO: 5, WELCOME: 5, NODES: 2, GOODBYE: 2,
    SUBMIT: 8, ACKNOWLEDGED: 6, ATTACH: 7, DETACH: 6, ANNOUNCE: 4, CALL: 6, ENABLED: 7, RESUME: 7, ACTIVITY: 6,
    READ: 5, UNREACHABLE: 8, TRACED: 3,
    DELIVER: 3, CONFIRMED: 6, REVOKED: 6, ATTACHED: 15, REFUSED: 7, STATE: 6, WANT: 3, ANSWER: 4, MAP: 2, DRAIN: 2,
    DIAL: 5, ACTIVATE: 2, RELAY: 4, RELAYED: 4, TRACE: 2, ORDER: 4, REPORT: 4,
    FORWARD: 9, CONFIRM: 4, AGAIN: 3, CAST: 8, CHECK: 5, MARKS: 5, REPLAY: 8,
}  # fmt: skip

FROM_EDGE: Final = frozenset(
    {SUBMIT, ACKNOWLEDGED, ATTACH, DETACH, ANNOUNCE, CALL, ENABLED, RESUME, ACTIVITY, READ, TRACED, REPORT}
)
FROM_C2S: Final = FROM_EDGE | {RELAY}
FROM_S2S: Final = FROM_EDGE | {UNREACHABLE}
FROM_ROUTER: Final = frozenset(
    {DELIVER, CONFIRMED, REVOKED, ATTACHED, REFUSED, STATE, WANT, ANSWER, MAP, DRAIN, NODES, DIAL, ACTIVATE, RELAYED}
    | {FORWARD, CONFIRM, AGAIN, CALL, CAST, CHECK, MARKS, REPLAY, TRACE, TRACED, ORDER, REPORT}
)
GREETINGS: Final = frozenset({HELLO, WELCOME, GOODBYE})
# A captured c2s cannot act as a router: each role may send only these kinds.
MAY_SEND: Final = {
    "c2s": FROM_C2S | GREETINGS,
    "s2s": FROM_S2S | GREETINGS,
    "router": FROM_ROUTER | GREETINGS,
}

# One session in an ANNOUNCE: sid, gen, bare, resource, conf, q, acknowledged,
# [(q, id, stanza), ...] unacknowledged, last id, state, n (the last read), n0, q0, resumable,
# the greatest log id that the client has acknowledged, the last ones that it has acknowledged, and
# [(room, id), ...]: the last event of each room that it was given
Announcement = tuple[Any, ...]


class WireError(ValueError):
    """A frame that cannot be read: another version, truncated, or not a frame at all."""


def new_incarnation(node: str, random_bits: int) -> Incarnation:
    """The name of one run of the process called `node`."""
    return Incarnation(f"{node}#{random_bits:016x}")


def node_of(incarnation: Incarnation) -> str:
    """The node name of an incarnation."""
    return incarnation.rpartition("#")[0]


def mark_of(incarnation: Incarnation) -> str:
    """What tells one run of a process from all others without naming it: clients may see it."""
    return incarnation.rpartition("#")[2]


_packer = msgpack.Packer(autoreset=True)


def pack_frame(
    sender: Incarnation, generation: int, receiver: Incarnation | str, seq: int, ack: Ack, envelopes: Sequence[Envelope]
) -> bytes:
    """One frame as bytes. `seq` is 0 in a frame that carries no envelopes, or greetings only."""
    packed: bytes = _packer.pack((WIRE_VERSION, sender, generation, receiver, seq, ack, envelopes))
    return packed


def unpack_frame(data: bytes | memoryview) -> tuple[int, Incarnation, int, str, int, Ack, tuple[Envelope, ...]]:
    """The seven items of a frame; raises WireError. Nested arrays come as tuples."""
    try:
        frame = msgpack.unpackb(data, use_list=False)
    except Exception as problem:  # msgpack raises a dozen kinds, some of them bare ValueError
        raise WireError(f"undecodable frame: {problem}") from problem
    if type(frame) is not tuple or not frame:
        raise WireError("not a frame")
    if type(frame[0]) is not int or frame[0] not in SUPPORTED_VERSIONS:
        raise WireError(f"wire version {frame[0]!r} is not spoken here")
    if len(frame) < 7 or tuple(map(type, frame[:7])) != _TYPES or tuple(map(type, frame[5])) != (int, int):
        raise WireError("not a frame")
    for envelope in frame[6]:
        if type(envelope) is not tuple or not envelope or type(envelope[0]) is not int:
            raise WireError("not an envelope")
    return frame[:7]  # the fields of an envelope are checked by its handler


_TYPES: Final = (int, str, int, str, int, tuple, tuple)
