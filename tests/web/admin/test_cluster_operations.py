"""Layout and cluster operations of a lone node, in Garage's shapes."""

from __future__ import annotations

from typing import Any

from garage_lite.core.layout.roles import Parameters, Role
from garage_lite.web.admin.cluster import told_to_peers
from tests.core.layout.build import GB, node
from tests.web.admin.conftest import HERE, Lone

ROLE = {"zone": "dc1", "capacity": 256 * GB, "tags": ["home"]}


async def assign(lone: Lone) -> None:
    await lone.do("UpdateClusterLayout", {"roles": [{"id": HERE.hex(), **ROLE}]})
    await lone.do("ApplyClusterLayout", {"version": 1})


async def test_a_fresh_node_has_no_role(lone: Lone) -> None:
    layout = await lone.do("GetClusterLayout")
    assert layout == {
        "version": 0,
        "roles": [],
        "parameters": {"zoneRedundancy": "maximum"},
        "partitionSize": 0,
        "stagedRoleChanges": [],
        "stagedParameters": None,
    }
    assert (await lone.do("GetClusterHealth"))["status"] == "unavailable"
    (shown,) = (await lone.do("GetClusterStatus"))["nodes"]
    assert shown["role"] is None and shown["isUp"] and not shown["draining"]


async def test_a_role_is_staged_previewed_and_applied(lone: Lone) -> None:
    staged = await lone.do("UpdateClusterLayout", {"roles": [{"id": HERE.hex(), **ROLE}]})
    assert staged["stagedRoleChanges"] == [{"id": HERE.hex(), **ROLE}]

    preview = await lone.do("PreviewClusterLayoutChanges")
    assert preview["newLayout"]["version"] == 1
    assert preview["message"][0] == "==== COMPUTATION OF A NEW PARTITION ASSIGNATION ===="
    assert "Partitions are replicated 1 times on at least 1 distinct zones." in preview["message"]
    assert preview["statistics"]["partitionSize"] == GB
    assert preview["statistics"]["zones"][0]["nodes"][0]["newPartitions"] == 256

    applied = await lone.do("ApplyClusterLayout", {"version": 1})
    assert applied["layout"] == await lone.do("GetClusterLayout")
    assert applied["layout"]["roles"] == [
        {"id": HERE.hex(), **ROLE, "storedPartitions": 256, "usableCapacity": 256 * GB}
    ]
    assert applied["layout"]["stagedRoleChanges"] == []
    assert applied["message"] == preview["message"]


async def test_a_preview_says_why_there_is_no_layout(lone: Lone) -> None:
    preview = await lone.do("PreviewClusterLayoutChanges")
    assert preview == {
        "error": "The number of nodes with positive capacity (0) is smaller than the"
        " replication factor (1)."
    }


async def test_zone_redundancy_is_staged_and_reverted(lone: Lone) -> None:
    parameters = {"zoneRedundancy": {"atLeast": 1}}
    staged = await lone.do("UpdateClusterLayout", {"parameters": parameters})
    assert staged["stagedParameters"] == parameters
    reverted = await lone.do("RevertClusterLayout")
    assert reverted["stagedParameters"] is None
    error = await lone.refused(
        "UpdateClusterLayout", {"parameters": {"zoneRedundancy": {"atLeast": 2}}}
    )
    assert (error.status, error.code) == (400, "InvalidRequest")
    assert "replication factor (1)" in error.message


async def test_bad_layout_changes_are_refused(lone: Lone) -> None:
    other = node(2).hex()
    for roles, words in (
        ([{"id": "abc", **ROLE}], "Invalid node identifier"),
        ([{"id": other, **ROLE, "capacity": 12}], "at least 1K"),
        ([{"id": other, **ROLE, "capacity": 1.5}], "whole number"),
        ([{"id": other, "remove": False}], "Invalid layout change"),
        ([{"id": other, "capacity": 5000}], "lacks the field `zone`"),
        ([{"id": other, **ROLE, "speed": 3}], "unknown fields: speed"),
        (["x"], "must be a JSON object"),
    ):
        error = await lone.refused("UpdateClusterLayout", {"roles": roles})
        assert error.status == 400 and words in error.message
    assert (await lone.refused("ApplyClusterLayout", {"version": 7})).status == 400
    assert (await lone.do("GetClusterLayout"))["stagedRoleChanges"] == []


async def test_the_history_while_a_second_node_joins(lone: Lone) -> None:
    await assign(lone)
    history = await lone.do("GetClusterLayoutHistory")
    assert history == {
        "currentVersion": 1,
        "minAck": 1,
        "versions": [{"version": 1, "status": "Current", "storageNodes": 1, "gatewayNodes": 0}],
        "updateTrackers": None,
    }
    await lone.do("UpdateClusterLayout", {"roles": [{"id": node(2).hex(), **ROLE}]})
    await lone.do("ApplyClusterLayout", {"version": 2})
    history = await lone.do("GetClusterLayoutHistory")
    assert [version["status"] for version in history["versions"]] == ["Current", "Draining"]
    assert history["updateTrackers"][node(2).hex()] == {"ack": 1, "sync": 1, "syncAck": 1}


