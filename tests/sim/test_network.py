"""The simulated network itself: what TCP promises holds, and what it does not is broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from garage_lite.core.cluster.peers import Endpoints, NotConnected
from garage_lite.core.cluster.rpc import CallTimedOut, LinkLost, Reply, Request
from garage_lite.core.errors import NoSuchKey
from garage_lite.core.ids import NodeId
from garage_lite.core.wire.messages import PeerFailed
from tests.sim.loop import Process, SimLoop, run
from tests.sim.network import SimNetwork, SimPeers, Weather

A, B, C = (NodeId(bytes((number,)) * 32) for number in (1, 2, 3))


class Net:
    """Three processes that note what they are asked and answer with it."""

    def __init__(self, weather: Weather | None = None) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        self.loop = loop
        self.network = SimNetwork(loop, weather or Weather(reconnect=0.01))
        self.asked: dict[NodeId, list[Any]] = {A: [], B: [], C: []}
        self.peers: dict[NodeId, SimPeers] = {}
        for node in (A, B, C):
            self.begin(node)

    def begin(self, node: NodeId) -> None:
        process = Process(node.hex()[:2])
        endpoints = Endpoints()

        async def echo(request: Request) -> Any:
            self.asked[node].append(request.payload)
            return request.payload

        async def refuse(request: Request) -> Any:
            raise NoSuchKey("not here")

        async def double(request: Request) -> Reply:
            assert request.stream is not None
            received = b"".join([piece async for piece in request.stream])
            return Reply(len(received), pieces(received, 1000))

        for name, handler in (("echo", echo), ("refuse", refuse), ("double", double)):
            endpoints.serve(name, handler)
        self.peers[node] = self.network.attach(process, node, endpoints)
        self.network.join(self.peers[node])

    def freeze(self, node: NodeId) -> None:
        self.network.freeze(node)

    def kill(self, node: NodeId, *, silently: bool) -> None:
        self.peers[node].process.kill()
        self.network.leave(node, silently=silently)

    async def call(self, sender: NodeId, to: NodeId, payload: Any, timeout: float = 5.0) -> Any:  # noqa: ASYNC109
        """From inside the sender's process, as a node would."""
        peers = self.peers[sender]
        task = self.loop.create_task(
            _payload(peers, to, payload, timeout), context=peers.process.context.copy()
        )
        return await task


async def _payload(peers: SimPeers, to: NodeId, payload: Any, seconds: float) -> Any:
    return (await peers.call(to, "echo", payload, timeout=seconds)).payload


async def pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


