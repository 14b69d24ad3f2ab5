"""A node's blocks as its peers see them: it keeps what they send, gives what they ask for.

    block/put    [layout version, block, compressed, plain bytes, stored bytes, references,
                 background?] and a stream: the block as it is stored         -> nil
    block/refer  [layout version, references]     -> [whether the file is here, ...] in their order
    block/get    [block, background?]             -> stored bytes, and a stream: one byte (1: it is
                                                  a zstd frame, 0: plain), then the block
    block/has    [block, ...]                     -> [whether a file is here, ...]
    block/need   [block, ...]                     -> [Standing, ...]
    block/check  block                            -> nil; the file here is read and verified
    a reference = [block ref's row key, its value, key of the page that names the block | nil]

A block that was received is verified before it is kept, one that is sent before it is sent. The
file is durable before the references that came with it: a reference written here by a put is
never one without its file, which nobody would look for; a file whose references did not make it
is queued to be looked at, and the scrub finds those that a crash leaves. Both are there when a put
is answered.

References usually come beside the page that names their block, not after it: this saves a round
trip. So each is noted in REF_CHECK; see core/workers/ref_check.py for why no crash leaves one
that is never found.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any, Final, NamedTuple

from garage_lite.core.block.frame import StoredBlock, plain_size
from garage_lite.core.block.resync import Standing, resync_rows
from garage_lite.core.cluster.block_store import BlockStore
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Endpoints
from garage_lite.core.cluster.permits import Permits
from garage_lite.core.cluster.rpc import Reply, Request
from garage_lite.core.cluster.throttle import Throttle
from garage_lite.core.errors import (
    BlockCorrupt,
    BlockMissing,
    InvalidArgument,
    NodeError,
    StaleLayout,
    Unavailable,
)
from garage_lite.core.ids import BLOCK_HASH_BYTES, BlockHash
from garage_lite.core.limits import (
    BLOCK_BYTES_MAX,
    KIB,
    MEMORY_BLOCKS_IN,
    MEMORY_BLOCKS_OUT,
    MIB,
    PENDING_LEASE_MS,
)
from garage_lite.core.model.rowkeys import Table, ref_check_row
from garage_lite.core.model.versions import BlockRef
from garage_lite.core.ports import Buffer
from garage_lite.core.table.schema import Change, Update

log = logging.getLogger(__name__)

PUT: Final = "block/put"
REFER: Final = "block/refer"
GET: Final = "block/get"
HAS: Final = "block/has"
NEED: Final = "block/need"
CHECK: Final = "block/check"

STALL_SECONDS: Final = 10.0
"""A stream that does not move for so long is given up, and its memory free again."""
STALL_BACKGROUND_SECONDS: Final = 120.0
"""The same where the other side may hold it to a low rate."""
BACKGROUND_BYTES_MAX: Final = 2 * MIB
"""Of MEMORY_BACKGROUND: blocks being sent or received for resync; so a low rate keeps nobody's
requests waiting."""
PIECE_BYTES: Final = 128 * KIB
STORED_BYTES_MAX: Final = BLOCK_BYTES_MAX + 64 * KIB
REFERENCES_MAX: Final = 1024
BLOCKS_ASKED_MAX: Final = 1024
PUT_AGAIN_US: Final = 60_000_000
"""Who added a reference to a block that is not here puts it again, as a rule; after so long it is
fetched."""
_REF_KEY_BYTES: Final = 2 + BLOCK_HASH_BYTES + 16
_PAGE_KEY_BYTES: Final = 2 + 32 + 16 + 8


class Reference(NamedTuple):
    """A row that keeps a block."""

    key: bytes
    value: bytes
    page: bytes | None = None
    """Key of the page row that is written beside it; None where the page was there before."""

    @property
    def block(self) -> BlockHash:
        return BlockHash(self.key[2 : 2 + BLOCK_HASH_BYTES])


class BlockService:
    """This node's blocks, for itself (direct calls) and for its peers (the endpoints)."""

    def __init__(self, store: BlockStore, layout: ClusterLayout, throttle: Throttle) -> None:
        self._store = store
        self._layout = layout
        self._throttle = throttle
        self.incoming = Permits(MEMORY_BLOCKS_IN)
        self.outgoing = Permits(MEMORY_BLOCKS_OUT)
        self.background = Permits(BACKGROUND_BYTES_MAX)

    def serve(self, endpoints: Endpoints) -> None:
        endpoints.serve(PUT, self._on_put)
        endpoints.serve(REFER, self._on_refer)
        endpoints.serve(GET, self._on_get)
        endpoints.serve(HAS, self._on_has)
        endpoints.serve(NEED, self._on_need)
        endpoints.serve(CHECK, self._on_check)

    # --- keeping

    async def keep(
        self,
        block: BlockHash,
        stored: StoredBlock,
        references: Sequence[Reference],
        *,
        verify: bool,
    ) -> None:
        """The file and the references are durable here on return.

        Raises BlockCorrupt (it is not this block; nothing is stored), DiskFull, StorageFailed.
        """
        await _to_its_end(self._keep(block, stored, references, verify))

    async def _keep(
        self, block: BlockHash, stored: StoredBlock, references: Sequence[Reference], verify: bool
    ) -> None:
        store = self._store
        async with store.locks.hold(block):
            await store.files.put_stored(block, stored, verify=verify)
            try:
                await self._write(self._rows(references))
            except NodeError:
                await store.look_again(block)
                raise
            if not store.facts(block).live:
                # The references are gone before they came: an abort overtook them.
                await store.look_again(block)

    async def refer(self, references: Sequence[Reference]) -> list[bool]:
        """Add references alone: durable on return, with the answer for each whether its block's
        file is here to stay. One that is not is queued to be fetched, if nobody puts it."""
        store = self._store
        now_us = store.tables.clock.now_us()
        rows = self._rows(references)
        for block in {reference.block for reference in references}:
            if not store.files.has(block):
                rows += [Update(*row) for row in resync_rows(block, now_us + PUT_AGAIN_US)]
        await self._write(rows)
        here = {}
        for reference in references:
            # A deletion under way has ended when the lock is ours; a later one counts the rows.
            async with store.locks.hold(reference.block):
                here[reference.block] = store.files.has(reference.block)
        return [here[reference.block] for reference in references]

    def _rows(self, references: Sequence[Reference]) -> list[Change]:
        due_us = self._store.tables.clock.now_us() + PENDING_LEASE_MS * 1000
        rows: list[Change] = []
        for reference in references:
            rows.append(Update(reference.key, reference.value))
            if reference.page is not None:
                rows.append(Update(ref_check_row(due_us, reference.key), reference.page))
        return rows

    async def _write(self, rows: Sequence[Change]) -> None:
        await self._store.replica.apply(rows, self._store.tables.now_ms(), None, False)

    async def _on_put(self, request: Request) -> None:
        match request.payload:
            case [
                int() as version,
                bytes() as name,
                bool() as compressed,
                int() as plain,
                int() as size,
                list() as sent,
                bool() as background,
            ] if request.stream is not None:
                block = _block(name)
                references = _references(sent, block)
            case _:
                raise InvalidArgument("a peer sent what is no block")
        if not (0 <= plain <= BLOCK_BYTES_MAX and 0 <= size <= STORED_BYTES_MAX):
            raise InvalidArgument("a peer sent a block that is too big")
        self._refuse_stale(version)
        permits = self.background if background else self.incoming
        async with permits.hold(plain + size if compressed else size):
            buffers = await self._received(request.stream, size, background)
            stored = StoredBlock(compressed, buffers)
            if plain_size(stored) != plain:
                raise BlockCorrupt(f"block {block.hex()} is not as long as announced")
            self._refuse_stale(version)
            await self.keep(block, stored, references, verify=True)

    async def _received(
        self, stream: AsyncIterator[bytes], size: int, background: bool
    ) -> list[Buffer]:
        """All of a stream of `size` bytes, and no more. Raises Unavailable when it stalls."""
        pieces: list[Buffer] = []
        left = size
        while True:
            try:
                async with asyncio.timeout(_stall_seconds(background)):
                    piece = await anext(stream, None)
            except TimeoutError as error:
                raise Unavailable("a block stopped coming") from error
            if piece is None:
                break
            left -= len(piece)
            if left < 0:
                break
            pieces.append(piece)
            if background:
                await self._throttle.spend(len(piece))
        if left:
            raise BlockCorrupt("a block is not as long as announced")
        return pieces

    async def _on_refer(self, request: Request) -> list[bool]:
        match request.payload:
            case [int() as version, list() as sent]:
                self._refuse_stale(version)
                return await self.refer(_references(sent))
        raise InvalidArgument("a peer sent what are no references")

    def _refuse_stale(self, version: int) -> None:
        if version < self._layout.lookup.ack_floor:
            raise StaleLayout(f"layout version {version} is no longer in use")

    # --- giving

    async def _on_get(self, request: Request) -> Reply:
        match request.payload:
            case [bytes() as name, bool() as background]:
                block = _block(name)
            case _:
                raise InvalidArgument("a peer asked for what is no block")
        size = self._store.files.stored_size(block)
        if size is None:
            await self._store.heal(block)
            raise BlockMissing(f"block {block.hex()} is not on this node")
        return Reply(size, self._content(block, size, background))

    async def _content(self, block: BlockHash, size: int, background: bool) -> AsyncIterator[bytes]:
        """The flag and the verified block. A reader who lets it wait loses it: the memory is for
        those who read."""
        permits = self.background if background else self.outgoing
        async with permits.hold(size):
            stored = await self._store.files.get_stored(block)
            pieces = deque([bytes([stored.compressed]), *cut(stored)])
            del stored
            loop = asyncio.get_running_loop()
            while pieces:
                piece = pieces.popleft()
                if background:
                    await self._throttle.spend(len(piece))
                timer = loop.call_later(_stall_seconds(background), pieces.clear)
                left = len(pieces)
                yield piece
                timer.cancel()
                if len(pieces) != left:
                    raise Unavailable("the block was not read in time")

    async def _on_has(self, request: Request) -> list[bool]:
        return [self._store.files.has(block) for block in _blocks(request.payload)]

    async def _on_need(self, request: Request) -> list[Standing]:
        return [await self._store.standing(block) for block in _blocks(request.payload)]

    async def _on_check(self, request: Request) -> None:
        (block,) = _blocks([request.payload])
        try:
            await self._store.files.get_stored(block)
        except (BlockMissing, BlockCorrupt):
            await self._store.heal(block)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do the whole of it, even for a caller who goes away: a file whose references are left out
    would be forgotten."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                continue
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a block that nobody waits for any more was not kept: %s", error)
        raise


