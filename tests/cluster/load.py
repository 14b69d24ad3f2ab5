"""Clients of a real cluster: they write down what they did and saw, as the simulated ones do."""

from __future__ import annotations

import functools
import hashlib
import http.client
import random
import re
import threading
import time
from collections.abc import Sequence

from tests.cluster.processes import ClusterNode
from tests.process import REGION, Key
from tests.sigv4 import Client, Reply, Signer
from tests.sim.history import Kind, Operation, Outcome

SIZES = (100, 3000, 3073, 60_000, 1_500_000)
ANSWER_SECONDS = 30.0
BUCKET = "load"


@functools.lru_cache(256)
def content_of(value: int) -> bytes:
    size = SIZES[value % len(SIZES)]
    return b"%d " % value + random.Random(value).randbytes(size)


def value_of(content: bytes) -> int:
    """Which value's content this is, to the last byte; raises AssertionError if none's."""
    text = content[:20].split(b" ")[0]
    assert text.isdigit(), f"no content of ours: {content[:40]!r}"
    wanted = content_of(int(text))
    assert hashlib.sha256(content).digest() == hashlib.sha256(wanted).digest(), text
    return int(text)


class Values:
    """Numbers that are given once, to any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        with self._lock:
            self._last += 1
            return self._last


def client_of(node: ClusterNode, key: Key, seconds: float = ANSWER_SECONDS) -> Client:
    return Client(node.endpoint, Signer(node.host, key.access_key, key.secret_key, REGION), seconds)


def ask(node: ClusterNode, key: Key, method: str, name: str = "", query: str = "") -> Reply:
    """One request about the bucket, or an object of it, on a connection of its own."""
    client = client_of(node, key)
    try:
        return client.call(method, BUCKET, name, query)
    finally:
        client.close()


class Worker(threading.Thread):
    """Works until told to stop, at nodes that it is told may answer."""

    def __init__(
        self, name: str, nodes: Sequence[ClusterNode], key: Key, values: Values, keys: Sequence[str]
    ) -> None:
        super().__init__(name=name)
        self.operations: list[Operation] = []
        self.stopping = threading.Event()
        self.broken: BaseException | None = None
        self._random = random.Random(name)
        self._nodes = nodes
        self._key = key
        self._values = values
        self._keys = keys

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                self._step(self._random.choice(self._keys), self._random.choice(self._nodes))
        except BaseException as error:  # told by the test's own thread
            self.broken = error

    def end(self) -> list[Operation]:
        self.stopping.set()
        self.join()
        if self.broken is not None:
            raise self.broken
        return self.operations

    def _step(self, key: str, node: ClusterNode) -> None:
        match self._random.randrange(6):
            case 0 | 1:
                value = self._values.next()
                self._do(node, Kind.PUT, key, "PUT", value)
            case 2:
                self._do(node, Kind.DELETE, key, "DELETE")
            case 3:
                value = self._values.next()
                self._do(node, Kind.CREATE, key, "PUT", value)
            case _:
                self._do(node, Kind.GET, key, "GET")

    def _do(
        self, node: ClusterNode, kind: Kind, key: str, method: str, value: int | None = None
    ) -> None:
        operation = Operation(self.name, kind, key, time.monotonic(), value)
        self.operations.append(operation)
        body = content_of(value) if value is not None else b""
        extra = {"if-none-match": "*"} if kind is Kind.CREATE else {}
        client = client_of(node, self._key)
        try:
            reply = client.call(method, BUCKET, key, body=body, extra=extra)
        except ConnectionRefusedError:
            operation.note, operation.outcome = "nobody listens", Outcome.FAILED
            time.sleep(0.05)
        except (OSError, http.client.HTTPException) as error:
            operation.note = repr(error)
            operation.outcome = Outcome.FAILED if kind is Kind.GET else Outcome.UNKNOWN
        else:
            self._judge(operation, reply)
        finally:
            client.close()
            operation.end = time.monotonic()
        operation.note += f" @{node.host}"

    def _judge(self, operation: Operation, reply: Reply) -> None:
        operation.note = str(reply.status)
        if reply.status in (200, 204):
            operation.outcome = Outcome.OK
            if operation.kind is Kind.GET:
                operation.found = value_of(reply.body)
        elif reply.status == 404 and operation.kind is Kind.GET:
            operation.outcome = Outcome.OK
        elif reply.status == 412:
            operation.outcome = Outcome.REFUSED
        elif reply.status == 409 or operation.kind is Kind.GET:
            operation.outcome = Outcome.FAILED
        else:
            assert reply.status >= 500, f"{operation}: {reply}"
            operation.outcome = Outcome.UNKNOWN


def read_all(node: ClusterNode, key: Key, names: Sequence[str]) -> list[Operation]:
    """Every key read once at a node that must answer."""
    client, found = client_of(node, key), []
    for name in names:
        operation = Operation("at rest", Kind.GET, name, time.monotonic())
        reply = client.call("GET", BUCKET, name)
        assert reply.status in (200, 404), reply
        operation.found = value_of(reply.body) if reply.status == 200 else None
        operation.outcome, operation.end = Outcome.OK, time.monotonic()
        found.append(operation)
    client.close()
    return found


def listed(node: ClusterNode, key: Key) -> set[str]:
    reply = ask(node, key, "GET", query="list-type=2")
    assert reply.status == 200, reply
    return {name.decode() for name in re.findall(rb"<Key>([^<]+)</Key>", reply.body)}
