"""A lease: for some seconds a node may read its own rows as if it had asked a quorum. Pure.

A grant says: "what I know, you know". Whoever gets grants from a read quorum has met every write
that a write quorum had applied when he began to ask, and may count on it until HOLD_US after that
moment. So a write that must be seen everywhere is over once every node has applied it, or can't
hold grants any more that were given before: of those who applied it, so many must have let their
old grants lapse that with the rest there is no read quorum. No grant is ever taken back, and none
is written down: a node that starts says for a while that anybody may hold one of its grants.

Times are of each node's own monotonic clock, in microseconds; they are never compared with
another node's, and may run at different rates (`CLOCK_ERROR`).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

CLOCK_ERROR: Final = 0.01
"""No clock is faster or slower than the true time by more than this share of it."""
HOLD_US: Final = 4_000_000
"""Long enough that at 200 ms a round trip two renewals in a row may get lost, short enough to
wait for where a node has just died."""
GRANT_US: Final = 4_200_000
"""How long who gave a grant, and who waits for it to lapse, must take it to be held: longer than
the holder does, who counts from when he asked, by more than two clocks can differ."""
RENEW_US: Final = HOLD_US // 3

if GRANT_US * (1 - CLOCK_ERROR) < HOLD_US * (1 + CLOCK_ERROR):
    raise AssertionError("a lease would outlive what its granters believe")

N = TypeVar("N", bound=Hashable)

Quorum = tuple[Collection[N], int]
"""Nodes, and how many of them make a quorum."""

NEVER: Final = -1


class Lease(Generic[N]):
    """The holder's side."""

    def __init__(self) -> None:
        self._asked: dict[N, int] = {}

    def granted(self, by: N, asked_us: int) -> None:
        """`by` has answered what was asked at `asked_us`, and all it told was taken in. A node
        grants itself too, unless it may have lost what it had applied."""
        self._asked[by] = max(asked_us, self._asked.get(by, NEVER))

    def until(self, readers: Iterable[Quorum[N]]) -> int:
        """The first moment at which the lease no longer holds. `readers`: a read quorum of each
        is needed."""
        return min([self._until(nodes, needed) for nodes, needed in readers], default=NEVER)

    def _until(self, nodes: Collection[N], needed: int) -> int:
        lapse = sorted((self._lapse(node) for node in nodes), reverse=True)
        return lapse[needed - 1] if len(lapse) >= needed else NEVER

    def _lapse(self, node: N) -> int:
        asked = self._asked.get(node)
        return NEVER if asked is None else asked + HOLD_US


class Outstanding(NamedTuple, Generic[N]):
    """How much longer the grants that a node has given may be held, microseconds; 0: not at all."""

    anybody: int
    """By nodes not named: they may have been granted something before it restarted."""
    named: Mapping[N, int]

    def by(self, node: N) -> int:
        return max(self.anybody, self.named.get(node, 0))


class Grants(Generic[N]):
    """The granter's side: what it remembers of its grants."""

    def __init__(self, now_us: int) -> None:
        """`now_us`: when this node started. It may have granted anything right before."""
        self._anybody_until = now_us + GRANT_US
        self._until: dict[N, int] = {}

    def grant(self, node: N, now_us: int) -> None:
        self._until[node] = now_us + GRANT_US

    def outstanding(self, now_us: int) -> Outstanding[N]:
        self._until = {node: until for node, until in self._until.items() if until > now_us}
        named = {node: until - now_us for node, until in self._until.items()}
        return Outstanding(max(0, self._anybody_until - now_us), named)


class Lapsing(Generic[N]):
    """The writer's side: until when a write may be unknown to a node that reads by its lease."""

    def __init__(self, writers: Iterable[Quorum[N]], written_us: int) -> None:
        """`writers`: who may hold a lease. At `written_us` a write quorum of each has applied the
        write; grants given after that carry it."""
        self._writers = list(writers)
        self._latest = written_us + GRANT_US
        self._told: dict[N, tuple[int, Outstanding[N]]] = {}

    def applied(self, by: N, outstanding: Outstanding[N], now_us: int) -> None:
        """`by` has the write; what it had granted before, it tells now."""
        self._told[by] = (now_us, outstanding)

    def over_us(self) -> int:
        """From when on no node reads by a lease that has not applied the write; NEVER where all
        have. Each `applied` may make it earlier; it is a lease's time away at most."""
        holders = {node for nodes, _ in self._writers for node in nodes}
        for _, outstanding in self._told.values():
            holders.update(outstanding.named)
        lapses = [
            self._lapse(holder, nodes, needed)
            for holder in holders - self._told.keys()
            for nodes, needed in self._writers
        ]
        return min(self._latest, max(lapses, default=NEVER))

    def _lapse(self, holder: N, nodes: Collection[N], needed: int) -> int:
        """When so many of `nodes` have let their grants to `holder` lapse that the others are no
        read quorum."""
        told = [self._told[node] for node in nodes if node in self._told]
        lapses = sorted(now_us + outstanding.by(holder) for now_us, outstanding in told)
        return lapses[needed - 1] if len(lapses) >= needed else self._latest
