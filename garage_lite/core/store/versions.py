"""The versions of one key: finding the current one, and making a new one current.

Readers see durable rows. On a node alone a new version is decided in the guard of its write,
against the writers' view: conditions and quotas hold at the moment the write takes its place. In a
cluster no single replica can tell: quotas are asked before the write, conditions by a ballot.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from garage_lite.core.cluster.quorum_rows import WrittenLate
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.errors import (
    KeyIsDeleted,
    NoSuchKey,
    NoSuchVersion,
    NotImplementedHere,
    QuotaExceeded,
)
from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.model.buckets import Bucket, Versioning
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.objects import Floor, ObjectVersion, survivors
from garage_lite.core.model.rowkeys import (
    Stamp,
    counter_row,
    object_prefix,
    object_row,
    stamp_from_text,
    stamp_of,
)
from garage_lite.core.store.conditions import WriteCondition, check_write
from garage_lite.core.table.checks import Check, bucket_exists
from garage_lite.core.table.history import rows_that_decide
from garage_lite.core.table.schema import Change, Update, View

Guard = Callable[[], None]

FLOORS: Final = {
    Versioning.OFF: Floor.ALL,
    Versioning.SUSPENDED: Floor.NULL,
    Versioning.ENABLED: Floor.NONE,
}
"""What a new version removes below itself."""


class Write(Protocol):
    """`Tables.write`, or something that adds to it."""

    def __call__(
        self, changes: Sequence[Change], guard: Guard | None, /, *, checks: Sequence[Check]
    ) -> Awaitable[None]: ...


class Overtaken(Exception):
    """Something came between a decision and its write: decide again."""


def unplaced(version: VersionId) -> Stamp:
    """The stamp of a version that `publish` has not placed yet."""
    return Stamp(0, 0, version)


def decoded(rows: Iterable[tuple[bytes, bytes]]) -> list[ObjectVersion]:
    """Versions of one key from its rows, newest first."""
    return [ObjectVersion.decode(stamp_of(key), value) for key, value in rows]


def newest(rows: Sequence[tuple[bytes, bytes]]) -> ObjectVersion | None:
    """The current version among the rows of one key: the newest survivor, also a delete marker."""
    alive = survivors(decoded(rows))
    return alive[0] if alive else None


def with_id(rows: Sequence[tuple[bytes, bytes]], version_id: str) -> ObjectVersion | None:
    """The survivor that clients know by `version_id`; tombstones they don't know."""
    for version in survivors(decoded(rows)):
        if version.version_id == version_id and not version.is_tombstone:
            return version
    return None


def row_of(prefix: bytes, version_id: str) -> list[bytes]:
    """The row of the version that clients know by this id; none for "null", which tells nothing,
    and for what is no id."""
    stamp = stamp_from_text(version_id)
    return [] if stamp is None else [object_row(prefix, stamp)]


async def find(
    tables: Tables, bucket: BucketId, key: bytes, version_id: str | None = None
) -> ObjectVersion:
    """The current version, or the one asked for. Raises NoSuchKey (KeyIsDeleted where it is a
    delete marker) and NoSuchVersion."""
    prefix = object_prefix(bucket, key)
    if version_id is None:
        version = newest(await tables.versions(prefix))
    else:
        version = with_id(await tables.versions(prefix, row_of(prefix, version_id)), version_id)
        if version is None:
            raise NoSuchVersion
    if version is None or version.is_tombstone:
        raise NoSuchKey
    if not version.has_data:
        raise KeyIsDeleted(version.version_id, version.mtime_ms)
    return version


def current(view: View, bucket: BucketId, key: bytes) -> ObjectVersion | None:
    """The current version in a view, None where there is none or it is a delete marker."""
    version = newest(rows_that_decide(view, object_prefix(bucket, key)))
    return version if version is not None and version.has_data else None


def has_quotas(bucket: Bucket) -> bool:
    return any(limit is not None for limit in bucket.quotas.value or ())


async def counted(tables: Tables, bucket: BucketId) -> Counters:
    """What the bucket holds, as far as its owners have counted."""
    row = await tables.get(counter_row(bucket))
    return Counters() if row is None else Counters.decode(row)


