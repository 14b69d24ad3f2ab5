"""The doors to the world: Clock, Entropy and Files (Peers joins with the cluster).

Each has a real implementation (`system.py`, `core/disk/files.py`) and a simulated one
(`tests/sim/`); one contract suite (`tests/contracts/`) runs on both. Files is blocking: code on
the event loop calls it through an executor, except for short reads that the page cache serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class Clock(Protocol):
    def now_us(self) -> int:
        """Wall clock, microseconds since 1970-01-01 UTC. May jump."""
        ...

    def monotonic_us(self) -> int:
        """Microseconds since an arbitrary point; never goes back, nor stands still while the
        machine sleeps."""
        ...


class Entropy(Protocol):
    def token(self, length: int) -> bytes:
        """`length` bytes fit for identifiers and secrets."""
        ...


class OpenMode(Enum):
    READ = "read"
    """An existing file, never written to again."""
    CREATE = "create"
    """A new file, read and write; FileExistsError if it is there."""
    UPDATE = "update"
    """An existing file, read and write."""
    JOURNAL = "journal"
    """As UPDATE; every write_at is durable when it returns (O_DSYNC, with O_DIRECT where the
    file system has it: callers write whole aligned 4 KiB pages)."""


class File(Protocol):
    """An open file. Every method may raise OSError; none is retried by callers."""

    def size(self) -> int: ...

    def read_at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; shorter only at the end of the file."""
        ...

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Write the buffers one after another from `offset`: all of them, or OSError."""
        ...

    def sync(self) -> None:
        """Content and size are durable on return (fdatasync)."""
        ...

    def truncate(self, size: int) -> None: ...

    def map(self) -> memoryview:
        """The whole content, read-only, as it is now (mmap)."""
        ...

    def close(self) -> None: ...


class Files(Protocol):
    """A file system. Paths are absolute strings. A new, renamed or removed name is durable only
    after sync_directory of its directory."""

    def open(self, path: str, mode: OpenMode) -> File: ...

    def exists(self, path: str) -> bool: ...

    def file_size(self, path: str) -> int: ...

    def names(self, directory: str) -> list[str]:
        """Names in a directory, sorted; directories end with '/'."""
        ...

    def make_directory(self, path: str) -> None:
        """Make it and its parents (0700); no error if it is there."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomic; replaces the target."""
        ...

    def link(self, source: str, target: str) -> None: ...

    def remove(self, path: str) -> None: ...

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        ...

    def sync_directory(self, path: str) -> None: ...

    def free_bytes(self, path: str) -> int:
        """Bytes an unprivileged writer may still use on the file system of `path`."""
        ...

    def total_bytes(self, path: str) -> int: ...
