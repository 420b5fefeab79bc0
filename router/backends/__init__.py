"""Who checks the passwords and tokens of a domain that does not keep its passwords here.

One file for each kind of back end; this one chooses and measures. A back end says yes or no, or is `Away`: that it
cannot be reached, or talks nonsense, is never a wrong password.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

from cluster import authentication as settings
from cluster import logs, metrics
from cluster.config import Config
from cluster.process import CannotStart
from router.backends.backend import CHECK_S, Away, Backend, TokenBackend, localpart

log = logs.get_logger()

NAMES: Final = ("ldap", "jwt", "http")
EXTRAS: Final = {"ldap3": "ldap", "jwt": "oidc"}  # packages by which a back end works -> what brings them

checks = metrics.counter(
    "stentor_router_backend_checks_total",
    "Passwords and tokens that a back end was asked about: away means that it could not say",
    {"backend": NAMES, "result": ["accepted", "refused", "away"]},
)
check_seconds = metrics.histogram(
    "stentor_router_backend_check_seconds", "Time until a back end has said, or was given up", {"backend": NAMES}
)

T = TypeVar("T")


class Backends:
    """The back ends of a router, by domain. Domains that are not here keep their passwords in the database."""

    def __init__(self, by_domain: Mapping[str, tuple[str, Backend]]) -> None:
        self._by_domain = by_domain
        self._away: set[str] = set()  # domains, so that the log tells of changes only

    def __contains__(self, domain: str) -> bool:
        return domain in self._by_domain

    async def check_password(self, username: str, domain: str, password: str) -> bool:
        """Whether the back end of this domain takes the password. Raises Away."""
        if not password or "\0" in password:
            return False
        _, backend = self._by_domain[domain]
        return await self._measured(domain, backend.check_password(username, domain, password), bool)

    async def check_token(self, domain: str, token: str) -> tuple[str | None, str]:
        """The localpart that a token is for, None if it is for nobody here, and where clients learn of the provider.
        Raises Away."""
        _, backend = self._by_domain[domain]
        if not isinstance(backend, TokenBackend):
            return None, ""
        found = await self._measured(domain, backend.check_token(token), lambda name: name is not None)
        return localpart(found, domain) if found is not None else None, backend.configuration

    async def stop(self) -> None:
        """Give up what is under way."""
        for _, backend in self._by_domain.values():
            await backend.stop()

    async def _measured(self, domain: str, check: Awaitable[T], accepts: Callable[[T], bool]) -> T:
        name, _ = self._by_domain[domain]
        started = time.perf_counter()
        result = "away"
        try:
            async with asyncio.timeout(CHECK_S):
                found = await check
            result = "accepted" if accepts(found) else "refused"
        except (Away, TimeoutError) as problem:
            if domain not in self._away:
                self._away.add(domain)
                log.warning("backend_away", local=domain, backend=name, problem=str(problem) or "no answer in time")
            raise problem if isinstance(problem, Away) else Away("no answer in time") from problem
        finally:
            checks.labels(name, result).inc()
            check_seconds.labels(name).observe(time.perf_counter() - started)
        if domain in self._away:
            self._away.discard(domain)
            log.info("backend_back", local=domain, backend=name)
        return found


def from_config(config: Config) -> Backends:
    """The back ends that the configuration names; none of them is spoken to yet. Raises CannotStart."""
    found = {}
    for domain, chosen in config.authentication.domains.items():
        key = f"authentication.domains.{domain}"
        if domain not in config.server.domains:
            raise CannotStart(f"{key}: {domain} is not served here. Add it to server.domains, or remove the key")
        try:
            backend = _make(chosen)
        except ModuleNotFoundError as problem:
            extra = EXTRAS.get(problem.name or "")
            if extra is None:
                raise
            remedy = f"Install the extra {extra}: pip install 'stentor[{extra}]'"
            raise CannotStart(f"{key}: {problem.name} is not installed. {remedy}") from problem
        except (OSError, ValueError) as problem:  # a file that is not there, or is not what it should be
            raise CannotStart(f"{key}: {problem}. Check the files that it names") from problem
        if backend is not None:
            found[domain] = chosen.backend, backend
    return Backends(found)


def _make(chosen: settings.Backend) -> Backend | None:
    """One back end. What it needs is imported here, for most servers need none of it."""
    match chosen:
        case settings.Ldap():
            from router.backends.ldap import LdapBackend

            return LdapBackend(chosen)
        case settings.Jwt():
            from router.backends.jwt import JwtBackend

            return JwtBackend(chosen)
        case settings.Http():
            from router.backends.http import HttpBackend

            return HttpBackend(chosen)
        case _:
            return None
