"""All rows of one place on this node at once: are there any, and drop them."""

from __future__ import annotations

import asyncio
from typing import Final

from garage_lite.core.disk.metadata import MetadataStore
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.table.digest import TABLES, Place, Realm

_ALONG: Final = {
    Realm.EVERYWHERE: (),
    Realm.METADATA: (Table.INLINE, Table.COUNTER, Table.BURIED, Table.BALLOT, Table.UNDECIDED),
    Realm.DATA: (),
}
"""Tables whose rows are partitioned alike and mean nothing without the others."""


def any_rows(store: MetadataStore, place: Place) -> bool:
    """Whether anything is left of the place. Raises StorageFailed."""
    for table in _tables(place):
        start = bytes((table, place.partition))
        end = ((table << 8) + place.partition + 1).to_bytes(2, "big")
        for keys, _ in store.scan(start, end):
            if keys:
                return True
    return False


async def drop_rows(store: MetadataStore, place: Place) -> None:
    """Drop the rows that are there now: at once for writers, durably on return. Raises DiskFull,
    StorageFailed."""
    await asyncio.gather(*(store.drop_partition(t, place.partition) for t in _tables(place)))


def _tables(place: Place) -> tuple[Table, ...]:
    return (*TABLES[place.realm], *_ALONG[place.realm])
