"""What all our TLS listeners have in common: versions and ciphers, which certificate for which name, and its renewal.

`c2s/tls.py` and `s2s/tls.py` each make of a certificate the contexts that they need, and keep them in `Certificates`,
which follows the files: whoever renews a certificate replaces them (or the symbolic links that lead to them), and new
connections get the new one, while the old ones go on as they are.

    process.essential("certificates", certificates.follow())
    process.on_hangup(certificates.renew)
    certificates.export_expiry()
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeVar, cast

from cryptography import x509
from prometheus_client import REGISTRY, CollectorRegistry

from cluster import logs, metrics
from cluster.certificates import CertificateError, dns_names, read_certificate, to_dns

log = logs.get_logger()

# TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325, 4.2); TLS 1.3 has nothing else.
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
LOOK_S: Final = 30.0  # how often the files are looked at

Pair = tuple[Path, Path]  # certificate chain and private key, both PEM
Contexts = TypeVar("Contexts")
Stamp = tuple[tuple[int, int, int], ...]


class _Own(NamedTuple, Generic[Contexts]):
    """One of our certificates, loaded."""

    contexts: Contexts
    expires_at: float  # Unix seconds


class _Loaded(NamedTuple, Generic[Contexts]):
    by_name: dict[str, _Own[Contexts]]
    default: _Own[Contexts]
    stamp: Stamp


class Certificates(Generic[Contexts]):
    """The certificates of our domains, each with the contexts that show it."""

    def __init__(self, pairs: Mapping[str, Pair], make: Callable[[Pair, x509.Certificate], Contexts]) -> None:
        """Load each pair by the domain it is for, which may be a wildcard ("*.example.org").

        A certificate also serves the DNS names that it holds, where no other is given for them; the first is for all
        the rest. `make` is called for each pair, with the certificate; it may raise CertificateError, as this does.
        """
        if not pairs:
            raise ValueError("TLS needs a certificate")
        self._pairs = dict(pairs)
        self._make = make
        self._loaded = self._load()
        self._complained: str = ""
        self.was_renewed = False

    @property
    def first(self) -> Pair:
        """The files of the certificate that is for all names which have no other."""
        return next(iter(self._pairs.values()))

    def choose(self, name: str | None) -> Contexts:
        """The contexts for this name (as DNS writes it; None: none was asked for)."""
        return self._own(name).contexts

    def expires_at(self, name: str) -> float:
        """When the certificate for this name expires, Unix seconds."""
        return self._own(name).expires_at

    def _own(self, name: str | None) -> _Own[Contexts]:
        if name is None:
            return self._loaded.default
        by_name, name = self._loaded.by_name, name.lower()
        return by_name.get(name) or by_name.get("*." + name.partition(".")[2]) or self._loaded.default

    def describe(self) -> list[tuple[str, list[str], float]]:
        """File, the names of ours that are shown it, and when it expires, of each certificate in use."""
        names: dict[Pair, list[str]] = {}
        for domain, pair in self._pairs.items():
            names.setdefault(pair, []).append(domain)
        return [(str(pair[0]), sorted(of), self.expires_at(to_dns(of[0]))) for pair, of in names.items()]

    # --- renewal

    def reload(self, *, force: bool = False) -> bool:
        """Read the files again if any has changed, or if forced to; new connections then get what is in them.

        Raises CertificateError where they cannot be used, as in the midst of a renewal; what was loaded before stays in
        use, and the next call tries again.
        """
        if not force and stamp(self._files()) == self._loaded.stamp:
            return False
        self._loaded = self._load()
        self.was_renewed = True
        return True

    def renew(self, *, force: bool = True) -> None:
        """`reload`, and tell in the log what came of it: a problem once, as long as it is the same."""
        try:
            is_new = self.reload(force=force)
        except CertificateError as problem:
            if force or str(problem) != self._complained:
                self._complained = str(problem)
                log.warning(
                    "certificates_not_reloaded", path=str(problem.file), problem=problem.problem,
                    remedy=f"{problem.remedy} Until then the certificates of before are shown.",
                )  # fmt: skip
            return
        self._complained = ""
        if is_new:
            log.info("certificates_reloaded", count=len(set(self._pairs.values())))

    async def follow(self, every_s: float = LOOK_S) -> None:
        """Look at the files now and then, for ever."""
        while True:
            await asyncio.sleep(every_s)
            self.renew(force=False)

    def export_expiry(self, registry: CollectorRegistry = REGISTRY) -> None:
        """The metric that says when they expire, always that of the certificates in use."""
        metrics.sampled_gauge(
            "stentor_certificate_expiry_timestamp_seconds",
            "When the certificate of a served domain expires, Unix seconds",
            ("name",),
            {(name,): partial(self.expires_at, to_dns(name)) for name in self._pairs},
            registry,
        )

    def _files(self) -> Iterable[Path]:
        return (file for pair in self._pairs.values() for file in pair)

    def _load(self) -> _Loaded[Contexts]:
        seen = stamp(self._files())  # before the files are read: what changes meanwhile is seen by the next reload
        loaded: dict[Pair, _Own[Contexts]] = {}
        found: dict[str, _Own[Contexts]] = {}
        given: dict[str, _Own[Contexts]] = {}
        for domain, pair in self._pairs.items():
            if pair not in loaded:
                certificate = read_certificate(pair[0])
                expires_at = certificate.not_valid_after_utc.timestamp()
                loaded[pair] = _Own(self._make(pair, certificate), expires_at)
                for name in dns_names(certificate):
                    found.setdefault(name, loaded[pair])
            given[to_dns(domain)] = loaded[pair]
        return _Loaded(found | given, next(iter(loaded.values())), seen)


def new_context(protocol: int, pair: Pair | None) -> ssl.SSLContext:
    """A context that shows this certificate, if any (`protocol`: ssl.PROTOCOL_TLS_...). Raises CertificateError."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(CIPHERS)
    if pair is None:
        return context
    certificate, key = pair
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except OSError as problem:  # ssl.SSLError is one
        raise _explain(problem, certificate, key) from problem
    return context


