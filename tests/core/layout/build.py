"""Small layouts for tests, and hypothesis strategies for them."""

from __future__ import annotations

from hypothesis import strategies as st

from garage_lite.core.ids import NodeId
from garage_lite.core.layout.history import LayoutHistory
from garage_lite.core.layout.roles import Parameters, Role

GB = 10**9


def node(number: int) -> NodeId:
    """A node id that sorts by `number`."""
    return NodeId(number.to_bytes(2, "big") * 16)


def history(*roles: tuple[int, str, int | None], copies: int = 3) -> LayoutHistory:
    """Version 1, of (node number, zone, capacity)."""
    made = LayoutHistory.fresh(Parameters(copies))
    for number, zone, capacity in roles:
        made = made.with_role(node(number), Role(zone, capacity), 10)
    return made.applied(1, 20)


def three_zones() -> LayoutHistory:
    return history((1, "a", 100 * GB), (2, "b", 100 * GB), (3, "c", 100 * GB))


def roles() -> st.SearchStrategy[Role]:
    zones = st.sampled_from(["a", "b", "c"])
    capacities = st.one_of(st.none(), st.integers(1024, 10**12))
    tags = st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple)
    return st.builds(Role, zones, capacities, tags)
