"""What an administrator does to a cluster, with the commands of the README, on real processes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from garage_lite.core.block.markers import MARKER_NAME
from tests.cluster.load import BUCKET, client_of
from tests.cluster.processes import ClusterNode, ProcessCluster, process_cluster

OBJECTS = {
    f"object {number}": bytes([number]) * (200 if number % 2 else 1_500_000) for number in range(12)
}
MIB = 1 << 20
MOVED_SECONDS = 120


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ProcessCluster]:
    """Three nodes with a role and one without, full of objects."""
    with process_cluster(tmp_path, count=4) as made:
        *first, _ = made.nodes
        for node in made.nodes:
            node.start()
        made.connect()
        for number, node in enumerate(first):
            made.nodes[0].cli("layout", "assign", "-z", f"zone{number}", "-c", "10G", node.id())
        made.nodes[0].cli("layout", "apply", "--version", "1")
        made.until(lambda: all("zone0" in node.cli("layout", "show") for node in made.nodes))
        made.key = made.nodes[0].create_key("load")
        fill(made)
        yield made


def fill(cluster: ProcessCluster) -> None:
    client = client_of(cluster.nodes[0], cluster.key)
    assert client.call("PUT", BUCKET).status == 200
    for name, content in OBJECTS.items():
        assert client.call("PUT", BUCKET, name, body=content).status == 200
    client.close()


def check_objects(cluster: ProcessCluster, node: ClusterNode) -> None:
    client = client_of(node, cluster.key)
    for name, content in OBJECTS.items():
        reply = client.call("GET", BUCKET, name)
        assert (reply.status, reply.body == content) == (200, True), (node.host, name, reply.status)
    client.close()


def may_be_asked(cluster: ProcessCluster, node: ClusterNode) -> bool:
    """Before it has met the others it says that it can't tell: never a wrong answer."""
    client = client_of(node, cluster.key)
    status = client.call("GET", BUCKET, "object 0").status
    client.close()
    assert status in (200, 503), status
    return status == 200


def blocks_on(node: ClusterNode) -> int:
    files = (node.directory / "data").rglob("*")
    return sum(bool(re.match(r"[0-9a-f]{64}", file.name)) for file in files)


def worker(node: ClusterNode, name: str) -> str:
    """What `worker info` says of a worker."""
    listed = node.cli("worker", "list").splitlines()
    (line,) = (line for line in listed if name in line)
    return node.cli("worker", "info", line.split()[0])


def is_settled(node: ClusterNode) -> bool:
    return "a single live layout version" in node.cli("layout", "history")


@pytest.mark.timeout(300)
def test_a_node_is_drained_and_turned_off(cluster: ProcessCluster) -> None:
    first, _, leaving, coming = cluster.nodes
    held = blocks_on(leaving)
    assert held
    first.cli("layout", "assign", "-z", "zone2", "-c", "10G", coming.id())
    first.cli("layout", "remove", leaving.id())
    first.cli("layout", "apply", "--version", "2")
    cluster.until(lambda: is_settled(first), MOVED_SECONDS)
    short = leaving.id()[:16]
    cluster.until(
        lambda: f"can be turned off: {short}" in first.cli("layout", "history"), MOVED_SECONDS
    )
    assert blocks_on(leaving) == 0
    leaving.stop()
    cluster.until(lambda: blocks_on(coming) == held, MOVED_SECONDS)
    for node in (first, coming):
        check_objects(cluster, node)


@pytest.mark.timeout(300)
def test_a_dead_node_is_replaced(cluster: ProcessCluster) -> None:
    first, _, dead, spare = cluster.nodes
    held = blocks_on(first)
    dead.kill()
    first.cli(
        "layout", "assign", spare.id(), "--replace", dead.id()[:8], "-z", "zone2", "-c", "10G"
    )
    first.cli("layout", "apply", "--version", "2")
    waits = first.cli("layout", "history")
    assert "Waiting for these nodes to acknowledge version #2: " in waits
    first.cli("layout", "skip-dead-nodes", "--version", "2")
    cluster.until(lambda: is_settled(first), MOVED_SECONDS)
    cluster.until(lambda: blocks_on(spare) == held, MOVED_SECONDS)
    cluster.nodes[1].kill()
    cluster.nodes[1].start()
    check_objects(cluster, spare)


@pytest.mark.timeout(300)
def test_a_disk_is_replaced(cluster: ProcessCluster) -> None:
    first, hurt, _, _ = cluster.nodes
    cluster.until(lambda: blocks_on(hurt) == blocks_on(first))
    held = blocks_on(hurt)
    hurt.stop()
    shutil.rmtree(hurt.directory / "data")
    with pytest.raises(AssertionError, match="If the disk was replaced by an empty one"):
        hurt.start()
    hurt.kill()
    (hurt.directory / "data").mkdir()
    (hurt.directory / "data" / MARKER_NAME).touch()
    hurt.start()
    cluster.until(lambda: first.connections() == len(cluster.nodes) - 1)
    first.cli("repair", "--yes", "blocks", "--node", hurt.id()[:8])
    cluster.until(lambda: blocks_on(hurt) == held, MOVED_SECONDS)
    check_objects(cluster, hurt)


