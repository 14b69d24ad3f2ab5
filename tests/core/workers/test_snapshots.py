"""Automatic snapshots: when they are taken, how many stay, where they go."""

from __future__ import annotations

from pathlib import Path

import pytest

from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.disk.metadata import MetadataStore
from garage_lite.core.disk.metadata_options import MetadataOptions
from garage_lite.core.disk.metadata_snapshot import restore_snapshot
from garage_lite.core.errors import StorageFailed
from garage_lite.core.workers.runner import IDLE
from garage_lite.core.workers.snapshots import KEPT, SnapshotWorker, lengthened, snapshot_name
from garage_lite.system import SystemEntropy
from tests.core.store.world import TestClock
from tests.durability.small_disk import small_disk

HOUR_MS = 3_600_000
HOUR_US = HOUR_MS * 1000
KEY, VALUE = b"\x10\x00row", b"value"


class Chance:
    """Says that every interval is lengthened most."""

    def token(self, length: int) -> bytes:
        return b"\xff" * length


async def opened(directory: Path, snapshots: Path) -> MetadataStore:
    options = MetadataOptions(
        fsync=False, log_file_bytes=1 << 20, snapshots_directory=str(snapshots)
    )
    return await MetadataStore.open(
        LocalFiles(), str(directory), TestClock(), SystemEntropy(), options
    )


def names(snapshots: Path) -> list[str]:
    return sorted(path.name for path in snapshots.iterdir()) if snapshots.exists() else []


def test_names_are_in_order_of_time() -> None:
    assert snapshot_name(1_700_000_000_123_456) == "2023-11-14T22-13-20Z"
    assert snapshot_name(1_700_000_000_000_000) < snapshot_name(1_700_000_001_000_000)


def test_an_interval_grows_by_up_to_a_fifth() -> None:
    assert [lengthened(1000, chance) for chance in (0, 255)] == [1000, 1200]


async def test_one_in_every_interval_and_the_last_two_stay(tmp_path: Path) -> None:
    snapshots = tmp_path / "elsewhere"
    store = await opened(tmp_path / "meta", snapshots)
    clock = TestClock()
    worker = SnapshotWorker(store, clock, Chance(), HOUR_MS)
    assert await worker.work() == IDLE and names(snapshots) == []
    clock.us += HOUR_US // 2
    taken = []
    for number in range(4):
        assert await worker.work() == IDLE
        assert await worker.work() == IDLE, "not twice"
        taken.append(names(snapshots)[-1])
        assert len(set(taken)) == number + 1
        assert names(snapshots) == taken[-KEPT:]
        clock.us += HOUR_US
        assert await worker.work() == IDLE
        assert names(snapshots)[-1] == taken[-1], "an interval and a fifth"
        clock.us += HOUR_US // 5
    assert worker.progress().freeform == ("4 since the start",)
    await store.close()


async def test_a_failure_is_shown_and_tried_again(tmp_path: Path) -> None:
    """A file stands where the directory should be."""
    snapshots = tmp_path / "elsewhere"
    snapshots.write_text("")
    store = await opened(tmp_path / "meta", snapshots)
    clock = TestClock()
    worker = SnapshotWorker(store, clock, Chance(), HOUR_MS)
    clock.us += HOUR_US // 2
    with pytest.raises(StorageFailed, match="snapshot could not be made"):
        await worker.work()
    snapshots.unlink()
    await worker.work()
    assert len(names(snapshots)) == 1
    await store.close()


async def test_a_snapshot_on_another_disk_is_a_whole_copy(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        store = await opened(tmp_path / "meta", disk / "snapshots")
        await store.commit([(KEY, VALUE)])
        await store.flush()
        await store.commit([(KEY + b"2", VALUE)])
        path = await store.snapshot("one")
        assert path == str(disk / "snapshots" / "one")
        assert store.status().segments == 1
        await store.close()
        restore_snapshot(LocalFiles(), path, str(tmp_path / "restored"), b"r" * 16)
        restored = await opened(tmp_path / "restored", disk / "none")
        assert (restored.get(KEY), restored.get(KEY + b"2")) == (VALUE, VALUE)
        await restored.close()


async def test_strangers_in_the_directory_stay(tmp_path: Path) -> None:
    """It may be anybody's; what a crash left of a snapshot goes."""
    snapshots = tmp_path / "elsewhere"
    (snapshots / "0-photos").mkdir(parents=True)
    (snapshots / "0-photos" / "cat.jpeg").write_text("miaow")
    (snapshots / "1-empty").mkdir()
    (snapshots / "notes").write_text("")
    (snapshots / "2-half").mkdir()
    (snapshots / "2-half" / "log-0000000000000002").write_text("")
    (snapshots / "2-half" / "manifest.new").write_text("")
    store = await opened(tmp_path / "meta", snapshots)
    for name in ("a", "b", "c"):
        await store.snapshot(name)
    await store.prune_snapshots(2)
    assert names(snapshots) == ["0-photos", "1-empty", "b", "c", "notes"]
    await store.prune_snapshots(0)
    assert names(snapshots) == ["0-photos", "1-empty", "notes"]
    assert (snapshots / "0-photos" / "cat.jpeg").read_text() == "miaow"
    await store.close()