def chain_of(ssl_object: ssl.SSLObject | ssl.SSLSocket) -> tuple[bytes, ...]:
    """What the peer showed in its handshake (DER, its own certificate first); empty if it showed none."""
    leaf = ssl_object.getpeercert(binary_form=True)
    if leaf is None:
        return ()
    if hasattr(ssl_object, "get_unverified_chain"):  # Python 3.13
        return tuple(ssl_object.get_unverified_chain())
    import _ssl

    inner = getattr(ssl_object, "_sslobj", None)
    if inner is None or not hasattr(inner, "get_unverified_chain"):
        return (leaf,)
    chain = inner.get_unverified_chain() or ()
    return tuple(cast(bytes, certificate.public_bytes(_ssl.ENCODING_DER)) for certificate in chain) or (leaf,)


def _no_password() -> str:
    """Asked for when the key is encrypted; without this, OpenSSL would ask on the terminal."""
    return ""


def _explain(problem: OSError, certificate: Path, key: Path) -> CertificateError:
    if not isinstance(problem, ssl.SSLError):
        return CertificateError(key, f"cannot read the key: {problem.strerror}", "Check the path and who may read it.")
    if problem.reason == "KEY_VALUES_MISMATCH":
        return CertificateError(key, f"this is not the key of {certificate}", "Name the key that belongs to it.")
    remedy = "Name a private key in PEM that has no password, and a certificate that OpenSSL accepts as safe."
    return CertificateError(key, f"cannot use the key with {certificate}: {problem.reason or problem}", remedy)


def stamp(files: Iterable[Path]) -> Stamp:
    """Changes when a file does, also by a new file under the old name; a missing file is a state as well."""
    stamps = []
    for file in sorted(set(files)):
        try:
            status = os.stat(file)  # of what a symbolic link leads to
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            stamps.append((0, 0, 0))
    return tuple(stamps)
