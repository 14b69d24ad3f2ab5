"""How much a cluster can still take, by what its nodes tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from garage_lite.core.cluster.peers import Cluster, Endpoints
from garage_lite.core.ids import NodeId
from garage_lite.core.layout.roles import Parameters, Role
from garage_lite.web.admin import statistics
from garage_lite.web.admin.operations import call
from tests.core.cluster.direct_peers import Neighbourhood
from tests.core.layout.build import GB, node
from tests.web.admin.conftest import HERE, Lone

NODES = [node(number) for number in (1, 2, 3)]
assert NODES[0] == HERE


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[NodeId, dict[str, Any]]:
    """What the nodes tell of themselves: 40 GB free for data each, of metadata 8, 6 and 4."""
    found = {
        one: {
            "hostname": f"host{number}",
            "dataPartition": {"available": 40 * GB, "total": 100 * GB},
            "metadataPartition": {"available": (8 - 2 * number) * GB, "total": 10 * GB},
        }
        for number, one in enumerate(NODES)
    }
    monkeypatch.setattr(statistics, "nodes_json", lambda context: found)
    return found


async def laid_out(lone: Lone, *, data_copies: int | None = None) -> None:
    layout = lone.context.layout
    layout._configured = Parameters(3, data_copies)
    await layout.stage({one: Role(f"z{one[1]}", 100 * GB) for one in NODES})
    await layout.apply(1)


async def test_the_fullest_node_counts(lone: Lone, told: dict[NodeId, dict[str, Any]]) -> None:
    await laid_out(lone)
    found = await lone.do("GetClusterStatistics")
    assert found["dataAvail"] == 40 * GB // 256 * 256
    assert found["metadataAvail"] == 4 * GB // 256 * 256
    assert found["incompleteAvailInfo"] is False
    lines = found["freeform"].splitlines()
    assert lines[0] == "Storage nodes:"
    assert lines[1].split() == [
        "ID", "Hostname", "Zone", "Capacity", "Part.", "DataAvail", "MetaAvail"
    ]  # fmt: skip
    assert lines[3].split()[:2] == [NODES[1].hex()[:16], "host1"]
    assert "  metadata: 4.0 GB" in lines


async def test_blocks_with_fewer_copies_leave_more_room(
    lone: Lone, told: dict[NodeId, dict[str, Any]]
) -> None:
    await laid_out(lone, data_copies=1)
    found = await lone.do("GetClusterStatistics")
    assert found["dataAvail"] >= 40 * GB // 86 * 256
    assert found["metadataAvail"] == 4 * GB // 256 * 256


async def test_a_node_that_tells_nothing(lone: Lone, told: dict[NodeId, dict[str, Any]]) -> None:
    await laid_out(lone)
    del told[NODES[2]]["dataPartition"]
    told[NODES[1]] = {}
    found = await lone.do("GetClusterStatistics")
    assert found["incompleteAvailInfo"] is True
    assert found["dataAvail"] == 40 * GB // 256 * 256
    assert "  data: < 40.0 GB" in found["freeform"].splitlines()
    assert "A precise estimate could not be given" in found["freeform"]


async def test_health_counts_blocks_too(lone: Lone) -> None:
    """Where blocks have one copy a node that is lost takes its blocks along."""
    await laid_out(lone, data_copies=1)
    street = Neighbourhood()
    endpoints = Endpoints()
    cluster = Cluster(HERE, endpoints, street.peers_of(HERE, endpoints))
    street.peers_of(NODES[1], Endpoints())
    health = await call(replace(lone.context, cluster=cluster), "GetClusterHealth", None)
    assert (health["connectedNodes"], health["storageNodes"]) == (2, 3)
    assert 0 < health["partitionsQuorum"] < 256
    assert health["status"] == "unavailable"
