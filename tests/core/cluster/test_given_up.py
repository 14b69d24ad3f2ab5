"""Completions, aborts and what they remove, where replicas know different things."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from garage_lite.core.cluster.ballot_service import ACCEPT
from garage_lite.core.cluster.row_service import Flags
from garage_lite.core.disk.block_locks import BlockLeases
from garage_lite.core.errors import Fenced, PreconditionFailed, QuorumNotReached
from garage_lite.core.ids import DataId
from garage_lite.core.model.objects import Kind, ObjectVersion, survivors
from garage_lite.core.model.rowkeys import (
    STAMP_BYTES,
    part_list_row,
    part_lists_prefix,
    pending_row,
    upload_row,
)
from garage_lite.core.model.uploads import Completed, Upload, UploadState
from garage_lite.core.model.versions import Pending, PendingState
from garage_lite.core.table.checks import Check, Rule
from garage_lite.core.table.deciding import conditional
from garage_lite.core.table.schema import Update
from garage_lite.core.workers.cascade import CascadeWorker
from tests.core.cluster.replicas import Replicas, node_id
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
async def test_a_reader_does_not_take_a_void_version_for_one_that_it_repaired() -> None:
    """Between its questions and its repairs the others came to know what it has met, as void."""
    async with Replicas(3) as w:
        await w.members[0].plant(*multipart(2))
        for other in (1, 2):
            await w.members[other].plant(aborted(2, UploadState.REMOVED))
            await w.members[other].plant(*multipart(2))
        met = version(2, kind=Kind.MULTIPART)
        assert w.members[0].holds(met.key) == met.value
        for other in (1, 2):
            with pytest.raises(Fenced):
                await w[other].rows.write([met], (), Flags.MERGE | Flags.REPAIR)
        assert survivors(decoded(await w[0].versions(PREFIX))) == []


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


async def accepted(w: Replicas, rows: list[Update], *nodes: int) -> None:
    """As a proposer that dies after some have accepted."""
    version, *riders = rows
    proposed = replace(decoded([(version.key, version.value)])[0], settled=True).encode()
    sent = [version.key[-STAMP_BYTES:], [[version.key, proposed], *map(list, riders)], []]
    payload = [1, PREFIX, [w[0].stamp(), node_id(0)], sent, [], [], []]
    for node in nodes:
        assert await w.answer(0, node, ACCEPT, payload) == []


def given_up(number: int, rule: Rule) -> tuple[Update, Check]:
    """What says that data, an upload or a part of it is given up, unless it became a version."""
    if rule is Rule.NOT_COMPLETED:
        fence = aborted(number, UploadState.FENCED)
        return fence, Check(rule, fence.key)
    key = pending_row(BUCKET, DataId(ident(number)))
    fence = Update(key, Pending(PendingState.FENCED, 1, node_id(0), b"b").encode())
    lists = part_lists_prefix(BUCKET, ident(number))
    return fence, Check(rule, key if rule is Rule.NOT_DONE else lists)


@pytest.mark.parametrize("rule", [Rule.NOT_COMPLETED, Rule.NOT_DONE, Rule.NOT_LISTED])
@simulated
async def test_what_a_ballot_may_have_chosen_is_not_given_up(rule: Rule) -> None:
    async with Replicas(3) as w:
        await accepted(w, [version(9)], 0, 1, 2)
        await accepted(w, multipart(2), 0, 1)
        fence, check = given_up(2, rule)
        with pytest.raises(QuorumNotReached):
            await w[2].write([fence], checks=[check])
        other, check_other = given_up(3, rule)
        await w[2].write([other], checks=[check_other])
        await w[1].registers.settle(PREFIX)
        await asyncio.sleep(1)
        assert survivors(decoded(await w[2].versions(PREFIX)))[0].stamp == stamp(2)


@simulated
async def test_what_a_quorum_gave_up_is_not_chosen_by_whoever_finishes_it() -> None:
    async with Replicas(3) as w:
        await w[0].write(small(1))
        await accepted(w, multipart(2), 0)
        fence, check = given_up(2, Rule.NOT_COMPLETED)
        await w[2].write([fence], checks=[check])
        for reader in range(3):
            assert await w[reader].versions(PREFIX) == [tuple(version(1))]
        later = decoded([(version(4).key, version(4).value)])[0]
        judge = conditional(PREFIX, later, lambda alive, placed: None)
        placed = await w[0].registers.decide(PREFIX, judge)
        assert isinstance(placed, ObjectVersion)
        await w[1].registers.settle(PREFIX)
        await asyncio.sleep(1)
        assert not any(m.tables.registers.left_behind() for m in w.members)
        assert not any(m.holds(version(2, kind=Kind.MULTIPART).key) for m in w.members)
        assert survivors(decoded(await w[2].versions(PREFIX)))[0].stamp == placed.stamp


@simulated
async def test_while_it_can_not_be_told_whether_it_was_given_up_nothing_is_chosen() -> None:
    async with Replicas(3) as w:
        await accepted(w, multipart(2), 0)
        await w.members[1].plant(aborted(2, UploadState.FENCED))
        w.cut(2)
        with pytest.raises(QuorumNotReached):
            await w[0].registers.settle(PREFIX)
        w.heal()
        await w[0].registers.settle(PREFIX)
        assert survivors(decoded(await w[1].versions(PREFIX)))[0].stamp == stamp(2)


@simulated
async def test_what_was_chosen_comes_to_a_replica_that_gave_it_up_alone() -> None:
    async with Replicas(3) as w:
        await accepted(w, multipart(2), 0, 1)
        await w.members[2].plant(aborted(2, UploadState.FENCED))
        await w[0].registers.settle(PREFIX)
        await asyncio.sleep(1)
        assert all(m.holds(version(2, kind=Kind.MULTIPART).key) for m in w.members)


@simulated
async def test_what_is_being_given_up_refuses_no_conditional_write() -> None:
    """Neither while it can still turn out void, nor where a replica has not heard that it is."""
    async with Replicas(3) as w:
        stale = version(2, kind=Kind.BLOCKS)
        fence, _ = given_up(2, Rule.NOT_DONE)
        await w.members[0].plant(stale)
        for other in (1, 2):
            await w.members[other].plant(fence)
        later = decoded([(version(4).key, version(4).value)])[0]

        def absent(alive: Sequence[ObjectVersion], placed: ObjectVersion) -> None:
            if alive:
                raise PreconditionFailed

        judge = conditional(PREFIX, later, absent)
        deciding = asyncio.create_task(w[0].registers.decide(PREFIX, judge))
        await asyncio.sleep(3)
        removed = Pending(PendingState.REMOVED, 1, node_id(0), b"b").encode()
        for other in (1, 2):
            await w.members[other].plant(Update(fence.key, removed))
        placed = await deciding
        assert isinstance(placed, ObjectVersion)
        await asyncio.sleep(1)
        assert survivors(decoded(await w[1].versions(PREFIX)))[0].stamp == placed.stamp


@simulated
async def test_settling_undoes_no_fence_for_what_was_not_chosen() -> None:
    async with Replicas(3) as w:
        stale = version(2, kind=Kind.BLOCKS)
        fence, _ = given_up(2, Rule.NOT_DONE)
        await w.members[0].plant(stale)
        for other in (1, 2):
            await w.members[other].plant(fence)
        await w[0].registers.settle(PREFIX)
        await asyncio.sleep(1)
        assert [member.holds(stale.key) is None for member in w.members] == [False, True, True]
        assert await w[0].versions(PREFIX) == []
