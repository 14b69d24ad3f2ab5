"""No request and no worker makes the event loop wait for a disk, a name server or a sleep.

A whole node in this process, under a mixed load of a real client, with every call to its files
written down together with the thread it came from; calls that go past the Files port are caught
by the interpreter's own audit events. What counts is which calls are made, not how long they took.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import boto3
import pytest
from botocore.config import Config as BotoConfig

from garage_lite.config import from_table
from garage_lite.config.secret_files import Flags
from garage_lite.core.cluster.identity import load_or_create_node_key
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.limits import KIB, MIB
from garage_lite.core.model.keys import AccessKey
from garage_lite.core.ports import File, Files, OpenMode
from garage_lite.node import Node, World, running_node
from garage_lite.system import SystemClock, SystemEntropy, pause
from garage_lite.web.app import serve_s3
from garage_lite.web.s3.context import S3Context, S3Settings
from tests.core.store.world import pattern

ALLOWED: Final = {
    # A row that is not in memory: a few KiB of a segment, most often from the page cache.
    "read_at of a segment",
    # Whether a block's file is there: one look into a directory, under the block's lock.
    "exists of a block",
}
"""Short enough to be made in the loop: handing them to a thread would cost more."""

AUDITED: Final = (
    "open",
    "os.",
    "shutil.",
    "fcntl.",
    "mmap.",
    "subprocess.",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "time.sleep",
)


class Watch:
    """What was called in the event loop's thread while it was armed."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.calls: Counter[str] = Counter()
        self.elsewhere: Counter[str] = Counter()
        self.where: dict[str, str] = {}
        """A call -> the stack of the first time."""

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        self.calls.clear()
        self.elsewhere.clear()
        self.thread = threading.get_ident()
        try:
            yield
        finally:
            self.thread = None

    def saw(self, what: str) -> None:
        if self.thread is None:
            return
        if threading.get_ident() != self.thread:
            self.elsewhere[what] += 1
            return
        self.calls[what] += 1
        if what not in self.where:
            self.where[what] = "".join(traceback.format_stack(limit=12)[:-2])


WATCH: Final = Watch()


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if WATCH.thread is None or not event.startswith(AUDITED):
        return
    if str(arguments[0] if arguments else "").endswith((".py", ".pyc")):
        return  # An import, or the source lines of a traceback.
    WATCH.saw(f"{event} past the Files port")


def kind_of(path: str) -> str:
    name = path.rpartition("/")[2]
    if name.startswith("segment"):
        return "a segment"
    if "/data/" in path:
        return "a block"
    return name


class WatchedFile:
    """A file that writes down each call but `close`, of which the kernel makes nothing."""

    def __init__(self, file: File, path: str) -> None:
        self._file = file
        self._kind = kind_of(path)

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._file, name)
        if name != "close":
            WATCH.saw(f"{name} of {self._kind}")
        return method


class WatchedFiles:
    """A file system that writes down each call."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def open(self, path: str, mode: OpenMode) -> File:
        WATCH.saw(f"open of {kind_of(path)}")
        return cast(File, WatchedFile(self._files.open(path, mode), path))

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._files, name)

        def watched(path: str, *arguments: Any) -> Any:
            WATCH.saw(f"{name} of {kind_of(path)}")
            return method(path, *arguments)

        return watched


@pytest.fixture(scope="module", autouse=True)
def audited() -> None:
    """A hook can't be taken away again: it looks at nothing while the watch is not armed."""
    sys.addaudithook(audit)


@contextlib.asynccontextmanager
async def watched_node(directory: Path) -> AsyncIterator[tuple[Node, Any]]:
    """A running node and a client of it."""
    table = {
        "metadata_dir": str(directory / "meta"),
        "data_dir": str(directory / "data"),
        "replication_factor": 1,
        "rpc_bind_addr": "127.0.0.1:0",
        "rpc_secret": "0" * 64,
        "block_size": "64Ki",
        "s3_api": {"s3_region": "garage"},
    }
    files = cast(Files, WatchedFiles(LocalFiles()))
    world = World(files, SystemClock(), SystemEntropy(), pause)
    config = from_table(table, None, Flags())
    files.make_directory(config.metadata_dir)
    node_key = load_or_create_node_key(files, config.metadata_dir, world.entropy)
    async with running_node(config, node_key, world, log_file_bytes=MIB) as node:
        await node.layout.use_single_node(MIB)
        key = await node.keys.create("client")
        await node.keys.allow_create_bucket(key.id, True)
        server = await serve_s3(s3_context(node), ["127.0.0.1:0"])
        client = client_of(server.ports[0], key)
        try:
            yield node, client
        finally:
            client.close()
            await server.stop(1)


