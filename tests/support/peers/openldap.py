"""Debian's slapd with people in it: on an address of its own, with its data in the folder of the test."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trustme

from tests.support.peers.process import LDAP, LDAPS, Process, answers, free_address, program

SUFFIX: Final = "dc=example,dc=org"
PEOPLE: Final = f"ou=people,{SUFFIX}"
READER: Final = f"cn=reader,{SUFFIX}"
READER_PASSWORD: Final = "only reads"
HOST: Final = "localhost"  # in its certificate, beside its address

_CONFIG: Final = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {directory}/slapd.pid
argsfile {directory}/slapd.args
TLSCertificateFile {directory}/slapd.crt
TLSCertificateKeyFile {directory}/slapd.key
# As some directories are: a name without a password is let in, as nobody (RFC 4513, 5.1.2).
allow bind_anon_cred
database mdb
suffix {suffix}
directory {directory}/data
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact={reader} read by * auth
"""
_TOP: Final = f"""dn: {SUFFIX}
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: {PEOPLE}
objectClass: organizationalUnit
ou: people

dn: {READER}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: {READER_PASSWORD}
"""


class OpenLdap:
    """A directory of `people`: password by relative DN (uid=..., escaped already). The directory exists."""

    def __init__(self, directory: Path, authority: trustme.CA, people: Mapping[str, tuple[str, str]]) -> None:
        """`people` are uid -> (escaped uid for the DN, password)."""
        self.address = free_address()
        (directory / "data").mkdir()
        leaf = authority.issue_cert(HOST, self.address)
        leaf.private_key_pem.write_to_path(str(directory / "slapd.key"))
        leaf.cert_chain_pems[0].write_to_path(str(directory / "slapd.crt"))
        config = directory / "slapd.conf"
        config.write_text(_CONFIG.format(directory=directory, suffix=SUFFIX, reader=READER))
        entries = directory / "people.ldif"
        entries.write_text("\n".join([_TOP, *(_person(uid, *about) for uid, about in people.items())]))
        subprocess.run([program("slapadd"), "-q", "-f", config, "-l", entries], check=True, timeout=60)
        self.process = Process(
            "slapd", directory,
            [program("slapd"), "-f", config, "-h", f"{self.url} {self.tls_url}", "-d", "stats"],
            lambda: answers(self.address, LDAP) and answers(self.address, LDAPS),
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Where STARTTLS is."""
        return f"ldap://{self.address}:{LDAP}"

    @property
    def tls_url(self) -> str:
        """Where TLS comes first."""
        return f"ldaps://{self.address}:{LDAPS}"


def _person(uid: str, escaped: str, password: str) -> str:
    return f"""dn: uid={escaped},{PEOPLE}
objectClass: inetOrgPerson
uid: {uid}
cn: {uid}
sn: {uid}
userPassword: {password}
"""
