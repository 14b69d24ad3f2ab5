"""Clusters of real nodes in the simulator: every workload, many seeds.

CLUSTER_SEEDS=N runs N seeds of each workload instead of the usual number. A failing seed names
the command that runs it again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.sim.simulation import Violation, simulate
from tests.sim.workloads import WORKLOADS

SEEDS = int(os.environ.get("CLUSTER_SEEDS", "0"))
CHUNK = 20
"""Seeds a test: enough that starting a test costs little, few enough to share among workers."""


def chunks() -> Iterator[tuple[str, range]]:
    for name, workload in WORKLOADS.items():
        count = SEEDS or workload.seeds
        for start in range(0, count, CHUNK):
            yield name, range(start, min(start + CHUNK, count))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "seeds"),
    [pytest.param(*c, id=f"{c[0]} {c[1].start}") for c in chunks()],
)
def test_seeds(name: str, seeds: range) -> None:
    for seed in seeds:
        try:
            simulate(WORKLOADS[name], seed)
        except Violation as violation:
            pytest.fail(f'python -m tests.sim.replay "{name}" {seed}\n{violation}')
        except Exception as error:
            error.add_note(f'python -m tests.sim.replay "{name}" {seed}')
            raise


def test_enough_seeds_run() -> None:
    assert sum(workload.seeds for workload in WORKLOADS.values()) >= 2000
