"""Nodes with much in them, filled below HTTP: objects as the rows that the store would write.

That is twenty times as fast as to put them. Buckets' counters know nothing of these objects.
"""

from __future__ import annotations

import asyncio
import hashlib
import multiprocessing
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.disk.metadata import MetadataOptions, MetadataStore
from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.model.objects import Floor, Kind, ObjectMeta, ObjectVersion
from garage_lite.core.model.rowkeys import (
    SUFFIX_BYTES,
    Stamp,
    inline_row,
    object_prefix,
    object_row,
)
from garage_lite.system import SystemClock, SystemEntropy
from tests.bench.engine import anonymous_kib
from tests.bench.report import Processes, Report
from tests.bench.s3 import Bench
from tests.process import REGION, NodeProcess
from tests.sigv4 import Signer

BUCKET = "bench"
META = ObjectMeta((("content-type", "image/jpeg"), ("x-amz-meta-mtime", "1700000000.123456")))
EPOCH_US = 1_700_000_000_000_000
INLINE_BYTES = 100
COMMIT_ROWS = 500


# --- objects, below HTTP


def scattered(number: int) -> bytes:
    """The key of an object; neighbours by number are far apart."""
    return b"photos/%016x.jpg" % (number * 0x9E3779B97F4A7C15 & (1 << 64) - 1)


def in_a_row(number: int) -> bytes:
    return b"big/IMG_%08d.jpg" % number


def version_id(number: int) -> VersionId:
    return VersionId(hashlib.blake2b(number.to_bytes(8, "big"), digest_size=16).digest())


def inline_content(number: int) -> bytes:
    return version_id(number)[:4] * (INLINE_BYTES // 4)


def rows_of(bucket: BucketId, key: bytes, number: int) -> list[tuple[bytes, bytes | None]]:
    """The two rows of an object whose content is in the metadata."""
    stamp = Stamp(EPOCH_US + number, 0, version_id(number))
    version = ObjectVersion(
        stamp,
        Kind.INLINE,
        EPOCH_US // 1000 + number,
        INLINE_BYTES,
        version_id(number),
        null=True,
        floor=Floor.ALL,
        meta=META,
    )
    return [
        (object_row(object_prefix(bucket, key), stamp), version.encode()),
        (inline_row(bucket, stamp.id), inline_content(number)),
    ]


async def opened(metalog: str) -> MetadataStore:
    options = MetadataOptions(suffix_bytes=SUFFIX_BYTES, pause=time.sleep)
    return await MetadataStore.open(LocalFiles(), metalog, SystemClock(), SystemEntropy(), options)


async def fill(metalog: str, bucket: BucketId, count: int, name: Callable[[int], bytes]) -> str:
    """Put `count` objects and let compaction come to rest; says how that went."""
    store = await opened(metalog)
    began, cpu = time.perf_counter(), time.process_time()
    rows: list[tuple[bytes, bytes | None]] = []
    for number in range(count):
        rows += rows_of(bucket, name(number), number)
        if len(rows) >= COMMIT_ROWS:
            await store.room()
            await store.commit(rows)
            rows = []
    await store.commit(rows)
    filled = time.perf_counter()
    calm = 0
    while calm < 4:
        await asyncio.sleep(0.25)
        calm = 0 if store.status().merging_rows else calm + 1
    status = store.status()
    await store.close()
    return (
        f"{count} objects in {filled - began:.0f} s, compaction {time.perf_counter() - filled:.0f}"
        f" s more, {time.process_time() - cpu:.0f} CPU-s in all: {status.rows} rows,"
        f" {status.segments} segments, {status.segment_bytes / 1e6:.0f} MB"
    )


@dataclass
class EngineFigures:
    """Microseconds of CPU each, as lists; memory in MiB."""

    opened_ms: float
    imported_mib: float
    anonymous_mib: float
    gets: list[float]
    misses: list[float]
    commits_ms: list[float]
    """Wall: of one row, alone, durable."""


async def read_at_rest(
    metalog: str, bucket: BucketId, count: int, name: Callable[[int], bytes]
) -> EngineFigures:
    """In a process that has just begun: random objects, absent ones, pages, everything, commits."""
    imported = anonymous_kib() / 1024
    began = time.perf_counter()
    store = await opened(metalog)
    took = (time.perf_counter() - began) * 1000
    chance = random.Random(time.time_ns())
    gets, misses, commits = [], [], []
    for _ in range(20_000):
        number = chance.randrange(count)
        prefix = object_prefix(bucket, name(number))
        gets.append(spent_us(store, prefix))
        assert store.get(inline_row(bucket, version_id(number))) == inline_content(number)
        absent = object_prefix(bucket, name(number + count * 7))
        misses.append(spent_us(store, absent))
    for _ in range(100):
        start = object_prefix(bucket, name(chance.randrange(count)))
        for keys, _values in store.scan(start, start[:34] + b"\xff"):
            if len(keys):
                break
    seen = sum(len(keys) for keys, _ in store.scan(b"\x00", b"\xff"))
    assert seen >= 2 * count, f"{seen} rows"
    for number in range(1000):
        row = b"\xee\x00" + number.to_bytes(4, "big")
        began = time.perf_counter()
        await store.commit([(row, b"v" * 250)])
        commits.append((time.perf_counter() - began) * 1000)
    memory = anonymous_kib() / 1024
    await store.close()
    return EngineFigures(took, imported, memory, gets, misses, commits)


def spent_us(store: MetadataStore, prefix: bytes) -> float:
    """CPU of looking an object's versions up."""
    began = time.thread_time_ns()
    store.with_prefix(prefix)
    return (time.thread_time_ns() - began) / 1000


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What an async function gives, run in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_run, function, *arguments).result()


def _run(function: Callable[..., Any], *arguments: Any) -> Any:
    return asyncio.run(function(*arguments))


# --- a node over them


class ScaleNode:
    """A node with one bucket, which can be stopped to be filled below HTTP."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.process = NodeProcess(directory)
        self.process.start()
        self.process.lay_out()
        key = self.process.create_key("bench")
        host = urlsplit(self.process.endpoint).netloc
        self.signer = Signer(host, key.access_key, key.secret_key, REGION)
        self.process.cli("bucket", "create", BUCKET)
        self.process.cli(
            "bucket", "allow", "--read", "--write", "--owner", BUCKET, "--key", "bench"
        )
        found = re.search(
            r"^Bucket:\s+([0-9a-f]{64})$", self.process.cli("bucket", "info", BUCKET), re.M
        )
        assert found is not None
        self.bucket = BucketId(bytes.fromhex(found[1]))
        self.metalog = str(directory / "meta" / "metalog")

    def fill(self, count: int, name: Callable[[int], bytes]) -> None:
        self.process.stop()
        print(apart(fill, self.metalog, self.bucket, count, name), flush=True)

    def bench(self) -> Bench:
        """A client of the running node, with a report of its own."""
        assert self.process.process is not None
        report = Report(Processes([self.process.process.pid]))
        return Bench(self.process.endpoint, self.signer, BUCKET, report)


async def open_only(metalog: str) -> float:
    began = time.perf_counter()
    store = await opened(metalog)
    took = (time.perf_counter() - began) * 1000
    await store.close()
    return took
