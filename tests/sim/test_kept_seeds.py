"""Seeds that once found a fault, run again: what a run does with one may change with the product,
so a test of its own holds each fault too."""

from __future__ import annotations

import pytest

from tests.sim.simulation import simulate
from tests.sim.workloads import WORKLOADS


@pytest.mark.parametrize(
    ("name", "seed"),
    [pytest.param("uploads", 700006, id="a read answered with a completion that had failed")],
)
def test_what_a_seed_found_is_mended(name: str, seed: int) -> None:
    simulate(WORKLOADS[name], seed)


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        pytest.param("uploads", 3000044, id="a read passes over what a void version hid"),
        pytest.param("uploads at rest", 8, id="a block that belongs to nobody"),
        pytest.param("uploads at rest", 19, id="another block that belongs to nobody"),
    ],
)
@pytest.mark.xfail(reason="known and not mended yet", strict=True)
def test_what_a_seed_found_is_not_mended_yet(name: str, seed: int) -> None:
    simulate(WORKLOADS[name], seed)
