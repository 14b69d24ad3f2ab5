"""Completions, aborts and what they remove, where replicas know different things."""

from __future__ import annotations

import asyncio

import pytest

from garage_lite.core.disk.block_locks import BlockLeases
from garage_lite.core.errors import QuorumNotReached
from garage_lite.core.model.objects import Kind, survivors
from garage_lite.core.model.rowkeys import (
    part_list_row,
    upload_row,
)
from garage_lite.core.model.uploads import Completed, Upload, UploadState
from garage_lite.core.table.schema import Update
from garage_lite.core.workers.cascade import CascadeWorker
from tests.core.cluster.replicas import Replicas
from tests.core.cluster.rows import (
    BUCKET,
    KEY,
    PREFIX,
    decoded,
    ident,
    inline,
    simulated,
    small,
    stamp,
    version,
)


def multipart(number: int, key: bytes = KEY) -> list[Update]:
    """A completion as it comes to a replica."""
    made = version(number, kind=Kind.MULTIPART, key=key)
    done = Completed(b"e", 1, b"d", None, 1, stamp(number))
    upload = Upload(UploadState.COMPLETED, 1, "GK", completed=done)
    lists = Update(part_list_row(BUCKET, ident(number), end=1), b"list")
    return [made, Update(upload_row(BUCKET, key, ident(number)), upload.encode()), lists]


def aborted(number: int, state: UploadState) -> Update:
    return Update(upload_row(BUCKET, KEY, ident(number)), Upload(state, 1, "GK").encode())


@simulated
async def test_a_completion_that_one_replica_took_beside_an_abort_is_not_seen() -> None:
    async with Replicas(3) as w:
        await w[0].write(small(1))
        await asyncio.sleep(1)
        await w.members[0].plant(*multipart(2))
        for other in (1, 2):
            await w.members[other].plant(aborted(2, UploadState.FENCED))
        for reader in (0, 1, 2):
            assert await w[reader].versions(PREFIX) == [tuple(version(1))]
            assert await w[reader].get(inline(1).key) == b"abc"
        await w[1].write([aborted(2, UploadState.REMOVED)])
        await asyncio.sleep(1)
        alive = survivors(decoded(await w[0].versions(PREFIX)))
        assert [one.stamp for one in alive] == [stamp(1)]


@simulated
async def test_what_can_not_be_told_is_not_answered() -> None:
    """One replica completed the upload, one fenced it, the third is away."""
    async with Replicas(3) as w:
        await w.members[0].plant(*multipart(2))
        await w.members[1].plant(aborted(2, UploadState.FENCED))
        w.cut(2)
        with pytest.raises(QuorumNotReached):
            await w[0].versions(PREFIX)
        w.heal()
        assert survivors(decoded(await w[0].versions(PREFIX)))[0].stamp == stamp(2)


@simulated
async def test_what_a_version_with_blocks_removes_stays_until_that_is_sure() -> None:
    async with Replicas(3) as w:
        await w[0].write(small(1))
        big = version(2, kind=Kind.BLOCKS)
        await w[0].write([big])
        await asyncio.sleep(1)
        assert all(m.holds(version(1).key) and m.holds(inline(1).key) for m in w.members)
        assert survivors(decoded(await w[0].versions(PREFIX)))[0].stamp == stamp(2)
        assert [number for number in range(3) if w[number].leads(PREFIX)] == w.holders(PREFIX)[:1]
        worker = CascadeWorker(w[w.holders(PREFIX)[0]], BlockLeases())
        await worker.work()
        await asyncio.sleep(1)
        assert not any(m.holds(version(1).key) or m.holds(inline(1).key) for m in w.members)
