"""TLS servers that ask for a certificate and take any: whether to believe it is decided after the handshake.

Another server may show a certificate that we do not trust, and identify itself by dialback (XEP-0220). Python's `ssl`
knows two ways only: not to ask for one, or to break the handshake off. OpenSSL lets a callback decide, which is set
here through ctypes on the context's `SSL_CTX*`. That is a private layout, handled as in `c2s/channel_binding.py`: only
versions of Python where it was found are tried, and there a handshake in memory tests it first (decision 8).
"""

from __future__ import annotations

import ctypes
import ssl
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from cluster.certificates import generate

# struct PySSLContext { PyObject_HEAD; SSL_CTX *ctx; ... }, in these versions of CPython.
_KNOWN_LAYOUT: Final = sys.implementation.name == "cpython" and (3, 11) <= sys.version_info[:2] <= (3, 13)
_CTX_OFFSET: Final = object.__basicsize__

# int callback(X509_STORE_CTX *, void *): stands for the whole verification; 1 goes on with the handshake.
_Verify: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


def _accept(store: int | None, argument: int | None) -> int:
    return 1


_accept_callback: Final = _Verify(_accept)  # OpenSSL keeps its address: it lives as long as the process


def ask_for_any(context: ssl.SSLContext) -> bool:
    """Let this context of a server ask for a certificate, and go on whatever it gets.

    False where that does not work: the context then does not ask, and no peer can prove itself by its certificate.
    """
    if not works():
        context.verify_mode = ssl.CERT_NONE
        return False
    _apply(context)
    return True


@cache
def works() -> bool:
    """Whether it works in this process, found out once: is a stranger's certificate taken, and is it seen?"""
    if not _KNOWN_LAYOUT or _openssl() is None:
        return False
    certificate, key = generate(["localhost"], datetime.now(UTC))
    with tempfile.TemporaryDirectory() as directory:
        pair = Path(directory, "certificate.pem")
        pair.touch(mode=0o600)
        pair.write_bytes(certificate + key)
        server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE
        for context in (server, client):
            context.load_cert_chain(pair)
    _apply(server)
    try:
        return _certificate_seen(server, client) == ssl.PEM_cert_to_DER_cert(certificate.decode())
    except ssl.SSLError:
        return False


def _apply(context: ssl.SSLContext) -> None:
    functions = _openssl()
    assert functions is not None
    set_callback, verify_mode = functions
    context.verify_mode = ssl.CERT_OPTIONAL
    pointer = ctypes.c_void_p.from_address(id(context) + _CTX_OFFSET)
    if verify_mode(pointer) != 1:  # SSL_VERIFY_PEER, as just set: else this is not the pointer
        raise RuntimeError("the layout of ssl.SSLContext is not the expected one")
    set_callback(pointer, _accept_callback, None)


@cache
def _openssl() -> tuple[Callable[..., Any], Callable[..., int]] | None:
    """SSL_CTX_set_cert_verify_callback and SSL_CTX_get_verify_mode of the OpenSSL that `ssl` itself uses."""
    import _ssl

    try:
        library = ctypes.CDLL(getattr(_ssl, "__file__", None))  # built in: then the interpreter's own symbols
        set_callback, verify_mode = library.SSL_CTX_set_cert_verify_callback, library.SSL_CTX_get_verify_mode
    except (OSError, AttributeError):
        return None
    set_callback.restype, set_callback.argtypes = None, [ctypes.c_void_p, _Verify, ctypes.c_void_p]
    verify_mode.restype, verify_mode.argtypes = ctypes.c_int, [ctypes.c_void_p]
    return set_callback, verify_mode


def _certificate_seen(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> bytes | None:
    """What the server sees of the client's certificate in a handshake in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    for end in (client, server, client, server):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass  # its turn comes again
    return server.getpeercert(binary_form=True)
