"""Registers decided by real replicas: one winner, two round trips, whoever is slow or gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from garage_lite.core.ballot import NOTHING, Acceptor, Ballot, Proposal, Rows
from garage_lite.core.cluster import row_service
from garage_lite.core.cluster.ballot_service import ACCEPT, LEARN, PREPARE
from garage_lite.core.cluster.peers import Endpoints
from garage_lite.core.cluster.row_service import Flags, Question
from garage_lite.core.errors import (
    CallerError,
    InvalidArgument,
    NoSuchBucket,
    NotImplementedHere,
    PreconditionFailed,
    QuorumNotReached,
)
from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.layout.roles import Role
from garage_lite.core.limits import GIB
from garage_lite.core.model.buckets import Bucket
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion
from garage_lite.core.model.rowkeys import (
    KEY_END,
    Stamp,
    Table,
    ballot_row,
    everywhere_row,
    in_bucket,
    inline_row,
    object_prefix,
    object_row,
    register_of,
)
from garage_lite.core.quorum import Consistency
from garage_lite.core.table.checks import Check, Rule
from garage_lite.core.table.deciding import conditional, finishing_blind, name_of
from garage_lite.core.table.schema import Update
from garage_lite.core.workers.ballots import FORGET_AFTER_US, BallotWorker
from garage_lite.core.workers.runner import IDLE
from tests.core.cluster.replicas import Replicas, node_id
from tests.sim.loop import run

BUCKET = BucketId(b"\x42" * 32)
PREFIX = object_prefix(BUCKET, b"lock")


def run_on(
    test: Callable[[Replicas], Coroutine[Any, Any, None]], count: int = 3, **options: Any
) -> None:
    async def main() -> None:
        async with Replicas(count, **options) as world:
            await test(world)

    run(main())


def ident(number: int) -> VersionId:
    return VersionId(number.to_bytes(16, "big"))


def made(number: int, clock: int = 0) -> ObjectVersion:
    return ObjectVersion(Stamp(clock, 0, ident(number)), Kind.INLINE, 0, 3, floor=Floor.ALL)


def inline(number: int) -> Update:
    return Update(inline_row(BUCKET, ident(number)), b"%03d" % number)


def blind(number: int, clock: int) -> list[Update]:
    version = made(number, clock)
    return [Update(object_row(PREFIX, version.stamp), version.encode()), inline(number)]


def inline_of(number: int) -> Rows:
    return ((inline(number).key, inline(number).value),)


def absent(alive: Sequence[ObjectVersion], placed: ObjectVersion) -> None:
    if alive and alive[0].has_data:
        raise PreconditionFailed


async def put_if_absent(
    w: Replicas, node: int, number: int, checks: Sequence[Check] = ()
) -> ObjectVersion | CallerError:
    judge = conditional(PREFIX, made(number), absent, lambda placed: inline_of(number))
    return await w[node].registers.decide(PREFIX, judge, checks)


async def current(w: Replicas, node: int) -> int | None:
    rows = await w[node].versions(PREFIX)
    return int.from_bytes(rows[0][0][-16:].translate(bytes(range(255, -1, -1)))) if rows else None


def test_a_conditional_write_takes_two_round_trips_and_a_refusal_one() -> None:
    async def test(w: Replicas) -> None:
        await w[0].sure_stamp()
        with w.taken() as cost:
            won = await put_if_absent(w, 0, 1)
        assert isinstance(won, ObjectVersion)
        assert cost.round_trips == 2.0
        await asyncio.sleep(1)
        with w.taken() as cost:
            assert isinstance(await put_if_absent(w, 1, 2), PreconditionFailed)
        assert cost.round_trips == 1.0
        assert [await current(w, node) for node in range(3)] == [1, 1, 1]
        for member in w.members:
            assert member.holds(inline(1).key) == b"001"

    run_on(test)


def test_of_fifty_racers_one_wins() -> None:
    async def test(w: Replicas) -> None:
        results = await asyncio.gather(
            *(put_if_absent(w, number % 3, number) for number in range(1, 51))
        )
        winners = [one for one in results if isinstance(one, ObjectVersion)]
        assert len(winners) == 1
        assert all(isinstance(one, ObjectVersion | PreconditionFailed) for one in results)
        for node in range(3):
            assert await current(w, node) == int.from_bytes(winners[0].id)

    run_on(test)


def test_racers_beside_blind_writes() -> None:
    async def test(w: Replicas) -> None:
        async def write(number: int) -> bool:
            await w[number % 3].write(blind(number, w[number % 3].stamp()))
            return True

        tasks = [put_if_absent(w, number % 3, number) for number in range(1, 21)]
        results = await asyncio.gather(
            *tasks, *(write(number) for number in range(100, 103)), return_exceptions=True
        )
        assert sum(isinstance(one, ObjectVersion) for one in results) <= 1
        seen = {await current(w, node) for node in range(3)}
        assert len(seen) == 1
        assert seen.pop() in (*range(1, 21), *range(100, 103))

    run_on(test)


@pytest.mark.parametrize("lost", ["frozen", "cut"])
def test_one_silent_replica_delays_nothing(lost: str) -> None:
    async def test(w: Replicas) -> None:
        await w[0].sure_stamp()
        w.freeze(2) if lost == "frozen" else w.cut(2)
        with w.taken() as cost:
            assert isinstance(await put_if_absent(w, 0, 1), ObjectVersion)
        assert cost.round_trips == 2.0
        with w.taken() as cost:
            assert isinstance(await put_if_absent(w, 1, 2), PreconditionFailed)
        assert cost.round_trips <= 4.0
        assert await current(w, 1) == 1

    run_on(test)


def test_without_a_quorum_it_says_so_in_time() -> None:
    async def test(w: Replicas) -> None:
        w.cut(1, 2)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(QuorumNotReached):
            await put_if_absent(w, 0, 1)
        assert asyncio.get_running_loop().time() - begun < 60

    run_on(test)


def accepted_at(w: Replicas, number: int) -> tuple[Ballot, Proposal]:
    ballot = Ballot(w[0].stamp(), node_id(0))
    stamp = Stamp(0, 1, ident(number))
    version = replace(made(number), stamp=stamp, settled=True, ballot=ballot)
    row = object_row(PREFIX, stamp)
    rows = ((row, version.encode()), *inline_of(number))
    return ballot, Proposal(name_of(row), rows)


async def leave_undecided(w: Replicas, number: int, *nodes: int) -> None:
    """As a proposer that dies after some have accepted."""
    ballot, proposal = accepted_at(w, number)
    sent = [proposal.name, [list(row) for row in proposal.rows], []]
    payload = [1, PREFIX, list(ballot), sent, [], [], []]
    for node in nodes:
        assert await w.answer(0, node, ACCEPT, payload) == []


def test_a_reader_and_a_listing_settle_what_is_undecided_before_they_answer() -> None:
    async def test(w: Replicas) -> None:
        await leave_undecided(w, 7, 0, 1)
        assert await current(w, 2) == 7
        await leave_undecided(w, 8, 0, 1, 2)

    async def listing(w: Replicas) -> None:
        await leave_undecided(w, 7, 0, 1)
        start = in_bucket(Table.OBJECT, BUCKET)
        found = [key async for keys, _ in w[2].scan(start, start + b"\xff") for key in keys]
        assert [key[:-26] for key in found] == [PREFIX]
        assert found[0][:-26].endswith(KEY_END)

    run_on(test)
    run_on(listing)


def test_a_range_misses_nothing_that_is_learnt_while_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(w: Replicas) -> None:
        await leave_undecided(w, 7, 0, 1, 2)
        row = accepted_at(w, 7)[1].rows[0][0]
        start = in_bucket(Table.OBJECT, BUCKET)
        many = [object_row(object_prefix(BUCKET, b"z%03d" % n), made(n).stamp) for n in range(600)]
        value = made(1).encode()
        await w.members[0].plant(*(Update(key, value) for key in many))
        monkeypatch.setattr(row_service, "asyncio", SimpleNamespace(sleep=lambda _: turn(1.0)))
        reading = asyncio.create_task(
            w[0].rows.read(Question.RANGE, start, start + b"\xff", len(many) * 2)
        )
        await turn(0.1)
        assert not reading.done()
        await w[1].registers.settle(PREFIX)
        answer = await reading
        assert w.members[0].holds(row) is not None
        assert row in answer.rows or row in answer.undecided

    turn = asyncio.sleep
    run_on(test)


def test_what_is_left_behind_is_settled_for_all() -> None:
    async def test(w: Replicas) -> None:
        await leave_undecided(w, 7, 1)
        assert w[1].registers.left_behind() == {PREFIX}
        await w[1].registers.settle(PREFIX)
        await asyncio.sleep(1)
        for member in w.members:
            assert member.tables.registers.left_behind() == set()
            stored = member.holds(ballot_row(PREFIX))
            assert stored is not None
            assert Acceptor.decode(stored).proposal == NOTHING
        assert await current(w, 0) == 7

    run_on(test)


def test_a_late_blind_write_is_replaced_by_one_that_names_it() -> None:
    async def test(w: Replicas) -> None:
        await w[0].write(blind(1, 1_000_000))
        late = made(2, 900_000)
        await w.members[2].plant(*blind(2, 900_000))
        judge = finishing_blind(PREFIX, late, ident(3), inline_of(3))
        end = await w[1].registers.decide(PREFIX, judge)
        assert (end.stamp, end.replaces) == (Stamp(1_000_000, 1, ident(3)), late.stamp)
        await asyncio.sleep(1)
        assert [await current(w, node) for node in range(3)] == [3, 3, 3]
        assert await w[0].get(inline(3).key) == b"003"

    run_on(test)


def test_what_a_replica_accepted_makes_a_blind_write_late() -> None:
    async def test(w: Replicas) -> None:
        version = made(7, 2_000_000)
        row = object_row(PREFIX, version.stamp)
        proposal = [name_of(row), [[row, version.encode()]], []]
        payload = [1, PREFIX, [w[0].stamp(), node_id(0)], proposal, [], [], []]
        await w.answer(0, 1, ACCEPT, payload)
        notes = await w[1].rows.write(blind(1, 1_000_000))
        assert [late.newest for late in notes] == [row]

    run_on(test)


def test_a_check_that_fails_refuses_before_anything_is_proposed() -> None:
    async def test(w: Replicas) -> None:
        from garage_lite.core.model.rowkeys import everywhere_row

        gone = Update(
            everywhere_row(Table.BUCKET, BUCKET), Bucket(BUCKET, 0, deleted=True).encode()
        )
        await w[0].write([gone])
        with pytest.raises(NoSuchBucket):
            await put_if_absent(w, 0, 1, [Check(Rule.BUCKET_EXISTS, gone.key)])
        assert await current(w, 1) is None

    run_on(test)


def test_outside_the_consistent_mode_nothing_is_decided() -> None:
    async def test(w: Replicas) -> None:
        with pytest.raises(NotImplementedHere):
            await put_if_absent(w, 0, 1)

    run_on(test, mode=Consistency.DEGRADED)


def test_a_node_that_restarts_keeps_its_promise() -> None:
    async def test(w: Replicas) -> None:
        high = [w[0].stamp(), node_id(0)]
        await w.answer(0, 1, PREPARE, [1, PREFIX, high, None, b"", []])
        await w.members[1].close()
        w.members[1].endpoints = Endpoints()
        await w.members[1].open(Consistency.CONSISTENT)
        refused = await w.answer(2, 1, PREPARE, [1, PREFIX, [1, node_id(2)], None, b"", []])
        assert list(refused) == high

    run_on(test)


@pytest.mark.parametrize("endpoint", [PREPARE, ACCEPT, LEARN])
def test_garbage_is_refused(endpoint: str) -> None:
    async def test(w: Replicas) -> None:
        ballot = [5, b"n"]
        row = object_row(PREFIX, Stamp(1, 0, ident(1)))
        local = bytes((Table.NODE, 0)) + b"x"
        good = {
            PREPARE: [1, PREFIX, ballot, None, b"", []],
            ACCEPT: [1, PREFIX, ballot, [b"n", [[row, b"v"]], []], [], [], []],
            LEARN: [1, PREFIX, [ballot, [[row, b"v"]], []]],
        }[endpoint]
        bad: list[Any] = [None, [], good[:-1], [*good, 1], [1, local, *good[2:]]]
        bad += [[1, PREFIX, ["x", b"n"], *good[3:]]]
        if endpoint == ACCEPT:
            bad += [
                [1, PREFIX, ballot, [b"n", [[local, b"v"]], []], [], [], []],
                [1, PREFIX, ballot, [b"n", [[b"\x10other", b"v"]], []], [], [], []],
                [1, PREFIX, ballot, [1], [], [], []],
                [1, PREFIX, ballot, [b"n", [], []], [[row]], [], []],
                [1, PREFIX, ballot, [b"n", [], []], [], [[1, 2]], []],
            ]
        for payload in bad:
            answer = await w.answer(0, 1, endpoint, payload)
            assert getattr(answer, "code", None) == InvalidArgument.__name__, payload
        assert w.members[1].holds(ballot_row(PREFIX)) is None

    run_on(test)


def test_a_chosen_row_that_comes_by_repair_ends_what_was_accepted() -> None:
    async def test(w: Replicas) -> None:
        await leave_undecided(w, 7, 1)
        row, value = accepted_at(w, 7)[1].rows[0]
        await w[1].rows.write([Update(row, value), inline(7)], (), Flags.MERGE)
        assert w[1].registers.left_behind() == set()
        stored = w.members[1].holds(ballot_row(PREFIX))
        assert stored is not None
        assert not Acceptor.decode(stored).undecided

    run_on(test)


def test_old_ballots_are_forgotten_once_all_owners_can_and_their_promise_stays() -> None:
    async def test(w: Replicas) -> None:
        await put_if_absent(w, 0, 1)
        await asyncio.sleep(1)
        registers = w[0].registers
        later = w[0].stamp() + 1
        assert not await registers.forget(PREFIX, 1)
        w.cut(2)
        assert not await registers.forget(PREFIX, later)
        w.heal()
        assert await registers.forget(PREFIX, later)
        for member in w.members:
            assert member.holds(ballot_row(PREFIX)) is None
        low = [1, node_id(2)]
        other = object_prefix(BUCKET, b"other")
        for register in (PREFIX, other):
            assert await w.answer(0, 1, PREPARE, [1, register, low, None, b"", []]) != low
            refused = await w.answer(0, 1, ACCEPT, [1, register, low, [b"", [], []], [], [], []])
            assert refused and refused != low
        assert isinstance(await put_if_absent(w, 1, 2), PreconditionFailed)
        assert await current(w, 2) == 1

    run_on(test)


def test_new_owners_get_to_know_what_was_chosen_before_the_old_ones_go() -> None:
    async def test(w: Replicas) -> None:
        await leave_undecided(w, 7, 0)
        history = w.members[0].layout.history
        for number, role in ((0, None), (3, Role("zone3", GIB))):
            history = history.with_role(node_id(number), role, 30)
        await w.know(history.applied(2, 40))
        assert not w[3].alone
        await w[0].registers.settle_left_behind()
        await asyncio.sleep(1)
        row = accepted_at(w, 7)[1].rows[0][0]
        assert [member.holds(row) is not None for member in w.members[1:]] == [True] * 3

    async def main() -> None:
        world = Replicas(4, 3)
        async with world:
            await test(world)

    run(main())


def test_a_replica_without_memory_recalls_before_it_votes() -> None:
    async def test(w: Replicas) -> None:
        await leave_undecided(w, 7, 1)
        await w[2].registers.recall(node_id(1), BUCKET[0])
        assert await current(w, 0) == 7
        await asyncio.sleep(1)
        assert w[1].registers.left_behind() == set()
        low = [w[2].stamp() - 10_000_000, node_id(0)]
        other = object_prefix(BUCKET, b"other")
        refused = await w.answer(0, 2, PREPARE, [1, other, low, None, b"", []])
        assert refused > low

    run_on(test)


def test_what_is_undecided_is_not_forgotten() -> None:
    async def test(w: Replicas) -> None:
        await leave_undecided(w, 7, 1)
        assert not await w[0].registers.forget(PREFIX, w[0].stamp() + 1)
        assert w[1].registers.left_behind() == {PREFIX}

    run_on(test)


def test_the_worker_settles_what_it_meets_twice_and_forgets_what_is_old() -> None:
    async def test(w: Replicas) -> None:
        await leave_undecided(w, 7, 1)
        worker = BallotWorker(w[1])
        await worker.work()
        assert w[1].registers.left_behind() == {PREFIX}
        while await worker.work() is not IDLE:
            pass
        await asyncio.sleep(1)
        assert w[1].registers.left_behind() == set()
        assert await current(w, 0) == 7
        await asyncio.sleep(FORGET_AFTER_US / 1_000_000 + 60)
        for member in w.members:
            forgetting = BallotWorker(member.tables)
            while await forgetting.work() is not IDLE:
                pass
        assert not any(member.holds(ballot_row(PREFIX)) for member in w.members)
        assert await current(w, 0) == 7

    run_on(test)


def test_a_register_is_found_by_its_ballot_row() -> None:
    low = object_prefix(BucketId(bytes(32)), b"a")
    for register in (PREFIX, low, everywhere_row(Table.ALIAS, b"name")):
        assert register_of(ballot_row(register)) == register
    assert register_of(ballot_row(PREFIX)[:2]) is None