@pytest.mark.timeout(300)
def test_metadata_are_lost_and_the_blocks_are_not(cluster: ProcessCluster) -> None:
    """The node's key was saved; its metadata comes from its peers."""
    first, hurt, _, _ = cluster.nodes
    cluster.until(lambda: blocks_on(hurt) == blocks_on(first))
    held = blocks_on(hurt)
    hurt.stop()
    for path in (hurt.directory / "meta").iterdir():
        if not path.name.startswith("node_key"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(AssertionError, match="before its metadata was lost"):
        hurt.start()
    hurt.kill()
    (hurt.directory / "data" / MARKER_NAME).write_bytes(b"")
    hurt.start()
    cluster.until(lambda: may_be_asked(cluster, hurt))
    check_objects(cluster, hurt)
    cluster.until(lambda: "recovering" not in worker(hurt, "Table sync worker"), MOVED_SECONDS)
    first.kill()
    check_objects(cluster, hurt)
    assert blocks_on(hurt) == held


@pytest.mark.timeout(300)
def test_a_node_comes_back_from_nothing_but_its_key(cluster: ProcessCluster) -> None:
    first, hurt, _, _ = cluster.nodes
    cluster.until(lambda: blocks_on(hurt) == blocks_on(first))
    held = blocks_on(hurt)
    hurt.stop()
    hurt.wipe()
    hurt.start()
    cluster.until(lambda: "recovering" not in worker(hurt, "Table sync worker"), MOVED_SECONDS)
    hurt.cli("repair", "--yes", "blocks")
    cluster.until(lambda: blocks_on(hurt) == held, MOVED_SECONDS)
    first.kill()
    check_objects(cluster, hurt)


@pytest.mark.timeout(300)
def test_blocks_have_fewer_copies_than_metadata(tmp_path: Path) -> None:
    with process_cluster(tmp_path) as made:
        for node in made.nodes:
            text = node.config.read_text()
            more = "data_replication_factor = 2\nrpc_bind_addr"
            node.config.write_text(text.replace("rpc_bind_addr", more, 1))
        made.start()
        first, second, third = made.nodes
        assert "Data replication factor: 2" in first.cli("layout", "show")
        fill(made)
        big = sum(-(-len(content) // MIB) for content in {*OBJECTS.values()} if len(content) > 4000)
        made.until(lambda: sum(blocks_on(node) for node in made.nodes) == 2 * big)
        for node in made.nodes:
            check_objects(made, node)
        third.kill()
        for node in (first, second):
            check_objects(made, node)


@pytest.mark.timeout(300)
def test_one_node_becomes_three(tmp_path: Path) -> None:
    with process_cluster(tmp_path, copies=1) as made:
        first, *others = made.nodes
        first.start()
        first.cli("layout", "assign", "-z", "zone0", "-c", "10G", first.id())
        first.cli("layout", "apply", "--version", "1")
        made.key = first.create_key("load")
        fill(made)
        first.stop()
        for node in made.nodes:
            node.configure(copies=3)
            node.start()
        made.connect()
        for number, node in enumerate(others, 1):
            first.cli("layout", "assign", "-z", f"zone{number}", "-c", "10G", node.id())
        assert "replicated 3 times on at least 3 distinct zones" in first.cli("layout", "show")
        first.cli("layout", "apply", "--version", "2")
        made.until(lambda: is_settled(first), MOVED_SECONDS)
        held = blocks_on(first)
        made.until(lambda: all(blocks_on(node) == held for node in others), MOVED_SECONDS)
        first.kill()
        for node in others:
            check_objects(made, node)


@pytest.mark.timeout(300)
def test_operations_reach_all_nodes(cluster: ProcessCluster) -> None:
    first, *_, last = cluster.nodes
    for node in cluster.nodes:
        assert f"{node.id()[:16]}  Snapshot created" in first.cli("meta", "snapshot", "--all")
    first.cli("worker", "set", "-a", "scrub-tranquility", "11")
    assert "scrub-tranquility" in first.cli("worker", "get", "-a")
    assert re.search(r"scrub-tranquility +11", last.cli("worker", "get", "scrub-tranquility"))
    for kind in ("tables", "blocks", "versions", "mpu", "block-refs", "block-rc", "aliases"):
        assert first.cli("repair", "-a", "--yes", kind).count("Repair launched") == 4
    listed = first.cli("worker", "list", "--node", last.id()[:8])
    assert "version repair worker" in listed
    assert first.cli("stats", "-a").count("==== NODE [") == 4
    assert "Cluster health:            HEALTHY" in first.cli("health")
    frozen = cluster.nodes[2]
    frozen.freeze()
    answered = first.cli("worker", "get", "-a", "scrub-tranquility")
    assert answered.count(" 11\n") == 3 and frozen.id()[:16] not in answered
    frozen.thaw()
    frozen.kill()
    cluster.until(lambda: "DEGRADED" in first.cli("health"))
    assert re.search(r"Partitions with quorum: +256", first.cli("health"))
    assert re.search(r"Fully healthy partitions: +0", first.cli("health"))
