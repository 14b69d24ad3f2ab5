"""`repair aliases`: makes the names of buckets agree, by the rules of core/store/alias_faults.py.

These rows are on every node, and a change of them comes as several: a fault must last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.store.alias_faults import alias_faults
from garage_lite.core.table.schema import Change


class AliasRepair:
    name = "bucket_alias repair worker"

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.looked_at = 0

    async def find(self) -> AsyncIterator[Collection[bytes]]:
        faults = alias_faults(self._tables.durable(), self._tables.stamp())
        self.looked_at = len(faults)
        yield list(faults)

    async def mends(self, suspects: Sequence[bytes]) -> Mapping[bytes, Sequence[Change]]:
        faults = alias_faults(self._tables.latest(), self._tables.stamp())
        return {suspect: [faults[suspect]] for suspect in suspects if suspect in faults}
