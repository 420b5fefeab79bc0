"""Channel binding data of a TLS connection: `tls-exporter` (RFC 9266), `tls-server-end-point`, `tls-unique` (RFC 5929).

Python's `ssl` offers no exporter (as of 3.13). OpenSSL has it, so it is called through ctypes on the connection's
`SSL*`, which lies behind the head of CPython's `_ssl._SSLSocket`. That is a private layout: only versions of Python
where it was found are tried, and there a handshake in memory tests it first. Elsewhere only the end point is offered.
"""

from __future__ import annotations

import ctypes
import hashlib
import ssl
import sys
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

EXPORTER: Final = "tls-exporter"
END_POINT: Final = "tls-server-end-point"
UNIQUE: Final = "tls-unique"

# RFC 9266, 2: the label, a context of zero length (which is not the same as no context), 32 bytes.
_LABEL: Final = b"EXPORTER-Channel-Binding"
_EXPORTED_BYTES: Final = 32

# struct PySSLSocket { PyObject_HEAD; PyObject *Socket; SSL *ssl; ... }, in these versions of CPython.
_KNOWN_LAYOUT: Final = sys.implementation.name == "cpython" and (3, 11) <= sys.version_info[:2] <= (3, 13)
_SSL_OFFSET: Final = object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
_SSL_CTRL_GET_EXTMS_SUPPORT: Final = 122

TlsObject = ssl.SSLObject | ssl.SSLSocket


def bindings(ssl_object: TlsObject, certificate_der: bytes | None) -> dict[str, bytes]:
    """The data of each type that this connection has, the better type first.

    `ssl_object` has finished its handshake; `certificate_der` is the certificate that the server showed in it, None
    where that is not known.
    """
    found = {
        EXPORTER: tls_exporter(ssl_object),
        END_POINT: tls_server_end_point(certificate_der) if certificate_der is not None else None,
        UNIQUE: tls_unique(ssl_object),
    }
    return {binding_type: data for binding_type, data in found.items() if data is not None}


def tls_exporter(ssl_object: TlsObject) -> bytes | None:
    """Keying material that only the two ends of this connection know (RFC 9266).

    None where Python gives no way to it, before the handshake, and with TLS 1.2 without the extended master secret,
    where it would not be unique to the connection (RFC 9266, 4).
    """
    return _export(ssl_object) if exporter_works() else None


def tls_unique(ssl_object: TlsObject) -> bytes | None:
    """The first Finished message of a handshake of TLS 1.2 (RFC 5929, 3); it is not defined for TLS 1.3.

    RFC 5802, 6.1: who has channel binding has this type; clients on TLS 1.2 use it without asking (XEP-0440 is newer
    than they are) and would fail with every -PLUS mechanism. None where there would be no exporter either, for the same
    reasons: without the extended master secret it is not unique (RFC 7627, 1).
    """
    if ssl_object.version() == "TLSv1.3" or tls_exporter(ssl_object) is None:
        return None
    return ssl_object.get_channel_binding("tls-unique")


@lru_cache(maxsize=256)  # a process shows few certificates
def tls_server_end_point(certificate_der: bytes) -> bytes | None:
    """The certificate, hashed as its signature is, or with SHA-256 instead of MD5 and SHA-1 (RFC 5929, 4.1).

    None where the RFC defines no hash, as for Ed25519.
    """
    try:
        algorithm = x509.load_der_x509_certificate(certificate_der).signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if algorithm is None:
        return None
    return hashlib.new("sha256" if algorithm.name in ("md5", "sha1") else algorithm.name, certificate_der).digest()


@cache
def exporter_works() -> bool:
    """Whether `tls_exporter` works in this process, found out once: do both ends of a connection get the same?"""
    if not _KNOWN_LAYOUT or _openssl() is None:
        return False
    try:
        server, client = _handshake_in_memory()
    except ssl.SSLError:  # an OpenSSL without anonymous ciphers
        return False
    exported = _export(server)
    return exported is not None and exported == _export(client)


@cache
def _openssl() -> tuple[Callable[..., int], Callable[..., int]] | None:
    """SSL_export_keying_material and SSL_ctrl of the OpenSSL that the module `ssl` itself uses."""
    import _ssl

    try:
        library = ctypes.CDLL(getattr(_ssl, "__file__", None))  # built in: then the interpreter's own symbols
        export, control = library.SSL_export_keying_material, library.SSL_ctrl
    except (OSError, AttributeError):
        return None
    pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    export.restype, export.argtypes = ctypes.c_int, [pointer, text, size, text, size, text, size, ctypes.c_int]
    control.restype, control.argtypes = ctypes.c_long, [pointer, ctypes.c_int, ctypes.c_long, pointer]
    return export, control


def _export(ssl_object: TlsObject) -> bytes | None:
    functions, inner = _openssl(), getattr(ssl_object, "_sslobj", None)
    if functions is None or inner is None or ssl_object.version() is None:
        return None
    export, control = functions
    pointer = ctypes.c_void_p.from_address(id(inner) + _SSL_OFFSET)
    if ssl_object.version() != "TLSv1.3" and control(pointer, _SSL_CTRL_GET_EXTMS_SUPPORT, 0, None) != 1:
        return None
    out = ctypes.create_string_buffer(_EXPORTED_BYTES)
    if export(pointer, out, len(out), _LABEL, len(_LABEL), b"", 0, 1) != 1:
        return None
    return out.raw


def _handshake_in_memory() -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A server and a client that have shaken hands, without certificate (hence TLS 1.2) and without sockets."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = _anonymous(ssl.PROTOCOL_TLS_SERVER).wrap_bio(to_server, to_client, server_side=True)
    client = _anonymous(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(to_client, to_server)
    for end in (client, server, client, server, client):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass  # its turn comes again
    return server, client


def _anonymous(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH:@SECLEVEL=0")
    return context
