"""Operations on one node: what it is, how it is doing, snapshots and repairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.workers.rebalance import BlockRepairWorker, RebalanceWorker
from garage_lite.core.workers.repair import Repair, RepairWorker, reads_meet_writes
from garage_lite.core.workers.repair_aliases import AliasRepair
from garage_lite.core.workers.repair_blocks import BlockCountRepair, ClearResyncQueue
from garage_lite.core.workers.repair_rows import BlockRefRepair, UploadRepair, VersionRepair
from garage_lite.core.workers.runner import State, Worker
from garage_lite.units import format_size
from garage_lite.web.admin.cluster import draining, partitions_json
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.dates import date_text
from garage_lite.web.admin.errors import bad_request
from garage_lite.web.admin.fields import Fields
from garage_lite.web.admin.layout import role_json
from garage_lite.web.admin.layout_text import aligned

SNAPSHOTS_KEPT: Final = 2
"""As Garage: older ones go when a new one is made."""
DB_ENGINE: Final = "metalog (Garage Lite's own log-structured store)"


async def get_node_info(context: AdminContext, fields: Fields) -> Any:
    fields.end()
    facts = context.facts
    role = context.layout.history.current.roles.get(facts.node)
    connection = {
        "region": facts.region,
        "s3Endpoint": facts.s3_endpoint,
        "s3UsePathStyle": facts.s3_path_style,
        "k2vEndpoint": facts.k2v_endpoint,
    }
    shown: dict[str, Any] = {
        "nodeId": facts.node.hex(),
        "hostname": facts.hostname,
        "garageVersion": facts.version,
        "garageFeatures": list(facts.features),
        "rustVersion": f"none: Python {facts.python_version}",
        "dbEngine": DB_ENGINE,
        "connectionParameters": {n: v for n, v in connection.items() if v is not None},
        "isUp": True,
        "draining": draining(context, facts.node),
    }
    if facts.rpc_address is not None:
        shown["addr"] = facts.rpc_address
    if role is not None:
        shown["role"] = role_json(role)
    return shown | partitions_json(context)


async def get_node_statistics(context: AdminContext, fields: Fields) -> Any:
    """Garage's members where there is such a thing here: there are no Merkle trees, and rows are
    counted for the whole store, not for each table."""
    fields.end()
    status = context.metadata.status()
    counts = context.blocks.files.counts
    facts = context.facts
    lines = aligned(
        [
            ["Node ID:", facts.node.hex()[:16]],
            ["Hostname:", facts.hostname],
            ["Garage version:", facts.version],
            ["Python version:", facts.python_version],
            ["Database engine:", DB_ENGINE],
        ]
    )
    lines += ["", "Metadata store:"]
    lines += aligned(
        [
            ["  rows (estimate):", str(status.rows)],
            ["  segments:", f"{status.segments} ({format_size(status.segment_bytes)})"],
            ["  log:", format_size(status.log_bytes)],
            ["  sync, median and 99th percentile:", _times(status.sync_p50_us, status.sync_p99_us)],
            ["  records a sync:", f"{status.records_per_batch:.1f}"],
            *([["  FAILED:", status.failed]] if status.failed else []),
            *([["  trouble:", status.trouble]] if status.trouble else []),
            *([["  damaged:", text] for text in status.damage]),
        ]
    )
    lines += ["", "Block manager stats:"]
    lines += aligned(
        [
            ["  resync queue length:", str(context.resync.length)],
            ["  blocks with resync errors:", str(context.resync.persistent_errors)],
            ["  blocks written since the start:", str(counts.written)],
            ["  blocks read since the start:", str(counts.read)],
            ["  corrupt blocks found since the start:", str(counts.corrupted)],
        ]
    )
    return {
        "freeform": "\n".join(lines) + "\n",
        "tableStats": [
            {
                "tableName": "all",
                "items": status.rows,
                "merkleItems": 0,
                "merkleQueueLen": 0,
                "insertQueueLen": 0,
                "gcQueueLen": 0,
            }
        ],
        "blockManagerStats": {
            "rcEntries": 0,
            "resyncQueueLen": context.resync.length,
            "resyncErrors": context.resync.persistent_errors,
        },
    }


def _times(median_us: int, high_us: int) -> str:
    return f"{median_us / 1000:.1f} ms, {high_us / 1000:.1f} ms"


async def create_metadata_snapshot(context: AdminContext, fields: Fields) -> Any:
    fields.end()
    name = date_text(context.now_ms()).replace(":", "-")
    await context.metadata.snapshot(name)
    await context.metadata.prune_snapshots(SNAPSHOTS_KEPT)


async def launch_repair(context: AdminContext, fields: Fields) -> Any:
    wanted = fields.raw("repairType")
    fields.end()
    if isinstance(wanted, dict):
        inner = Fields(wanted, "repairType")
        command = inner.text("scrub")
        inner.end()
        if command not in ("start", "pause", "resume", "cancel"):
            raise bad_request("scrub takes start, pause, resume or cancel")
        await context.scrub.command(command)
        return
    launch = _REPAIRS.get(wanted) if isinstance(wanted, str) else None
    if launch is None:
        raise bad_request(
            f"repairType must be one of {', '.join(_REPAIRS)}, or"
            ' {"scrub": "start"|"pause"|"resume"|"cancel"}'
        )
    launch(context)


def _by_quorum(make: Callable[[Tables], Repair]) -> Callable[[AdminContext], None]:
    """A repair that takes rows away by what a quorum says."""

    def launch(context: AdminContext) -> None:
        if not reads_meet_writes(context.layout.lookup):
            raise bad_request(
                "This repair removes what nothing leads to. It can't tell that before a layout is"
                " applied, nor in the consistency modes degraded and dangerous, where a read may"
                " miss what was written."
            )
        tables = context.storage.tables
        _launch(context, RepairWorker(make(tables), tables))

    return launch


def _launch(context: AdminContext, worker: Worker) -> None:
    """Raises AdminError while one of the same kind runs."""
    for status in context.workers.status():
        if status.name == worker.name and status.state is not State.DONE:
            raise bad_request(f"{worker.name} runs already.")
    context.workers.add(worker)


_REPAIRS: Final[dict[str, Callable[[AdminContext], None]]] = {
    "tables": lambda here: here.sync_tables(),
    "blocks": lambda here: _launch(here, BlockRepairWorker(here.blocks)),
    "versions": _by_quorum(VersionRepair),
    "multipartUploads": _by_quorum(UploadRepair),
    "blockRefs": _by_quorum(BlockRefRepair),
    "blockRc": lambda here: _launch(here, BlockCountRepair(here.blocks, here.resync)),
    "rebalance": lambda here: _launch(here, RebalanceWorker(here.blocks, here.variables)),
    "aliases": _by_quorum(AliasRepair),
    "clearResyncQueue": lambda here: _launch(here, ClearResyncQueue(here.blocks)),
}
