"""Every handler of envelopes takes as many fields as the wire lets through: more than `ARITY` are cut off on arrival
(cluster/bus.py), fewer are refused, so a disagreement shows only between real processes."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import pytest

from cluster import wire
from cluster.edge import Edge
from cluster.wire import (
    ACTIVATE,
    AGAIN,
    ARITY,
    CALL,
    CONFIRM,
    DIAL,
    DRAIN,
    FORWARD,
    FROM_C2S,
    FROM_ROUTER,
    FROM_S2S,
    MAP,
    MARKS,
    MAY_SEND,
    NODES,
    ORDER,
    RELAY,
    RELAYED,
    REPORT,
    SUBMIT,
    TRACE,
    TRACED,
    UNREACHABLE,
)
from router.service import _FOR_DIRECTORY, _FOR_OWNER
from router.traces import Traces
from tests.support.owners import ME, OneRouter
from tests.support.traces import Watching

NAMES = {number: name for name, number in vars(wire).items() if name.isupper() and type(number) is int}


def handlers() -> dict[tuple[str, int], tuple[Callable[..., Any], int]]:
    """(who, kind) -> the handler, and the arguments that it gets before the fields."""
    edge = Edge(lambda to, envelope: True, lambda: "request", lambda: 0.0)
    found: dict[tuple[str, int], tuple[Callable[..., Any], int]] = {
        ("edge", kind): (handler, 1) for kind, handler in edge._handlers.items()
    }
    router = OneRouter()
    found |= {("directory", kind): (handler, 1) for kind, handler in router.directory._handlers.items()}
    found["owner", SUBMIT] = (router.owner._on_submit, 1)
    found["owner", FORWARD] = (router.owner._on_forward, 1)
    found["owner", CONFIRM] = (router.owner.outbox.confirmed, 0)
    found["dialing", UNREACHABLE] = (router.dialing.unreachable, 1)
    found["owner", MARKS] = (router.owner._on_marks, 1)
    found |= {("owner", kind): (handler, 1) for kind, handler in router.owner.mirrors._handlers.items()}
    tracer = Watching().tracer
    found["tracer", TRACE] = (tracer.told, 1)
    traces = Traces(ME, tracer, lambda to, envelope: True, tuple, lambda peer: "router", lambda: 0.0)
    found["traces", TRACED] = (traces.told, 1)
    found["owner", AGAIN] = (router.owner.outbox.offer_again, 0)
    return found


@pytest.mark.parametrize(("who", "kind"), [pytest.param(*key, id=f"{key[0]} {NAMES[key[1]]}") for key in handlers()])
def test_a_handler_takes_what_the_wire_lets_through(who: str, kind: int) -> None:
    handler, before = handlers()[who, kind]
    fields = [p for p in signature(handler).parameters.values() if p.kind is Parameter.POSITIONAL_OR_KEYWORD][before:]
    needed = sum(field.default is Parameter.empty for field in fields)
    assert needed <= ARITY[kind] - 1 == len(fields)


def test_every_kind_has_a_handler() -> None:
    kinds = {kind for _, kind in handlers()}
    elsewhere = {
        ACTIVATE,
        CALL,
        DIAL,
        DRAIN,
        MAP,
        NODES,
        RELAY,
        RELAYED,
        ORDER,
        REPORT,
    }  # router/service.py, c2s/service.py, s2s/service.py, cluster/process.py, cluster/membership.py, cluster/orders.py
    assert kinds | elsewhere == FROM_C2S | FROM_S2S | FROM_ROUTER
    assert {kind for who, kind in handlers() if who == "directory"} == _FOR_DIRECTORY
    assert {kind for who, kind in handlers() if who == "owner"} == _FOR_OWNER


def test_which_role_may_say_what_of_traces() -> None:
    """Who is traced the routers say alone; what is decided about them, everybody to whoever gathers."""
    assert [role for role, kinds in MAY_SEND.items() if TRACE in kinds] == ["router"]
    assert [role for role, kinds in MAY_SEND.items() if TRACED in kinds] == ["c2s", "s2s", "router"]
