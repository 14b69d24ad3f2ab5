"""Buckets and their aliases: rows that every node holds and reads locally.

Rights, aliases and settings are last-writer-wins registers inside the bucket's row; the global
alias row maps a name to a bucket id. A deleted bucket keeps its row as a tombstone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any

from garage_lite.core.codec import decode, encode, row_decoder
from garage_lite.core.crdt import Lww, LwwMap
from garage_lite.core.ids import BucketId

TAG = 1


class Permission(IntFlag):
    NONE = 0
    READ = 1
    WRITE = 2
    OWNER = 4
    ALL = 7


class Versioning(IntEnum):
    OFF = 0
    ENABLED = 1
    SUSPENDED = 2


_NEVER: Lww[Any] = Lww(0, None)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket.

    `aliases` and `local_aliases` mirror the alias rows (name -> True, "KEYID:name" -> True), as
    in Garage. `keys`: access key id -> Permission bits. Settings are plain documents (dicts of
    str, int, bool, list) or None when never set.
    """

    id: BucketId
    created_ms: int
    deleted: bool = False
    aliases: LwwMap[bool] = LwwMap()
    local_aliases: LwwMap[bool] = LwwMap()
    keys: LwwMap[int] = LwwMap()
    website: Lww[Any] = _NEVER
    cors: Lww[Any] = _NEVER
    lifecycle: Lww[Any] = _NEVER
    quotas: Lww[Any] = _NEVER
    """[max_size | None, max_objects | None]"""
    versioning: Lww[int] = Lww(0, 0)

    def permissions_of(self, access_key_id: str) -> Permission:
        return Permission(self.keys.get(access_key_id) or 0)

    def encode(self) -> bytes:
        maps = [self.aliases.pack(), self.local_aliases.pack(), self.keys.pack()]
        settings = [self.website, self.cors, self.lifecycle, self.quotas, self.versioning]
        packed = [register.pack() for register in settings]
        return encode(TAG, [self.created_ms, self.deleted, *maps, *packed])

    @classmethod
    @row_decoder
    def decode(cls, bucket: BucketId, data: bytes) -> Bucket:
        created, deleted, aliases, local, keys, *settings = decode(data, TAG)
        website, cors, lifecycle, quotas, versioning = settings
        return cls(
            bucket,
            created,
            deleted,
            LwwMap.unpack(aliases),
            LwwMap.unpack(local),
            LwwMap.unpack(keys),
            Lww.unpack(website),
            Lww.unpack(cors),
            Lww.unpack(lifecycle),
            Lww.unpack(quotas),
            Lww.unpack(versioning),
        )

    def merge(self, other: Bucket) -> Bucket:
        """Deleted absorbs; the earliest creation counts; registers by their own rule."""
        return Bucket(
            self.id,
            min(self.created_ms, other.created_ms),
            self.deleted or other.deleted,
            self.aliases.merge(other.aliases),
            self.local_aliases.merge(other.local_aliases),
            self.keys.merge(other.keys),
            self.website.merge(other.website),
            self.cors.merge(other.cors),
            self.lifecycle.merge(other.lifecycle),
            self.quotas.merge(other.quotas),
            self.versioning.merge(other.versioning),
        )


@dataclass(frozen=True, slots=True)
class Alias:
    """A global bucket name -> bucket id, or None when it was given up."""

    target: Lww[bytes | None]

    def encode(self) -> bytes:
        return encode(TAG, self.target.pack())

    @classmethod
    @row_decoder
    def decode(cls, data: bytes) -> Alias:
        return cls(Lww.unpack(decode(data, TAG)))

    def merge(self, other: Alias) -> Alias:
        return Alias(self.target.merge(other.target))
