"""What the S3 door says of buckets and keys that were made, or changed, at another node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from garage_lite.core.errors import QuorumNotReached
from garage_lite.core.model.rowkeys import Table, everywhere_row
from garage_lite.core.store.directory import Directory
from tests.web.world import S3World


class Elsewhere:
    """Rows that this node learns of when it looks."""

    def __init__(self, world: S3World) -> None:
        self.looks = 0
        self.lapsed = False
        self.reachable = True
        self._world = world
        self._unknown: list[bytes] = []

    def unlearn(self, table: Table, own: bytes) -> None:
        key = everywhere_row(table, own)
        self._unknown.append(key)
        self._world.names.refresh(key, None)

    async def fresh(self) -> None:
        if self.lapsed:
            await self.look()

    async def look(self) -> None:
        self.looks += 1
        if not self.reachable:
            raise QuorumNotReached
        for key in self._unknown:
            self._world.names.refresh(key, self._world.tables.durable().get(key))
        self._unknown.clear()
        self.lapsed = False


@pytest_asyncio.fixture
async def w(tmp_path: Path) -> AsyncIterator[S3World]:
    async with S3World(tmp_path) as world:
        assert (await world.call("PUT", "/bucket")).status == 200
        assert (await world.call("PUT", "/bucket/key", body=b"content")).status == 200
        yield world


@pytest.fixture
def elsewhere(w: S3World, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    found = Elsewhere(w)
    monkeypatch.setattr(Directory, "fresh", lambda _: found.fresh())
    monkeypatch.setattr(Directory, "look", lambda _: found.look())
    monkeypatch.setattr(Directory, "is_fresh", property(lambda _: not found.lapsed))
    return found


async def test_what_is_known_is_not_looked_for(w: S3World, elsewhere: Elsewhere) -> None:
    assert (await w.call("GET", "/bucket/key")).status == 200
    assert (await w.call("GET", "/bucket/no-such-key")).status == 404
    assert elsewhere.looks == 0


@pytest.mark.parametrize(
    ("table", "own"),
    [
        (Table.ALIAS, lambda w: b"bucket"),
        (Table.BUCKET, lambda w: w.names.resolve("bucket").id),
        (Table.KEY, lambda w: w.key.id.encode()),
    ],
)
async def test_what_is_unknown_here_is_looked_for(
    w: S3World, elsewhere: Elsewhere, table: Table, own: Callable[[S3World], bytes]
) -> None:
    elsewhere.unlearn(table, own(w))
    assert (await w.call("GET", "/bucket/key")).body == b"content"
    assert elsewhere.looks == 1


async def test_what_is_nowhere_is_looked_for_once(w: S3World, elsewhere: Elsewhere) -> None:
    answer = await w.call("GET", "/no-bucket/key")
    assert (answer.status, answer.code, elsewhere.looks) == (404, "NoSuchBucket", 1)
    elsewhere.reachable = False
    assert (await w.call("GET", "/no-bucket/key")).status == 503, "it may be anywhere"


async def test_the_source_of_a_copy_is_looked_for(w: S3World, elsewhere: Elsewhere) -> None:
    assert (await w.call("PUT", "/target")).status == 200
    elsewhere.unlearn(Table.ALIAS, b"bucket")
    copied = await w.call("PUT", "/target/copy", headers={"x-amz-copy-source": "/bucket/key"})
    assert (copied.status, elsewhere.looks) == (200, 1)


async def test_buckets_made_elsewhere_are_listed(w: S3World, elsewhere: Elsewhere) -> None:
    elsewhere.unlearn(Table.BUCKET, w.names.resolve("bucket").id)
    assert b"<Name>bucket</Name>" in (await w.call("GET", "/")).body


async def test_nothing_is_answered_on_what_may_have_changed(
    w: S3World, elsewhere: Elsewhere
) -> None:
    elsewhere.lapsed = True
    elsewhere.reachable = False
    answer = await w.call("GET", "/bucket/key")
    assert (answer.status, answer.code) == (503, "ServiceUnavailable")
    elsewhere.reachable = True
    assert (await w.call("GET", "/bucket/key")).status == 200
