"""Drives go-sendxmpp (Debian's package): sends as a shell script does, and listens as a person in a terminal does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Final

from tests.peers.common import WAIT_S, Inbox
from tests.support.cluster import FACTOR, Account, RunningCluster

PROGRAM: Final = "go-sendxmpp"
_LINE: Final = re.compile(r"\S+ (\S+): (.*)")  # when, bare JID, body
_OWN_PRESENCE: Final = re.compile(r"<presence [^>]*\bfrom=\"([^\"]+/[^\"]+)\"")


def knows(word: str) -> bool:
    """Whether this version has heard of it: versions differ in what they sign in by."""
    path = shutil.which(PROGRAM)
    assert path is not None
    return word.encode() in Path(path).read_bytes()


def command(cluster: RunningCluster, account: Account, *, direct_tls: bool = False, verify: bool = True) -> list[str]:
    """How it is called for this account; `verify`: the environment names a certificate to trust."""
    port = cluster.tls_port if direct_tls else cluster.port
    server = ["-j", f"{cluster.host}:{port}", *(["-t"] if direct_tls else []), *([] if verify else ["-n"])]
    return [PROGRAM, "-u", account.jid, "-p", account.password, *server]


def environment(cluster: RunningCluster) -> dict[str, str]:
    """Nobody's own configuration, and the cluster's certificate as the one that Go trusts."""
    return {**os.environ, "HOME": str(cluster.directory), "SSL_CERT_FILE": str(cluster.certificate)}


def send(
    cluster: RunningCluster, account: Account, to: str, body: str, *, direct_tls: bool = False, trusts: bool = True
) -> subprocess.CompletedProcess[str]:
    """Send one message; what it printed. `trusts`: whether it knows the certificate."""
    variables = environment(cluster)
    if not trusts:
        del variables["SSL_CERT_FILE"]
    return subprocess.run(
        [*command(cluster, account, direct_tls=direct_tls), to],
        input=body, capture_output=True, text=True, timeout=WAIT_S * FACTOR, check=False, env=variables,
    )  # fmt: skip


class Listener:
    """`go-sendxmpp --listen`, once it is available. Use it as a context manager."""

    def __init__(
        self, cluster: RunningCluster, account: Account, *, direct_tls: bool = False, verify: bool = True
    ) -> None:
        self.bare = account.jid
        self.messages: Inbox[tuple[str, str]] = Inbox("message")
        # --debug changes only what comes on stderr: all XML received. It is how to know that the server has answered
        # the initial presence: before that, a message for the bare JID finds nobody.
        self._process = subprocess.Popen(
            [*command(cluster, account, direct_tls=direct_tls, verify=verify), "--listen", "--debug"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
            env=environment(cluster),
        )  # fmt: skip
        self._seen: Inbox[str] = Inbox("presence of its own")
        self._readers = [
            threading.Thread(target=self._read_messages, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_debugging, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        try:
            self.jid = self._seen.take()
        except TimeoutError:
            self.close()
            raise

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End it, as Ctrl-C does."""
        self._process.terminate()
        self._process.wait(WAIT_S * FACTOR)
        for reader in self._readers:
            reader.join()

    def body(self, from_: str) -> str:
        """The next message that it printed as coming from this bare JID."""
        return self.messages.take(lambda message: message[0] == from_)[1]

    def _read_messages(self, output: IO[str]) -> None:
        with output:
            for line in output:
                if (match := _LINE.fullmatch(line.rstrip("\n"))) is not None:
                    self.messages.put((match[1], match[2]))

    def _read_debugging(self, output: IO[str]) -> None:
        text = ""
        with output:
            while chunk := os.read(output.fileno(), 65_536):
                text += chunk.decode(errors="replace")
                for match in _OWN_PRESENCE.finditer(text):
                    if match[1].partition("/")[0] == self.bare:
                        self._seen.put(match[1])
                        text = ""
                        break
