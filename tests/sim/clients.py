"""Clients of a simulated cluster: each does one thing after another and writes down what it saw.

A client asks any node, gives up after a while, and never tries again by itself: what became of an
operation that got no answer stays unknown.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from garage_lite.core.errors import (
    CallerError,
    NodeError,
    NoSuchKey,
    PreconditionFailed,
    Unavailable,
)
from garage_lite.core.ids import VersionId
from garage_lite.core.model.buckets import Bucket, Permission
from garage_lite.core.model.objects import ObjectVersion
from garage_lite.core.store.body import PutRequest
from garage_lite.core.store.completion import CompleteRequest, PartClaim
from garage_lite.core.store.conditions import WriteCondition
from garage_lite.core.store.copies import CopyRequest, Source
from garage_lite.core.store.deletions import DeleteKey
from garage_lite.core.store.uploads import CreateRequest, PartRequest
from garage_lite.node import Node
from tests.core.store.world import Bytes
from tests.sim.cluster import Cluster, NodeDied, SimNode
from tests.sim.history import Kind, Operation, Outcome

T = TypeVar("T")

CLIENT_SECONDS: Final = 40.0
"""A client gives up after this long."""
SIZES: Final = (10, 700, 3072, 3073, 4096, 9000)
LIST_LIMIT: Final = 4
"""Keys a page, so that listings have many pages."""


class WrongContent(AssertionError):
    """An object's bytes are none that were ever written whole."""


@functools.lru_cache(4096)
def content_of(value: int) -> bytes:
    """The content a value names: no two have a block in common."""
    size = SIZES[value % len(SIZES)]
    return b"%d " % value + random.Random(value).randbytes(size)


@functools.lru_cache(4096)
def etag_of(value: int) -> str:
    return hashlib.md5(content_of(value)).hexdigest()


def value_of(content: bytes) -> int:
    """Raises WrongContent unless it is exactly the content of a value."""
    text = content[:12].split(b" ")[0]
    if not text.isdigit() or content != content_of(int(text)):
        raise WrongContent(f"{len(content)} bytes that begin with {content[:20]!r}")
    return int(text)


@dataclass
class Journal:
    """What all clients of a run write into."""

    operations: list[Operation] = field(default_factory=list)
    values: int = 0
    late: list[str] = field(default_factory=list)
    """Operations that took longer than any deadline allows."""

    def value(self) -> int:
        """One that was never written before."""
        self.values += 1
        return self.values


