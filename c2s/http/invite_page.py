"""The pages behind the links of invitations (XEP-0379, 3.3; XEP-0401, 4.2): who invites, how to go on in a client, a
form for an account, a form for a new password. Everything is decided by routers (`router/admission.py`).

The token in the address is the capability: nothing else is asked, nothing is remembered in the browser.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from c2s.attempts import Attempts
from c2s.http.clients import PLATFORMS, Clients, platform_of
from c2s.http.html import Markup, page, tag
from c2s.http.server import HttpServer, ask
from cluster.edge import Answer, Edge
from xmpp.errors import JidError
from xmpp.jid import JID

PATH: Final = "/invite/{token}"
_CLIENTS_LIST: Final = "https://xmpp.org/software/"

Facts = dict[str, Any]  # what a router tells of a token (router/admission.py, show)


class InvitePage:
    """The routes. `domain` is one that is served: any router can tell what a token is."""

    def __init__(
        self, server: HttpServer, edge: Edge, domain: str, clients: Clients, attempts: Attempts, *,
        has_chat: bool = False,
    ) -> None:  # fmt: skip
        """`has_chat`: there is a web chat at / to be suggested, too."""
        self._server = server
        self._edge = edge
        self._domain = domain
        self._clients = clients
        self._attempts = attempts
        self._has_chat = has_chat
        server.add("invite", "GET", PATH, self._show)
        server.add("invite", "POST", PATH, self._submit)

    async def _show(self, request: web.Request) -> web.Response:
        found = await self._facts(request)
        return found if isinstance(found, web.Response) else self._page(request, found)

    async def _submit(self, request: web.Request) -> web.Response:
        self._server.require_same_origin(request)
        given = await self._server.form_of(request)
        found = await self._facts(request)
        if isinstance(found, web.Response):
            return found
        password = given.get("password", "")
        if not password:
            return self._page(request, found, given, "A password is needed.")
        if given.get("again", password) != password:
            return self._page(request, found, given, "The two passwords differ.")
        if not self._attempts.take(self._server.address_of(request)):
            wrong = "There were too many attempts from your address. Try again in an hour."
            return self._page(request, found, given, wrong, HTTPStatus.TOO_MANY_REQUESTS)
        if found["kind"] == "reset":
            return await self._reset(request, found, given)
        return await self._register(request, found, given)

    # --- what is asked

    async def _facts(self, request: web.Request) -> Facts | web.Response:
        """What the token stands for, or the page that says why there is nothing to tell."""
        token = request.match_info["token"]
        if not (token.isascii() and token.isalnum()):
            return _unknown()
        answer = await ask(self._edge, self._domain, "invitations.show", token)
        if answer.ok:
            return _used_up() if answer.value["is_used_up"] else dict(answer.value)
        return _unknown() if _condition(answer) == "item-not-found" else _away()

    async def _register(self, request: web.Request, facts: Facts, given: dict[str, str]) -> web.Response:
        domain, username = facts["domain"], facts["jid"].partition("@")[0] or given.get("username", "").strip()
        if not facts["may_register"]:
            return _unknown()
        try:
            bare = JID.of(username, domain).bare
        except JidError:
            bare = domain
        if bare == domain:
            return self._page(request, facts, given, "This user name cannot be used.")
        token, password = request.match_info["token"], given["password"]
        answer = await ask(self._edge, bare, "invitations.register", domain, username, password, token)
        if answer.ok:
            return _answered(HTTPStatus.CREATED, _welcome(facts, answer.value, self._suggestions(request)))
        return await self._refused(request, facts, given, answer)

    async def _reset(self, request: web.Request, facts: Facts, given: dict[str, str]) -> web.Response:
        bare, token = facts["jid"], request.match_info["token"]
        answer = await ask(self._edge, bare, "invitations.reset", bare, given["password"], "end" in given, token)
        if not answer.ok:
            return await self._refused(request, facts, given, answer)
        ended = tag("p", "Whoever was signed in with the old one has been signed out.") if "end" in given else None
        changed = tag("p", f"{bare} has a new password. Enter it in your app.")
        return _answered(
            HTTPStatus.OK,
            page("The password is changed", tag("section", changed, ended)),
        )

    async def _refused(self, request: web.Request, facts: Facts, given: dict[str, str], answer: Answer) -> web.Response:
        condition = _condition(answer)
        if condition == "item-not-found":  # somebody was faster, or its time has come
            again = await self._facts(request)
            return again if isinstance(again, web.Response) else _unknown()
        if condition == "conflict":
            return self._page(request, facts, given, "This name is taken. Choose another one.", HTTPStatus.CONFLICT)
        if condition in ("not-acceptable", "not-allowed"):
            text = answer.value[1] if not isinstance(answer.value, str) else None
            return self._page(request, facts, given, text or "This cannot be used. Choose something else.")
        return _away()

    # --- what is shown

    def _page(
        self,
        request: web.Request,
        facts: Facts,
        given: dict[str, str] | None = None,
        wrong: str = "",
        status: HTTPStatus = HTTPStatus.BAD_REQUEST,
    ) -> web.Response:
        given = given or {}
        problem = tag("p", wrong, class_="wrong", role="alert") if wrong else None
        if facts["kind"] == "reset":
            text = page(f"A new password for {facts['jid']}", _reset_form(facts, problem), _until(facts))
        else:
            text = page(_title(facts), *self._invitation(request, facts, given, problem), _until(facts))
        return _answered(status if wrong else HTTPStatus.OK, text)

    def _invitation(
        self, request: web.Request, facts: Facts, given: dict[str, str], problem: Markup | None
    ) -> list[Markup | None]:
        is_contact = facts["kind"] == "contact"
        button = tag("a", "Open in your app", class_="button", href=facts["uri"])
        hint = "This needs an app for XMPP. Without one, the button does nothing: get one first, then come back here."
        suggested = self._suggestions(request)
        with_app = tag("section", tag("h2", "With an app"), tag("p", button), tag("p", hint), suggested)
        known = tag("p", f"Add {facts['from']} as a contact, with an account that you have or a new one.")
        form = _register_form(facts, given, problem) if facts["may_register"] else None
        return [known if is_contact else None, with_app, form]

    def _suggestions(self, request: web.Request) -> Markup:
        here = platform_of(request.headers.get("User-Agent", ""))
        names = sorted(self._clients, key=lambda platform: (platform != here, list(PLATFORMS).index(platform)))
        here_now = [tag("li", "In this browser: ", tag("a", "web chat", href="/"))] if self._has_chat else []
        items = [tag("li", f"{PLATFORMS[platform]}: ", *_links(self._clients, platform)) for platform in names]
        every = tag("li", tag("a", "All apps", href=_CLIENTS_LIST, rel="noreferrer"))
        return tag("ul", *here_now, *items, every)


def _links(clients: Clients, platform: str) -> list[str]:
    written: list[str] = []
    for client in clients[platform]:
        written += [", "] if written else []
        written.append(tag("a", client.name, href=client.url, rel="noreferrer"))
    return written


def _title(facts: Facts) -> str:
    if facts["from"]:
        return f"{facts['from']} invites you to chat"
    return f"You are invited to {facts['domain']}"


def _until(facts: Facts) -> Markup | None:
    if facts["expires_at"] is None:
        return None
    left_s = facts["expires_at"] - time.time()
    moment = datetime.fromtimestamp(facts["expires_at"], UTC)
    shown = f"{moment:%H:%M} UTC today" if left_s < 3_600 * 12 else f"{moment.day} {moment:%B %Y}, {moment:%H:%M} UTC"
    return tag("p", f"This link is good until {shown}.")


def _register_form(facts: Facts, given: dict[str, str], problem: Markup | None) -> Markup:
    chosen = facts["jid"].partition("@")[0]
    name: list[Markup] = []
    if chosen:
        name.append(tag("p", "Your address will be ", tag("strong", facts["jid"])))
        # For the browser's store of passwords: nobody looks at what comes back.
        name.append(tag("input", type="text", name="username", value=chosen, autocomplete="username", readonly=True))
    else:
        field = tag(
            "input", type="text", name="username", required=True, maxlength="200", value=given.get("username", ""),
            autocomplete="username", autocapitalize="none", spellcheck="false",
        )  # fmt: skip
        name.append(tag("label", f"User name, before @{facts['domain']}", field))
    submit = tag("button", "Make the account", type="submit")
    form = tag("form", *name, *_passwords(), submit, method="post", accept_charset="utf-8")
    return tag("section", tag("h2", f"Or make an account at {facts['domain']} here"), problem, form)


def _reset_form(facts: Facts, problem: Markup | None) -> Markup:
    name = tag(
        "input", type="text", name="username", value=facts["jid"], autocomplete="username", readonly=True,
        aria_label="Account",
    )  # fmt: skip
    end = tag("label", tag("input", type="checkbox", name="end", value="1"), "Sign out wherever I am signed in",
              class_="choice")  # fmt: skip
    submit = tag("button", "Set the password", type="submit")
    form = tag("form", name, *_passwords(), end, submit, method="post", accept_charset="utf-8")
    return tag("section", problem, form)


def _passwords() -> list[Markup]:
    return [
        tag(
            "label",
            label,
            tag("input", type="password", name=name, required=True, maxlength="1024", autocomplete="new-password"),
        )
        for label, name in (("Password", "password"), ("Password again", "again"))
    ]


def _welcome(facts: Facts, bare: str, suggestions: Markup) -> str:
    lines = [tag("p", "Sign in with this address and your password, in any app for XMPP:"), suggestions]
    if facts["contact"]:
        lines.append(tag("p", f"{facts['contact']} is your first contact."))
    return page("Your account is ready", tag("section", tag("p", tag("strong", bare)), *lines))


def _condition(answer: Answer) -> str:
    return answer.value if isinstance(answer.value, str) else str(answer.value[0])


def _answered(status: HTTPStatus, text: str) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8")


def _unknown() -> web.Response:
    words = "It is not known here, or its time is over. Ask whoever sent it for a new one."
    return _answered(HTTPStatus.NOT_FOUND, page("This link leads nowhere", tag("section", tag("p", words))))


def _used_up() -> web.Response:
    words = "It has been used already, as often as it may be. If that was you, sign in with your app."
    return _answered(HTTPStatus.GONE, page("This link is used up", tag("section", tag("p", words))))


def _away() -> web.Response:
    words = "The server cannot do this right now. Try again in a minute."
    return _answered(HTTPStatus.SERVICE_UNAVAILABLE, page("Not right now", tag("section", tag("p", words))))
