"""Who belongs to the cluster: merges in any order, removals that stick."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.errors import InvalidArgument
from garage_lite.core.ids import NodeId
from garage_lite.core.wire.frames import WireDamaged
from garage_lite.core.wire.members import MEMBERS_MAX, Members, Mode, Standing, read_members

A, B = NodeId(b"a" * 32), NodeId(b"b" * 32)

entries = st.dictionaries(
    st.sampled_from([NodeId(bytes([n]) * 32) for n in range(5)]),
    st.tuples(st.integers(1, 4), st.sampled_from(Standing)),
)
members = entries.map(Members)


@given(members, members, members)
def test_merge_is_a_join(a: Members, b: Members, c: Members) -> None:
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) is a
    assert a.merge(b).merge(b) == a.merge(b)


@given(members)
def test_told_and_read(a: Members) -> None:
    assert read_members(a.told()) == a


@given(members, members)
def test_a_removal_is_not_undone_by_who_does_not_know_of_it(a: Members, b: Members) -> None:
    known = a.merge(b)
    removed = known.with_standing(A, Standing.REMOVED)
    assert removed.merge(known).standing(A) is Standing.REMOVED
    again = removed.with_standing(A, Standing.ADMITTED)
    assert removed.merge(again).standing(A) is Standing.ADMITTED


def test_who_is_admitted() -> None:
    nobody = Members()
    assert nobody.admits(A, Mode.SECRET)
    assert not nobody.admits(A, Mode.EXPLICIT)
    assert nobody.admits(A, Mode.EXPLICIT, [A])
    assert nobody.with_standing(A, Standing.ADMITTED).admits(A, Mode.EXPLICIT)
    removed = nobody.with_standing(A, Standing.REMOVED)
    assert not removed.admits(A, Mode.SECRET, [A])
    assert removed.admits(B, Mode.SECRET)


def test_an_act_that_changes_nothing_writes_no_version() -> None:
    once = Members().with_standing(A, Standing.ADMITTED)
    assert once.with_standing(A, Standing.ADMITTED) is once


def test_bounded() -> None:
    full = Members({NodeId(n.to_bytes(32, "big")): (1, Standing.ADMITTED) for n in range(1024)})
    assert len(full.entries) == MEMBERS_MAX
    with pytest.raises(InvalidArgument):
        full.with_standing(A, Standing.ADMITTED)
    assert full.merge(Members({A: (1, Standing.REMOVED)})) is full


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [1],
        [[A, 0, 1]],
        [[A, 1, 3]],
        [[A[:-1], 1, 1]],
        [[A, 1 << 60, 1]],
        [[A, 1, 1]] * (MEMBERS_MAX + 1),
    ],
)
def test_wrong_lists_are_refused(raw: Any) -> None:
    with pytest.raises(WireDamaged):
        read_members(raw)
