"""A node with its S3 endpoint on a real socket, in this process.

async with S3World(tmp_path) as w:
    await w.call("PUT", "/bucket")
    await w.call("PUT", "/bucket/key", body=b"content")
    answer = await w.call("GET", "/bucket/key")
    assert answer.body == b"content"
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.config import Config

from garage_lite.core.model.keys import AccessKey
from garage_lite.core.store.buckets import Buckets
from garage_lite.core.store.directory import Directory
from garage_lite.core.store.keys import Keys
from garage_lite.core.store.listing import Listing
from garage_lite.core.store.writing import StoreOptions
from garage_lite.system import SystemEntropy
from garage_lite.web.app import S3Server, serve_s3
from garage_lite.web.s3.context import S3Context, S3Settings
from garage_lite.web.s3.xml import Element, parse
from tests.core.store.world import OPTIONS, TestClock, World
from tests.sigv4 import UNSIGNED, Signer

REGION = "garage"


class OffsetClock(TestClock):
    """The real time, moved by `offset_s`."""

    def __init__(self) -> None:
        super().__init__()
        self.offset_s = 0

    def now_us(self) -> int:
        return time.time_ns() // 1000 + self.offset_s * 1_000_000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1000


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def code(self) -> str:
        """The code of an error."""
        return parse(self.body, "Error").value("Code") or ""

    def xml(self, root: str) -> Element:
        return parse(self.body, root)


class Wire:
    """One connection, spoken to in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, method: str = "GET") -> Answer:
        """The next answer, 100 Continue among them. Raises IncompleteReadError at the end."""
        async with asyncio.timeout(15):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = head.rstrip("\r\n").split("\r\n")
            status = int(status_line.split(" ")[1])
            headers = {}
            for line in lines:
                name, _, value = line.partition(": ")
                headers[name.lower()] = value
            length = int(headers.get("content-length", 0))
            silent = method == "HEAD" or status in (100, 204, 304)
            body = b"" if silent else await self.reader.readexactly(length)
        return Answer(status, headers, body)

    async def ended(self) -> bool:
        """Whether the server has closed, or closes within a moment."""
        async with asyncio.timeout(15):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    def close(self) -> None:
        self.writer.close()


def request_bytes(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape") + body


class S3World(World):
    clock: OffsetClock
    server: S3Server

    def __init__(
        self,
        directory: Path,
        options: StoreOptions = OPTIONS,
        *,
        root_domain: str | None = None,
        wrap: Callable[[S3Context], S3Context] = lambda context: context,
    ) -> None:
        super().__init__(directory, options)
        self.clock = OffsetClock()
        self._root_domain = root_domain
        self._wrap = wrap

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.names = await Directory.load(self.tables)
        self.buckets = Buckets(self.tables)
        self.keys = Keys(self.tables, self.names)
        self.key = await self.new_key("main")
        self.context = self._wrap(
            S3Context(
                self.names,
                self.objects,
                self.uploads,
                self.copies,
                Listing(self.tables),
                self.buckets,
                self.clock,
                SystemEntropy(),
                S3Settings(REGION, self._root_domain),
            )
        )
        self.server = await serve_s3(self.context, ["127.0.0.1:0"])
        self.port = self.server.ports[0]
        self._wire: Wire | None = None
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hang_up()
        await self.server.stop(1)
        await super().__aexit__()

    async def new_key(self, name: str, *, create_bucket: bool = True) -> AccessKey:
        key = await self.keys.create(name)
        if create_bucket:
            await self.keys.allow_create_bucket(key.id, True)
        return key

    # --- as a client

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def signer(self, key: AccessKey | None = None) -> Signer:
        key = key or self.key
        return Signer(self.host, key.id, key.secret, REGION)

    async def wire(self) -> Wire:
        return Wire(*await asyncio.open_connection("127.0.0.1", self.port))

    async def call(
        self,
        method: str,
        path: str,
        query: str = "",
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        key: AccessKey | None = None,
        unsigned: bool = False,
        host: str | None = None,
    ) -> Answer:
        """A signed request on a connection that is kept. `path` and `query` as they are sent."""
        payload = UNSIGNED if unsigned else hashlib.sha256(body or b"").hexdigest()
        signer = self.signer(key)
        if host:
            signer = Signer(host, signer.access_key, signer.secret_key, REGION)
        signed = signer.sign(method, path, query, payload, headers)
        if body is not None:
            signed["content-length"] = str(len(body))
        target = f"{path}?{query}" if query else path
        return await self.raw(method, request_bytes(method, target, signed, body or b""))

    async def raw(self, method: str, data: bytes) -> Answer:
        for attempt in range(2):
            if self._wire is None:
                self._wire = await self.wire()
            try:
                await self._wire.send(data)
                answer = await self._wire.answer(method)
            except (OSError, asyncio.IncompleteReadError):
                self._hang_up()
                if attempt:
                    raise
                continue
            if answer.headers.get("connection") == "close":
                self._hang_up()
            return answer
        raise AssertionError("unreachable")

    def _hang_up(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def boto(self, key: AccessKey | None = None, region: str = REGION, **config: Any) -> Any:
        """A boto3 client, for use in a thread."""
        key = key or self.key
        return boto3.client(
            "s3",
            endpoint_url=f"http://{self.host}",
            aws_access_key_id=key.id,
            aws_secret_access_key=key.secret,
            region_name=region,
            config=Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"}, **config),
        )
