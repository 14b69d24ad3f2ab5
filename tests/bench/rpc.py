"""Measure the link between two nodes: small calls and streams on one connection.

    python -m tests.bench.rpc

Two processes, as two nodes would be; CPU is that of each, beside this machine's calibration.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import sys
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from typing import Any

from garage_lite.core.cluster.identity import key_from_seed
from garage_lite.core.cluster.rpc import Reply, Request, RpcClient, RpcServer
from garage_lite.core.limits import MIB
from garage_lite.core.wire.address import Peer, TcpAddress
from garage_lite.core.wire.outbox import BULK
from garage_lite.system import SystemEntropy
from tests.bench.report import GB, calibrate

SECRET = b"s" * 32
SWITCH_SECONDS = 0.0005
"""As the server sets it."""
KEY = key_from_seed(b"1" * 32)
PAYLOAD = [b"object", b"bucket/some/key/name-00001.jpg", b"x" * 250]
CALLS = 60_000
STREAM_MIB = 256


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _serve(pipe: Connection) -> None:
    server = RpcServer(KEY, SECRET, SystemEntropy())
    block = bytes(MIB)

    async def echo(request: Request) -> Any:
        return request.payload

    async def used(request: Request) -> Any:
        return cpu()

    async def take(request: Request) -> Any:
        assert request.stream is not None
        return sum([len(piece) async for piece in request.stream])

    async def give(request: Request) -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            yield block

        return Reply(None, pieces())

    for handler in (echo, used, take, give):
        server.serve(handler.__name__, handler)
    address = await server.start(TcpAddress("127.0.0.1", 0))
    assert isinstance(address, TcpAddress)
    pipe.send(address.port)
    await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    await server.stop()


def _server_process(pipe: Connection) -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.run(_serve(pipe))


class Bench:
    def __init__(self, client: RpcClient, turn_us: float) -> None:
        self.client = client
        self.turn_us = turn_us

    async def small_calls(self, at_once: int, calls: int) -> None:
        async def caller() -> None:
            for _ in range(calls // at_once):
                await self.client.call("echo", PAYLOAD)

        wall, here, there = await self._measure(*(caller() for _ in range(at_once)))
        us = [1e6 * seconds / calls for seconds in (here, there)]
        print(
            f"{at_once:3} calls at once: {calls / wall:8.0f} /s   CPU caller {us[0]:5.1f} us"
            f" ({us[0] / self.turn_us:.2f} turns), server {us[1]:5.1f} us"
            f" ({us[1] / self.turn_us:.2f} turns)"
        )

    async def streams(self, name: str, at_once: int) -> None:
        block = bytes(MIB)

        async def content() -> AsyncIterator[bytes]:
            yield block

        async def mover() -> None:
            session = self.client.session
            for _ in range(STREAM_MIB // at_once):
                if name == "take":
                    await session.call(name, None, priority=BULK, stream=content())
                else:
                    reply = await session.call(name, None, priority=BULK)
                    assert reply.stream is not None
                    assert sum([len(piece) async for piece in reply.stream]) == MIB

        wall, here, there = await self._measure(*(mover() for _ in range(at_once)))
        size = STREAM_MIB * MIB / GB
        print(
            f"{name}, {at_once} streams of 1 MiB at once: {1000 * size / wall:6.0f} MB/s"
            f"   CPU caller {here / size:.2f}, server {there / size:.2f} s/GB"
        )

    async def _measure(self, *work: Any) -> tuple[float, float, float]:
        there = await self.client.call("used", None)
        here, begun = cpu(), time.perf_counter()
        await asyncio.gather(*work)
        wall, here = time.perf_counter() - begun, cpu() - here
        return wall, here, await self.client.call("used", None) - there


async def _drive(port: int, runs: int) -> None:
    calibration = calibrate()
    print(f"this machine: {calibration.python_microseconds:.1f} us a turn")
    peer = Peer(KEY.node, TcpAddress("127.0.0.1", port))
    async with RpcClient(peer, SECRET, SystemEntropy()) as client:
        bench = Bench(client, calibration.python_microseconds)
        for _ in range(runs):
            await bench.small_calls(1, CALLS // 10)
            await bench.small_calls(64, CALLS)
            for name in ("take", "give"):
                for at_once in (1, 3):
                    await bench.streams(name, at_once)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_server_process, args=(theirs,))
    server.start()
    asyncio.run(_drive(ours.recv(), options.runs))
    ours.send(None)
    server.join()


if __name__ == "__main__":
    main()
