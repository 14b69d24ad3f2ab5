"""Cuts a stream of chunks into blocks without copying them.

A block is a list of parts: the chunks as they came, cut (as views) where a block ends. Small
chunks are gathered, so that a client that drips single bytes does not cost an object a byte and
digests see long parts (below 2 KiB they would not let other threads run). Knows nothing of what
becomes of a block.
"""

from __future__ import annotations

from typing import Final

from garage_lite.core.ports import Buffer

SMALL_BYTES: Final = 64 * 1024
"""Chunks below this are gathered into parts of at least this."""


class Chunker:
    """Feed it chunks; take blocks of `block_bytes`, and shorter ones when asked to cut."""

    __slots__ = ("_block_bytes", "_gathered", "_parts", "held")

    def __init__(self, block_bytes: int) -> None:
        self._block_bytes = block_bytes
        self._parts: list[Buffer] = []
        self._gathered = bytearray()
        self.held = 0
        """Bytes of the unfinished block; below `block_bytes` after each call."""

    def feed(self, chunk: Buffer) -> list[list[Buffer]]:
        """Take the next bytes; returns the blocks that are full now, in order."""
        blocks: list[list[Buffer]] = []
        rest = chunk
        while self.held + len(rest) >= self._block_bytes:
            room = self._block_bytes - self.held
            whole = memoryview(rest)
            self._take(whole[:room] if room < len(rest) else rest)
            rest = whole[room:]
            blocks.append(self.cut())
        if len(rest):
            self._take(rest)
        return blocks

    def cut(self) -> list[Buffer]:
        """End the block here; empty if nothing is held."""
        self._close_gathered()
        parts, self._parts, self.held = self._parts, [], 0
        return parts

    def _take(self, part: Buffer) -> None:
        self.held += len(part)
        if len(part) >= SMALL_BYTES:
            self._close_gathered()
            self._parts.append(part)
            return
        self._gathered += part
        if len(self._gathered) >= SMALL_BYTES:
            self._close_gathered()

    def _close_gathered(self) -> None:
        if self._gathered:
            self._parts.append(self._gathered)
            self._gathered = bytearray()
