"""Decoder of AWS's own chunked encoding: bytes in, content out, every signature checked.

    chunk   = hex-size [";chunk-signature=" 64hex] CRLF content CRLF
    end     = "0" [";chunk-signature=" 64hex] CRLF *trailer CRLF
    trailer = name ":" value CRLF

Three of its forms exist: signed, signed with trailers, unsigned with trailers. In the signed
ones each chunk's signature chains to the one before it, the first to the request's. Source:
"Signature Calculations for the Authorization Header: Transferring Payload in Multiple Chunks",
Amazon S3 API Reference. Pure; lines are bounded and so is the number of tiny chunks.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Final

from garage_lite.core.errors import IncompleteBody
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.signature import SigningKey

_EMPTY_HASH: Final = sha256(b"").hexdigest()
LINE_BYTES_MAX: Final = 512
TRAILERS_MAX: Final = 8
FREE_CHUNKS: Final = 1024
"""So many chunks may have any size; beyond, they must hold `CHUNK_BYTES_MIN` on average."""
CHUNK_BYTES_MIN: Final = 512

_CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,12})(?:;chunk-signature=([0-9a-f]{64}))?").fullmatch
_TRAILER_LINE = re.compile(rb"([A-Za-z0-9-]+)[ \t]*:[ \t]*([\x21-\x7e]*)[ \t\n]*").fullmatch


class Form(Enum):
    """The value of x-amz-content-sha256."""

    SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@dataclass(frozen=True, slots=True)
class Seed:
    """What chunk signatures go on from: the request's own."""

    signing_key: SigningKey
    timestamp: str
    scope: str
    signature: str


class _State(Enum):
    SIZE = "size"
    CONTENT = "content"
    CONTENT_END = "content end"
    TRAILER = "trailer"
    END = "end"


class Decoder:
    """Feed it the body as it arrives; call `finish` after the last byte.

    `decoded_length` (x-amz-decoded-content-length) holds both ways. Content comes out before its
    chunk's signature is known, so nothing may become visible before `finish` has returned.
    Raises IncompleteBody, SignatureDoesNotMatch, InvalidChunkSizeError, MalformedTrailerError.
    """

    def __init__(self, form: Form, decoded_length: int, seed: Seed | None) -> None:
        if (seed is None) != (form is Form.UNSIGNED_TRAILER):
            raise ValueError("signed chunks need a seed, unsigned ones have none")
        self.trailers: dict[str, str] = {}
        self._form = form
        self._length = decoded_length
        self._seed = seed
        self._signature = seed.signature if seed else ""
        self._state = _State.SIZE
        self._tail = b""
        self._received = 0
        self._chunks = 0
        self._left = 0
        self._hash = sha256()
        self._claimed = ""
        self._signed_trailers: list[str] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The content in `data`, in pieces."""
        pieces: list[bytes] = []
        if self._tail:
            data, self._tail = self._tail + data, b""
        position, end = 0, len(data)
        while position < end:
            if self._state is _State.CONTENT:
                piece = data[position : position + self._left]
                position += len(piece)
                self._take(piece)
                pieces.append(piece)
                continue
            if self._state is _State.END:
                raise S3Error("IncompleteBody", "There are bytes after the last chunk.")
            line_end = data.find(b"\r\n", position, position + LINE_BYTES_MAX + 2)
            if line_end < 0:
                if end - position > LINE_BYTES_MAX + 1:
                    raise S3Error("IncompleteBody", "A chunk's header is too long.")
                self._tail = data[position:]
                break
            self._line(data[position:line_end])
            position = line_end + 2
        return pieces

    def finish(self) -> None:
        """Raises IncompleteBody unless the body ended where it should."""
        if self._state is not _State.END or self._received != self._length:
            raise IncompleteBody(
                "The request body terminated unexpectedly:"
                f" {self._received} of {self._length} bytes arrived."
            )

    def _take(self, piece: bytes) -> None:
        self._left -= len(piece)
        if self._seed:
            self._hash.update(piece)
        if self._left == 0:
            self._state = _State.CONTENT_END

    def _line(self, line: bytes) -> None:
        if self._state is _State.SIZE:
            self._begin_chunk(line)
        elif self._state is _State.CONTENT_END:
            if line:
                raise S3Error("IncompleteBody", "A chunk is longer than its header says.")
            self._check_chunk()
            self._state = _State.SIZE
        elif line:
            self._trailer(line)
        else:
            self._check_trailers()
            self._state = _State.END

    def _begin_chunk(self, line: bytes) -> None:
        found = _CHUNK_LINE(line)
        if found is None or (found[2] is None) != (self._seed is None):
            raise S3Error("IncompleteBody", "A chunk's header can't be read.")
        self._claimed = (found[2] or b"").decode()
        self._left = int(found[1], 16)
        self._received += self._left
        self._chunks += 1
        if self._received > self._length:
            raise IncompleteBody(
                f"The chunks hold more than the {self._length} bytes announced by"
                " x-amz-decoded-content-length."
            )
        if self._chunks > FREE_CHUNKS + self._received // CHUNK_BYTES_MIN:
            raise S3Error("InvalidChunkSizeError", "Too many chunks are too small.")
        if self._left:
            self._state = _State.CONTENT
            return
        self._check_chunk()
        self._state = _State.TRAILER

    def _check_chunk(self) -> None:
        if self._seed is None:
            return
        seed = self._seed
        content_hash, self._hash = self._hash.hexdigest(), sha256()
        text = (
            f"AWS4-HMAC-SHA256-PAYLOAD\n{seed.timestamp}\n{seed.scope}\n{self._signature}\n"
            f"{_EMPTY_HASH}\n{content_hash}"
        )
        self._compare(text, self._claimed, "chunk")

    def _compare(self, text: str, claimed: str, what: str) -> None:
        assert self._seed is not None
        right = self._seed.signing_key.sign(text.encode())
        if not hmac.compare_digest(right, claimed):
            raise S3Error(
                "SignatureDoesNotMatch",
                f"The {what} signature we calculated does not match the signature you provided.",
            )
        self._signature = right

    def _trailer(self, line: bytes) -> None:
        found = _TRAILER_LINE(line)
        if found is None or self._form is Form.SIGNED or len(self.trailers) >= TRAILERS_MAX:
            raise S3Error("MalformedTrailerError", "The request's trailers can't be read.")
        name, value = found[1].decode().lower(), found[2].decode()
        if name in self.trailers or "x-amz-trailer-signature" in self.trailers:
            raise S3Error("MalformedTrailerError", "The request's trailers are out of order.")
        self.trailers[name] = value
        if name != "x-amz-trailer-signature":
            self._signed_trailers.append(f"{name}:{value}\n")

    def _check_trailers(self) -> None:
        claimed = self.trailers.pop("x-amz-trailer-signature", "")
        if self._form is not Form.SIGNED_TRAILER or self._seed is None:
            return
        if not claimed and not self._signed_trailers:
            return
        trailers_hash = sha256("".join(self._signed_trailers).encode()).hexdigest()
        seed = self._seed
        text = (
            f"AWS4-HMAC-SHA256-TRAILER\n{seed.timestamp}\n{seed.scope}\n{self._signature}\n"
            f"{trailers_hash}"
        )
        self._compare(text, claimed, "trailer")
