"""Conditions: each by its table, then decided once among many racers."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from garage_lite.core.errors import GarageLiteError, NoSuchKey, PreconditionFailed
from garage_lite.core.ids import VersionId
from garage_lite.core.model.objects import Kind, ObjectVersion
from garage_lite.core.store.conditions import (
    Outcome,
    ReadCondition,
    WriteCondition,
    check_source,
    check_write,
    etag_matches,
)
from garage_lite.core.store.deletions import DeleteKey, DeleteResult
from garage_lite.core.store.versions import unplaced
from tests.core.store.world import BLOCK, Bytes, World, pattern

VERSION = ObjectVersion(
    unplaced(VersionId(bytes(16))), Kind.INLINE, mtime_ms=10_500, size=3, etag=b"\xab" * 16
)
ETAG = "ab" * 16
MARKER = replace(VERSION, kind=Kind.DELETE_MARKER)
ABSENT = WriteCondition(if_none_match="*")


@pytest.mark.parametrize(
    ("expected", "matches"),
    [
        (ETAG, True),
        (f'"{ETAG}"', True),
        (f'W/"{ETAG}"', True),
        (f'"x", "{ETAG}"', True),
        ("*", True),
        ('"x"', False),
        (f"{ETAG}-1", False),
    ],
)
def test_etags(expected: str, matches: bool) -> None:
    assert etag_matches(expected, VERSION) is matches


def test_etags_of_several_parts_name_their_number() -> None:
    assert etag_matches(f'"{ETAG}-3"', replace(VERSION, parts=3))
    assert not etag_matches(ETAG, replace(VERSION, parts=3))


@pytest.mark.parametrize(
    ("condition", "current", "error"),
    [
        (None, VERSION, None),
        (ABSENT, None, None),
        (ABSENT, MARKER, None),
        (ABSENT, VERSION, PreconditionFailed),
        (WriteCondition(if_none_match=VERSION.etag_text), VERSION, PreconditionFailed),
        (WriteCondition(if_none_match='"another"'), VERSION, None),
        (WriteCondition(if_none_match=VERSION.etag_text), None, None),
        (WriteCondition(if_match=ETAG), VERSION, None),
        (WriteCondition(if_match="*"), VERSION, None),
        (WriteCondition(if_match="x"), VERSION, PreconditionFailed),
        (WriteCondition(if_match=ETAG), None, NoSuchKey),
        (WriteCondition(if_match="*"), MARKER, NoSuchKey),
    ],
)
def test_write_conditions(
    condition: WriteCondition | None,
    current: ObjectVersion | None,
    error: type[GarageLiteError] | None,
) -> None:
    if error is None:
        check_write(condition, current)
    else:
        with pytest.raises(error):
            check_write(condition, current)


@pytest.mark.parametrize(
    ("condition", "outcome"),
    [
        (ReadCondition(), Outcome.PROCEED),
        (ReadCondition(if_match=ETAG), Outcome.PROCEED),
        (ReadCondition(if_match="x"), Outcome.FAILED),
        (ReadCondition(if_none_match=ETAG), Outcome.NOT_MODIFIED),
        (ReadCondition(if_none_match="x"), Outcome.PROCEED),
        (ReadCondition(if_modified_since=9), Outcome.PROCEED),
        (ReadCondition(if_modified_since=10), Outcome.NOT_MODIFIED),
        (ReadCondition(if_unmodified_since=10), Outcome.PROCEED),
        (ReadCondition(if_unmodified_since=9), Outcome.FAILED),
        # A match that holds makes the time count no more, either way.
        (ReadCondition(if_match=ETAG, if_unmodified_since=9), Outcome.PROCEED),
        (ReadCondition(if_none_match="x", if_modified_since=10), Outcome.PROCEED),
        (ReadCondition(if_match="x", if_none_match=ETAG), Outcome.FAILED),
    ],
)
def test_read_conditions(condition: ReadCondition, outcome: Outcome) -> None:
    assert condition.outcome(VERSION)[0] is outcome
    if outcome is Outcome.PROCEED:
        check_source(condition, VERSION)
    else:
        with pytest.raises(PreconditionFailed):
            check_source(condition, VERSION)


async def race(w: World, count: int, condition: WriteCondition, size: int) -> list[bytes]:
    """The contents of the winners among racing puts."""
    contents = [pattern(size, seed=number) for number in range(count)]
    results = await asyncio.gather(
        *(w.put(b"key", content, guard=condition) for content in contents),
        return_exceptions=True,
    )
    losers = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(loser, PreconditionFailed) for loser in losers)
    return [
        content
        for content, result in zip(contents, results, strict=True)
        if isinstance(result, ObjectVersion)
    ]


@pytest.mark.parametrize("size", [50, 2 * BLOCK])
async def test_one_of_fifty_creates(w: World, size: int) -> None:
    """Garage ignores If-None-Match silently: all fifty would win."""
    (winner,) = await race(w, 50, ABSENT, size)
    assert await w.get(b"key") == winner
    left = await w.left()
    assert (left.pending, left.live_refs) == (0, 0 if size < 100 else 2)


@pytest.mark.parametrize("size", [50, 2 * BLOCK])
async def test_one_of_fifty_replaces(w: World, size: int) -> None:
    old = await w.put(b"key", b"old")
    (winner,) = await race(w, 50, WriteCondition(if_match=old.etag_text), size)
    assert await w.get(b"key") == winner


async def test_a_conditional_write_comes_after_what_it_was_decided_on(
    w: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blind write of the same content slips in after the conditional one was stamped: the
    condition still holds, but with its old stamp the winner would be lost below the other."""
    old = await w.put(b"key", b"old")
    write, calls = w.tables.write, 0

    async def late(*args: object, **more: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await w.put(b"key", b"old")
        await write(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(w.tables, "write", late)
    await w.put(b"key", b"new", guard=WriteCondition(if_match=old.etag_text))
    assert await w.get(b"key") == b"new"


async def test_a_refusal_comes_before_the_body_is_read(w: World) -> None:
    await w.put(b"key", b"old")
    body = Bytes(pattern(5 * BLOCK))
    with pytest.raises(PreconditionFailed):
        await w.put(b"key", body, guard=ABSENT)
    assert body.asked == 0


async def test_a_refusal_after_the_body_leaves_nothing(w: World) -> None:
    class Slow(Bytes):
        async def read(self) -> bytes:
            if self.asked == 5:
                await w.put(b"key", b"faster")
            return await super().read()

    with pytest.raises(PreconditionFailed):
        await w.put(b"key", Slow(pattern(5 * BLOCK)), guard=ABSENT)
    assert await w.get(b"key") == b"faster"
    await w.nothing_left()


async def test_conditional_deletes(w: World) -> None:
    version = await w.put(b"key", b"x")
    with pytest.raises(NoSuchKey):
        await w.objects.delete(w.bucket, b"absent", condition=WriteCondition(if_match="*"))
    with pytest.raises(PreconditionFailed):
        await w.objects.delete(w.bucket, b"key", condition=WriteCondition(if_match="x"))
    assert await w.get(b"key") == b"x"
    right = WriteCondition(if_match=version.etag_text)
    results = await w.objects.delete_many(
        w.bucket,
        [
            DeleteKey(b"key", condition=WriteCondition(if_match="x")),
            DeleteKey(b"key", condition=right),
            DeleteKey(b"absent"),
        ],
    )
    assert isinstance(results[0], PreconditionFailed)
    assert results[1:] == [DeleteResult(), DeleteResult()]
    with pytest.raises(NoSuchKey):
        await w.get(b"key")
