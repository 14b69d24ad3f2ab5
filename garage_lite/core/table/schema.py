"""How rows of each table merge. Values are the encoded rows of core/model.

A table's merge takes two encodings of one row and gives the encoding of their join; it is
commutative, associative and idempotent, so replicas that have met the same updates in any order
hold the same bytes. Rows that never change once written (inline bytes, pages, part lists) join
to the greater bytes: equal by design, and never a disagreement by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from garage_lite.core.errors import InvariantBroken
from garage_lite.core.ids import BucketId
from garage_lite.core.model.buckets import Alias, Bucket
from garage_lite.core.model.keys import AccessKey
from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.model.rowkeys import Table, stamp_of
from garage_lite.core.model.uploads import Part, Upload
from garage_lite.core.model.versions import BlockRef, Pending


class Update(NamedTuple):
    """A row to join into what the replicas hold. In a local table: to put there as it is."""

    key: bytes
    value: bytes


class Removal(NamedTuple):
    """A row to drop: only for rows whose absence another row explains (pending data that became
    part of a version, inline bytes of a removed version, pages eaten by a cascade)."""

    key: bytes


Change = Update | Removal


class View(Protocol):
    """Rows as one reader or writer sees them; synchronous."""

    def get(self, key: bytes) -> bytes | None: ...

    def with_prefix(self, prefix: bytes, most: int | None = None) -> list[tuple[bytes, bytes]]:
        """The rows (with `most`: the first of them) whose key without its table's suffix is
        `prefix`, ascending."""
        ...

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Rows from `start` up to `end` (excluded), ascending, in batches."""
        ...


def _object(key: bytes, old: bytes, new: bytes) -> bytes:
    stamp = stamp_of(key)
    return ObjectVersion.decode(stamp, old).merge(ObjectVersion.decode(stamp, new)).encode()


def _upload(key: bytes, old: bytes, new: bytes) -> bytes:
    return Upload.decode(old).merge(Upload.decode(new)).encode()


def _part(key: bytes, old: bytes, new: bytes) -> bytes:
    if not (old and new):
        return b""
    return Part.decode(old).merge(Part.decode(new)).encode()


def _pending(key: bytes, old: bytes, new: bytes) -> bytes:
    return Pending.decode(old).merge(Pending.decode(new)).encode()


def _block_ref(key: bytes, old: bytes, new: bytes) -> bytes:
    return BlockRef.decode(old).merge(BlockRef.decode(new)).encode()


def _bucket(key: bytes, old: bytes, new: bytes) -> bytes:
    bucket = BucketId(key[2:])
    return Bucket.decode(bucket, old).merge(Bucket.decode(bucket, new)).encode()


def _alias(key: bytes, old: bytes, new: bytes) -> bytes:
    return Alias.decode(old).merge(Alias.decode(new)).encode()


def _key(key: bytes, old: bytes, new: bytes) -> bytes:
    name = key[2:].decode()
    return AccessKey.decode(name, old).merge(AccessKey.decode(name, new)).encode()


def _greater(key: bytes, old: bytes, new: bytes) -> bytes:
    return max(old, new)


def _unless_removed(key: bytes, old: bytes, new: bytes) -> bytes:
    return max(old, new) if old and new else b""


_MERGES: Final[dict[int, Callable[[bytes, bytes, bytes], bytes]]] = {
    Table.BUCKET: _bucket,
    Table.ALIAS: _alias,
    Table.KEY: _key,
    Table.OBJECT: _object,
    Table.INLINE: _greater,
    Table.UPLOAD: _upload,
    Table.PART: _part,
    Table.PAGE: _unless_removed,
    Table.PART_LIST: _unless_removed,
    Table.PENDING: _pending,
    Table.BLOCK_REF: _block_ref,
}

FIRST_LOCAL_TABLE: Final = 0x80
EMPTY_IS_REMOVED: Final = frozenset({Table.PAGE, Table.PART_LIST, Table.PART})
"""Tables whose rows end as the empty value: it wins every merge, so that no replica brings an
older row back, and readers never see it."""


def is_local(key: bytes) -> bool:
    """Whether a row belongs to this node alone: never merged, never sent."""
    return key[0] >= FIRST_LOCAL_TABLE


def is_everywhere(key: bytes) -> bool:
    """Whether every node holds the row (bucket, alias, key, token)."""
    return key[0] < Table.OBJECT


def merge_rows(key: bytes, old: bytes | None, new: bytes) -> bytes:
    """The join of a stored row (None: there is none) and an update of it.

    Raises StorageFailed on bytes that are no row of the table.
    """
    if old is None or old == new or is_local(key):
        return new
    merge = _MERGES.get(key[0])
    if merge is None:
        raise InvariantBroken(f"table {key[0]:#x} has no merge")
    return merge(key, old, new)
