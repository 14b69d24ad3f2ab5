"""The replica's side of ballots: promises, accepts and learns for the registers it holds.

A register is named by the common start of an object's versions, or by the key of an alias row.
What is answered is durable before, in one record with the rows that came along. Must not know why
something is proposed. Whatever comes from a peer is checked before it is used.

    ballot   = [clock, node]
    proposal = [name, [[row key, value], ...], [name, ...]]
    chosen   = [ballot, [[row key, value], ...], [name, ...]]
    ballot/prepare: [layout version, register, ballot, chosen | nil, down to, checks]
        -> [row key, value, ...], reach | nil, ballot, proposal, [[name, clock], ...], forgot
    ballot/accept:  [layout version, register, ballot, proposal, [[row key, value], ...],
                     [[name, clock], ...], checks] -> []
    ballot/learn:   [layout version, register, chosen] -> nil
    ballot/forget:  [layout version, register, ballot | nil]
        -> ballot | nil       nil asked: the promise there, nil while something is undecided;
                              else: drop all memory of the register up to that ballot
    ballot/left:    [layout version, partition] -> [register, ...]     undecided here, some of them
    A refused prepare or accept is answered with the ballot that was promised: [clock, node].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from garage_lite.core.ballot import (
    Accept,
    Acceptor,
    Ballot,
    Chosen,
    Promise,
    Proposal,
    Rows,
    pack_proposal,
    unpack_proposal,
)
from garage_lite.core.cluster.peers import Endpoints
from garage_lite.core.cluster.row_service import Question, RowService, read_checks
from garage_lite.core.cluster.rpc import Request
from garage_lite.core.disk.replica import Replica
from garage_lite.core.errors import ClockInsane, Fenced, InvalidArgument
from garage_lite.core.hlc import too_far_ahead
from garage_lite.core.ids import PARTITIONS
from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.model.rowkeys import (
    KEY_END,
    Table,
    after_prefix,
    ballot_row,
    stamp_of,
)
from garage_lite.core.model.uploads import UploadState
from garage_lite.core.model.versions import PendingState
from garage_lite.core.ports import Clock
from garage_lite.core.table.checks import Check, check_all
from garage_lite.core.table.deciding import undecided_rows
from garage_lite.core.table.fences import fence_against
from garage_lite.core.table.naming import rows_of_name
from garage_lite.core.table.reading import inline_rows
from garage_lite.core.table.schema import Change, Removal, Update, is_local

PREPARE: Final = "ballot/prepare"
ACCEPT: Final = "ballot/accept"
LEARN: Final = "ballot/learn"
FORGET: Final = "ballot/forget"
LEFT: Final = "ballot/left"
_FENCED: Final = (PendingState.FENCED, UploadState.FENCED)
LOOK_MAX: Final = 512
"""Registers that are looked at in one go."""


class Promised(NamedTuple):
    promise: Promise
    reach: bytes | None
    """Of the register's rows, all up to this key are here; None: all."""


