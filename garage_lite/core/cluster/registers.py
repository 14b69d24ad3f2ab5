"""Decides registers among their replicas: carries out what core/ballot.py plans.

One register is decided by one proposer of this node at a time (others wait their turn), so that
many racing clients cost each other little; proposers of several nodes that meet give way for a
random while. The layout's ack lock is held over all phases. Must not know what rows mean: that is
the judge's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from garage_lite.core.ballot import (
    NEVER,
    Accept,
    Accepted,
    Acceptor,
    Answer,
    Ballot,
    Chosen,
    Judge,
    Learn,
    Pause,
    Prepare,
    Promises,
    Refused,
    Request,
    Rules,
    Steps,
    deciding,
    pack_proposal,
    settling,
)
from garage_lite.core.cluster.ballot_service import (
    ACCEPT,
    FORGET,
    LEARN,
    LEFT,
    LOOK_MAX,
    PREPARE,
    BallotService,
    Promised,
    pack_chosen,
    read_ballot,
    read_promised,
    read_registers,
)
from garage_lite.core.cluster.cluster_layout import ClusterLayout
from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.cluster.quorum_calls import DEADLINE_SECONDS, QuorumCalls, Round
from garage_lite.core.cluster.quorum_rows import Stale
from garage_lite.core.errors import (
    CallerError,
    Fenced,
    NodeError,
    NotImplementedHere,
    QuorumNotReached,
    StaleLayout,
    Unavailable,
)
from garage_lite.core.ids import NodeId
from garage_lite.core.layout.lookup import Lookup, NodeSet
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.ports import Entropy
from garage_lite.core.quorum import Consistency, Verdict
from garage_lite.core.table.checks import Check
from garage_lite.core.table.deciding import VERSIONS, current_row
from garage_lite.core.table.naming import NAMES
from garage_lite.core.table.schema import View, is_everywhere

log = logging.getLogger(__name__)

DECIDE_SECONDS: Final = 20.0
"""After it an operation that others keep interrupting, or that finds no quorum, gives up."""
_PAUSE_SECONDS_MIN: Final = 0.005
_PAUSE_SECONDS_MAX: Final = 2.0
_ROW_BYTES: Final = 64

T = TypeVar("T")


class Registers:
    """Every register of the cluster, as this node's verbs see it."""

    def __init__(
        self,
        cluster: Cluster,
        layout: ClusterLayout,
        service: BallotService,
        durable: View,
        entropy: Entropy,
        stamp: Callable[[int], Awaitable[int]],
        catch_up: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        """`stamp(above)` gives a new stamp of this node that a restart can't give again;
        `catch_up(node)` gets to know the layout that `node` knows."""
        self._cluster = cluster
        self._layout = layout
        self._service = service
        self._durable = durable
        self._entropy = entropy
        self._stamp = stamp
        self._catch_up = catch_up
        self._calls = QuorumCalls(cluster)
        self._turns: dict[bytes, _Turn] = {}
        self._learning: set[asyncio.Task[None]] = set()

    @property
    def exact(self) -> bool:
        """Whether quorums overlap, so that there is one winner."""
        return self._layout.mode is Consistency.CONSISTENT

    async def decide(self, register: bytes, judge: Judge[T], checks: Sequence[Check] = ()) -> T:
        """What `judge` makes of the register, once that stands: two round trips, one for a
        refusal on what is settled.

        `checks` hold at each replica that accepts. Raises what a check raises (nothing was
        proposed then), NotImplementedHere outside the consistent mode, QuorumNotReached,
        Unavailable (then it may have taken effect).
        """
        if not self.exact:
            raise NotImplementedHere(
                "Conditional writes need consistency_mode = consistent: two could win otherwise."
            )
        return await self._run(
            register, lambda following: deciding(judge, following, _rules(register)), checks
        )

    async def settle(self, register: bytes) -> None:
        """Finish what is undecided; what is chosen is in the rows of a quorum on return. Raises
        QuorumNotReached, Unavailable."""
        await self._run(
            register, lambda following: settling(following, _rules(register)), (), thorough=True
        )

    def left_behind(self) -> set[bytes]:
        """Some registers (`LOOK_MAX`) of which something undecided is durable here."""
        return self._service.left_behind(bytes((Table.UNDECIDED,)), bytes((Table.UNDECIDED + 1,)))

    async def recall(self, node: NodeId, partition: int) -> None:
        """For a replica that has lost its memory and may not vote yet: settle all of which `node`,
        another owner, knows something undecided in a partition, and promise nothing up to now. It
        may vote once it has recalled so many owners that each quorum has one of them. Raises as
        `settle`, and as a call."""
        sent = [self._layout.lookup.versions[-1], partition]
        reply = await self._cluster.call(node, LEFT, sent, timeout=DEADLINE_SECONDS)
        for register in read_registers(reply.payload):
            await self.settle(register)
        ballot = Ballot(await self._stamp(0), self._cluster.node)
        await self._service.promise_nothing_below(partition, ballot)

    async def settle_left_behind(self) -> None:
        """Settle all of which something undecided is here: the owners of every live layout know
        then what was chosen. Raises as `settle`."""
        settled: set[bytes] = set()
        while left := self.left_behind() - settled:
            for register in sorted(left):
                await self.settle(register)
            settled |= left

    def remembered(self, start: bytes = b"") -> list[tuple[bytes, Acceptor]]:
        """BALLOT rows from `start` on, not more than `LOOK_MAX` and some."""
        first, end = bytes((Table.BALLOT,)), bytes((Table.BALLOT + 1,))
        found: list[tuple[bytes, Acceptor]] = []
        for keys, values in self._durable.scan(max(first, start), end):
            rows = zip(keys, values, strict=True)
            found += [(key, Acceptor.decode(value)) for key, value in rows]
            if len(found) >= LOOK_MAX:
                break
        return found

    def is_first_owner(self, register: bytes) -> bool:
        """Whether this node is the one that sees to a register on its own."""
        sets = _sets(self._layout.lookup, register)
        return bool(sets) and sets[-1].nodes[0] == self._cluster.node

    async def forget(self, register: bytes, before_us: int) -> bool:
        """Let all owners forget the ballots of a register in which nothing is undecided and
        nothing was promised since `before_us`; whether they did. No message of then may be still
        on its way, and every owner must answer: one that kept an old proposal could bring it
        back."""
        with self._layout.writing() as lookup:
            proposer = _Proposer(self._cluster, self._calls, self._service, lookup, register)
            nodes = {node for one in proposer.sets() for node in one.nodes}
            try:
                promised = await asyncio.gather(*(proposer.promised(node) for node in nodes))
            except NodeError:
                return False
            known = [each for each in promised if each is not None and each.clock < before_us]
            if len(known) < len(nodes):
                return False
            up_to = max(known)
            told = [proposer.forget(node, up_to) for node in nodes]
            failed = await asyncio.gather(*told, return_exceptions=True)
            return not any(failed)

    async def close(self) -> None:
        """Give up what is under way to slow nodes."""
        for task in self._learning:
            task.cancel()
        await asyncio.gather(*self._learning, return_exceptions=True)
        await self._calls.close()

    async def _run(
        self,
        register: bytes,
        begin: Callable[[Callable[[Ballot], Ballot]], Steps[T]],
        checks: Sequence[Check],
        *,
        thorough: bool = False,
    ) -> T:
        async with self._turn(register):
            try:
                return await self._once(register, begin, checks, thorough)
            except Stale as stale:
                await self._catch_up(stale.node)
            try:
                return await self._once(register, begin, checks, thorough)
            except Stale as still:
                raise QuorumNotReached("the cluster layout is changing") from still

    async def _once(
        self,
        register: bytes,
        begin: Callable[[Callable[[Ballot], Ballot]], Steps[T]],
        checks: Sequence[Check],
        thorough: bool,
    ) -> T:
        """`thorough`: what was chosen is told to a quorum before it returns."""
        with self._layout.writing() as lookup:
            stamps = [await self._stamp(0)]

            def following(above: Ballot) -> Ballot:
                return Ballot(stamps.pop(), self._cluster.node)

            proposer = _Proposer(self._cluster, self._calls, self._service, lookup, register)
            proposer.checks = checks
            steps = begin(following)
            until = asyncio.get_running_loop().time() + DECIDE_SECONDS
            request: Request = next(steps)
            while True:
                answer: Answer = None
                if isinstance(request, Learn) and thorough:
                    await proposer.learn(request.chosen)
                elif isinstance(request, Learn):
                    self._learn(register, request.chosen)
                elif isinstance(request, Pause):
                    await self._pause(request.attempt, until, proposer)
                    stamps.append(await self._stamp(proposer.above.clock))
                elif isinstance(request, Prepare):
                    answer = await proposer.prepare(request)
                    if not stamps:
                        stamps.append(await self._stamp(0))
                else:
                    answer = await proposer.accept(request)
                try:
                    request = steps.send(answer)
                except StopIteration as end:
                    result: T = end.value
                    return result

    async def _pause(self, attempt: int, until: float, proposer: _Proposer) -> None:
        if asyncio.get_running_loop().time() > until:
            raise proposer.why or Unavailable("others keep changing this: try again")
        usual = max(proposer.round_trip(), _PAUSE_SECONDS_MIN)
        longest = min(usual * 2 ** min(attempt, 10), _PAUSE_SECONDS_MAX)
        part = int.from_bytes(self._entropy.token(4), "big") / 2**32
        await asyncio.sleep(part * longest)

    def _learn(self, register: bytes, chosen: Chosen) -> None:
        """Tell all replicas, in the background: who misses it is told by the next proposer."""
        task = asyncio.create_task(self._tell(register, chosen))
        self._learning.add(task)
        task.add_done_callback(self._learning.discard)

    async def _tell(self, register: bytes, chosen: Chosen) -> None:
        with self._layout.writing() as lookup:
            proposer = _Proposer(self._cluster, self._calls, self._service, lookup, register)
            await proposer.learn(chosen)

    @contextlib.asynccontextmanager
    async def _turn(self, register: bytes) -> AsyncIterator[None]:
        turn = self._turns.setdefault(register, _Turn())
        turn.waiting += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[register]


class _Turn:
    """Whose turn it is with one register."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0


class _Proposer:
    """The messages of one operation on one register."""

    def __init__(
        self,
        cluster: Cluster,
        calls: QuorumCalls,
        service: BallotService,
        lookup: Lookup,
        register: bytes,
    ) -> None:
        self.checks: Sequence[Check] = ()
        self.above = NEVER
        """The highest ballot that refused one of ours."""
        self.why: Exception | None = None
        """Why the last phase had no quorum, where that was no other ballot."""
        self._cluster = cluster
        self._calls = calls
        self._service = service
        self._lookup = lookup
        self._register = register
        self._proposed = False

    def sets(self) -> Sequence[NodeSet]:
        return _sets(self._lookup, self._register)

    def round_trip(self) -> float:
        """Seconds to a quorum, usually."""
        worst = 0.0
        for one in self.sets():
            trips = sorted(self._cluster.round_trip(node) for node in one.nodes)
            worst = max(worst, *trips[: one.needed])
        return min(worst, _PAUSE_SECONDS_MAX)

    async def prepare(self, request: Prepare) -> Promises | Refused:
        """Asks deeper where the answers do not reach down to what stands now."""
        down_to = b""
        while True:
            asked = await self._ask(self._preparing(request, down_to))
            if asked.verdict() is not Verdict.DONE:
                return self._refused(asked)
            promised = [one for one in asked.answers.values() if isinstance(one, Promised)]
            reaches = [one.reach for one in promised if one.reach is not None]
            rules = _rules(self._register)
            current = current_row(self._register, [one.promise.rows for one in promised], rules)
            if not reaches or current <= min(reaches):
                return Promises([one.promise for one in promised])
            down_to = current

    def _preparing(
        self, request: Prepare, down_to: bytes
    ) -> Callable[[NodeId], Coroutine[Any, Any, Promised | Ballot]]:
        learnt = None if request.learnt is None else pack_chosen(request.learnt)
        payload = [self._register, request.ballot, learnt, down_to, self.checks]

        async def send(node: NodeId) -> Promised | Ballot:
            if node == self._cluster.node:
                return await self._service.prepare(
                    self._register, request.ballot, request.learnt, down_to, self.checks
                )
            return read_promised(self._register, await self._call(node, PREPARE, payload))

        return send

    async def accept(self, request: Accept) -> Accepted | Refused:
        notes = list(request.notes.items())
        proposal = pack_proposal(request.proposal)
        payload = [
            self._register, request.ballot, proposal, request.carry, notes, self.checks
        ]  # fmt: skip
        self._proposed = True

        async def send(node: NodeId) -> Ballot | None:
            if node == self._cluster.node:
                return await self._service.accept(self._register, request, self.checks)
            refused = await self._call(node, ACCEPT, payload)
            return read_ballot(refused) if refused else None

        asked = await self._ask(send, _size(proposal[1]) + _size(request.carry))
        return Accepted() if asked.verdict() is Verdict.DONE else self._refused(asked)

    async def learn(self, chosen: Chosen) -> None:
        payload = [self._register, pack_chosen(chosen)]

        async def send(node: NodeId) -> None:
            if node == self._cluster.node:
                await self._service.learn(self._register, chosen)
            else:
                await self._call(node, LEARN, payload)

        await self._ask(send, _size(chosen.rows))

    async def promised(self, node: NodeId) -> Ballot | None:
        if node == self._cluster.node:
            return self._service.promised(self._register)
        promised = await self._call(node, FORGET, [self._register, None])
        return None if promised is None else read_ballot(promised)

    async def forget(self, node: NodeId, up_to: Ballot) -> None:
        if node == self._cluster.node:
            await self._service.forget(self._register, up_to)
        else:
            await self._call(node, FORGET, [self._register, up_to])

    async def _call(self, node: NodeId, endpoint: str, payload: list[Any]) -> Any:
        sent = [self._lookup.versions[-1], *payload]
        return (await self._cluster.call(node, endpoint, sent, timeout=DEADLINE_SECONDS)).payload

    async def _ask(
        self, send: Callable[[NodeId], Coroutine[Any, Any, Any]], size: int = 0
    ) -> Round:
        sets = self.sets()
        if not sets:
            raise QuorumNotReached("no cluster layout was applied yet")
        return await self._calls.write(sets, send, size, lambda one: not isinstance(one, Ballot))

    def _refused(self, asked: Round) -> Refused:
        """Raises what the operation ends by."""
        above = [one for one in asked.answers.values() if isinstance(one, Ballot)]
        self.above = max([self.above, *above])
        self.why = None if above else asked.error()
        for node in asked.failed_with(StaleLayout):
            raise self._unknown() if self._proposed else Stale(node)
        if self._is_void(asked):
            return Refused(self.above, void=True)
        if isinstance(self.why, CallerError):
            raise self._unknown() if self._proposed else self.why
        if self.why is not None and not isinstance(self.why, NodeError):
            raise self.why
        return Refused(max(above, default=NEVER))

    def _is_void(self, asked: Round) -> bool:
        """Whether so many hold a fence against what was proposed that it can't be chosen."""
        fenced = asked.failed_with(Fenced)
        return any(
            len(one.nodes) - sum(node in fenced for node in one.nodes) < one.needed
            for one in self.sets()
        )

    def _unknown(self) -> Exception:
        return Unavailable("It is unknown whether this took effect. Look, then retry.")


def _sets(lookup: Lookup, register: bytes) -> Sequence[NodeSet]:
    """Who votes."""
    if is_everywhere(register):
        return lookup.everywhere_sets()
    return lookup.write_sets(register[1])


def _rules(register: bytes) -> Rules:
    return NAMES if is_everywhere(register) else VERSIONS


def _size(rows: Sequence[tuple[bytes, bytes]]) -> int:
    return sum(_ROW_BYTES + len(key) + len(value) for key, value in rows)
