"""The replica's side of the tables: applies what coordinators send, answers what they ask.

Answers hold rows as they are, tombstones too; it is the coordinator that joins them. Messages of
a layout older than every node has acknowledged are refused: their sender may be missing owners.
Whatever comes from a peer is checked before it is used.

    rows/write: [layout version, [[key, value] | [key], ...], flags, [[rule, key, value], ...]]
                -> [[row key, newest row key], ...]       the object rows that came late; see `Late`
    rows/read:  [layout version, question, argument, ...]
                -> [[key, value, ...], reach | nil, [undecided row key, ...],
                    [[inline row key, bytes], ...], [[row, bytes in common], ...]]
      GET       [key, ...]
      RANGE     start, end, rows at most      rows of start <= key < end
      FOLD      start, end, fold, rows at most    a range with gaps, see core/table/folding.py
      PREFIX    prefix                        see `View.with_prefix`; meant for few
      VERSIONS  prefix, [key, ...] | nil, down to, inline?    see `rows_that_decide`
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum, IntFlag
from itertools import chain
from typing import Any, Final, NamedTuple

from garage_lite.core.block.resync import looks_for
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Endpoints
from garage_lite.core.cluster.rpc import Request
from garage_lite.core.disk.replica import Replica
from garage_lite.core.errors import (
    Fenced,
    InvalidArgument,
    Recovering,
    StaleLayout,
    StorageFailed,
)
from garage_lite.core.hlc import too_far_ahead
from garage_lite.core.ids import BucketId
from garage_lite.core.limits import ROWS_ANSWER_BYTES_MAX
from garage_lite.core.model.objects import Kind, ObjectVersion, survivors
from garage_lite.core.model.rowkeys import STAMP_BYTES, Table, inline_row, stamp_of, undecided_row
from garage_lite.core.ports import Clock
from garage_lite.core.table.checks import Check, Rule, check_all
from garage_lite.core.table.fences import fence_against
from garage_lite.core.table.folding import Fold, FoldedRows
from garage_lite.core.table.history import history_for
from garage_lite.core.table.reading import Answer, Gap
from garage_lite.core.table.schema import Change, Removal, Update, is_local

WRITE: Final = "rows/write"
READ: Final = "rows/read"
_READ_ON_BATCHES: Final = 3
"""Batches of rows that are left out which are read before seeking: a seek costs as much."""
_TURN_ROWS: Final = 256
"""Rows read before others get a turn of the event loop."""


class Flags(IntFlag):
    NONE = 0
    DELETES = 1
    """May use the room that a full disk keeps for deletions."""
    MERGE = 2
    """Rows that were written before (repair, sync): neither new nor late."""
    REPAIR = 4
    """Whoever sends them must know that they are taken: refused, all of them, where a fence stands
    against one (others that merge pass that one over)."""


class Question(IntEnum):
    GET = 0
    RANGE = 1
    PREFIX = 2
    VERSIONS = 3
    FOLD = 4


class Late(NamedTuple):
    """An object row that a replica took after one stamped higher."""

    key: bytes
    newest: bytes
    """Key of the newest row that was there before."""


class RowService:
    """This node's rows, for itself (direct calls) and for its peers (the endpoints)."""

    def __init__(
        self,
        replica: Replica,
        layout: ClusterLayout,
        clock: Clock,
        observe: Callable[[int], None],
    ) -> None:
        """`observe` is told of every stamp met, so that this node's next one is greater."""
        self._replica = replica
        self._layout = layout
        self._clock = clock
        self._observe = observe
        self.may_answer: Callable[[bytes], bool] = _always
        """Whether all acknowledged rows near a key are here: else reads are refused."""
        self.knows_newest: Callable[[bytes], bool] = _always
        """Whether a new object row can be told to be on time."""

    def serve(self, endpoints: Endpoints) -> None:
        endpoints.serve(WRITE, self._on_write)
        endpoints.serve(READ, self._on_read)

    # --- writing

    async def write(
        self, changes: Sequence[Change], checks: Sequence[Check] = (), flags: Flags = Flags.NONE
    ) -> list[Late]:
        """Apply in one record; durable on return. Which new object rows came late.

        Raises what a check raises, DiskFull, StorageFailed; then nothing has changed.
        """
        late: list[Late] = []

        def guard() -> None:
            check_all(checks, self._replica.latest, alone=False)
            get = self._replica.latest.get
            strict = Flags.REPAIR in flags or Flags.MERGE not in flags
            if strict and any(isinstance(c, Update) and fence_against(c, get) for c in changes):
                raise Fenced
            self._meet(changes, late, new=not flags & Flags.MERGE)

        now_ms = self._clock.now_us() // 1000
        if flags & Flags.MERGE and (looks := self._looks_for_blocks(changes)):
            await self._replica.apply(looks, now_ms, None, False)
        await self._replica.apply(changes, now_ms, guard, bool(flags & Flags.DELETES))
        return late

    async def drop_equal(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Drop the rows that still are what is given, in one record. Raises StorageFailed,
        DiskFull."""
        changes: list[Change] = []

        def guard() -> None:
            latest = self._replica.latest
            changes.extend(Removal(key) for key, value in rows if latest.get(key) == value)

        await self._replica.apply(changes, self._clock.now_us() // 1000, guard, True)

    def _looks_for_blocks(self, changes: Sequence[Change]) -> list[Change]:
        """References that come by repair or sync come without their blocks."""
        references = [
            (change.key, change.value)
            for change in changes
            if isinstance(change, Update) and change.key[0] == Table.BLOCK_REF
        ]
        now_us = self._clock.now_us()
        return [Update(*row) for row in looks_for(references, self._replica.latest.get, now_us)]

    def _meet(self, changes: Sequence[Change], late: list[Late], *, new: bool) -> None:
        now_us = self._clock.now_us()
        for change in changes:
            key = change.key
            if key[0] != Table.OBJECT or isinstance(change, Removal):
                continue
            clock = stamp_of(key).clock
            if not too_far_ahead(clock, now_us):
                self._observe(clock)
            if not new:
                continue
            met = self._newest(key[:-STAMP_BYTES])
            if not self.knows_newest(key):
                late.append(Late(key, met or key))
            elif met is not None and met != key and stamp_of(met).clock >= clock:
                late.append(Late(key, met))

    def _newest(self, prefix: bytes) -> bytes | None:
        """The key of the newest row that is here or that a ballot may have chosen."""
        latest = self._replica.latest
        keys = [key for key, _ in latest.with_prefix(prefix, 1)]
        undecided = latest.with_prefix(undecided_row(prefix), 1)
        keys += [prefix[:1] + key[1:] for key, _ in undecided]
        return min(keys, default=None)

    async def _on_write(self, request: Request) -> list[Late]:
        match request.payload:
            case [int() as version, list() as changes, int() as flags, list() as checks]:
                self.refuse_stale(version)
                return await self.write(_changes(changes), read_checks(checks), Flags(flags & 7))
        raise InvalidArgument("a peer sent what is no write")

    def refuse_stale(self, version: int) -> None:
        """Raises StaleLayout for a message that names a version nobody should use any more."""
        if version < self._layout.lookup.ack_floor:
            raise StaleLayout(f"layout version {version} is no longer in use")

    # --- reading

    async def read(self, question: Question, *arguments: Any) -> Answer:
        """Durable rows. Raises DamagedRow, StorageFailed, Recovering."""
        match question, arguments:
            case Question.GET, [list() as keys]:
                return self._get(_keys(keys))
            case Question.RANGE, [bytes() as start, bytes() as end, int() as most]:
                return await self._range(start, end, most)
            case Question.FOLD, [bytes() as start, bytes() as end, fold, int() as most]:
                return await self._folded(start, end, _read_fold(fold), most)
            case Question.PREFIX, [bytes() as prefix]:
                return Answer(dict(self._replica.durable.with_prefix(self.readable(prefix))), None)
            case Question.VERSIONS, [
                bytes() as prefix,
                list() | None as named,
                bytes() as down_to,
                bool() as inline,
            ]:
                wanted = None if named is None else _keys(named)
                return self._versions(prefix, wanted, down_to, inline)
        raise InvalidArgument("a peer asked what is no question")

    def readable(self, key: bytes) -> bytes:
        """`key`. Raises Recovering where rows near it may be missing here."""
        if not self.may_answer(_shared(key)):
            raise Recovering
        return key

    def _get(self, keys: list[bytes]) -> Answer:
        rows = {}
        for key in keys:
            value = self._replica.durable.get(self.readable(key))
            if value is not None:
                rows[key] = value
        return Answer(rows, None)

    async def _range(self, start: bytes, end: bytes, most: int) -> Answer:
        self.readable(start)
        # First, so that what is learnt while the rows are read is among these or those.
        undecided = self._undecided(start, end)
        rows: dict[bytes, bytes] = {}
        size = turn = 0
        for keys, values in self._replica.durable.scan(start, end):
            rows.update(zip(keys, values, strict=True))
            size += sum(map(len, keys)) + sum(map(len, values))
            if rows and (len(rows) >= most or size >= ROWS_ANSWER_BYTES_MAX):
                reach = next(reversed(rows))
                return Answer(rows, reach, tuple(key for key in undecided if key <= reach))
            turn += len(keys) or _TURN_ROWS
            if turn >= _TURN_ROWS:
                turn = 0
                await asyncio.sleep(0)
        return Answer(rows, None, undecided)

    async def _folded(self, start: bytes, end: bytes, fold: Fold, most: int) -> Answer:
        if self.readable(start)[0] != Table.OBJECT:
            raise InvalidArgument("a peer asked to fold what has no names")
        # First, so that what is chosen while the rows are read is among these or those.
        undecided = self._undecided(start, end)
        folded = FoldedRows(fold, start, most)
        seek = True
        while seek and folded.resume < end:
            seek = False
            idle = turn = 0
            for keys, values in self._replica.durable.scan(folded.resume, end):
                if keys and keys[-1] < folded.resume:
                    idle += 1
                    seek = idle == _READ_ON_BATCHES
                else:
                    idle = 0
                    folded.feed(keys, values)
                if folded.done or seek:
                    break
                turn += len(keys) or _TURN_ROWS
                if turn >= _TURN_ROWS:
                    turn = 0
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
        return folded.answer(undecided)

    def _versions(
        self, prefix: bytes, named: list[bytes] | None, down_to: bytes, inline: bool
    ) -> Answer:
        view = self._replica.durable
        history = history_for(view, self.readable(prefix), named, down_to)
        rows = dict(history.rows)
        reach = None if history.complete else max(key for key in rows if history.reaches(key))
        found = self._inline_of(prefix, rows) if inline else ()
        undecided = view.with_prefix(undecided_row(prefix))
        return Answer(rows, reach, tuple(prefix[:1] + key[1:] for key, _ in undecided), found)

    def _inline_of(
        self, prefix: bytes, rows: dict[bytes, bytes]
    ) -> tuple[tuple[bytes, bytes], ...]:
        """The bytes of the current version, while they are sure to be there."""
        current = _current(rows)
        if current is None or current.kind is not Kind.INLINE:
            return ()
        key = inline_row(BucketId(prefix[2:34]), current.id)
        content = self._replica.durable.get(key)
        return () if content is None else ((key, content),)

    def _undecided(self, start: bytes, end: bytes) -> tuple[bytes, ...]:
        """The object rows of a range that this replica has accepted and knows no end of."""
        if start[0] != Table.OBJECT:
            return ()
        scanned = self._replica.durable.scan(undecided_row(start), undecided_row(end))
        return tuple(start[:1] + key[1:] for keys, _ in scanned for key in keys)

    async def _on_read(self, request: Request) -> list[Any]:
        match request.payload:
            case [int() as version, int() as question, *arguments] if question in _QUESTIONS:
                self.refuse_stale(version)
                answer = await self.read(Question(question), *arguments)
                flat = list(chain.from_iterable(answer.rows.items()))
                gaps = _sent_gaps(answer)
                return [flat, answer.reach, answer.undecided, answer.inline, gaps]
        raise InvalidArgument("a peer asked what is no question")


_QUESTIONS: Final = frozenset(Question)


def _always(key: bytes) -> bool:
    return True


def _current(rows: dict[bytes, bytes]) -> ObjectVersion | None:
    """The newest survivor of rows that are in order."""
    alive = survivors([ObjectVersion.decode(stamp_of(key), rows[key]) for key in rows])
    return alive[0] if alive else None


def _changes(sent: list[Any]) -> list[Change]:
    found: list[Change] = []
    for one in sent:
        match one:
            case [bytes() as key, bytes() as value]:
                found.append(Update(_shared(key), value))
            case [bytes() as key]:
                found.append(Removal(_shared(key)))
            case _:
                raise InvalidArgument("a peer sent what is no row")
    return found


def read_checks(sent: list[Any]) -> list[Check]:
    """Checks as they come from a peer. Raises InvalidArgument."""
    found: list[Check] = []
    for one in sent:
        match one:
            case [int() as rule, bytes() as key, bytes() as value] if rule in _RULES:
                found.append(Check(Rule(rule), _shared(key), value))
            case _:
                raise InvalidArgument("a peer sent a check that this node does not know")
    return found


_RULES: Final = frozenset(Rule)


def _read_fold(sent: Any) -> Fold:
    match sent:
        case [int() as prefix_bytes, bytes() as delimiter, bool() as versions] if delimiter:
            return Fold(prefix_bytes, delimiter, versions)
    raise InvalidArgument("a peer asked to fold by nothing")


def _sent_gaps(answer: Answer) -> list[tuple[int, int]]:
    """Each by the place of its row among the rows."""
    places = {key: place for place, key in enumerate(answer.rows)} if answer.gaps else {}
    return [(places[gap.after], gap.common) for gap in answer.gaps]


def read_gaps(sent: list[Any], keys: Sequence[bytes]) -> tuple[Gap, ...]:
    """Gaps as they come from a peer with these rows. Raises StorageFailed."""
    found: list[Gap] = []
    for one in sent:
        match one:
            case [int() as place, int() as common] if 0 <= place < len(keys) and common > 0:
                found.append(Gap(keys[place], common))
            case _:
                raise StorageFailed("a peer left out what it does not name")
    return tuple(found)


def _keys(sent: list[Any]) -> list[bytes]:
    if all(isinstance(key, bytes) for key in sent):
        return sent
    raise InvalidArgument("a peer asked for what is no row")


def _shared(key: bytes) -> bytes:
    """`key`, if it is one that peers may speak of."""
    if len(key) < 2 or is_local(key):
        raise InvalidArgument("a peer asked for a row that is none of its business")
    return key
