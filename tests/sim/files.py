"""The simulated Files: a Disk behind the port, with a journal of all that was done to it.

`fail_nth` makes a call fail, `capacity` makes it full, `rot` flips a bit, `crashes` yields what a
power cut at any moment may leave. `mark` writes into the journal what the test wants to know was
true before a moment, such as an acknowledgement.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from garage_lite.core.ports import Buffer, OpenMode
from tests.sim.disk import Directory, Disk, Inode, Operation

PAGE_BYTES: Final = 4096
Fault = Callable[[str, str], int]
"""(call, path) -> errno, or 0: let it pass."""


@dataclass(frozen=True)
class Crash:
    """One state a power cut may leave."""

    point: int
    """How many operations were done."""
    marks: list[Any]
    """What was marked before."""
    files: SimFiles
    kind: str


class SimFile:
    def __init__(self, files: SimFiles, inode: Inode, path: str, mode: OpenMode) -> None:
        self._files = files
        self._inode = inode
        self._path = path
        self._mode = mode
        self._open = True

    def _check(self, call: str) -> None:
        if not self._open:
            raise OSError(errno.EBADF, "the file is closed", self._path)
        self._files.call(call, self._path)

    def size(self) -> int:
        self._check("size")
        return len(self._inode.content)

    def read_at(self, offset: int, length: int) -> bytes:
        self._check("read")
        return bytes(self._inode.content[offset : offset + length])

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        if self._mode is OpenMode.READ:
            raise OSError(errno.EBADF, "opened for reading", self._path)
        data = b"".join(buffers)
        if self._mode is OpenMode.JOURNAL and (offset % PAGE_BYTES or len(data) % PAGE_BYTES):
            raise ValueError("a journal is written in whole pages")
        number = self._inode.number
        try:
            self._check("write")
        except OSError:
            self._files.do("write", number, offset, data[: len(data) // 2])
            raise
        self._files.grow(max(0, offset + len(data) - len(self._inode.content)), self._path)
        self._files.do("write", number, offset, data)
        if self._mode is OpenMode.JOURNAL:
            self._files.do("sync", number)

    def sync(self) -> None:
        try:
            self._check("sync")
        except OSError:
            self._files.do("lose", self._inode.number)
            raise
        self._files.do("sync", self._inode.number)

    def truncate(self, size: int) -> None:
        self._check("truncate")
        self._files.do("truncate", self._inode.number, size)

    def map(self) -> memoryview:
        self._check("map")
        return memoryview(bytes(self._inode.content))

    def close(self) -> None:
        try:
            self._check("close")
        finally:
            self._open = False


class SimFiles:
    """See the module."""

    def __init__(self, disk: Disk | None = None, capacity: int = 1 << 40) -> None:
        self.disk = disk or Disk()
        self.capacity = capacity
        self.journal: list[Operation] = []
        self.calls = 0
        self._base = self.disk.copy()
        self._fault: Fault | None = None

    # --- what the test does

    def mark(self, value: Any) -> None:
        self.do("mark", value)

    def fail_if(self, fault: Fault | None) -> None:
        """Ask `fault` before each call."""
        self._fault = fault

    def fail_nth(self, nth: int, error: int, *, forever: bool = False, only: str = "") -> None:
        """Let the nth call from now on (0: the next; of kind `only`, if given) fail."""
        seen = 0

        def fault(call: str, _: str) -> int:
            nonlocal seen
            if only and call != only:
                return 0
            seen += 1
            return error if seen == nth + 1 or (forever and seen > nth) else 0

        self._fault = fault

    def rot(self, path: str, byte: int, bit: int = 0) -> None:
        """Flip one bit of a file on disk."""
        inode = self.disk.file(path)
        inode.content[byte] ^= 1 << bit
        inode.durable = bytes(inode.content)
        inode.pending.clear()

    def crash(self, chance: random.Random, keep: float = 0.5, point: int | None = None) -> SimFiles:
        """The disk after a power cut now, or after `point` operations."""
        if point is None or point >= len(self.journal):
            return SimFiles(self.disk.cut(chance, keep), self.capacity)
        disk = self._base.copy()
        for operation in self.journal[:point]:
            disk.apply(operation)
        return SimFiles(disk.cut(chance, keep), self.capacity)

    def marks(self, point: int) -> list[Any]:
        return [arguments[0] for name, arguments in self.journal[:point] if name == "mark"]

    def crashes(self, seed: int, variants: int) -> Iterator[Crash]:
        """After every operation: all that is unsynced lost, all kept, and `variants` mixtures."""
        disk = self._base.copy()
        marks: list[Any] = []
        for point, operation in enumerate(self.journal, 1):
            disk.apply(operation)
            if operation[0] == "mark":
                marks.append(operation[1][0])
                continue
            for variant in range(variants + 2):
                chance = random.Random((seed << 40) + (point << 8) + variant)
                keep = (0.0, 1.0)[variant] if variant < 2 else chance.choice((0.1, 0.5, 0.9))
                after = SimFiles(disk.cut(chance, keep), self.capacity)
                yield Crash(point, list(marks), after, f"seed {seed} point {point} keep {keep}")

    def paths(self) -> list[str]:
        return sorted(self.disk.paths())

    # --- what files do

    def call(self, name: str, path: str) -> None:
        self.calls += 1
        if self._fault is not None:
            error = self._fault(name, path)
            if error:
                raise OSError(error, f"injected into {name}", path)

    def do(self, name: str, *arguments: Any) -> Any:
        operation = (name, arguments)
        self.journal.append(operation)
        return self.disk.apply(operation)

    def used_bytes(self) -> int:
        return sum(
            len(i.content) for i in {i.number: i for i in self.disk.paths().values()}.values()
        )

    def grow(self, more: int, path: str) -> None:
        if more and self.capacity < 1 << 40 and self.used_bytes() + more > self.capacity:
            raise OSError(errno.ENOSPC, "no space left", path)

    # --- the port

    def open(self, path: str, mode: OpenMode) -> SimFile:
        self.call("open", path)
        if mode is OpenMode.CREATE:
            parent, name = self.disk.place(path)
            if name in parent.entries:
                raise FileExistsError(errno.EEXIST, "it is there", path)
            return SimFile(self, self.do("create", path), path, mode)
        return SimFile(self, self.disk.file(path), path, mode)

    def exists(self, path: str) -> bool:
        self.call("exists", path)
        try:
            self.disk.node(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def file_size(self, path: str) -> int:
        self.call("file_size", path)
        return len(self.disk.file(path).content)

    def names(self, directory: str) -> list[str]:
        self.call("names", directory)
        entries = self.disk.directory(directory).entries
        return sorted(n + "/" if isinstance(e, Directory) else n for n, e in entries.items())

    def make_directory(self, path: str) -> None:
        self.call("make_directory", path)
        whole = ""
        for name in path.strip("/").split("/"):
            whole += "/" + name
            parent, _ = self.disk.place(whole)
            if name not in parent.entries:
                self.do("make_directory", whole)
            else:
                self.disk.directory(whole)

    def rename(self, source: str, target: str) -> None:
        self.call("rename", source)
        self.disk.node(source)
        self.disk.place(target)
        self.do("rename", source, target)

    def link(self, source: str, target: str) -> None:
        self.call("link", source)
        self.disk.file(source)
        parent, name = self.disk.place(target)
        if name in parent.entries:
            raise FileExistsError(errno.EEXIST, "it is there", target)
        self.do("link", source, target)

    def remove(self, path: str) -> None:
        self.call("remove", path)
        self.disk.file(path)
        self.do("remove", path)

    def remove_directory(self, path: str) -> None:
        self.call("remove_directory", path)
        if self.disk.directory(path).entries:
            raise OSError(errno.ENOTEMPTY, "not empty", path)
        self.do("remove", path)

    def sync_directory(self, path: str) -> None:
        self.call("sync_directory", path)
        self.disk.directory(path)
        self.do("sync_directory", path)

    def free_bytes(self, path: str) -> int:
        self.call("free_bytes", path)
        return max(0, self.capacity - self.used_bytes())

    def total_bytes(self, path: str) -> int:
        self.call("total_bytes", path)
        return self.capacity
