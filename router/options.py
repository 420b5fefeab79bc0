"""The fields of a form that configures something: how each is read, and how it is shown (XEP-0004, XEP-0122)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from xmpp.errors import NotAcceptable
from xmpp.forms import Field
from xmpp.xml import element

LONGEST: Final = 4_096  # characters of a text


class Kind(NamedTuple):
    """How one field is written and read. `check` says which values there may be (XEP-0122)."""

    type: str
    label: str
    read: Callable[[tuple[str, ...]], Any]
    options: tuple[str, ...] = ()
    check: bytes = b""


def boolean(values: tuple[str, ...]) -> bool:
    """XEP-0004, 3.3."""
    if len(values) != 1 or values[0] not in ("0", "1", "true", "false"):
        raise NotAcceptable("A boolean is 0, 1, true or false.")
    return values[0] in ("1", "true")


def text(values: tuple[str, ...]) -> str:
    """One or several lines."""
    joined = "\n".join(values)
    if len(joined) > LONGEST:
        raise NotAcceptable(f"A text may have {LONGEST} characters.")
    return joined


def one_of(*options: str) -> Callable[[tuple[str, ...]], str]:
    """One of these."""

    def read(values: tuple[str, ...]) -> str:
        if len(values) != 1 or values[0] not in options:
            raise NotAcceptable(f"The value is one of {', '.join(options)}.")
        return values[0]

    return read


def shown(kind: Kind, var: str, value: Any) -> Field:
    """A field that is filled in. A number is in `value` as the text that it is shown as."""
    if isinstance(value, bool):
        values: tuple[str, ...] = ("1" if value else "0",)
    elif isinstance(value, tuple):
        values = value
    else:
        values = (str(value),) if value != "" else ()
    options = tuple(dict.fromkeys((*kind.options, *(values if kind.type == "list-single" else ()))))
    extra = b"".join(element("option", None, None, element("value", None, None, option)) for option in options)
    return Field(var, kind.type, values, kind.label, (extra if kind.options else b"") + kind.check)