def _stall_seconds(background: bool) -> float:
    return STALL_BACKGROUND_SECONDS if background else STALL_SECONDS


def cut(stored: StoredBlock) -> Iterator[bytes]:
    """A block in pieces small enough to be paced by; copied only where they are cut."""
    for buffer in stored.buffers:
        if isinstance(buffer, bytes) and len(buffer) <= PIECE_BYTES:
            yield buffer
            continue
        view = memoryview(buffer)
        for at in range(0, len(view), PIECE_BYTES):
            yield bytes(view[at : at + PIECE_BYTES])


def _block(name: Any) -> BlockHash:
    if not isinstance(name, bytes) or len(name) != BLOCK_HASH_BYTES:
        raise InvalidArgument("a peer named a block that can't be")
    return BlockHash(name)


def _blocks(sent: Any) -> list[BlockHash]:
    if not isinstance(sent, list) or len(sent) > BLOCKS_ASKED_MAX:
        raise InvalidArgument("a peer asked for too many blocks at once")
    return [_block(name) for name in sent]


def _references(sent: list[Any], block: BlockHash | None = None) -> list[Reference]:
    """References, all of `block` if one is given; nothing else may be written this way."""
    if len(sent) > REFERENCES_MAX:
        raise InvalidArgument("a peer sent too many references at once")
    found = []
    for one in sent:
        match one:
            case [bytes() as key, bytes() as value, (bytes() | None) as page]:
                reference = Reference(key, value, page)
            case _:
                raise InvalidArgument("a peer sent what is no reference")
        fits = len(key) == _REF_KEY_BYTES and key[:2] == bytes((Table.BLOCK_REF, key[2]))
        if not fits or (block is not None and reference.block != block):
            raise InvalidArgument("a peer sent a row that is no reference to its block")
        if page is not None and (len(page) != _PAGE_KEY_BYTES or page[0] != Table.PAGE):
            raise InvalidArgument("a peer named a page that can't be")
        BlockRef.decode(value)
        found.append(reference)
    return found
