"""The digests of this node's rows: computed when a peer first asks, right from then on.

A node alone never computes one. A digest is read off the rows in small turns, between which
writes go on; the metadata store tells of them as they become visible, so that each counts once.
Must not know peers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from operator import eq
from typing import Final, NamedTuple

from garage_lite.core.disk.metadata import MetadataStore
from garage_lite.core.errors import DamagedRow
from garage_lite.core.table.digest import Digest, Digests, Place, bucket_of, place_of, row_hash

TURN_ROWS: Final = 256
"""Rows digested before others get a turn of the event loop: about 2 ms on a small board."""
PAGE_BYTES: Final = 128 * 1024
"""Keys and hashes in one answer."""
PAGE_ROWS: Final = 20_000
"""Rows looked at for one answer: a second on a small board, well within a call's deadline."""
_HASHED_BYTES: Final = 16
_COMPUTED_AT_ONCE: Final = 2


class Hashes(NamedTuple):
    """Rows of some buckets, by key."""

    by_key: dict[bytes, bytes]
    reach: bytes | None
    """Up to which key these are all; None: to the end of what was asked."""


class RowDigests:
    """Watches the store from the first digest on."""

    def __init__(self, store: MetadataStore) -> None:
        self._store = store
        self._digests = Digests()
        self._computing: dict[Place, asyncio.Future[Digest]] = {}
        self._turns = asyncio.Semaphore(_COMPUTED_AT_ONCE)

    def known(self, place: Place) -> Digest | None:
        """None: it must be computed first."""
        return self._digests.get(place)

    async def of(self, place: Place) -> Digest:
        """The digest of the rows that readers see. Raises DamagedRow, StorageFailed."""
        digest = self._digests.get(place)
        if digest is not None:
            return digest
        if place not in self._computing:
            task = asyncio.create_task(self._compute(place))
            self._computing[place] = task
            task.add_done_callback(lambda _: self._computing.pop(place))
        return await asyncio.shield(self._computing[place])

    async def _compute(self, place: Place) -> Digest:
        async with self._turns:
            self._store.watcher = self
            while True:
                self._digests.begin(place)
                if await self._read(place):
                    return self._digests.finish(place)

    async def _read(self, place: Place) -> bool:
        """False when the rows went in one sweep meanwhile: begin anew."""
        for start, end in place.ranges():
            after = start
            while after < end:
                if not self._digests.begun(place):
                    return False
                rows, reach = self._turn(after, end)
                self._digests.met(place, rows, end if reach is None else reach)
                after = end if reach is None else reach + b"\x00"
                if rows:
                    await asyncio.sleep(0)
        return self._digests.begun(place)

    def _turn(self, start: bytes, end: bytes) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """Some rows as they are now, and up to where they are all; None: to the end."""
        rows: list[tuple[bytes, bytes]] = []
        for keys, values in self._store.scan(start, end):
            rows += zip(keys, values, strict=True)
            if len(rows) >= TURN_ROWS:
                return rows, rows[-1][0]
        return rows, None

    async def hashes(
        self, place: Place, buckets: Collection[int], after: bytes, up_to: bytes | None
    ) -> Hashes:
        """Of the rows of some buckets with after < key <= `up_to` (None: no bound), the first.
        Raises DamagedRow, StorageFailed."""
        found: dict[bytes, bytes] = {}
        size = seen = 0
        for start, end in place.ranges():
            at = max(start, after + b"\x00")
            last = end if up_to is None else min(end, up_to + b"\x00")
            while at < last:
                rows, reach = self._turn(at, last)
                for key, value in rows:
                    if bucket_of(key) in buckets:
                        found[key] = row_hash(key, value)
                        size += len(key) + _HASHED_BYTES
                seen += len(rows)
                if reach is not None and (size >= PAGE_BYTES or seen >= PAGE_ROWS):
                    return Hashes(found, reach)
                at = last if reach is None else reach + b"\x00"
                await asyncio.sleep(0)
        return Hashes(found, None)

    def forget(self, matches: Callable[[Place], bool]) -> None:
        """Of places that this node holds no longer: they cost nothing any more."""
        self._digests.forget(matches)

    # --- as the store's watcher

    def written(
        self,
        rows: Mapping[bytes, bytes | None],
        drops: Iterable[tuple[bytes, bytes]],
        before: Callable[[bytes], bytes | None],
    ) -> None:
        for dropped in drops:
            self._digests.forget(partial(_touches, dropped))
        for key, value in rows.items():
            if not self._digests.watches(key):
                continue
            try:
                self._digests.changed(key, before(key), value)
            except DamagedRow:
                self._digests.forget(partial(eq, place_of(key)))


def _touches(gone: tuple[bytes, bytes], place: Place) -> bool:
    return any(start < gone[1] and gone[0] < end for start, end in place.ranges())
