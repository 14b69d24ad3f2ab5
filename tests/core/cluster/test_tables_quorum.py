"""Rows at quorums: what is acknowledged is read, by few messages, whoever is slow or gone."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garage_lite.core.cluster.quorum_rows import WrittenLate
from garage_lite.core.cluster.tables import Tables
from garage_lite.core.errors import DiskFull, NoSuchUpload, QuorumNotReached
from garage_lite.core.ids import BlockHash, DataId
from garage_lite.core.limits import LINGERING_BYTES_MAX
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion, survivors
from garage_lite.core.model.rowkeys import (
    Stamp,
    Table,
    after_prefix,
    block_ref_row,
    counter_row,
    everywhere_row,
    in_bucket,
    object_row,
    page_row,
    part_list_row,
    upload_row,
)
from garage_lite.core.model.uploads import Upload, UploadState
from garage_lite.core.quorum import Consistency
from garage_lite.core.table.checks import Check, Rule
from garage_lite.core.table.schema import Update
from tests.core.cluster.replicas import ROUND_TRIP, Replicas
from tests.core.cluster.rows import (
    BUCKET,
    KEY,
    PREFIX,
    REF,
    decoded,
    ident,
    inline,
    removed,
    simulated,
    small,
    stamp,
    version,
)
from tests.sim.loop import run


async def listed(tables: Tables, table: Table = Table.OBJECT) -> dict[bytes, bytes]:
    start = in_bucket(table, BUCKET)
    rows: dict[bytes, bytes] = {}
    async for keys, values in tables.scan(start, after_prefix(start)):
        assert keys == sorted(keys)
        rows.update(zip(keys, values, strict=True))
    return rows


# --- what it costs


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


@simulated
async def test_a_node_that_holds_nothing_reads_a_small_object_in_one_round_trip() -> None:
    async with Replicas(4, copies=3) as w:
        await w[0].write(small(1))
        holders = w.holders(version(1).key)
        (outsider,) = set(range(4)) - set(holders)
        with w.taken() as get:
            assert await w[outsider].versions(PREFIX) == [tuple(version(1))]
            assert await w[outsider].get(inline(1).key) == b"abc"
        assert (get.round_trips, len(get.calls)) == (1.0, 2)


@simulated
async def test_a_node_alone_sends_nothing() -> None:
    async with Replicas(1) as w:
        await w[0].write(small(1))
        assert await w[0].versions(PREFIX) == [tuple(version(1))]
        assert await listed(w[0]) == dict([version(1)])
        assert not w.calls


@simulated
async def test_rows_of_several_partitions_are_written_at_once() -> None:
    async with Replicas(3) as w:
        ref = Update(block_ref_row(BlockHash(b"r" * 32), DataId(ident(1))), REF)
        bucket = Update(everywhere_row(Table.BUCKET, BUCKET), Bucket(BUCKET, 1).encode())
        with w.taken() as cost:
            await w[0].write([*small(1), ref, bucket])
        assert cost.round_trips == 1.0
        await asyncio.sleep(1)
        for row in (*small(1), ref, bucket):
            assert [m.holds(row.key) for m in w.members] == [row.value] * 3


# --- who is slow, or gone


@pytest.mark.parametrize(("copies", "lost"), [(1, 0), (2, 0), (3, 1), (5, 2)])
@simulated
async def test_a_quorum_is_enough(copies: int, lost: int) -> None:
    async with Replicas(5, copies) as w:
        holders = w.holders(version(1).key)
        w.cut(*holders[:lost])
        rest = [number for number in range(5) if number not in holders[:lost]]
        await w[rest[0]].write(small(1))
        for number in rest:
            assert await w[number].versions(PREFIX) == [tuple(version(1))]
        w.cut(holders[lost])
        with pytest.raises(QuorumNotReached):
            await w[[n for n in rest if n != holders[lost]][0]].write(small(2))


@simulated
async def test_a_frozen_node_delays_a_write_not_at_all_and_a_read_by_the_hedge_once() -> None:
    async with Replicas(3) as w:
        await w[0].write(small(1))
        w.round_trips[0, 1] = ROUND_TRIP / 2
        w.freeze(1)
        with w.taken() as put:
            await w[0].write(small(2))
        assert put.round_trips == 1.0
        with w.taken() as first:
            assert await w[0].versions(PREFIX) == [tuple(version(2))]
        assert first.round_trips == 2.0  # twice the usual half round trip, then another node
        with w.taken() as then:
            assert await w[0].versions(PREFIX) == [tuple(version(2))]
        assert then.round_trips == 1.0
        w.thaw(1)
        await asyncio.sleep(12)
        with w.taken() as again:
            assert await w[0].versions(PREFIX) == [tuple(version(2))]
        assert again.round_trips == 0.5


@simulated
async def test_what_a_slow_node_was_not_told_in_time_it_is_told_later() -> None:
    async with Replicas(3) as w:
        w.round_trips[0, 2] = 5.0
        with w.taken() as put:
            await w[0].write(small(1))
        assert put.round_trips == 1.0
        assert w.members[2].holds(version(1).key) is None
        await asyncio.sleep(5)
        assert w.members[2].holds(version(1).key) == version(1).value


@simulated
async def test_what_waits_for_a_slow_node_is_bounded() -> None:
    async with Replicas(3) as w:
        w.freeze(2)
        big = [Update(page_row(BUCKET, DataId(ident(n)), end=9), bytes(200_000)) for n in range(20)]
        for row in big:
            await w[0].write([row])
        w.thaw(2)
        await asyncio.sleep(5)
        told = sum(w.members[2].holds(row.key) is not None for row in big)
        assert 1 <= told <= LINGERING_BYTES_MAX // 200_000
        assert len(await listed(w[1], Table.PAGE)) == 20


@simulated
async def test_a_cancelled_write_goes_on() -> None:
    async with Replicas(3) as w:
        write = asyncio.create_task(w[0].write(small(1)))
        await asyncio.sleep(ROUND_TRIP / 4)
        write.cancel()
        await asyncio.sleep(1)
        assert [m.holds(version(1).key) for m in w.members] == [version(1).value] * 3


@simulated
async def test_a_damaged_row_counts_as_no_answer() -> None:
    async with Replicas(3) as w:
        await w[0].write(small(1))
        await w.members[0].damage()
        with w.taken() as cost:
            assert await w[0].versions(PREFIX) == [tuple(version(1))]
        assert cost.round_trips == 2.0, "the bytes have to come from others, too"


@simulated
async def test_a_full_disk_stops_no_write_while_two_have_room() -> None:
    async with Replicas(3) as w:
        w.members[2].refuse(DiskFull())
        await w[0].write(small(1))
        w.members[1].refuse(DiskFull())
        with pytest.raises(DiskFull):
            await w[0].write(small(2))


# --- repair


@simulated
async def test_a_row_that_one_replica_has_alone_is_at_a_quorum_once_it_was_read() -> None:
    async with Replicas(3) as w:
        await w.members[0].plant(*small(1))
        assert await w[0].versions(PREFIX) == [tuple(version(1))]
        assert sum(m.holds(version(1).key) is not None for m in w.members) >= 2
        w.cut(0)
        assert await w[1].versions(PREFIX) == [tuple(version(1))]
        assert await w[2].get(inline(1).key) == b"abc"


@simulated
async def test_a_read_that_can_not_repair_does_not_answer() -> None:
    async with Replicas(3) as w:
        await w.members[0].plant(*small(1))
        for other in (1, 2):
            w.members[other].refuse(DiskFull())
        with pytest.raises(DiskFull):
            await w[0].versions(PREFIX)


@simulated
async def test_a_removal_known_to_one_replica_of_the_quorum_counts() -> None:
    async with Replicas(3) as w:
        await w[0].write(small(1))
        await asyncio.sleep(1)
        marker = version(2, kind=Kind.DELETE_MARKER)
        await w.members[1].plant(marker)
        for reader in (0, 1):
            w.heal()
            w.cut(2)
            rows = await w[reader].versions(PREFIX)
            assert rows == [tuple(marker)]
            assert await listed(w[reader]) == dict([marker])
        assert w.members[0].holds(version(1).key) is None


@simulated
async def test_versions_that_lie_deeper_at_one_replica_are_not_missed() -> None:
    """The newest version is removed, which one replica alone knows; below it are some that only
    the other has."""
    keep = Floor.NONE
    rows = [version(number, floor=keep, kind=Kind.BLOCKS) for number in range(30)]
    gone = [removed(row) for row in rows[20:]]
    async with Replicas(3) as w:
        await w.members[0].plant(*rows[:10], *rows[15:])
        await w.members[1].plant(*rows[:15], *gone)
        w.cut(2)
        alive = survivors(decoded(await w[0].versions(PREFIX)))
        assert alive[0].stamp == stamp(19)
        await w.members[1].plant(*[removed(row) for row in rows[15:20]])
        alive = survivors(decoded(await w[0].versions(PREFIX)))
        assert alive[0].stamp == stamp(14)


@simulated
async def test_part_lists_come_with_the_version_that_a_read_repairs() -> None:
    async with Replicas(3) as w:
        big = version(1, kind=Kind.MULTIPART)
        lists = [Update(part_list_row(BUCKET, ident(1), end=n), b"x" * 100) for n in (1, 2, 3)]
        await w.members[1].plant(big, *lists)
        w.cut(2)
        await w[0].versions(PREFIX)
        assert [w.members[0].holds(row.key) for row in lists] == [row.value for row in lists]


# --- ranges


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.sets(st.integers(0, 2), min_size=1), st.booleans()),
        max_size=60,
        unique_by=lambda row: row[0],
    ),
    st.integers(1, 7),
    st.sampled_from([None, 0, 1, 2]),
)
def test_ranges_are_what_the_replicas_hold_together(
    rows: list[tuple[int, set[int], bool]], page: int, away: int | None
) -> None:
    """Rows spread over replicas in any way, read in small pages: each is there that a replica of
    the quorum holds, in order, unless one of them knows that it is gone."""

    async def main() -> None:
        async with Replicas(3) as w:
            for number, holders, gone in rows:
                row = page_row(BUCKET, DataId(ident(number)), end=5)
                for holder in sorted(holders):
                    await w.members[holder].plant(Update(row, b"value"))
                if gone:
                    await w.members[min(holders)].plant(Update(row, b""))
            w.page_rows = page
            if away is not None:
                w.cut(away)
            reader = 0 if away != 0 else 1
            asked = [0, 1, 2] if away is None else [n for n in range(3) if n != away]
            asked = [reader, *[n for n in asked if n != reader]][:2]
            expected = {
                page_row(BUCKET, DataId(ident(number)), end=5)
                for number, holders, gone in rows
                if holders & set(asked) and not (gone and min(holders) in asked)
            }
            assert set(await listed(w[reader], Table.PAGE)) == expected
            w.heal()
            w.cut(asked[1])
            again = set(await listed(w[asked[0]], Table.PAGE))
            assert expected <= again or any(gone for _, _, gone in rows)

    run(main(), seed=3)


@simulated
async def test_a_thousand_rows_are_one_page() -> None:
    async with Replicas(3) as w:
        rows = [version(1, kind=Kind.BLOCKS, key=b"k%04d" % n) for n in range(1001)]
        for at in range(0, len(rows), 100):
            await w[0].write(rows[at : at + 100])
        await asyncio.sleep(2)
        with w.taken() as cost:
            assert await listed(w[1]) == dict(rows)
        assert (cost.round_trips, len(cost.calls)) == (1.0, 1)


# --- checks and lateness


@simulated
async def test_a_check_that_a_quorum_refuses_fails_the_write() -> None:
    async with Replicas(3) as w:
        row = upload_row(BUCKET, KEY, ident(5))
        await w[0].write([Update(row, Upload(UploadState.OPEN, 1, "GK").encode())])
        await asyncio.sleep(1)
        check = Check(Rule.UPLOAD_OPEN, row)
        await w[0].write(small(1), checks=[check])
        fenced = Update(row, Upload(UploadState.FENCED, 1, "GK").encode())
        await w.members[1].plant(fenced)
        await w[0].write(small(2), checks=[check])
        await asyncio.sleep(1)
        assert w.members[1].holds(version(2).key) is None
        await w.members[2].plant(fenced)
        with pytest.raises(NoSuchUpload):
            await w[0].write(small(3), checks=[check])


@simulated
async def test_a_write_that_is_late_at_too_many_replicas_says_so() -> None:
    async with Replicas(3) as w:
        await w.members[1].plant(*small(9))
        await w[0].write(small(5))  # late at one
        await w.members[2].plant(*small(9))
        with pytest.raises(WrittenLate) as late:
            await w[0].write(small(6))
        assert late.value.clock == stamp(9).clock
        assert w[0].stamp() > 0


@simulated
async def test_a_late_write_waits_for_a_silent_replica_no_longer_than_it_usually_takes() -> None:
    async with Replicas(3) as w:
        await w.members[1].plant(*small(9))
        w.freeze(2)
        with w.taken() as cost, pytest.raises(WrittenLate):
            await w[0].write(small(5))
        assert cost.round_trips == 3.0
        w.round_trips = dict.fromkeys([(0, 1), (0, 2), (1, 2)], 0.001)
        with w.taken() as cost, pytest.raises(WrittenLate):
            await w[0].write(small(6))
        assert 0.1 <= cost.seconds < 0.2
        asyncio.get_running_loop().call_later(0.09, w.thaw, 2)
        await w[0].write(small(7))  # on time at two, after all


@simulated
async def test_a_stamp_that_was_met_is_passed() -> None:
    async with Replicas(3) as w:
        ahead = Stamp(w[0].stamp() + 60_000_000, 0, ident(1))
        row = ObjectVersion(ahead, Kind.DELETE_MARKER, 0).encode()
        await w[0].write([Update(object_row(PREFIX, ahead), row)])
        await asyncio.sleep(1)
        assert w[2].stamp() > ahead.clock


# --- counters


@simulated
async def test_a_counter_is_the_highest_of_its_owners() -> None:
    async with Replicas(3) as w:
        await w[0].write(small(1))
        await asyncio.sleep(1)
        await w.members[1].plant(*[version(1, key=b"other")])
        counted = await w[0].get(counter_row(BUCKET))
        assert counted is not None and Counters.decode(counted).objects == 2


# --- modes and layouts


@pytest.mark.parametrize(
    ("mode", "reads", "writes"),
    [
        (Consistency.CONSISTENT, False, False),
        (Consistency.DEGRADED, True, False),
        (Consistency.DANGEROUS, True, True),
    ],
)
@simulated
async def test_the_weaker_modes_do_with_one_node(
    mode: Consistency, reads: bool, writes: bool
) -> None:
    async with Replicas(3, mode=mode) as w:
        await w[0].write(small(1))
        await asyncio.sleep(1)
        w.cut(1, 2)
        outcomes = []
        for attempt in (w[0].versions(PREFIX), w[0].write(small(2))):
            try:
                await attempt
                outcomes.append(True)
            except QuorumNotReached:
                outcomes.append(False)
        assert outcomes == [reads, writes]


@simulated
async def test_between_two_layouts_a_write_needs_both_quorums() -> None:
    async with Replicas(6, copies=3, holding=3) as w:
        await w[0].write(small(1))
        await w.move_to(3, 4, 5)
        assert len(w.members[0].layout.history.active) == 2
        await w[0].write(small(2))
        await asyncio.sleep(1)
        assert all(m.holds(version(2).key) is not None for m in w.members)
        w.cut(1, 2)
        with pytest.raises(QuorumNotReached):
            await w[0].write(small(3))
        w.heal()
        w.cut(4, 5)
        with pytest.raises(QuorumNotReached):
            await w[0].write(small(4))


@simulated
async def test_a_writer_with_an_old_layout_learns_the_new_one_and_tries_again() -> None:
    async with Replicas(4, copies=3, holding=3) as w:
        old = w.members[0].layout.history
        await w.move_to(1, 2, 3)
        await w.finish_moving()
        floor = w.members[1].layout.lookup.ack_floor
        assert floor == 2
        await w.forget_layout(0, old)
        await w[0].write(small(1))
        assert w.members[0].layout.history.current.number == 2
        await asyncio.sleep(1)
        assert all(w.members[n].holds(version(1).key) is not None for n in (1, 2, 3))
