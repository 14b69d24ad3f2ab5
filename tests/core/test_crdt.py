"""Registers and maps that merge; their laws inside rows are in model/test_merges.py."""

from __future__ import annotations

from functools import reduce
from itertools import permutations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.crdt import Lww, LwwMap
from tests.core.model.rows import documents, maps, registers


@given(st.lists(registers(documents), min_size=3, max_size=3))
def test_registers_merge_alike_in_every_order(copies: list[Lww[Any]]) -> None:
    merged = {repr(reduce(Lww.merge, order).pack()) for order in permutations(copies)}
    assert len(merged) == 1


@given(st.lists(maps(st.booleans()), min_size=3, max_size=3))
def test_maps_merge_alike_in_every_order(copies: list[LwwMap[bool]]) -> None:
    merged = {repr(reduce(LwwMap.merge, order).pack()) for order in permutations(copies)}
    assert len(merged) == 1


@given(registers(documents), documents, st.integers(0, 2**62))
def test_a_new_value_wins_over_the_old_one(old: Lww[Any], value: Any, now_us: int) -> None:
    new = old.set(value, now_us)
    assert new.stamp_us > old.stamp_us
    assert old.merge(new).value == value == new.merge(old).value


def test_of_equal_stamps_the_greater_value_wins_everywhere() -> None:
    assert Lww(5, "a").merge(Lww(5, "b")) == Lww(5, "b") == Lww(5, "b").merge(Lww(5, "a"))


@given(maps(st.integers(1, 7)), st.sampled_from(["a", "b"]), st.integers(0, 2**62))
def test_a_map_says_what_was_set_last(old: LwwMap[int], key: str, now_us: int) -> None:
    new = old.set(key, 9, now_us)
    assert new.get(key) == 9
    assert (key, 9) in list(new.items())
    gone = new.set(key, None, now_us)
    assert gone.get(key) is None
    assert key not in dict(gone.items())
    assert new.merge(gone) == gone
    assert old.get(key) != 9, "maps are values: setting makes another one"


def test_a_map_is_listed_in_order_without_what_was_removed() -> None:
    listed: LwwMap[int] = LwwMap({"b": Lww(1, 2), "a": Lww(1, 1), "c": Lww(1, None)})
    assert list(listed.items()) == [("a", 1), ("b", 2)]
    assert listed.get("absent") is None
    assert listed.pack() == [["a", 1, 1], ["b", 1, 2], ["c", 1, None]]
