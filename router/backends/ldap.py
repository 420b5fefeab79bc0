"""The back end `ldap`: a directory is asked by a bind as the user (RFC 4511, 4.2; RFC 4513).

ldap3 blocks, so each question has a thread of its own for a moment, of a small pool. A question is one connection to
the first of the servers that answers. TLS is verified by Python's own ssl, whatever ldap3 would do.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from cluster.authentication import Ldap
from router.backends.backend import CHECK_S, Away

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # COMPAT ldap3 2.9.1 uses old names of pyasn1
    import ldap3
    from ldap3.core.exceptions import LDAPException

WAITING: Final = 200  # sign-ins; then one is told to come back later

# RFC 4511, Appendix A: what a directory says of a wrong password, an entry that is not there, or one that may not sign
# in now (locked, expired). Everything else is no answer to the question.
SUCCESS: Final = 0
REFUSED: Final = {
    19: "constraintViolation",
    32: "noSuchObject",
    48: "inappropriateAuthentication",
    49: "invalidCredentials",
    53: "unwillingToPerform",
}

_IN_FILTER = re.compile(r"[\\*()\0]")
_IN_DN = re.compile(r'["#+,;<=>\\]|^ | $')


def escape_filter(value: str) -> str:
    """A value in a search filter (RFC 4515, 3)."""
    return _IN_FILTER.sub(lambda found: f"\\{ord(found[0]):02x}", value)


def escape_dn(value: str) -> str:
    """A value in a distinguished name (RFC 4514, 2.4)."""
    return _IN_DN.sub(lambda found: f"\\{found[0]}", value).replace("\0", "\\00")


class _Tls(ldap3.Tls):  # type: ignore[misc]  # ldap3 has no types
    """TLS by a context of ours."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._context = context

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        """Replace the connection's socket; the certificate has to be for the host of the settings."""
        connection.socket = self._context.wrap_socket(
            connection.socket, server_hostname=connection.server.host, do_handshake_on_connect=do_handshake
        )


class LdapBackend:
    """One directory, with all its servers."""

    def __init__(self, settings: Ldap) -> None:
        """Raises OSError or ValueError for settings.ca."""
        self._settings = settings
        self._tls = _Tls(ssl.create_default_context(cafile=settings.ca))
        self._threads = ThreadPoolExecutor(settings.threads, "ldap")
        self._waiting = 0

    async def check_password(self, username: str, domain: str, password: str) -> bool:
        """Whether the directory lets the user bind. Raises Away."""
        if self._waiting >= WAITING:
            raise Away("too many wait for the directory")
        self._waiting += 1
        give_up_at = time.monotonic() + CHECK_S
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._ask, username, domain, password, give_up_at)
        finally:
            self._waiting -= 1

    async def stop(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # --- in a thread

    def _ask(self, username: str, domain: str, password: str, give_up_at: float) -> bool:
        problem = "there was no time for it"
        for server in self._settings.servers:
            if time.monotonic() >= give_up_at:  # nobody waits for the answer any more
                break
            try:
                return self._ask_one(server, username, domain, password)
            except (Away, LDAPException, OSError) as failed:
                problem = f"{server}: {failed}"
        raise Away(problem)

    def _ask_one(self, server: str, username: str, domain: str, password: str) -> bool:
        settings = self._settings
        if not password:
            return False  # RFC 4513, 5.1.2: such a bind succeeds, and proves nothing
        connection = self._open(server)
        try:
            if settings.dn:
                values = {"user": escape_dn(username), "domain": escape_dn(domain)}
                return _binds(connection, _filled(settings.dn, values), password)
            if settings.bind_dn and not _binds(connection, settings.bind_dn, settings.bind_password):
                raise Away("it does not take bind_dn and bind_password")
            found = self._find(connection, username, domain)
            if found is None:
                # One bind less would tell by the time it takes that there is no such user.
                with contextlib.suppress(Away):
                    _binds(connection, settings.base, password)
                return False
            return _binds(connection, found, password)
        finally:
            with contextlib.suppress(LDAPException, OSError):  # what was said before counts
                connection.unbind()

    def _open(self, address: str) -> Any:
        """A connection, encrypted as the settings want it. Raises LDAPException or Away."""
        settings = self._settings
        server = ldap3.Server(address, tls=self._tls, get_info=ldap3.NONE, connect_timeout=settings.timeout_s)
        connection = ldap3.Connection(
            server,
            receive_timeout=settings.timeout_s,
            auto_bind=ldap3.AUTO_BIND_NONE,
            auto_referrals=False,  # a referral would carry the password to another server
            check_names=False,
            read_only=True,
        )
        connection.open(read_server_info=False)
        if not server.ssl and settings.starttls and not connection.start_tls(read_server_info=False):
            connection.unbind()
            raise Away(f"it does not begin TLS: {connection.result['description']}")
        return connection

    def _find(self, connection: Any, username: str, domain: str) -> str | None:
        """The DN of the one entry that is the user's. Raises Away."""
        settings = self._settings
        values = {"user": escape_filter(username), "domain": escape_filter(domain)}
        connection.search(
            settings.base,
            _filled(settings.filter, values),
            attributes=[ldap3.NO_ATTRIBUTES],
            size_limit=2,
            time_limit=settings.timeout_s,
        )
        entries = [entry["dn"] for entry in connection.response or () if entry["type"] == "searchResEntry"]
        if len(entries) > 1:
            raise Away("several entries are for one user: make filter stricter")
        if connection.result["result"] != SUCCESS:
            raise Away(f"it does not search: {connection.result['description']}")
        return entries[0] if entries else None


def _binds(connection: Any, dn: str, password: str) -> bool:
    """Whether a simple bind succeeds. Raises Away where the directory has no opinion."""
    connection.user, connection.password, connection.authentication = dn, password, ldap3.SIMPLE
    if connection.bind(read_server_info=False):
        return True
    code = connection.result["result"]
    if code not in REFUSED:
        raise Away(f"it answers {connection.result['description'] or code} to a bind")
    return False


def _filled(template: str, values: dict[str, str]) -> str:
    """The template with its values; braces in a value are only that."""
    return re.sub(r"\{(\w+)\}", lambda found: values[found[1]], template)
