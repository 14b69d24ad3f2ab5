"""One link of the mesh: its two names, its session, its pings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from garage_lite.core.cluster.rpc import Request, Session
from garage_lite.core.cluster.transport import Link, Unreachable
from garage_lite.core.errors import NodeError
from garage_lite.core.ids import NodeId
from garage_lite.core.ports import Clock
from garage_lite.core.wire.address import Address
from garage_lite.core.wire.frames import WireDamaged
from garage_lite.core.wire.greeting import Facts, Greeting, read_facts
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.core.wire.outbox import URGENT
from garage_lite.core.wire.peering import LinkName
from garage_lite.core.wire.pulse import Pulse

log = logging.getLogger(__name__)

PING: Final = "mesh/ping"
"""nil -> [the answering node's wall clock, us; its facts]"""
PING_SECONDS: Final = 3.0
PROOF_SECONDS: Final = 2.0
"""For a node that is asked whether it is still there."""


class MeshLink:
    """A link to a greeted, admitted peer."""

    def __init__(
        self,
        name: LinkName,
        node: NodeId,
        link: Link,
        session: Session,
        greeting: Greeting,
        addresses: Sequence[Address],
        clock: Clock,
    ) -> None:
        """`addresses`: where the node is to be found, the likeliest first."""
        self.name = name
        self.node = node
        self.link = link
        self.session = session
        self.boot = greeting.boot
        self.facts: Facts = greeting.facts
        self.addresses = tuple(addresses)
        self.pulse = Pulse()
        self._clock = clock

    @property
    def address(self) -> Address | None:
        return self.addresses[0] if self.addresses else None

    async def ping(self, timeout: float) -> bool:  # noqa: ASYNC109 - told to the session
        """Whether it answered in time; the pulse and the facts are then those of now, unless it
        only said that it is too busy."""
        self.pulse.sent(self._clock.monotonic_us())
        try:
            reply = await self.session.call(PING, None, timeout=timeout, priority=URGENT)
            peer_wall_us, facts = _read_pong(reply.payload)
        except PeerFailed:
            self.pulse.excused()
            return True
        except NodeError as error:
            self.pulse.failed()
            log.debug("node %s did not answer a ping: %s", self.node.hex()[:16], error)
            return False
        self.pulse.answered(self._clock.monotonic_us(), self._clock.now_us(), peer_wall_us)
        self.facts = facts
        return True

    async def keep_alive(self, timeout: float) -> None:  # noqa: ASYNC109
        """Ping until the link is closed; close it when it is dead."""
        while not self.link.closed.done():
            if not await self.ping(timeout) and self.pulse.is_dead:
                self.link.abort(Unreachable("the node does not answer any more"))
                return
            if not self.pulse.failures:
                await asyncio.sleep(PING_SECONDS)

    async def is_alive(self) -> bool:
        """Whether the other end still answers; asked once, now, beside the regular pings."""
        try:
            await self.session.call(PING, None, timeout=PROOF_SECONDS, priority=URGENT)
        except PeerFailed:
            return True
        except NodeError:
            return False
        return True


def pong(request: Request, clock: Clock, facts: Facts) -> list[object]:
    """The answer to a ping."""
    return [clock.now_us(), dict(facts)]


def _read_pong(payload: object) -> tuple[int, Facts]:
    match payload:
        case [int() as wall_us, facts]:
            return wall_us, read_facts(facts)
    raise WireDamaged("a peer's answer to a ping can't be read")