async def test_a_dead_node_is_skipped(lone: Lone) -> None:
    await assign(lone)
    refused = await lone.refused("ClusterLayoutSkipDeadNodes", {"version": 1})
    assert refused.status == 400 and "only one live cluster layout version" in refused.message
    await lone.do("UpdateClusterLayout", {"roles": [{"id": node(2).hex(), **ROLE}]})
    await lone.do("ApplyClusterLayout", {"version": 2})
    skip = {"version": 2, "allowMissingData": False}
    dead = node(2).hex()
    assert await lone.do("ClusterLayoutSkipDeadNodes", skip) == {
        "ackUpdated": [dead],
        "syncUpdated": [],
    }
    assert (await lone.do("GetClusterLayoutHistory"))["updateTrackers"][dead]["ack"] == 2
    assert (await lone.do("ClusterLayoutSkipDeadNodes", skip))["ackUpdated"] == []
    skip["allowMissingData"] = True
    updated = await lone.do("ClusterLayoutSkipDeadNodes", skip)
    assert updated["syncUpdated"] == [HERE.hex(), dead]


async def test_zones_that_are_not_there(lone: Lone) -> None:
    """Refused with one clear line, and nothing is applied."""
    roles = [{"id": node(n).hex(), **ROLE, "zone": "one"} for n in (1, 2)]
    await lone.do("UpdateClusterLayout", {"roles": roles})
    history = lone.context.layout.history
    parameters = Parameters(2, zone_redundancy=2)
    wider = history.with_parameters(parameters, lone.disk.clock.now_us() + 1)
    lone.context.layout._configured = parameters
    await lone.context.layout.merge(wider)
    words = "The number of zones with non-gateway nodes (1) is smaller than the redundancy"
    preview = await lone.do("PreviewClusterLayoutChanges")
    assert preview["error"].startswith(words)
    refused = await lone.refused("ApplyClusterLayout", {"version": 1})
    assert refused.status == 400 and refused.message.startswith(words)
    assert (await lone.do("GetClusterLayout"))["version"] == 0


async def test_blocks_with_a_replication_factor_of_their_own(lone: Lone) -> None:
    lone.context.layout._configured = Parameters(2, 1)
    roles = [{"id": node(n).hex(), **ROLE, "zone": f"z{n}"} for n in (1, 2)]
    await lone.do("UpdateClusterLayout", {"roles": roles})
    preview = await lone.do("PreviewClusterLayoutChanges")
    assert preview["message"][2:4] == [
        "Partitions are replicated 1 times on at least 1 distinct zones.",
        "These are the blocks; metadata is replicated 2 times.",
    ]
    assert preview["newLayout"]["parameters"] == {
        "zoneRedundancy": "maximum",
        "dataReplicationFactor": 1,
    }


async def test_health_and_status_of_a_working_node(lone: Lone) -> None:
    await assign(lone)
    assert await lone.do("GetClusterHealth") == {
        "status": "healthy",
        "knownNodes": 1,
        "connectedNodes": 1,
        "storageNodes": 1,
        "storageNodesUp": 1,
        "partitions": 256,
        "partitionsQuorum": 256,
        "partitionsAllOk": 256,
    }
    status = await lone.do("GetClusterStatus")
    (shown,) = status["nodes"]
    data = shown.pop("dataPartition")
    assert 0 <= data["available"] <= data["total"]
    assert status["layoutVersion"] == 1
    assert shown == {
        "id": HERE.hex(),
        "garageVersion": "v0.1.0",
        "addr": "192.0.2.7:3901",
        "hostname": "attic",
        "isUp": True,
        "lastSeenSecsAgo": None,
        "role": ROLE,
        "draining": False,
        "metadataPartition": {"available": 7 * GB, "total": 10 * GB},
        "resyncQueueLen": 0,
        "alarms": [],
    }


async def test_a_node_that_does_not_answer_makes_the_cluster_unavailable(lone: Lone) -> None:
    await assign(lone)
    await lone.do("UpdateClusterLayout", {"roles": [{"id": node(2).hex(), **ROLE}]})
    await lone.do("ApplyClusterLayout", {"version": 2})
    found = await lone.do("GetClusterHealth")
    assert found["status"] == "unavailable"
    assert (found["knownNodes"], found["storageNodes"], found["storageNodesUp"]) == (2, 2, 1)
    assert 0 < found["partitionsQuorum"] < 256
    shown = (await lone.do("GetClusterStatus"))["nodes"][1]
    assert not shown["isUp"] and shown["hostname"] is None and "dataPartition" not in shown


async def test_statistics(lone: Lone) -> None:
    await assign(lone)
    await lone.bucket()
    found = await lone.do("GetClusterStatistics")
    assert found["bucketCount"] == 1
    assert found["totalObjectCount"] == found["totalObjectBytes"] == 0
    assert found["metadataAvail"] == 7 * GB // 256 * 256
    assert found["incompleteAvailInfo"] is False
    assert "Number of buckets:" in found["freeform"]


async def test_a_node_that_was_let_go(lone: Lone) -> None:
    """It says when nothing is left on it; one that became a gateway is not let go."""
    await assign(lone)
    layout = lone.context.layout

    async def become(here: Role | None) -> dict[str, Any]:
        number = layout.history.current.number + 1
        await layout.stage({HERE: here, node(2): Role("b", GB)})
        await layout.apply(number)
        await layout.skip_dead(number, [], allow_missing_data=True)
        await layout.merge(layout.history.advanced(node(2), None))
        await lone.context.drain.work()
        status = await lone.do("GetClusterStatus")
        (shown,) = (one for one in status["nodes"] if one["id"] == HERE.hex())
        return dict(shown)

    assert "drained" not in await become(Role("a", None))
    assert (await become(None))["drained"] is True
    assert told_to_peers(lone.context)["empty"] is True
