"""Rows that the tests of the replicated tables write."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import (
    Stamp,
    inline_row,
    object_prefix,
    object_row,
    stamp_of,
)
from garage_lite.core.model.versions import BlockRef
from garage_lite.core.table.schema import Update
from tests.sim.loop import run

BUCKET = BucketId(b"\x42" * 32)
KEY = b"photo.jpg"
PREFIX = object_prefix(BUCKET, KEY)
REF = BlockRef(BUCKET).encode()


def ident(number: int) -> VersionId:
    return VersionId(number.to_bytes(16, "big"))


def stamp(number: int) -> Stamp:
    return Stamp(1_700_000_000_000_000 + number, 0, ident(number))


def version(
    number: int, *, floor: Floor = Floor.ALL, kind: Kind = Kind.INLINE, key: bytes = KEY
) -> Update:
    made = ObjectVersion(stamp(number), kind, 0, size=3, etag=bytes(16), floor=floor)
    return Update(object_row(object_prefix(BUCKET, key), made.stamp), made.encode())


def removed(row: Update) -> Update:
    gone = replace(ObjectVersion.decode(stamp_of(row.key), row.value), removed=True)
    return Update(row.key, gone.encode())


def decoded(rows: list[tuple[bytes, bytes]]) -> list[ObjectVersion]:
    return [ObjectVersion.decode(stamp_of(key), value) for key, value in rows]


def inline(number: int) -> Update:
    return Update(inline_row(BUCKET, ident(number)), b"abc")


def small(number: int) -> list[Update]:
    return [version(number), inline(number)]


def simulated(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in a simulated loop."""

    def wrapped(**arguments: Any) -> None:
        run(test(**arguments), seed=7)

    wrapped.__name__ = test.__name__
    wrapped.__doc__ = test.__doc__
    wrapped.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return wrapped
