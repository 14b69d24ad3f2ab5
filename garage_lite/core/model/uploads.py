"""Multipart uploads and their parts.

The life of an upload is one table (`NEXT`). Abort is two steps: `fenced` (refuses completion),
then `removed` once a quorum refuses; only `removed` lets the parts go, so an abort that races a
completion never destroys a completed object. A completed upload keeps its row for a while, so
that a repeated CompleteMultipartUpload is answered as the first was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final

from garage_lite.core.codec import decode, encode, row_decoder
from garage_lite.core.ids import DataId
from garage_lite.core.model.objects import Checksum, ChecksumType, Encryption, ObjectMeta
from garage_lite.core.model.rowkeys import Stamp

TAG = 1


class UploadState(IntEnum):
    OPEN = 0
    FENCED = 1
    COMPLETED = 2
    REMOVED = 3


NEXT: Final[dict[tuple[UploadState, str], UploadState]] = {
    (UploadState.OPEN, "complete"): UploadState.COMPLETED,
    (UploadState.COMPLETED, "complete"): UploadState.COMPLETED,
    (UploadState.OPEN, "fence"): UploadState.FENCED,
    (UploadState.FENCED, "fence"): UploadState.FENCED,
    (UploadState.FENCED, "remove"): UploadState.REMOVED,
    (UploadState.REMOVED, "fence"): UploadState.REMOVED,
    (UploadState.REMOVED, "remove"): UploadState.REMOVED,
}
"""What is not named here is refused: a fenced upload can't complete, a completed one not abort."""


@dataclass(frozen=True, slots=True)
class Completed:
    """What CompleteMultipartUpload answered, to answer it again."""

    etag: bytes
    parts: int
    parts_digest: bytes
    """BLAKE3 of the part list that was asked for: only the same request gets the same answer.
    Empty where only the version was met."""
    checksum: Checksum | None
    at_ms: int
    stamp: Stamp
    """Of the version that the upload became."""

    def pack(self) -> list[Any]:
        checksum = self.checksum.pack() if self.checksum else None
        head = [self.etag, self.parts, self.parts_digest, checksum, self.at_ms]
        return [*head, list(self.stamp)]

    @classmethod
    def unpack(cls, data: list[Any] | None) -> Completed | None:
        if data is None:
            return None
        etag, parts, digest, checksum, at_ms, stamp = data
        return cls(etag, parts, digest, Checksum.unpack(checksum), at_ms, Stamp(*stamp))


@dataclass(frozen=True, slots=True)
class Upload:
    """One multipart upload; bucket, object key and upload id are in the row's key."""

    state: UploadState
    started_ms: int
    initiator: str
    """Access key id that began it."""
    meta: ObjectMeta = ObjectMeta()
    """What the object will carry; meta.checksum is unused."""
    checksum_algorithm: str | None = None
    checksum_type: ChecksumType | None = None
    completed: Completed | None = None

    def encode(self) -> bytes:
        return encode(
            TAG,
            [
                int(self.state),
                self.started_ms,
                self.initiator,
                [list(pair) for pair in self.meta.headers],
                self.meta.encryption.pack() if self.meta.encryption else None,
                self.checksum_algorithm,
                None if self.checksum_type is None else int(self.checksum_type),
                self.completed.pack() if self.completed else None,
            ],
        )

    @classmethod
    @row_decoder
    def decode(cls, data: bytes) -> Upload:
        state, started, initiator, headers, encryption, algorithm, kind, done = decode(data, TAG)
        meta = ObjectMeta(
            tuple((name, value) for name, value in headers), None, Encryption.unpack(encryption)
        )
        return cls(
            UploadState(state),
            started,
            initiator,
            meta,
            algorithm,
            None if kind is None else ChecksumType(kind),
            Completed.unpack(done),
        )

    def merge(self, other: Upload) -> Upload:
        """The further state wins; copies differ in nothing else but by a fault."""
        return max(
            self,
            other,
            key=lambda upload: (upload.state, upload.knows_request, upload.encode()),
        )

    @property
    def knows_request(self) -> bool:
        return self.completed is not None and self.completed.parts_digest != b""

    def after(self, event: str) -> Upload | None:
        """The upload after an event of `NEXT`, or None where it is refused."""
        state = NEXT.get((self.state, event))
        return None if state is None else replace(self, state=state)


@dataclass(frozen=True, slots=True)
class Part:
    """One uploaded part; of several with one number the newest stamp counts."""

    data: DataId
    size: int
    """Bytes as the client sent them."""
    etag: bytes
    mtime_ms: int
    checksum: Checksum | None = None
    removed: bool = False

    @property
    def etag_text(self) -> str:
        return self.etag.hex()

    def encode(self) -> bytes:
        checksum = self.checksum.pack() if self.checksum else None
        return encode(TAG, [self.data, self.size, self.etag, self.mtime_ms, checksum, self.removed])

    @classmethod
    @row_decoder
    def decode(cls, data: bytes) -> Part:
        data_id, size, etag, mtime, checksum, removed = decode(data, TAG)
        return cls(DataId(data_id), size, etag, mtime, Checksum.unpack(checksum), removed)

    def merge(self, other: Part) -> Part:
        """Removed absorbs."""
        winner = max(self, other, key=lambda part: replace(part, removed=False).encode())
        return replace(winner, removed=self.removed or other.removed)
