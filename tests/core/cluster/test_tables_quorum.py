"""Rows at quorums: what is acknowledged is read, by few messages, whoever is slow or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from garage_lite.core.errors import DiskFull, NoSuchUpload, QuorumNotReached
from garage_lite.core.ids import BlockHash, BucketId, DataId, VersionId
from garage_lite.core.layout.roles import Parameters
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import (
    Stamp,
    Table,
    block_ref_row,
    counter_row,
    everywhere_row,
    in_bucket,
    inline_row,
    object_prefix,
    object_row,
    page_row,
)
from garage_lite.core.model.versions import BlockRef
from garage_lite.core.quorum import Consistency
from garage_lite.core.table.schema import Update
from tests.core.cluster.replicas import ROUND_TRIP, Replicas
from tests.sim.loop import run

BUCKET = BucketId(b"\x42" * 32)
KEY = b"photo.jpg"
PREFIX = object_prefix(BUCKET, KEY)


def ident(number: int) -> VersionId:
    return VersionId(number.to_bytes(16, "big"))


def stamp(number: int) -> Stamp:
    return Stamp(1_700_000_000_000_000 + number, 0, ident(number))


def version(
    number: int, *, floor: Floor = Floor.ALL, kind: Kind = Kind.INLINE, key: bytes = KEY
) -> Update:
    made = ObjectVersion(stamp(number), kind, 0, size=3, etag=bytes(16), floor=floor)
    return Update(object_row(object_prefix(BUCKET, key), made.stamp), made.encode())


def inline(number: int) -> Update:
    return Update(inline_row(BUCKET, ident(number)), b"abc")


def small(number: int) -> list[Update]:
    return [version(number), inline(number)]


def simulated(
    test: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """Run a test in a simulated loop."""

    def wrapped(**arguments: Any) -> None:
        run(test(**arguments), seed=7)

    wrapped.__name__ = test.__name__
    wrapped.__doc__ = test.__doc__
    wrapped.__signature__ = __import__("inspect").signature(test)  # type: ignore[attr-defined]
    return wrapped


@simulated
async def test_a_small_write_and_a_read_cost_one_round_trip() -> None:
    async with Replicas(3) as w:
        with w.taken() as put:
            await w[0].write(small(1))
        assert (put.round_trips, len(put.calls)) == (1.0, 2)
        with w.taken() as get:
            assert await w[1].versions(PREFIX) == [tuple(version(1))]
            assert await w[1].get(inline(1).key) == b"abc"
        assert (get.round_trips, len(get.calls)) == (1.0, 1)
