"""The box stream: what follows the handshake, one each way. Authenticated, in order, unlimited.

    frame = header 34 B, body
    header = secretbox(nonce n,     length u16 big-endian, the body's 16-byte tag)
    body   = secretbox(nonce n + 1, plain), without its tag

Secure Scuttlebutt's box stream, with bodies of up to 65,535 bytes instead of 4,096: in Python a
call into libsodium costs more than 4 KiB of its work, so whatever is ready in one turn of the
event loop goes into one frame. A header that says length 0 and tag 0 is the goodbye; an end
without it is a cut. A flipped bit, a replayed, dropped or reordered frame fails its tag.
"""

from __future__ import annotations

from typing import Final

from nacl.bindings import crypto_secretbox, crypto_secretbox_open
from nacl.exceptions import CryptoError

from garage_lite.core.errors import NodeError
from garage_lite.core.ports import Buffer

BODY_BYTES_MAX: Final = 65_535
HEADER_BYTES: Final = 34
_TAG_BYTES: Final = 16
_NONCES: Final = 1 << 192
_GOODBYE: Final = bytes(18)


class WireDamaged(NodeError):
    """The connection to a peer carried something no peer of ours sends; it was closed."""


class FrameSender:
    """Plain bodies in, frames out."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._key = key
        self._nonce = int.from_bytes(nonce, "big")

    def seal(self, body: Buffer) -> bytes:
        """The frame of a body of 1 to BODY_BYTES_MAX bytes."""
        if not 0 < len(body) <= BODY_BYTES_MAX:
            raise ValueError("a frame's body is 1 to 65,535 bytes")
        header_nonce, body_nonce = self._next_nonce(), self._next_nonce()
        box = crypto_secretbox(bytes(body), body_nonce, self._key)
        header = len(body).to_bytes(2, "big") + box[:_TAG_BYTES]
        return crypto_secretbox(header, header_nonce, self._key) + box[_TAG_BYTES:]

    def goodbye(self) -> bytes:
        """The last thing to send."""
        return crypto_secretbox(_GOODBYE, self._next_nonce(), self._key)

    def _next_nonce(self) -> bytes:
        nonce = self._nonce.to_bytes(24, "big")
        self._nonce = (self._nonce + 1) % _NONCES
        return nonce


class FrameReceiver:
    """Bytes in as they come, plain bodies out. Holds at most one unfinished frame."""

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._key = key
        self._nonce = int.from_bytes(nonce, "big")
        self._waiting = bytearray()
        self._length = 0
        self._tag = b""
        self.ended = False
        """The peer said goodbye."""

    def feed(self, data: Buffer) -> list[bytes]:
        """The bodies that are complete now. WireDamaged on a forged, replayed or missing frame,
        or data after the goodbye; the receiver is of no use after that."""
        self._waiting += data
        bodies: list[bytes] = []
        at = 0
        while not self.ended:
            needed = self._length or HEADER_BYTES
            if len(self._waiting) - at < needed:
                break
            piece = bytes(memoryview(self._waiting)[at : at + needed])
            at += needed
            if self._length:
                bodies.append(self._open(self._tag + piece))
                self._length = 0
            else:
                self._take_header(piece)
        del self._waiting[:at]
        if self.ended and self._waiting:
            raise WireDamaged
        return bodies

    def _take_header(self, piece: bytes) -> None:
        header = self._open(piece)
        self._length, self._tag = int.from_bytes(header[:2], "big"), header[2:]
        if self._length == 0:
            if header != _GOODBYE:
                raise WireDamaged
            self.ended = True

    def _open(self, box: bytes) -> bytes:
        nonce = self._nonce.to_bytes(24, "big")
        self._nonce = (self._nonce + 1) % _NONCES
        try:
            return crypto_secretbox_open(box, nonce, self._key)
        except CryptoError as error:
            raise WireDamaged from error
