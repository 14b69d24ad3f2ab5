"""A lone node's stores in a directory, as the operations see them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from garage_lite.core.block.markers import DataDirectory
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.node_state import NodeState
from garage_lite.core.cluster.peers import Cluster, Endpoints, NoPeers
from garage_lite.core.disk.block_files import BlockFiles, BlockOptions
from garage_lite.core.disk.block_locks import BlockLeases
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.layout.roles import Parameters
from garage_lite.core.limits import MIB
from garage_lite.core.quorum import Consistency
from garage_lite.core.store.buckets import Buckets
from garage_lite.core.store.budget import Budget
from garage_lite.core.store.directory import Directory
from garage_lite.core.store.keys import Keys
from garage_lite.core.store.objects import Objects
from garage_lite.core.store.uploads import Uploads
from garage_lite.core.store.writing import Storage
from garage_lite.core.workers.background import Background
from garage_lite.system import SystemEntropy
from garage_lite.web.admin.context import AdminContext, NodeFacts, Space
from garage_lite.web.admin.errors import AdminError
from garage_lite.web.admin.operations import call
from tests.core.blocks_on_disk import lone_blocks
from tests.core.layout.build import GB, node
from tests.core.lone_sync import lone_sync
from tests.core.tables_on_disk import TablesOnDisk

HERE = node(1)


@dataclass
class Lone:
    """The node, and short ways to use it."""

    context: AdminContext
    disk: TablesOnDisk
    objects: Objects

    async def do(self, name: str, parameters: Any = None) -> Any:
        return await call(self.context, name, parameters)

    async def here(self, name: str, body: Any = None) -> Any:
        """A per-node operation's answer from this node."""
        answer = await self.do(name, {"node": "self", "body": body})
        assert answer["error"] == {}
        return answer["success"][HERE.hex()]

    async def refused(self, name: str, parameters: Any = None) -> AdminError:
        with pytest.raises(AdminError) as caught:
            await self.do(name, parameters)
        return caught.value

    async def bucket(self, name: str = "photos") -> str:
        """The id of a new bucket."""
        made = await self.do("CreateBucket", {"globalAlias": name})
        return str(made["id"])


@pytest_asyncio.fixture
async def lone(tmp_path: Path) -> AsyncIterator[Lone]:
    files, entropy = LocalFiles(), SystemEntropy()
    disk = await TablesOnDisk.open(tmp_path / "meta")
    tables = disk.tables
    state = NodeState(tables)
    directories = [DataDirectory(str(tmp_path / "data"))]
    block_files = await BlockFiles.open(files, directories, state, entropy, BlockOptions())
    leases = BlockLeases()
    blocks = lone_blocks(disk.replica, tables, block_files, HERE, leases)
    storage = Storage(tables, blocks, Budget(16 * MIB), leases, HERE, b"b" * 16)
    directory = await Directory.load(tables)
    layout = ClusterLayout(disk.replica, disk.clock, HERE, Parameters(1), Consistency.CONSISTENT)
    sync = lone_sync(disk, HERE)
    background = Background(
        blocks.store,
        blocks,
        sync,
        state,
        HERE,
        b"b" * 16,
        layout=layout,
        scrub=False,
        minute_of_day=lambda now_us: 0,
    )
    context = AdminContext(
        facts=NodeFacts(HERE, "attic", "v0.1.0", "3.11", "garage", "192.0.2.7:3901"),
        clock=disk.clock,
        directory=directory,
        buckets=Buckets(tables),
        keys=Keys(tables, directory),
        uploads=Uploads(storage),
        storage=storage,
        layout=layout,
        metadata=disk.store,
        metadata_space=lambda: Space(7 * GB, 10 * GB),
        blocks=blocks.store,
        workers=background.runner,
        variables=background.variables,
        resync=background.resync,
        scrub=background.scrub,
        drain=background.drain,
        sync_tables=background.sync_tables,
        cluster=Cluster(HERE, Endpoints(), NoPeers()),
    )
    yield Lone(context, disk, Objects(storage))
    await background.stop()
    await storage.settle()
    await block_files.close()
    await disk.close()