def check_quota(
    bucket: Bucket, held: Counters, alive: Sequence[ObjectVersion], new: ObjectVersion
) -> None:
    """Whether the bucket, which holds `held`, may hold `new` in place of what it removes. Raises
    QuotaExceeded.

    `alive`: the survivors of the key. Only an increase is refused, so that a bucket above a
    lowered quota can still be cleaned up by overwriting.
    """
    if not has_quotas(bucket):
        return
    size_max, objects_max = bucket.quotas.value
    freed = sum(
        version.size
        for version in alive
        if new.floor is Floor.ALL or (new.floor is Floor.NULL and version.null)
    )
    more = new.size - freed
    if size_max is not None and more > 0 and held.total_bytes + more > size_max:
        raise QuotaExceeded(f"The bucket may hold {size_max} bytes; this would exceed it.")
    is_new = not (alive and alive[0].has_data)
    if objects_max is not None and is_new and held.objects + 1 > objects_max:
        raise QuotaExceeded(f"The bucket may hold {objects_max} objects; this would exceed it.")


async def publish(
    tables: Tables,
    bucket: Bucket,
    key: bytes,
    version: ObjectVersion,
    changes: Sequence[Change] = (),
    *,
    write: Write | None = None,
    condition: WriteCondition | None = None,
    checks: Sequence[Check] = (),
    guard: Guard | None = None,
    stamp: Stamp | None = None,
) -> ObjectVersion:
    """Make `version` (with an `unplaced` stamp) the current one; durable on return.

    What it removes below itself follows the bucket's versioning. `changes` ride in the same
    write. `checks` hold at every replica that applies it; `guard` is what more can be asked where
    this node is alone. A write that reads nothing is ordered by its stamp alone; one that was
    decided on what is there must come after it, so it is stamped anew when another was faster. So
    is one that came late to too many replicas (a clock was behind), and then it names the one it
    stands for. `stamp`: a new one to begin with, where `changes` speak of it.

    Raises PreconditionFailed, NoSuchKey, QuotaExceeded, and what `write`, `checks` and `guard`
    raise; then no quorum has it. What took long (it has a `write` or checks of its own) raises
    NoSuchBucket where the bucket was deleted meanwhile.
    """
    versioning = Versioning(bucket.versioning.value)
    null = versioning is not Versioning.ENABLED
    version = replace(version, null=null, floor=FLOORS[versioning])
    prefix = object_prefix(bucket.id, key)
    judged = condition is not None or (version.has_data and has_quotas(bucket))
    if judged and not tables.alone:
        if condition is not None:
            return await decide(tables, prefix, version, condition, changes)
        alive = survivors(decoded(await tables.versions(prefix, ())))
        check_quota(bucket, await counted(tables, bucket.id), alive, version)
        judged = False
    if write is not None or checks:
        checks = [*checks, bucket_exists(bucket.id)]
    put: Write = write or tables.write
    while True:
        placed = replace(version, stamp=stamp or Stamp(tables.stamp(), 0, version.id))
        stamp = None

        def check(placed: ObjectVersion = placed) -> None:
            if guard is not None:
                guard()
            if judged:
                _judge(tables.latest(), prefix, bucket, condition, placed)

        row = Update(object_row(prefix, placed.stamp), placed.encode())
        try:
            await put([row, *changes], check if judged or guard else None, checks=checks)
        except Overtaken:
            continue
        except WrittenLate as late:
            tables.stamp(late.clock)
            version = replace(version, replaces=placed.stamp)
            continue
        return placed


def _judge(
    view: View,
    prefix: bytes,
    bucket: Bucket,
    condition: WriteCondition | None,
    placed: ObjectVersion,
) -> None:
    versions = decoded(rows_that_decide(view, prefix, ()))
    if versions and versions[0].stamp >= placed.stamp:
        raise Overtaken
    alive = survivors(versions)
    check_write(condition, alive[0] if alive else None)
    stored = view.get(counter_row(bucket.id))
    held = Counters() if stored is None else Counters.decode(stored)
    check_quota(bucket, held, alive, placed)


async def decide(
    tables: Tables,
    prefix: bytes,
    version: ObjectVersion,
    condition: WriteCondition,
    changes: Sequence[Change] = (),
) -> ObjectVersion:
    """Place `version` on a condition, in a cluster. Raises NotImplementedHere: no single replica
    can tell whether it holds."""
    raise NotImplementedHere("Conditional writes are not implemented in a cluster of several nodes")
