"""What is wrong between nodes, said in one line each, once in a while, and kept for people to see.

Peers and strangers can provoke these lines as often as they like; the log must not fill by it.
"""

from __future__ import annotations

import logging
from typing import Final

from garage_lite.core.cluster.transport import Link
from garage_lite.core.ids import NodeId
from garage_lite.core.ports import Clock
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.core.wire.repeats import Repeats

log = logging.getLogger(__name__)

SAME_IDENTITY: Final = "SameIdentity"
REFUSED_MS: Final = 60_000
"""A line a minute about connections that were refused, whoever they come from."""
_LASTING: Final = ("refused this connection", "another version")
"""Reasons not to reach a node that do not pass by themselves."""


class Complaints:
    """One for the node."""

    def __init__(self, clock: Clock) -> None:
        self.alarms: dict[str, str] = {}
        """What is wrong with this node itself, by what it is about."""
        self._clock = clock
        self._repeats = Repeats()
        self._refusals = Repeats(REFUSED_MS)

    def say(self, line: str) -> None:
        """To the log, unless it was said within the hour."""
        if self._repeats.is_new(line, self._now_ms()):
            log.error("%s", line)

    def refused(self, link: Link) -> None:
        """A connection did not get through the handshake."""
        if not self._refusals.is_new(link.remote_host, self._now_ms()):
            return
        if link.peer:
            why = f"node {link.peer.hex()[:16]}: {link.error}"
        else:
            why = "it does not hold this cluster's rpc_secret, or is no node at all"
        log.warning("Refused a connection from %s: %s", link.remote_host, why)

    def not_reached(self, node: NodeId, error: Exception) -> None:
        """A dial failed. What passes by itself is no complaint."""
        code = getattr(error, "code", None)
        if code == SAME_IDENTITY:
            self.alarms["identity"] = str(error)
        line = f"Can't connect to node {node.hex()[:16]}: {error}"
        if code is not None or any(reason in line for reason in _LASTING):
            self.say(line)
        else:
            log.debug("%s", line)

    def doubled(self, node: NodeId, where: str) -> PeerFailed:
        """Two processes answer as one node: said here; what both of them are told."""
        text = (
            f"Two nodes have the one identity {node.hex()[:16]}, {where}: was its metadata"
            " directory copied? Only one of them may run; the other needs a node_key of its own."
        )
        self.say(text)
        return PeerFailed(SAME_IDENTITY, text, 409)

    def alarm(self, text: str) -> None:
        """A peer says that this node's identity is used twice."""
        self.alarms["identity"] = text
        self.say(text)

    def _now_ms(self) -> int:
        return self._clock.monotonic_us() // 1000
