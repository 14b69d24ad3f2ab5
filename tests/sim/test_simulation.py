"""The simulation itself: the same seed is the same run, and what is wrong is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sim.history import printed
from tests.sim.simulation import Run, Violation, simulate
from tests.sim.workloads import WORKLOADS


def story(name: str, seed: int) -> str:
    """All that the clients of a run did and saw, and when."""
    told: list[str] = []

    def tell(run: Run) -> list[str]:
        told.append(printed(run.journal.operations))
        return []

    simulate(replace(WORKLOADS[name], checks=(tell,)), seed)
    return told[0]


@pytest.mark.parametrize("name", ["registers", "sets"])
def test_the_same_seed_gives_the_same_run(name: str) -> None:
    assert story(name, 1) == story(name, 1)
    assert story(name, 1) != story(name, 2)


def test_workloads_are_not_idle() -> None:
    assert " create " in (told := story("conditional", 2)) and " swap " in told
    for kind in ("create", "swap"):
        lines = [line for line in told.splitlines() if f" {kind} " in line]
        assert any(" ok " in line for line in lines), told
    assert story("registers", 2).count(" ok ") > 20


def test_what_is_wrong_is_told_with_the_history() -> None:
    broken = replace(WORKLOADS["calm"], checks=(lambda run: ["the moon is made of cheese"],))
    with pytest.raises(Violation, match="made of cheese") as told:
        simulate(broken, 1)
    assert "at rest" in str(told.value), "the history is there"
