"""ListObjects and ListObjectVersions: read rows in order until a page is built.

Reads what is durable. Knows when to read on and when to seek; what a page holds is decided in
`listing_pages.py`. In a cluster the replicas leave out most of what folds into common prefixes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, Protocol

from garage_lite.core.ids import BucketId
from garage_lite.core.limits import LIST_KEYS_MAX
from garage_lite.core.model.objects import NULL_VERSION_ID, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import (
    STAMP_BYTES,
    Table,
    object_prefix,
    object_row,
    stamp_from_text,
)
from garage_lite.core.store.listing_pages import (
    ListPage,
    ObjectPageBuilder,
    VersionPage,
    VersionPageBuilder,
)
from garage_lite.core.store.versions import decoded
from garage_lite.core.store.window import Window
from garage_lite.core.table.folding import Fold, Run

_READ_ON_BATCHES: Final = 3
"""Batches of rows that don't matter which are read before seeking: a seek costs about as much
as reading a few."""
_SPARE_ROWS: Final = 100
"""Rows asked of the replicas beyond the items of a page: some don't count."""
_YIELD_ROWS: Final = 256
"""Rows between two turns of the event loop: under a millisecond of work."""


class Rows(Protocol):
    """What a listing needs of core/cluster/tables.py. A batch may be empty: the reader has
    passed over much, and others should run."""

    def scan(self, start: bytes, end: bytes) -> AsyncIterator[tuple[list[bytes], list[bytes]]]: ...

    async def folded(self, start: bytes, end: bytes, fold: Fold, most: int) -> list[Run]: ...

    @property
    def alone(self) -> bool: ...

    async def versions(
        self, prefix: bytes, named: Iterable[bytes] | None = None
    ) -> list[tuple[bytes, bytes]]: ...


class _Builder(Protocol):
    done: bool
    resume: bytes

    def feed(self, keys: Sequence[bytes], values: Sequence[bytes]) -> None: ...


class Listing:
    """Lists the objects of a bucket. The caller has checked that the bucket exists."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def objects(
        self,
        bucket: BucketId,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after: bytes = b"",
        inclusive: bool = False,
        limit: int = LIST_KEYS_MAX,
    ) -> ListPage:
        """The keys that have a current version with data, and common prefixes, greater than
        `after` (`inclusive`: or equal), in byte order; `limit` counts both together.

        Raises StorageFailed where a row can't be read.
        """
        window = Window(Table.OBJECT, bucket, prefix, delimiter, STAMP_BYTES)
        builder = ObjectPageBuilder(window, after, inclusive, limit)
        await self._fill(builder, window.end, Fold(len(prefix), delimiter, False), limit)
        return builder.page

    async def versions(
        self,
        bucket: BucketId,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        key_marker: bytes = b"",
        version_marker: str | None = None,
        limit: int = LIST_KEYS_MAX,
    ) -> VersionPage:
        """All versions and delete markers, keys in byte order, newest first under each; from
        after `version_marker` (of a page before, an id or "null") of `key_marker`, or after all
        versions of it.

        Raises StorageFailed where a row can't be read.
        """
        window = Window(Table.OBJECT, bucket, prefix, delimiter, STAMP_BYTES)
        begun = await self._up_to(object_prefix(bucket, key_marker), version_marker)
        builder = VersionPageBuilder(window, key_marker, limit, begun)
        await self._fill(builder, window.end, Fold(len(prefix), delimiter, True), limit)
        return builder.page

    async def _up_to(self, prefix: bytes, marker: str | None) -> list[ObjectVersion] | None:
        """The versions of a key, down to the marked one, that the older ones depend on; None
        where nothing is marked."""
        if marker is None:
            return None
        stamp = stamp_from_text(marker)
        named = [] if stamp is None else [object_row(prefix, stamp)]
        versions = decoded(await self._rows.versions(prefix, named))
        if marker == NULL_VERSION_ID:
            stamp = next((version.stamp for version in versions if version.null), None)
        if stamp is None:
            return None
        begun = [version for version in versions if version.stamp >= stamp]
        if not begun or begun[-1].stamp != stamp:
            begun.append(ObjectVersion(stamp, Kind.DELETE_MARKER, 0, null=False, removed=True))
        return begun

    async def _fill(self, builder: _Builder, end: bytes, fold: Fold, limit: int) -> None:
        if fold.delimiter and not self._rows.alone:
            await self._fill_folded(builder, end, fold, limit + _SPARE_ROWS)
        else:
            await self._fill_here(builder, end)

    async def _fill_folded(self, builder: _Builder, end: bytes, fold: Fold, most: int) -> None:
        at = builder.resume
        while not builder.done and at < end:
            for run in await self._rows.folded(at, end, fold, most):
                if at < run.first:
                    break
                builder.feed(run.keys, run.values)
                at = max(run.past, builder.resume)

    async def _fill_here(self, builder: _Builder, end: bytes) -> None:
        rows = 0
        seek = not builder.done
        while seek and builder.resume < end:
            seek = False
            idle = 0
            async for keys, values in self._rows.scan(builder.resume, end):
                if keys and keys[-1] < builder.resume:
                    idle += 1
                    seek = idle == _READ_ON_BATCHES
                else:
                    idle = 0
                    builder.feed(keys, values)
                if builder.done or seek:
                    break
                rows += len(keys)
                if rows >= _YIELD_ROWS or not keys:
                    rows = 0
                    await asyncio.sleep(0)
