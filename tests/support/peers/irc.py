"""IRC: the server ngircd, a plain client, and biboumi, which shows IRC's channels as rooms (an XEP-0114 component)."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from tests.peers.common import Inbox
from tests.support.cluster import FACTOR
from tests.support.peers.process import IRC, Process, answers, free_address, program

CONNECT_S: Final = 10.0
NOBODY: Final = 65_534


class Ngircd:
    """One IRC server. It makes every new connection wait for 1 s."""

    def __init__(self, directory: Path) -> None:
        self.host, self.port = free_address(), IRC
        who = f"ServerUID = {NOBODY}\nServerGID = {NOBODY}\n" if os.geteuid() == 0 else ""
        file = directory / "ngircd.conf"
        file.write_text(
            f"[Global]\nName = irc.example\nInfo = test\nListen = {self.host}\nPorts = {self.port}\n{who}"
            "[Limits]\nMaxConnectionsIP = 0\nMaxJoins = 0\nMaxNickLength = 30\n"
            "[Options]\nDNS = no\nIdent = no\nPAM = no\n"
        )
        command = [program("ngircd"), "-n", "-f", file]
        self.process = Process("ngircd", directory, command, lambda: answers(self.host, self.port))
        self.process.start()


class Biboumi:
    """The gateway to IRC, as the component `jid` of the server that listens for it at this address.

    The channel `#c` of an IRC server is the room `#c%HOST@JID`; who is there as `nick`, `nick%HOST@JID`. Before it comes to
    port 6667 it tries 6697 and 6670, and tells the user of each in messages from `HOST@JID`, where the server's greetings
    come from, too.
    """

    def __init__(self, directory: Path, jid: str, secret: str, host: str, port: int) -> None:
        self.jid = jid
        settings = {
            "hostname": jid, "password": secret, "xmpp_server_ip": host, "port": port, "identd_port": 0,
            "db_name": directory / "biboumi.sqlite", "log_file": directory / "biboumi.log", "log_level": 0,
        }  # fmt: skip
        file = directory / "biboumi.cfg"
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        self.process = Process(
            "biboumi", directory, [program("biboumi"), file],
            lambda: self.process.has_logged("Authenticated with the XMPP server"),
        )  # fmt: skip
        self.process.start()

    def room(self, channel: str, server: Ngircd) -> str:
        """The JID of a channel."""
        return f"{channel}%{server.host}@{self.jid}"

    def user(self, nick: str, server: Ngircd) -> str:
        """The JID of somebody on IRC."""
        return f"{nick}%{server.host}@{self.jid}"


class IrcLine(NamedTuple):
    """One line from the server (RFC 2812, 2.3.1); `who` is the nick of a user, or the server."""

    who: str
    command: str
    parameters: tuple[str, ...]


class IrcClient:
    """A client that is registered with the server. It answers pings by itself; what else comes is in `lines`."""

    def __init__(self, server: Ngircd, nick: str) -> None:
        self.nick = nick
        self.lines: Inbox[IrcLine] = Inbox("IRC line")
        self._socket = socket.create_connection((server.host, server.port), CONNECT_S * FACTOR)
        self._socket.settimeout(None)
        self._reader = threading.Thread(target=self._read, name=f"irc {nick}", daemon=True)
        self._reader.start()
        try:
            self.send(f"NICK {nick}")
            self.send(f"USER {nick} 0 * :{nick}")
            self.expect("001")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> IrcClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Be gone, without a word."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # the server was faster
            pass
        self._reader.join()
        self._socket.close()

    def send(self, line: str) -> None:
        """A line as it is."""
        self._socket.sendall(f"{line}\r\n".encode())

    def join(self, channel: str) -> None:
        """Enter a channel, and wait for the list of who is there."""
        self.send(f"JOIN {channel}")
        self.expect("366")

    def say(self, target: str, text: str) -> None:
        """To a channel or a nick."""
        self.send(f"PRIVMSG {target} :{text}")

    def expect(self, command: str, who: str | None = None) -> IrcLine:
        """The next line with this command (from this user). Raises TimeoutError."""
        return self.lines.take(lambda line: line.command == command and who in (None, line.who))

    def _read(self) -> None:
        with self._socket.makefile("r", encoding="utf-8", errors="replace", newline="\r\n") as incoming:
            try:
                for text in incoming:
                    line = _parsed(text.rstrip("\r\n"))
                    if line.command == "PING":
                        self.send(f"PONG :{line.parameters[0]}")
                    else:
                        self.lines.put(line)
            except OSError:  # the connection is gone; whoever waits for a line hears of it
                pass


def _parsed(text: str) -> IrcLine:
    prefix, text = text[1:].split(" ", 1) if text.startswith(":") else ("", text)
    text, colon, last = text.partition(" :")
    command, *parameters = text.split()
    return IrcLine(prefix.partition("!")[0], command, (*parameters, *([last] if colon else [])))
