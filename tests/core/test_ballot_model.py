"""The rules of deciding by ballot, on many random schedules; and without each rule in turn.

BALLOT_SEEDS=100000 runs more; BALLOT_SEED=N runs one, mixed and frozen, and prints what happened.
"""

from __future__ import annotations

import os

import pytest

from tests.core.ballot_checker import Operation, linearizable
from tests.core.ballot_mutants import MUTANTS, first_caught
from tests.core.ballot_world import World

SEEDS = int(os.environ.get("BALLOT_SEEDS", "1500"))
ONE = os.environ.get("BALLOT_SEED")
SHARDS = 4
CAUGHT_BY = {
    "a refusal settles nothing": 1408,
    "nothing is noted": 703,
    "a proposer finishes the lowest ballot": 2348,
    "an acceptor forgets the ballot of what was chosen": 23248,
    "equal clocks are not late": 13421,
    "a replacement need not be above what it replaces": 29017,
    "a refused proposal stays": 14205,
}
"""Where a rule's absence shows late: a seed that shows it."""


@pytest.mark.skipif(ONE is not None, reason="one seed is asked for")
@pytest.mark.timeout(36_000 if "BALLOT_SEEDS" in os.environ else 60)
@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("frozen", [False, True], ids=["lossy", "frozen"])
def test_every_schedule_is_linearizable_and_ends(frozen: bool, shard: int) -> None:
    share = SEEDS // SHARDS // (2 if frozen else 1)
    for seed in range(shard * share, (shard + 1) * share):
        fault = World(seed, frozen=frozen).run().fault()
        assert fault is None, f"{fault}: BALLOT_SEED={seed}"


@pytest.mark.skipif(ONE is None, reason="BALLOT_SEED names no seed")
@pytest.mark.parametrize("frozen", [False, True], ids=["lossy", "frozen"])
def test_one_schedule(frozen: bool) -> None:
    world = World(int(ONE or 0), frozen=frozen).run()
    told = "\n".join(str(each) for each in [*world.history, *world.reads])
    assert world.fault() is None, told


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_left_out_is_caught(name: str) -> None:
    start = CAUGHT_BY.get(name, 0)
    assert first_caught(name, range(start, start + 700)) is not None


def _put(id_: int, start: int, end: int | None, ok: bool | None = True) -> Operation:
    return Operation(id_, "put", start, None, end, ok)


def test_the_checker_accepts_what_a_register_may_do() -> None:
    overlapping = [_put(1, 0, 10), _put(2, 5, 20), Operation(3, "read", 25, None, 30, True, 1)]
    assert linearizable(overlapping)
    unheard = [_put(1, 0, 10), _put(2, 5, None, None)]
    for got in (1, 2):
        assert linearizable([*unheard, Operation(3, "read", 25, None, 30, True, got)])


def test_the_checker_sees_what_a_register_never_does() -> None:
    first = _put(1, 0, 10)
    assert not linearizable([first, _put(2, 15, 20), Operation(3, "read", 25, None, 30, True, 1)])
    assert not linearizable([first, Operation(2, "absent", 15, None, 20, True)])
    assert not linearizable([Operation(2, "absent", 15, None, 20, False)])
    both = [Operation(each, "absent", 0, None, 20, True) for each in (1, 2)]
    assert not linearizable(both)
