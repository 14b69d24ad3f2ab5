"""The box stream: what follows the handshake, one each way. Authenticated, in order, unlimited.

    frame = header 34 B, body
    header = secretbox(nonce n,     length u16 big-endian, the body's 16-byte tag)
    body   = secretbox(nonce n + 1, plain), without its tag

Secure Scuttlebutt's box stream, with bodies of up to 65,535 bytes instead of 4,096: in Python a
call into libsodium costs more than 4 KiB of its work, so whatever is ready in one turn of the
event loop goes into one frame. A header that says length 0 and tag 0 is the goodbye; an end
without it is a cut. A flipped bit, a replayed, dropped or reordered frame fails its tag.

libsodium works on our buffers in place, through the functions that PyNaCl itself calls: PyNaCl's
own bindings copy every body three times, which doubles the cost of sealing. It lets other threads
run meanwhile, so whoever has much to seal or open may do it off the event loop, one job of a
direction at a time.
"""

from __future__ import annotations

from typing import Final

from nacl._sodium import ffi, lib

from garage_lite.core.errors import NodeError
from garage_lite.core.limits import KIB
from garage_lite.core.ports import Buffer

BODY_BYTES_MAX: Final = 65_535
HEADER_BYTES: Final = 34
RECEIVE_BYTES_MIN: Final = 8 * KIB
RECEIVE_BYTES_MAX: Final = 192 * KIB
"""Received and not yet opened, of one link: three frames, so that one can be opened while the
next arrive. A link on which only small frames come keeps to a small buffer."""
_TAG_BYTES: Final = 16
_LENGTH_BYTES: Final = HEADER_BYTES - 2 * _TAG_BYTES
_NONCES: Final = 1 << 192
_GOODBYE: Final = bytes(_LENGTH_BYTES + _TAG_BYTES)


class WireDamaged(NodeError):
    """The connection to a peer carried something no peer of ours sends; it was closed."""


class _Nonces:
    """The numbers that a direction counts its boxes by."""

    __slots__ = ("_next",)

    def __init__(self, first: bytes) -> None:
        self._next = int.from_bytes(first, "big")

    def take(self) -> bytes:
        nonce = self._next.to_bytes(24, "big")
        self._next = (self._next + 1) % _NONCES
        return nonce


class FrameSender:
    """Plain bodies in, frames out."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._key = key
        self._nonces = _Nonces(nonce)

    def seal(self, body: Buffer) -> bytearray:
        """The frame of a body of 1 to BODY_BYTES_MAX bytes."""
        length = len(body)
        if not 0 < length <= BODY_BYTES_MAX:
            raise ValueError("a frame's body is 1 to 65,535 bytes")
        header_nonce = self._nonces.take()
        frame = bytearray(HEADER_BYTES + length)
        # The body's box is its tag, then its content: the tag lands where the header will be.
        at = HEADER_BYTES - _TAG_BYTES
        box = ffi.from_buffer(frame)
        _seal(box + at, ffi.from_buffer(body), length, self._nonces.take(), self._key)
        header = length.to_bytes(_LENGTH_BYTES, "big") + frame[at:HEADER_BYTES]
        _seal(box, header, len(header), header_nonce, self._key)
        return frame

    def goodbye(self) -> bytearray:
        """The last thing to send."""
        frame = bytearray(HEADER_BYTES)
        box = ffi.from_buffer(frame)
        _seal(box, _GOODBYE, len(_GOODBYE), self._nonces.take(), self._key)
        return frame


def _seal(out: object, plain: object, length: int, nonce: bytes, key: bytes) -> None:
    if lib.crypto_secretbox_easy(out, plain, length, nonce, key):
        raise ValueError("libsodium refused to seal")


class FrameReceiver:
    """Bytes in as they come, plain bodies out.

    Write into `room()`, say how much with `received`, then take bodies while there are any. Only
    whole frames are opened, in place; between `ready` and the last `open_ready` nothing but
    `room` and `received` may be called, from whatever thread.
    """

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._key = key
        self._nonces = _Nonces(nonce)
        self._buffer = bytearray(RECEIVE_BYTES_MIN)
        self._start = 0
        self._end = 0
        self._length = 0
        """Of the body whose header was opened; 0 before."""
        self._tag = b""
        self.ended = False
        """The peer said goodbye."""

    @property
    def held(self) -> int:
        """Bytes received and not yet opened."""
        return self._end - self._start

    def room(self) -> memoryview:
        """Where the next bytes may be written; empty when frames must be opened first."""
        return memoryview(self._buffer)[self._end :]

    def received(self, count: int) -> None:
        """`count` bytes were written into the room."""
        self._end += count

    def make_room(self) -> None:
        """Move what is left to the front, in a bigger buffer if the next frame needs one. Not
        while a view of the room is in use."""
        left = self._buffer[self._start : self._end]
        crowded = self._end == len(self._buffer) or self._length > len(self._buffer)
        if crowded and len(self._buffer) < RECEIVE_BYTES_MAX:
            self._buffer = bytearray(RECEIVE_BYTES_MAX)
        self._buffer[: len(left)] = left
        self._start, self._end = 0, len(left)

    def open_ready(self) -> list[bytearray]:
        """The bodies that are complete now. WireDamaged on a forged, replayed or missing frame,
        or data after the goodbye; the receiver is of no use after that."""
        bodies: list[bytearray] = []
        end = self._end
        while not self.ended:
            needed = self._length or HEADER_BYTES
            if end - self._start < needed:
                break
            if self._length:
                bodies.append(self._open_body())
            else:
                self._open_header()
        if self.ended and self.held:
            raise WireDamaged
        return bodies

    def feed(self, data: Buffer) -> list[bytearray]:
        """Write `data` and open what is complete, as much as it takes."""
        bodies: list[bytearray] = []
        view = memoryview(data).cast("B")
        while True:
            with self.room() as room:
                count = min(len(room), len(view))
                room[:count] = view[:count]
            view = view[count:]
            self.received(count)
            bodies += self.open_ready()
            self.make_room()
            if not view:
                return bodies

    def _open_header(self) -> None:
        header = self._open(self._start, HEADER_BYTES)
        self._start += HEADER_BYTES
        self._length = int.from_bytes(header[:_LENGTH_BYTES], "big")
        self._tag = bytes(header[_LENGTH_BYTES:])
        if self._length == 0:
            if header != _GOODBYE:
                raise WireDamaged
            self.ended = True

    def _open_body(self) -> bytearray:
        # The header before it is used up: the body's tag goes there, and the box is whole.
        at = self._start - _TAG_BYTES
        box = self._length + _TAG_BYTES
        if at < 0:
            padded = bytearray(self._tag) + self._buffer[self._start : self._start + self._length]
            plain = _open(padded, 0, box, self._nonces.take(), self._key)
        else:
            self._buffer[at : self._start] = self._tag
            plain = _open(self._buffer, at, box, self._nonces.take(), self._key)
        self._start += self._length
        self._length = 0
        return plain

    def _open(self, at: int, length: int) -> bytearray:
        return _open(self._buffer, at, length, self._nonces.take(), self._key)


def _open(buffer: bytearray, at: int, length: int, nonce: bytes, key: bytes) -> bytearray:
    plain = bytearray(length - _TAG_BYTES)
    box = ffi.from_buffer(buffer) + at
    if lib.crypto_secretbox_open_easy(ffi.from_buffer(plain), box, length, nonce, key):
        raise WireDamaged
    return plain
