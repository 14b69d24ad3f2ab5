"""Calls over real sockets: answers, errors, streams, cancelling, crowds, and bad peers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from garage_lite.core.cluster.identity import key_from_seed
from garage_lite.core.cluster.rpc import (
    INCOMING_BYTES_MAX,
    JSON_API,
    CallTimedOut,
    LinkLost,
    Reply,
    Request,
    RpcClient,
    RpcServer,
    Session,
    operations_handler,
)
from garage_lite.core.cluster.transport import Unreachable, cipher_in_threads
from garage_lite.core.errors import NoSuchBucket, QuorumNotReached
from garage_lite.core.wire.address import Peer, TcpAddress
from garage_lite.core.wire.messages import CALLS_MAX, MESSAGE_BYTES_MAX, WINDOW_BYTES, PeerFailed
from garage_lite.system import SystemEntropy

SECRET = b"s" * 32
KEY = key_from_seed(b"1" * 32)
MIB = 1 << 20


class Server:
    def __init__(self) -> None:
        self.rpc = RpcServer(KEY, SECRET, SystemEntropy())
        self.peer = Peer(KEY.node, TcpAddress("127.0.0.1", 0))
        self.cancelled = 0
        self.release = asyncio.Event()
        for name in ("echo", "fail", "hang", "hold", "count", "give", "break_off"):
            self.rpc.serve(name, getattr(self, name))

    async def echo(self, request: Request) -> Any:
        return request.payload

    async def fail(self, request: Request) -> Any:
        raise {
            "caller": NoSuchBucket("no bucket x"),
            "node": QuorumNotReached("1 of 2"),
            "bug": RuntimeError("a secret detail"),
            "coded": PeerFailed("Teapot", "short and stout", 418),
        }[request.payload]

    async def hang(self, request: Request) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1

    async def hold(self, request: Request) -> Any:
        await self.release.wait()
        return request.payload

    async def count(self, request: Request) -> Any:
        assert request.stream is not None
        return sum([len(piece) async for piece in request.stream])

    async def give(self, request: Request) -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            for n in range(request.payload):
                self.given = n + 1
                yield bytes([n % 256]) * 50_000

        return Reply("here", pieces())

    async def break_off(self, request: Request) -> Any:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            await asyncio.sleep(0.05)  # what fails at once says so instead of the answer
            raise NoSuchBucket("gone meanwhile")

        return Reply("here", pieces())

    def client(self) -> RpcClient:
        return RpcClient(self.peer, SECRET, SystemEntropy())


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    server = Server()
    server.peer = Peer(KEY.node, await server.rpc.start(server.peer.address))
    yield server
    await server.rpc.stop()


def session(client: RpcClient) -> Session:
    assert client._session is not None
    return client._session


def nothing_left(client: RpcClient) -> bool:
    box = session(client)._outbox
    return not session(client)._calls and not box._lanes and box.waiting == 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - of the other side's state, without a hook
            await asyncio.sleep(0.01)


async def test_values_come_back() -> None:
    async with serving() as server, server.client() as client:
        values: list[Any] = [None, True, 7, -1.5, "é", b"\xff", [1, [2]], {"a": {"b": []}}]
        for value in values:
            assert await client.call("echo", value) == value
        big = bytes(range(256)) * 12_000
        assert await client.call("echo", big) == big
        assert nothing_left(client)


@pytest.mark.parametrize(
    ("kind", "code", "status", "message"),
    [
        ("caller", "NoSuchBucket", 400, "no bucket x"),
        ("node", "QuorumNotReached", 503, "1 of 2"),
        ("coded", "Teapot", 418, "short and stout"),
        ("bug", "InternalError", 500, "an internal error; the node's log says more"),
    ],
)
async def test_errors_come_back(kind: str, code: str, status: int, message: str) -> None:
    async with serving() as server, server.client() as client:
        with pytest.raises(PeerFailed) as caught:
            await client.call("fail", kind)
        error = caught.value
        assert (error.code, error.status, error.message) == (code, status, message)
        assert nothing_left(client)


async def test_unknown_endpoint_and_unpackable_answer() -> None:
    async def odd(request: Request) -> Any:
        return object()

    async with serving() as server, server.client() as client:
        server.rpc.serve("odd", odd)
        for endpoint, code in (("nothing", "NoSuchEndpoint"), ("odd", "InternalError")):
            with pytest.raises(PeerFailed) as caught:
                await client.call(endpoint, None)
            assert caught.value.code == code


async def test_operations_by_name() -> None:
    async def double(parameters: Any) -> Any:
        return parameters["n"] * 2

    async with serving() as server, server.client() as client:
        server.rpc.serve(JSON_API, operations_handler({"Double": double}))
        assert await client.call(JSON_API, ["Double", {"n": 21}]) == 42
        for wrong, code in ((["Triple", {}], "NoSuchEndpoint"), ("Double", "InvalidRequest")):
            with pytest.raises(PeerFailed) as caught:
                await client.call(JSON_API, wrong)
            assert caught.value.code == code


async def test_a_call_ends_in_time_and_the_work_for_it_too() -> None:
    async with serving() as server, server.client() as client:
        with pytest.raises(CallTimedOut, match=r"no answer to hang within 0.1 s"):
            await client.call("hang", None, timeout=0.1)
        await until(lambda: server.cancelled == 1)
        assert nothing_left(client)
        assert await client.call("echo", 1) == 1


async def test_calls_die_with_their_link() -> None:
    async with serving() as server:
        client = server.client()
        await client.connect()
        call = asyncio.create_task(client.call("hang", None))
        await asyncio.sleep(0.05)
        await server.rpc.stop()
        with pytest.raises(LinkLost):
            await call
        with pytest.raises(LinkLost):
            await client.call("echo", 1)
        await until(lambda: server.cancelled == 1)


async def test_streams_both_ways() -> None:
    async with serving() as server, server.client() as client:

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(40):
                yield bytes(100_000)

        reply = await session(client).call("count", None, stream=pieces())
        assert reply.payload == 4_000_000
        reply = await session(client).call("give", 60)
        assert reply.stream is not None
        got = b"".join([piece async for piece in reply.stream])
        assert got == b"".join(bytes([n]) * 50_000 for n in range(60))
        assert nothing_left(client)


async def test_a_stream_waits_for_its_reader() -> None:
    async with serving() as server, server.client() as client:
        reply = await session(client).call("give", 200)
        assert await client.call("echo", "others go on") == "others go on"
        assert server.given * 50_000 <= WINDOW_BYTES + 50_000
        assert reply.stream is not None
        assert sum([len(piece) async for piece in reply.stream]) == 200 * 50_000


async def test_a_stream_that_breaks_off_says_so() -> None:
    async with serving() as server, server.client() as client:
        reply = await session(client).call("break_off", None)
        assert reply.stream is not None
        with pytest.raises(PeerFailed, match="gone meanwhile"):
            async for piece in reply.stream:
                assert piece == b"one"

        async def broken() -> AsyncIterator[bytes]:
            yield b"one"
            raise ValueError("the source failed")

        with pytest.raises(ValueError, match="the source failed"):
            await session(client).call("count", None, stream=broken())
        assert nothing_left(client)
        assert await client.call("echo", 1) == 1


async def test_more_calls_than_may_be_open_wait_for_a_place() -> None:
    async with serving() as server, server.client() as client:
        calls = [asyncio.create_task(client.call("hold", n)) for n in range(CALLS_MAX + 5)]
        await asyncio.sleep(0.2)
        assert len(session(client)._calls) == CALLS_MAX
        calls[-1].cancel()
        server.release.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[:-1] == list(range(CALLS_MAX + 4))
        assert await client.call("echo", 1) == 1
        assert nothing_left(client)


async def test_a_caller_that_knows_no_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garage_lite.core.cluster.rpc.CALLS_MAX", CALLS_MAX + 5)
    async with serving() as server, server.client() as client:
        calls = [asyncio.create_task(client.call("hold", n)) for n in range(CALLS_MAX + 5)]
        await asyncio.sleep(0.2)
        server.release.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[:CALLS_MAX] == list(range(CALLS_MAX))
        assert [r.code for r in results[CALLS_MAX:] if isinstance(r, PeerFailed)] == ["Busy"] * 5


async def test_big_messages_of_many_wait_within_the_budget() -> None:
    fit = INCOMING_BYTES_MAX // (3 * MIB + 100)
    async with serving() as server, server.client() as client:
        message = bytes(3 * MIB)
        calls = [asyncio.create_task(client.call("hold", message)) for _ in range(fit + 2)]
        await asyncio.sleep(0.5)
        server.release.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        refused = [r for r in results if isinstance(r, PeerFailed)]
        assert [r.code for r in refused] == ["Busy"] * 2
        assert results.count(message) == fit
        with pytest.raises(ValueError, match="a message of"):
            await client.call("echo", bytes(MESSAGE_BYTES_MAX + 1))
        assert await client.call("echo", message) == message
        assert nothing_left(client)


async def test_windows_of_streams_are_within_the_budget_too() -> None:
    fit = INCOMING_BYTES_MAX // WINDOW_BYTES

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100_000)

    async with serving() as server, server.client() as client:
        calls = [
            asyncio.create_task(session(client).call("hold", n, stream=endless()))
            for n in range(fit + 3)
        ]
        await asyncio.sleep(0.5)
        server.release.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(r, PeerFailed) and r.code == "Busy" for r in results) >= 3
        assert sum(isinstance(r, Reply) for r in results) >= fit - 1
        assert await client.call("echo", bytes(3 * MIB)) == bytes(3 * MIB)
        assert nothing_left(client)


@pytest.mark.parametrize("threads", [False, True])
async def test_big_frames_are_the_same_on_the_loop_and_in_threads(threads: bool) -> None:
    cipher_in_threads(threads)
    try:
        async with serving() as server, server.client() as client:
            small = [client.call("echo", n) for n in range(300)]
            messages = [bytes([n]) * (n * 150_000) for n in range(5)]
            big = [client.call("echo", message) for message in messages]
            answers = await asyncio.gather(*small, *big)
            assert answers == [*range(300), *messages]

            async def pieces() -> AsyncIterator[bytes]:
                for _ in range(40):
                    yield bytes(100_000)

            reply = await session(client).call("count", None, stream=pieces())
            assert reply.payload == 4_000_000
            assert nothing_left(client)
            link = client._link
            assert link is not None
        assert link.closed.done(), "a goodbye leaves after what was being sealed"
    finally:
        cipher_in_threads(False)


async def test_twenty_clients_at_once() -> None:
    async with serving() as server:

        async def one(n: int) -> list[int]:
            async with server.client() as client:
                return [await client.call("echo", n * 1000 + i) for i in range(20)]

        results = await asyncio.gather(*(one(n) for n in range(20)))
        assert results == [[n * 1000 + i for i in range(20)] for n in range(20)]
        assert server.rpc.refused == 0


async def test_a_peer_that_sends_nonsense_loses_its_link_and_nobody_else_does() -> None:
    async with serving() as server, server.client() as good, server.client() as bad:
        assert bad._link is not None
        bad._link.send(b"no chunk at all")
        await asyncio.wait_for(bad._link.closed, 5)
        assert await good.call("echo", 1) == 1


async def test_the_server_calls_back_on_the_same_link() -> None:
    async with serving() as server, server.client() as client:

        async def ask(request: Request) -> Any:
            return f"{request.payload} from {request.peer.hex()[:8]}"

        session(client)._handlers = {"ask": ask}
        await client.call("echo", 1)
        (link,) = server.rpc._listener._links
        assert isinstance(link._user, Session)
        reply = await link._user.call("ask", "hello")
        assert reply.payload == f"hello from {KEY.node.hex()[:8]}"


async def test_latency(record_property: Callable[[str, object], None]) -> None:
    """Measured, not judged: a slow machine is no failure."""
    async with serving() as server, server.client() as client:
        start = time.perf_counter()
        for _ in range(200):
            await client.call("echo", {"k": "bucket/some/key", "v": b"x" * 250})
        record_property("rpc_us", (time.perf_counter() - start) / 200 * 1e6)


async def test_not_connected() -> None:
    client = RpcClient(Peer(KEY.node, TcpAddress("127.0.0.1", 1)), SECRET, SystemEntropy())
    with pytest.raises(Unreachable):
        await client.call("echo", 1)
