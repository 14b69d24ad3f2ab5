"""What a node learns of others as sources of blocks: how near each is, how long to wait for it.

A small call's round trip says how far a node is; how soon the first byte of a block usually comes
says how busy its disk and its link are. A node that just let somebody wait in vain is asked last
for a while. Must not know how blocks are asked for; time is an argument, microseconds.
"""

from __future__ import annotations

from typing import Final

from garage_lite.core.ids import NodeId

PATIENCE_US_MIN: Final = 30_000
"""A disk that must seek is not late yet."""
PATIENCE_US_MAX: Final = 3_000_000
UNKNOWN_US: Final = 50_000
"""How long a block is taken to need on top of a round trip before one was ever read."""
AVOID_US: Final = 10_000_000
"""How long a node that failed is asked last."""
_NEAR_US: Final = 2000
"""Round trips up to here are one home network."""
_SHARE_OF_NEWS: Final = 0.2
_LAST_BAND: Final = 1000


class Nearness:
    """Memory of the answers of other nodes; one number and one time a node."""

    def __init__(self) -> None:
        self._usual_us: dict[NodeId, float] = {}
        self._avoided_until_us: dict[NodeId, int] = {}

    def answered(self, node: NodeId, took_us: int) -> None:
        """The first byte of a block came after `took_us`."""
        usual = self._usual_us.get(node, float(took_us))
        self._usual_us[node] = usual + (took_us - usual) * _SHARE_OF_NEWS
        self._avoided_until_us.pop(node, None)

    def failed(self, node: NodeId, now_us: int) -> None:
        """It had no good copy, or was too late."""
        self._avoided_until_us[node] = now_us + AVOID_US

    def patience_us(self, node: NodeId, round_trip_us: float) -> int:
        """How long to wait for the first byte before another node is asked too: about twice
        what is usual."""
        usual = self._usual_us.get(node, round_trip_us + UNKNOWN_US)
        return int(min(max(2 * usual, PATIENCE_US_MIN), PATIENCE_US_MAX))

    def band(self, node: NodeId, round_trip_us: float, now_us: int) -> int:
        """How far a node is; those of one band are equally near. Each is twice the one before."""
        if now_us < self._avoided_until_us.get(node, 0):
            return _LAST_BAND
        far = min(round_trip_us, 3_600_000_000.0) / _NEAR_US
        return int(far).bit_length()
