"""A block, or references to blocks, to all nodes that hold them, until quorums have them.

A block is sent to every owner at once. Once a write quorum of each active version has it (with its
references), the put is done, and slow nodes go on in the background (block_stragglers.py). A node
that was given up, or failed, is told the references alone: it fetches the block itself when it
can. Which nodes hold what is the layout's business; must not know who wants the block kept.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from garage_lite.core.block.frame import StoredBlock, plain_size
from garage_lite.core.cluster.block_service import PUT, REFER, BlockService, Reference, cut
from garage_lite.core.cluster.block_stragglers import Sending, Stragglers
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Cluster, NotConnected
from garage_lite.core.cluster.quorum_calls import Round
from garage_lite.core.cluster.quorum_rows import Stale
from garage_lite.core.cluster.throttle import Throttle
from garage_lite.core.errors import StaleLayout, Unavailable
from garage_lite.core.ids import BlockHash, NodeId, partition_of
from garage_lite.core.layout.lookup import Lookup, NodeSet
from garage_lite.core.quorum import Verdict
from garage_lite.core.wire.outbox import BACKGROUND, BULK, NORMAL

log = logging.getLogger(__name__)

PUT_SECONDS: Final = 60.0
"""The longest that a block may take to a quorum."""
STALL_SECONDS: Final = 10.0
"""A node that takes no byte and gives no answer for so long has failed."""
BACKGROUND_SECONDS: Final = 3600.0
"""The longest that a block may take in the background, where its rate may be low."""
REFER_SECONDS: Final = 10.0
FILES_SECONDS: Final = 2.0
"""How long to wait, once references are at a quorum, for more nodes to say that they have a
file; it is put again otherwise."""
SENDS_PER_NODE: Final = 8
"""Blocks under way to one node at once; each may leave a window of bytes waiting there."""
TOLD_MAX: Final = 256
"""Nodes being told of references to blocks that did not reach them."""


class BlockSender:
    """Sends for one node, which may hold the blocks itself."""

    def __init__(
        self, cluster: Cluster, layout: ClusterLayout, service: BlockService, throttle: Throttle
    ) -> None:
        self._cluster = cluster
        self._layout = layout
        self._service = service
        self._throttle = throttle
        self.stragglers = Stragglers()
        self._turns: dict[NodeId, asyncio.Semaphore] = {}
        self._telling: set[asyncio.Task[Any]] = set()

    async def put(
        self, block: BlockHash, stored: StoredBlock, references: Sequence[Reference]
    ) -> None:
        """A write quorum of the owners has the block and its references on return, and a write
        quorum of each other active version the references.

        Raises QuorumNotReached, DiskFull, Stale, Unavailable; then some may have it.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        with self._layout.writing() as lookup:
            partition = partition_of(block)
            votes = Round(lookup.write_sets(partition, data=True), bool)
            owners = lookup.block_writers(partition)
            sends: dict[Sending, NodeId] = {}
            for node in _nodes(votes.sets):
                sending = Sending()
                sending.task = asyncio.create_task(
                    self._send(sending, lookup, node, block, stored, references)
                    if node in owners
                    else self._refer(lookup, node, references)
                )
                sends[sending] = node
            try:
                async with asyncio.timeout(PUT_SECONDS):
                    await _decided(votes, sends)
            except BaseException as error:
                await _cancelled(sends)
                if isinstance(error, TimeoutError):
                    raise Unavailable("a block was too long on its way") from error
                raise
        for sending, node in sends.items():
            told = partial(self._tell_later, node, references)
            sending.task.add_done_callback(told)
        late = [sending for sending in sends if not sending.is_over]
        if late:
            await self.stragglers.adopt(stored.size, late, patience=loop.time() - start)

    async def push(self, node: NodeId, block: BlockHash, stored: StoredBlock) -> None:
        """Send a block, in the background, to a node that refers to it and lacks it. Raises
        what a call raises."""
        sending = Sending()
        await self._stream(sending, self._layout.lookup, node, block, stored, (), background=True)

    async def refer(self, references: Sequence[Reference]) -> list[BlockHash]:
        """References alone: at a write quorum of each active version on return. Returns the
        blocks that fewer than a write quorum of their owners have. Raises as `put`."""
        with self._layout.writing() as lookup:
            asked = _Referring(lookup, references)
            tasks = {
                asyncio.create_task(self._refer(lookup, node, wanted)): node
                for node, wanted in asked.by_node.items()
            }
            for task in tasks:
                self._keep(task)
            await asked.answers(tasks)
        asked.check()
        return asked.missing()

    async def close(self, seconds: float) -> None:
        """Let what is under way end within `seconds`, then give it up."""
        await self.stragglers.close(seconds)
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    # --- one node

    async def _send(
        self,
        sending: Sending,
        lookup: Lookup,
        node: NodeId,
        block: BlockHash,
        stored: StoredBlock,
        references: Sequence[Reference],
    ) -> Any:
        if node == self._cluster.node:
            await self._service.keep(block, stored, references, verify=False)
            return
        turns = self._turns.setdefault(node, asyncio.Semaphore(SENDS_PER_NODE))
        async with turns:
            await self._stream(sending, lookup, node, block, stored, references, background=False)

    async def _stream(
        self,
        sending: Sending,
        lookup: Lookup,
        node: NodeId,
        block: BlockHash,
        stored: StoredBlock,
        references: Sequence[Reference],
        *,
        background: bool,
    ) -> None:
        """Send a block to a peer. Raises CallTimedOut, too, when nothing moves any more."""
        loop = asyncio.get_running_loop()
        payload = [
            lookup.versions[-1],
            block,
            stored.compressed,
            plain_size(stored),
            stored.size,
            [list(reference) for reference in references],
            background,
        ]
        try:
            async with asyncio.timeout(STALL_SECONDS) as deadline:

                async def pieces() -> AsyncIterator[bytes]:
                    for piece in cut(stored):
                        if background:
                            deadline.reschedule(None)
                            await self._throttle.spend(len(piece))
                        sending.moves()
                        deadline.reschedule(loop.time() + STALL_SECONDS)
                        yield piece

                await self._cluster.call(
                    node,
                    PUT,
                    payload,
                    timeout=BACKGROUND_SECONDS if background else PUT_SECONDS,
                    priority=BACKGROUND if background else BULK,
                    stream=pieces(),
                )
        except TimeoutError as error:
            raise Unavailable("a node stopped taking a block") from error

    async def _refer(
        self, lookup: Lookup, node: NodeId, references: Sequence[Reference]
    ) -> Sequence[bool]:
        if node == self._cluster.node:
            return await self._service.refer(references)
        payload = [lookup.versions[-1], [list(reference) for reference in references]]
        reply = await self._cluster.call(
            node, REFER, payload, timeout=REFER_SECONDS, priority=NORMAL
        )
        return list(reply.payload)

    # --- what goes on by itself

    def _tell_later(
        self, node: NodeId, references: Sequence[Reference], task: asyncio.Task[Any]
    ) -> None:
        """Tell a node that a block did not reach of the references to it."""
        if not task.cancelled():
            error = task.exception()
            if error is None or isinstance(error, NotConnected):
                return
        if references and len(self._telling) < TOLD_MAX:
            lookup = self._layout.lookup
            self._keep(asyncio.create_task(self._refer(lookup, node, references)))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._telling.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[Any]) -> None:
        self._telling.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a node was not told of references to blocks: %s", error)


