"""The data directories of a node: opened only when each is plainly the right one.

Markers and placement are decided by `core/block/{markers,placement}.py`; here they are read,
written and kept. After opening, a `BlockDirectory` is what the block store writes into: it knows
whether it may be written to, how much room it must leave, and which folders are durable.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from garage_lite.core.block.frame import LEAVES, folder_path, leaf_path
from garage_lite.core.block.markers import (
    MARKER_NAME,
    DataDirectory,
    Decision,
    Found,
    decode_remembered,
    encode_remembered,
    made,
    marker_text,
    recognise,
    remember,
)
from garage_lite.core.block.placement import ID_BYTES, Placement, Share, place
from garage_lite.core.disk.durable_directory import make_durably
from garage_lite.core.errors import DataDirError
from garage_lite.core.limits import GIB
from garage_lite.core.ports import Entropy, Files, OpenMode

TEMPORARY: Final = "tmp"
RESERVE_BYTES_MAX: Final = GIB
RESERVE_PART: Final = 100
"""One part in so many of the file system stays free, up to the above."""
_REMEMBERED = "data_directories"
_PLACEMENT = "data_placement"
T = TypeVar("T")
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


class SmallState(Protocol):
    """Small named values of this node, kept in its metadata."""

    def get(self, name: str) -> bytes | None: ...

    async def set(self, name: str, value: bytes | None) -> None:
        """Durable on return; None forgets the name."""
        ...


class BlockDirectory:
    """One open data directory. Its methods block; they may be called from several threads."""

    def __init__(self, files: Files, id: bytes, directory: DataDirectory, reserve: int) -> None:
        self.id = id
        self.path = directory.path
        self.read_only = directory.read_only
        self.capacity = directory.capacity
        self.reserve_bytes = reserve
        self.failed: str | None = None
        """Why it takes no more blocks until the node restarts."""
        self._files = files
        self._durable_leaves = bytearray(LEAVES)

    @property
    def writable(self) -> bool:
        return not self.read_only and self.failed is None

    @property
    def temporary_path(self) -> str:
        return f"{self.path}/{TEMPORARY}"

    def mounted(self) -> bool:
        """Whether its marker is still there; a disk may go while the node runs."""
        return self._files.exists(f"{self.path}/{MARKER_NAME}")

    def has_room(self, size: int) -> bool:
        return self._files.free_bytes(self.path) >= self.reserve_bytes + size

    def make_leaf(self, leaf: int) -> None:
        """Make sure that a leaf folder is there."""
        if not self._durable_leaves[leaf]:
            self._files.make_directory(leaf_path(self.path, leaf))

    def unsynced_parents(self, leaf: int) -> list[str]:
        """The directories to sync so that a leaf folder itself stays."""
        if self._durable_leaves[leaf]:
            return []
        return [folder_path(self.path, leaf), self.path]

    def leaf_is_durable(self, leaf: int, durable: bool = True) -> None:
        self._durable_leaves[leaf] = durable


async def open_directories(
    files: Files,
    wanted: Sequence[DataDirectory],
    state: SmallState,
    entropy: Entropy,
    node: str,
    reserve_bytes: int | None,
) -> tuple[list[BlockDirectory], Placement]:
    """Open, or make, the configured directories. Raises DataDirError in plain words.

    First what is decided becomes durable, then the markers are written, then they are noted as
    made: a crash in between is taken up by the next start.
    """
    wanted = [DataDirectory(d.path.rstrip("/") or "/", d.capacity, d.read_only) for d in wanted]
    before = decode_remembered(state.get(_REMEMBERED))
    found = [_look(files, directory) for directory in wanted]
    decisions = recognise(wanted, found, before, lambda: entropy.token(ID_BYTES))
    now = remember(decisions, before)
    if now != before:
        await state.set(_REMEMBERED, encode_remembered(now))
    for decision in decisions:
        _prepare(files, decision, node)
    if made(now) != now:
        await state.set(_REMEMBERED, encode_remembered(made(now)))
    placement = await _placed(decisions, state)
    directories = [
        BlockDirectory(files, d.id, d.directory, _reserve(files, d.directory.path, reserve_bytes))
        for d in decisions
    ]
    return directories, placement


async def _placed(decisions: Sequence[Decision], state: SmallState) -> Placement:
    shares = [
        Share(d.id, 0 if d.directory.read_only else d.directory.capacity or 1) for d in decisions
    ]
    stored = state.get(_PLACEMENT)
    present = Placement.decode(stored) if stored is not None else None
    try:
        placement = place(shares, present)
    except ValueError as error:
        raise DataDirError(f"data_dir: {error}") from error
    if placement != present:
        await keep_placement(state, placement)
    return placement


async def keep_placement(state: SmallState, placement: Placement) -> None:
    await state.set(_PLACEMENT, placement.encode())


def _reserve(files: Files, path: str, configured: int | None) -> int:
    if configured is not None:
        return configured
    return min(RESERVE_BYTES_MAX, files.total_bytes(path) // RESERVE_PART)


def _look(files: Files, directory: DataDirectory) -> Found:
    path = directory.path
    marker = f"{path}/{MARKER_NAME}"

    def look() -> Found:
        if not files.exists(path):
            return Found(False, None)
        if not files.exists(marker):
            return Found(True, None)
        file = files.open(marker, OpenMode.READ)
        try:
            text = file.read_at(0, 4096).decode("utf-8", "replace")
        finally:
            file.close()
        return Found(True, text)

    return _plainly(path, "read", look)


def _prepare(files: Files, decision: Decision, node: str) -> None:
    """Make what is new, prove that it can be written to, remove what a crash left behind."""
    path = decision.directory.path
    if decision.directory.read_only:
        return

    def prepare() -> None:
        if decision.new:
            make_durably(files, path)
            _write_marker(files, decision, node)
        temporary = f"{path}/{TEMPORARY}"
        files.make_directory(temporary)
        for name in files.names(temporary):
            files.remove(f"{temporary}/{name}")
        _probe(files, f"{temporary}/probe")

    _plainly(path, "written to", prepare)


def _probe(files: Files, path: str) -> None:
    """Make and remove a file. A full disk passes: its blocks can still be read and deleted."""
    try:
        files.open(path, OpenMode.CREATE).close()
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
    else:
        files.remove(path)


def _write_marker(files: Files, decision: Decision, node: str) -> None:
    path = decision.directory.path
    temporary = f"{path}/{MARKER_NAME}.new"
    if files.exists(temporary):
        files.remove(temporary)
    file = files.open(temporary, OpenMode.CREATE)
    try:
        file.write_at(0, [marker_text(decision.id, node).encode()])
        file.sync()
    finally:
        file.close()
    files.rename(temporary, f"{path}/{MARKER_NAME}")
    files.sync_directory(path)


def _plainly(path: str, verb: str, action: Callable[[], T]) -> T:
    """Run `action`; an OSError becomes a DataDirError that says what to do."""
    try:
        return action()
    except OSError as error:
        if error.errno in _NOT_ALLOWED:
            advice = (
                "give the user who runs the node that right, or mark the directory read_only"
                if verb == "written to"
                else "give the user who runs the node that right"
            )
        elif error.errno == errno.ENOSPC:
            advice = "its disk is full: make some room"
        else:
            advice = "check its disk"
        raise DataDirError(f"{path} can't be {verb} ({error.strerror}): {advice}") from error
