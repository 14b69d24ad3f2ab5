"""Operations on one node and its workers, in Garage's shapes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from garage_lite.core.block.resync import ResyncEntry, entry_key
from garage_lite.core.ids import BlockHash
from garage_lite.core.table.schema import Update
from garage_lite.web.admin.operations import NOT_YET, OPERATIONS, bound_operations, call
from tests.core.layout.build import GB, node
from tests.web.admin.conftest import HERE, Lone

BLOCK = BlockHash(b"\x07" * 32)


async def test_who_is_meant(lone: Lone) -> None:
    roles = [{"id": node(n).hex(), "zone": "a", "capacity": GB, "tags": []} for n in (1, 2)]
    await lone.do("UpdateClusterLayout", {"roles": roles})
    await lone.do("ApplyClusterLayout", {"version": 1})
    for text in ("self", HERE.hex(), HERE.hex()[:4]):
        answer = await lone.do("GetNodeInfo", {"node": text})
        assert list(answer["success"]) == [HERE.hex()] and answer["error"] == {}
    answer = await lone.do("GetNodeInfo", {"node": "*"})
    assert list(answer["success"]) == [HERE.hex()]
    assert answer["error"] == {node(2).hex(): "The node is not connected."}
    assert (await lone.refused("GetNodeInfo", {"node": "00"})).message == (
        "Multiple nodes matching 00"
    )
    for bad in ({"node": "ff"}, {"node": ""}, {}, {"node": "self", "x": 1}):
        assert (await lone.refused("GetNodeInfo", bad)).status == 400


async def test_node_info(lone: Lone) -> None:
    found = await lone.here("GetNodeInfo")
    assert found.pop("dataPartition")["total"] > 0
    assert found == {
        "nodeId": HERE.hex(),
        "hostname": "attic",
        "garageVersion": "v0.1.0",
        "garageFeatures": [],
        "rustVersion": "none: Python 3.11",
        "dbEngine": "metalog (Garage Lite's own log-structured store)",
        "connectionParameters": {"region": "garage"},
        "isUp": True,
        "draining": False,
        "addr": "192.0.2.7:3901",
        "metadataPartition": {"available": 7 * GB, "total": 10 * GB},
    }


async def test_node_statistics(lone: Lone) -> None:
    await lone.bucket()
    found = await lone.here("GetNodeStatistics")
    assert set(found["tableStats"][0]) == {
        "tableName",
        "items",
        "merkleItems",
        "merkleQueueLen",
        "insertQueueLen",
        "gcQueueLen",
    }
    assert found["blockManagerStats"] == {"rcEntries": 0, "resyncQueueLen": 0, "resyncErrors": 0}
    assert "Hostname:" in found["freeform"]


async def test_a_snapshot_is_made(lone: Lone) -> None:
    assert await lone.here("CreateMetadataSnapshot") is None
    again = await lone.do("CreateMetadataSnapshot", {"node": "self"})
    assert "already" in again["error"][HERE.hex()], "two within one millisecond"


async def test_workers(lone: Lone) -> None:
    listed = await lone.here("ListWorkers", {"busyOnly": False})
    scrub = next(worker for worker in listed if worker["name"] == "Block scrub worker")
    assert set(scrub) == {
        "id",
        "name",
        "state",
        "errors",
        "consecutiveErrors",
        "lastError",
        "tranquility",
        "progress",
        "queueLength",
        "persistentErrors",
        "freeform",
    }
    assert scrub["state"] == "idle" and scrub["tranquility"] == 4
    assert await lone.here("ListWorkers", {"errorOnly": True}) == []
    assert await lone.here("GetWorkerInfo", {"id": scrub["id"]}) == scrub
    missing = await lone.do("GetWorkerInfo", {"node": "self", "body": {"id": 999}})
    assert missing["error"] == {HERE.hex(): "NoSuchWorker (404): Worker not found: 999"}


async def test_variables(lone: Lone) -> None:
    everything = await lone.here("GetWorkerVariable")
    assert everything["resync-worker-count"] == "1"
    changed = {"variable": "resync-tranquility", "value": "7"}
    assert await lone.here("SetWorkerVariable", changed) == changed
    shown = await lone.here("GetWorkerVariable", {"variable": "resync-tranquility"})
    assert shown == {"resync-tranquility": "7"}
    bad = {"variable": "resync-tranquility", "value": "fast"}
    answer = await lone.do("SetWorkerVariable", {"node": "self", "body": bad})
    assert answer["error"][HERE.hex()].startswith("InvalidRequest (400): ")


async def test_block_errors_and_another_try(lone: Lone) -> None:
    now_us = lone.disk.clock.now_us()
    failed = ResyncEntry(now_us + 30_000_000, errors=1)
    await lone.disk.tables.write([Update(entry_key(BLOCK), failed.encode())])
    assert await lone.here("ListBlockErrors") == [
        {
            "blockHash": BLOCK.hex(),
            "refcount": 0,
            "errorCount": 1,
            "lastTrySecsAgo": 30,
            "nextTryInSecs": 30,
        }
    ]
    unknown = await lone.do(
        "RetryBlockResync", {"node": "self", "body": {"blockHashes": [BLOCK.hex()]}}
    )
    assert unknown["error"][HERE.hex()].startswith("NoSuchBlock (404)")
    assert await lone.here("RetryBlockResync", {"all": True}) == {"count": 1}
    assert await lone.here("ListBlockErrors") == []
    neither = await lone.do("RetryBlockResync", {"node": "self", "body": {}})
    assert "InvalidRequest" in neither["error"][HERE.hex()]


@pytest.mark.parametrize("kind", ["tables", "blocks", "rebalance", "blockRc", {"scrub": "start"}])
async def test_repairs(lone: Lone, kind: Any) -> None:
    assert await lone.here("LaunchRepairOperation", {"repairType": kind}) is None


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("versions", "InvalidRequest (400): This repair removes what nothing leads to."),
        ("everything", "InvalidRequest (400)"),
        ({"scrub": "faster"}, "InvalidRequest (400)"),
        ({"scrub": "resume"}, "InvalidRequest (400)"),
        ({"blocks": "start"}, "InvalidRequest (400)"),
        (None, "InvalidRequest (400)"),
        ([], "InvalidRequest (400)"),
    ],
)
async def test_bad_repairs(lone: Lone, kind: Any, code: str) -> None:
    parameters = {"node": "self", "body": {"repairType": kind}}
    answer = await lone.do("LaunchRepairOperation", parameters)
    assert answer["error"][HERE.hex()].startswith(code)


async def test_repair_of_tables_begins_a_round(lone: Lone) -> None:
    begun: list[int] = []
    context = replace(lone.context, sync_tables=lambda: begun.append(1))
    parameters = {"node": "self", "body": {"repairType": "tables"}}
    await call(context, "LaunchRepairOperation", parameters)
    assert begun == [1]


@pytest.mark.parametrize("kind", ["versions", "multipartUploads", "blockRefs", "aliases"])
async def test_repairs_by_quorum(lone: Lone, kind: Any) -> None:
    await lone.context.layout.use_single_node(GB)
    assert await lone.here("LaunchRepairOperation", {"repairType": kind}) is None
    (worker,) = (w for w in await lone.here("ListWorkers") if "repair worker" in w["name"])
    assert worker["progress"] == "0 (0)"


async def test_clearing_the_resync_queue(lone: Lone) -> None:
    await lone.context.blocks.look_again(BLOCK)
    await lone.here("LaunchRepairOperation", {"repairType": "clearResyncQueue"})
    (worker,) = (w for w in await lone.here("ListWorkers") if "clearing" in w["name"])
    assert worker["state"] == "idle", "it waits for the runner, which this test does not start"


async def test_one_repair_of_a_kind_at_a_time(lone: Lone) -> None:
    await lone.here("LaunchRepairOperation", {"repairType": "rebalance"})
    parameters = {"node": "self", "body": {"repairType": "rebalance"}}
    again = await lone.do("LaunchRepairOperation", parameters)
    assert "runs already" in again["error"][HERE.hex()]


async def test_what_comes_later_is_known(lone: Lone) -> None:
    operations = bound_operations(lone.context)
    assert set(operations) == set(OPERATIONS) | NOT_YET
    assert (await lone.refused("ListAdminTokens")).status == 501
    assert (await lone.refused("MakeCoffee")).code == "NoSuchEndpoint"
    assert await operations["GetClusterLayout"](None) == await lone.do("GetClusterLayout")
