"""Prosody, with a configuration and data of its own; nothing in /etc is read."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.support.cluster import Account
from tests.support.peers.ca import Certificate
from tests.support.peers.dns import Zone
from tests.support.peers.process import (
    C2S,
    C2S_DIRECT_TLS,
    COMPONENT,
    S2S,
    S2S_DIRECT_TLS,
    Process,
    answers,
    free_address,
    program,
)
from tests.support.peers.server import publish, trusted_file

MODULES: Final = (
    "blocklist", "carbons", "dialback", "disco", "mam", "offline", "pep", "ping", "presence", "roster", "s2s_auth_certs", "vcard",
    "s2s_bidi", "saslauth", "smacks", "time", "tls", "version",
)  # fmt: skip

_names = itertools.count(1)


class Prosody:
    """One Prosody, which serves these domains, each with its certificate.

    `authority`: whom it trusts, clients' and servers' certificates alike. Encryption is required between servers; clients
    may do without. Whom it cannot verify, it asks by dialback (XEP-0220), unless `secure` says that certificates must be
    right: of every domain (True), or of those named. `without`: modules of MODULES that it shall not have, so
    `{"dialback"}` leaves SASL EXTERNAL alone; `modules`: more of them.

    `direct_tls`: it also listens for direct TLS from servers (XEP-0368), and says so in the DNS, as the first choice.
    `muc`: rooms at `conference.DOMAIN`, with an archive. `publishing`: a service at `pubsub.DOMAIN`, where `admin` makes
    nodes. `components` (XEP-0114): JID -> secret; those of `privileged` may
    act for users (XEP-0356): JID -> access -> type, such as `{"roster": "both"}`. `log_level`: debug, info, warn or
    error. `authentication`: what keeps passwords. `settings`: more lines of Lua, global.
    """

    def __init__(
        self,
        directory: Path,
        zone: Zone,
        certificates: Mapping[str, Certificate],
        *,
        authority: Path,
        secure: bool | Sequence[str] = (),
        without: frozenset[str] = frozenset(),
        modules: Sequence[str] = (),
        direct_tls: bool = False,
        muc: bool = False,
        publishing: bool = False,
        components: Mapping[str, str] | None = None,
        privileged: Mapping[str, Mapping[str, str]] | None = None,
        log_level: str = "debug",
        authentication: str = "internal_plain",
        settings: str = "",
    ) -> None:
        assert without <= {*MODULES}, f"not among the modules: {without - {*MODULES}}"
        self.host = free_address()
        self.port, self.tls_port, self.component_port = C2S, C2S_DIRECT_TLS, COMPONENT
        self.s2s_port, self.s2s_tls_port = S2S, S2S_DIRECT_TLS
        self.domains = list(certificates)
        self.domain = self.domains[0]
        self.directory = directory
        self.certificate = trusted_file(directory, authority, certificates.values())
        rooms = [f"conference.{domain}" for domain in self.domains] if muc else []
        services = [f"pubsub.{domain}" for domain in self.domains] if publishing else []
        self._privileged = privileged or {}
        enabled = [*(module for module in MODULES if module not in without), *modules]
        if self._privileged:
            enabled.append("privilege")
        file = directory / "prosody.cfg.lua"
        components = components or {}
        hosts = [
            *map(self._virtual_host, self.domains),
            *map(_rooms, rooms),
            *(f'Component {_lua(name)} "pubsub"\nadmins = {{ {_lua(self.admin)} }}\n' for name in services),
            *(_component(jid, secret, jid in self._privileged) for jid, secret in components.items()),
        ]
        file.write_text(
            "\n".join(
                [
                    self._global(zone, authority, enabled, secure, direct_tls, log_level, authentication),
                    settings,
                    *hosts,
                ]
            )
        )
        self._install(certificates)
        publish(zone, self.host, [*self.domains, *rooms, *services, *components], direct_tls=direct_tls)
        command = [program("prosody"), "-F", "--config", str(file)]
        ports = (C2S, S2S, *([S2S_DIRECT_TLS] if direct_tls else []), *([COMPONENT] if components else []))
        self.process = Process("prosody", directory, command, lambda: all(answers(self.host, port) for port in ports))
        self.process.start()

    def _global(
        self, zone: Zone, authority: Path, enabled: Sequence[str], secure: bool | Sequence[str], direct_tls: bool,
        log_level: str, authentication: str,
    ) -> str:  # fmt: skip
        tls_ports = f"{{ {S2S_DIRECT_TLS} }}" if direct_tls else "{}"
        domains = secure if not isinstance(secure, bool) else ()
        return f"""
            run_as_root = {_lua(os.geteuid() == 0)}
            data_path = {_lua(str(self.directory / "data"))}
            log = {{ {log_level} = {_lua(str(self.directory / "prosody.log"))} }}
            interfaces = {{ "{self.host}" }}
            component_interfaces = {{ "{self.host}" }}
            c2s_ports = {{ {C2S} }}
            c2s_direct_tls_ports = {{ {C2S_DIRECT_TLS} }}
            s2s_ports = {{ {S2S} }}
            s2s_direct_tls_ports = {tls_ports}
            component_ports = {{ {COMPONENT} }}
            http_ports, https_ports = {{}}, {{}}
            unbound = {{ resolvconf = false, forward = "{zone.host}@{zone.port}" }}
            authentication = {_lua(authentication)}
            c2s_require_encryption = false
            allow_unencrypted_plain_auth = true
            s2s_require_encryption = true
            s2s_secure_auth = {_lua(secure is True)}
            s2s_secure_domains = {_table(domains)}
            modules_enabled = {_table(enabled)}
            certificates = "certs"
            ssl = {{ cafile = {_lua(str(authority))} }}
        """

    def _virtual_host(self, domain: str) -> str:
        entities = "".join(
            f"[{_lua(jid)}] = {{ {''.join(f'{access} = {_lua(type_)}; ' for access, type_ in accesses.items())}}}; "
            for jid, accesses in self._privileged.items()
        )
        return f"VirtualHost {_lua(domain)}\nprivileged_entities = {{ {entities}}}\n"

    def _install(self, certificates: Mapping[str, Certificate]) -> None:
        """Put the certificates where Prosody finds them by itself: the one way that holds for all kinds of ports."""
        folder = self.directory / "certs"
        folder.mkdir()
        for domain, certificate in certificates.items():
            (folder / f"{domain}.crt").symlink_to(certificate.chain)
            (folder / f"{domain}.key").symlink_to(certificate.key)

    # --- accounts

    @property
    def admin(self) -> str:
        """Who may do everything; an account as soon as `make_admin` has made it."""
        return f"admin@{self.domain}"

    def make_admin(self) -> Account:
        """The account of the one who may do everything."""
        return self._write_account("admin", "secret", self.domain)

    def account(self, name: str = "user", password: str = "secret", domain: str | None = None) -> Account:
        """A new account with a name of its own, at the first domain or another."""
        domain = domain or self.domain
        return self._write_account(f"{name}-{next(_names)}", password, domain)

    def _write_account(self, local: str, password: str, domain: str) -> Account:
        folder = self.directory / "data" / _stored(domain) / "accounts"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{_stored(local)}.dat").write_text(f'return {{ ["password"] = {_lua(password)}; }};\n')
        return Account(f"{local}@{domain}", password)


def _rooms(room: str) -> str:
    return f'Component {_lua(room)} "muc"\nmodules_enabled = {{ "muc_mam" }}\nmuc_room_locking = false\n'


def _component(jid: str, secret: str, is_privileged: bool) -> str:
    modules = 'modules_enabled = { "privilege" }\n' if is_privileged else ""  # here, too: it hears of the login
    return f"Component {_lua(jid)}\ncomponent_secret = {_lua(secret)}\n{modules}"


def _lua(value: str | bool) -> str:
    return json.dumps(value, ensure_ascii=False)  # booleans and strings of printable characters are written alike


def _table(words: Sequence[str]) -> str:
    return f"{{ {', '.join(map(_lua, words))} }}"


def _stored(name: str) -> str:
    """How Prosody's file storage writes a name."""
    return re.sub(r"[^A-Za-z0-9]", lambda match: "".join(f"%{byte:02x}" for byte in match[0].encode()), name)
