"""Which directory a block goes to, and how few move when the directories change."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.block.placement import (
    SLICES,
    Placement,
    Share,
    place,
    quotas,
    slice_of,
)
from garage_lite.core.ids import BlockHash


def name(number: int) -> bytes:
    return bytes([number]) * 16


@st.composite
def shares(draw: st.DrawFn) -> list[Share]:
    numbers = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6, unique=True))
    weights = draw(
        st.lists(st.integers(0, 8000), min_size=len(numbers), max_size=len(numbers)).filter(any)
    )
    return [Share(name(number), weight) for number, weight in zip(numbers, weights, strict=True)]


def block_in(number: int) -> BlockHash:
    return BlockHash(b"\x00\x00" + number.to_bytes(2, "big") + bytes(28))


def test_slices_come_from_the_bytes_that_do_not_name_folders() -> None:
    assert slice_of(BlockHash(b"\xff\xff\x00\x05" + bytes(28))) == 5
    assert slice_of(BlockHash(b"\x00\x00\x04\x05" + bytes(28))) == 5


@given(shares())
def test_every_block_has_one_home_and_shares_follow_the_capacities(given: list[Share]) -> None:
    placement = place(given)
    assert len(placement.primary) == len(placement.former) == SLICES
    total = sum(share.weight for share in given)
    counted = placement.shares()
    for share in given:
        assert abs(counted.get(share.id, 0) - SLICES * share.weight / total) < 1
    assert sum(counted.values()) == SLICES
    assert placement == place(list(reversed(given)))


@given(shares(), shares())
def test_a_change_moves_as_few_slices_as_possible(before: list[Share], after: list[Share]) -> None:
    old, new = place(before), place(after, place(before))
    quota = quotas(after)
    must_move = sum(max(0, count - quota.get(id, 0)) for id, count in old.shares().items())
    moved = sum(was != now for was, now in zip(old.primary, new.primary, strict=True))
    assert moved == must_move
    assert new.shares() == {id: count for id, count in quota.items() if count}


@given(shares(), shares())
def test_what_moved_is_still_looked_for_where_it_was(
    before: list[Share], after: list[Share]
) -> None:
    old, new = place(before), place(after, place(before))
    ids = {share.id for share in after}
    for number in range(0, SLICES, 7):
        order = new.search_order(block_in(number), ids)
        assert sorted(order) == sorted(ids)
        assert order[0] == new.primary[number]
        was = old.primary[number]
        if was in ids and was != order[0]:
            assert order[1] == was
            assert new.former[number] == (was,)


@given(shares(), shares(), shares())
def test_places_are_kept_and_forgotten(
    first: list[Share], second: list[Share], third: list[Share]
) -> None:
    placement = place(third, place(second, place(first)))
    assert Placement.decode(placement.encode()) == placement
    ids = {share.id for share in third}
    assert all(id in ids for former in placement.former for id in former)
    assert all(
        primary not in former
        for primary, former in zip(placement.primary, placement.former, strict=True)
    )
    settled = placement.settled()
    assert settled.primary == placement.primary and not any(settled.former)
    assert place(third, settled) == settled


def test_a_read_only_directory_keeps_its_blocks_and_gets_none() -> None:
    both = place([Share(name(1), 10), Share(name(2), 10)])
    after = place([Share(name(1), 0), Share(name(2), 10)], both)
    assert after.shares() == {name(2): SLICES}
    assert Counter(former for former in after.former)[(name(1),)] == SLICES // 2


def test_new_slices_are_mixed_so_that_no_run_shares_a_disk() -> None:
    placement = place([Share(name(1), 1), Share(name(2), 1), Share(name(3), 2)])
    for start in range(0, SLICES - 8, 8):
        assert len(set(placement.primary[start : start + 8])) == 3


@pytest.mark.parametrize(
    "bad",
    [
        [],
        [Share(name(1), 0)],
        [Share(name(1), 1), Share(name(1), 1)],
        [Share(bytes([number // 256, number % 256]) * 8, 1) for number in range(256)],
    ],
)
def test_impossible_sets_are_refused(bad: list[Share]) -> None:
    with pytest.raises(ValueError):
        place(bad)
