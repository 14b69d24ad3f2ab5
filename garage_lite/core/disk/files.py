"""The real Files: thin, blocking calls to the operating system, nothing retried.

It knows no format. Everything durable in a node goes through here, so that the simulated one
in the tests sees each call that a disk can lose, tear or refuse.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Sequence
from typing import Final

from garage_lite.core.limits import KIB, MIB
from garage_lite.core.ports import Buffer, OpenMode

PAGE_BYTES: Final = 4 * KIB
_BUFFERS_MAX: Final = 512
"""Buffers handed to one pwritev; the kernel takes 1024."""
_JOURNAL_BUFFER_BYTES: Final = MIB
_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)

_FLAGS: Final = {
    OpenMode.READ: os.O_RDONLY,
    OpenMode.CREATE: os.O_RDWR | os.O_CREAT | os.O_EXCL,
    OpenMode.UPDATE: os.O_RDWR,
}


def _write_all(descriptor: int, offset: int, buffers: Sequence[Buffer]) -> None:
    for start in range(0, len(buffers), _BUFFERS_MAX):
        waiting = [memoryview(b).cast("B") for b in buffers[start : start + _BUFFERS_MAX] if b]
        while waiting:
            written = os.pwritev(descriptor, waiting, offset)
            if written == 0:
                raise OSError(errno.EIO, "nothing was written")
            offset += written
            while waiting and written >= len(waiting[0]):
                written -= len(waiting.pop(0))
            if written:
                waiting[0] = waiting[0][written:]


class LocalFile:
    """A file by its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        missing = length - len(data)
        while missing:
            data = os.pread(self._descriptor, missing, offset + length - missing)
            if not data:
                break
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        _write_all(self._descriptor, offset, buffers)

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def map(self) -> memoryview:
        if self.size() == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(self._descriptor, 0, prot=mmap.PROT_READ))

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


class JournalFile(LocalFile):
    """Every write is durable on return: O_DSYNC, past the page cache where that works.

    O_DIRECT wants aligned memory, so writes are gathered in a mapped buffer; a file system that
    refuses it (some only at the first write) is written through the page cache instead.
    """

    def __init__(self, descriptor: int, direct: bool) -> None:
        super().__init__(descriptor)
        self._direct = direct
        self._buffer = mmap.mmap(-1, _JOURNAL_BUFFER_BYTES)

    def read_at(self, offset: int, length: int) -> bytes:
        start = offset - offset % PAGE_BYTES
        room = -(-(offset + length - start) // PAGE_BYTES) * PAGE_BYTES
        with mmap.mmap(-1, max(room, PAGE_BYTES)) as pages:
            count = os.preadv(self._descriptor, [pages], start)
            return pages[offset - start : max(offset - start, min(count, offset - start + length))]

    def write_at(self, offset: int, buffers: Sequence[Buffer]) -> None:
        data = memoryview(b"".join(buffers))
        if offset % PAGE_BYTES or len(data) % PAGE_BYTES:
            raise ValueError("a journal is written in whole pages")
        for start in range(0, len(data), _JOURNAL_BUFFER_BYTES):
            piece = data[start : start + _JOURNAL_BUFFER_BYTES]
            self._buffer[: len(piece)] = piece
            self._write_pages(offset + start, len(piece))

    def _write_pages(self, offset: int, length: int) -> None:
        with memoryview(self._buffer) as whole, whole[:length] as pages:
            try:
                _write_all(self._descriptor, offset, [pages])
            except OSError as error:
                if error.errno != errno.EINVAL or not self._direct:
                    raise
                self._leave_direct()
                _write_all(self._descriptor, offset, [pages])

    def _leave_direct(self) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
        self._direct = False

    def close(self) -> None:
        super().close()
        self._buffer.close()


def _open_journal(path: str) -> JournalFile:
    flags = os.O_RDWR | os.O_DSYNC | os.O_CLOEXEC
    try:
        return JournalFile(os.open(path, flags | _DIRECT), direct=bool(_DIRECT))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return JournalFile(os.open(path, flags), direct=False)


class LocalFiles:
    """The file system of this machine."""

    def open(self, path: str, mode: OpenMode) -> LocalFile:
        if mode is OpenMode.JOURNAL:
            return _open_journal(path)
        return LocalFile(os.open(path, _FLAGS[mode] | os.O_CLOEXEC, 0o600))

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def file_size(self, path: str) -> int:
        return os.stat(path).st_size

    def names(self, directory: str) -> list[str]:
        with os.scandir(directory) as entries:
            return sorted(e.name + "/" if e.is_dir() else e.name for e in entries)

    def make_directory(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def remove_directory(self, path: str) -> None:
        os.rmdir(path)

    def sync_directory(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, path: str) -> int:
        figures = os.statvfs(path)
        return figures.f_bavail * figures.f_frsize

    def total_bytes(self, path: str) -> int:
        figures = os.statvfs(path)
        return figures.f_blocks * figures.f_frsize
