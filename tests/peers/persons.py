"""Programs that play a person: other people's libraries in processes of their own, told by JSON lines what to do."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.peers.common import WAIT_S, Inbox, Server
from tests.support.cluster import FACTOR, Account

HERE: Final = Path(__file__).parent


class Person:
    """A program that has signed in. Use it as a context manager."""

    def __init__(self, command: list[str]) -> None:
        environment = {**os.environ, "NODE_TLS_REJECT_UNAUTHORIZED": "0", "NODE_NO_WARNINGS": "1"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.said: Inbox[Any] = Inbox("line")
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        try:
            first = self.said.take(seconds=2 * WAIT_S)
        except BaseException:
            self.close()
            raise
        self.jid = first if isinstance(first, str) else first.get("jid", first)
        assert isinstance(self.jid, str), first

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(("{", "[", '"')):
                self.said.put(json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait(WAIT_S * FACTOR)
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def tell(self, *words: Any) -> None:
        """What it shall do."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()


class Nbxmpp(Person):
    """nbxmpp, the library of Gajim, as Debian has it."""

    def __init__(self, server: Server, account: Account) -> None:
        local, _, domain = account.jid.partition("@")
        script = str(HERE / "nbxmpp_person.py")
        super().__init__(["/usr/bin/python3", script, server.host, str(server.port), domain, local, account.password])

    def ask(self, *words: Any) -> Any:
        """The result of a request."""
        self.tell(*words)
        answer = self.said.take(lambda said: "result" in said or "error" in said)
        assert "result" in answer, answer
        return answer["result"]

    def event(self, node: str) -> dict[str, Any]:
        """The next notification of a node."""
        found: dict[str, Any] = self.said.take(lambda said: said.get("event") == node)
        return found


class XmppJs(Person):
    """The npm package @xmpp/client."""

    def __init__(self, server: Server, account: Account, service: str = "") -> None:
        """`service`: the URL of a WebSocket, instead of TCP."""
        local, _, domain = account.jid.partition("@")
        script = str(HERE / "xmppjs" / "person.mjs")
        service = service or f"xmpp://{server.host}:{server.port}"
        super().__init__(["node", script, service, domain, local, account.password])

    def iq(self, type: str, inner: str, to: str | None = None) -> Any:
        """The answer's XML, or {"condition": …}."""
        self.tell("iq", type, to, inner)
        return self.said.take()

    def again(self, previd: str = "") -> dict[str, Any]:
        """Lose the connection and come back; how: {"mechanism", "resumed", "jid"}. `previd` instead of the stream that
        it had."""
        self.tell("again", previd)
        return dict(self.said.take(lambda said: "mechanism" in said))

    def wait(self, text: str) -> str:
        """The next stanza that has this text."""
        self.tell("wait", text)
        return str(self.said.take())

    def message(self, to: str, text: str) -> None:
        """A chat message."""
        self.tell("message", to, text)


class Strophe(Person):
    """The npm package strophe.js. `service`: the URL of BOSH or a WebSocket."""

    def __init__(self, service: str, account: Account) -> None:
        super().__init__(["node", str(HERE / "strophe" / "person.mjs"), service, account.jid, account.password])

    def iq(self, type: str, inner: str, to: str | None = None) -> Any:
        """The answer's XML."""
        self.tell("iq", type, to, inner)
        return self.said.take()

    def message(self, to: str, text: str) -> None:
        """A chat message."""
        self.tell("message", to, text)

    def wait(self, text: str) -> str:
        """The next stanza that has this text."""
        self.tell("wait", text)
        return str(self.said.take())

    def leave(self) -> None:
        """Close the stream; returns when it is closed."""
        self.tell("close")
        self.said.take(lambda said: isinstance(said, dict) and "disconnected" in said)
