"""Faults put into the engine on purpose: the crash test must see each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from garage_lite.core.disk import (
    group_commit,
    metadata_recovery,
    metadata_tiers,
)
from garage_lite.core.errors import NodeError
from garage_lite.core.metalog import record
from garage_lite.core.metalog.manifest import Manifest
from garage_lite.core.ports import Buffer
from tests.core.disk.test_metadata_crash import crash_states
from tests.sim.files import SimFile, SimFiles


def sync_nothing_of(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SimFile.sync

    def sync(self: SimFile) -> None:
        if f"/{prefix}" not in self._path:
            whole(self)

    monkeypatch.setattr(SimFile, "sync", sync)


def mutate_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are written but not synced."""
    whole = group_commit.LogFiles.__init__

    def careless(self: group_commit.LogFiles, *args: Any, **options: Any) -> None:
        whole(self, *args, **{**options, "durable": False})

    monkeypatch.setattr(group_commit.LogFiles, "__init__", careless)


def mutate_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments are not synced before the manifest names them."""
    sync_nothing_of("segment-", monkeypatch)


def mutate_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest is renamed into place before its content is durable."""
    sync_nothing_of("manifest", monkeypatch)


def mutate_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are never made durable."""
    monkeypatch.setattr(SimFiles, "sync_directory", lambda self, path: None)


def mutate_recycling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log files are recycled before the manifest is durable."""

    def write(self: metadata_tiers.Tiers, manifest: Manifest, then: Callable[[], None]) -> None:
        then()
        metadata_recovery.write_manifest(self.files, self.directory, manifest)

    monkeypatch.setattr(metadata_tiers.Tiers, "_write", write)


def mutate_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier use of a file left is taken for its own."""
    whole = record.read_record

    def read_any(data: Buffer, offset: int, use: int) -> record.Record | None:
        if offset + record.HEADER_BYTES > len(data):
            return None
        return whole(
            data, offset, int.from_bytes(memoryview(data)[offset + 8 : offset + 16], "little")
        )

    monkeypatch.setattr(record, "read_record", read_any)


def mutate_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replayed range drop spares the segments."""
    monkeypatch.setattr(metadata_recovery, "with_drop", lambda segments, dropped: segments)


@pytest.mark.parametrize(
    "mutate",
    [
        mutate_journal,
        mutate_segments,
        mutate_manifest,
        mutate_directories,
        mutate_recycling,
        mutate_use,
        mutate_drops,
    ],
)
def test_a_seeded_fault_is_seen(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    with pytest.raises((AssertionError, NodeError, OSError)):
        for seed in range(3):
            crash_states(seed, 120, 2)
