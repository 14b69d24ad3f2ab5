"""Settings that every node reads by itself: never stale, at the price of few messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from garage_lite.core.cluster import settings_lease
from garage_lite.core.cluster.settings_lease import APPLIED, IDLE_US, RENEW
from garage_lite.core.errors import NoSuchBucket, QuorumNotReached, StaleLayout
from garage_lite.core.ids import BucketId
from garage_lite.core.lease import GRANT_US, HOLD_US
from garage_lite.core.model.buckets import Bucket, Permission, Versioning
from garage_lite.core.model.rowkeys import Table, everywhere_row, object_prefix
from garage_lite.core.quorum import Consistency
from garage_lite.core.store.buckets import Buckets
from garage_lite.core.store.directory import Directory
from garage_lite.core.store.keys import Keys
from garage_lite.core.table.schema import Update
from garage_lite.core.wire.messages import PeerFailed
from tests.core.cluster.replicas import ROUND_TRIP, Replicas
from tests.sim.loop import run

HOLD_SECONDS = HOLD_US / 1_000_000
GRANT_SECONDS = GRANT_US / 1_000_000


class Office:
    """The verbs at one node."""

    def __init__(self, w: Replicas, number: int, directory: Directory) -> None:
        tables = w[number]
        self.settings = tables.settings
        self.directory = directory
        self.buckets = Buckets(tables)
        self.keys = Keys(tables, directory)

    def is_fresh(self) -> bool:
        return self.directory.is_fresh

    async def may_read(self, bucket: BucketId, key: str) -> bool:
        await self.directory.fresh()
        found = self.directory.bucket_by_id(bucket)
        return Permission.READ in found.permissions_of(key) and self.directory.key(key) is not None


Scene = Callable[[Replicas, list[Office]], Awaitable[None]]


def play(
    scene: Scene,
    nodes: int = 3,
    *,
    keep: bool = True,
    mode: Consistency = Consistency.CONSISTENT,
    holding: int | None = None,
) -> None:
    """`keep`: every node renews its lease, and did so long enough that all is quiet."""

    async def main() -> None:
        async with Replicas(nodes, holding, mode, holding) as w:
            offices = [Office(w, n, await Directory.load(w[n])) for n in range(nodes)]
            if keep:
                for office in offices:
                    office.settings.start()
                    assert office.settings.valid in (True, False)
                await asyncio.sleep(GRANT_SECONDS + 1)
            await scene(w, offices)

    run(main())


async def opened(one: Office) -> tuple[BucketId, str]:
    """A bucket, and a key that may read it."""
    bucket, key = await one.buckets.create(global_alias="photos"), await one.keys.create("phone")
    await one.buckets.allow(bucket, key.id, Permission.READ)
    return bucket, key.id


def test_a_change_is_seen_at_once_by_all() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        one, two, three = offices
        bucket, key = await opened(one)
        assert two.directory.is_fresh and await two.may_read(bucket, key)
        with w.taken() as cost:
            await two.buckets.deny(bucket, key, Permission.READ)
        assert cost.round_trips == 2
        assert three.directory.is_fresh and one.directory.is_fresh
        assert not await three.may_read(bucket, key)
        await three.buckets.set_versioning(bucket, Versioning.ENABLED)
        assert one.directory.bucket_by_id(bucket).versioning.value == Versioning.ENABLED
        await one.keys.delete(key)
        assert two.directory.key(key) is None

    play(scene)


def test_a_node_cut_off_loses_its_lease_before_a_change_is_acknowledged() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        one, _, three = offices
        bucket, key = await opened(one)
        assert await three.may_read(bucket, key)
        w.cut(2)
        assert await three.may_read(bucket, key), "nothing has changed yet"
        with w.taken() as cost:
            await one.buckets.deny(bucket, key, Permission.READ)
        assert cost.seconds <= GRANT_SECONDS + 2 * ROUND_TRIP
        assert not three.directory.is_fresh
        with pytest.raises(QuorumNotReached):
            await three.may_read(bucket, key)
        w.heal()
        assert not await three.may_read(bucket, key)

    play(scene)


def test_a_node_long_gone_costs_nothing() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        bucket, key = await opened(offices[0])
        w.cut(2)
        await asyncio.sleep(GRANT_SECONDS + 1)
        with w.taken() as cost:
            await offices[0].buckets.deny(bucket, key, Permission.READ)
        assert cost.round_trips == 2

    play(scene)


def test_a_silent_node_is_waited_for_no_longer_than_its_lease() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        bucket, key = await opened(offices[0])
        w.freeze(2)
        with w.taken() as cost:
            await offices[0].buckets.deny(bucket, key, Permission.READ)
        assert HOLD_SECONDS / 2 < cost.seconds <= GRANT_SECONDS + 2 * ROUND_TRIP
        with w.taken() as cost:
            await offices[0].buckets.allow(bucket, key, Permission.READ)
        assert cost.seconds <= GRANT_SECONDS + 2 * ROUND_TRIP
        assert await offices[1].may_read(bucket, key)

    play(scene)


def test_a_new_bucket_or_key_does_not_wait_and_is_found_by_who_looks() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        one, _, three = offices
        w.freeze(2)
        with w.taken() as cost:
            key = await one.keys.create("phone")
        assert cost.round_trips == 1
        with w.taken() as cost:
            await one.buckets.create(global_alias="photos")
        assert cost.seconds < HOLD_SECONDS / 2
        w.thaw(2)
        assert three.directory.is_fresh
        with pytest.raises(NoSuchBucket):
            three.directory.resolve("photos")
        with w.taken() as cost:
            bucket = await three.directory.find("photos")
        assert cost.round_trips <= 1.3
        assert three.directory.key(key.id) is not None
        with pytest.raises(NoSuchBucket):
            await three.directory.find("films")
        await three.buckets.allow(bucket.id, key.id, Permission.READ)

    play(scene)


def test_an_edit_of_what_is_new_elsewhere_is_found() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        w.freeze(2)
        bucket, key = await offices[0].buckets.create(), await offices[0].keys.create("phone")
        w.thaw(2)
        await offices[2].buckets.allow(bucket, key.id, Permission.READ)
        assert await offices[1].may_read(bucket, key.id)

    play(scene)


def test_strangers_cost_few_messages() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        async def strange(number: int) -> None:
            with pytest.raises(NoSuchBucket):
                await offices[0].directory.find(f"no-{number}")

        with w.taken() as cost:
            await asyncio.gather(*map(strange, range(1000)))
        asked = [call for call in cost.calls if call.source == 0]
        assert len(asked) <= 2 * 2 + 2, "two rounds, and maybe a renewal"

    play(scene)


def test_a_node_that_nobody_asks_is_silent_until_it_is_asked() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        await asyncio.sleep(IDLE_US / 1_000_000)
        with w.taken() as cost:
            await asyncio.sleep(60)
        assert not cost.calls
        assert not offices[0].is_fresh()
        with w.taken() as cost:
            await offices[0].directory.fresh()
        assert cost.round_trips == 1
        assert offices[0].is_fresh()
        await asyncio.sleep(HOLD_SECONDS * 3)
        assert offices[0].is_fresh()

    play(scene)


@pytest.mark.parametrize(
    ("nodes", "mode"),
    [(1, Consistency.CONSISTENT), (2, Consistency.CONSISTENT), (3, Consistency.DEGRADED)],
)
def test_who_may_read_alone_asks_nobody(nodes: int, mode: Consistency) -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        with w.taken() as cost:
            await asyncio.sleep(60)
            assert offices[0].directory.is_fresh
            await offices[0].directory.fresh()
        assert not cost.calls

    play(scene, nodes, mode=mode)


def test_two_nodes_change_settings_together_only() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        bucket, key = await opened(offices[0])
        w.cut(1)
        assert await offices[1].may_read(bucket, key)
        with pytest.raises(QuorumNotReached):
            await offices[0].buckets.deny(bucket, key, Permission.READ)

    play(scene, 2)


def test_a_node_without_a_role_asks_every_time() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        bucket, key = await opened(offices[0])
        outsider = offices[3]
        assert not outsider.directory.is_fresh
        assert await outsider.may_read(bucket, key)
        assert not outsider.directory.is_fresh
        await outsider.buckets.deny(bucket, key, Permission.READ)
        assert not await offices[1].may_read(bucket, key)
        assert not await outsider.may_read(bucket, key)

    play(scene, 4, holding=3)


def test_a_lease_counts_in_the_layout_as_it_is_now() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        bucket, key = await opened(offices[0])
        assert offices[0].is_fresh()
        await w.move_to(2, 3, 4)
        assert not offices[0].is_fresh(), "no quorum of the new layout has granted it"
        assert await offices[4].may_read(bucket, key)
        await offices[4].buckets.deny(bucket, key, Permission.READ)
        assert not await offices[0].may_read(bucket, key)
        await asyncio.gather(*(office.directory.look() for office in offices))
        await w.finish_moving()
        assert not await offices[3].may_read(bucket, key)

    play(scene, 5, holding=3)


def test_who_was_away_in_a_change_of_layout_learns_of_it() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        bucket, key = await opened(offices[0])
        before = w.members[2].layout.history
        await w.move_to(0, 1, 2, 3)
        await asyncio.gather(*(office.directory.look() for office in offices))
        await w.finish_moving()
        await w.forget_layout(2, before)
        await offices[2].directory.look()
        assert w.members[2].layout.history.current.number == 2
        assert await offices[2].may_read(bucket, key)

    play(scene, 4, holding=3)


def test_a_node_that_has_missed_much_reads_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_lease, "SETTINGS_FEED_ROWS_MAX", 50)

    async def scene(w: Replicas, offices: list[Office]) -> None:
        w.page_rows = 40
        w.cut(2)
        rows = [Bucket(BucketId(n.to_bytes(32, "big")), 0) for n in range(100)]
        await w[0].write(
            [Update(everywhere_row(Table.BUCKET, row.id), row.encode()) for row in rows]
        )
        w.heal()
        await offices[2].directory.look()
        assert offices[2].directory.buckets() == rows

    play(scene)


def test_the_same_row_twice_at_once_is_durable_for_both() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        bucket = Bucket(BucketId(bytes(32)), 0)
        row = Update(everywhere_row(Table.BUCKET, bucket.id), bucket.encode())

        async def write() -> None:
            await w[0].rows.write([row])
            assert w.members[0].holds(row.key) == row.value

        await asyncio.gather(write(), write())

    play(scene, keep=False)


def test_who_may_have_lost_settings_counts_for_nobody() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        bucket, key = await opened(offices[0])
        w[2].rows.may_answer = lambda key: False
        await asyncio.sleep(HOLD_SECONDS + 1)
        assert await offices[2].may_read(bucket, key), "two others know"
        w.cut(1)
        await asyncio.sleep(HOLD_SECONDS + 1)
        for office in offices[::2]:
            assert not office.is_fresh()
            with pytest.raises(QuorumNotReached):
                await office.directory.fresh()

    play(scene)


OBJECT_ROW = object_prefix(BucketId(bytes(32)), b"k") + bytes(26)


def test_what_is_no_question_is_refused() -> None:
    questions: list[tuple[str, Any]] = [
        (RENEW, None),
        (RENEW, [1]),
        (RENEW, [1, [b"run"]]),
        (RENEW, [1, ["run", 1]]),
        (RENEW, ["1", None]),
        (APPLIED, []),
        (APPLIED, [1, [[b"\x01"]]]),
        (APPLIED, [1, [[b"\x01\x00a", None]]]),
        (APPLIED, [1, [[OBJECT_ROW, b"value"]]]),
    ]

    async def scene(w: Replicas, offices: list[Office]) -> None:
        for endpoint, payload in questions:
            answer = await w.answer(0, 1, endpoint, payload)
            assert isinstance(answer, PeerFailed), payload
        for endpoint, rest in ((RENEW, None), (APPLIED, [])):
            answer = await w.answer(0, 1, endpoint, [0, rest])
            assert isinstance(answer, PeerFailed)
            assert answer.code == StaleLayout.__name__

    play(scene, keep=False)


def test_what_is_no_lease_is_not_held() -> None:
    answers: list[Any] = [None, [], [b"run", 1, [b"\x01\x00a"]], [b"run", 1, [b"x", b"y"]]]

    async def scene(w: Replicas, offices: list[Office]) -> None:
        told = iter(answers)

        async def wrong(request: Any) -> Any:
            return next(told)

        w.cut(2)
        w.members[1].endpoints.handlers[RENEW] = wrong
        for _ in answers:
            with pytest.raises(QuorumNotReached, match="a peer"):
                await offices[0].directory.fresh()
            assert not offices[0].is_fresh()
        assert next(told, None) is None

    play(scene, keep=False)


def test_who_does_not_say_what_he_has_granted_is_waited_for() -> None:
    async def scene(w: Replicas, offices: list[Office]) -> None:
        bucket, key = await opened(offices[0])

        async def wrong(request: Any) -> Any:
            return [0, {b"node": "soon"}]

        w.members[2].endpoints.handlers[APPLIED] = wrong
        with w.taken() as cost:
            await offices[0].buckets.deny(bucket, key, Permission.READ)
        assert HOLD_SECONDS / 2 < cost.seconds <= GRANT_SECONDS + 2 * ROUND_TRIP

    play(scene)
