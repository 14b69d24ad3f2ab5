"""Deleting keys and versions, many in one write.

Deleting the current version of a key writes a marker that removes or hides what is below it. A
node alone looks first whether there is something to remove; in a cluster that would cost a round
trip, so the marker is written blindly and forgotten later. A deletion of one version by its id
looks it up, for its row must say what it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from garage_lite.core.cluster.quorum_rows import WrittenLate
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.errors import CallerError, NotImplementedHere, PreconditionFailed
from garage_lite.core.ids import VERSION_ID_BYTES, VersionId
from garage_lite.core.model.buckets import Bucket, Versioning
from garage_lite.core.model.objects import Kind, ObjectVersion, survivors
from garage_lite.core.model.rowkeys import Stamp, object_prefix, object_row
from garage_lite.core.store.conditions import WriteCondition, check_write
from garage_lite.core.store.placing import Place, commit_nothing, finished
from garage_lite.core.store.versions import FLOORS, Overtaken, decoded, row_of, with_id
from garage_lite.core.table.history import rows_that_decide
from garage_lite.core.table.schema import Update, View

_BATCH_KEYS: Final = 64
"""Keys deleted in one record: decided and planned at one go, so few enough that others need not
wait, and far below TRANSACTION_BYTES_MAX even for the longest keys (a marker, what that removes,
a reminder to forget: 4 rows of up to 2.2 KiB each)."""
_LOOKUPS_MAX: Final = 64
"""Versions looked up at once in a cluster."""

Rows = list[tuple[bytes, bytes]]


class DeleteKey(NamedTuple):
    key: bytes
    version_id: str | None = None
    condition: WriteCondition | None = None


class DeleteResult(NamedTuple):
    """What became of a key. All defaults: nothing was there, or nothing a client knows of."""

    version_id: str | None = None
    """The version that was removed, or the delete marker that was made; None: unversioned."""
    delete_marker: bool = False
    """Whether `version_id` is a delete marker, made or removed."""


Results = list[DeleteResult | CallerError]


class _NothingThere(CallerError):
    """There is nothing to delete, which is no error."""


async def delete_many(tables: Tables, bucket: Bucket, keys: Sequence[DeleteKey]) -> Results:
    """Delete several keys; the result of each, in order. Durable on return. In a cluster all
    batches are under way at once."""
    batches = [keys[at : at + _BATCH_KEYS] for at in range(0, len(keys), _BATCH_KEYS)]
    deletion = _Deletion(tables, bucket)
    if tables.alone:
        return [result for batch in batches for result in await deletion.by_looking(batch)]
    done = await asyncio.gather(*(deletion.in_cluster(batch) for batch in batches))
    return [result for results in done for result in results]


class _Deletion:
    """One request to delete keys of a bucket."""

    def __init__(self, tables: Tables, bucket: Bucket) -> None:
        self._tables = tables
        self._bucket = bucket
        self._versioning = Versioning(bucket.versioning.value)
        self._lookups = asyncio.Semaphore(_LOOKUPS_MAX)

    # --- on a node alone

    async def by_looking(self, keys: Sequence[DeleteKey]) -> Results:
        """Unconditional deletes are ordered by their stamp; what was decided on a condition is
        decided again when something came between."""
        while True:
            view = self._tables.latest()
            changes: list[Update] = []
            results: Results = []
            judged: dict[bytes, Rows] = {}
            for wanted in keys:
                prefix = object_prefix(self._bucket.id, wanted.key)
                rows = rows_that_decide(view, prefix, row_of(prefix, wanted.version_id or ""))
                if wanted.condition is not None:
                    judged[prefix] = rows_that_decide(view, prefix)
                try:
                    update, result = self._decide(wanted, prefix, rows)
                except CallerError as error:
                    results.append(error)
                    continue
                results.append(result)
                if update is not None:
                    changes.append(update)
            if not changes:
                return results

            def check(judged: dict[bytes, Rows] = judged, view: View = view) -> None:
                if any(rows_that_decide(view, p) != rows for p, rows in judged.items()):
                    raise Overtaken

            try:
                await self._tables.write(changes, check if judged else None, deletes_only=True)
            except Overtaken:
                continue
            return results

    def _decide(
        self, wanted: DeleteKey, prefix: bytes, rows: Rows
    ) -> tuple[Update | None, DeleteResult]:
        versions = decoded(rows)
        alive = survivors(versions)
        self._check(wanted, alive)
        if wanted.version_id is not None:
            return _removal(wanted.version_id, prefix, rows)
        if self._versioning is Versioning.OFF and not (alive and alive[0].has_data):
            return None, DeleteResult()
        marker = self._marker(versions[0].stamp.clock if versions else 0)
        return Update(object_row(prefix, marker.stamp), marker.encode()), self._hidden_by(marker)

    def _check(self, wanted: DeleteKey, alive: Sequence[ObjectVersion]) -> None:
        current = alive[0] if alive else None
        hidden = current is not None and not current.has_data and not current.is_tombstone
        if hidden and wanted.condition is not None and wanted.condition.if_match is not None:
            raise PreconditionFailed(condition="If-Match")
        check_write(wanted.condition, current)

    def _marker(self, above: int = 0) -> ObjectVersion:
        clock = self._tables.stamp(above)
        return ObjectVersion(
            stamp=Stamp(clock, 0, VersionId(self._tables.entropy.token(VERSION_ID_BYTES))),
            kind=Kind.DELETE_MARKER,
            mtime_ms=self._tables.now_ms(),
            null=self._versioning is not Versioning.ENABLED,
            floor=FLOORS[self._versioning],
        )

    def _hidden_by(self, marker: ObjectVersion) -> DeleteResult:
        if self._versioning is Versioning.OFF:
            return DeleteResult()
        return DeleteResult(marker.version_id, delete_marker=True)

    # --- in a cluster

    async def in_cluster(self, keys: Sequence[DeleteKey]) -> Results:
        """Markers are one write, removals of single versions another beside it; what has a
        condition is decided key by key."""
        results: Results = [DeleteResult()] * len(keys)
        current: list[int] = []
        named: list[int] = []
        judged: list[int] = []
        for index, wanted in enumerate(keys):
            if wanted.condition is not None:
                judged.append(index)
            elif wanted.version_id is not None:
                named.append(index)
            else:
                current.append(index)
        await asyncio.gather(
            self._mark([(index, keys[index].key) for index in current], results),
            self._remove([(index, keys[index]) for index in named], results),
            *(self._mark_if(index, keys[index], results) for index in judged),
        )
        return results

    async def _mark(self, keys: list[tuple[int, bytes]], results: Results) -> None:
        if not keys:
            return
        changes = []
        markers = []
        for index, key in keys:
            marker, prefix = self._marker(), object_prefix(self._bucket.id, key)
            markers.append((index, prefix, marker))
            changes.append(Update(object_row(prefix, marker.stamp), marker.encode()))
            results[index] = self._hidden_by(marker)
        try:
            await self._tables.write(changes, deletes_only=True)
        except WrittenLate as late:
            finishing = (self._finish(*one, late.clock, results) for one in markers)
            await asyncio.gather(*finishing)

    async def _finish(
        self, index: int, prefix: bytes, marker: ObjectVersion, clock: int, results: Results
    ) -> None:
        async with self._lookups:
            end = await finished(self._tables, prefix, marker, (), clock)
        results[index] = self._hidden_by(end)

    async def _mark_if(self, index: int, wanted: DeleteKey, results: Results) -> None:
        if wanted.version_id is not None:
            results[index] = NotImplementedHere(
                "A condition on the removal of one version is not implemented in a cluster"
            )
            return
        prefix = object_prefix(self._bucket.id, wanted.key)

        def judging(alive: Sequence[ObjectVersion], placed: ObjectVersion) -> None:
            self._check(wanted, alive)
            if self._versioning is Versioning.OFF and not (alive and alive[0].has_data):
                raise _NothingThere

        place = Place(self._tables, prefix, self._marker(), lambda stamp: (), (), commit_nothing)
        try:
            async with self._lookups:
                results[index] = self._hidden_by(await place.if_allowed(judging))
        except _NothingThere:
            results[index] = DeleteResult()
        except CallerError as error:
            results[index] = error

    async def _remove(self, keys: list[tuple[int, DeleteKey]], results: Results) -> None:
        async def look_up(index: int, wanted: DeleteKey) -> Update | None:
            prefix = object_prefix(self._bucket.id, wanted.key)
            version_id = wanted.version_id or ""
            async with self._lookups:
                rows = await self._tables.versions(prefix, row_of(prefix, version_id))
            removal, results[index] = _removal(version_id, prefix, rows)
            return removal

        found = await asyncio.gather(*(look_up(index, wanted) for index, wanted in keys))
        changes = [removal for removal in found if removal is not None]
        if changes:
            await self._tables.write(changes, deletes_only=True, new=False)


def _removal(version_id: str, prefix: bytes, rows: Rows) -> tuple[Update | None, DeleteResult]:
    version = with_id(rows, version_id)
    if version is None:
        return None, DeleteResult(version_id)
    gone = replace(version, removed=True).encode()
    row = Update(object_row(prefix, version.stamp), gone)
    return row, DeleteResult(version_id, not version.has_data)
