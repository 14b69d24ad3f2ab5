"""How fast listings are, on the real engine: no web server, no XML.

    python -m tests.bench.listing --objects 1000000 [--directory DIR]

Fills a bucket (a third of the keys under one prefix), then lists it page by page, folds it,
deletes 100,000 keys of one prefix and lists over them. Prints microseconds a key and milliseconds
a page, also as a ratio to a loop of this interpreter timed in the same run. Times are CPU of the
loop's thread, which other work on the machine spoils little, except where they say wall.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator

from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.disk.metadata import MetadataOptions, MetadataStore
from garage_lite.core.disk.replica import Replica
from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.model.objects import Floor, Kind, ObjectMeta, ObjectVersion
from garage_lite.core.model.rowkeys import SUFFIX_BYTES, Stamp, object_prefix, object_row
from garage_lite.core.store.listing import Listing
from garage_lite.system import SystemClock, SystemEntropy
from tests.bench.engine import calibration_us
from tests.core.tables_on_disk import lone_tables

BUCKET = BucketId(b"\x42" * 32)
META = ObjectMeta((("content-type", "image/jpeg"), ("x-amz-meta-mtime", "1700000000.123456")))
DELETED = 100_000
COMMIT_ROWS = 500


def names(count: int) -> Iterator[bytes]:
    """A third under `big/`, a third in folders of 10, a third in folders of 1,000."""
    for number in range(count):
        which, own = number % 3, number // 3
        if which == 0:
            yield b"big/IMG_%08d.jpg" % own
        elif which == 1:
            yield b"small/%07d/IMG_%08d.jpg" % (own // 10, own)
        else:
            yield b"year/%05d/IMG_%08d.jpg" % (own // 1000, own)


async def put(store: MetadataStore, keys: Iterator[bytes], clock: int, marker: bool) -> None:
    rows: list[tuple[bytes, bytes | None]] = []
    for number, key in enumerate(keys):
        stamp = Stamp(clock + number, 0, VersionId(number.to_bytes(16, "big")))
        kind = Kind.DELETE_MARKER if marker else Kind.INLINE
        meta = ObjectMeta() if marker else META
        version = ObjectVersion(
            stamp, kind, clock // 1000, number, bytes(16), floor=Floor.ALL, meta=meta
        )
        prefix = object_prefix(BUCKET, key)
        if marker:
            rows += [(old, None) for old, _ in store.with_prefix(prefix)]
        rows.append((object_row(prefix, stamp), version.encode()))
        if len(rows) >= COMMIT_ROWS:
            await store.room()
            await store.commit(rows)
            rows = []
    await store.commit(rows)


async def pages(
    listing: Listing, prefix: bytes, delimiter: bytes, pages_max: int = 10**9
) -> tuple[int, int, list[float]]:
    """Keys, common prefixes, milliseconds of each page."""
    after, keys, groups, taken = b"", 0, 0, []
    for _ in range(pages_max):
        begun = time.thread_time()
        page = await listing.objects(BUCKET, prefix=prefix, delimiter=delimiter, after=after)
        taken.append((time.thread_time() - begun) * 1000)
        keys += len(page.entries)
        groups += len(page.prefixes)
        if page.next is None:
            break
        after = page.next.key
    return keys, groups, taken


async def measure(
    listing: Listing, unit: float, what: str, prefix: bytes, delimiter: bytes
) -> None:
    keys, groups, taken = await pages(listing, prefix, delimiter, 400)
    taken.sort()
    p50, p99 = taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    each = sum(taken) * 1000 / max(1, keys + groups)
    print(
        f"{what:<34}{keys:>8} keys {groups:>6} prefixes  {each:7.2f} us each {each / unit:6.0f} x"
        f"  page p50 {p50:7.2f} p99 {p99:7.2f} ms",
        flush=True,
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--directory")
    arguments = parser.parse_args()
    directory = tempfile.mkdtemp(dir=arguments.directory)
    options = MetadataOptions(suffix_bytes=SUFFIX_BYTES, pause=time.sleep)
    clock, entropy = SystemClock(), SystemEntropy()
    store = await MetadataStore.open(LocalFiles(), directory, clock, entropy, options)
    listing = Listing(lone_tables(Replica(store), clock, entropy))
    unit = calibration_us()
    try:
        begun = time.perf_counter()
        await put(store, names(arguments.objects), clock.now_us(), marker=False)
        taken, status = time.perf_counter() - begun, store.status()
        print(f"filled in {taken:.0f} s wall: {status.rows} rows in {status.segments} segments")
        await measure(listing, unit, "all keys", b"", b"")
        await measure(listing, unit, "a big prefix folded, then two more", b"", b"/")
        await measure(listing, unit, "folders of 10", b"small/", b"/")
        await measure(listing, unit, "folders of 1,000", b"year/", b"/")
        gone = (b"big/IMG_%08d.jpg" % number for number in range(DELETED))
        await put(store, gone, clock.now_us(), marker=True)
        begun, cpu = time.perf_counter(), time.thread_time()
        page = await listing.objects(BUCKET, prefix=b"big/", limit=1)
        wall, cpu = (time.perf_counter() - begun) * 1000, (time.thread_time() - cpu) * 1000
        first = page.entries[0].key.decode()
        print(f"first key {first} past {DELETED} fresh deletions: {cpu:.0f} ms, {wall:.0f} ms wall")
    finally:
        await store.close()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    asyncio.run(main())
