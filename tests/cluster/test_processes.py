"""Three real nodes under load while one after another is killed, frozen, cut off and replaced."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.load import Values, Worker, ask, listed, read_all
from tests.cluster.processes import ClusterNode, ProcessCluster, process_cluster
from tests.sim.checkers import not_linearizable
from tests.sim.history import Operation, Outcome

KEYS = [f"key {number}" for number in range(24)]
WORKERS = 4
TROUBLE_SECONDS = 3.0
CALM_SECONDS = 1.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    with process_cluster(tmp_path) as made:
        made.start()
        reply = ask(made.nodes[0], made.key, "PUT")
        assert reply.status == 200, reply
        made.until(lambda: all(_knows_bucket(made, node) for node in made.nodes))
        yield made


def _knows_bucket(cluster: ProcessCluster, node: ClusterNode) -> bool:
    return ask(node, cluster.key, "HEAD").status == 200


def under_load(
    cluster: ProcessCluster, nodes: list[ClusterNode], trouble: Callable[[], None]
) -> list[Operation]:
    """What clients of `nodes` did and saw before, during and after `trouble`."""
    values = Values()
    workers = [
        Worker(f"client {n}", nodes, cluster.key, values, KEYS[n::WORKERS] + KEYS[:2])
        for n in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    try:
        time.sleep(CALM_SECONDS)
        trouble()
        time.sleep(CALM_SECONDS)
    finally:
        for worker in workers:
            worker.stopping.set()
    operations = [op for worker in workers for op in worker.end()]
    for node in cluster.nodes:
        operations += read_all(node, cluster.key, KEYS)
    there = {op.key for op in operations[-len(KEYS) :] if op.found is not None}
    for node in cluster.nodes:
        assert listed(node, cluster.key) == there
    wrong = not_linearizable(operations)
    assert not wrong, wrong[0]
    return operations


def unanswered(operations: list[Operation]) -> list[Operation]:
    return [op for op in operations if op.outcome is Outcome.UNKNOWN or "50" in op.note[:2]]


@pytest.mark.timeout(180)
def test_a_killed_node_is_not_missed(cluster: ProcessCluster) -> None:
    lost = cluster.nodes[2]

    def trouble() -> None:
        for _ in range(2):
            lost.kill()
            time.sleep(TROUBLE_SECONDS)
            lost.start()
            time.sleep(CALM_SECONDS)

    operations = under_load(cluster, cluster.nodes[:2], trouble)
    assert not unanswered(operations)


@pytest.mark.timeout(180)
def test_a_frozen_node_is_not_missed(cluster: ProcessCluster) -> None:
    def trouble() -> None:
        cluster.nodes[2].freeze()
        time.sleep(2 * TROUBLE_SECONDS)
        cluster.nodes[2].thaw()

    operations = under_load(cluster, cluster.nodes[:2], trouble)
    assert not unanswered(operations)


@pytest.mark.timeout(180)
def test_a_node_whose_cable_is_pulled_is_not_missed(cluster: ProcessCluster) -> None:
    machine = cluster.nodes[2].machine
    if not machine.can_be_cut:
        pytest.skip("needs root and network namespaces")

    def trouble() -> None:
        machine.cut()
        time.sleep(2 * TROUBLE_SECONDS)
        machine.heal()
        time.sleep(CALM_SECONDS)

    operations = under_load(cluster, cluster.nodes[:2], trouble)
    assert not unanswered(operations)


@pytest.mark.timeout(180)
def test_all_are_killed_at_once(cluster: ProcessCluster) -> None:
    def trouble() -> None:
        for node in cluster.nodes:
            node.kill()
        for node in cluster.nodes:
            node.start()

    under_load(cluster, cluster.nodes, trouble)


@pytest.mark.timeout(180)
def test_a_node_comes_back_with_an_empty_disk(cluster: ProcessCluster) -> None:
    lost = cluster.nodes[2]

    def trouble() -> None:
        lost.kill()
        lost.wipe()
        lost.start()
        time.sleep(TROUBLE_SECONDS)

    operations = under_load(cluster, cluster.nodes[:2], trouble)
    assert not unanswered(operations)
