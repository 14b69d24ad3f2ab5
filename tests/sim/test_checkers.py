"""The checkers see: histories made by hand, right ones and wrong ones."""

from __future__ import annotations

import itertools
import random

import pytest

from tests.sim.checkers import (
    both_ended,
    differing_rows,
    missing_blocks,
    not_linearizable,
    orphan_blocks,
    stale_reads,
    used_after_revocation,
    wrong_listings,
)
from tests.sim.history import Kind, Operation, Outcome

OK, UNKNOWN, REFUSED, FAILED = Outcome.OK, Outcome.UNKNOWN, Outcome.REFUSED, Outcome.FAILED


def put(value: int, begin: float, end: float, outcome: Outcome = OK, key: str = "k") -> Operation:
    return Operation("a", Kind.PUT, key, begin, value, end=end, outcome=outcome)


def delete(begin: float, end: float, outcome: Outcome = OK, key: str = "k") -> Operation:
    return Operation("a", Kind.DELETE, key, begin, end=end, outcome=outcome)


def get(found: int | None, begin: float, end: float) -> Operation:
    return Operation("b", Kind.GET, "k", begin, end=end, outcome=OK, found=found)


def create(value: int, begin: float, end: float, outcome: Outcome = OK) -> Operation:
    return Operation("c", Kind.CREATE, "k", begin, value, end=end, outcome=outcome)


def swap(
    value: int, expected: int | None, begin: float, end: float, outcome: Outcome = OK
) -> Operation:
    return Operation("c", Kind.SWAP, "k", begin, value, expected, end=end, outcome=outcome)


def listing(found: set[str], begin: float, end: float) -> Operation:
    return Operation("l", Kind.LIST, "", begin, end=end, outcome=OK, found=found)


GOOD = {
    "one after another": [put(1, 0, 1), get(1, 2, 3), delete(4, 5), get(None, 6, 7)],
    "a read beside a write sees either": [put(1, 0, 5), get(None, 1, 2), get(1, 3, 4)],
    "an unknown write shows late": [
        put(1, 0, 1),
        put(2, 2, 3, UNKNOWN),
        get(1, 4, 5),
        get(2, 6, 7),
    ],
    "an unknown write never shows": [put(1, 0, 1), put(2, 2, 3, UNKNOWN), get(1, 4, 5)],
    "a failed write did nothing": [put(1, 0, 1), put(2, 2, 3, FAILED), get(1, 4, 5)],
    "of two creators one wins": [create(1, 0, 3), create(2, 1, 2, REFUSED), get(1, 4, 5)],
    "created again after a delete": [create(1, 0, 1), delete(2, 3), create(2, 4, 5), get(2, 6, 7)],
    "a swap of what is there": [put(1, 0, 1), swap(2, 1, 2, 3), swap(3, 1, 4, 5, REFUSED)],
    "an unknown swap explains a refusal": [
        put(1, 0, 1),
        swap(2, 1, 2, 3, UNKNOWN),
        swap(3, 1, 4, 5, REFUSED),
        get(2, 6, 7),
    ],
}

BAD = {
    "a lost write": [put(1, 0, 1), get(None, 2, 3)],
    "a stale read": [put(1, 0, 1), put(2, 2, 3), get(1, 4, 5)],
    "a deleted object is back": [put(1, 0, 1), delete(2, 3), get(1, 4, 5)],
    "a value from the future": [get(1, 0, 1), put(1, 2, 3)],
    "a failed write shows": [put(1, 0, 1), put(2, 2, 3, FAILED), get(2, 4, 5)],
}

