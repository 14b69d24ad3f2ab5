"""The versions of one key: finding the current one, and making a new one current.

Readers see durable rows. On a node alone a new version is decided in the guard of its write,
against the writers' view: conditions and quotas hold at the moment the write takes its place. In a
cluster no single replica can tell: quotas are asked before the write, conditions by a ballot.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.errors import (
    KeyIsDeleted,
    NoSuchKey,
    NoSuchVersion,
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
from garage_lite.core.store.placing import Commit, Place, Riders, commit_nothing
from garage_lite.core.table.checks import Check, bucket_exists
from garage_lite.core.table.history import rows_that_decide
from garage_lite.core.table.schema import Update, View

Guard = Callable[[], None]

FLOORS: Final = {
    Versioning.OFF: Floor.ALL,
    Versioning.SUSPENDED: Floor.NULL,
    Versioning.ENABLED: Floor.NONE,
}
"""What a new version removes below itself."""


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
    riders: Riders = lambda stamp: (),
    *,
    commit: Commit | None = None,
    condition: WriteCondition | None = None,
    checks: Sequence[Check] = (),
    guard: Guard | None = None,
    above: Awaitable[int] | None = None,
    stamp: Stamp | None = None,
) -> ObjectVersion:
    """Make `version` (with an `unplaced` stamp) the current one; durable on return.

    What it removes below itself follows the bucket's versioning. `riders` give what is written
    with it. `checks` hold at every replica that applies it; `guard` is what more can be asked where
    this node is alone. A write that reads nothing is ordered by its stamp alone; one that was
    decided on what is there comes after it. What took long has a `commit` of its own or checks, and
    in a cluster gives `above`, the `newest_clock` asked for since it began, or a `stamp` made above
    one.

    Raises PreconditionFailed, NoSuchKey, QuotaExceeded, and what `commit`, `checks` and `guard`
    raise; then no quorum has it. What took long raises NoSuchBucket where the bucket was deleted
    meanwhile. Unavailable where it is unknown whether it took effect.
    """
    versioning = Versioning(bucket.versioning.value)
    null = versioning is not Versioning.ENABLED
    version = replace(version, null=null, floor=FLOORS[versioning])
    prefix = object_prefix(bucket.id, key)
    if commit is not None or checks:
        checks = [*checks, bucket_exists(bucket.id)]
    place = Place(tables, prefix, version, riders, checks, commit or commit_nothing)
    if tables.alone:
        return await _place_alone(place, bucket, condition, guard, stamp)
    limited = version.has_data and has_quotas(bucket)
    held = await counted(tables, bucket.id) if limited else Counters()

    def judging(alive: Sequence[ObjectVersion], placed: ObjectVersion) -> None:
        check_write(condition, alive[0] if alive else None)
        if limited:
            check_quota(bucket, held, alive, placed)

    if condition is not None:
        return await place.if_allowed(judging)
    if limited:
        judging(survivors(decoded(await tables.versions(prefix, ()))), version)
    if stamp is not None:
        return await place.above(0, stamp)
    return await (place.blindly() if above is None else place.above(await above))


async def _place_alone(
    place: Place,
    bucket: Bucket,
    condition: WriteCondition | None,
    guard: Guard | None,
    stamp: Stamp | None,
) -> ObjectVersion:
    """Stamped anew when another was faster than what was decided."""
    tables, version = place.tables, place.version
    judged = condition is not None or (version.has_data and has_quotas(bucket))
    while True:
        placed = replace(version, stamp=stamp or Stamp(tables.stamp(), 0, version.id))
        stamp = None

        def check(placed: ObjectVersion = placed) -> None:
            if guard is not None:
                guard()
            if judged:
                _judge(tables.latest(), place.prefix, bucket, condition, placed)

        row = Update(object_row(place.prefix, placed.stamp), placed.encode())
        changes = [row, *place.riders(placed.stamp)]
        asked = check if judged or guard else None
        try:
            await place.commit(changes, asked, checks=place.checks, by=tables.write)
        except Overtaken:
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
