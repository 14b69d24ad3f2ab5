"""Rows as bytes: msgpack arrays that open with a version tag.

Encoding is canonical: equal values give equal bytes on every machine, because digests and
compare-and-delete work on the bytes. So rows are arrays, msgpack's shortest integer form is the
only one used, and the mappings inside a document are written sorted by key (`canonical`).

    row = array [ tag, field, field, ... ]

A reader that meets an older tag migrates it; a newer one raises StorageFailed, never guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import msgpack

from garage_lite.core.errors import StorageFailed

P = ParamSpec("P")
R = TypeVar("R")

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
    if not isinstance(row, list) or not row or type(row[0]) is not int:
        raise StorageFailed("a metadata row can't be read: it has no version tag")
    while row[0] != tag:
        lift = (migrations or {}).get(row[0])
        if lift is None:
            raise StorageFailed(f"a metadata row has format {row[0]}; this version reads {tag}")
        row = [row[0] + 1, *lift(row[1:])]
    return row[1:]


def row_decoder(decoder: Callable[P, R]) -> Callable[P, R]:
    """Let a decoder of rows raise StorageFailed, and nothing else, on bytes that are no such
    row: a field missing or too many, or of another type than it takes apart."""

    @wraps(decoder)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return decoder(*args, **kwargs)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise StorageFailed(f"a metadata row can't be read: {error}") from error

    return checked


def canonical(value: Any) -> Any:
    """A document (of dict, list, str, int, bool, None) with every mapping in order of its keys:
    equal documents then have equal bytes."""
    if isinstance(value, dict):
        return {key: canonical(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [canonical(each) for each in value]
    return value
