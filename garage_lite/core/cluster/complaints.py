"""What is wrong between nodes, said in one line each, once in a while, and kept for people to see.

Peers and strangers can provoke these lines as often as they like; the log must not fill by it.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
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
TWIN_SECONDS: Final = 600
"""A twin tries to connect again and again: once it is silent for this long it is gone."""
_LASTING: Final = ("refused this connection", "another version")
"""Reasons not to reach a node that do not pass by themselves."""


class Complaints:
    """One for the node."""

    def __init__(self, clock: Clock) -> None:
        self._alarms: dict[str, tuple[str, int | None]] = {}
        """By what it is about: the text, and until when it counts (monotonic ms)."""
        self._clock = clock
        self._repeats = Repeats()
        self._refusals = Repeats(REFUSED_MS)

    @property
    def alarms(self) -> dict[str, str]:
        """What is wrong with this node itself, by what it is about."""
        now_ms = self._now_ms()
        return {
            about: text
            for about, (text, until_ms) in self._alarms.items()
            if until_ms is None or until_ms > now_ms
        }

    def raise_alarm(self, about: str, text: str, seconds: int | None = None) -> None:
        """For people to see, until it is cleared or that long."""
        until_ms = None if seconds is None else self._now_ms() + 1000 * seconds
        self._alarms[about] = text, until_ms

    def clear_alarm(self, about: str) -> None:
        self._alarms.pop(about, None)

    def say(self, line: str, about: Hashable = None) -> None:
        """To the log, unless it (or something `about` the same) was said within the hour."""
        if self._repeats.is_new(line if about is None else about, self._now_ms()):
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
            self.raise_alarm("identity", str(error), TWIN_SECONDS)
        line = f"Can't connect to node {node.hex()[:16]}: {error}"
        if code is not None or any(reason in line for reason in _LASTING):
            self.say(line, code if code == SAME_IDENTITY else None)
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
        self.raise_alarm("identity", text, TWIN_SECONDS)
        self.say(text)

    def _now_ms(self) -> int:
        return self._clock.monotonic_us() // 1000
