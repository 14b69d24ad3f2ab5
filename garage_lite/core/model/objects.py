"""A version of an object: one row each, found newest first under its key.

What a version is (kind, size, ETag, headers) never changes. What may change merges: `removed`
and `settled` are flags that only go up, `floor` only rises. Removal is said by the row that
causes it: a version with `Floor.ALL` removes every version below it, so the two can't part.

    row = [1, kind, mtime_ms, size, etag, parts, flags, floor, extra]
    flags: 1 null version, 2 removed, 4 settled, 8 void, 16 sure
    extra: b"" or msgpack [headers, checksum, encryption, replaces, ballot], which LIST never opens
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final

import msgpack

from garage_lite.core.codec import decode, encode, row_decoder
from garage_lite.core.ids import VersionId
from garage_lite.core.model.rowkeys import Stamp

TAG = 1
NULL_VERSION_ID: Final = "null"


class Kind(IntEnum):
    DELETE_MARKER = 0
    INLINE = 1
    """Its bytes are the inline row of the same version id."""
    BLOCKS = 2
    """Its block pages are those of the data id equal to the version id."""
    MULTIPART = 3
    """Its part list pages name the data ids of its parts."""


class Floor(IntEnum):
    NONE = 0
    NULL = 1
    """Null versions below this one are removed (versioning suspended)."""
    ALL = 2
    """Everything below this one is removed (versioning off)."""


class ChecksumType(IntEnum):
    FULL_OBJECT = 0
    COMPOSITE = 1


@dataclass(frozen=True, slots=True)
class Checksum:
    """An additional checksum as S3 names it."""

    algorithm: str
    """CRC32, CRC32C, CRC64NVME, SHA1 or SHA256."""
    value: bytes
    type: ChecksumType = ChecksumType.FULL_OBJECT

    def pack(self) -> list[Any]:
        return [self.algorithm, self.value, int(self.type)]

    @classmethod
    def unpack(cls, data: list[Any] | None) -> Checksum | None:
        if data is None:
            return None
        algorithm, value, kind = data
        return cls(algorithm, value, ChecksumType(kind))


@dataclass(frozen=True, slots=True)
class Encryption:
    """SSE-C: how a version's bytes are encrypted with the customer's key, never the key itself."""

    salt: bytes
    """32 random bytes from which the data key is derived with the customer's key."""
    verifier: bytes
    """BLAKE3 keyed hash that tells whether a customer's key is the right one."""
    key_md5: str
    """Base64 MD5 of the customer's key, returned to clients as S3 does."""

    def pack(self) -> list[Any]:
        return [self.salt, self.verifier, self.key_md5]

    @classmethod
    def unpack(cls, data: list[Any] | None) -> Encryption | None:
        if data is None:
            return None
        salt, verifier, key_md5 = data
        return cls(salt, verifier, key_md5)


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """What a client said of an object, returned as it was said."""

    headers: tuple[tuple[str, str], ...] = ()
    """Lower-case names: content-type, cache-control, ..., x-amz-meta-*, in order of arrival."""
    checksum: Checksum | None = None
    encryption: Encryption | None = None


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of one object key."""

    stamp: Stamp
    kind: Kind
    mtime_ms: int
    """LastModified."""
    size: int = 0
    """Bytes of the object as the client sees it."""
    etag: bytes = b""
    """16 bytes; the MD5 of the content, or of the parts' MD5s."""
    parts: int = 0
    """Parts of a multipart object, 0 of a simple one (ETag suffix `-N`)."""
    null: bool = True
    removed: bool = False
    settled: bool = False
    floor: Floor = Floor.NONE
    meta: ObjectMeta = ObjectMeta()
    replaces: Stamp | None = None
    """An older version that is void wherever it is met: this one stands in its place."""
    ballot: tuple[int, bytes] | None = None
    void: bool = False
    """Removed because it never had a quorum and never will: it removes nothing either."""
    sure: bool = False
    """Known to be at a quorum, so that it never turns out void."""

    @property
    def id(self) -> VersionId:
        return self.stamp.id

    @property
    def version_id(self) -> str:
        """As clients know it: "null", or its stamp, by which its row is found."""
        return NULL_VERSION_ID if self.null else self.stamp.text

    @property
    def has_data(self) -> bool:
        return self.kind is not Kind.DELETE_MARKER

    @property
    def is_tombstone(self) -> bool:
        """Whether it only says that all before it is removed: no client ever sees it, whereas a
        delete marker of a versioned bucket is listed."""
        return self.kind is Kind.DELETE_MARKER and self.floor is Floor.ALL

    @property
    def may_be_void(self) -> bool:
        """Whether it removes others, and its data may still be given up where it is not known."""
        removes = self.floor is not Floor.NONE or self.replaces is not None
        has_blocks = self.kind is Kind.BLOCKS or self.kind is Kind.MULTIPART
        return has_blocks and removes and not (self.sure or self.settled or self.void)

    @property
    def etag_text(self) -> str:
        """The ETag without quotes."""
        return f"{self.etag.hex()}-{self.parts}" if self.parts else self.etag.hex()

    def encode(self) -> bytes:
        flags = (1 if self.null else 0) | (2 if self.removed else 0) | (4 if self.settled else 0)
        flags |= (8 if self.void else 0) | (16 if self.sure else 0)
        meta = self.meta
        extra = b""
        if meta != _NO_META or self.replaces or self.ballot:
            extra = msgpack.packb(
                [
                    [list(pair) for pair in meta.headers],
                    meta.checksum.pack() if meta.checksum else None,
                    meta.encryption.pack() if meta.encryption else None,
                    list(self.replaces) if self.replaces else None,
                    list(self.ballot) if self.ballot else None,
                ]
            )
        head = [int(self.kind), self.mtime_ms, self.size, self.etag, self.parts]
        return encode(TAG, [*head, flags, int(self.floor), extra])

    @classmethod
    @row_decoder
    def decode(cls, stamp: Stamp, data: bytes) -> ObjectVersion:
        """`stamp` comes from the row's key. Raises StorageFailed."""
        kind, mtime_ms, size, etag, parts, flags, floor, extra = decode(data, TAG)
        meta, replaces, ballot = _NO_META, None, None
        if extra:
            headers, checksum, encryption, replaces, ballot = msgpack.unpackb(extra, raw=False)
            meta = ObjectMeta(
                tuple((name, value) for name, value in headers),
                Checksum.unpack(checksum),
                Encryption.unpack(encryption),
            )
        return cls(
            stamp,
            Kind(kind),
            mtime_ms,
            size,
            etag,
            parts,
            bool(flags & 1),
            bool(flags & 2),
            bool(flags & 4),
            Floor(floor),
            meta,
            Stamp(*replaces) if replaces else None,
            tuple(ballot) if ballot else None,
            bool(flags & 8),
            bool(flags & 16),
        )

    def merge(self, other: ObjectVersion) -> ObjectVersion:
        """Join of two copies of the same version (equal stamps)."""
        if self == other:
            return self
        base = max(self, other, key=lambda version: _fixed_part(version))
        return replace(
            base,
            removed=self.removed or other.removed,
            settled=self.settled or other.settled,
            floor=max(self.floor, other.floor),
            ballot=max(self.ballot or (0, b""), other.ballot or (0, b""))
            if (self.ballot or other.ballot)
            else None,
            void=self.void or other.void,
            sure=self.sure or other.sure,
        )