class _Referring:
    """References on their way to the owners of their blocks, and what those said."""

    def __init__(self, lookup: Lookup, references: Sequence[Reference]) -> None:
        self.by_node: dict[NodeId, list[Reference]] = {}
        self._rows: dict[BlockHash, Round] = {}
        """Whether the references are at their quorums."""
        self._files: dict[BlockHash, Round] = {}
        """Whether the file is at that of the newest version."""
        for reference in references:
            block = reference.block
            if block not in self._rows:
                sets = lookup.write_sets(partition_of(block), data=True)
                self._rows[block] = Round(sets, lambda answer: True)
                self._files[block] = Round(sets[-1:], bool)
            for node in _nodes(self._rows[block].sets):
                self.by_node.setdefault(node, []).append(reference)

    async def answers(self, tasks: Mapping[asyncio.Task[Sequence[bool]], NodeId]) -> None:
        """Until all is decided. Once the rows are, not much longer."""
        loop = asyncio.get_running_loop()
        waiting = set(tasks)
        until = loop.time() + REFER_SECONDS
        rows_done = False
        while waiting and not (rows_done and _are_decided(self._files.values())):
            done, waiting = await asyncio.wait(
                waiting,
                timeout=max(0.0, until - loop.time()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not done:
                return
            for task in done:
                self._take(tasks[task], task)
            if not rows_done and _are_decided(self._rows.values()):
                rows_done = True
                until = min(until, loop.time() + FILES_SECONDS)

    def _take(self, node: NodeId, task: asyncio.Task[Sequence[bool]]) -> None:
        error = _failure(task)
        here = task.result() if error is None else [False] * len(self.by_node[node])
        for reference, present in zip(self.by_node[node], here, strict=True):
            rows, files = self._rows[reference.block], self._files[reference.block]
            if error is None:
                rows.answered(node, True)
                files.answered(node, present)
            else:
                rows.failed(node, error)
                files.failed(node, error)

    def check(self) -> None:
        """Raises what keeps a reference from its quorums."""
        for votes in self._rows.values():
            _check(votes)

    def missing(self) -> list[BlockHash]:
        return [
            block for block, votes in self._files.items() if votes.verdict() is not Verdict.DONE
        ]


def _nodes(sets: Iterable[NodeSet]) -> list[NodeId]:
    return list(dict.fromkeys(node for one in sets for node in one.nodes))


def _are_decided(rounds: Iterable[Round]) -> bool:
    return all(votes.verdict() is not Verdict.WAIT for votes in rounds)


async def _decided(votes: Round, sends: Mapping[Sending, NodeId]) -> None:
    """Until the quorums are there. Raises why they can't be."""
    by_task = {sending.task: node for sending, node in sends.items()}
    waiting = set(by_task)
    while votes.verdict() is Verdict.WAIT:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = _failure(task)
            if error is None:
                votes.answered(by_task[task], True)
            else:
                votes.failed(by_task[task], error)
    _check(votes)


def _check(votes: Round) -> None:
    if votes.verdict() is Verdict.DONE:
        return
    if stale := votes.failed_with(StaleLayout):
        raise Stale(stale[0])
    raise votes.error()


def _failure(task: asyncio.Task[Any]) -> Exception | None:
    """What a node answered instead; a bug of ours is raised."""
    error = task.exception()
    if error is None or isinstance(error, Exception):
        return error
    raise error


async def _cancelled(sends: Iterable[Sending]) -> None:
    tasks = [sending.task for sending in sends]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
