"""ejabberd, without ejabberdctl, epmd or a node name; with a configuration and data of its own."""

from __future__ import annotations

import itertools
import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.support.cluster import FACTOR, Account
from tests.support.peers.ca import Certificate
from tests.support.peers.dns import Zone
from tests.support.peers.process import (
    API,
    C2S,
    C2S_DIRECT_TLS,
    S2S,
    S2S_DIRECT_TLS,
    Process,
    answers,
    free_address,
    missing,
    program,
)
from tests.support.peers.server import publish, trusted_file

API_S: Final = 10.0

_names = itertools.count(1)


class Ejabberd:
    """One ejabberd, which serves these domains, each with its certificate.

    `authority`: whom it trusts. Encryption is required between servers; clients may do without. Whom it cannot verify, it
    asks by dialback (XEP-0220), or without `dialback` refuses. A link that has failed is tried again after
    `retry_delay_s` at most; meanwhile ejabberd bounces. `direct_tls` (XEP-0368): it also listens for it, and says so in
    the DNS, as the first choice. `muc`: rooms at `conference.DOMAIN`, with an archive. `settings`: more top-level
    options.
    """

    def __init__(
        self,
        directory: Path,
        zone: Zone,
        certificates: Mapping[str, Certificate],
        *,
        authority: Path,
        dialback: bool = True,
        retry_delay_s: int = 1,
        direct_tls: bool = False,
        muc: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.host = free_address()
        self.port, self.tls_port = C2S, C2S_DIRECT_TLS
        self.s2s_port, self.s2s_tls_port = S2S, S2S_DIRECT_TLS
        self.domains = list(certificates)
        self.domain = self.domains[0]
        self.directory = directory
        self.certificate = trusted_file(directory, authority, certificates.values())
        configuration = {
            "hosts": self.domains,
            "loglevel": "debug",
            "certfiles": [str(certificate.both) for certificate in certificates.values()],
            "ca_file": str(authority),
            "s2s_use_starttls": "required",
            "s2s_max_retry_delay": retry_delay_s,
            "registration_timeout": "infinity",
            "listen": self._listeners(direct_tls),
            "access_rules": {name: {"allow": "all"} for name in ("c2s", "local", "muc_create")},
            "api_permissions": {"tests": {"who": [{"ip": "127.0.0.0/8"}], "what": "*"}},
            "modules": _modules(dialback, muc),
            **(settings or {}),
        }
        (directory / "ejabberd.yml").write_text(json.dumps(configuration, indent=1))  # JSON is YAML
        (directory / "inetrc").write_text(_inetrc(zone))
        rooms = [f"conference.{domain}" for domain in self.domains] if muc else []
        publish(zone, self.host, [*self.domains, *rooms], direct_tls=direct_tls)
        self.process = Process(
            "ejabberd", directory,
            [program("erl"), "-noinput", "+K", "true", "-mnesia", "dir", f'"{directory / "spool"}"', "-s", "ejabberd"],
            lambda: all(answers(self.host, port) for port in (C2S, S2S, API)),
            {
                "EJABBERD_CONFIG_PATH": str(directory / "ejabberd.yml"),
                "EJABBERD_LOG_PATH": str(directory / "ejabberd.log"),
                "ERL_INETRC": str(directory / "inetrc"),
                "ERL_CRASH_DUMP": str(directory / "crash.dump"),
                "ERL_LIBS": str(_libraries()),
            },
        )  # fmt: skip
        self.process.start()

    def _listeners(self, direct_tls: bool) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [
            {"port": C2S, "module": "ejabberd_c2s", "starttls": True},
            {"port": C2S_DIRECT_TLS, "module": "ejabberd_c2s", "tls": True},
            {"port": S2S, "module": "ejabberd_s2s_in"},
            {"port": API, "module": "ejabberd_http", "request_handlers": {"/api": "mod_http_api"}},
        ]
        if direct_tls:
            found.append({"port": S2S_DIRECT_TLS, "module": "ejabberd_s2s_in", "tls": True})
        return [{**listener, "ip": self.host} for listener in found]

    def command(self, name: str, **arguments: str | int) -> Any:
        """What a command of ejabberd's administration answers, such as `command("connected_users")`."""
        request = urllib.request.Request(f"http://{self.host}:{API}/api/{name}", json.dumps(arguments).encode())
        with urllib.request.urlopen(request, timeout=API_S * FACTOR) as response:
            return json.load(response)

    def account(self, name: str = "user", password: str = "secret", domain: str | None = None) -> Account:
        """A new account with a name of its own, at the first domain or another."""
        domain = domain or self.domain
        local = f"{name}-{next(_names)}"
        self.command("register", user=local, host=domain, password=password)
        return Account(f"{local}@{domain}", password)


def _modules(dialback: bool, muc: bool) -> dict[str, dict[str, Any]]:
    names = [
        "mod_admin_extra", "mod_blocking", "mod_carboncopy", "mod_caps", "mod_disco", "mod_last", "mod_offline", "mod_ping",
        "mod_privacy", "mod_private", "mod_roster", "mod_stream_mgmt", "mod_time", "mod_vcard", "mod_version",
    ]  # fmt: skip
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    found["mod_mam"] = {"default": "always"}
    found["mod_pubsub"] = {"plugins": ["flat", "pep"]}
    if dialback:
        found["mod_s2s_dialback"] = {}
    if muc:
        found["mod_muc"] = {"default_room_options": {"mam": True}}
    return found


def _libraries() -> Path:
    """Where Debian has ejabberd, which depends on the architecture."""
    found = next(Path("/usr/lib").glob("*/ejabberd-*"), None)
    if found is None:
        raise missing("ejabberd")
    return found.parent


def _inetrc(zone: Zone) -> str:
    """How Erlang asks our DNS. In this order: `resolv_conf` behind `nameserver` would forget it again."""
    address = zone.host.replace(".", ",")
    return (
        '{resolv_conf, ""}.\n{hosts_file, ""}.\n{host, {127,0,0,1}, ["localhost"]}.\n'
        f"{{nameserver, {{{address}}}, {zone.port}}}.\n{{lookup, [file, dns]}}.\n"
    )
