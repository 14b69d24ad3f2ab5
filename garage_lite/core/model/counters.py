"""What a bucket holds, counted by each owner of its partition in the record of every change.

The cluster's figure is the maximum over the current owners that are not recovering.
"""

from __future__ import annotations

from typing import NamedTuple

from garage_lite.core.codec import decode, encode, row_decoder

TAG = 1


class Counters(NamedTuple):
    """Changes add up: `Counters(objects=1, total_bytes=10)` is one more object of 10 bytes."""

    objects: int = 0
    """Keys whose current version has data."""
    total_bytes: int = 0
    """Of all versions that are kept."""
    uploads: int = 0
    """Open multipart uploads."""
    parts: int = 0
    part_bytes: int = 0
    """Of uploaded parts not yet completed."""
    pending: int = 0
    """Uploads in progress that are not multipart."""

    def plus(self, change: Counters) -> Counters:
        return Counters(*[max(0, mine + more) for mine, more in zip(self, change, strict=True)])

    def encode(self) -> bytes:
        return encode(TAG, list(self))

    @classmethod
    @row_decoder
    def decode(cls, data: bytes) -> Counters:
        objects, total_bytes, uploads, parts, part_bytes, pending = decode(data, TAG)
        return cls(objects, total_bytes, uploads, parts, part_bytes, pending)