NOT_LINEARIZABLE = BAD | {
    "two creators win": [create(1, 0, 3), create(2, 1, 2)],
    "a creator wins over an object": [put(1, 0, 1), create(2, 2, 3)],
    "a creator is refused by nothing": [create(1, 0, 1, REFUSED)],
    "a swap of what is no longer there": [put(1, 0, 1), put(2, 2, 3), swap(3, 1, 4, 5)],
    "a swap is refused what is there": [put(1, 0, 1), swap(3, 1, 4, 5, REFUSED)],
    "reads go back": [put(1, 0, 1), put(2, 2, 9), get(2, 3, 4), get(1, 5, 6)],
    "an unknown write takes effect twice": [
        put(2, 0, 1, UNKNOWN),
        get(2, 2, 3),
        put(3, 4, 5),
        get(3, 6, 7),
        get(2, 8, 9),
    ],
    "a lost swap": [put(1, 0, 1), swap(2, 1, 2, 3), get(1, 4, 5)],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_histories_pass(name: str) -> None:
    assert not_linearizable(GOOD[name]) == []
    assert stale_reads(GOOD[name]) == []


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_bad_histories_have_no_order(name: str) -> None:
    assert len(not_linearizable(NOT_LINEARIZABLE[name])) == 1


@pytest.mark.parametrize("name", BAD)
def test_bad_reads_are_seen(name: str) -> None:
    assert len(stale_reads(BAD[name])) == 1


def test_keys_are_told_apart() -> None:
    assert not_linearizable([put(1, 0, 1, key="other"), get(None, 2, 3)]) == []
    assert len(not_linearizable([put(1, 0, 1), get(None, 2, 3), put(1, 0, 1, key="o")])) == 1


def in_order(operations: list[Operation]) -> bool:
    """Whether any order explains them, found by trying all: the checker's own checker."""
    certain = [op for op in operations if op.outcome is not UNKNOWN]
    unknown = [op for op in operations if op.outcome is UNKNOWN]
    for size in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, size):
            for order in itertools.permutations([*certain, *some]):
                if _explains(order):
                    return True
    return False


def _explains(order: tuple[Operation, ...]) -> bool:
    state: int | None = None
    for at, op in enumerate(order):
        if any(later.end < op.begin and later.outcome is not UNKNOWN for later in order[at:]):
            return False
        holds = state is None if op.kind is Kind.CREATE else state == op.expected
        if op.kind is Kind.GET and op.found != state:
            return False
        if op.kind is Kind.CREATE and holds is (op.outcome is REFUSED):
            return False
        if op.outcome is not REFUSED and op.kind is not Kind.GET:
            state = None if op.kind is Kind.DELETE else op.value
    return True


def test_the_search_agrees_with_trying_all_orders() -> None:
    chance = random.Random(1)
    verdicts = []
    for _ in range(300):
        operations = []
        for value in range(1, 6):
            begin = chance.uniform(0, 5)
            end = begin + chance.uniform(0, 3)
            kind = chance.choice(("put", "get", "create", "delete"))
            if kind == "put":
                operations.append(put(value, begin, end, chance.choice((OK, OK, UNKNOWN))))
            elif kind == "delete":
                operations.append(delete(begin, end))
            elif kind == "create":
                outcome = chance.choice((OK, REFUSED, UNKNOWN))
                operations.append(create(value, begin, end, outcome))
            else:
                operations.append(get(chance.choice((None, 1, 2, 3)), begin, end))
        verdicts.append(in_order(operations))
        assert (not_linearizable(operations) == []) is verdicts[-1], operations
    assert 30 < sum(verdicts) < 270


def test_listings() -> None:
    history = [put(1, 0, 1), put(2, 0, 1, key="gone"), delete(2, 3, key="gone")]
    assert wrong_listings([*history, listing({"k"}, 4, 5)]) == []
    assert "misses k" in wrong_listings([*history, listing(set(), 4, 5)])[0]
    assert "shows gone" in wrong_listings([*history, listing({"k", "gone"}, 4, 5)])[0]
    assert "never written" in wrong_listings([*history, listing({"k", "x"}, 4, 5)])[0]
    during = [*history, listing({"k", "gone"}, 2.5, 2.6)]
    assert wrong_listings(during) == [], "its deletion is under way"


def test_uploads_end_one_way() -> None:
    assert both_ended({"u": OK}, {"u": UNKNOWN, "v": OK}) == []
    assert both_ended({"u": OK}, {"u": OK}) == ["upload u was completed and aborted"]


def test_replicas_at_rest() -> None:
    same = {"a": {b"k": b"1"}, "b": {b"k": b"1"}}
    assert differing_rows(same) == []
    assert len(differing_rows({**same, "c": {}})) == 1
    assert len(differing_rows({**same, "c": {b"k": b"2", b"l": b"1"}})) == 2


def test_blocks_at_rest() -> None:
    assert orphan_blocks([b"1", b"2", b"3"], [b"1"], [b"2"]) == ["block 33 belongs to nobody"]
    assert missing_blocks([b"1"], [b"1", b"2"]) == ["block 32 is missing"]


def test_revoked_keys() -> None:
    assert used_after_revocation({"GK": 5.0}, [("GK", 4.9), ("other", 9)]) == []
    assert len(used_after_revocation({"GK": 5.0}, [("GK", 5.1)])) == 1
