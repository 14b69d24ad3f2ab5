"""A disk in memory that knows what is durable and what is only remembered.

It is a state machine over a journal of operations, so any moment of a run can be made again and
cut there. What a cut leaves:
  - of content written and not synced, any 512-byte sectors: none, all, some, in no order;
  - of names made, moved or removed and whose directory was not synced, any of those changes,
    each kept or lost by itself. A rename is one change; between two directories it may leave
    both names, never neither.
"""

from __future__ import annotations

import copy
import errno
import random
from dataclasses import dataclass, field
from typing import Any, Final

SECTOR_BYTES: Final = 512
Operation = tuple[str, tuple[Any, ...]]


@dataclass
class Inode:
    number: int
    content: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)
    """Since the last sync: (offset, data) written, or a size truncated to."""


Names = dict[str, "Inode | Directory | None"]


@dataclass(eq=False)
class Change:
    """Names that appear or (None) vanish together."""

    names: Names
    only_after: tuple[Directory, Change] | None = None
    """A move's other half: this one is never durable without it."""


@dataclass(eq=False)
class Directory:
    entries: dict[str, Inode | Directory] = field(default_factory=dict)
    durable: dict[str, Inode | Directory] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def change(
        self, names: Names, only_after: tuple[Directory, Change] | None = None
    ) -> tuple[Directory, Change]:
        _apply_names(self.entries, names)
        change = Change(names, only_after)
        self.pending.append(change)
        return self, change

    def make_durable(self, change: Change) -> None:
        if change in self.pending:
            self.pending.remove(change)
            _apply_names(self.durable, change.names)


def _apply_names(entries: dict[str, Inode | Directory], changes: Names) -> None:
    for name, node in changes.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def _apply_write(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _apply_truncate(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


class Disk:
    """Apply operations; look at the result; cut the power."""

    def __init__(self) -> None:
        self.root = Directory()
        self.inodes: dict[int, Inode] = {}
        self._next = 1

    # --- looking

    def node(self, path: str) -> Inode | Directory:
        found: Inode | Directory = self.root
        for name in path.strip("/").split("/"):
            if not name:
                continue
            if not isinstance(found, Directory):
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
            if name not in found.entries:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            found = found.entries[name]
        return found

    def directory(self, path: str) -> Directory:
        found = self.node(path)
        if not isinstance(found, Directory):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
        return found

    def file(self, path: str) -> Inode:
        found = self.node(path)
        if not isinstance(found, Inode):
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        return found

    def place(self, path: str) -> tuple[Directory, str]:
        parent, _, name = path.rstrip("/").rpartition("/")
        return self.directory(parent), name

    def paths(self, prefix: str = "", within: Directory | None = None) -> dict[str, Inode]:
        """All files by path."""
        found: dict[str, Inode] = {}
        for name, node in (within or self.root).entries.items():
            if isinstance(node, Inode):
                found[f"{prefix}/{name}"] = node
            else:
                found.update(self.paths(f"{prefix}/{name}", node))
        return found

    # --- operations; each has been checked to be possible

    def apply(self, operation: Operation) -> Any:
        name, arguments = operation
        return getattr(self, "do_" + name)(*arguments)

    def do_create(self, path: str) -> Inode:
        parent, name = self.place(path)
        inode = Inode(self._next)
        self._next += 1
        self.inodes[inode.number] = inode
        parent.change({name: inode})
        return inode

    def do_make_directory(self, path: str) -> None:
        parent, name = self.place(path)
        parent.change({name: Directory()})

    def do_write(self, number: int, offset: int, data: bytes) -> None:
        inode = self.inodes[number]
        _apply_write(inode.content, offset, data)
        inode.pending.append((offset, data))

    def do_truncate(self, number: int, size: int) -> None:
        inode = self.inodes[number]
        _apply_truncate(inode.content, size)
        inode.pending.append(size)

    def do_sync(self, number: int) -> None:
        inode = self.inodes[number]
        content = bytearray(inode.durable)
        _apply_sectors(content, inode.pending, None)
        inode.durable = bytes(content)
        inode.pending.clear()

    def do_lose(self, number: int) -> None:
        """A sync failed: what was pending is marked clean and never reaches the disk."""
        self.inodes[number].pending.clear()

    def do_rename(self, source: str, target: str) -> None:
        (old_parent, old), (new_parent, new) = self.place(source), self.place(target)
        node = old_parent.entries[old]
        if old_parent is new_parent:
            old_parent.change({old: None, new: node})
        else:
            appears = new_parent.change({new: node})
            old_parent.change({old: None}, only_after=appears)

    def do_link(self, source: str, target: str) -> None:
        parent, name = self.place(target)
        parent.change({name: self.file(source)})

    def do_remove(self, path: str) -> None:
        parent, name = self.place(path)
        parent.change({name: None})

    def do_sync_directory(self, path: str) -> None:
        directory = self.directory(path)
        for change in list(directory.pending):
            if change.only_after is not None:
                other, first = change.only_after
                other.make_durable(first)
            directory.make_durable(change)

    def do_mark(self, _: Any) -> None:
        """Nothing happens to the disk."""

    # --- the power is cut

    def copy(self) -> Disk:
        return copy.deepcopy(self)

    def cut(self, chance: random.Random | None, keep: float) -> Disk:
        """What is on the disk when it comes back: each unsynced sector and name change is kept
        with probability `keep` (0: all lost, 1: all kept)."""
        after = Disk()
        after._next = self._next
        made: dict[int, Inode] = {}
        decided: dict[Change, bool] = {}
        after.root = self._cut_directory(self.root, chance, keep, made, decided)
        after.inodes = made
        return after

    def _cut_directory(
        self,
        directory: Directory,
        chance: random.Random | None,
        keep: float,
        made: dict[int, Inode],
        decided: dict[Change, bool],
    ) -> Directory:
        def is_kept(change: Change) -> bool:
            if change not in decided:
                decided[change] = _kept(chance, keep)
            return decided[change]

        names = dict(directory.durable)
        for change in directory.pending:
            first = change.only_after
            if is_kept(change) and (
                first is None or first[1] not in first[0].pending or is_kept(first[1])
            ):
                _apply_names(names, change.names)
        entries: dict[str, Inode | Directory] = {}
        for name, node in names.items():
            if isinstance(node, Directory):
                entries[name] = self._cut_directory(node, chance, keep, made, decided)
            else:
                if node.number not in made:
                    content = bytearray(node.durable)
                    if keep > 0:
                        _apply_sectors(content, node.pending, chance, keep)
                    after = bytes(content)
                    made[node.number] = Inode(node.number, bytearray(after), after)
                entries[name] = made[node.number]
        return Directory(entries, dict(entries))


def _kept(chance: random.Random | None, keep: float) -> bool:
    return keep >= 1 or (keep > 0 and chance is not None and chance.random() < keep)


def _apply_sectors(
    content: bytearray,
    pending: list[tuple[int, bytes] | int],
    chance: random.Random | None,
    keep: float = 1,
) -> None:
    """Lay pending writes over `content`, sector by sector as chance has it."""
    for change in pending:
        if isinstance(change, int):
            if _kept(chance, keep):
                _apply_truncate(content, change)
            continue
        offset, data = change
        if keep >= 1:
            _apply_write(content, offset, data)
            continue
        start = 0
        while start < len(data):
            stop = min(len(data), start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES)
            if _kept(chance, keep):
                _apply_write(content, offset + start, data[start:stop])
            start = stop
