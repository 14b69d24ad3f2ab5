"""Reading the bytes of a version, block by block.

Pages and part lists are walked lazily and entered where the range begins, so neither the length
of an object nor where a range lies in it costs memory. Two blocks are fetched ahead. A block
counts against the budget of all bodies; while others wait for it, a client that is slow over a
block loses it, and it is read again when he comes back.

    span  a stretch of one block that is wanted, in order
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack
from typing import Final, NamedTuple, Protocol

from garage_lite.core.errors import BlockMissing, StorageFailed, Unavailable
from garage_lite.core.ids import BucketId, DataId
from garage_lite.core.model.objects import Kind, ObjectVersion
from garage_lite.core.model.rowkeys import (
    after_prefix,
    end_of_page,
    inline_row,
    page_row,
    pages_prefix,
    part_list_row,
    part_lists_prefix,
)
from garage_lite.core.model.versions import (
    BlockEntry,
    PartEntry,
    decode_page,
    decode_part_list,
)
from garage_lite.core.store.encryption import OVERHEAD, Cipher, CustomerKey, cipher_for
from garage_lite.core.store.writing import Storage

PIECE_BYTES: Final = 256 * 1024
"""A client is given this much at a time; it is a copy, so that the block itself can go."""
_AHEAD: Final = 3
"""Blocks of one stream that are on their way or being sent: over a link of 200 ms two would not
fill 50 Mbit/s."""


class Span(NamedTuple):
    """The plain bytes [first, last) of a block that begins at `offset` of its data id."""

    data: DataId
    block: BlockEntry
    offset: int
    first: int
    last: int


class _RowsGone(BlockMissing):
    """The version's pages or part lists are not there: it was removed, or they are damaged."""


class PlacedPart(NamedTuple):
    """A part of a multipart version and where it begins in the whole."""

    part: PartEntry
    offset: int


async def parts_of(
    storage: Storage, bucket: BucketId, version: ObjectVersion, start: int = 0
) -> AsyncIterator[PlacedPart]:
    """The parts of a multipart version in order, from the one that holds byte `start` on."""
    first = part_list_row(bucket, version.id, end=start + 1 if start else 0)
    end = after_prefix(part_lists_prefix(bucket, version.id))
    async for keys, values in storage.tables.scan(first, end):
        for key, value in zip(keys, values, strict=True):
            parts = decode_part_list(value)
            offset = end_of_page(key) - sum(part.size for part in parts)
            for part in parts:
                if offset + part.size > start or not start:
                    yield PlacedPart(part, offset)
                offset += part.size


async def pages_of(
    storage: Storage, bucket: BucketId, data: DataId, overhead: int = 0, start: int = 0
) -> AsyncIterator[tuple[int, list[BlockEntry]]]:
    """The pages of a data id in order, each with the plain offset where it begins, from the one
    that holds byte `start` on. `overhead`: what encryption adds to a block."""
    first = page_row(bucket, data, end=start + 1)
    async for keys, values in storage.tables.scan(first, after_prefix(pages_prefix(bucket, data))):
        for key, value in zip(keys, values, strict=True):
            blocks = decode_page(value)
            length = sum(block.size for block in blocks) - overhead * len(blocks)
            yield end_of_page(key) - length, blocks


async def _pages_here(
    storage: Storage, bucket: BucketId, data: DataId, overhead: int, start: int
) -> AsyncIterator[tuple[int, list[BlockEntry]]]:
    """As `pages_of`, of those pages that are on this node; ends before the first that is not.

    A page never changes while its version lives, and that it lives is known already: a page that
    is here needs no other node's word.
    """
    reached = start
    first = page_row(bucket, data, end=start + 1)
    view = storage.tables.durable()
    for keys, values in view.scan(first, after_prefix(pages_prefix(bucket, data))):
        for key, value in zip(keys, values, strict=True):
            blocks = decode_page(value) if value else []
            offset = end_of_page(key) - sum(block.size - overhead for block in blocks)
            if offset > reached or not blocks:
                return
            yield offset, blocks
            reached = end_of_page(key)


async def _data_spans(
    storage: Storage, bucket: BucketId, data: DataId, overhead: int, start: int, end: int
) -> AsyncIterator[Span]:
    reached = start
    for pages in (_pages_here, pages_of):
        async for offset, blocks in pages(storage, bucket, data, overhead, reached):
            for block in blocks:
                last = offset + block.size - overhead
                if offset > reached:
                    raise _RowsGone("a page of the object's block list is missing")
                if last > reached:
                    yield Span(data, block, offset, reached - offset, min(end, last) - offset)
                    reached = min(end, last)
                if reached >= end:
                    return
                offset = last
    raise _RowsGone("the object's block list ends early")


async def _spans(
    storage: Storage, bucket: BucketId, version: ObjectVersion, start: int, end: int
) -> AsyncGenerator[Span, None]:
    """The stretches of blocks that make up the plain bytes [start, end) of a version."""
    overhead = OVERHEAD if version.meta.encryption else 0
    if version.kind is Kind.BLOCKS:
        data = DataId(version.id)
        async for span in _data_spans(storage, bucket, data, overhead, start, end):
            yield span
        return
    reached = start
    async for part, offset in parts_of(storage, bucket, version, start):
        last = min(end, offset + part.size)
        if last > reached:
            begin = reached - offset
            async for span in _data_spans(
                storage, bucket, part.data, overhead, begin, last - offset
            ):
                yield span
            reached = last
        if reached >= end:
            return
    raise _RowsGone("the object's part list ends early")


