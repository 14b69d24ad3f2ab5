"""A model of one object key on a few replicas: the rules of core/ballot.py and
core/table/deciding.py, driven by a small deterministic network.

Skewed coarse clocks, loss, duplicates, reordering, writers that crash, anti-entropy, pruning; or
one replica that is frozen while nothing else is lost. All comes from one seed.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from garage_lite.core import ballot
from garage_lite.core.ballot import (
    Accept,
    Accepted,
    Acceptor,
    Ballot,
    Learn,
    Pause,
    Prepare,
    Promise,
    Promises,
    Refused,
)
from garage_lite.core.errors import CallerError, PreconditionFailed, Unavailable
from garage_lite.core.hlc import HybridClock
from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.model.objects import Floor, Kind, ObjectVersion, below_floor, survivors
from garage_lite.core.model.rowkeys import Stamp, object_prefix, object_row, stamp_of
from garage_lite.core.table import deciding
from garage_lite.core.table.schema import merge_rows
from tests.core.ballot_checker import Operation, linearizable

NODES: Final = 3
QUORUM: Final = 2
TRIES_MAX: Final = 40
REST: Final = 200_000
PREFIX: Final = object_prefix(BucketId(b"b" * 32), b"key")

MIXES: Final = (
    ("put", "delete", "asked", "absent", "absent", "match", "match", "read"),
    ("put", "put", "match", "match"),
    ("put", "absent", "absent", "absent"),
    ("put", "put", "delete", "absent"),
)

Row = tuple[bytes, bytes]


def version_row(version: ObjectVersion) -> Row:
    return object_row(PREFIX, version.stamp), version.encode()


class ModelReplica:
    """One replica: rows, what floors let go, and the acceptor."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.acceptor = Acceptor()
        self.late: set[bytes] = set()

    def merge(self, rows: Sequence[Row]) -> None:
        stamps = [stamp_of(key) for key in {*self.rows, *(key for key, _ in rows)}]
        stamps += [stamp_of(key) for key, _ in self.acceptor.proposal.rows]
        for key, value in rows:
            if key not in self.rows:
                stamp = stamp_of(key)
                if deciding.is_late(stamp, [other for other in stamps if other != stamp]):
                    self.late.add(key)
            self.rows[key] = merge_rows(key, self.rows.get(key), value)
            version = ObjectVersion.decode(stamp_of(key), value)
            if version.ballot is not None:
                name = deciding.name_of(key)
                self.acceptor = self.acceptor.met(name, Ballot(*version.ballot))
        for version in below_floor(deciding.versions_in(self.rows)):
            del self.rows[object_row(PREFIX, version.stamp)]

    def blind(self, row: Row) -> bool:
        """Whether it is here on time."""
        self.merge([row])
        return row[0] not in self.late

    def promise(self) -> Promise:
        own = self.acceptor
        return Promise(dict(self.rows), own.accepted, own.proposal, dict(own.notes), own.forgot)

    def newest_clock(self) -> int:
        known = [*self.rows, *(key for key, _ in self.acceptor.proposal.rows)]
        return max((stamp_of(key).clock for key in known), default=0)

    def learn(self, chosen: ballot.Chosen) -> None:
        self.merge(chosen.rows)
        self.acceptor = self.acceptor.learn(chosen.ballot, chosen.names)

    def prepare(self, request: Prepare) -> Promise | Ballot:
        if request.learnt is not None:
            self.learn(request.learnt)
        state = self.acceptor.prepare(request.ballot)
        if state is None:
            return self.acceptor.promised
        self.acceptor = state
        return self.promise()

    def accept(self, request: Accept) -> bool | Ballot:
        if self.acceptor.accept(request.ballot, request.proposal, request.notes) is None:
            return self.acceptor.promised
        self.merge(request.carry)
        state = self.acceptor.accept(request.ballot, request.proposal, request.notes)
        self.acceptor = state or self.acceptor
        return True


@dataclass
class Rules:
    """What a mutant may change of the model itself; the rest it patches in the product."""

    quorum: int = QUORUM
    writes_again_without_ballot: bool = False
    shows_accepted: bool = False
    skips_voiding: bool = False


@dataclass(order=True)
class _Event:
    at: int
    number: int
    run: Callable[[], None] = field(compare=False)


