"""That what garage.toml says reaches the part that it is about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from garage_lite.config import from_table
from garage_lite.config.secret_files import Flags
from garage_lite.core.cluster.identity import load_or_create_node_key
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.limits import KIB, MIB
from garage_lite.node import World, running_node
from garage_lite.system import SystemClock, SystemEntropy


def settings(directory: Path, **more: Any) -> dict[str, Any]:
    return {
        "metadata_dir": str(directory / "meta"),
        "data_dir": str(directory / "data"),
        "replication_factor": 1,
        "rpc_bind_addr": "127.0.0.1:0",
        "rpc_secret": "0" * 64,
        "s3_api": {"s3_region": "garage"},
        **more,
    }


async def test_settings_reach_their_part(tmp_path: Path) -> None:
    snapshots = tmp_path / "snapshots"
    table = settings(
        tmp_path,
        metadata_snapshots_dir=str(snapshots),
        metadata_auto_snapshot_interval="6h",
        block_size="64Ki",
        block_max_concurrent_writes_per_request=7,
    )
    config = from_table(table, None, Flags())
    assert not config.warnings
    world = World(LocalFiles(), SystemClock(), SystemEntropy())
    world.files.make_directory(config.metadata_dir)
    key = load_or_create_node_key(world.files, config.metadata_dir, world.entropy)
    async with running_node(config, key, world, log_file_bytes=MIB) as node:
        names = [worker.name for worker in node.background.runner.status()]
        assert "Metadata snapshot worker" in names
        assert node.storage.options.block_bytes == 64 * KIB
        assert node.storage.options.blocks_in_flight == 7
        await node.metadata.snapshot("now")
    assert (snapshots / "now" / "manifest").exists()


async def test_no_interval_no_snapshots(tmp_path: Path) -> None:
    config = from_table(settings(tmp_path), None, Flags())
    world = World(LocalFiles(), SystemClock(), SystemEntropy())
    world.files.make_directory(config.metadata_dir)
    key = load_or_create_node_key(world.files, config.metadata_dir, world.entropy)
    async with running_node(config, key, world, log_file_bytes=MIB) as node:
        names = [worker.name for worker in node.background.runner.status()]
        assert "Metadata snapshot worker" not in names