class BallotService:
    """This node's acceptors, for itself (direct calls) and for its peers (the endpoints)."""

    def __init__(
        self, replica: Replica, rows: RowService, clock: Clock, observe: Callable[[int], None]
    ) -> None:
        """`observe` is told of every ballot's clock, so that this node's next stamp is greater."""
        self._replica = replica
        self._rows = rows
        self._clock = clock
        self._observe = observe

    def serve(self, endpoints: Endpoints) -> None:
        endpoints.serve(PREPARE, self._on_prepare)
        endpoints.serve(ACCEPT, self._on_accept)
        endpoints.serve(LEARN, self._on_learn)
        endpoints.serve(FORGET, self._on_forget)
        endpoints.serve(LEFT, self._on_left)

    def state(self, register: bytes) -> Acceptor:
        """As the next writer must see it. Raises StorageFailed."""
        row = self._replica.latest.get(ballot_row(register))
        if row is not None:
            return Acceptor.decode(row)
        floor = self._replica.latest.get(_floor_row(register))
        return Acceptor() if floor is None else Acceptor(Acceptor.decode(floor).promised)

    async def prepare(
        self,
        register: bytes,
        ballot: Ballot,
        learnt: Chosen | None,
        down_to: bytes = b"",
        checks: Sequence[Check] = (),
    ) -> Promised | Ballot:
        """A durable promise with what is here, or the ballot promised to another. Raises what a
        check raises, ClockInsane, Recovering (it may have forgotten), DiskFull, StorageFailed."""
        if too_far_ahead(ballot.clock, self._clock.now_us()):
            raise ClockInsane
        self._observe(ballot.clock)
        changes: list[Change] = []
        states: list[Acceptor] = []

        def guard() -> None:
            self._rows.readable(register)
            check_all(checks, self._replica.latest, alone=False)
            before = state = self.state(register)
            if learnt is not None:
                changes.extend(self._standing(learnt.rows))
                state = state.learn(learnt.ballot, learnt.names)
            promised = state.prepare(ballot)
            states.extend([promised] if promised is not None else [])
            changes.extend(_remembered(register, before, promised or state))

        await self._apply(changes, guard)
        if not states:
            return self.state(register).promised
        return await self._promised(register, states[0], down_to)

    async def accept(
        self, register: bytes, request: Accept, checks: Sequence[Check] = ()
    ) -> Ballot | None:
        """Durably accepted (None), or the ballot promised to another. Raises as `prepare`, and
        Fenced where what is proposed, by whomever, is being given up here: a replica that has
        accepted it refuses to give it up, so of the two at most one finds a quorum. Refused too
        where that is so of what it was decided on, until it is known how that ends."""
        changes: list[Change] = []
        refused: list[Ballot] = []

        def guard() -> None:
            self._rows.readable(register)
            before = self.state(register)
            after = before.accept(request.ballot, request.proposal, request.notes)
            if after is None:
                refused.append(before.promised)
                return
            check_all(checks, self._replica.latest, alone=False)
            get = self._replica.latest.get
            if any(fence_against(Update(*row), get) for row in request.proposal.rows):
                raise Fenced
            changes.extend(_updates(request.carry))
            if any(fence_against(Update(*row), get) for row in request.carry):
                # What was removed is void here from now on: the next who asks is told so.
                refused.append(before.promised)
                return
            changes.extend(_remembered(register, before, after))

        await self._apply(changes, guard, decided=False)
        return refused[0] if refused else None

    async def learn(self, register: bytes, chosen: Chosen) -> None:
        """Take over what was chosen. Raises StorageFailed, DiskFull."""
        changes: list[Change] = []

        def guard() -> None:
            before = self.state(register)
            changes.extend(self._standing(chosen.rows))
            changes.extend(_remembered(register, before, before.learn(chosen.ballot, chosen.names)))

        await self._apply(changes, guard)

    async def forget(self, register: bytes, up_to: Ballot) -> None:
        """Drop what is remembered of a register where all is decided and nothing above `up_to`
        was promised. From then on nothing up to that is promised in the whole partition.
        Raises StorageFailed."""
        changes: list[Change] = []

        def guard() -> None:
            state = self.state(register)
            if state.undecided or state.promised > up_to:
                return
            floor = self._replica.latest.get(_floor_row(register))
            promised = Acceptor() if floor is None else Acceptor.decode(floor)
            higher = promised.prepare(up_to) or promised
            changes.append(Removal(ballot_row(register)))
            changes.append(Update(_floor_row(register), higher.encode()))

        await self._apply(changes, guard)

    def _standing(self, rows: Rows) -> list[Change]:
        """What is learnt, without versions beside it that may be given up yet."""
        get = self._replica.latest.get
        return [
            change
            for change in _updates(rows)
            if _is_settled(change) or fence_against(change, get) not in _FENCED
        ]

    def left_behind(self, start: bytes, end: bytes) -> set[bytes]:
        """Some registers (`LOOK_MAX`) of which something undecided is durable here, by a range of
        the UNDECIDED table."""
        found: set[bytes] = set()
        for _, registers in self._replica.durable.scan(start, end):
            found.update(registers)
            if len(found) >= LOOK_MAX:
                break
        return found

    async def promise_nothing_below(self, partition: int, ballot: Ballot) -> None:
        """For all registers of a partition of which nothing is remembered. Raises StorageFailed,
        DiskFull."""
        row = bytes((Table.BALLOT, partition))
        stored = self._replica.latest.get(row)
        state = Acceptor() if stored is None else Acceptor.decode(stored)
        higher = state.prepare(ballot) or state
        await self._apply([Update(row, higher.encode())], lambda: None)

    def promised(self, register: bytes) -> Ballot | None:
        """The promise that is remembered; None while something is undecided."""
        state = self.state(register)
        return None if state.undecided else state.promised

    async def _apply(
        self, changes: Sequence[Change], guard: Callable[[], None], *, decided: bool = True
    ) -> None:
        """`guard` fills `changes` at the moment they are applied. `decided`: what they say of
        objects was chosen."""
        now_ms = self._clock.now_us() // 1000
        await self._replica.apply(changes, now_ms, guard, False, decided=decided)

    async def _promised(self, register: bytes, state: Acceptor, down_to: bytes) -> Promised:
        """What is durable now is at least what was there when the promise was made."""
        reach = None
        if register[0] == Table.OBJECT:
            answer = await self._rows.read(Question.VERSIONS, register, [], down_to, False)
            rows, reach = dict(answer.rows), answer.reach
            for key in list(inline_rows(rows)):
                content = self._replica.durable.get(key)
                if content is not None:
                    rows[key] = content
        else:
            rows = rows_of_name(register, self._replica.durable)
        promise = Promise(rows, state.accepted, state.proposal, dict(state.notes), state.forgot)
        return Promised(promise, reach)

    # --- for peers

    async def _on_prepare(self, request: Request) -> list[Any]:
        match request.payload:
            case [
                int() as version,
                bytes() as register,
                list() as ballot,
                list() | None as learnt,
                bytes() as down_to,
                list() as checks,
            ]:
                self._rows.refuse_stale(version)
                answer = await self.prepare(
                    _register(register),
                    read_ballot(ballot),
                    None if learnt is None else _chosen(learnt),
                    down_to,
                    read_checks(checks),
                )
                return list(answer) if isinstance(answer, Ballot) else pack_promised(answer)
        raise InvalidArgument("a peer sent what is no prepare")

    async def _on_accept(self, request: Request) -> list[Any]:
        match request.payload:
            case [
                int() as version,
                bytes() as register,
                list() as ballot,
                list() as proposal,
                list() as carry,
                list() as notes,
                list() as checks,
            ]:
                self._rows.refuse_stale(version)
                accept = Accept(
                    read_ballot(ballot),
                    _proposal(_register(register), proposal),
                    _rows(carry),
                    _notes(notes),
                )
                refused = await self.accept(register, accept, read_checks(checks))
                return [] if refused is None else list(refused)
        raise InvalidArgument("a peer sent what is no accept")

    async def _on_forget(self, request: Request) -> list[Any] | None:
        match request.payload:
            case [int() as version, bytes() as register, list() | None as up_to]:
                self._rows.refuse_stale(version)
                if up_to is not None:
                    await self.forget(_register(register), read_ballot(up_to))
                    return None
                promised = self.promised(_register(register))
                return None if promised is None else list(promised)
        raise InvalidArgument("a peer sent what is nothing to forget")

    async def _on_left(self, request: Request) -> list[bytes]:
        match request.payload:
            case [int() as version, int() as partition] if 0 <= partition < PARTITIONS:
                self._rows.refuse_stale(version)
                start = bytes((Table.UNDECIDED, partition))
                return sorted(self.left_behind(start, after_prefix(start)))
        raise InvalidArgument("a peer asked for what is no partition")

    async def _on_learn(self, request: Request) -> None:
        match request.payload:
            case [int() as version, bytes() as register, list() as chosen]:
                self._rows.refuse_stale(version)
                await self.learn(_register(register), _chosen(chosen))
                return
        raise InvalidArgument("a peer sent what is nothing to learn")


