"""How rows travel between replicas that sync: with what belongs to them, in bounded records. Pure.

A row of kind INLINE travels with its bytes: they have no life of their own, and a replica must
never show the one without the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from garage_lite.core.errors import InvalidArgument
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.table.digest import TABLES, Place, place_of
from garage_lite.core.table.reading import inline_rows
from garage_lite.core.table.schema import Update

RECORD_ROWS: Final = 96
"""What each row brings along is worked out in one go, so this bounds how long the event loop
stands still."""
RECORD_BYTES: Final = 256 * 1024
_ROW_BYTES: Final = 32

Travelling = tuple[bytes, ...]
"""(key, value) or (key, value, inline bytes)."""


def with_inline(
    rows: Iterable[tuple[bytes, bytes]], get: Callable[[bytes], bytes | None]
) -> Iterator[Travelling]:
    """The rows as they travel; one whose bytes are gone (it is being replaced) stays."""
    for key, value in rows:
        inline = _inline_of(key, value)
        if inline is None:
            yield key, value
        elif (content := get(inline)) is not None:
            yield key, value, content


def _inline_of(key: bytes, value: bytes) -> bytes | None:
    return next(inline_rows({key: value}), None) if key[0] == Table.OBJECT else None


def size_of(row: Travelling) -> int:
    """Bytes in a message, about; never less."""
    return _ROW_BYTES + sum(map(len, row))


def records(rows: Iterable[Travelling]) -> Iterator[list[Update]]:
    """The rows as bounded records. Raises InvalidArgument, StorageFailed for what is no row."""
    record: list[Update] = []
    size = 0
    for row in rows:
        if record and (len(record) >= RECORD_ROWS or size + size_of(row) > RECORD_BYTES):
            yield record
            record, size = [], 0
        key, value = row[:2]
        record.append(Update(key, value))
        inline = _inline_of(key, value)
        if (inline is None) != (len(row) == 2):
            raise InvalidArgument("a row and its bytes don't belong together")
        if inline is not None:
            record.append(Update(inline, row[2]))
        size += size_of(row)
    if record:
        yield record


def received(sent: Sequence[Any], place: Place) -> list[Travelling]:
    """Rows that a peer sent. Raises InvalidArgument where they are none of the place."""
    for row in sent:
        match row:
            case [bytes() as key, bytes()] | [bytes() as key, bytes(), bytes()]:
                if len(key) > 2 and key[0] in TABLES[place.realm] and place_of(key) == place:
                    continue
        raise InvalidArgument("a peer sent what is no row of the place")
    return [tuple(row) for row in sent]
