"""One question to several nodes at once, until enough of each quorum have answered.

Writes go to everybody, reads to as few as can answer, nearest first, and to one more whenever an
answer is late (hedging). Nobody waits for a slow or dead node once the quorums are there; what a
write has not yet told such a node stays under way for a while, within a bound. Knows nodes and
answers; must not know rows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final

from garage_lite.core import errors
from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.errors import CallerError, DiskFull, GarageLiteError, QuorumNotReached
from garage_lite.core.ids import NodeId
from garage_lite.core.layout.lookup import NodeSet
from garage_lite.core.limits import LINGERING_BYTES_MAX
from garage_lite.core.quorum import Verdict, verdict
from garage_lite.core.wire.messages import PeerFailed

DEADLINE_SECONDS: Final = 10.0
"""Of every phase: after it what has not answered has failed."""
HEDGE_SECONDS_MIN: Final = 0.02
"""A garbage collection or a sync of the disk is no reason to ask another node."""
HEDGE_SECONDS_MAX: Final = 1.0
HEDGE_ROUND_TRIPS: Final = 2.0
OTHER_WAY_SECONDS_MIN: Final = 0.1
"""A write has another way when a quorum has answered and not all as it should: that costs two
phases, so a slow sync of the disk of who is still silent is no reason for it."""
SUSPECT_SECONDS: Final = 10.0
"""A node that was late is asked last, unless it answers something: one read in so long tries it."""

Send = Callable[[NodeId], Coroutine[Any, Any, Any]]


class Round:
    """The answers to one question, and whether they are enough."""

    def __init__(self, sets: Sequence[NodeSet], counts: Callable[[Any], bool]) -> None:
        """`counts(answer)`: whether it counts for a quorum; else it counts as a failure."""
        self.sets = sets
        self.answers: dict[NodeId, Any] = {}
        self.failures: dict[NodeId, Exception] = {}
        self._counts = counts
        self._good: set[NodeId] = set()
        self._bad: set[NodeId] = set()

    def answered(self, node: NodeId, answer: Any) -> None:
        self.answers[node] = answer
        (self._good if self._counts(answer) else self._bad).add(node)

    def failed(self, node: NodeId, error: Exception) -> None:
        self.failures[node] = error
        self._bad.add(node)

    def verdict(self) -> Verdict:
        """DONE when each set has its quorum, IMPOSSIBLE when one can't have it any more."""
        worst = Verdict.DONE
        for one in self.sets:
            good = sum([node in self._good for node in one.nodes])
            bad = sum([node in self._bad for node in one.nodes])
            found = verdict(one.needed, len(one.nodes), good, bad)
            if found is Verdict.IMPOSSIBLE:
                return found
            if found is Verdict.WAIT:
                worst = found
        return worst

    def heard(self) -> bool:
        """Whether a quorum of each set has answered, if not all as it should."""
        return all(
            sum([node in self.answers for node in one.nodes]) >= one.needed for one in self.sets
        )

    def failed_with(self, kind: type[GarageLiteError]) -> list[NodeId]:
        """The nodes that failed with this error, here or there."""
        return [node for node, error in self.failures.items() if _code(error) == kind.__name__]

    def error(self) -> Exception:
        """Why there is no quorum. What replicas refused it for only where there can't be one
        whatever the others say: else it is unknown."""
        refusals = {
            node: refusal
            for node, error in self.failures.items()
            if (refusal := _refusal(error)) is not None
        }
        for one in self.sets:
            refused = [node for node in one.nodes if node in refusals]
            if len(one.nodes) - len(refused) < one.needed:
                return refusals[refused[0]]
        for error in self.failures.values():
            if not isinstance(error, GarageLiteError):
                return error
        if self.failed_with(DiskFull):
            return DiskFull()
        short = min(self.sets, key=lambda one: sum(node in self._good for node in one.nodes))
        good = sum(node in self._good for node in short.nodes)
        why = "; ".join(sorted({str(error) for error in self.failures.values()}))
        return QuorumNotReached(
            f"{good} of the {short.needed} nodes needed answered{f' ({why})' if why else ''}"
        )


def _code(error: Exception) -> str:
    return error.code if isinstance(error, PeerFailed) else type(error).__name__


def _refusal(error: Exception) -> CallerError | None:
    """The error of the caller that a replica has answered, here or by its name from a peer."""
    if isinstance(error, CallerError):
        return error
    if isinstance(error, PeerFailed):
        kind = getattr(errors, error.code, None)
        if isinstance(kind, type) and issubclass(kind, CallerError):
            return kind(str(error))
    return None