def _floor_row(register: bytes) -> bytes:
    """Holds an acceptor too: of all registers of the partition that are forgotten."""
    return ballot_row(register)[:2]


def _remembered(register: bytes, before: Acceptor, after: Acceptor) -> list[Change]:
    """How an acceptor's rows change."""
    if before == after:
        return []
    gone = undecided_rows(register, before.proposal)
    here = undecided_rows(register, after.proposal)
    changes: list[Change] = [Update(ballot_row(register), after.encode())]
    changes += [Removal(key) for key in gone if key not in here]
    changes += [Update(key, register) for key in here]
    return changes


def _updates(rows: Rows) -> list[Update]:
    return [Update(key, value) for key, value in rows]


def _is_settled(row: Update) -> bool:
    """A version without it was not chosen, whatever it came with."""
    if row.key[0] != Table.OBJECT:
        return True
    return ObjectVersion.decode(stamp_of(row.key), row.value).settled


# --- on the wire


def pack_promised(promised: Promised) -> list[Any]:
    promise = promised.promise
    return [
        list(chain.from_iterable(promise.rows.items())),
        promised.reach,
        promise.accepted,
        pack_proposal(promise.proposal),
        list(promise.notes.items()),
        promise.forgot,
    ]


def read_promised(register: bytes, packed: Any) -> Promised | Ballot:
    """Raises InvalidArgument."""
    match packed:
        case [int(), bytes()]:
            return read_ballot(packed)
        case [
            list() as flat,
            bytes() | None as reach,
            list() as accepted,
            list() as proposal,
            list() as notes,
            int() as forgot,
        ]:
            rows = _rows(list(zip(flat[::2], flat[1::2], strict=True)))
            promise = Promise(
                dict(rows),
                read_ballot(accepted),
                _proposal(register, proposal),
                _notes(notes),
                forgot,
            )
            return Promised(promise, reach)
    raise InvalidArgument("a peer answered what is no promise")


