"""SASL upgrade tasks (XEP-0480): whoever has signed in with a password gives credentials that its account lacks.

What is advertised is the same for all accounts of a domain; what an account lacks, only who has proved to own it is
asked for. Whether a client gives what is asked for of the password that it has just used, nobody can know: it might as
well have changed the password.

    signed in -> continue -> next -> task-data with the salt -> task-data with the hash -> the next task, or the end
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from cluster.edge import Answer, Edge
from xmpp import errors, ns, sasl
from xmpp.errors import SaslError, StreamError
from xmpp.scram import DIGEST_BYTES, HASHES
from xmpp.stream import Element
from xmpp.xml import element, parse_document

NEXT: Final = f"{ns.SASL2} next"
TASK_DATA: Final = f"{ns.SASL2} task-data"
ABORT: Final = f"{ns.SASL2} abort"

# XEP-0480, 2.1: no -PLUS, "because mechanism upgrades are independent of any channel-binding". The strongest first.
TASKS: Final = {f"UPGR-SCRAM-{name}": name for name in reversed(HASHES)}
CALL_TIMEOUT_S: Final = 10.0


class Host(Protocol):
    """The exchange that the tasks follow."""

    def auth_failed(self, fault: SaslError) -> None:
        """A task has failed, and signing in with it."""

    def upgraded(self, data: bytes | None) -> None:
        """All is done. `data` is what the exchange has left to say."""


class Stream(Protocol):
    """What it goes over."""

    def write(self, data: bytes) -> None:
        """Write to the client."""

    def fail(self, fault: StreamError) -> None:
        """End the stream."""

    def hold(self) -> None:
        """An answer is awaited: input waits."""

    def go_on(self) -> None:
        """Take input again."""


class Task(NamedTuple):
    """One to be done."""

    name: str
    hash: str
    salt: bytes
    iterations: int


class Upgrades:
    """The tasks of one client, one after the other."""

    __slots__ = ("_awaited", "_bare", "_data", "_edge", "_host", "_request", "_stream", "_tasks", "has_continued")

    def __init__(self, host: Host, stream: Stream, edge: Edge) -> None:
        self._host = host
        self._stream = stream
        self._edge = edge
        self._bare = ""
        self._data: bytes | None = None
        self._tasks: deque[Task] = deque()
        self._awaited = NEXT
        self._request: str | None = None
        self.has_continued = False  # <continue/> was sent

    def begin(self, bare: str, wanted: Sequence[str], data: bytes | None) -> None:
        """This account has signed in, and wants these of TASKS. `data` (base64) is what the exchange says last."""
        self._bare = bare
        self._data = data

        def done(answer: Answer) -> None:
            self._request = None
            # Who cannot be asked now signs in as before, and will be asked the next time.
            for hash, salt, iterations in answer.value if answer.ok else ():
                self._tasks.append(Task(f"UPGR-SCRAM-{hash}", hash, salt, iterations))
            self._go_on()

        self._ask("auth.upgrades", (bare, tuple(TASKS[task] for task in wanted)), done)

    def handle(self, event: Element) -> None:
        """What the client says."""
        if event.name == ABORT:
            self._host.auth_failed(errors.Aborted())
        elif event.name != self._awaited:
            # XEP-0388, 2.4: "Servers MUST disconnect Clients immediately if any other traffic is received."
            self._stream.fail(errors.UnsupportedStanzaType("This element is not expected here."))
        elif event.name == NEXT:
            self._on_next(event)
        else:
            self._on_hash(event)

    def cancel(self) -> None:
        """The stream has ended."""
        if self._request is not None:
            self._edge.cancel(self._request)
            self._request = None

    def _go_on(self) -> None:
        """The next task is told, or there is none left."""
        data = self._data
        if not self._tasks:
            self._host.upgraded(data)
            return
        # XEP-0388, 2.6.3: of "the SASL mechanism that has completed", or of the task, which has none.
        self._data = None
        said = [element("additional-data", None, None, data)] if data is not None else []
        tasks = element("tasks", None, None, element("task", None, None, self._tasks[0].name))
        self._awaited, self.has_continued = NEXT, True
        self._stream.write(element("continue", ns.SASL2, None, *said, tasks))
        self._stream.go_on()

    def _on_next(self, event: Element) -> None:
        task = self._tasks[0]
        if event.attributes.get("task") != task.name:
            fault = errors.InvalidMechanism if event.attributes.get("task") else errors.MalformedRequest
            self._host.auth_failed(fault("This is not the task that is to be done."))
            return
        self._awaited = TASK_DATA
        attributes = {"iterations": str(task.iterations)}
        salt = element("salt", ns.SCRAM_UPGRADE, attributes, b64encode(task.salt))
        self._stream.write(element("task-data", ns.SASL2, None, salt))

    def _on_hash(self, event: Element) -> None:
        task = self._tasks[0]
        try:
            salted = _hash(event, DIGEST_BYTES[task.hash])
        except SaslError as fault:
            self._host.auth_failed(fault)
            return

        def done(answer: Answer) -> None:
            self._request = None
            if not answer.ok:
                condition, text = (answer.value, None) if isinstance(answer.value, str) else answer.value
                self._host.auth_failed(errors.sasl_error(condition, text))
                return
            self._tasks.popleft()
            self._go_on()

        self._ask("auth.upgrade", (self._bare, task.hash, task.salt, task.iterations, salted), done)

    def _ask(self, method: str, arguments: tuple[Any, ...], done: Any) -> None:
        self._stream.hold()
        self._request = self._edge.call(self._bare, method, arguments, done, CALL_TIMEOUT_S)


def _hash(event: Element, size: int) -> bytes:
    """SaltedPassword in `<task-data/>` (XEP-0480, 3). Raises SaslError."""
    node = parse_document(b'<x xmlns="%b">%b</x>' % (ns.SASL2.encode(), event.inner))
    given = node.find(f"{{{ns.SCRAM_UPGRADE}}}hash")
    if given is None:
        raise errors.MalformedRequest("There is no <hash/>.")
    text = "".join((given.text or "").split())
    if not text:
        raise errors.MalformedRequest("<hash/> is empty.")
    salted = sasl.decode_payload(text)
    if len(salted) != size:
        raise errors.MalformedRequest("<hash/> does not have the length of this hash.")
    return salted
