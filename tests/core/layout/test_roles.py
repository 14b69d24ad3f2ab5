"""Staged changes: what may be staged, and how two nodes' edits join."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garage_lite.core.crdt import Lww
from garage_lite.core.errors import InvalidArgument
from garage_lite.core.layout.roles import CAPACITY_BYTES_MAX, Parameters, Role, Staging
from tests.core.layout.build import node, roles

EMPTY = Staging(Lww(0, Parameters(3).pack()))


@st.composite
def stagings(draw: st.DrawFn) -> Staging:
    staging = EMPTY
    for _ in range(draw(st.integers(0, 4))):
        now_us = draw(st.integers(0, 3))
        match draw(st.sampled_from(["role", "parameters", "empty"])):
            case "role":
                role = draw(st.one_of(st.none(), roles()))
                staging = staging.with_role(node(draw(st.integers(1, 3))), role, now_us)
            case "parameters":
                redundancy = draw(st.one_of(st.none(), st.integers(1, 3)))
                staging = staging.with_parameters(Parameters(3, None, redundancy), now_us)
            case _:
                staging = staging.emptied(staging.staged_parameters, now_us)
    return staging


@given(stagings(), stagings(), stagings())
def test_merge_is_a_join(a: Staging, b: Staging, c: Staging) -> None:
    assert a.merge(a) == a
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))


@given(stagings())
def test_unpack_gives_back_what_was_packed(staging: Staging) -> None:
    assert Staging.unpack(staging.pack()) == staging


def test_edits_of_two_nodes_join() -> None:
    here = EMPTY.with_role(node(1), Role("a", 2000), 5)
    there = EMPTY.with_role(node(2), Role("b", None), 4)
    assert here.merge(there).applied_to({}) == {node(1): Role("a", 2000), node(2): Role("b", None)}


def test_a_revert_elsewhere_discards_what_was_staged_before() -> None:
    staged = EMPTY.with_role(node(1), Role("a", 2000), 5)
    reverted = EMPTY.emptied(Parameters(3), 1)
    assert staged.merge(reverted).staged_roles() == {}


def test_a_removal_and_a_change_apply_to_the_roles() -> None:
    before = {node(1): Role("a", 2000), node(2): Role("b", 3000)}
    staged = EMPTY.with_role(node(1), None, 1).with_role(node(2), Role("b", 4000), 1)
    assert staged.applied_to(before) == {node(2): Role("b", 4000)}


@pytest.mark.parametrize(
    ("role", "words"),
    [
        (Role("a", 1023), "at least 1K"),
        (Role("a", CAPACITY_BYTES_MAX + 1), "at most"),
        (Role("", 2000), "zone must not be empty"),
        (Role("z" * 129, 2000), "at most 128"),
        (Role("a\tb", 2000), "printable"),
        (Role("a", 2000, ("",)), "tag must not be empty"),
        (Role("a", 2000, ("t",) * 65), "at most 64 tags"),
    ],
)
def test_refuses_a_bad_role(role: Role, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        EMPTY.with_role(node(1), role, 0)


@pytest.mark.parametrize(
    "parameters",
    [Parameters(0), Parameters(17), Parameters(3, 0), Parameters(3, None, 0), Parameters(3, 2, 3)],
)
def test_refuses_bad_parameters(parameters: Parameters) -> None:
    with pytest.raises(InvalidArgument):
        parameters.checked()