_NO_META = ObjectMeta()


def _fixed_part(version: ObjectVersion) -> bytes:
    """What of a version never changes; differs between copies only by a fault, decided by order."""
    plain = replace(version, removed=False, settled=False, floor=Floor.NONE, ballot=None)
    return replace(plain, void=False, sure=False).encode()


def survivors(versions: list[ObjectVersion]) -> list[ObjectVersion]:
    """Of the versions of one key, newest first, those that no floor or removal takes away.

    A removed version that no floor covers stays as a row (its `removed` must reach every
    replica) but is not among the survivors.
    """
    alive: list[ObjectVersion] = []
    replaced = {v.replaces for v in versions if v.replaces and not v.void}
    all_below = null_below = False
    for version in versions:
        if all_below:
            break
        if version.void:
            continue
        if not (version.removed or version.stamp in replaced or (null_below and version.null)):
            alive.append(version)
        all_below = version.floor is Floor.ALL
        null_below = null_below or version.floor is Floor.NULL
    return alive


class Newer:
    """What the newer versions of a key say of the older ones: `survivors`, one row at a time."""

    __slots__ = ("_all", "_null", "_replaced")

    def __init__(self) -> None:
        self._all = self._null = False
        self._replaced: set[Stamp] = set()

    def admit(self, version: ObjectVersion) -> bool:
        """Whether the next older version survives; it is then counted among the newer."""
        gone = version.removed or version.stamp in self._replaced
        if version.void:
            return False
        alive = not (gone or self._all or (self._null and version.null))
        self._all = self._all or version.floor is Floor.ALL
        self._null = self._null or version.floor is Floor.NULL
        if version.replaces:
            self._replaced.add(version.replaces)
        return alive


def below_floor(versions: list[ObjectVersion]) -> list[ObjectVersion]:
    """Of the versions of one key, newest first, those whose rows a floor lets go at once.

    A null version under `Floor.NULL` that is itself a floor of everything, or replaces another,
    stays as a row: without it a version below, met later, would come back.
    """
    gone: list[ObjectVersion] = []
    all_below = null_below = False
    for version in versions:
        if version.void:
            if all_below:
                gone.append(version)
            continue
        stays = version.floor is Floor.ALL or version.replaces is not None
        if all_below or (null_below and version.null and not stays):
            gone.append(version)
        all_below = all_below or version.floor is Floor.ALL
        null_below = null_below or version.floor is Floor.NULL
    return gone
