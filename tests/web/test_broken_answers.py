"""When a block can't be had half way through an answer, the connection ends: nothing that is not
the object's is ever sent as its bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from garage_lite.core.store.writing import StoreOptions
from tests.core.store.world import pattern
from tests.sigv4 import UNSIGNED
from tests.web.world import S3World, request_bytes

BLOCK = 256 * 1024
BLOCKS = 6
"""More than a node reads ahead before it sends the first byte."""
CONTENT = pattern(BLOCKS * BLOCK)


@pytest_asyncio.fixture
async def w(tmp_path: Path) -> AsyncIterator[S3World]:
    async with S3World(tmp_path, StoreOptions(block_bytes=BLOCK)) as world:
        await world.call("PUT", "/bucket")
        assert (await world.call("PUT", "/bucket/key", body=CONTENT)).status == 200
        yield world


def damage(w: S3World, number: int, replacement: bytes | None) -> None:
    plain = CONTENT[number * BLOCK : (number + 1) * BLOCK]
    (file,) = [
        path for path in (w.directory / "data").glob("??/??/*") if path.read_bytes() == plain
    ]
    if replacement is None:
        file.unlink()
    else:
        file.write_bytes(replacement)


async def all_bytes(w: S3World, path: str) -> tuple[bytes, bytes]:
    """Head and body as they came, until the server hung up."""
    signed = w.signer().sign("GET", path, "", UNSIGNED)
    wire = await w.wire()
    await wire.send(request_bytes("GET", path, {**signed, "connection": "close"}))
    async with asyncio.timeout(15):
        received = b""
        try:
            while piece := await wire.reader.read(65536):
                received += piece
        except ConnectionError:
            pass
    wire.close()
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize("replacement", [None, b"", bytes(BLOCK), b"<Error></Error>"])
@pytest.mark.parametrize("number", [0, 2, BLOCKS - 1])
async def test_i42_a_block_that_can_not_be_had_ends_the_connection(
    w: S3World, number: int, replacement: bytes | None
) -> None:
    damage(w, number, replacement)
    head, body = await all_bytes(w, "/bucket/key")
    status = int(head.split(b" ")[1])
    if status == 200:
        assert b"content-length: %d" % len(CONTENT) in head.lower()
        assert len(body) < len(CONTENT)
        assert CONTENT.startswith(body)
    else:
        assert status >= 500, "nothing of the object was announced yet"
        assert number < BLOCKS - 1
    assert (await w.call("HEAD", "/bucket/key")).status == 200


async def test_the_same_way_gives_the_whole_object_where_nothing_is_damaged(w: S3World) -> None:
    head, body = await all_bytes(w, "/bucket/key")
    assert head.startswith(b"HTTP/1.1 200") and body == CONTENT