def simulated(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def runs() -> None:
        for seed in range(5):
            run(_as_coroutine(test), seed)

    runs.__name__ = test.__name__
    return runs


async def _as_coroutine(test: Callable[[], Awaitable[None]]) -> None:
    await test()


@simulated
async def test_values_pass_by_value() -> None:
    net = Net()
    await asyncio.sleep(1)
    sent = {"list": [1, b"two"]}
    answer = await net.call(A, B, sent)
    assert answer == sent and answer["list"] is not sent["list"]
    with pytest.raises(TypeError):
        await net.call(A, B, object())


@simulated
async def test_errors_come_with_their_code() -> None:
    net = Net()
    await asyncio.sleep(1)
    with pytest.raises(PeerFailed) as failed:
        await net.peers[A].call(B, "refuse", None)
    assert failed.value.code == "NoSuchKey"


@simulated
async def test_streams_go_both_ways_with_credit() -> None:
    net = Net()
    await asyncio.sleep(1)
    content = bytes(range(256)) * 4000
    reply = await net.peers[A].call(B, "double", None, stream=pieces(content, 7000))
    assert reply.payload == len(content) and reply.stream is not None
    assert b"".join([piece async for piece in reply.stream]) == content


@simulated
async def test_calls_to_one_node_arrive_in_order() -> None:
    net = Net(Weather(retransmission=0.3, reconnect=0.01))
    await asyncio.sleep(1)
    calls = []
    for number in range(30):
        calls.append(asyncio.create_task(net.call(A, B, number, 60)))
        await asyncio.sleep(0.003)
    await asyncio.gather(*calls)
    assert net.asked[B] == sorted(net.asked[B]), "one frame overtook another"


@simulated
async def test_behind_a_cut_calls_wait_then_the_link_breaks() -> None:
    net = Net()
    await asyncio.sleep(1)
    net.network.isolate([A], [B, C])
    with pytest.raises(CallTimedOut):
        await net.call(A, B, 1, 1)
    with pytest.raises(LinkLost):
        await net.call(A, B, 2, 60)
    with pytest.raises(NotConnected):
        await net.call(A, B, 3)
    assert await net.call(B, C, 4) == 4
    assert net.asked[B] == []
    net.network.heal()
    await asyncio.sleep(1)
    assert await net.call(A, B, 5) == 5


@simulated
async def test_a_short_cut_is_only_a_delay() -> None:
    net = Net()
    await asyncio.sleep(1)
    net.network.isolate([A], [B, C])
    call = asyncio.create_task(net.call(A, B, 1, 30))
    await asyncio.sleep(1)
    net.network.heal()
    assert await call == 1


@simulated
async def test_a_one_way_cut_loses_the_answer_only() -> None:
    net = Net()
    await asyncio.sleep(1)
    net.network.cut([B], [A])
    with pytest.raises(CallTimedOut):
        await net.call(A, B, 1, 1)
    assert net.asked[B] == [1]


@simulated
async def test_a_frozen_process_answers_when_it_is_thawed() -> None:
    net = Net()
    await asyncio.sleep(1)
    net.freeze(B)
    call = asyncio.create_task(net.call(A, B, 1, 30))
    await asyncio.sleep(1)
    assert not call.done() and net.asked[B] == []
    net.peers[B].process.thaw()
    assert await call == 1


@simulated
async def test_a_process_frozen_for_long_loses_its_links() -> None:
    net = Net()
    await asyncio.sleep(1)
    net.freeze(B)
    with pytest.raises(LinkLost):
        await net.call(A, B, 1, 60)
    net.peers[B].process.thaw()
    await asyncio.sleep(2)
    assert await net.call(A, B, 2) == 2


@simulated
async def test_nothing_of_a_killed_process_runs_on() -> None:
    net = Net()
    await asyncio.sleep(1)
    reached = []

    async def work() -> None:
        try:
            await asyncio.sleep(1)
            reached.append("after")
        finally:
            reached.append("finally")

    net.loop.create_task(work(), context=net.peers[B].process.context.copy())
    await asyncio.sleep(0.5)
    net.kill(B, silently=False)
    with pytest.raises((LinkLost, NotConnected)):
        await net.call(A, B, 1, 60)
    await asyncio.sleep(5)
    assert reached == []
    net.begin(B)
    await asyncio.sleep(1)
    assert await net.call(A, B, 2) == 2


@simulated
async def test_a_silent_death_is_noticed_late() -> None:
    net = Net()
    await asyncio.sleep(1)
    net.kill(B, silently=True)
    assert B in net.peers[A].connected()
    with pytest.raises(CallTimedOut):
        await net.call(A, B, 1, 2)
    await asyncio.sleep(20)
    assert B not in net.peers[A].connected()


@simulated
async def test_slow_and_lost_calls() -> None:
    net = Net(Weather(slow_call=0.3, lost_call=0.3, reconnect=0.01))
    await asyncio.sleep(1)
    calls = [net.call(A, B, number, 5) for number in range(40)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    lost = [number for number, result in enumerate(results) if isinstance(result, CallTimedOut)]
    assert 3 < len(lost) < 25
    assert set(lost) & set(net.asked[B]), "some were carried out and not answered"
    assert set(lost) - set(net.asked[B]), "some were not carried out"
    assert net.asked[B] != sorted(net.asked[B]), "slow calls are overtaken"


def test_the_same_seed_gives_the_same_run() -> None:
    async def main() -> list[Any]:
        net = Net(Weather(slow_call=0.3, retransmission=0.3, reconnect=0.01))
        await asyncio.sleep(1)
        loop = net.loop

        async def timed(number: int) -> float:
            await net.call(A, B, number)
            return loop.time()

        return [*await asyncio.gather(*(timed(number) for number in range(20))), net.asked[B]]

    assert run(main(), 3) == run(main(), 3)
    assert run(main(), 3) != run(main(), 4)
