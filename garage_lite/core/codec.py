"""Rows as bytes: msgpack arrays that open with a version tag.

Encoding is canonical: equal values give equal bytes on every machine, because digests and
compare-and-delete work on the bytes. So rows are arrays (no maps), mappings are written as
arrays of pairs sorted by key, and msgpack's shortest integer form is the only one used.

    row = array [ tag, field, field, ... ]

A reader that meets an older tag migrates it; a newer one raises StorageFailed, never guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgpack

from garage_lite.core.errors import StorageFailed

Migration = Callable[[list[Any]], list[Any]]

_pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack


def encode(tag: int, fields: Sequence[Any]) -> bytes:
    """The canonical bytes of a row."""
    packed: bytes = _pack([tag, *fields])
    return packed


def decode(data: bytes, tag: int, migrations: Mapping[int, Migration] | None = None) -> list[Any]:
    """The fields of a row written under `tag` or an older one that `migrations` lifts by one.

    Raises StorageFailed on bytes that are no such row.
    """
    try:
        row = msgpack.unpackb(data, raw=False, use_list=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise StorageFailed(f"a metadata row can't be read: {error}") from error
    if not isinstance(row, list) or not row or not isinstance(row[0], int):
        raise StorageFailed("a metadata row can't be read: it has no version tag")
    while row[0] != tag:
        lift = (migrations or {}).get(row[0])
        if lift is None:
            raise StorageFailed(f"a metadata row has format {row[0]}; this version reads {tag}")
        row = [row[0] + 1, *lift(row[1:])]
    return row[1:]


def pairs(mapping: Mapping[Any, Any]) -> list[list[Any]]:
    """A mapping in its canonical form."""
    return [[key, mapping[key]] for key in sorted(mapping)]
