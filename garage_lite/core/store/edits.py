"""Read, decide, write as one step: how rows that every node holds are changed.

An edit is a function from the rows as they are to the updates to make; it may refuse by raising.
It is run once to learn the updates and once more at the instant of the write, with nothing in
between: if rows moved meanwhile so that it decides otherwise, all is begun again. So of two
concurrent edits that exclude each other exactly one succeeds. In a cluster that is so for global
names, which are decided by ballot (name_edits.py); all else merges.

An edit is decided on all that was acknowledged, and acknowledged when no node reads what was there
before; only what is new (a bucket, a key) may be unknown to a node that has not looked yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.errors import NotFound, OperationAborted
from garage_lite.core.store.name_edits import decide_names, names_in
from garage_lite.core.table.schema import Update, View

Edit = Callable[[View, int], Sequence[Update]]
"""(rows, stamp in microseconds) -> updates. The same for the same rows and stamp; reads only
what is given."""

_ATTEMPTS_MAX: Final = 32


class _Moved(Exception):
    """Rows changed between the two runs of an edit."""


async def write_edit(tables: Tables, edit: Edit, *, new: bool = False) -> None:
    """Durable at a quorum on return, and seen by every node; `new`: what it makes is not named
    anywhere yet, and who meets it will look. Raises what `edit` raises, then nothing has changed;
    OperationAborted when others keep changing the same rows; QuorumNotReached.
    """
    await tables.settings.fresh()
    try:
        changes = await _write(tables, edit)
    except NotFound:
        await tables.settings.look()
        changes = await _write(tables, edit)
    if not new:
        await tables.settings.settle(changes)


async def _write(tables: Tables, edit: Edit) -> Sequence[Update]:
    for _ in range(_ATTEMPTS_MAX):
        stamp = tables.stamp()
        updates = edit(tables.latest(), stamp)
        names = [] if tables.alone or not tables.registers.exact else names_in(updates)
        if names:
            return await decide_names(tables, edit, names)

        def unmoved(stamp: int = stamp, updates: Sequence[Update] = updates) -> None:
            if edit(tables.latest(), stamp) != updates:
                raise _Moved

        try:
            await tables.write(updates, unmoved)
        except _Moved:
            continue
        return updates
    raise OperationAborted
