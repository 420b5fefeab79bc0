"""HTML written with plain functions: text and attributes are escaped by whoever writes the element, never by hand.
Pages carry their style, and nothing else is loaded or run."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2430; --paper: #f6f7f9; --card: #fff; --line: #ccd2db; --main: #1f5fbf;
  --on: #fff; --bad: #a3152a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --paper: #14171c; --card: #1d222a; --line: #3a424f;
  --main: #8ab4ff; --on: #10151d; --bad: #ff9aa8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1.0625rem/1.5 system-ui, sans-serif; }
main { max-width: 34rem; margin: 0 auto; padding: 1.25rem; overflow-wrap: anywhere; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: 1rem 1.25rem;
  margin: 1rem 0; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.125rem; margin: .25rem 0 .5rem; }
a { color: var(--main); }
.button, button { display: block; width: 100%; padding: .85rem 1rem; border: 0; border-radius: .5rem; font: inherit;
  font-weight: 600; text-align: center; text-decoration: none; background: var(--main); color: var(--on); }
label { display: block; margin: .75rem 0; } label.choice { display: flex; gap: .6rem; align-items: center; }
input:not([type=checkbox]) { display: block; width: 100%; margin-top: .25rem; padding: .7rem; border-radius: .5rem;
  border: 1px solid var(--line); background: var(--paper); color: inherit; font: inherit; }
.wrong { color: var(--bad); font-weight: 600; }
"""
STYLE_HASH: Final = f"'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'"  # for Content-Security-Policy
_VOID: Final = frozenset({"input", "link", "meta"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: str | bool | None) -> Markup:
    """An element. Children that are no Markup are text; None is nothing. An attribute that is True has no value; False
    and None leave it out. `_` ends a name that Python has taken, and stands for `-` inside one."""
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    start = f"<{name}{written}>"
    if name in _VOID:
        assert not children
        return Markup(start)
    inner = "".join(child if isinstance(child, Markup) else escape(child) for child in children if child is not None)
    return Markup(f"{start}{inner}</{name}>")


def page(title: str, *content: str | None) -> str:
    """A whole page. `title` is also its heading."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="robots", content="noindex"),
        tag("title", title),
        Markup(f"<style>{STYLE}</style>"),
    )
    body = tag("body", tag("main", tag("h1", title), *content))
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en")
