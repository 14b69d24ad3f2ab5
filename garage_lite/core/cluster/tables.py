"""The replicated tables: write to and read from a quorum of the replicas of each row.

The layout says who holds a row: rows of buckets and keys are on every node and read here, local
ones nowhere else, all others on the owners of their partition. What the verbs of core/store see is
the same whether they are one node or many. A node alone goes straight to its replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from garage_lite.core.cluster.ballot_service import BallotService
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.cluster.quorum_rows import QuorumRows, Stale
from garage_lite.core.cluster.registers import Registers
from garage_lite.core.cluster.row_service import Flags, Question, RowService
from garage_lite.core.cluster.settings_lease import SettingsLease
from garage_lite.core.disk.replica import Guard, Listener, Replica
from garage_lite.core.errors import ClockInsane, QuorumNotReached
from garage_lite.core.hlc import HybridClock
from garage_lite.core.ids import BucketId, NodeId
from garage_lite.core.layout.lookup import Lookup, NodeSet
from garage_lite.core.metalog.cache import ByteCache
from garage_lite.core.model.objects import Kind, ObjectVersion, survivors
from garage_lite.core.model.rowkeys import (
    STAMP_BYTES,
    Table,
    inline_row,
    local_row,
    object_row,
    stamp_of,
)
from garage_lite.core.ports import Clock, Entropy
from garage_lite.core.table.checks import Check, check_all
from garage_lite.core.table.folding import Fold, Run, runs_of
from garage_lite.core.table.history import rows_that_decide
from garage_lite.core.table.reading import Joined, highest_counters
from garage_lite.core.table.schema import (
    EMPTY_IS_REMOVED,
    Change,
    Removal,
    Update,
    View,
    is_everywhere,
    is_local,
)

_NEWEST_STAMP: Final = local_row(Table.NODE, b"newest stamp")
_STAMP_AHEAD_US: Final = 1_000_000
"""The persisted bound runs this far ahead, so that it is written once a second at most."""
_PAGE_ROWS: Final = 1_100
"""Rows of one answer to a scan: the thousand keys of a listing, and some that don't count."""
_INLINE_BYTES: Final = 1024 * 1024
"""Inline rows that came along with their versions, until they are read; they never change."""

_SETTLE_TRIES_MAX: Final = 5

Row = tuple[bytes, bytes]
Pull = Callable[[NodeId], Awaitable[None]]
Page = Callable[[bytes, bytes], Awaitable[tuple[list[Row], bytes | None]]]
Placement = tuple[NodeSet, ...]
T = TypeVar("T")


