"""A slow link before a TCP port: delay and rate each way, as a home's line has them.

    python -m tests.bench.link_proxy 127.0.0.1:4001 127.0.0.1:3901 --delay-ms 100 --mbps 50

For machines whose kernel has no netem. The rate is of the link, shared by its connections. To cut
the link, stop the process (SIGSTOP: packets vanish) or kill it (connections break).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import Final

READ_BYTES: Final = 32 * 1024


@dataclass
class Way:
    """One direction of the link."""

    delay: float
    """Seconds."""
    bytes_per_second: float
    free_at: float = 0.0
    """When the line has sent what was given to it."""

    def arrival(self, size: int, now: float) -> float:
        """When `size` bytes that are sent now arrive."""
        self.free_at = max(now, self.free_at) + size / self.bytes_per_second
        return self.free_at + self.delay

    @property
    def in_flight_max(self) -> int:
        """As TCP's window on such a line: twice what fits into it, at least 256 KiB."""
        return max(256 * 1024, int(2 * 2 * self.delay * self.bytes_per_second))


@dataclass
class Pipe:
    """One direction of one connection."""

    way: Way
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    waiting: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            group.create_task(self._write())

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await self.reader.read(READ_BYTES):
            self._put(self.way.arrival(len(data), loop.time()), data)
            while self.waiting > self.way.in_flight_max:
                self.changed.clear()
                await self.changed.wait()
        self._put(loop.time() + self.way.delay, b"")

    def _put(self, arrival: float, data: bytes) -> None:
        self.queue.append((arrival, data))
        self.waiting += len(data)
        self.changed.set()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self.queue:
                self.changed.clear()
                await self.changed.wait()
            arrival, data = self.queue.popleft()
            await asyncio.sleep(max(0.0, arrival - loop.time()))
            if not data:
                self.writer.write_eof()
                return
            self.writer.write(data)
            await self.writer.drain()
            self.waiting -= len(data)
            self.changed.set()


class LinkProxy:
    """Accepts on one address and passes on to another."""

    def __init__(self, target: tuple[str, int], delay_ms: float, mbps: float) -> None:
        """`delay_ms`: one way."""
        self._target = target
        self._ways = [Way(delay_ms / 1000, mbps * 1e6 / 8) for _ in range(2)]

    async def serve(self, host: str, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._accept, host, port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(Pipe(self._ways[0], reader, far_writer).run())
                group.create_task(Pipe(self._ways[1], far_reader, writer).run())
        except* OSError:
            pass  # one side broke: so does the other
        finally:
            for each in writers:
                each.close()


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("listen", type=address)
    parser.add_argument("target", type=address)
    parser.add_argument("--delay-ms", type=float, default=100, help="one way")
    parser.add_argument("--mbps", type=float, default=50)
    asked = parser.parse_args()
    server = await LinkProxy(asked.target, asked.delay_ms, asked.mbps).serve(*asked.listen)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
