"""Who may be a peer here, and the invitations that let new nodes in. Kept on disk.

The rules are core/wire/members.py's; this keeps the entries and the open invitations durable and
says of each key what it may do. An invitation's secret is not kept: only the network key that is
derived from it, with which the port answers whoever holds the secret (core/wire/join_string.py).
It is used up by the first node that joins with it; that same node may try again until it expires,
for its connection may break at the wrong moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import msgpack

from garage_lite.core.errors import Forbidden, InvalidArgument, StorageFailed
from garage_lite.core.ids import NodeId
from garage_lite.core.ports import Clock, Entropy
from garage_lite.core.wire.address import TcpAddress
from garage_lite.core.wire.frames import WireDamaged
from garage_lite.core.wire.join_string import SECRET_BYTES, Invitation, network_key
from garage_lite.core.wire.members import Members, Mode, Standing, read_members

INVITATIONS_MAX: Final = 16
"""Open at once: each costs every stranger's handshake one more HMAC."""
EXPIRY_SECONDS_MAX: Final = 30 * 24 * 3600
_MEMBERS: Final = "members"
_INVITATIONS: Final = "invitations"


class Memory(Protocol):
    """Where small state is kept; NodeState is one."""

    def get(self, name: str) -> bytes | None: ...

    async def set(self, name: str, value: bytes | None) -> None:
        """Durable on return."""
        ...


class NotAdmitted(Forbidden):
    """This node is not admitted to the cluster."""


class Removed(Forbidden):
    """This node was removed from the cluster."""


@dataclass(frozen=True, slots=True)
class _Open:
    """An invitation that can still be used."""

    network_key: bytes
    expires_us: int
    joined: NodeId | None = None


