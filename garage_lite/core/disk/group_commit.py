"""The files of the metadata log, as its one writer thread sees them.

It knows records and files, not rows: what is written is in `metalog/record.py`. All writing
methods block and run one at a time in the writer's executor; `prepare_spare` and `recycle` run
in the background one. What both touch is handed over by single deque operations.

    log-<use>        in use; the greatest use is written to
    spare-<number>   zero-filled or recycled, of full size, waiting for its next use
    log-<use>.damaged    part of it could not be read; kept for whoever wants to look into it
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final

from garage_lite.core.errors import DiskFull
from garage_lite.core.limits import MIB
from garage_lite.core.metalog.record import HEADER_BYTES, PAGE_BYTES, header, padding
from garage_lite.core.ports import Buffer, File, Files, OpenMode

LOG_PREFIX: Final = "log-"
SPARE_PREFIX: Final = "spare-"
DAMAGED_SUFFIX: Final = ".damaged"
SET_ASIDE_MAX: Final = 4
"""Damaged log files that are kept; a dying disk must not fill itself with them."""
SPARES_WANTED: Final = 2
"""One for the next change of file, one in reserve for deletions on a full disk."""
SPARES_MAX: Final = 3

BATCH_BYTES_MAX: Final = MIB
"""Of one write: it is copied once more on its way."""

Entry = tuple[bytes, int]
"""A record's packed rows and its kind."""


def number_of(name: str, prefix: str) -> int | None:
    """The number in a file's name, or None when the name is another's."""
    digits = name[len(prefix) :]
    if not name.startswith(prefix) or len(digits) != 16:
        return None
    try:
        return int(digits, 16)
    except ValueError:
        return None


def numbered(directory: str, prefix: str, number: int) -> str:
    return f"{directory}/{prefix}{number:016x}"


class LogFiles:
    """Writes batches of records, changing to a fresh file when one is full."""

    def __init__(
        self,
        files: Files,
        directory: str,
        *,
        file_bytes: int,
        durable: bool,
        numbers: Iterator[int],
        next_sequence: int,
    ) -> None:
        self._files = files
        self._directory = directory
        self.file_bytes = file_bytes - file_bytes % PAGE_BYTES
        self._durable = durable
        self._numbers = numbers
        self.next_sequence = next_sequence
        self.closed: deque[tuple[int, int]] = deque()
        """(use, last sequence) of the files no longer written to, oldest first."""
        self.spares: deque[int] = deque()
        self.damaged: set[int] = set()
        """Of the closed ones, the uses that could not be read whole."""
        self.set_aside: deque[str] = deque()
        """The names of the damaged files that are kept, oldest first."""
        self._file: File | None = None
        self._use = 0
        self._offset = 0
        self._last = next_sequence - 1

    # --- the writer's thread

    def write(self, entries: Sequence[Entry]) -> int:
        """Make the entries durable, in order. Returns how many are.

        Fewer than all: no file could be made for the rest, the disk is full. Raises OSError when
        a write failed: what of the entries is on disk is then unknown, and nothing may be written
        after them.
        """
        start = 0
        while start < len(entries):
            if self._file is None:
                try:
                    self._begin_file()
                except DiskFull:
                    return start
            count = self._fitting(entries, start)
            if count == 0:
                self._end_file()
                continue
            self._write_batch(entries[start : start + count])
            start += count
        return start

    @property
    def record_bytes_max(self) -> int:
        """The largest packed rows that fit into a file, and into one write."""
        return min(self.file_bytes, BATCH_BYTES_MAX + PAGE_BYTES) - HEADER_BYTES

    def room(self) -> int:
        """Bytes left in the file now written to."""
        return self.file_bytes - self._offset if self._file is not None else 0

    @property
    def position(self) -> tuple[int, int]:
        """The use now written to (0: none yet) and its first byte not yet written."""
        return (self._use, self._offset) if self._file is not None else (0, 0)

    def close(self) -> None:
        if self._file is not None:
            self._end_file()

    def _fitting(self, entries: Sequence[Entry], start: int) -> int:
        room = min(self.file_bytes - self._offset, BATCH_BYTES_MAX + PAGE_BYTES)
        for place in range(start, len(entries)):
            room -= HEADER_BYTES + len(entries[place][0])
            if room < 0:
                return place - start
        return len(entries) - start

    def _write_batch(self, entries: Sequence[Entry]) -> None:
        file = self._file
        assert file is not None
        batch = self._offset // PAGE_BYTES
        sequence = self.next_sequence
        use = self._use
        buffers: list[Buffer] = []
        length = 0
        for payload, kind in entries:
            buffers += (header(payload, use, batch, kind, sequence), payload)
            length += HEADER_BYTES + len(payload)
            sequence += 1
        pad = padding(length)
        buffers.append(pad)
        file.write_at(self._offset, buffers)
        self._offset += length + len(pad)
        self.next_sequence = sequence
        self._last = sequence - 1

    def _begin_file(self) -> None:
        use = next(self._numbers)
        target = numbered(self._directory, LOG_PREFIX, use)
        try:
            spare = numbered(self._directory, SPARE_PREFIX, self.spares.popleft())
            self._files.rename(spare, target)
        except IndexError:
            self._make(target)
        if self._durable:
            self._files.sync_directory(self._directory)
        mode = OpenMode.JOURNAL if self._durable else OpenMode.UPDATE
        self._file = self._files.open(target, mode)
        self._use = use
        self._offset = 0

    def _end_file(self) -> None:
        file, self._file = self._file, None
        self.closed.append((self._use, self._last))
        if file is not None:
            file.close()

    def _make(self, path: str) -> None:
        """A zero-filled file: later writes change no size and no extent, only content."""
        file = self._files.open(path, OpenMode.CREATE)
        try:
            zeros = bytes(min(MIB, self.file_bytes))
            for offset in range(0, self.file_bytes, len(zeros)):
                file.write_at(offset, [zeros[: self.file_bytes - offset]])
            if self._durable:
                file.sync()
        except OSError as error:
            file.close()
            self._files.remove(path)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull from error
            raise
        file.close()

    # --- the background thread

    def prepare_spare(self) -> None:
        """One more spare file. Raises DiskFull, OSError."""
        name = next(self._numbers)
        self._make(numbered(self._directory, SPARE_PREFIX, name))
        self.spares.append(name)

    def recycle(self, sequence: int) -> None:
        """Turn log files that hold nothing above `sequence` into spares, or remove them; damaged
        ones are set aside."""
        while self.closed and self.closed[0][1] <= sequence:
            use, _ = self.closed[0]
            path = numbered(self._directory, LOG_PREFIX, use)
            if use in self.damaged:
                self._set_aside(use, path)
            elif len(self.spares) < SPARES_MAX and self._files.file_size(path) == self.file_bytes:
                self._files.rename(path, numbered(self._directory, SPARE_PREFIX, use))
                self.spares.append(use)
            else:
                self._files.remove(path)
            self.closed.popleft()

    def remove_set_aside(self) -> None:
        while self.set_aside:
            self._files.remove(f"{self._directory}/{self.set_aside[0]}")
            self.set_aside.popleft()

    def _set_aside(self, use: int, path: str) -> None:
        kept = path + DAMAGED_SUFFIX
        self._files.rename(path, kept)
        self.set_aside.append(kept.rpartition("/")[2])
        self.damaged.discard(use)
        while len(self.set_aside) > SET_ASIDE_MAX:
            self._files.remove(f"{self._directory}/{self.set_aside[0]}")
            self.set_aside.popleft()