class Tables:
    """Every row of the cluster, as the verbs see it."""

    def __init__(
        self,
        replica: Replica,
        layout: ClusterLayout,
        cluster: Cluster,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        """Serves this node's rows at the cluster's endpoints from now on."""
        self.clock = clock
        self.entropy = entropy
        self._replica = replica
        self._layout = layout
        self._cluster = cluster
        self._here = cluster.node
        stored = replica.durable.get(_NEWEST_STAMP)
        self._bound = int.from_bytes(stored, "big") if stored else 0
        self._stamps = HybridClock(self._bound)
        self.rows = RowService(replica, layout, clock, self._stamps.observe)
        """This node's own rows, as its peers see them."""
        self.rows.serve(cluster.endpoints)
        self._quorum = QuorumRows(cluster, self.rows)
        ballots = BallotService(replica, self.rows, clock, self._stamps.observe)
        ballots.serve(cluster.endpoints)
        self.registers = Registers(
            cluster, layout, ballots, replica.durable, entropy, self.sure_stamp, self.catch_up
        )
        """What is decided by ballot."""
        self.settings = SettingsLease(
            replica, self.rows, self._quorum, layout, cluster, clock, entropy, self.catch_up
        )
        """Whether the rows that every node holds are all there is, here and now."""
        self._inline = ByteCache[bytes](_INLINE_BYTES)
        self._pull: Pull | None = None

    def pull_layout_by(self, pull: Pull) -> None:
        """`pull(node)` makes this node know the layout that `node` knows; asked for when a
        replica finds this node's one too old."""
        self._pull = pull

    def now_ms(self) -> int:
        return self.clock.now_us() // 1000

    @property
    def newest_stamp(self) -> int:
        """The highest stamp this node has issued or met, before its last stop too."""
        return self._stamps.newest

    def stamp(self, above: int = 0) -> int:
        """The next stamp of this node's hybrid clock, microseconds, greater than `above`. Raises
        ClockInsane while this node's clock can't be trusted."""
        if not self._cluster.clock_is_sane():
            raise ClockInsane
        return self._stamps.next(self.clock.now_us(), above)

    async def sure_stamp(self, above: int = 0) -> int:
        """As `stamp`, and no restart brings it back; that costs a write once a second at most."""
        stamp = self.stamp(above)
        await self.write(())
        return stamp

    @property
    def alone(self) -> bool:
        """Whether this node is the only one: then what it sees is all there is."""
        return self._is_alone(self._layout.lookup)

    def _is_alone(self, lookup: Lookup) -> bool:
        return lookup.nodes == (self._here,) or not lookup.ready

    def latest(self) -> View:
        """This node's rows as a guard must see them: also what is written but not yet durable."""
        return self._replica.latest

    def durable(self) -> View:
        """This node's rows that a power cut can't take back."""
        return self._replica.durable

    async def wait_for_cascades(self) -> None:
        """Until a write may have left something for the cascade worker."""
        await self._replica.cascades.wait()
        self._replica.cascades.clear()

    def on_applied(self, listener: Listener) -> None:
        """Tell `listener(key, value)` of each durable change of a row that every node holds."""
        self._replica.listen(listener)

    # --- writing

    async def write(
        self,
        changes: Sequence[Change],
        guard: Guard | None = None,
        *,
        checks: Sequence[Check] = (),
        deletes_only: bool = False,
        new: bool = True,
    ) -> None:
        """Join the changes into their rows, with all they bring along; durable at a write quorum
        of each row's replicas on return. Changes with the same replicas are one record at each.

        `checks` hold at each replica that applies it, right before. `guard` runs against
        `latest()` of this node, and right before only where it is alone. What they raise is
        raised here, and then no quorum has applied anything. `deletes_only` lets the write use
        the room that a full disk keeps for deletions. `new` False: its object rows were written
        before, so they can't come late.

        Raises WrittenLate (object rows; never alone), QuorumNotReached, DiskFull; ValueError
        above TRANSACTION_BYTES_MAX.
        """
        bound = self._bound
        if self._stamps.newest > bound:
            bound = self._stamps.newest + _STAMP_AHEAD_US
            changes = [*changes, Update(_NEWEST_STAMP, bound.to_bytes(8, "big"))]
        flags = Flags.DELETES if deletes_only else Flags.NONE
        if not new:
            flags |= Flags.MERGE
        try:
            await self._write(changes, guard, checks, flags)
        except Stale as stale:
            await self.catch_up(stale.node)
            try:
                await self._write(changes, guard, checks, flags)
            except Stale as still:
                raise QuorumNotReached("the cluster layout is changing") from still
        self._bound = max(bound, self._bound)

    async def _write(
        self,
        changes: Sequence[Change],
        guard: Guard | None,
        checks: Sequence[Check],
        flags: Flags,
    ) -> None:
        with self._layout.writing() as lookup:
            if self._is_alone(lookup):
                if checks:
                    guard = _with_checks(checks, self._replica.latest, guard)
                reserve = Flags.DELETES in flags
                await self._replica.apply(changes, self.now_ms(), guard, reserve, alone=True)
                return
            if guard is not None:
                guard()
            await self._write_parts(lookup, changes, checks, flags)

    async def _write_parts(
        self,
        lookup: Lookup,
        changes: Sequence[Change],
        checks: Sequence[Check],
        flags: Flags,
    ) -> None:
        local, parts = self._split(lookup, changes)
        writes = [
            self._quorum.write(lookup, sets, part, checks, flags) for sets, part in parts.items()
        ]
        if local:
            reserve = Flags.DELETES in flags
            writes.append(self._replica.apply(local, self.now_ms(), None, reserve))
        if len(writes) == 1:
            await writes[0]
            return
        for outcome in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    def _split(
        self, lookup: Lookup, changes: Sequence[Change]
    ) -> tuple[list[Change], dict[Placement, list[Change]]]:
        """This node's own rows, and the others by the replicas that hold them."""
        local: list[Change] = []
        parts: dict[Placement, list[Change]] = {}
        known: dict[bytes, list[Change]] = {}
        for change in changes:
            key = change.key
            if is_local(key):
                local.append(change)
                continue
            place = key[:2]
            if place not in known:
                known[place] = parts.setdefault(tuple(_writers(lookup, key)), [])
            known[place].append(change)
        return local, parts

    async def catch_up(self, node: NodeId) -> None:
        """Learn the layout by which `node` found this node's one too old. Raises Unavailable."""
        if self._pull is None:
            raise QuorumNotReached("the cluster layout is changing")
        await self._pull(node)

    async def unlearn(self, key: bytes) -> None:
        """Drop a row from this node alone; others that hold more will bring it back."""
        await self._replica.apply([Removal(key)], self.now_ms(), None, True)

    # --- reading

    async def get(self, key: bytes) -> bytes | None:
        """The value of a row. Of a counter: what the highest of its owners has counted."""
        table = key[0]
        if self._is_here(key):
            value = self._replica.durable.get(key)
        elif table == Table.COUNTER:
            value = await self._counter(key)
        elif table == Table.INLINE:
            value = await self._inline_row(key)
        else:
            value = (await self._read(key, Question.GET, [key])).rows.get(key)
        return None if value == b"" and table in EMPTY_IS_REMOVED else value

    async def get_latest(self, key: bytes) -> bytes | None:
        """As `get`, to decide a write on: on a node alone also what is not yet durable."""
        return self._replica.latest.get(key) if self.alone else await self.get(key)

    async def with_prefix(self, prefix: bytes) -> list[Row]:
        """The rows whose key without its table's suffix is `prefix`, ascending; meant for few."""
        if self._is_here(prefix):
            return self._replica.durable.with_prefix(prefix)
        joined = await self._read(prefix, Question.PREFIX, prefix)
        hides_empty = prefix[0] in EMPTY_IS_REMOVED
        return sorted(row for row in joined.rows.items() if row[1] or not hides_empty)

    async def versions(self, prefix: bytes, named: Iterable[bytes] | None = None) -> list[Row]:
        """Rows of an object key, newest first, on which it is decided what its current version is
        and, with `named`, whether those and the null version survive (core/table/history.py).
        However many versions there are, these are few."""
        if self._is_here(prefix):
            return rows_that_decide(self._replica.durable, prefix, named)
        keys = None if named is None else list(named)
        inline = not self._holds(prefix)
        down_to = b""
        tries = overtaken = 0
        while True:
            joined = await self._read(prefix, Question.VERSIONS, prefix, keys, down_to, inline)
            rows = sorted(joined.rows.items())
            for key, value in joined.inline.items():
                if self._inline.get(key) is None:
                    self._inline.put(key, value, len(value))
            current, inline_key = _current(prefix, rows)
            if inline_key is not None and inline_key not in joined.inline and overtaken < 3:
                overtaken += 1  # by the next version, which has taken the bytes away
                inline = True
                continue
            if any(row < current for row in joined.undecided):
                tries = await self._settle({prefix}, tries)
                continue
            if joined.reach is None or current <= joined.reach:
                return rows
            down_to = current

    def scan(self, start: bytes, end: bytes) -> AsyncIterator[tuple[list[bytes], list[bytes]]]:
        """Rows from `start` up to `end` (excluded), ascending, in batches. Of one partition,
        unless they are this node's."""
        if self._is_here(start):
            return _Batches(self._replica.durable.scan(start, end), start[0])
        return _Pages(self._page, start, end)

    async def _page(self, start: bytes, end: bytes) -> tuple[list[Row], bytes | None]:
        """The rows from `start` on, and where to read on."""
        joined = await self._settled(start, Question.RANGE, start, end, _PAGE_ROWS)
        rows = sorted(joined.rows.items())
        return rows, None if joined.reach is None else joined.reach + b"\x00"

    async def folded(self, start: bytes, end: bytes, fold: Fold, most: int) -> list[Run]:
        """Rows of objects of one bucket from `start` on, in one page of at most so many of each
        replica, without most of what is in common prefixes. Not of a node alone."""
        most = min(most, _PAGE_ROWS)
        joined = await self._settled(start, Question.FOLD, start, end, fold, most)
        return runs_of(joined, start, end)

    async def _settled(self, at: bytes, question: Question, *arguments: Any) -> Joined[NodeId]:
        tries = 0
        while (joined := await self._read(at, question, *arguments)).undecided:
            tries = await self._settle({row[:-STAMP_BYTES] for row in joined.undecided}, tries)
        return joined

    async def _settle(self, registers: Iterable[bytes], tries: int) -> int:
        """Finish what a read met undecided, for the read to begin again; returns how often."""
        if tries == _SETTLE_TRIES_MAX:
            raise QuorumNotReached("a conditional write stays undecided")
        await asyncio.gather(*(self.registers.settle(register) for register in registers))
        return tries + 1

    async def _counter(self, key: bytes) -> bytes:
        async def ask(lookup: Lookup) -> bytes:
            answers = await self._quorum.ask(lookup, _readers(lookup, key), Question.GET, [key])
            return highest_counters(one.rows.get(key) for one in answers.values()).encode()

        return await self._asked(ask)

    async def _inline_row(self, key: bytes) -> bytes | None:
        """It never changes, so whoever has it is right."""
        value = self._replica.durable.get(key)
        if value is None:
            value = self._inline.get(key)
        if value is not None:
            return value

        async def ask(lookup: Lookup) -> bytes | None:
            answers = await self._quorum.ask(lookup, _readers(lookup, key), Question.GET, [key])
            found = [one.rows[key] for one in answers.values() if key in one.rows]
            return found[0] if found else None

        return await self._asked(ask)

    async def _read(self, at: bytes, question: Question, *arguments: Any) -> Joined[NodeId]:
        async def ask(lookup: Lookup) -> Joined[NodeId]:
            readers, writers = _readers(lookup, at), _writers(lookup, at)
            return await self._quorum.read(lookup, readers, writers, question, *arguments)

        return await self._asked(ask)

    async def _asked(self, ask: Callable[[Lookup], Awaitable[T]]) -> T:
        try:
            return await ask(self._layout.lookup)
        except Stale as stale:
            await self.catch_up(stale.node)
        try:
            return await ask(self._layout.lookup)
        except Stale as still:
            raise QuorumNotReached("the cluster layout is changing") from still

    def leads(self, key: bytes) -> bool:
        """Whether this node is the first, of those it can reach, that hold the row: what any one
        of them can do for all is its work."""
        if self.alone:
            return True
        holders = _readers(self._layout.lookup, key).nodes
        return next((node for node in holders if self._cluster.is_up(node)), None) == self._here

    def _is_here(self, key: bytes) -> bool:
        """Whether this node's own rows are all that is to be read."""
        return is_everywhere(key) or is_local(key) or self.alone

    def _holds(self, key: bytes) -> bool:
        return self._here in _readers(self._layout.lookup, key).nodes

    async def close(self) -> None:
        """Give up what is under way to slow nodes. Write down the newest stamp, so that a restart
        does not run ahead of the clock."""
        await self.settings.stop()
        await self.registers.close()
        await self._quorum.close()
        newest = self._stamps.newest
        if newest and newest != self._bound:
            self._bound = newest
            bound = Update(_NEWEST_STAMP, newest.to_bytes(8, "big"))
            await self._replica.apply([bound], self.now_ms(), None, True)


def _with_checks(checks: Sequence[Check], latest: View, guard: Guard | None) -> Guard:
    def both() -> None:
        check_all(checks, latest, alone=True)
        if guard is not None:
            guard()

    return both


def _writers(lookup: Lookup, key: bytes) -> list[NodeSet]:
    if is_everywhere(key):
        return lookup.everywhere_sets()
    return lookup.write_sets(key[1], data=key[0] == Table.BLOCK_REF)


def _readers(lookup: Lookup, key: bytes) -> NodeSet:
    readers = lookup.read_set(key[1], data=key[0] == Table.BLOCK_REF)
    if readers is None:
        raise QuorumNotReached("no cluster layout was applied yet")
    return readers


def _current(prefix: bytes, rows: Sequence[Row]) -> tuple[bytes, bytes | None]:
    """The key of the current version's row (where there is none, one after all versions), and
    that of its inline row, if it has one."""
    alive = survivors([ObjectVersion.decode(stamp_of(key), value) for key, value in rows])
    if not alive:
        return prefix + b"\xff" * STAMP_BYTES, None
    inline = inline_row(BucketId(prefix[2:34]), alive[0].id)
    has_inline = alive[0].kind is Kind.INLINE
    return object_row(prefix, alive[0].stamp), inline if has_inline else None


class _Batches:
    """An iterator as an asynchronous one. No generator: one that is left early would wait for
    the loop to close it, and keep the segments it reads alive meanwhile."""

    def __init__(self, batches: Iterator[tuple[list[bytes], list[bytes]]], table: int) -> None:
        self._batches = batches
        self._hides_empty = table in EMPTY_IS_REMOVED

    def __aiter__(self) -> _Batches:
        return self

    async def __anext__(self) -> tuple[list[bytes], list[bytes]]:
        for batch in self._batches:
            if self._hides_empty and b"" in batch[1]:
                return _unzipped(row for row in zip(*batch, strict=True) if row[1])
            return batch
        raise StopAsyncIteration


class _Pages:
    """Rows of a range, a page of joined answers at a time."""

    def __init__(self, page: Page, start: bytes, end: bytes) -> None:
        self._page = page
        self._start: bytes | None = start
        self._end = end
        self._hides_empty = start[0] in EMPTY_IS_REMOVED

    def __aiter__(self) -> _Pages:
        return self

    async def __anext__(self) -> tuple[list[bytes], list[bytes]]:
        if self._start is None:
            raise StopAsyncIteration
        rows, self._start = await self._page(self._start, self._end)
        return _unzipped(row for row in rows if row[1] or not self._hides_empty)


def _unzipped(rows: Iterable[Row]) -> tuple[list[bytes], list[bytes]]:
    some = list(rows)
    return [key for key, _ in some], [value for _, value in some]
