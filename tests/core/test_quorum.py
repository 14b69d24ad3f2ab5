"""Quorum sizes and the verdict on replies, checked by enumeration."""

from __future__ import annotations

from itertools import product

import pytest

from garage_lite.core.quorum import Consistency, Quorums, Verdict, quorums, verdict


@pytest.mark.parametrize(
    ("factor", "read", "write"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, 3), (5, 3, 3), (7, 4, 4)]
)
def test_sizes_are_garages(factor: int, read: int, write: int) -> None:
    assert quorums(factor, Consistency.CONSISTENT) == Quorums(factor, read, write)
    assert quorums(factor, Consistency.DEGRADED) == Quorums(factor, 1, write)
    assert quorums(factor, Consistency.DANGEROUS) == Quorums(factor, 1, 1)


@pytest.mark.parametrize("factor", range(1, 12))
def test_a_consistent_read_meets_every_write(factor: int) -> None:
    sizes = quorums(factor, Consistency.CONSISTENT)
    assert sizes.read + sizes.write == factor + 1
    assert sizes.read <= sizes.write <= factor


@pytest.mark.parametrize("asked", range(1, 6))
def test_the_verdict_is_final_exactly_when_no_reply_can_change_it(asked: int) -> None:
    for needed, succeeded, failed in product(range(1, asked + 1), repeat=3):
        if succeeded + failed > asked:
            continue
        open_replies = asked - succeeded - failed
        now = verdict(needed, asked, succeeded, failed)
        if succeeded >= needed:
            assert now is Verdict.DONE
        elif succeeded + open_replies < needed:
            assert now is Verdict.IMPOSSIBLE
        else:
            assert now is Verdict.WAIT
            assert open_replies


def test_more_than_there_are_can_never_answer() -> None:
    assert verdict(needed=2, asked=1, succeeded=0, failed=0) is Verdict.IMPOSSIBLE
