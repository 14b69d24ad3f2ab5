"""Snapshots: segments by hard link, the log by copy, a manifest of their own.

Segments are copied too where they can't be linked: on another file system, or one without links.
A log file is copied because it will be recycled, which would overwrite its link. The manifest
comes last: a directory without one is an unfinished snapshot, and the next start removes it. A
snapshot is itself a metadata directory and opens as one. Blocking.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from garage_lite.core.disk.durable_directory import make_durably
from garage_lite.core.disk.group_commit import LOG_PREFIX, number_of, numbered
from garage_lite.core.disk.metadata_recovery import (
    MANIFEST,
    MANIFEST_NEW,
    read_whole,
    remove_snapshot,
    write_manifest,
)
from garage_lite.core.disk.segment_files import SEGMENT_PREFIX
from garage_lite.core.errors import DataDirError
from garage_lite.core.limits import MIB
from garage_lite.core.metalog.manifest import Manifest, decode_manifest
from garage_lite.core.ports import Files, OpenMode

_COPY_BYTES: Final = MIB
_NO_LINKS: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class LogPart:
    use: int
    length: int | None
    """How many first bytes to copy; None: all."""


def take_snapshot(
    files: Files, source: str, target: str, manifest: Manifest, log: Sequence[LogPart]
) -> None:
    """Make `target` a store with the content of `source` as `manifest` and `log` say; durable on
    return. Raises DataDirError when `target` is there, OSError after removing what was made."""
    if files.exists(target) and files.names(target):
        raise DataDirError(f"{target} is there already")
    make_durably(files, target)
    try:
        for entry in manifest.segments:
            _link(
                files,
                numbered(source, SEGMENT_PREFIX, entry.number),
                numbered(target, SEGMENT_PREFIX, entry.number),
            )
        for part in log:
            path = numbered(source, LOG_PREFIX, part.use)
            _copy(files, path, numbered(target, LOG_PREFIX, part.use), part.length)
        files.sync_directory(target)
        write_manifest(files, target, manifest)
    except OSError:
        remove_snapshot(files, target)
        raise


def prune_snapshots(files: Files, parent: str, keep: int) -> None:
    """Remove the snapshots in a directory but the last `keep` by name, and those that were not
    finished. What else is there (the directory may be anybody's) stays. Raises OSError."""
    finished = []
    for name in files.names(parent):
        path = f"{parent}/{name.removesuffix('/')}"
        if not name.endswith("/"):
            continue
        if files.exists(f"{path}/{MANIFEST}"):
            finished.append(path)
        elif _unfinished(files.names(path)):
            remove_snapshot(files, path)
    for path in finished[: max(0, len(finished) - keep)]:
        remove_snapshot(files, path)


def _unfinished(names: Sequence[str]) -> bool:
    """Whether these are files of a snapshot that has no manifest yet, and no others."""
    return bool(names) and all(
        name == MANIFEST_NEW
        or number_of(name, SEGMENT_PREFIX) is not None
        or number_of(name, LOG_PREFIX) is not None
        for name in names
    )


def restore_snapshot(files: Files, snapshot: str, directory: str, new_id: bytes) -> None:
    """Make `directory`, which must be empty or missing, a store with the content of a snapshot.

    It gets a store id of its own: peers must not take it for the store that went on after the
    snapshot. Raises DataDirError, StorageFailed (damaged manifest), OSError.
    """
    if not files.exists(f"{snapshot}/{MANIFEST}"):
        raise DataDirError(f"{snapshot} is not a metadata snapshot: it has no manifest")
    manifest = decode_manifest(read_whole(files, f"{snapshot}/{MANIFEST}"))
    files.make_directory(directory)
    if files.names(directory):
        raise DataDirError(
            f"{directory} is not empty: move the old metadata away before a snapshot is restored"
        )
    uses = [u for name in files.names(snapshot) if (u := number_of(name, LOG_PREFIX)) is not None]
    log = [LogPart(use, None) for use in uses]
    take_snapshot(files, snapshot, directory, replace(manifest, store_id=new_id), log)


def _link(files: Files, source: str, target: str) -> None:
    try:
        files.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _copy(files, source, target, None)


def _copy(files: Files, source: str, target: str, length: int | None) -> None:
    reader = files.open(source, OpenMode.READ)
    try:
        writer = files.open(target, OpenMode.CREATE)
        try:
            end = reader.size() if length is None else length
            for offset in range(0, end, _COPY_BYTES):
                piece = reader.read_at(offset, min(_COPY_BYTES, end - offset))
                writer.write_at(offset, [piece])
            writer.sync()
        finally:
            writer.close()
    finally:
        reader.close()