class QuorumCalls:
    """Asks nodes for one node."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._suspects: dict[NodeId, float] = {}
        """Node that was late -> until when it is asked last (time of the loop)."""
        self._running: set[asyncio.Task[Any]] = set()
        self._lingering: Counter[NodeId] = Counter()
        """Bytes of writes that were not told to a node when their quorums were there."""

    async def write(
        self,
        sets: Sequence[NodeSet],
        send: Send,
        size: int,
        counts: Callable[[Any], bool] = lambda answer: True,
        known: Mapping[NodeId, Any] | None = None,
    ) -> Round:
        """Send to every node of the sets; returns once each has its quorum or can't have it. Where
        answers that don't count are among those of a quorum, a silent node is not waited for long:
        the caller has another way.

        `size`: bytes of a message. `known`: answers that are there already, whose nodes are not
        asked. The caller looks at `verdict()`.
        """
        asked = Round(sets, counts)
        for node, answer in (known or {}).items():
            asked.answered(node, answer)
        waiting = _Waiting(asked)
        nodes = dict.fromkeys(node for one in sets for node in one.nodes)
        tasks = {
            node: self._start(node, send(node), waiting)
            for node in nodes
            if node not in asked.answers
        }
        try:
            await waiting.decided(DEADLINE_SECONDS, heard=True)
            if asked.verdict() is Verdict.WAIT and asked.heard():
                late = [node for node, task in tasks.items() if not task.done()]
                await waiting.decided(max(self._patience(late), OTHER_WAY_SECONDS_MIN))
        finally:
            for node, task in tasks.items():
                if not task.done():
                    self._linger(node, task, size)
        return asked

    async def read(self, asked: NodeSet, send: Send) -> Round:
        """Ask as many as are needed, and others for those that fail or are late; returns once
        there is a quorum or can't be one. The caller looks at `verdict()`."""
        answers = Round((asked,), lambda answer: True)
        waiting = _Waiting(answers)
        order = self._by_promise(asked.nodes)
        tasks = {node: self._start(node, send(node), waiting) for node in order[: asked.needed]}
        rest = order[asked.needed :]
        until = asyncio.get_running_loop().time() + DEADLINE_SECONDS
        try:
            while answers.verdict() is Verdict.WAIT:
                failed = len(answers.failures)
                left = until - asyncio.get_running_loop().time()
                if left <= 0:
                    break
                under_way = [node for node, task in tasks.items() if not task.done()]
                patience = min(left, self._patience(under_way)) if rest else left
                on_time = await waiting.decided(patience, failed)
                if not on_time:
                    self._suspect(node for node in under_way if not tasks[node].done())
                if rest and answers.verdict() is Verdict.WAIT:
                    tasks[rest[0]] = self._start(rest[0], send(rest[0]), waiting)
                    rest = rest[1:]
        finally:
            for task in tasks.values():
                task.cancel()
        return answers

    async def close(self) -> None:
        """Give up what still is under way."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    # --- one node

    def _start(
        self, node: NodeId, call: Coroutine[Any, Any, Any], waiting: _Waiting
    ) -> asyncio.Task[Any]:
        task = asyncio.create_task(call)
        self._running.add(task)
        task.add_done_callback(lambda done: self._ended(node, done, waiting))
        return task

    def _ended(self, node: NodeId, task: asyncio.Task[Any], waiting: _Waiting) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._suspects.pop(node, None)
            waiting.answered(node, task.result())
        elif isinstance(error, Exception):
            waiting.failed(node, error)
        else:
            raise error

    def _linger(self, node: NodeId, task: asyncio.Task[Any], size: int) -> None:
        """Let a write go on to a node that is late, unless too much waits for it already: what
        it misses it gets by anti-entropy."""
        if self._lingering[node] + size > LINGERING_BYTES_MAX:
            task.cancel()
            return
        self._lingering[node] += size
        timer = asyncio.get_running_loop().call_later(DEADLINE_SECONDS, task.cancel)

        def done(_: asyncio.Task[Any]) -> None:
            timer.cancel()
            self._lingering[node] -= size
            if not self._lingering[node]:
                del self._lingering[node]

        task.add_done_callback(done)

    # --- who first, and how long

    def _by_promise(self, nodes: Sequence[NodeId]) -> list[NodeId]:
        now = asyncio.get_running_loop().time()

        def rank(node: NodeId) -> tuple[bool, bool, float]:
            until = self._suspects.get(node)
            suspect = until is not None and until > now
            if until is not None and not suspect:
                self._suspects[node] = now + SUSPECT_SECONDS
            return not self._cluster.is_up(node), suspect, self._cluster.round_trip(node)

        return sorted(nodes, key=rank)

    def _patience(self, under_way: Sequence[NodeId]) -> float:
        usual = max([self._cluster.round_trip(node) for node in under_way], default=0.0)
        return min(max(HEDGE_ROUND_TRIPS * usual, HEDGE_SECONDS_MIN), HEDGE_SECONDS_MAX)

    def _suspect(self, nodes: Iterable[NodeId]) -> None:
        until = asyncio.get_running_loop().time() + SUSPECT_SECONDS
        for node in nodes:
            self._suspects[node] = until


class _Waiting:
    """Who waits for a round, woken by its answers."""

    def __init__(self, asked: Round) -> None:
        self._round = asked
        self._wake: asyncio.Future[None] | None = None
        self._failures: int | None = None
        self._heard = False

    def answered(self, node: NodeId, answer: Any) -> None:
        self._round.answered(node, answer)
        self._look()

    def failed(self, node: NodeId, error: Exception) -> None:
        self._round.failed(node, error)
        self._look()

    def _ready(self) -> bool:
        more_failed = self._failures is not None and len(self._round.failures) > self._failures
        heard = self._heard and self._round.heard()
        return more_failed or heard or self._round.verdict() is not Verdict.WAIT

    def _look(self) -> None:
        if self._wake is not None and not self._wake.done() and self._ready():
            self._wake.set_result(None)

    async def decided(
        self, seconds: float, failures: int | None = None, *, heard: bool = False
    ) -> bool:
        """Until the round is decided, or (with `failures`) more than so many nodes have failed,
        or (with `heard`) a quorum has answered whatever it may be; whether that came in time."""
        self._failures, self._heard = failures, heard
        if self._ready():
            return True
        loop = asyncio.get_running_loop()
        wake = self._wake = loop.create_future()
        timer = loop.call_later(seconds, _give_up, wake)
        try:
            await wake
        finally:
            timer.cancel()
            self._wake = None
        return self._ready()


def _give_up(wake: asyncio.Future[None]) -> None:
    if not wake.done():
        wake.set_result(None)