class Client:
    """One client; several run at once."""

    def __init__(
        self, name: str, cluster: Cluster, bucket: Bucket, journal: Journal, home: int | None = None
    ) -> None:
        """`home`: the only node it asks; None: any."""
        self.name = name
        self.random = random.Random(f"{cluster.seed} {name}")
        self.journal = journal
        self.bucket = bucket
        self._cluster = cluster
        self._home = home

    # --- verbs

    async def put(self, key: str, value: int | None = None) -> Operation:
        value = self.journal.value() if value is None else value
        return await self._write(Kind.PUT, key, value, self._putting(key, value, None))

    async def create(self, key: str) -> Operation:
        value = self.journal.value()
        condition = WriteCondition(if_none_match="*")
        return await self._write(Kind.CREATE, key, value, self._putting(key, value, condition))

    async def swap(self, key: str, expected: int) -> Operation:
        value = self.journal.value()
        condition = WriteCondition(if_match=etag_of(expected))
        put = self._putting(key, value, condition)
        return await self._write(Kind.SWAP, key, value, put, expected)

    async def delete_if(self, key: str, expected: int) -> Operation:
        condition = WriteCondition(if_match=etag_of(expected))

        async def delete(node: Node) -> None:
            await node.objects.delete(self.bucket, key.encode(), condition=condition)

        return await self._write(Kind.SWAP, key, None, delete, expected)

    async def delete(self, key: str) -> Operation:
        async def delete(node: Node) -> None:
            await node.objects.delete(self.bucket, key.encode())

        return await self._write(Kind.DELETE, key, None, delete)

    async def delete_many(self, keys: list[str]) -> None:
        operations = [self._begin(Kind.DELETE, key) for key in keys]

        async def delete(node: Node) -> None:
            await node.objects.delete_many(self.bucket, [DeleteKey(key.encode()) for key in keys])

        whole = Operation(self.name, Kind.DELETE, "", self._now())
        await self._run(whole, delete)
        for operation in operations:
            operation.outcome, operation.end = whole.outcome, whole.end
            operation.note = whole.note

    async def get(self, key: str, at: SimNode | None = None) -> Operation:
        operation = self._begin(Kind.GET, key)

        async def read(node: Node) -> int | None:
            try:
                return value_of(await content(node, self.bucket, key.encode()))
            except NoSuchKey:
                return None

        operation.found = await self._run(operation, read, at)
        return operation

    async def listing(self, at: SimNode | None = None) -> Operation:
        """All pages: the keys of the whole bucket."""
        operation = self._begin(Kind.LIST, "")
        operation.found = await self._run(operation, self._all_keys, at)
        return operation

    async def copy(self, source: str, target: str) -> Operation:
        """The value is known from the answer; without one it may be anything the source held."""
        operation = Operation(self.name, Kind.PUT, target, self._now(), note=f"copy of {source}")

        async def copy(node: Node) -> int:
            request = CopyRequest(
                Source(self.bucket.id, source.encode()), self.bucket, target.encode(), headers=()
            )
            version, _ = await node.copies.copy_object(request)
            return self._value_with(version)

        value = await self._run(operation, copy)
        operation.value = value
        if operation.outcome is Outcome.OK:
            self.journal.operations.append(operation)
        elif operation.outcome is Outcome.UNKNOWN:
            for written in [op for op in self.journal.operations if op.key == source]:
                if written.value is not None:
                    self.journal.operations.append(replace(operation, value=written.value))
        return operation

    # --- multipart

    async def begin_upload(self, key: str, value: int) -> tuple[VersionId, str] | None:
        """An upload with its one part; None when that did not work."""

        async def begin(node: Node) -> tuple[VersionId, str]:
            request = CreateRequest(self.bucket, key.encode(), "GK")
            upload, _ = await node.uploads.create(request)
            body = Bytes(content_of(value), 1000)
            part = await node.uploads.put_part(
                PartRequest(self.bucket, key.encode(), upload, 1, body)
            )
            return upload, part.etag_text

        return await self._run(Operation(self.name, Kind.PUT, key, self._now()), begin)

    async def complete(self, key: str, upload: VersionId, etag: str, value: int) -> Operation:
        async def complete(node: Node) -> None:
            claims = [PartClaim(1, etag)]
            await node.uploads.complete(CompleteRequest(self.bucket, key.encode(), upload, claims))

        return await self._write(Kind.PUT, key, value, complete)

    async def abort(self, key: str, upload: VersionId) -> Outcome:
        async def abort(node: Node) -> None:
            await node.uploads.abort(self.bucket.id, key.encode(), upload)

        operation = Operation(self.name, Kind.DELETE, key, self._now(), note="abort")
        await self._run(operation, abort)
        return operation.outcome

    # --- access keys

    async def make_key(self, name: str) -> str | None:
        async def make(node: Node) -> str:
            return (await node.keys.create(name)).id

        return await self._run(self._aside("make a key"), make)

    async def allow(self, key: str) -> Outcome:
        async def allow(node: Node) -> None:
            await node.buckets.allow(self.bucket.id, key, Permission.ALL)

        operation = self._aside(f"allow {key}")
        await self._run(operation, allow)
        return operation.outcome

    async def revoke(self, key: str) -> Outcome:
        """Takes its rights on the bucket, or the key itself."""
        whole = self.random.random() < 0.5

        async def revoke(node: Node) -> None:
            if whole:
                await node.keys.delete(key)
            else:
                await node.buckets.deny(self.bucket.id, key, Permission.ALL)

        operation = self._aside(f"revoke {key}")
        await self._run(operation, revoke)
        return operation.outcome

    async def usable_keys(self) -> list[str]:
        """The keys that this client's node would now let read the bucket."""

        async def usable(node: Node) -> list[str]:
            await node.directory.fresh()
            bucket = node.directory.bucket_by_id(self.bucket.id)
            keys = [key.id for key in node.directory.access_keys()]
            return [key for key in keys if Permission.READ in bucket.permissions_of(key)]

        return await self._run(self._aside("use"), usable) or []

    def _aside(self, note: str) -> Operation:
        """Something that no checker of objects looks at."""
        return Operation(self.name, Kind.LIST, "", self._now(), note=note)

    # --- the rest

    def _putting(
        self, key: str, value: int, condition: WriteCondition | None
    ) -> Callable[[Node], Awaitable[None]]:
        async def put(node: Node) -> None:
            body = Bytes(content_of(value), 1000)
            await node.objects.put(PutRequest(self.bucket, key.encode(), body, guard=condition))

        return put

    async def _all_keys(self, node: Node) -> frozenset[str]:
        found: set[str] = set()
        after = b""
        while True:
            page = await node.listing.objects(self.bucket.id, after=after, limit=LIST_LIMIT)
            found.update(entry.key.decode() for entry in page.entries)
            if page.next is None:
                return frozenset(found)
            after = page.entries[-1].key

    def _value_with(self, version: ObjectVersion) -> int:
        for value in range(1, self.journal.values + 1):
            if etag_of(value) == version.etag_text:
                return value
        raise WrongContent(f"an unknown ETag {version.etag_text}")

    async def _write(
        self,
        kind: Kind,
        key: str,
        value: int | None,
        work: Callable[[Node], Awaitable[object]],
        expected: int | None = None,
    ) -> Operation:
        operation = self._begin(kind, key, value, expected)
        await self._run(operation, work)
        return operation

    def _begin(
        self, kind: Kind, key: str, value: int | None = None, expected: int | None = None
    ) -> Operation:
        operation = Operation(self.name, kind, key, self._now(), value, expected)
        self.journal.operations.append(operation)
        return operation

    def _now(self) -> float:
        return self._cluster.loop.time()

    async def _run(
        self,
        operation: Operation,
        work: Callable[[Node], Awaitable[T]],
        at: SimNode | None = None,
    ) -> T | None:
        """Do it at some node, and write down how it ended. What is no GarageLiteError is a bug
        and raised."""
        node = at or self._somewhere()
        result = None

        async def once_ready(running: Node) -> T:
            if not running.layout.ready:  # as the S3 door says
                raise Unavailable("there is no layout here yet")
            return await work(running)

        try:
            async with asyncio.timeout(CLIENT_SECONDS):
                result = await node.run(once_ready)
            operation.outcome = Outcome.OK
        except (PreconditionFailed, NoSuchKey) as error:
            refused = operation.kind in (Kind.SWAP, Kind.CREATE)
            operation.outcome = Outcome.REFUSED if refused else Outcome.FAILED
            operation.note = type(error).__name__
        except CallerError as error:
            operation.outcome, operation.note = Outcome.FAILED, repr(error)
        except (NodeError, NodeDied, TimeoutError) as error:
            unseen = operation.kind in (Kind.GET, Kind.LIST)
            operation.outcome = Outcome.FAILED if unseen else Outcome.UNKNOWN
            operation.note = repr(error)[:120]
        operation.end = self._now()
        operation.note += f" @{node.number}"
        return result

    def _somewhere(self) -> SimNode:
        """A node that runs; if none does, one that does not answer."""
        if self._home is not None:
            return self._cluster.nodes[self._home]
        return self.random.choice(self._cluster.up() or self._cluster.nodes)


async def content(node: Node, bucket: Bucket, key: bytes) -> bytes:
    """The object's bytes. Raises NoSuchKey."""
    version = await node.objects.head(bucket.id, key)
    stream = await node.objects.read(bucket.id, version, 0, version.size)
    return b"".join([piece async for piece in stream])