class World:
    def __init__(self, seed: int, *, frozen: bool = False, rules: Rules | None = None) -> None:
        self.random = random.Random(seed)
        self.rules = rules or Rules()
        self.now = 0
        self.history: list[Operation] = []
        self.reads: list[Operation] = []
        self.replicas = [ModelReplica() for _ in range(NODES)]
        self.ballots = 0
        pick = self.random.choice
        self.floor = pick([Floor.ALL, Floor.ALL, Floor.NONE, Floor.NULL])
        self.null = self.floor is not Floor.NONE
        self.loss = 0.0 if frozen else pick([0, 0.05, 0.2, 0.4])
        self.crash = 0.0 if frozen else pick([0, 0, 0.1, 0.3])
        self.hush = 0.0 if frozen else pick([0, 0, 0.9])
        """How often what nobody waits for is lost besides."""
        self.slow = pick([5, 30, 200])
        self.mix = pick(MIXES)
        self.tick = pick([1, 1, 50, 1000])
        self.frozen = self.random.randrange(NODES) if frozen else None
        self._skew = [pick([0, 0, -60, 60, 300, -300]) for _ in range(NODES)]
        self._clocks = [HybridClock() for _ in range(NODES)]
        self._writers: dict[bytes, int] = {}
        self._events: list[_Event] = []
        self._number = 0

    # --- time and messages

    def at(self, delay: int, run: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, _Event(self.now + delay, self._number, run))

    def clock(self, node: int, above: int = 0) -> int:
        now = (1000 + self.now + self._skew[node]) // self.tick
        return self._clocks[node].next(now, above)

    def _lost(self, node: int) -> bool:
        return node == self.frozen or self.random.random() < self.loss

    def _delay(self) -> int:
        return self.random.randint(1, self.slow)

    def ask(
        self,
        question: Callable[[ModelReplica], Any],
        enough: Callable[[list[Any]], bool],
        too_late: Callable[[list[Any]], None] | None = None,
    ) -> None:
        """Ask all; `enough(answers so far)` ends it; `too_late(answers)` after a deadline."""
        answers: dict[int, Any] = {}
        done = False

        def arrive(node: int, answer: Any) -> None:
            nonlocal done
            if done or node in answers:
                return
            if self.random.random() < self.crash:
                done = True
                return
            answers[node] = answer
            done = enough(list(answers.values()))

        def deliver(node: int) -> None:
            answer = question(self.replicas[node])
            if not self._lost(node):
                self.at(self._delay(), lambda: arrive(node, answer))

        def deadline() -> None:
            nonlocal done
            if not done and too_late is not None:
                done = True
                too_late(list(answers.values()))

        for node in range(NODES):
            for _ in range(2 if self.random.random() < 0.05 else 1):
                if not self._lost(node):
                    self.at(self._delay(), lambda node=node: deliver(node))  # type: ignore[misc]
        self.at(2 * self.slow + 50, deadline)

    def tell(self, news: Callable[[ModelReplica], Any]) -> None:
        for replica in self.replicas:
            lost = self._lost(self.replicas.index(replica)) or self.random.random() < self.hush
            if not lost:
                self.at(self._delay(), lambda replica=replica: news(replica))  # type: ignore[misc]

    # --- ballots

    def decide(
        self,
        node: int,
        steps: Generator[ballot.Request, ballot.Answer, Any],
        then: Callable[[Any], None],
    ) -> None:
        def step(answer: ballot.Answer) -> None:
            try:
                request = steps.send(answer)
            except StopIteration as end:
                then(end.value)
            except Unavailable:
                pass
            else:
                carry_out(request)

        def carry_out(request: ballot.Request) -> None:
            if isinstance(request, Learn):
                self.tell(lambda replica: replica.learn(request.chosen))
                step(None)
            elif isinstance(request, Pause):
                if request.attempt < TRIES_MAX:
                    longest = 4 * self.slow * (1 + request.attempt // 4)
                    self.at(self.random.randint(1, longest), lambda: step(None))
            elif isinstance(request, Prepare):
                self._vote(lambda replica: replica.prepare(request), Promises, step)
            elif self.rules.skips_voiding and request.proposal == ballot.NOTHING:
                step(Accepted())
            else:
                self._vote(lambda r: self._accept(r, request), lambda _: Accepted(), step)

        self.ballots += 1
        step(None)

    def _accept(self, replica: ModelReplica, request: Accept) -> bool | Ballot:
        accepted = replica.accept(request)
        if accepted is True and self.rules.shows_accepted:
            replica.merge(request.proposal.rows)
        return accepted

    def _vote(
        self,
        question: Callable[[ModelReplica], Any],
        won: Callable[[list[Any]], ballot.Answer],
        step: Callable[[ballot.Answer], None],
    ) -> None:
        def refused(answers: list[Any]) -> None:
            above = [answer for answer in answers if isinstance(answer, Ballot)]
            step(Refused(max(above, default=ballot.NEVER)))

        def enough(answers: list[Any]) -> bool:
            ayes = [answer for answer in answers if not isinstance(answer, Ballot)]
            if len(ayes) >= self.rules.quorum:
                step(won(ayes))
            elif len(answers) - len(ayes) > NODES - self.rules.quorum:
                refused(answers)
            else:
                return False
            return True

        self.ask(question, enough, refused)

    def _ballots_of(self, node: int) -> Callable[[Ballot], Ballot]:
        return lambda above: Ballot(self.clock(node, above.clock), bytes([node]))

    def judged(self, node: int, judge: ballot.Judge[Any], then: Callable[[Any], None]) -> None:
        self.decide(node, ballot.deciding(judge, self._ballots_of(node), deciding.VERSIONS), then)

    # --- clients

    def _new_id(self, operation: Operation) -> VersionId:
        new = VersionId(self.random.randbytes(16))
        self._writers[new] = operation.id
        return new

    def _version(self, operation: Operation, clock: int = 0) -> ObjectVersion:
        kind = Kind.DELETE_MARKER if operation.kind == "delete" else Kind.INLINE
        stamp = Stamp(clock, 0, self._new_id(operation))
        return ObjectVersion(stamp, kind, 0, null=self.null, floor=self.floor)

    def begin(self, kind: str, expects: int | None = None) -> Operation:
        operation = Operation(len(self.history) + len(self.reads), kind, self.now, expects)
        (self.reads if kind == "read" else self.history).append(operation)
        return operation

    def _end(self, operation: Operation, ok: bool) -> None:
        operation.end, operation.ok = self.now, ok

    def blind(self, node: int, kind: str) -> None:
        operation = self.begin(kind)
        version = self._version(operation, self.clock(node))
        row = version_row(version)

        def stands(_: ObjectVersion) -> None:
            self._end(operation, True)
            settled = version_row(replace(version, settled=True))
            self.tell(lambda replica: replica.merge([settled]))

        def finish() -> None:
            if self.rules.writes_again_without_ballot:
                top = max(replica.newest_clock() for replica in self.replicas)
                again = self._version(operation, self.clock(node, top))
                again = replace(again, replaces=version.stamp)

                def written(answers: list[bool]) -> bool:
                    if len(answers) == QUORUM:
                        stands(again)
                    return len(answers) == QUORUM

                self.ask(lambda replica: replica.blind(version_row(again)), written)
                return
            ids = (self._new_id(operation), version.id)
            judge = deciding.finishing_blind(PREFIX, version, ids[operation.id % 2])
            self.judged(node, judge, finished)

        def finished(end: ObjectVersion) -> None:
            stands(end) if end.stamp == version.stamp else self._end(operation, True)

        def enough(answers: list[bool]) -> bool:
            if answers.count(True) == QUORUM:
                stands(version)
            elif answers.count(False) > NODES - QUORUM:
                finish()
            else:
                return False
            return True

        self.ask(lambda replica: replica.blind(row), enough, lambda _: finish())

    def asked(self, node: int, kind: str) -> None:
        """A write that asks for the newest stamp first, as one with blocks does: then it stands
        wherever a quorum has it, on time or late."""
        operation = self.begin(kind)

        def put(clock: int) -> None:
            version = self._version(operation, self.clock(node, clock))
            row = version_row(version)

            def stands(answers: list[bool]) -> bool:
                if len(answers) < QUORUM:
                    return False
                self._end(operation, True)
                settled = version_row(replace(version, settled=True))
                self.tell(lambda replica: replica.merge([settled]))
                return True

            self.ask(lambda replica: replica.blind(row), stands)

        def asked(clocks: list[int]) -> bool:
            if len(clocks) == QUORUM:
                put(max(clocks))
            return len(clocks) == QUORUM

        self.ask(lambda replica: replica.newest_clock(), asked)

    def conditional(self, node: int, expects: int | None) -> None:
        operation = self.begin("absent" if expects is None else "match", expects)

        def check(alive: Sequence[ObjectVersion], placed: ObjectVersion) -> None:
            there = alive[0] if alive and alive[0].has_data else None
            if (self._writers[there.id] if there else None) != expects:
                raise PreconditionFailed

        def done(result: ObjectVersion | CallerError) -> None:
            self._end(operation, isinstance(result, ObjectVersion))

        version = self._version(operation)
        self.judged(node, deciding.conditional(PREFIX, version, check), done)

    def read(self, node: int, then: Callable[[int | None], None] | None = None) -> None:
        operation = self.begin("read")

        def look(tries: int) -> None:
            def seen(answers: list[Promise]) -> bool:
                if len(answers) == QUORUM:
                    judge(ballot.union(answers, merge_rows), tries)
                return len(answers) == QUORUM

            self.ask(lambda replica: replica.promise(), seen)

        def judge(known: ballot.Known, tries: int) -> None:
            if deciding.must_settle(known):
                if tries:
                    steps = ballot.settling(self._ballots_of(node), deciding.VERSIONS)
                    self.decide(node, steps, lambda _: look(tries - 1))
                return
            alive = survivors(deciding.versions_in(known.rows))
            there = alive[0] if alive and alive[0].has_data else None
            operation.got = self._writers[there.id] if there else None
            self._end(operation, True)
            if then is not None:
                then(operation.got)

        look(6)

    # --- the run

    def exchange(self, one: int, other: int) -> None:
        if self.frozen not in (one, other):
            self.replicas[other].merge(sorted(self.replicas[one].rows.items()))

    def _start_something(self) -> None:
        node = self.random.randrange(NODES)
        what = self.random.choice(self.mix)
        if what in ("put", "delete"):
            self.blind(node, what)
        elif what == "asked":
            self.asked(node, "put")
        elif what == "absent":
            self.conditional(node, None)
        elif what == "match":
            self.read(node, lambda got: None if got is None else self.conditional(node, got))
        else:
            self.read(node)

    def run(self) -> World:
        window = self.random.choice([self.slow, 3 * self.slow, 400])
        for _ in range(self.random.randint(3, 7)):
            self.at(self.random.randint(0, window), self._start_something)
        for _ in range(self.random.choice([0, 6])):
            one, other = self.random.randrange(NODES), self.random.randrange(NODES)
            self.at(self.random.randint(0, 900), lambda a=one, b=other: self.exchange(a, b))  # type: ignore[misc]
        for at in (REST - 20_000, REST - 19_000):
            for one in range(NODES):
                for other in range(NODES):
                    self.at(at, lambda a=one, b=other: self.exchange(a, b))  # type: ignore[misc]
        self.at(REST, self._rest)
        self.at(REST + 40_000, lambda: self.read(1))
        while self._events:
            event = heapq.heappop(self._events)
            self.now = event.at
            event.run()
        return self

    def _rest(self) -> None:
        self.loss = self.crash = self.hush = 0.0
        self.read(0)

    # --- what must hold

    def fault(self) -> str | None:
        """What went wrong, or None."""
        last = [read for read in self.reads if read.start >= REST and read.ok]
        if len(last) < 2:
            return "it never came to rest"
        if self.frozen is not None and any(each.ok is None for each in self.history):
            return "an operation never ended"
        if not linearizable([*self.history, *last]):
            return "not linearizable"
        return self._bad_read() or self._bad_versions()

    def _bad_read(self) -> str | None:
        writes = {write.id: write for write in self.history}
        for read in self.reads:
            write = writes.get(read.got) if read.got is not None else None
            if write is None or read.end is None:
                continue
            if write.ok is False:
                return "a read showed what was refused"
            if write.end is not None and any(
                other.ok
                and other.end is not None
                and other.end < read.start
                and other.start > write.end
                for other in self.history
            ):
                return "a stale read"
        return None

    def _bad_versions(self) -> str | None:
        rows: dict[bytes, bytes] = {}
        for node, replica in enumerate(self.replicas):
            if node != self.frozen:
                for key, value in replica.rows.items():
                    rows[key] = merge_rows(key, rows.get(key), value)
        alive = survivors(deciding.versions_in(rows))
        writers = [self._writers[version.id] for version in alive]
        if any(write.ok is False and write.id in writers for write in self.history):
            return "a refused write became a version"
        return "one write became two versions" if len(set(writers)) < len(writers) else None
