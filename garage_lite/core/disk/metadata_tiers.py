"""What is live on disk: the manifest, the open segments, and the one way to change them.

Lives on the event loop's thread; its blocking part runs in the background executor. The order is
the promise: a segment is durable before the manifest names it, the manifest is durable before
what it no longer needs is recycled or removed. A range drop changes only what is in memory: its
record stays in the log until a manifest with the drop is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import Final

from garage_lite.core.disk.metadata_recovery import write_manifest
from garage_lite.core.disk.segment_files import OpenSegment, SegmentSet
from garage_lite.core.metalog.compaction import with_drop
from garage_lite.core.metalog.manifest import Manifest, Range, SegmentEntry
from garage_lite.core.ports import Files

_log: Final = logging.getLogger(__name__)

Entries = tuple[SegmentEntry, ...]


class Tiers:
    """The live segments and their manifest."""

    def __init__(
        self,
        files: Files,
        directory: str,
        manifest: Manifest,
        opened: dict[int, OpenSegment],
        suffix_bytes: Mapping[int, int],
        numbers: Iterator[int],
        pool: Executor,
    ) -> None:
        self.files = files
        self.directory = directory
        self.manifest = manifest
        self.opened = opened
        self.suffix_bytes = suffix_bytes
        self.numbers = numbers
        self.turn = asyncio.Lock()
        """Held while the files on disk change; a snapshot takes it too."""
        self._pool = pool
        self.view = SegmentSet(manifest.segments, opened, suffix_bytes)

    def drop(self, dropped: Range) -> None:
        """Hide the rows of a range from now on; its record is durable."""
        self._publish(replace(self.manifest, segments=with_drop(self.manifest.segments, dropped)))

    def damage(self) -> tuple[str, ...]:
        """All that is known to be damaged, in words."""
        return (*self.manifest.damage, *(s.damage for s in self.opened.values() if s.damage))

    async def change(
        self,
        edit: Callable[[Entries], Entries],
        made: OpenSegment | None,
        sequence: int,
        then: Callable[[], None],
    ) -> None:
        """Make `edit(entries)` the truth, with all records up to `sequence` in segments; run
        `then` in the background once it is durable. Raises OSError: which manifest is on disk is
        then unknown, and no file of either may be touched."""

        def edited() -> Manifest:
            floor = max(sequence, self.manifest.sequence)
            return replace(
                self.manifest,
                sequence=floor,
                next_number=next(self.numbers),
                segments=edit(self.manifest.segments),
            )

        async with self.turn:
            loop = asyncio.get_running_loop()
            if made is not None:
                self.opened[made.number] = made
            manifest = edited()
            await loop.run_in_executor(self._pool, self._write, manifest, then)
            self._publish(edited())  # once more: drops may have come while it was written
            live = {entry.number for entry in self.manifest.segments}
            retired = [self.opened.pop(number).path for number in set(self.opened) - live]
            if retired:
                await loop.run_in_executor(self._pool, self._remove, retired)

    async def forget_damage(self, then: Callable[[], None]) -> None:
        """Write a manifest that remembers no damage, then run `then` in the background.
        Raises OSError: which manifest is on disk is then unknown."""
        async with self.turn:
            loop = asyncio.get_running_loop()
            manifest = replace(self.manifest, damage=(), next_number=next(self.numbers))
            await loop.run_in_executor(self._pool, self._write, manifest, then)
            self._publish(replace(self.manifest, damage=()))

    def _publish(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.view = SegmentSet(manifest.segments, self.opened, self.suffix_bytes)

    def _write(self, manifest: Manifest, then: Callable[[], None]) -> None:
        write_manifest(self.files, self.directory, manifest)
        then()

    def _remove(self, paths: list[str]) -> None:
        for path in paths:
            try:
                self.files.remove(path)
            except OSError as error:
                _log.warning("%s stays until the next start: %s", path, error)
