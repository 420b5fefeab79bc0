"""What a client says and hears that signs in by XEP-0388, as strings."""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from typing import Final

from c2s import sasl2
from tests.support.streams import HEADER, PASSWORD, ROMEO, plain
from xmpp import ns, tokens

FROM: Final = HEADER.replace("version", f"from='{ROMEO}' version")
AGENT: Final = "<user-agent id='d4565fa7'><software>AwesomeXMPP</software><device>Kiva's Phone</device></user-agent>"
DEVICE: Final = hashlib.sha256(b"d4565fa7").digest()[: sasl2.DEVICE_BYTES]
BOUND: Final = f"<bind xmlns='{ns.BIND2}'><tag>AwesomeXMPP</tag></bind>"
TOKEN: Final = "a-token"


def authenticate(mechanism: str, initial: bytes | None, inner: str = "") -> str:
    """`<authenticate/>`."""
    first = "" if initial is None else f"<initial-response>{b64encode(initial).decode()}</initial-response>"
    return f"<authenticate xmlns='{ns.SASL2}' mechanism='{mechanism}'>{first}{inner}</authenticate>"


def with_password(inner: str = "") -> str:
    """By PLAIN."""
    return authenticate("PLAIN", plain(), inner)


def with_token(inner: str = "", mechanism: str = "HT-SHA-256-NONE", token: str = TOKEN, binding: bytes = b"") -> str:
    """By a token, of the device of AGENT."""
    initial = b"romeo\0" + tokens.prove(token, binding)
    return authenticate(mechanism, initial, f"{AGENT}<fast xmlns='{ns.FAST}'/>{inner}")


def failure(written: str) -> str:
    """The condition of the failure in what was written."""
    found = re.search(rf'<failure xmlns="{ns.SASL2}"><([a-z-]+) xmlns="{ns.SASL}"/>', written)
    assert found is not None, written
    return found[1]


def success(jid: str = ROMEO, inner: str = "", data: str = "") -> str:
    """How `<success/>` begins what was written."""
    additional = f"<additional-data>{data}</additional-data>" if data else ""
    identifier = f"<authorization-identifier>{jid}</authorization-identifier>"
    return f'<success xmlns="{ns.SASL2}">{additional}{identifier}{inner}</success><stream:features>'


def prove(written: str) -> tuple[str, str]:
    """The response to a challenge of SCRAM-SHA-256 whose client-first-message was "n,,n=romeo,r=abc", and what the
    server says then (base64)."""
    challenge = re.fullmatch(rf'<challenge xmlns="{ns.SASL2}">(.*)</challenge>', written)
    assert challenge is not None, written
    first = b64decode(challenge[1]).decode()
    facts = dict(part.split("=", 1) for part in first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), b64decode(facts["s"]), int(facts["i"]))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    final = f"c=biws,r={facts['r']}"
    signed = f"n=romeo,r=abc,{first},{final}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
    proof = b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
    response = b64encode(f"{final},p={proof}".encode()).decode()
    server = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
    said = b64encode(b"v=" + b64encode(server)).decode()
    return f"<response xmlns='{ns.SASL2}'>{response}</response>", said
