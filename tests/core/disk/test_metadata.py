"""The metadata store's face: what each call promises, on the real and the simulated disk."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from garage_lite.core.disk import segment_files
from garage_lite.core.disk.files import JournalFile, LocalFiles
from garage_lite.core.disk.metadata import MetadataOptions, MetadataStore, Row
from garage_lite.core.disk.metadata_snapshot import restore_snapshot
from garage_lite.core.errors import DamagedRow, DataDirError, StorageFailed, Unavailable
from garage_lite.core.limits import COMMIT_QUEUE_BYTES_MAX
from garage_lite.core.metalog.segment import decode_block
from garage_lite.core.ports import OpenMode
from tests.core.disk.metadata_world import (
    SMALL,
    Model,
    apply,
    check_reads,
    everything,
    open_store,
)
from tests.sim.files import SimFiles
from tests.sim.loop import SimEntropy, run

DEFAULT = MetadataOptions(suffix_bytes={0x10: 4}, log_file_bytes=1 << 20)


class RealClock:
    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1000


def on_sim(scenario: Callable[[SimFiles], Any], seed: int = 0) -> None:
    run(scenario(SimFiles()), seed)


async def open_real(path: Path, options: MetadataOptions = DEFAULT) -> MetadataStore:
    return await MetadataStore.open(LocalFiles(), str(path), RealClock(), SimEntropy(), options)


@pytest.mark.parametrize("fsync", [True, False])
async def test_real_files_hold_what_was_written_through_flush_merge_and_reopening(
    tmp_path: Path, fsync: bool
) -> None:
    options = replace(DEFAULT, memtable_bytes=40_000, segment_rows_max=700, fsync=fsync)
    store = await open_real(tmp_path / "deep" / "meta", options)
    model: Model = {}
    for number in range(150):
        rows: list[tuple[bytes, bytes | None]] = [
            (b"\x10\x00name-%04d-tail" % (n * 7919 % 2000), b"%d" % number * 9)
            for n in range(number * 20, number * 20 + 20)
        ]
        rows.append((b"\x10\x00name-%04d-tail" % number, None))
        apply(model, rows)
        await store.room()
        store.commit(rows)
        if number % 20 == 0:
            await store.flush()
    await store.commit([])
    check_reads(store, model)
    for name in ("aged", "ancient", "before"):
        path = await store.snapshot(name)
    await store.prune_snapshots(2)
    assert sorted(p.name for p in Path(path).parent.iterdir()) == ["ancient", "before"]
    dropped = {k: v for k, v in model.items() if not k.startswith(b"\x10\x00name-01")}
    await store.drop_range(b"\x10\x00name-01", b"\x10\x00name-02")
    check_reads(store, dropped, absent=model)
    assert store.status().segments > 0 and store.status().failed == ""
    await store.close()
    store = await open_real(tmp_path / "deep" / "meta", options)
    check_reads(store, dropped, absent=model)
    assert not store.status().damage
    await store.close()
    restore_snapshot(LocalFiles(), path, str(tmp_path / "restored"), b"r" * 16)
    store = await open_real(tmp_path / "restored", options)
    check_reads(store, model)
    assert store.status().store_id == b"r" * 16
    await store.close()


def test_the_first_rows_of_many_are_found_without_reading_the_others() -> None:
    async def scenario(files: SimFiles) -> None:
        prefix = b"\x10\x00name"
        model: Model = {}
        store = await open_store(files, replace(DEFAULT, block_cache_bytes=0))
        for start in range(6000, 0, -1000):
            rows: list[Row] = [
                (prefix + b"%04d" % n, b"%d" % n) for n in range(start, start + 1000, 3)
            ]
            rows += [(key, None) for key, _ in rows[:50] if start < 4000]
            rows += [(b"\x10\x00mine%04d" % start, b""), (b"\x10\x00namely%04d" % start, b"")]
            apply(model, rows)
            await store.commit(rows)
            if start % 2000 == 0:
                await store.flush()
        mine = sorted((k, v) for k, v in model.items() if k[:-4] == prefix)
        with patch.object(segment_files, "decode_block", wraps=decode_block) as read:
            for most in (1, 5, 70):
                assert store.with_prefix(prefix, most) == mine[:most]
            assert read.call_count < 60
        assert store.with_prefix(prefix) == mine
        hidden = [(key, None) for key, _ in mine[:900]]
        store.commit(hidden)
        assert store.with_prefix(prefix, 3, latest=True) == mine[900:903]
        assert store.with_prefix(prefix, 3) == mine[:3]
        await store.flush()
        assert store.with_prefix(prefix, 3) == mine[900:903]
        await store.drop_range(mine[0][0], mine[1000][0])
        assert store.with_prefix(prefix, 3) == mine[1000:1003]
        await store.close()

    on_sim(scenario)


def test_the_writers_see_at_once_what_the_readers_see_when_it_is_durable() -> None:
    async def scenario(files: SimFiles) -> None:
        store = await open_store(files, DEFAULT)
        key = b"\x10\x00nametail"
        future = store.commit([(key, b"1")])
        assert store.get(key, latest=True) == b"1" and store.get(key) is None
        assert store.with_prefix(key[:-4], latest=True) == [(key, b"1")]
        assert store.with_prefix(key[:-4]) == []
        await future
        assert store.get(key) == b"1"
        deleted = store.commit([(key, None)])
        assert store.get(key, latest=True) is None and store.get(key) == b"1"
        assert everything(store, latest=True) == {}
        again = store.commit([(key, b"2")])
        await deleted
        assert store.get(key, latest=True) == b"2"
        await again
        assert store.get(key) == b"2"
        await store.close()

    on_sim(scenario)


def test_records_that_wait_share_one_write() -> None:
    async def scenario(files: SimFiles) -> None:
        store = await open_store(files, DEFAULT)
        await store.commit([(b"\x20\x00a", b"")])
        before = len([1 for name, _ in files.journal if name == "write"])
        await asyncio.gather(*[store.commit([(b"\x20\x00%d" % n, b"v")]) for n in range(50)])
        writes = len([1 for name, _ in files.journal if name == "write"]) - before
        assert writes <= 2, "one for the first to come, one for all that came meanwhile"
        assert store.status().records_per_batch > 10
        await store.close()

    on_sim(scenario)


def test_writers_wait_for_room() -> None:
    async def scenario(files: SimFiles) -> None:
        store = await open_store(files, replace(DEFAULT, log_file_bytes=2 << 20))
        value = b"v" * 900_000
        futures = []
        for n in range(COMMIT_QUEUE_BYTES_MAX // len(value) + 1):
            await asyncio.wait_for(store.room(), 1e-9)
            futures.append(store.commit([(b"\x20\x00%d" % n, value)]))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.room(), 1e-9)
        await store.room()
        await asyncio.gather(*futures)
        await store.close()

    on_sim(scenario)


def test_what_is_too_big_or_too_late_is_refused() -> None:
    async def scenario(files: SimFiles) -> None:
        store = await open_store(files)
        with pytest.raises(ValueError):
            store.commit([(b"\x20\x00a", b"v" * (1 << 20))])
        assert store.get(b"\x20\x00a", latest=True) is None
        await store.commit([(b"\x20\x00b", b"")])
        assert store.get(b"\x20\x00b") == b"", "an empty value is a value"
        last = store.commit([(b"\x20\x00c", b"last")])
        await store.close()
        assert last.done() and not last.exception()
        await store.close()
        with pytest.raises(Unavailable):
            store.commit([(b"\x20\x00d", b"")])

    on_sim(scenario)


def test_a_snapshot_needs_a_plain_name_that_is_free() -> None:
    async def scenario(files: SimFiles) -> None:
        store = await open_store(files)
        await store.snapshot("2026-11-22T10.00")
        for name in ("2026-11-22T10.00", "", ".", "..", "a/b", "-x", "a" * 200):
            with pytest.raises(DataDirError):
                await store.snapshot(name)
        with pytest.raises(DataDirError, match="not a metadata snapshot"):
            restore_snapshot(files, "/nowhere", "/else", b"x" * 16)
        with pytest.raises(DataDirError, match="not empty"):
            restore_snapshot(files, "/var/meta/snapshots/2026-11-22T10.00", "/var/meta", b"x" * 16)
        await store.close()

    on_sim(scenario)


def test_short_lived_rows_leave_nothing_behind() -> None:
    async def scenario(files: SimFiles) -> None:
        store = await open_store(files, DEFAULT)
        for n in range(40):
            await store.commit([(b"\x80\x00%03d" % n, b"due")])
            await store.commit([(b"\x80\x00%03d" % n, None)])
        await store.flush()
        assert store.status().rows == 0, "a deletion of what no segment holds needs no row"
        await store.close()

    on_sim(scenario)


def test_a_scan_goes_on_while_all_it_reads_is_flushed_and_merged_away() -> None:
    async def scenario(files: SimFiles) -> None:
        store = await open_store(files)
        model: Model = {b"\x20\x00%04d" % n: b"v" * 30 for n in range(600)}
        for key, value in model.items():
            await store.room()
            store.commit([(key, value)])
        await store.commit([])
        scan = store.scan(b"\x20\x00", b"\x20\x01")
        keys = list(next(scan)[0])
        for _ in range(3):
            for key in model:
                await store.room()
                store.commit([(key, b"new")])
            await store.flush()
            await asyncio.sleep(1)
            keys += next(scan)[0]
        keys += [key for some, _ in scan for key in some]
        assert keys == sorted(model)
        await store.close()

    on_sim(scenario)


def test_a_long_row_of_deletions_hands_control_back() -> None:
    async def scenario(files: SimFiles) -> None:
        store = await open_store(files, DEFAULT)
        await store.commit([(b"\x20\x00%05d" % n, None) for n in range(5000)])
        await store.commit([(b"\x20\x00%05d" % 5000, b"v")])
        batches = list(store.scan(b"\x20\x00", b"\x20\x01"))
        assert len(batches) > 3 and batches[-1] == ([b"\x20\x0005000"], [b"v"])
        assert all(batch == ([], []) for batch in batches[:-1])
        await store.close()

    on_sim(scenario)


async def test_a_directory_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(DataDirError, match=r"holiday\.jpg"):
        await open_real(tmp_path)
    with pytest.raises(DataDirError):
        await open_real(tmp_path / "holiday.jpg" / "meta")


def test_a_disk_that_can_not_be_read_makes_rows_unknown_not_absent() -> None:
    async def scenario(files: SimFiles) -> None:
        options = replace(SMALL, block_cache_bytes=0, index_cache_bytes=0)
        store = await open_store(files, options)
        await store.commit([(b"\x20\x00a", b"1")])
        await store.flush()
        files.fail_if(lambda call, path: 5 if call == "read" else 0)
        with pytest.raises(DamagedRow):
            store.get(b"\x20\x00a")
        with pytest.raises(StorageFailed):
            list(store.scan(b"\x20", b"\x21"))
        files.fail_if(None)
        assert store.get(b"\x20\x00a") == b"1"
        assert store.status().damage
        await store.close()

    on_sim(scenario)


async def test_a_journal_leaves_direct_writes_where_they_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "j")
    LocalFiles().open(path, OpenMode.CREATE).close()
    file = JournalFile(os.open(path, os.O_RDWR | os.O_DSYNC), direct=True)
    file._leave_direct()
    file.write_at(0, [b"x" * 4096])
    assert file.read_at(1, 3) == b"xxx"
    file.close()
