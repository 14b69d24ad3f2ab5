"""Random verbs, many at once, against a dict; clients that go away; a restart in between."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from garage_lite.core.errors import BadDigest, GarageLiteError, NoSuchKey
from garage_lite.core.model.counters import Counters
from garage_lite.core.store.completion import PartClaim
from garage_lite.core.store.copies import CopyRequest, Source
from garage_lite.core.workers.pending import LostDataWorker
from garage_lite.core.workers.runner import State
from tests.core.store.test_uploads import complete, create, put_part
from tests.core.store.world import BLOCK, Bytes, World, pattern

KEYS = [b"a", b"b", b"b/c", b"\0", b"long" * 200]
SIZES = [0, 1, 99, 100, 101, BLOCK, 2 * BLOCK + 1, 4 * BLOCK + 500]


class Model:
    """What each key should hold. One task a key, so that the order of its verbs is known."""

    def __init__(self, w: World, seed: int) -> None:
        self.w = w
        self.random = random.Random(seed)
        self.objects: dict[bytes, bytes] = {}

    def content(self) -> bytes:
        return pattern(self.random.choice(SIZES), seed=self.random.randrange(5))

    async def step(self, key: bytes) -> None:
        verb = self.random.choice(
            [self.put, self.put, self.fail, self.leave, self.delete, self.copy, self.upload]
        )
        await verb(key)
        await self.check(key)

    async def check(self, key: bytes) -> None:
        expected = self.objects.get(key)
        if expected is None:
            with pytest.raises(NoSuchKey):
                await self.w.get(key)
            return
        start = self.random.randint(0, len(expected))
        end = self.random.randint(start, len(expected))
        assert await self.w.get(key, start, end) == expected[start:end]
        assert await self.w.get(key) == expected

    async def put(self, key: bytes) -> None:
        content = self.content()
        await self.w.put(key, Bytes(content, chunk=self.random.choice([90, 400, 3000])))
        self.objects[key] = content

    async def fail(self, key: bytes) -> None:
        with pytest.raises(BadDigest):
            await self.w.put(key, Bytes(self.content(), expected={"CRC32": b"no"}))

    async def leave(self, key: bytes) -> None:
        """The client goes away at a moment of its own."""
        content = self.content()
        put = asyncio.create_task(self.w.put(key, content))
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(self.random.choice([0, 0, 0, 0.0005]))
        put.cancel()
        await asyncio.wait([put])
        await self.w.storage.settle()
        await self.w.barrier()
        try:
            stored = await self.w.get(key)
        except NoSuchKey:
            assert key not in self.objects
            return
        assert stored in (content, self.objects.get(key))
        self.objects[key] = stored

    async def delete(self, key: bytes) -> None:
        await self.w.objects.delete(self.w.bucket, key)
        self.objects.pop(key, None)

    async def copy(self, key: bytes) -> None:
        source = Source(self.w.bucket.id, key)
        request = CopyRequest(source, self.w.bucket, key, headers=(("x-amz-meta-n", "1"),))
        try:
            await self.w.copies.copy_object(request)
        except NoSuchKey:
            assert key not in self.objects

    async def upload(self, key: bytes) -> None:
        upload_id = await create(self.w, key)
        contents = [self.content() for _ in range(self.random.randint(1, 4))]
        claims = []
        for number, content in enumerate(contents, 1):
            if self.random.random() < 0.3:
                await put_part(self.w, upload_id, number, self.content(), key)
            part = await put_part(self.w, upload_id, number, content, key)
            claims.append(PartClaim(number, part.etag_text))
        if self.random.random() < 0.3:
            await self.w.uploads.abort(self.w.bucket.id, key, upload_id)
            return
        await complete(self.w, upload_id, claims, key)
        self.objects[key] = b"".join(contents)


@pytest.mark.parametrize("seed", range(6))
async def test_the_store_is_a_dict(tmp_path: Path, seed: int) -> None:
    async with World(tmp_path) as w:
        model = Model(w, seed)

        async def use(key: bytes) -> None:
            for _ in range(12):
                await model.step(key)

        await asyncio.gather(*(use(key) for key in KEYS))
        expected = Counters(
            objects=len(model.objects),
            total_bytes=sum(len(content) for content in model.objects.values()),
        )
        await w.cascade()
        assert await w.counters() == expected
    async with World(tmp_path) as w:
        model.w = w
        for key in KEYS:
            await model.check(key)
            await w.objects.delete(w.bucket, key)
        await w.nothing_left()
        assert await w.counters() == Counters()


async def test_what_a_dead_writer_left_behind_goes(tmp_path: Path) -> None:
    """A crash in the middle of an upload: the next run finds the pending row of another boot."""
    async with World(tmp_path) as w:
        await w.put(b"key", b"old")
        stopped = asyncio.Event()

        class Stalled(Bytes):
            async def read(self) -> bytes:
                if self.asked == 12:
                    stopped.set()
                    await asyncio.Event().wait()
                return await super().read()

        put = asyncio.create_task(w.put(b"key", Stalled(pattern(9 * BLOCK))))
        await stopped.wait()
        await asyncio.sleep(0.05)
        await w.metadata.close()
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        await w.files.close()
        with pytest.raises(GarageLiteError):
            await w.put(b"key", b"refused")
        w.abandoned = True
    async with World(tmp_path) as w:
        assert (await w.left()).pending == 1
        worker = LostDataWorker(w.tables, w.storage.node, w.storage.boot)
        while (await worker.work()).state is not State.IDLE:
            pass
        await w.nothing_left()
        assert await w.get(b"key") == b"old"
