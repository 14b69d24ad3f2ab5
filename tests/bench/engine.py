"""How fast and how small the metadata engine is, on the real disk.

    python -m tests.bench.engine --rows 1000000 [--directory DIR]

Prints microseconds an operation, also as a ratio to a loop of this interpreter timed in the same
run (a machine twice as slow gives the same ratio), anonymous memory, and the time to open after
kill -9.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.disk.metadata import MetadataOptions, MetadataStore

BATCH = 100
TABLE = 0x10
SUFFIX = 26


class Clock:
    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1000


class Entropy:
    def token(self, length: int) -> bytes:
        return os.urandom(length)


OPTIONS = MetadataOptions(suffix_bytes={TABLE: SUFFIX}, pause=time.sleep)


def key_of(number: int) -> bytes:
    """100 bytes in random order: a bucket, a name, a stamp."""
    mixed = number * 0x9E3779B97F4A7C15 & (1 << 64) - 1
    name = b"photos/%016x/%08d.jpg" % (mixed, number)
    return bytes((TABLE, 7)) + b"b" * 32 + name.ljust(38, b"_") + b"\x00\x01" + b"s" * SUFFIX


def value_of(number: int) -> bytes:
    """250 bytes, half of them random, as rows of objects are."""
    return random.Random(number).randbytes(125) + b"content-type: image/jpeg" * 6


def anonymous_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    return 0


def calibration_us() -> float:
    """One turn of a plain loop over a dict: what this machine is worth today."""
    best = 1e9
    table = {b"%d" % i: i for i in range(1000)}
    keys = list(table)
    for _ in range(20):
        begun = time.perf_counter()
        total = 0
        for key in keys:
            total += table[key] & 7
        best = min(best, (time.perf_counter() - begun) / 1000 * 1e6)
    return best


def show(what: str, us: float, unit: float, more: str = "") -> None:
    print(f"{what:<34}{us:10.2f} us {us / unit:8.0f} x  {more}", flush=True)


async def lateness(store: MetadataStore, seconds: float, rows: int, count: int) -> None:
    """How late the loop comes back to a task that slept a millisecond, while another writes
    `rows` rows every 5 ms: with enough of them, flushes and merges go on all the time."""
    late: list[float] = []
    end = time.perf_counter() + seconds

    async def write() -> None:
        number = 0
        while rows and time.perf_counter() < end:
            await asyncio.sleep(0.005)
            chosen = range(number, number + rows)
            await store.commit([(key_of(n * 7919 % count), b"w" * 200) for n in chosen])
            number += rows

    task = asyncio.create_task(write())
    while time.perf_counter() < end:
        begun = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append((time.perf_counter() - begun - 0.001) * 1000)
    await task
    late.sort()
    p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
    print(f"loop late at {rows * 200} rows/s: p50 {p50:.2f} p99 {p99:.2f} max {late[-1]:.2f} ms")


async def fill(store: MetadataStore, rows: int, unit: float) -> None:
    pairs: list[list[tuple[bytes, bytes | None]]] = []
    spent_making = 0.0
    begun, cpu = time.perf_counter(), time.process_time()
    for start in range(0, rows, BATCH):
        before = time.thread_time()
        batch: list[tuple[bytes, bytes | None]] = [
            (key_of(n), value_of(n)) for n in range(start, min(rows, start + BATCH))
        ]
        spent_making += time.thread_time() - before
        pairs.append(batch)
        await store.room()
        last = store.commit(batch)
        if start % (BATCH * 20) == 0:
            await last
            pairs.clear()
    await store.commit([])
    wall = time.perf_counter() - begun - spent_making
    cpu = time.process_time() - cpu - spent_making
    show("put, 100 rows a record: CPU", cpu / rows * 1e6, unit, f"wall {wall / rows * 1e6:.2f} us")
    settled = time.perf_counter()
    calm = 0
    while calm < 4:
        await asyncio.sleep(0.25)
        calm = 0 if store.status().merging_rows else calm + 1
    print(f"compaction settled {time.perf_counter() - settled:.1f} s later: {store.status()}")


async def single(store: MetadataStore, unit: float, together: int, count: int) -> None:
    async def writer(number: int) -> None:
        for i in range(count // together):
            await store.commit([(key_of(-1 - number * count - i), b"v" * 250)])

    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*[writer(n) for n in range(together)])
    wall = time.perf_counter() - begun
    cpu = time.process_time() - cpu
    show(
        f"commit of one row, {together} at once: CPU",
        cpu / count * 1e6,
        unit,
        f"{count / wall:.0f}/s, {wall / count * together * 1e3:.2f} ms each",
    )


def timed(operations: Iterator[None], count: int) -> float:
    begun = time.perf_counter()
    for _ in operations:
        pass
    return (time.perf_counter() - begun) / count * 1e6


def read(store: MetadataStore, rows: int, unit: float) -> None:
    chance = random.Random(1)
    count = min(20_000, rows)
    numbers = [chance.randrange(rows) for _ in range(count)]
    keys = [key_of(n) for n in numbers]

    def hits() -> Iterator[None]:
        for key in keys:
            if store.get(key) is None:
                raise SystemExit("a row is missing")
            yield

    def misses() -> Iterator[None]:
        for n in numbers:
            store.get(key_of(n + rows))
            yield

    def prefixes() -> Iterator[None]:
        for key in keys:
            store.with_prefix(key[:-SUFFIX])
            yield

    def making() -> Iterator[None]:
        for n in numbers:
            key_of(n + rows)
            yield

    show("get, cold hit", timed(hits(), count), unit)
    show("get, miss", timed(misses(), count) - timed(making(), count), unit)
    show("with_prefix, cold hit", timed(prefixes(), count), unit)

    def hots() -> Iterator[None]:
        for key in keys[:200] * 50:
            store.get(key)
            yield

    def seeks() -> Iterator[None]:
        for _ in range(500):
            next(store.scan(key_of(chance.randrange(rows)), b"\x10\x08"), None)
            yield

    show("get, 200 hot", timed(hots(), 10_000), unit)
    pages = []
    for _ in range(50):
        start = key_of(chance.randrange(rows))
        begun = time.perf_counter()
        seen = 0
        for some, _ in store.scan(start, b"\x10\x08"):
            seen += len(some)
            if seen >= 1000:
                break
        pages.append((time.perf_counter() - begun) / max(1, seen) * 1e6)
    show("scan of 1000, a row", statistics.median(pages), unit)
    show("seek (scan, first batch)", timed(seeks(), 500), unit)
    begun = time.perf_counter()
    seen = sum(len(some) for some, _ in store.scan(b"\x10", b"\x11"))
    show(
        "scan of everything, a row",
        (time.perf_counter() - begun) / seen * 1e6,
        unit,
        f"{seen} rows",
    )


async def tombstones(store: MetadataStore, unit: float) -> None:
    low, high = b"\x30\x00", b"\x30\x01"
    for value in (b"x" * 40, None):
        for start in range(0, 100_000, BATCH):
            await store.room()
            last = store.commit([(low + b"%08d" % n, value) for n in range(start, start + BATCH)])
        await last
    begun = time.perf_counter()
    left = sum(len(some) for some, _ in store.scan(low, high))
    took = time.perf_counter() - begun
    show(
        "scan over a fresh deletion",
        took / 100_000 * 1e6,
        unit,
        f"100,000 in {took * 1000:.0f} ms, {left} left",
    )


async def child(directory: str, rows: int) -> None:
    unit = calibration_us()
    print(f"calibration {unit:.4f} us a turn")
    base = anonymous_kib()
    store = await MetadataStore.open(LocalFiles(), directory, Clock(), Entropy(), OPTIONS)
    await fill(store, rows, unit)
    print(f"RssAnon {anonymous_kib() / 1024:.1f} MiB, {(anonymous_kib() - base) / 1024:.1f} more")
    read(store, rows, unit)
    await single(store, unit, 1, 500)
    await single(store, unit, 64, 10_000)
    await tombstones(store, unit)
    await lateness(store, 5, 0, rows)
    await lateness(store, 5, 1, rows)
    await lateness(store, 15, 50, rows)
    print(f"RssAnon {anonymous_kib() / 1024:.1f} MiB, {(anonymous_kib() - base) / 1024:.1f} more")
    print("ready to die", flush=True)
    await asyncio.sleep(3600)


async def reopen(directory: str) -> None:
    begun = time.perf_counter()
    store = await MetadataStore.open(LocalFiles(), directory, Clock(), Entropy(), OPTIONS)
    took = time.perf_counter() - begun
    status = store.status()
    print(
        f"reopened after kill -9 in {took * 1000:.1f} ms: {status.rows} rows,"
        f" {status.segment_bytes / 1e6:.0f} MB, damage {status.damage}"
    )
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--directory", default="")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        sys.setswitchinterval(0.0005)
        asyncio.run(child(arguments.directory, arguments.rows))
        return
    directory = arguments.directory or tempfile.mkdtemp(prefix="engine-", dir=".")
    command = [sys.executable, "-m", "tests.bench.engine", "--child"]
    command += ["--rows", str(arguments.rows), "--directory", str(Path(directory).resolve())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("ready to die"):
            process.send_signal(signal.SIGKILL)
            break
        print(line, end="", flush=True)
    process.wait()
    asyncio.run(reopen(str(Path(directory).resolve())))
    if not arguments.directory:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