class Admission:
    """One for the node. Nobody but the configured nodes is known before `load`."""

    def __init__(
        self, me: NodeId, mode: Mode, configured: Collection[NodeId], clock: Clock, entropy: Entropy
    ) -> None:
        self.mode = mode
        self.members = Members()
        self._me = me
        self._configured = frozenset(configured)
        self._clock = clock
        self._entropy = entropy
        self._memory: Memory | None = None
        self._open: list[_Open] = []
        self._editing = asyncio.Lock()
        self._listeners: list[Callable[[], None]] = []

    async def load(self, memory: Memory) -> None:
        """Read what was kept. Raises StorageFailed if it can't be read: a removal that is
        forgotten would let the removed in again."""
        self._memory = memory
        try:
            self.members = read_members(_unpacked(memory.get(_MEMBERS)))
            self._open = [_Open(*each) for each in _unpacked(memory.get(_INVITATIONS))]
        except (WireDamaged, TypeError, ValueError) as error:
            raise StorageFailed("the list of the cluster's members is damaged") from error
        if self.mode is Mode.EXPLICIT and self.members.standing(self._me) is None:
            await self._change(self.members.with_standing(self._me, Standing.ADMITTED))

    def on_change(self, listener: Callable[[], None]) -> None:
        """`listener()` runs after each change of the members."""
        self._listeners.append(listener)

    # --- judging

    def admits(self, node: NodeId) -> bool:
        return self.members.admits(node, self.mode, self._configured)

    def check(self, node: NodeId) -> None:
        """Raises Removed or NotAdmitted, in plain words for that node."""
        if self.admits(node):
            return
        name = node.hex()[:16]
        if self.members.standing(node) is Standing.REMOVED:
            raise Removed(f"node {name} was removed from the cluster and stays shut out")
        raise NotAdmitted(
            f'node {name} is not admitted: this cluster has rpc_admission = "explicit".'
            " Invite it (`garage-lite node invite`), or admit it by `garage-lite node connect`"
        )

    def check_not_removed(self, node: NodeId) -> None:
        """Raises Removed, in plain words for the administrator."""
        if self.members.standing(node) is Standing.REMOVED:
            raise Removed(
                f"node {node.hex()[:16]} was removed from the cluster: let it in again by"
                " `garage-lite node admit`"
            )

    def check_stranger(self, node: NodeId) -> None:
        """Whether a key that is no peer may call this node's operations, as a command line does:
        by the secret, or in an explicit cluster by this node's own key or an admitted one."""
        if node == self._me:
            return
        try:
            self.check(node)
        except NotAdmitted as error:
            raise NotAdmitted(
                'this cluster has rpc_admission = "explicit": a command must show the node\'s own'
                " key. Run it on the node's machine, as a user who may read its node_key"
            ) from error

    # --- changing

    async def admit(self, node: NodeId) -> None:
        """Admit a key by name, for ever; also one that was removed."""
        async with self._editing:
            await self._change(self.members.with_standing(node, Standing.ADMITTED))

    async def remove(self, node: NodeId) -> None:
        """Shut a key out, on every node. Raises InvalidArgument for this node itself."""
        if node == self._me:
            raise InvalidArgument("a node can't remove itself: do it on another node")
        async with self._editing:
            await self._change(self.members.with_standing(node, Standing.REMOVED))

    async def merge(self, other: Members) -> bool:
        """Join what an admitted peer knows. Whether there was news."""
        async with self._editing:
            merged = self.members.merge(other)
            news = merged is not self.members
            await self._change(merged)
            return news

    async def _change(self, members: Members) -> None:
        if members is self.members:
            return
        await self._keep(_MEMBERS, members.told())
        self.members = members
        for listener in self._listeners:
            listener()

    async def _keep(self, name: str, value: list[Any]) -> None:
        if self._memory is not None:
            packed: bytes = msgpack.packb(value, use_bin_type=True)
            await self._memory.set(name, packed)

    # --- invitations

    async def invite(self, addresses: Collection[TcpAddress], seconds: int) -> Invitation:
        """A new invitation, good for `seconds` and one node. Raises InvalidArgument."""
        if not 0 < seconds <= EXPIRY_SECONDS_MAX:
            raise InvalidArgument("an invitation is valid for a second to 30 days")
        if not addresses:
            raise InvalidArgument(
                "this node does not know at which address others reach it: set rpc_public_addr"
            )
        secret = self._entropy.token(SECRET_BYTES)
        expires_us = self._clock.now_us() + seconds * 1_000_000
        async with self._editing:
            still_open = self._still_open()
            if len(still_open) >= INVITATIONS_MAX:
                raise InvalidArgument(f"there are {INVITATIONS_MAX} open invitations already")
            await self._keep_open([*still_open, _Open(network_key(secret), expires_us)])
        return Invitation(self._me, secret, tuple(addresses), expires_us // 1_000_000)

    def network_keys(self) -> list[bytes]:
        """Of the invitations that are good now."""
        return [each.network_key for each in self._still_open()]

    async def redeem(self, key: bytes, joiner: NodeId) -> None:
        """Admit the node that joins with an invitation. Raises NotAdmitted or Removed."""
        async with self._editing:
            still_open = self._still_open()
            found = next((each for each in still_open if each.network_key == key), None)
            if found is None:
                raise NotAdmitted("the invitation has expired")
            if found.joined not in (None, joiner):
                raise NotAdmitted("the invitation was used by another node: ask for a new one")
            if self.members.standing(joiner) is Standing.REMOVED:
                raise Removed("this node's key was removed from the cluster: it needs a new one")
            others = [each for each in still_open if each is not found]
            await self._keep_open([*others, replace(found, joined=joiner)])
            await self._change(self.members.with_standing(joiner, Standing.ADMITTED))

    def _still_open(self) -> list[_Open]:
        now_us = self._clock.now_us()
        return [each for each in self._open if each.expires_us > now_us]

    async def _keep_open(self, invitations: list[_Open]) -> None:
        stored = [[each.network_key, each.expires_us, each.joined] for each in invitations]
        await self._keep(_INVITATIONS, stored)
        self._open = invitations


def _unpacked(row: bytes | None) -> list[Any]:
    found: list[Any] = msgpack.unpackb(row, raw=False) if row else []
    return found
