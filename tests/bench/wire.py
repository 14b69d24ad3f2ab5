"""A cheap HTTP client: many connections in one thread, requests made in advance, answers counted.

It costs little, so that on a machine with two cores the server is what gets measured. It knows
just enough HTTP for answers with a Content-Length.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

RECEIVE_BYTES = 256 * 1024
SEND_BYTES = 1024 * 1024
STALLED_SECONDS = 120
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_ETAG = re.compile(rb"\r\netag: *(\S+)\r\n", re.IGNORECASE)


class Request(NamedTuple):
    head: bytes
    body: bytes = b""
    label: str = ""


class Answer(NamedTuple):
    label: str
    seconds: float
    """From the first byte sent to the last one received."""
    etag: str
    body_bytes: int


class BadAnswer(Exception):
    """The server did not grant a request of the benchmark."""


def request(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """The head of a request, ready to send."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    if body or method in ("PUT", "POST"):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode()


class _Connection:
    """One request after another on one socket."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.current: Request | None = None
        self.unsent: list[memoryview] = []
        self.head = b""
        self.missing: int | None = None
        """Bytes of the answer's body still to come; None before its head is whole."""
        self.began = 0.0
        self.length = 0

    def begin(self, request: Request) -> None:
        self.current, self.head, self.missing = request, b"", None
        small = len(request.body) < SEND_BYTES
        parts = [request.head + request.body] if small else [request.head, request.body]
        self.unsent = [memoryview(part) for part in parts]
        self.began = time.perf_counter()
        self.send()

    def send(self) -> bool:
        """Send what the socket takes; whether all is sent."""
        while self.unsent:
            try:
                sent = self.socket.send(self.unsent[0][:SEND_BYTES])
            except BlockingIOError:
                return False
            rest = self.unsent[0][sent:]
            self.unsent[:1] = [rest] if rest else []
        return True

    def receive(self, buffer: memoryview) -> Answer | None:
        """Take what has come; the answer once it is whole."""
        count = self.socket.recv_into(buffer)
        if count == 0:
            raise BadAnswer(f"connection closed: {self.current and self.current.head[:80]!r}")
        if self.missing is None:
            self.head += bytes(buffer[:count])
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return None
            found = _LENGTH.search(self.head, 0, end + 2)
            self.length = int(found[1]) if found else 0
            self.missing = self.length - (len(self.head) - end - 4)
        else:
            self.missing -= count
        return self._finished() if self.missing <= 0 else None

    def _finished(self) -> Answer:
        assert self.current is not None
        if not self.head.startswith(b"HTTP/1.1 2"):
            raise BadAnswer(f"{self.current.head[:120]!r} was answered {self.head[:600]!r}")
        etag = _ETAG.search(self.head)
        return Answer(
            self.current.label,
            time.perf_counter() - self.began,
            etag[1].decode() if etag else "",
            self.length,
        )


def drive(address: tuple[str, int], connections: int, requests: Iterable[Request]) -> list[Answer]:
    """Send all requests over this many kept-alive connections. Raises BadAnswer, OSError."""
    waiting: Iterator[Request] = iter(requests)
    buffer = memoryview(bytearray(RECEIVE_BYTES))
    answers: list[Answer] = []
    opened: list[_Connection] = []
    with selectors.DefaultSelector() as selector:

        def begin_next(connection: _Connection) -> bool:
            following = next(waiting, None)
            if following is None:
                return False
            connection.begin(following)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
            selector.modify(connection.socket, events, connection)
            return True

        try:
            for _ in range(connections):
                opened.append(_Connection(address))
                selector.register(opened[-1].socket, selectors.EVENT_READ, opened[-1])
            busy = sum(begin_next(connection) for connection in opened)
            while busy:
                events = selector.select(STALLED_SECONDS)
                if not events:
                    raise BadAnswer(f"no answer for {STALLED_SECONDS} s")
                for key, mask in events:
                    connection: _Connection = key.data
                    if mask & selectors.EVENT_WRITE and connection.send():
                        selector.modify(connection.socket, selectors.EVENT_READ, connection)
                    if mask & selectors.EVENT_READ:
                        answer = connection.receive(buffer)
                        if answer is not None:
                            answers.append(answer)
                            busy -= not begin_next(connection)
        finally:
            for connection in opened:
                connection.socket.close()
    return answers