def pack_chosen(chosen: Chosen) -> list[Any]:
    return [chosen.ballot, chosen.rows, chosen.names]


def read_ballot(packed: Any) -> Ballot:
    match packed:
        case [int() as clock, bytes() as node]:
            return Ballot(clock, node)
    raise InvalidArgument("a peer sent what is no ballot")


def read_registers(packed: Any) -> list[bytes]:
    """Raises InvalidArgument."""
    if isinstance(packed, list) and all(isinstance(one, bytes) for one in packed):
        return [_register(one) for one in packed]
    raise InvalidArgument("a peer answered what are no registers")


def _register(key: bytes) -> bytes:
    is_object = key[:1] == bytes((Table.OBJECT,)) and key.endswith(KEY_END) and len(key) > 36
    if is_object or (key[:2] == bytes((Table.ALIAS, 0)) and len(key) > 2):
        return key
    raise InvalidArgument("a peer spoke of what is no register")


def _rows(sent: Sequence[Any]) -> Rows:
    rows = []
    for row in sent:
        match row:
            case [bytes() as key, bytes() as value] | (bytes() as key, bytes() as value) if len(
                key
            ) > 2 and not is_local(key):
                rows.append((key, value))
            case _:
                raise InvalidArgument("a peer sent what is no row")
    return tuple(rows)


def _proposal(register: bytes, packed: Any) -> Proposal:
    try:
        proposal = unpack_proposal(packed)
    except (ValueError, TypeError) as error:
        raise InvalidArgument("a peer sent what is no proposal") from error
    rows = _rows(proposal.rows)
    if rows and not rows[0][0].startswith(register):
        raise InvalidArgument("a peer proposed a row of another register")
    return proposal


def _chosen(packed: list[Any]) -> Chosen:
    match packed:
        case [list() as ballot, list() as rows, list() as names] if all(
            isinstance(name, bytes) for name in names
        ):
            return Chosen(read_ballot(ballot), _rows(rows), tuple(names))
    raise InvalidArgument("a peer sent what is nothing chosen")


def _notes(packed: list[Any]) -> Mapping[bytes, int]:
    notes = {}
    for note in packed:
        match note:
            case [bytes() as name, int() as clock]:
                notes[name] = clock
            case _:
                raise InvalidArgument("a peer sent what is no note")
    return notes
