"""Opening a metadata directory: read the manifest, replay the log, remove what is garbage.

Blocking; runs in an executor before the store exists.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from garage_lite.core.disk.durable_directory import make_durably
from garage_lite.core.disk.group_commit import (
    DAMAGED_SUFFIX,
    LOG_PREFIX,
    SPARE_PREFIX,
    number_of,
    numbered,
)
from garage_lite.core.disk.segment_files import SEGMENT_PREFIX, OpenSegment
from garage_lite.core.errors import DataDirError, StorageFailed
from garage_lite.core.metalog.compaction import with_drop
from garage_lite.core.metalog.manifest import Manifest, decode_manifest, encode_manifest
from garage_lite.core.metalog.memtable import ROW_OVERHEAD_BYTES, Memtable
from garage_lite.core.metalog.record import DROP, LogReader
from garage_lite.core.ports import Files, OpenMode

MANIFEST: Final = "manifest"
MANIFEST_NEW: Final = "manifest.new"
SNAPSHOTS: Final = "snapshots"


@dataclass
class Recovered:
    manifest: Manifest
    sequence: int
    """Of the newest record found."""
    next_number: int
    memtable: Memtable = field(default_factory=Memtable)
    opened: dict[int, OpenSegment] = field(default_factory=dict)
    closed: list[tuple[int, int]] = field(default_factory=list)
    spares: list[int] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)
    """Of the closed log files, those that could not be read whole."""
    set_aside: list[str] = field(default_factory=list)


def write_manifest(files: Files, directory: str, manifest: Manifest) -> None:
    """Replace the manifest; durable on return."""
    new = f"{directory}/{MANIFEST_NEW}"
    if files.exists(new):
        files.remove(new)
    file = files.open(new, OpenMode.CREATE)
    try:
        file.write_at(0, [encode_manifest(manifest)])
        file.sync()
    finally:
        file.close()
    files.rename(new, f"{directory}/{MANIFEST}")
    files.sync_directory(directory)


def read_whole(files: Files, path: str) -> bytes:
    file = files.open(path, OpenMode.READ)
    try:
        return file.read_at(0, file.size())
    finally:
        file.close()


def recover(files: Files, directory: str, new_id: bytes, log_file_bytes: int) -> Recovered:
    """What the directory holds; an empty or missing one becomes a new store named `new_id`.

    Raises DataDirError when it isn't a metadata directory of ours, StorageFailed when it can't
    be read.
    """
    try:
        manifest = _read_manifest(files, directory, new_id)
        found = Recovered(manifest, manifest.sequence, manifest.next_number)
        names = files.names(directory)
        for prefix in (LOG_PREFIX, SPARE_PREFIX, SEGMENT_PREFIX):
            numbers = [n for name in names if (n := number_of(name, prefix)) is not None]
            found.next_number = max(found.next_number, *[n + 1 for n in numbers], 1)
        _find_spares(files, directory, names, found, log_file_bytes)
        found.set_aside += [name for name in names if name.endswith(DAMAGED_SUFFIX)]
        _replay(files, directory, names, found)
        _remove_garbage(files, directory, names, found)
        for entry in found.manifest.segments:
            found.opened[entry.number] = OpenSegment(files, directory, entry.number)
    except (PermissionError, NotADirectoryError, FileNotFoundError) as error:
        raise DataDirError(f"the metadata directory {directory} can't be used: {error}") from error
    except OSError as error:
        raise StorageFailed(f"the metadata in {directory} can't be read: {error}") from error
    return found


def _read_manifest(files: Files, directory: str, new_id: bytes) -> Manifest:
    path = f"{directory}/{MANIFEST}"
    if files.exists(path):
        return decode_manifest(read_whole(files, path))
    make_durably(files, directory)
    strangers = [n for n in files.names(directory) if n != MANIFEST_NEW]
    if strangers:
        raise DataDirError(
            f"{directory} holds files but no metadata manifest (for example {strangers[0]}): it is"
            " not a metadata directory, or its manifest was lost. Name an empty directory, or"
            " restore a snapshot"
        )
    manifest = Manifest(new_id)
    write_manifest(files, directory, manifest)
    return manifest


def _find_spares(
    files: Files, directory: str, names: list[str], found: Recovered, log_file_bytes: int
) -> None:
    for name in names:
        number = number_of(name, SPARE_PREFIX)
        if number is None:
            continue
        if files.file_size(f"{directory}/{name}") == log_file_bytes:
            found.spares.append(number)
        else:
            files.remove(f"{directory}/{name}")


def _replay(files: Files, directory: str, names: list[str], found: Recovered) -> None:
    uses = [use for name in names if (use := number_of(name, LOG_PREFIX)) is not None]
    damage = list(found.manifest.damage)
    for place, use in enumerate(uses):
        path = numbered(directory, LOG_PREFIX, use)
        reader = LogReader(read_whole(files, path), use)
        last = 0
        for record in reader:
            last = record.sequence
            if last <= found.manifest.sequence:
                continue
            if last > found.sequence + 1 and not reader.damage:
                damage.append(f"{path}: records {found.sequence + 1} to {last - 1} are missing")
                found.damaged.update(uses[max(0, place - 1) : place + 1])
            found.sequence = max(found.sequence, last)
            _apply(found, record.kind, record.rows)
        if reader.damage:
            damage.append(f"{path}: {reader.damage}")
            found.damaged.add(use)
        if last:
            file = files.open(path, OpenMode.UPDATE)
            file.sync()
            file.close()
        found.closed.append((use, last or found.sequence))
    found.manifest = replace(found.manifest, damage=tuple(dict.fromkeys(damage)))


def _apply(found: Recovered, kind: int, rows: list[Any]) -> None:
    if kind == DROP:
        for start, end in rows:
            found.memtable.drop(start, end)
            segments = with_drop(found.manifest.segments, (start, end))
            found.manifest = replace(found.manifest, segments=segments)
        return
    size = sum([len(k) + len(v or b"") + ROW_OVERHEAD_BYTES for k, v in rows])
    found.memtable.update(dict(rows), size)


def _remove_garbage(files: Files, directory: str, names: list[str], found: Recovered) -> None:
    """Segments that no manifest came to name, and snapshots that were not finished."""
    live = {entry.number for entry in found.manifest.segments}
    for name in names:
        number = number_of(name, SEGMENT_PREFIX)
        if (number is not None and number not in live) or name == MANIFEST_NEW:
            files.remove(f"{directory}/{name}")
    if SNAPSHOTS + "/" in names:
        for name in files.names(f"{directory}/{SNAPSHOTS}"):
            snapshot = f"{directory}/{SNAPSHOTS}/{name.rstrip('/')}"
            if name.endswith("/") and not files.exists(f"{snapshot}/{MANIFEST}"):
                remove_snapshot(files, snapshot)


def remove_snapshot(files: Files, path: str) -> None:
    """Remove a snapshot's directory; its manifest first, so that none is left half of one."""
    names = files.names(path)
    for name in sorted(names, key=lambda name: name != MANIFEST):
        files.remove(f"{path}/{name}")
    files.remove_directory(path)
