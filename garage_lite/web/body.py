"""A request's body as the store reads it: plain content, whole or an error.

Takes aws-chunked off, asks a waiting client to go on (100 Continue) only when the first byte is
wanted, and gives up on a client that falls silent. Must not know what the content is for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from garage_lite.core.errors import BodyTooLarge, IncompleteBody
from garage_lite.core.limits import PUT_BYTES_MAX
from garage_lite.core.model.objects import Checksum
from garage_lite.core.store.digests import MD5, Digests
from garage_lite.web.s3.aws_chunked import Decoder
from garage_lite.web.s3.errors import S3Error
from garage_lite.web.s3.integrity import Announcement

SILENCE_SECONDS_MAX: Final = 30
"""A client that sends nothing for so long is told RequestTimeout (AWS: 20 s)."""


class Stream(Protocol):
    """What is used of aiohttp's StreamReader."""

    def is_eof(self) -> bool: ...
    def at_eof(self) -> bool: ...
    def read_nowait(self, n: int = -1, /) -> bytes: ...
    async def readany(self) -> bytes: ...
    def set_exception(self, exc: BaseException, /) -> None: ...


class RequestBody:
    """The content of one request, read once.

    `read` gives chunks, b"" at the end; it raises IncompleteBody, BodyTooLarge, or S3Error for a
    wrong chunk signature or a silent client. `finish` must be called after the end and before
    anything becomes visible: it checks every digest that was announced.
    """

    def __init__(
        self,
        stream: Stream,
        announced: Announcement,
        decoder: Decoder | None,
        go_on: Callable[[], None],
    ) -> None:
        self.announced = announced
        self.size: int | None = announced.size
        self.digests: frozenset[str] = announced.digests
        self._stream = stream
        self._decoder = decoder
        self._go_on: Callable[[], None] | None = go_on
        self._pieces: deque[bytes] = deque()
        self._received = 0
        self._waiting_since: float | None = None
        self._alarm: asyncio.TimerHandle | None = None

    async def read(self) -> bytes:
        """The next chunk of content, b"" at the end."""
        if self._go_on is not None:
            go_on, self._go_on = self._go_on, None
            go_on()
        if self._decoder is None:
            data = await self._receive()
            self._count(data)
            return data
        while not self._pieces:
            data = await self._receive()
            if not data:
                self._decoder.finish()
                return b""
            self._pieces.extend(self._decoder.feed(data))
        return self._pieces.popleft()

    def finish(self, size: int, digests: Mapping[str, bytes]) -> Checksum | None:
        """Compares what came with what was announced; the additional checksum to store.

        `digests` holds MD5 and all of `self.digests`. Raises BadDigest, IncompleteBody, S3Error.
        """
        if self.size is not None and size != self.size:
            raise IncompleteBody
        trailers = self._decoder.trailers if self._decoder else {}
        return self.announced.check(digests, trailers)

    async def read_all(self, size_max: int) -> bytes:
        """The whole content of a small body, checked. Raises BodyTooLarge beyond `size_max`."""
        digests = Digests({MD5, *self.digests})
        parts = []
        while data := await self.read():
            parts.append(data)
            digests.update([data])
            if digests.size > size_max:
                raise BodyTooLarge
        self.finish(digests.size, digests.results())
        return b"".join(parts)

    def close(self) -> None:
        """Wait for nothing any more. To be called when the request is over."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def _receive(self) -> bytes:
        stream = self._stream
        try:
            if stream.is_eof():
                return b"" if stream.at_eof() else stream.read_nowait()
            self._expect()
            return await stream.readany()
        except TimeoutError as error:
            raise S3Error(
                "RequestTimeout",
                "Your socket connection to the server was not read from or written to within the"
                " timeout period.",
            ) from error
        except (OSError, S3Error):
            raise
        except Exception as error:  # aiohttp tells of a broken body by several classes
            raise IncompleteBody from error
        finally:
            self._waiting_since = None

    def _expect(self) -> None:
        """Begin to wait for the client. One alarm serves the whole body: a timeout around each
        read would cost as much as the read."""
        loop = asyncio.get_running_loop()
        self._waiting_since = loop.time()
        if self._alarm is None:
            self._alarm = loop.call_later(SILENCE_SECONDS_MAX, self._listen)

    def _listen(self) -> None:
        """Give up if the client has been silent for too long; else look again later."""
        loop = asyncio.get_running_loop()
        since = loop.time() if self._waiting_since is None else self._waiting_since
        left = since + SILENCE_SECONDS_MAX - loop.time()
        if left > 0:
            self._alarm = loop.call_later(left, self._listen)
        else:
            self._alarm = None
            self._stream.set_exception(TimeoutError())

    def _count(self, data: bytes) -> None:
        self._received += len(data)
        if not data and self.size is not None and self._received != self.size:
            raise IncompleteBody
        if self._received > PUT_BYTES_MAX:
            raise BodyTooLarge