class _Fetch:
    """One span on its way: its block in memory, or to be got (again)."""

    def __init__(self, storage: Storage, span: Span, cipher: Cipher | None) -> None:
        self._storage = storage
        self._span = span
        self._cipher = cipher
        self._content: memoryview | None = None
        self._hold = storage.budget.hold(self._let_go)
        self._early: asyncio.Task[None] | None = None

    def start_early(self) -> None:
        """Begin to read if there is memory for it now."""
        if self._hold.try_take(self._span.block.size):
            self._early = asyncio.create_task(self._load())
            self._early.add_done_callback(_noticed)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        position, last = self._span.first, self._span.last
        while position < last:
            if self._content is None:
                await self._get()
            assert self._content is not None
            piece = bytes(self._content[position : min(last, position + PIECE_BYTES)])
            position += len(piece)
            if position == last:
                self.close()
            yield piece

    async def _get(self) -> None:
        if self._early is not None:
            early, self._early = self._early, None
            await early
            if self._content is not None:
                return
        size = self._span.block.size
        await self._hold.take(size, size)
        await self._load()

    async def _load(self) -> None:
        content = await self._storage.blocks.get(self._span.block.hash)
        if len(content) != self._span.block.size:
            raise StorageFailed("a block's length is not what the object's block list says")
        if self._cipher is not None:
            content = await asyncio.get_running_loop().run_in_executor(
                self._storage.pool, self._cipher.decrypt, content, self._span.offset
            )
        self._content = memoryview(content)

    def _let_go(self) -> None:
        if self._content is not None:
            self._content = None
            self._hold.drop()

    def close(self) -> None:
        if self._early is not None:
            self._early.cancel()
            self._early = None
        self._content = None
        self._hold.close()


def _noticed(task: asyncio.Task[None]) -> None:
    """Nobody may be left to hear of a failure: the client went away."""
    if not task.cancelled():
        task.exception()


class ByteStream(Protocol):
    """Chunks of bytes, to be closed when they are not read to the end."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    async def aclose(self) -> None: ...


class ObjectStream:
    """The bytes [start, end) of a version: an async iterator of chunks, to be closed.

    Raises, in the middle if need be, BlockMissing, BlockCorrupt, StorageFailed: then the answer
    must be broken off, for what was sent is not the object.
    """

    def __init__(
        self,
        storage: Storage,
        bucket: BucketId,
        version: ObjectVersion,
        start: int,
        end: int,
        key: CustomerKey | None,
    ) -> None:
        self._storage = storage
        self._encryption = version.meta.encryption
        self._key = key
        self._lease = ExitStack()
        self._lease.enter_context(storage.leases.hold(version.id))
        self._spans = _spans(storage, bucket, version, start, end)
        self._fetches: deque[_Fetch] = deque()
        self._pieces: AsyncGenerator[bytes, None] | None = None
        self._next: bytes | None = None
        self._left = end - start

    async def begin(self) -> None:
        """Get the first chunk, so that what can't be read is known before anything is sent.

        Raises Unavailable where the version was removed since it was looked up.
        """
        try:
            self._next = await self._advance()
        except _RowsGone as error:
            await self.aclose()
            raise Unavailable("the object just changed; try again") from error
        except BaseException:
            await self.aclose()
            raise

    def __aiter__(self) -> ObjectStream:
        return self

    async def __anext__(self) -> bytes:
        piece, self._next = self._next, None
        try:
            if piece is None:
                piece = await self._advance()
        except BaseException:
            await self.aclose()
            raise
        if piece is None:
            await self.aclose()
            raise StopAsyncIteration
        self._left -= len(piece)
        return piece

    async def aclose(self) -> None:
        """Let go of everything; may be called at any time, more than once."""
        for fetch in self._fetches:
            fetch.close()
        self._fetches.clear()
        self._next = None
        self._left = 0
        self._lease.close()
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            await pieces.aclose()
        await self._spans.aclose()

    async def _advance(self) -> bytes | None:
        while True:
            if self._pieces is not None:
                async for piece in self._pieces:
                    return piece
                self._fetches.popleft().close()
                self._pieces = None
            if self._left <= 0:
                return None
            await self._look_ahead()
            if not self._fetches:
                return None
            self._pieces = self._fetches[0].pieces()

    async def _look_ahead(self) -> None:
        while len(self._fetches) < _AHEAD:
            span = await anext(self._spans, None)
            if span is None:
                return
            cipher = cipher_for(self._encryption, self._key, span.data)
            fetch = _Fetch(self._storage, span, cipher)
            fetch.start_early()
            self._fetches.append(fetch)


async def read_version(
    storage: Storage,
    bucket: BucketId,
    version: ObjectVersion,
    start: int,
    end: int,
    key: CustomerKey | None = None,
) -> ByteStream:
    """A stream of the plain bytes [start, end) of a version; close it if it is not read out.

    The key must fit (`encryption.check_key`). Nothing is left to fail at once when it returns:
    the first chunk is there.
    """
    if version.kind is Kind.INLINE:
        return _Once((await _inline(storage, bucket, version, key))[start:end])
    stream = ObjectStream(storage, bucket, version, start, end, key)
    if start < end:
        await stream.begin()
    else:
        await stream.aclose()
    return stream


async def _inline(
    storage: Storage, bucket: BucketId, version: ObjectVersion, key: CustomerKey | None
) -> bytes:
    content = await storage.tables.get(inline_row(bucket, version.id))
    if content is None:
        raise Unavailable("the object just changed; try again")
    cipher = cipher_for(version.meta.encryption, key, DataId(version.id))
    return content if cipher is None else cipher.decrypt(content, 0)


class _Once:
    """A stream of one chunk, or of none if it is empty."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> _Once:
        return self

    async def __anext__(self) -> bytes:
        content, self._content = self._content, b""
        if not content:
            raise StopAsyncIteration
        return content

    async def aclose(self) -> None:
        self._content = b""
