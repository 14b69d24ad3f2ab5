"""Maximum flow of least cost on small integer graphs, deterministic.

Primal-dual (Ford and Fulkerson's, as in Ahuja, Magnanti and Orlin, "Network Flows", chapter 9):
shortest distances by reduced cost, then a blocking flow (Dinic) on the arcs of reduced cost 0,
until the sink is out of reach. Costs are 0 or 1, so distances are found with buckets and the
number of rounds is at most the dearest path's cost. Knows nothing of nodes and partitions.
"""

from __future__ import annotations

from collections import deque
from typing import Final

_FAR: Final = 1 << 60


class FlowGraph:
    """Arcs in pairs: arc `a` and its reverse `a ^ 1`. Costs are not negative."""

    __slots__ = ("arcs_of", "capacity", "cost", "heads", "potential")

    def __init__(self, vertices: int) -> None:
        self.arcs_of: list[list[int]] = [[] for _ in range(vertices)]
        self.heads: list[int] = []
        self.capacity: list[int] = []
        self.cost: list[int] = []
        self.potential = [0] * vertices

    def add(self, tail: int, head: int, capacity: int, cost: int = 0) -> int:
        """A new arc; returns its number. Vertices visit their arcs in order of addition."""
        arc = len(self.heads)
        self.heads += (head, tail)
        self.capacity += (capacity, 0)
        self.cost += (cost, -cost)
        self.arcs_of[tail].append(arc)
        self.arcs_of[head].append(arc + 1)
        return arc

    def used(self, arc: int) -> bool:
        """Whether flow goes through `arc`."""
        return self.capacity[arc ^ 1] > 0

    def fill(self, source: int, sink: int) -> int:
        """Send as much flow as there can be, at least cost; returns how much was added."""
        total = 0
        while self._raise_potentials(source, sink):
            while (level := self._levels(source, sink)) is not None:
                total += self._blocking_flow(source, sink, level)
        return total

    def _raise_potentials(self, source: int, sink: int) -> bool:
        """Shortest distances from `source` by reduced cost; whether `sink` can be reached."""
        heads, capacity, cost, potential = self.heads, self.capacity, self.cost, self.potential
        distance = [_FAR] * len(potential)
        distance[source] = 0
        buckets: dict[int, deque[int]] = {0: deque((source,))}
        now = 0
        while buckets:
            while now not in buckets:
                now += 1
            queue = buckets[now]
            while queue:
                tail = queue.popleft()
                if distance[tail] != now:
                    continue
                base = now + potential[tail]
                for arc in self.arcs_of[tail]:
                    if capacity[arc] > 0:
                        head = heads[arc]
                        reached = base + cost[arc] - potential[head]
                        if reached < distance[head]:
                            distance[head] = reached
                            buckets.setdefault(reached, deque()).append(head)
            del buckets[now]
        end = distance[sink]
        if end == _FAR:
            return False
        for vertex, reached in enumerate(distance):
            potential[vertex] += min(reached, end)
        return True

    def _levels(self, source: int, sink: int) -> list[int] | None:
        """Steps from `source` over arcs of reduced cost 0, or None where `sink` is out of reach."""
        heads, capacity, cost, potential = self.heads, self.capacity, self.cost, self.potential
        level = [-1] * len(potential)
        level[source] = 0
        queue = deque((source,))
        while queue:
            tail = queue.popleft()
            base = potential[tail]
            for arc in self.arcs_of[tail]:
                head = heads[arc]
                if level[head] < 0 and capacity[arc] > 0 and base + cost[arc] == potential[head]:
                    level[head] = level[tail] + 1
                    queue.append(head)
        return None if level[sink] < 0 else level

    def _blocking_flow(self, source: int, sink: int, level: list[int]) -> int:
        """Saturate every shortest path of the levelled graph, depth first."""
        heads, capacity, cost, potential = self.heads, self.capacity, self.cost, self.potential
        following = [0] * len(potential)  # of each vertex, the first arc not yet found useless
        path: list[int] = []
        vertex, total = source, 0
        while True:
            if vertex == sink:
                total += self._push(path)
                path.clear()
                vertex = source
                continue
            arcs = self.arcs_of[vertex]
            below, base = level[vertex] + 1, potential[vertex]
            for place in range(following[vertex], len(arcs)):
                arc = arcs[place]
                head = heads[arc]
                if (
                    capacity[arc] > 0
                    and level[head] == below
                    and base + cost[arc] == potential[head]
                ):
                    following[vertex] = place
                    path.append(arc)
                    vertex = head
                    break
            else:
                following[vertex] = len(arcs)
                if not path:
                    return total
                vertex = heads[path.pop() ^ 1]
                following[vertex] += 1

    def _push(self, path: list[int]) -> int:
        amount = min(self.capacity[arc] for arc in path)
        for arc in path:
            self.capacity[arc] -= amount
            self.capacity[arc ^ 1] += amount
        return amount
