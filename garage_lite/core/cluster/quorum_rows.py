"""Rows written to and read from the replicas that a layout names, with repair of what differs.

What a read returns is at a write quorum, or is brought there before: a later read can't go back.
Which replicas hold what it is told with each call; must not know how a layout comes about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.cluster.quorum_calls import DEADLINE_SECONDS, QuorumCalls, Round
from garage_lite.core.cluster.row_service import (
    READ,
    WRITE,
    Flags,
    Late,
    Question,
    RowService,
    read_gaps,
)
from garage_lite.core.errors import CallerError, Fenced, StaleLayout, StorageFailed
from garage_lite.core.ids import NodeId
from garage_lite.core.layout.lookup import Lookup, NodeSet
from garage_lite.core.limits import TRANSACTION_BYTES_MAX
from garage_lite.core.model.rowkeys import Table, stamp_of
from garage_lite.core.quorum import Verdict
from garage_lite.core.table.checks import Check
from garage_lite.core.table.reading import Answer, Joined, join, rows_of_version
from garage_lite.core.table.schema import Change, Removal, Update

_ROW_BYTES: Final = 32
"""What a row costs in a message besides its key and value, at most."""
_REPAIR_BYTES_MAX: Final = TRANSACTION_BYTES_MAX // 2
_CUT: Final = (Question.RANGE, Question.FOLD)
"""The questions about ranges: their answers end somewhere."""
_REPAIR: Final = Flags.MERGE | Flags.REPAIR
_CARRIED_MAX: Final = 1000
"""Rows that come with a version: one, or the part lists of 10,000 parts."""


class Stale(Exception):
    """`node` refused the layout version: it knows a newer layout."""

    def __init__(self, node: NodeId) -> None:
        super().__init__(node)
        self.node = node


class WrittenLate(Exception):
    """Too many replicas had met something stamped higher: the write may not be what readers see.
    `clock`: of the highest stamp met."""

    def __init__(self, clock: int) -> None:
        super().__init__(clock)
        self.clock = clock


class QuorumRows:
    """Asks the replicas of rows for one node, which may be one of them."""

    def __init__(self, cluster: Cluster, rows: RowService) -> None:
        self._cluster = cluster
        self._rows = rows
        self._calls = QuorumCalls(cluster)

    async def close(self) -> None:
        """Give up what is still under way to slow nodes."""
        await self._calls.close()

    # --- writing

    async def write(
        self,
        lookup: Lookup,
        sets: Sequence[NodeSet],
        changes: Sequence[Change],
        checks: Sequence[Check] = (),
        flags: Flags = Flags.NONE,
    ) -> None:
        """Durable at the quorum of each set on return, each replica having applied all or nothing.

        Raises the error of a check that a quorum can't be had without, WrittenLate, Stale,
        DiskFull, QuorumNotReached: then some replicas may have applied it. ValueError above
        TRANSACTION_BYTES_MAX.
        """
        size = size_of(changes)
        if size > TRANSACTION_BYTES_MAX:
            raise ValueError(f"a write of {size} bytes is too big")
        payload = [lookup.versions[-1], _sent(changes), int(flags), checks]

        async def send(node: NodeId) -> list[Late]:
            if node == self._cluster.node:
                return await self._rows.write(changes, checks, flags)
            return await self._write_at(node, payload)

        asked = await self._calls.write(sets, send, size, _on_time)
        if asked.verdict() is not Verdict.DONE:
            _fail(asked, [late for notes in asked.answers.values() for late in notes])

    async def _write_at(self, node: NodeId, payload: list[Any]) -> list[Late]:
        reply = await self._cluster.call(node, WRITE, payload, timeout=DEADLINE_SECONDS)
        match reply.payload:
            case list() as notes:
                return [Late(*note) for note in notes]
        raise StorageFailed("a peer answered a write with what is no answer")

    # --- reading

    async def ask(
        self, lookup: Lookup, readers: NodeSet, question: Question, *arguments: Any
    ) -> dict[NodeId, Answer]:
        """The answers of a read quorum. Raises Stale, QuorumNotReached."""
        payload = [lookup.versions[-1], int(question), *arguments]
        # What is here costs nothing to say: by the time the others have answered, the bytes of a
        # version that is being replaced may be gone.
        own = (*arguments[:-1], True) if question is Question.VERSIONS else arguments

        async def send(node: NodeId) -> Answer:
            if node == self._cluster.node:
                return await self._rows.read(question, *own)
            return await self._read_at(node, payload)

        asked = await self._calls.read(readers, send)
        if asked.verdict() is not Verdict.DONE:
            _fail(asked)
        return asked.answers

    async def _read_at(self, node: NodeId, payload: list[Any]) -> Answer:
        reply = await self._cluster.call(node, READ, payload, timeout=DEADLINE_SECONDS)
        match reply.payload:
            case [
                list() as flat,
                bytes() | None as reach,
                list() as undecided,
                list() as inline,
                list() as gaps,
            ]:
                keys = flat[::2]
                rows = dict(zip(keys, flat[1::2], strict=True))
                carried = tuple((key, value) for key, value in inline)
                return Answer(rows, reach, tuple(undecided), carried, read_gaps(gaps, keys))
        raise StorageFailed("a peer answered a read with what is no answer")

    async def read(
        self,
        lookup: Lookup,
        readers: NodeSet,
        writers: Sequence[NodeSet],
        question: Question,
        *arguments: Any,
    ) -> Joined[NodeId]:
        """What a read quorum knows, at a write quorum on return. A range ends where the first of
        the answers does. Raises as `ask`."""
        answers = await self.ask(lookup, readers, question, *arguments)
        while True:
            joined = join(answers, cut=question in _CUT)
            if not joined.lacking:
                return joined
            try:
                carried = await self._repair(lookup, writers, answers, joined)
            except Fenced:
                void = await self._void_of(lookup, writers, answers, joined)
                answers = {node: _without(answer, void) for node, answer in answers.items()}
                continue
            return joined._replace(inline={**joined.inline, **carried})

    # --- repair

    async def _void_of(
        self,
        lookup: Lookup,
        writers: Sequence[NodeSet],
        answers: Mapping[NodeId, Answer],
        joined: Joined[NodeId],
    ) -> set[bytes]:
        """Rows that will never have a quorum: what they say was given up. The other ones have one
        on return."""
        void: set[bytes] = set()
        for key in {row.key for rows in joined.lacking.values() for row in rows}:
            lacking = {
                node: [row for row in rows if row.key == key]
                for node, rows in joined.lacking.items()
                if any(row.key == key for row in rows)
            }
            try:
                await self._repair(lookup, writers, answers, joined._replace(lacking=lacking))
            except Fenced:
                void.add(key)
        return void

    async def _repair(
        self,
        lookup: Lookup,
        writers: Sequence[NodeSet],
        answers: Mapping[NodeId, Answer],
        joined: Joined[NodeId],
    ) -> dict[bytes, bytes]:
        """Tell those that lack rows, and those that were not asked, until each set has a quorum
        that holds them all. Returns the inline rows that went along."""
        wanted = {row.key: row for rows in joined.lacking.values() for row in rows}
        carried = await self._carried_by(lookup, wanted.values(), answers)

        async def send(node: NodeId) -> list[Late]:
            for part in _parts(joined.lacking.get(node, wanted.values()), carried):
                if node == self._cluster.node:
                    await self._rows.write(part, (), _REPAIR)
                else:
                    payload = [lookup.versions[-1], _sent(part), int(_REPAIR), ()]
                    await self._write_at(node, payload)
            return []

        known: dict[NodeId, list[Late]] = {
            node: [] for node in answers if node not in joined.lacking
        }
        size = size_of(wanted.values())
        asked = await self._calls.write(writers, send, size, _on_time, known)
        if asked.verdict() is not Verdict.DONE:
            _fail(asked)
        return {
            row.key: row.value
            for rows in carried.values()
            for row in rows
            if row.key[0] == Table.INLINE
        }

    async def _carried_by(
        self, lookup: Lookup, rows: Iterable[Update], answers: Mapping[NodeId, Answer]
    ) -> dict[bytes, list[Update]]:
        """By row: those that must come with it (inline bytes, part lists). A version whose rows
        nobody has any more (it is being replaced) is not among them."""
        found: dict[bytes, list[Update]] = {}
        for row in rows:
            start, end = rows_of_version(row)
            if not start:
                found[row.key] = []
                continue
            for node in [node for node, answer in answers.items() if row.key in answer.rows]:
                holder = NodeSet(0, (node,), 1)
                held = await self.ask(lookup, holder, Question.RANGE, start, end, _CARRIED_MAX)
                if held[node].rows:
                    found[row.key] = [Update(*each) for each in held[node].rows.items()]
                    break
        return found


def size_of(changes: Iterable[Change]) -> int:
    """Bytes of a message that carries the changes, about; never less."""
    return sum(
        [
            _ROW_BYTES + len(one.key) + (0 if isinstance(one, Removal) else len(one.value))
            for one in changes
        ]
    )


def _without(answer: Answer, void: set[bytes]) -> Answer:
    rows = {key: value for key, value in answer.rows.items() if key not in void}
    return answer._replace(rows=rows)


def _sent(changes: Sequence[Change]) -> list[tuple[bytes, ...]]:
    return [tuple(change) for change in changes]


def _on_time(late: list[Late]) -> bool:
    return not late


def _fail(asked: Round, late: Sequence[Late] = ()) -> NoReturn:
    error = asked.error()
    if isinstance(error, CallerError):
        raise error
    for node in asked.failed_with(StaleLayout):
        raise Stale(node)
    if late:
        raise WrittenLate(max(stamp_of(each.newest).clock for each in late))
    raise error


def _parts(rows: Iterable[Update], carried: Mapping[bytes, list[Update]]) -> Iterable[list[Update]]:
    """Bounded messages that carry the rows; what must come with a row is in the same one."""
    part: list[Update] = []
    size = 0
    for row in rows:
        if row.key not in carried:
            continue
        together = [row, *carried[row.key]]
        more = size_of(together)
        if part and size + more > _REPAIR_BYTES_MAX:
            yield part
            part, size = [], 0
        part += together
        size += more
    if part:
        yield part
