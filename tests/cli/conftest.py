"""A node that answers recorded JSON over real RPC, for whole command lines to be run against."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from garage_lite.cli import main
from garage_lite.core.cluster.identity import key_from_seed
from garage_lite.core.cluster.rpc import JSON_API, RpcServer, operations_handler
from garage_lite.core.wire.address import Peer, TcpAddress
from garage_lite.core.wire.messages import PeerFailed
from garage_lite.system import SystemEntropy

SECRET = "5e" * 32
KEY = key_from_seed(b"1" * 32)


class FakeNode:
    """Answers each operation with what `answers` holds for it: JSON, or a function of the
    parameters. Remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Any]] = []
        self.peer = Peer(KEY.node, TcpAddress("127.0.0.1", 0))
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    @property
    def id(self) -> str:
        return KEY.node.hex()

    def start(self) -> None:
        self._thread.start()
        self._ready.wait(10)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)
        self._loop.close()

    async def _run(self) -> None:
        server = RpcServer(KEY, bytes.fromhex(SECRET), SystemEntropy())
        server.serve(JSON_API, operations_handler(_Everything(self._answer)))
        self.peer = Peer(KEY.node, await server.start(self.peer.address))
        self._ready.set()
        await self._stopping.wait()
        await server.stop()

    def last(self, operation: str) -> Any:
        """The parameters of the last request for it."""
        return [parameters for name, parameters in self.asked if name == operation][-1]

    async def _answer(self, name: str, parameters: Any) -> Any:
        self.asked.append((name, parameters))
        if name not in self.answers:
            raise PeerFailed("NoSuchEndpoint", f"there is no operation {name!r}", 404)
        answer = self.answers[name]
        return answer(parameters) if callable(answer) else answer


class _Everything(dict[str, Any]):
    """A table of operations that has them all."""

    def __init__(self, answer: Callable[[str, Any], Any]) -> None:
        super().__init__()
        self._answer = answer

    def __contains__(self, name: object) -> bool:
        return True

    def __getitem__(self, name: str) -> Any:
        return lambda parameters: self._answer(name, parameters)


@pytest.fixture(scope="session")
def running_fake() -> Iterator[FakeNode]:
    fake = FakeNode()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def node(running_fake: FakeNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNode]:
    """The fake node with nothing recorded, in a zone one hour east of Greenwich."""
    running_fake.answers.clear()
    running_fake.asked.clear()
    monkeypatch.setenv("TZ", "UTC-1")
    time.tzset()
    yield running_fake
    monkeypatch.undo()
    time.tzset()


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command line against the node: exit code, stdout, stderr."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["-h", str(node.peer), "-s", SECRET, *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
