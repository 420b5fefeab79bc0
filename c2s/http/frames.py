"""WebSocket frames of a server (RFC 6455, 5): bytes in, messages out, and the other way round. No sockets.

aiohttp's reader takes frames without a mask, against RFC 6455, 5.1; to see the mask, every head has to be read here,
and then little is left for a reader to do. No extension is negotiated, so no reserved bit means anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
_DATA: Final = (CONTINUATION, TEXT, BINARY)

# Status codes (7.4.1)
NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
UNSUPPORTED_DATA: Final = 1003
INVALID_DATA: Final = 1007
TOO_BIG: Final = 1009
_WHOLE_TEXT: Final = 0x80 | TEXT
_SMALL: Final = [bytes((0x80 | TEXT, length)) for length in range(126)]  # heads of short texts


Message = tuple[int, bytes]  # opcode, payload: of a whole message, or of a control frame


class FrameError(Exception):
    """What a client may not send; the connection ends with this status code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked frame, the only one of its message."""
    length = len(payload)
    if length < 126:
        return bytes((0x80 | opcode, length)) + payload
    if length < 65_536:
        return b"%c\x7e%b%b" % (0x80 | opcode, length.to_bytes(2, "big"), payload)
    return b"%c\x7f%b%b" % (0x80 | opcode, length.to_bytes(8, "big"), payload)


def text_frame(payload: bytes) -> bytes:
    """The same for a text."""
    length = len(payload)
    return _SMALL[length] + payload if length < 126 else frame(TEXT, payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """The frame that ends a connection."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode()[:123])


class Reader:
    """What a client sends."""

    __slots__ = ("_buffer", "_need", "_opcode", "_parts", "_parts_bytes")

    def __init__(self) -> None:
        self._buffer = bytearray()  # the beginning of a frame
        self._need = 0  # bytes that it has to have before it is looked at again
        self._opcode = CONTINUATION  # of a message in fragments
        self._parts: list[bytes] = []
        self._parts_bytes = 0

    def feed(self, data: bytes, limit: int) -> Iterator[Message]:
        """The messages that this input completes; those of data have at most `limit` bytes. Raises FrameError."""
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._need:
                return
            data = bytes(buffer)
            buffer.clear()
        at, end = 0, len(data)
        while at < end:
            if data[at] == _WHOLE_TEXT and self._opcode == CONTINUATION and end - at >= 8:
                length, begin = data[at + 1] - 0x80, at + 6
                if length == 126:
                    length, begin = data[at + 2] << 8 | data[at + 3], at + 8
                if 0 <= length <= limit and begin - at == (6 if length < 126 else 8) and begin + length <= end:
                    at = begin + length
                    yield TEXT, _text(_unmasked(data[begin - 4 : begin], data[begin:at]))
                    continue
            self._need = 2
            if end - at < 2:
                break
            first, second = data[at], data[at + 1]
            opcode, length, head = first & 0x0F, second & 0x7F, 6
            if first & 0x70:
                raise FrameError(PROTOCOL_ERROR, "a reserved bit is set")
            if not second & 0x80:
                raise FrameError(PROTOCOL_ERROR, "a frame is not masked")
            if opcode not in _DATA:
                if length > 125 or not first & 0x80:
                    raise FrameError(PROTOCOL_ERROR, "a control frame is long or fragmented")
            elif length > 125:
                more = 2 if length == 126 else 8
                self._need = 2 + more
                if end - at < self._need:
                    break
                length = int.from_bytes(data[at + 2 : at + 2 + more], "big")
                if length < (126 if more == 2 else 65_536):
                    raise FrameError(PROTOCOL_ERROR, "a length is longer than it need be")
                head = 6 + more
            if opcode in _DATA and length + self._parts_bytes > limit:
                raise FrameError(TOO_BIG, f"a message has more than {limit} bytes")
            self._need = head + length
            if end - at < self._need:
                break
            payload = _unmasked(data[at + head - 4 : at + head], data[at + head : at + head + length])
            at += head + length
            message = self._message(opcode, bool(first & 0x80), payload)
            if message is not None:
                yield message
        buffer += data[at:]

    def _message(self, opcode: int, is_last: bool, payload: bytes) -> Message | None:
        if opcode in (TEXT, BINARY):
            if self._opcode != CONTINUATION:
                raise FrameError(PROTOCOL_ERROR, "a message begins inside of another one")
            if not is_last:
                self._opcode = opcode
        elif opcode == CONTINUATION:
            if self._opcode == CONTINUATION:
                raise FrameError(PROTOCOL_ERROR, "a message goes on that has not begun")
        elif opcode in (CLOSE, PING, PONG):
            return opcode, payload
        else:
            raise FrameError(PROTOCOL_ERROR, "an opcode is not known")
        if not is_last:
            self._parts.append(payload)
            self._parts_bytes += len(payload) + 16  # what it weighs, so that empty ones are bounded, too
            return None
        if opcode == CONTINUATION:
            opcode, self._opcode = self._opcode, CONTINUATION
            payload = b"".join((*self._parts, payload))
            self._parts.clear()
            self._parts_bytes = 0
        return opcode, _text(payload) if opcode == TEXT else payload


def _text(payload: bytes) -> bytes:
    try:
        payload.decode()
    except UnicodeDecodeError:
        raise FrameError(INVALID_DATA, "a text is not UTF-8") from None
    return payload


def _unmasked(mask: bytes, data: bytes) -> bytes:
    """As two great numbers: as fast as it gets without C."""
    length = len(data)
    key = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(data, "little") ^ int.from_bytes(key, "little")).to_bytes(length, "little")
