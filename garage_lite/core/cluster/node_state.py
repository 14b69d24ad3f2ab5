"""Small state of this node by name, as rows of the NODE table: durable, never sent to a peer."""

from __future__ import annotations

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.model.rowkeys import Table, local_row
from garage_lite.core.table.schema import Update


class NodeState:
    """What a disk, a worker or the layout wants to find again after a restart."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def get(self, name: str) -> bytes | None:
        return self._tables.durable().get(_row(name))

    async def set(self, name: str, value: bytes | None) -> None:
        """Durable on return; None or empty removes."""
        await self._tables.write([Update(_row(name), value or b"")], deletes_only=True)


def _row(name: str) -> bytes:
    return local_row(Table.NODE, b"state/" + name.encode())