def s3_context(node: Node) -> S3Context:
    return S3Context(
        node.directory,
        node.objects,
        node.uploads,
        node.copies,
        node.listing,
        node.buckets,
        node.world.clock,
        node.world.entropy,
        S3Settings("garage"),
    )


def client_of(port: int, key: AccessKey) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=key.id,
        aws_secret_access_key=key.secret,
        region_name="garage",
        config=BotoConfig(retries={"max_attempts": 0}, s3={"addressing_style": "path"}),
    )


def load(client: Any, turn: int) -> None:
    """Every kind of operation, small and in many blocks."""
    client.create_bucket(Bucket=f"bucket-{turn}")
    here: dict[str, Any] = {"Bucket": f"bucket-{turn}"}
    for number, size in enumerate((0, 100, 3 * KIB, 10 * KIB, 700 * KIB)):
        content = pattern(size, 10 * turn + number)
        client.put_object(**here, Key=f"k/{number}", Body=content)
        assert client.get_object(**here, Key=f"k/{number}")["Body"].read() == content
        client.put_object(**here, Key=f"same/{number}", Body=content)
        client.copy_object(**here, Key=f"copy/{number}", CopySource=f"bucket-{turn}/k/{number}")
    client.get_object(**here, Key="k/4", Range="bytes=100000-300000")["Body"].read()
    upload = client.create_multipart_upload(**here, Key="mp")["UploadId"]
    same: dict[str, Any] = {**here, "Key": "mp", "UploadId": upload}
    first = client.upload_part(**same, PartNumber=1, Body=pattern(5 * MIB, turn))
    source = f"bucket-{turn}/k/4"
    second = client.upload_part_copy(**same, PartNumber=2, CopySource=source)["CopyPartResult"]
    client.list_parts(**same)
    client.list_multipart_uploads(**here)
    parts = [{"PartNumber": n, "ETag": p["ETag"]} for n, p in ((1, first), (2, second))]
    client.complete_multipart_upload(**same, MultipartUpload={"Parts": parts})
    client.head_object(**here, Key="mp")
    assert len(client.list_objects_v2(**here)["Contents"]) == 16
    client.list_objects(**here, Delimiter="/")
    client.list_object_versions(**here)
    client.delete_object(**here, Key="mp")
    doomed = [{"Key": f"{folder}/{n}"} for folder in ("k", "same", "copy") for n in range(5)]
    client.delete_objects(**here, Delete={"Objects": doomed})
    client.delete_bucket(**here)


@pytest.mark.timeout(120)
async def test_the_loop_never_waits_for_a_disk(tmp_path: Path) -> None:
    async with watched_node(tmp_path) as (node, client):
        await asyncio.to_thread(load, client, 0)
        with WATCH.armed():
            await asyncio.to_thread(load, client, 1)
            await node.metadata.flush()
            node.background.repair_blocks()
            await node.background.scrub.command("start")
            await asyncio.to_thread(load, client, 2)
            await node.metadata.snapshot("one")
            await node.metadata.prune_snapshots(0)
    blocked = {what: WATCH.where[what] for what in WATCH.calls if what not in ALLOWED}
    assert not blocked, "\n".join(f"{what}\n{stack}" for what, stack in blocked.items())
    # That the watch sees anything at all:
    assert {"write_at of a block", "sync of a block"} <= set(WATCH.elsewhere), WATCH.elsewhere


async def test_the_watch_sees_what_blocks(tmp_path: Path) -> None:
    files = WatchedFiles(LocalFiles())
    path = str(tmp_path / "file")
    with WATCH.armed():
        made = await asyncio.to_thread(files.open, path, OpenMode.CREATE)
        file = files.open(path, OpenMode.UPDATE)
        file.write_at(0, [b"x"])
        file.sync()
        (tmp_path / "other").mkdir()
        socket.getaddrinfo("127.0.0.1", 80)
    file.close()
    made.close()
    ours = {"open of file", "write_at of file", "sync of file"}
    past = {f"{event} past the Files port" for event in ("open", "os.mkdir", "socket.getaddrinfo")}
    assert set(WATCH.calls) == ours | past
    assert WATCH.elsewhere["open of file"] == 1
