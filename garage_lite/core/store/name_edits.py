"""Edits that change global names, in a cluster: each name is decided by a ballot of all nodes.

Of several creations of one name exactly one succeeds, wherever they are asked for. What else an
edit writes (the bucket's row, a key's) is written with the first of its names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.errors import CallerError
from garage_lite.core.model.buckets import Alias
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.table.naming import Change as NameChange
from garage_lite.core.table.naming import Named, naming
from garage_lite.core.table.schema import Update, View

_NAME_BYTES = 16

Edit = Callable[[View, int], Sequence[Update]]


def names_in(updates: Sequence[Update]) -> list[bytes]:
    """The alias rows among the updates, each a register."""
    return [update.key for update in updates if update.key[0] == Table.ALIAS]


async def decide_names(tables: Tables, edit: Edit, names: Sequence[bytes]) -> list[Update]:
    """Make an edit that changes these names; durable at a quorum on return. Returns what it
    wrote. Raises what `edit` raises, QuorumNotReached, Unavailable."""
    first, *more = names
    before = {name: tables.latest().get(name) for name in more}
    wanted: dict[bytes, Update] = {}

    def changed(known: Mapping[bytes, bytes]) -> Named:
        updates = edit(_Over(tables.latest(), known), tables.stamp(_stamp_of(known.get(first))))
        wanted.update((update.key, update) for update in updates)
        others = [update for update in updates if update.key[0] != Table.ALIAS]
        own = [update for update in updates if update.key == first]
        return Named(own[0] if own else None, others)

    def unless_moved(name: bytes) -> NameChange:
        def change(known: Mapping[bytes, bytes]) -> Named:
            return Named(wanted[name] if known.get(name) == before[name] else None, ())

        return change

    made = [await _decide(tables, first, changed)]
    made += [await _decide(tables, name, unless_moved(name)) for name in more if name in wanted]
    written = [row for named in made for row in (named.alias, *named.others) if row is not None]
    await tables.write(written)
    return written


async def _decide(tables: Tables, name: bytes, change: NameChange) -> Named:
    judge = naming(tables.entropy.token(_NAME_BYTES), change)
    result = await tables.registers.decide(name, judge)
    if isinstance(result, CallerError):
        raise result
    return result


def _stamp_of(alias: bytes | None) -> int:
    return 0 if alias is None else Alias.decode(alias).target.stamp_us


class _Over:
    """A view with some rows that are newer than its own."""

    def __init__(self, view: View, rows: Mapping[bytes, bytes]) -> None:
        self._view = view
        self._rows = rows

    def get(self, key: bytes) -> bytes | None:
        return self._rows.get(key) or self._view.get(key)

    def with_prefix(self, prefix: bytes, most: int | None = None) -> list[tuple[bytes, bytes]]:
        return self._view.with_prefix(prefix, most)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[list[bytes], list[bytes]]]:
        return self._view.scan(start, end)
