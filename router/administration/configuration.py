"""What processes run with, and what they log: `stentor config`, `stentor log`, `stentor tls list`."""

from __future__ import annotations

from typing import Any, Final

from cluster.admin import ApiError
from router.administration.command import Area, Call, Command, body, path, query
from router.administration.desk import Desk, stamp
from router.administration.schema import TEXT, WORD, list_of, one_of, or_null, record
from router.ordering import Reported

ANY: Final[dict[str, Any]] = {}
_NODE: Final = query("node", TEXT, "only of this process")
_HEAD: Final = {"node": TEXT, "role": TEXT, "problem": TEXT}


async def _ask(desk: Desk, node: str, name: str, *arguments: Any) -> list[Reported]:
    found = await desk.ordering.ask_all(node, name, *arguments)
    if not found:
        raise ApiError(404, f"{node} is no living process", "stentor cluster status shows them")
    return found


def _head(one: Reported) -> dict[str, str]:
    return {"node": one.node, "role": one.role, "problem": one.problem}


async def show(desk: Desk, call: Call) -> Any:
    found = await _ask(desk, call.text("node"), "config.show")
    return {
        "processes": [
            {
                **_head(one),
                "settings": [{"key": key, "value": value, "source": source} for key, value, source in one.value or ()],
            }
            for one in found
        ]
    }


async def diff(desk: Desk, call: Call) -> Any:
    found = await _ask(desk, call.text("node"), "config.diff")
    return {
        "processes": [
            {
                **_head(one),
                "changes": [{"key": key, "running": old, "file": new} for key, old, new in one.value or ()],
            }
            for one in found
        ]
    }


async def reload(desk: Desk, call: Call) -> Any:
    found = await _ask(desk, call.text("node"), "config.reload")
    return {
        "processes": [
            {**_head(one), "changes": [{"key": key, "effect": effect} for key, effect in one.value or ()]}
            for one in found
        ]
    }


async def set_level(desk: Desk, call: Call) -> Any:
    arguments = (call.text("level"), call.text("logger"), call.given.get("for_s"))
    found = await _ask(desk, call.text("node"), "log.level", *arguments)
    return {"processes": [{**_head(one), "before": one.value} for one in found]}


async def list_certificates(desk: Desk, call: Call) -> Any:
    found = await _ask(desk, "", "tls.list")
    shown: dict[tuple[str, tuple[str, ...], float], list[str]] = {}
    for one in found:
        for file, names, expires_at in one.value or ():
            shown.setdefault((file, tuple(names), expires_at), []).append(one.node)
    return {
        "certificates": [
            {"file": file, "names": list(names), "expires_at": stamp(expires_at), "used_by": used_by}
            for (file, names, expires_at), used_by in sorted(shown.items(), key=lambda item: (item[0][2], item[0][1]))
        ],
        "problems": [f"{one.node}: {one.problem}" for one in found if one.problem],
    }


AREA: Final = Area(
    "Processes",
    (
        Command(
            "config show", "GET", "/config", "config:read", "What each process runs with", show,
            record(
                processes=list_of(
                    record(**_HEAD, settings=list_of(record(key=TEXT, value=ANY, source=TEXT)))
                )
            ),
            (_NODE,), 'Of what is secret, "(set)" or "(not set)".', (404,),
        ),
        Command(
            "config diff", "GET", "/config/diff", "config:read", "Where files differ from what runs", diff,
            record(
                processes=list_of(record(**_HEAD, changes=list_of(record(key=TEXT, running=ANY, file=ANY))))
            ),
            (_NODE,), "Of each process, the keys that its role reads.", (404,),
        ),
        Command(
            "config reload", "POST", "/config/reload", "config:write", "Have what files say count", reload,
            record(
                processes=list_of(
                    record(**_HEAD, changes=list_of(record(key=TEXT, effect=one_of("applied", "restart"))))
                )
            ),
            (body("node", TEXT, "only of this process"),),
            "Certificates and revocation lists are read again: new connections get them. Of each key that differs, "
            "`effect`: `applied`, it counts from now on; `restart`, once the process was started again. A file that is "
            "wrong changes nothing, and `problem` says what is wrong with it.",
            (404,), writes=True, on=("node",),
        ),
        Command(
            "log level", "PUT", "/log/{node}", "config:write", "Say what is logged, until a restart or for a time",
            set_level, record(processes=list_of(record(**_HEAD, before=or_null(TEXT)))),
            (
                path("node", WORD, "a process, or all"),
                body("level", one_of("debug", "info", "warning", "error"), "the least that is written", required=True),
                body(
                    "logger", {"type": "string", "pattern": "^[a-z0-9_.]*$", "description": "s2s or s2s.dns"},
                    "only of this part of the code, as `s2s` or `s2s.dns`",
                ),
                body(
                    "for_s", {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 604_800},
                    "seconds, after which it is as before",
                ),
            ),
            errors=(404,), writes=True, on=("node", "level", "logger"),
        ),
        Command(
            "tls list", "GET", "/certificates", "config:read", "Certificates in use, whichever expires first",
            list_certificates,
            record(
                certificates=list_of(record(file=TEXT, names=list_of(TEXT), expires_at=TEXT, used_by=list_of(TEXT))),
                problems=list_of(TEXT),
            ),
            description="`names` are the domains that are shown it, `used_by` the processes.", errors=(404,),
        ),
    ),
    "`problem` says why a process has not answered as it should, and is empty otherwise.",
)  # fmt: skip
