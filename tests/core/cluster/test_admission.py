"""Who may be a peer: by the secret, by name, by invitation; and the removed never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from garage_lite.core.cluster.admission import (
    EXPIRY_SECONDS_MAX,
    INVITATIONS_MAX,
    Admission,
    NotAdmitted,
    Removed,
)
from garage_lite.core.cluster.door import JOIN
from garage_lite.core.cluster.identity import NodeKey, key_from_seed
from garage_lite.core.cluster.rpc import JSON_API, RpcClient
from garage_lite.core.cluster.transport import Unreachable
from garage_lite.core.errors import InvalidArgument, StorageFailed
from garage_lite.core.wire.address import Peer, TcpAddress
from garage_lite.core.wire.join_string import Invitation, decode, encode, network_key
from garage_lite.core.wire.members import Mode
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.system import SystemEntropy

from .mesh_world import SECRET, Kept, MeshNode, full_mesh, nodes, until

ME, JOINER, OTHER = (key_from_seed(bytes([n]) * 32) for n in (1, 101, 102))
HERE = TcpAddress("192.0.2.1", 3901)


class SetClock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.us = 10**15

    def now_us(self) -> int:
        return self.us

    def monotonic_us(self) -> int:
        return self.us


async def admission(
    kept: Kept, mode: Mode = Mode.SECRET, clock: SetClock | None = None
) -> Admission:
    made = Admission(ME.node, mode, (), clock or SetClock(), SystemEntropy())
    await made.load(kept)
    return made


async def test_removals_survive_a_restart() -> None:
    kept = Kept()
    first = await admission(kept)
    await first.remove(OTHER.node)
    again = await admission(kept)
    with pytest.raises(Removed):
        again.check(OTHER.node)
    await again.admit(OTHER.node)
    again.check(OTHER.node)


async def test_a_damaged_list_stops_the_start() -> None:
    kept = Kept()
    await kept.set("members", b"\xc1")
    with pytest.raises(StorageFailed):
        await admission(kept)


async def test_a_node_can_not_remove_itself() -> None:
    with pytest.raises(InvalidArgument):
        await (await admission(Kept())).remove(ME.node)


async def test_an_invitation_is_good_for_one_node_until_it_expires() -> None:
    kept, clock = Kept(), SetClock()
    first = await admission(kept, Mode.EXPLICIT, clock)
    invitation = await first.invite([HERE], 60)
    assert invitation.secret not in kept.rows["invitations"], "the secret itself is not kept"
    assert invitation.expires_s == clock.us // 1_000_000 + 60
    key = network_key(invitation.secret)
    again = await admission(kept, Mode.EXPLICIT, clock)
    assert again.network_keys() == [key]
    assert not again.admits(JOINER.node)
    await again.redeem(key, JOINER.node)
    assert again.admits(JOINER.node)
    await again.redeem(key, JOINER.node)
    with pytest.raises(NotAdmitted, match="used by another"):
        await again.redeem(key, OTHER.node)
    clock.us += 61_000_000
    assert again.network_keys() == []
    with pytest.raises(NotAdmitted, match="expired"):
        await again.redeem(key, JOINER.node)


async def test_the_removed_can_not_join_again() -> None:
    here = await admission(Kept())
    await here.remove(JOINER.node)
    invitation = await here.invite([HERE], 60)
    with pytest.raises(Removed):
        await here.redeem(network_key(invitation.secret), JOINER.node)


async def test_two_race_for_one_invitation() -> None:
    here = await admission(Kept())
    key = network_key((await here.invite([HERE], 60)).secret)
    results = await asyncio.gather(
        here.redeem(key, JOINER.node), here.redeem(key, OTHER.node), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None), NotAdmitted]


async def test_invitations_are_bounded() -> None:
    here = await admission(Kept())
    for seconds in (0, -1, EXPIRY_SECONDS_MAX + 1):
        with pytest.raises(InvalidArgument):
            await here.invite([HERE], seconds)
    with pytest.raises(InvalidArgument, match="rpc_public_addr"):
        await here.invite([], 60)
    for _ in range(INVITATIONS_MAX):
        await here.invite([HERE], 60)
    with pytest.raises(InvalidArgument, match="open invitations"):
        await here.invite([HERE], 60)


# --- over the wire


@asynccontextmanager
async def joining(invitation: Invitation, key: NodeKey) -> AsyncIterator[RpcClient]:
    inviter = Peer(invitation.inviter, invitation.addresses[0])
    secret = network_key(invitation.secret)
    async with RpcClient(inviter, secret, SystemEntropy(), key) as client:
        yield client


async def test_join_with_nothing_but_the_string() -> None:
    async with nodes(2, mode=Mode.EXPLICIT) as (a, b):
        text = encode(await a.running.invite(60))
        async with joining(decode(text), b.key) as client:
            answer = await client.call(JOIN, None)
            assert bytes.fromhex(answer["rpc_secret"]) == SECRET
            assert answer["rpc_admission"] == "explicit"
            assert answer["peers"] == [str(a.peer)]
            for endpoint in (JSON_API, "mesh/hello", "echo"):
                with pytest.raises(PeerFailed):
                    await client.call(endpoint, None)
        await b.stop()
        await b.start(bootstrap=(a.peer,))
        await full_mesh([a, b])
        assert await a.can_call(b)


async def test_a_wrong_or_old_invitation_opens_nothing() -> None:
    async with nodes(1) as (a,):
        invitation = await a.running.invite(60)
        wrong = Invitation(invitation.inviter, b"?" * 16, invitation.addresses, 0)
        with pytest.raises(Unreachable):
            async with joining(wrong, JOINER):
                pass


async def test_explicit_admits_by_name_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with nodes(3, mode=Mode.EXPLICIT) as (a, b, c):
        with pytest.raises(PeerFailed, match="not admitted"):
            await a.running.connect_to(b.peer)
        assert not b.running.connected()
        await b.running.admission.admit(a.id)
        await a.running.connect_to(b.peer)
        await full_mesh([a, b])
        # c admits a, a admits c: b and c learn of each other's admission by gossip.
        await c.running.admission.admit(a.id)
        await a.running.connect_to(c.peer)
        await full_mesh([a, b, c])
        async with RpcClient(a.peer, SECRET, SystemEntropy()) as stranger:
            with pytest.raises(PeerFailed, match="own key"):
                await stranger.call(JSON_API, None)
        async with RpcClient(a.peer, SECRET, SystemEntropy(), a.key) as own:
            assert await own.call(JSON_API, "x") == "x"


async def test_a_removed_node_is_shut_out_everywhere(caplog: pytest.LogCaptureFixture) -> None:
    async with nodes(3) as (a, b, c):
        await a.running.connect_to(b.peer)
        await a.running.connect_to(c.peer)
        await full_mesh([a, b, c])
        await a.running.admission.remove(c.id)
        await until(lambda: not c.running.connected())
        await full_mesh([a, b])
        assert c.id not in b.running.book.nodes
        with pytest.raises(PeerFailed, match="was removed"):
            await c.running.connect_to(b.peer)
        with pytest.raises(Removed, match="node admit"):
            await b.running.connect_to(c.peer)
        async with RpcClient(b.peer, SECRET, SystemEntropy(), c.key) as removed:
            for endpoint in (JSON_API, "mesh/gossip", "mesh/ping", "echo"):
                with pytest.raises(PeerFailed, match="was removed"):
                    await removed.call(endpoint, None)
        await b.running.admission.admit(c.id)
        await until(lambda: a.running.admission.admits(c.id))
        await a.running.connect_to(c.peer)
        await full_mesh([a, b, c])


async def test_a_node_away_while_another_is_removed_learns_of_it() -> None:
    async with nodes(3) as (a, b, c):
        await a.running.connect_to(b.peer)
        await a.running.connect_to(c.peer)
        await full_mesh([a, b, c])
        await b.stop()
        await a.running.admission.remove(c.id)
        await b.start()
        await until(lambda: not b.running.admission.admits(c.id))
        await until(lambda: c.id not in b.running.connected())


async def test_a_node_that_may_not_is_not_told_of() -> None:
    """Gossip about a removed node does not bring it back into anybody's book."""
    async with nodes(2) as (a, b):
        stranger = MeshNode(9, a.settings)
        await a.running.admission.remove(stranger.id)
        await a.running.connect_to(b.peer)
        await until(lambda: not b.running.admission.admits(stranger.id))
        told = [[stranger.id, 0, [["192.0.2.9:1", 0]]]]
        await b.running.call(a.id, "mesh/gossip", ["news", told, []])
        assert stranger.id not in a.running.book.nodes
