"""Multipart uploads: parts in any order, completed once, aborted or not."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from garage_lite.core.errors import (
    BadDigest,
    EntityTooSmall,
    GarageLiteError,
    InvalidArgument,
    InvalidPart,
    InvalidPartOrder,
    NoSuchKey,
    NoSuchUpload,
    NotAllowedHere,
    PreconditionFailed,
    QuotaExceeded,
)
from garage_lite.core.ids import DataId, VersionId
from garage_lite.core.limits import PART_NUMBER_MAX
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.objects import Checksum, ChecksumType, Kind
from garage_lite.core.model.rowkeys import Stamp, Table, part_row
from garage_lite.core.model.uploads import Part
from garage_lite.core.model.versions import LIST_PARTS
from garage_lite.core.store.completion import CompleteRequest, CompleteResult, PartClaim
from garage_lite.core.store.conditions import WriteCondition
from garage_lite.core.store.digests import new_digest
from garage_lite.core.store.encryption import CustomerKey
from garage_lite.core.store.upload_pages import UploadMark
from garage_lite.core.store.uploads import CreateRequest, PartRequest, upload_id_from
from garage_lite.core.store.writing import StoreOptions
from garage_lite.core.table.schema import Update
from tests.core.store.test_encryption import KEY, OTHER
from tests.core.store.world import BLOCK, Bytes, World, pattern

PARTS = {number: pattern(2 * BLOCK + 100 * number, seed=number) for number in (1, 2, 5, 7)}
WHOLE = b"".join(PARTS.values())


async def create(w: World, key: bytes = b"key", **more: object) -> VersionId:
    request = CreateRequest(w.bucket, key, "GK1", **more)  # type: ignore[arg-type]
    upload_id, _ = await w.uploads.create(request)
    return upload_id


async def put_part(
    w: World,
    upload_id: VersionId,
    number: int,
    content: bytes | Bytes,
    key: bytes = b"key",
    customer_key: CustomerKey | None = None,
) -> Part:
    body = Bytes(content) if isinstance(content, bytes) else content
    return await w.uploads.put_part(
        PartRequest(w.bucket, key, upload_id, number, body, customer_key)
    )


async def put_all(w: World, upload_id: VersionId) -> list[PartClaim]:
    claims = {}
    for number in (7, 2, 1, 5):
        part = await put_part(w, upload_id, number, PARTS[number])
        claims[number] = PartClaim(number, part.etag_text)
    return [claims[number] for number in sorted(claims)]


async def complete(
    w: World, upload_id: VersionId, claims: list[PartClaim], key: bytes = b"key", **more: object
) -> CompleteResult:
    request = CompleteRequest(w.bucket, key, upload_id, claims, **more)  # type: ignore[arg-type]
    return await w.uploads.complete(request)


async def test_parts_become_an_object(w: World) -> None:
    upload_id = await create(w, headers=(("x-amz-meta-a", "b"),))
    claims = await put_all(w, upload_id)
    assert (await w.counters()).uploads == 1 and (await w.counters()).parts == 4
    with pytest.raises(NoSuchKey):
        await w.get(b"key")
    done = await complete(w, upload_id, claims)
    md5s = b"".join(hashlib.md5(PARTS[number]).digest() for number in PARTS)
    assert done == CompleteResult("null", f"{hashlib.md5(md5s).hexdigest()}-4", 4, None)
    version = await w.objects.head(w.bucket.id, b"key")
    assert (version.kind, version.id, version.size) == (Kind.MULTIPART, upload_id, len(WHOLE))
    assert version.etag_text == done.etag and version.meta.headers == (("x-amz-meta-a", "b"),)
    assert await w.get(b"key") == WHOLE
    left = await w.left()
    assert (left.pending, left.parts, left.part_lists) == (0, 0, 1)
    assert await w.counters() == Counters(objects=1, total_bytes=len(WHOLE))


async def test_every_range_of_a_multipart_object(w: World) -> None:
    upload_id = await create(w)
    await complete(w, upload_id, await put_all(w, upload_id))
    edges = sorted({0, 1, 2100, 2101, 4300, 4301, 6800, len(WHOLE) - 1, len(WHOLE), 3000, 999})
    for start in edges:
        for end in edges:
            if start <= end:
                assert await w.get(b"key", start, end) == WHOLE[start:end]


async def test_part_ranges(w: World) -> None:
    upload_id = await create(w)
    await complete(w, upload_id, await put_all(w, upload_id))
    version = await w.objects.head(w.bucket.id, b"key")
    placed = [one async for one in w.objects.part_ranges(w.bucket.id, version)]
    assert [(one.part.number, one.offset, one.part.size) for one in placed] == [
        (1, 0, 2100),
        (2, 2100, 2200),
        (5, 4300, 2500),
        (7, 6800, 2700),
    ]
    rest = [one async for one in w.objects.part_ranges(w.bucket.id, version, 4300)]
    assert [one.part.number for one in rest] == [5, 7]


async def test_deleting_it_takes_everything(w: World) -> None:
    upload_id = await create(w)
    await complete(w, upload_id, await put_all(w, upload_id))
    await w.objects.delete(w.bucket, b"key")
    await w.nothing_left()
    assert await w.counters() == Counters()


async def test_parts_that_are_not_named_go(w: World) -> None:
    upload_id = await create(w)
    claims = await put_all(w, upload_id)
    await complete(w, upload_id, [claims[0], claims[2]])
    left = await w.left()
    assert await w.get(b"key") == PARTS[1] + PARTS[5]
    assert left.live_refs == 3 + 3
    assert await w.counters() == Counters(objects=1, total_bytes=4600)


async def test_a_part_that_is_uploaded_again_replaces_the_first(w: World) -> None:
    upload_id = await create(w)
    first = await put_part(w, upload_id, 1, pattern(5 * BLOCK))
    second = await put_part(w, upload_id, 1, b"again")
    left = await w.left()
    assert (left.parts, left.live_refs) == (1, 1)
    assert await w.counters() == Counters(uploads=1, parts=1, part_bytes=5)
    with pytest.raises(InvalidPart):
        await complete(w, upload_id, [PartClaim(1, first.etag_text)])
    await complete(w, upload_id, [PartClaim(1, f'"{second.etag_text}"')])
    assert await w.get(b"key") == b"again"


async def test_a_part_replaced_during_completion(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking at the parts and the write, one is uploaded again: its data must not be
    named any more."""
    upload_id = await create(w)
    first = await put_part(w, upload_id, 1, pattern(3 * BLOCK))
    write, calls = w.tables.write, 0

    async def late(changes: object, *args: object, **more: object) -> None:
        nonlocal calls
        if any(change.key[0] == Table.OBJECT for change in changes):  # type: ignore[attr-defined]
            calls += 1
            if calls == 1:
                await put_part(w, upload_id, 1, pattern(3 * BLOCK, seed=9))
                await w.cascade()
        await write(changes, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(w.tables, "write", late)
    with pytest.raises(InvalidPart):
        await complete(w, upload_id, [PartClaim(1, first.etag_text)])
    with pytest.raises(NoSuchKey):
        await w.get(b"key")


@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ([], InvalidArgument),
        ([2, 1], InvalidPartOrder),
        ([1, 1], InvalidPartOrder),
        ([1, 3], InvalidPart),
    ],
)
async def test_wrong_part_lists(w: World, claims: list[int], error: type[GarageLiteError]) -> None:
    upload_id = await create(w)
    etags = {claim.number: claim.etag for claim in await put_all(w, upload_id)}
    wanted = [PartClaim(number, etags.get(number, "x")) for number in claims]
    with pytest.raises(error):
        await complete(w, upload_id, wanted)
    with pytest.raises(InvalidPart):
        await complete(w, upload_id, [PartClaim(1, "wrong")])
    with pytest.raises(NotAllowedHere):
        await complete(w, upload_id, [PartClaim(1, etags[1])], size=3)
    await complete(w, upload_id, [PartClaim(1, etags[1])], size=2100)
    assert await w.get(b"key") == PARTS[1]


async def test_parts_but_the_last_have_a_smallest_size(tmp_path: Path) -> None:
    options = StoreOptions(block_bytes=BLOCK, inline_bytes=100, part_bytes_min=2000)
    async with World(tmp_path, options) as w:
        upload_id = await create(w)
        claims = [
            PartClaim(number, (await put_part(w, upload_id, number, pattern(size))).etag_text)
            for number, size in ((1, 2000), (2, 1999), (3, 1))
        ]
        with pytest.raises(EntityTooSmall):
            await complete(w, upload_id, claims)
        await complete(w, upload_id, [claims[0], claims[2]])
        assert await w.get(b"key") == pattern(2000) + pattern(1)


async def test_a_repeated_complete_answers_as_the_first(tmp_path: Path) -> None:
    async with World(tmp_path) as w:
        upload_id = await create(w)
        claims = await put_all(w, upload_id)
        absent = WriteCondition(if_none_match="*")
        first = await complete(w, upload_id, claims, guard=absent)
        await w.cascade()
        assert await complete(w, upload_id, claims, guard=absent) == first
        with pytest.raises(NoSuchUpload):
            await complete(w, upload_id, claims[:2])
        with pytest.raises(NoSuchUpload):
            await w.uploads.abort(w.bucket.id, b"key", upload_id)
        with pytest.raises(NoSuchUpload):
            await put_part(w, upload_id, 1, b"late")
    async with World(tmp_path) as w:
        assert await complete(w, upload_id, claims, guard=absent) == first
        assert await w.get(b"key") == WHOLE
        await w.put(b"key", b"overwritten")
        assert await complete(w, upload_id, claims, guard=absent) == first
        assert await w.get(b"key") == b"overwritten"


async def test_twenty_identical_completes_at_once(w: World) -> None:
    upload_id = await create(w)
    claims = await put_all(w, upload_id)
    results = await asyncio.gather(*(complete(w, upload_id, claims) for _ in range(20)))
    assert len(set(results)) == 1
    assert await w.count(Table.OBJECT) == 1
    await w.cascade()
    assert await w.get(b"key") == WHOLE


async def test_abort_takes_everything_and_ends_the_upload(w: World) -> None:
    upload_id = await create(w)
    claims = await put_all(w, upload_id)
    await w.uploads.abort(w.bucket.id, b"key", upload_id)
    await w.nothing_left()
    assert await w.counters() == Counters()
    for attempt in (
        w.uploads.abort(w.bucket.id, b"key", upload_id),
        complete(w, upload_id, claims),
        put_part(w, upload_id, 1, b"x"),
        w.uploads.list_parts(w.bucket.id, b"key", upload_id),
    ):
        with pytest.raises(NoSuchUpload):
            await attempt
    await w.nothing_left()


@pytest.mark.parametrize("turns", range(0, 40, 2))
async def test_complete_against_abort_has_one_winner(w: World, turns: int) -> None:
    upload_id = await create(w)
    claims = await put_all(w, upload_id)
    completing = asyncio.create_task(complete(w, upload_id, claims))
    for _ in range(turns):
        await asyncio.sleep(0)
    aborted = completed = True
    try:
        await w.uploads.abort(w.bucket.id, b"key", upload_id)
    except NoSuchUpload:
        aborted = False
    try:
        await completing
    except NoSuchUpload:
        completed = False
    assert completed is not aborted
    if completed:
        await w.cascade()
        assert await w.get(b"key") == WHOLE
    else:
        await w.nothing_left()


async def test_a_part_in_flight_when_the_upload_is_aborted_leaves_nothing(w: World) -> None:
    upload_id = await create(w)

    class Late(Bytes):
        async def read(self) -> bytes:
            if self.asked == 5:
                await w.uploads.abort(w.bucket.id, b"key", upload_id)
            return await super().read()

    with pytest.raises(NoSuchUpload):
        await put_part(w, upload_id, 1, Late(pattern(5 * BLOCK)))
    await w.nothing_left()


async def test_conditions_and_quotas_of_complete(w: World) -> None:
    upload_id = await create(w)
    claims = await put_all(w, upload_id)
    old = await w.put(b"key", b"old")
    with pytest.raises(PreconditionFailed):
        await complete(w, upload_id, claims, guard=WriteCondition(if_none_match="*"))
    w.quotas(5000, None)
    with pytest.raises(QuotaExceeded):
        await complete(w, upload_id, claims)
    w.quotas(None, None)
    await w.cascade()
    await complete(w, upload_id, claims, guard=WriteCondition(if_match=old.etag_text))
    assert await w.get(b"key") == WHOLE


def digest(name: str, content: bytes) -> bytes:
    running = new_digest(name)
    running.update(content)
    return running.digest()


@pytest.mark.parametrize(
    ("algorithm", "wanted"),
    [
        ("CRC32", ChecksumType.FULL_OBJECT),
        ("CRC32C", ChecksumType.FULL_OBJECT),
        ("CRC64NVME", None),
        ("CRC32", ChecksumType.COMPOSITE),
        ("SHA1", None),
        ("SHA256", ChecksumType.COMPOSITE),
    ],
)
async def test_checksums_of_the_whole(
    w: World, algorithm: str, wanted: ChecksumType | None
) -> None:
    upload_id = await create(w, checksum_algorithm=algorithm, checksum_type=wanted)
    claims = await put_all(w, upload_id)
    if wanted is ChecksumType.FULL_OBJECT or algorithm == "CRC64NVME":
        expected = Checksum(algorithm, digest(algorithm, WHOLE))
    else:
        values = b"".join(digest(algorithm, part) for part in PARTS.values())
        expected = Checksum(algorithm, digest(algorithm, values), ChecksumType.COMPOSITE)
    with pytest.raises(BadDigest):
        await complete(w, upload_id, claims, checksum=Checksum(algorithm, b"wrong"))
    with pytest.raises(InvalidPart):
        await complete(w, upload_id, [claims[0]._replace(checksum=b"wrong")])
    claims[0] = claims[0]._replace(checksum=digest(algorithm, PARTS[1]))
    result = await complete(w, upload_id, claims, checksum=expected)
    assert result.checksum == expected
    assert (await w.objects.head(w.bucket.id, b"key")).meta.checksum == expected


async def test_impossible_checksum_types(w: World) -> None:
    for algorithm, wanted in [
        ("SHA256", ChecksumType.FULL_OBJECT),
        ("CRC64NVME", ChecksumType.COMPOSITE),
    ]:
        with pytest.raises(InvalidArgument):
            await create(w, checksum_algorithm=algorithm, checksum_type=wanted)
    with pytest.raises(NotAllowedHere):
        await create(w, checksum_type=ChecksumType.COMPOSITE)
    upload_id = await create(w, checksum_algorithm="CRC32")
    with pytest.raises(NotAllowedHere):
        await put_part(w, upload_id, 1, Bytes(b"x", digests=["SHA1"]))
    left = await w.left()
    assert left.live_refs == 0


async def test_encrypted_parts(w: World) -> None:
    upload_id = await create(w, customer_key=KEY)
    claims = []
    for number, content in PARTS.items():
        part = await put_part(w, upload_id, number, content, customer_key=KEY)
        claims.append(PartClaim(number, part.etag_text))
    with pytest.raises(NotAllowedHere, match="requested encryption"):
        await put_part(w, upload_id, 9, b"x")
    with pytest.raises(NotAllowedHere, match="did not match"):
        await put_part(w, upload_id, 9, b"x", customer_key=OTHER)
    plain = await create(w)
    with pytest.raises(NotAllowedHere, match="did not request encryption"):
        await put_part(w, plain, 1, b"x", customer_key=KEY)
    await complete(w, upload_id, claims)
    assert await w.get(b"key", customer_key=KEY) == WHOLE
    assert await w.get(b"key", 2000, 7000, customer_key=KEY) == WHOLE[2000:7000]


async def test_an_empty_last_part_after_a_full_list(w: World) -> None:
    """Lists are named by where they end: an empty part must not make two end at one place."""
    upload_id = await create(w)
    claims = []
    for number in range(1, LIST_PARTS + 2):
        content = b"x" if number <= LIST_PARTS else b""
        part = await put_part(w, upload_id, number, content)
        claims.append(PartClaim(number, part.etag_text))
    await complete(w, upload_id, claims)
    assert await w.get(b"key") == b"x" * LIST_PARTS
    version = await w.objects.head(w.bucket.id, b"key")
    placed = [one async for one in w.objects.part_ranges(w.bucket.id, version)]
    assert len(placed) == LIST_PARTS + 1


async def test_ten_thousand_parts_with_the_longest_checksums(w: World) -> None:
    """One record takes them all (the rows are made here: their data does not matter)."""
    upload_id = await create(w, checksum_algorithm="SHA256")
    claims, updates = [], []
    for number in range(1, PART_NUMBER_MAX + 1):
        etag = hashlib.md5(b"%d" % number).digest()
        data = DataId(etag[::-1])
        checksum = Checksum("SHA256", bytes(32))
        part = Part(data, 500 << 20, etag, 1_700_000_000_000, checksum)
        stamp = Stamp(w.tables.stamp(), 0, VersionId(data))
        updates.append(Update(part_row(w.bucket.id, upload_id, number, stamp), part.encode()))
        claims.append(PartClaim(number, etag.hex()))
        if len(updates) == 1000:
            await w.tables.write(updates)
            updates = []
    done = await complete(w, upload_id, claims)
    assert done.parts == PART_NUMBER_MAX
    await w.cascade()
    version = await w.objects.head(w.bucket.id, b"key")
    assert version.size == PART_NUMBER_MAX * (500 << 20)
    start = 7777 * (500 << 20)
    async for placed in w.objects.part_ranges(w.bucket.id, version, start):
        assert (placed.part.number, placed.offset) == (7778, start)
        break


async def test_list_parts(w: World) -> None:
    upload_id = await create(w)
    await put_all(w, upload_id)
    page = await w.uploads.list_parts(w.bucket.id, b"key", upload_id, limit=3)
    assert [number for number, _ in page.parts] == [1, 2, 5] and page.next_marker == 5
    page = await w.uploads.list_parts(w.bucket.id, b"key", upload_id, marker=5, limit=3)
    assert [number for number, _ in page.parts] == [7] and page.next_marker is None
    assert page.parts[0][1].size == len(PARTS[7])
    assert page.upload.initiator == "GK1"


async def test_list_uploads(w: World) -> None:
    keys = [b"a", b"a", b"a", b"d/1", b"d/2", b"e", b"f/1"]
    made = sorted([(key, await create(w, key)) for key in keys])
    gone = await create(w, b"b")
    await w.uploads.abort(w.bucket.id, b"b", gone)

    async def walk(limit: int, **more: bytes) -> list[object]:
        items: list[object] = []
        after: UploadMark | None = None
        while True:
            page = await w.uploads.list_uploads(w.bucket.id, after=after, limit=limit, **more)
            assert len(page.entries) + len(page.prefixes) <= limit
            items += [(entry.key, entry.upload_id) for entry in page.entries]
            items += page.prefixes
            after = page.next
            if after is None:
                return items

    for limit in (1, 2, 3, 100):
        assert await walk(limit) == made
        folded = await walk(limit, delimiter=b"/")
        assert set(folded) == {*made[:3], b"d/", made[5], b"f/"} and len(folded) == 6
        assert await walk(limit, prefix=b"d/") == made[3:5]
    empty = await w.uploads.list_uploads(w.bucket.id, limit=0)
    assert not empty.entries and empty.next is None


def test_upload_ids_as_clients_write_them() -> None:
    assert upload_id_from("00" * 16) == bytes(16)
    for text in ("", "xyz", "00" * 15, "é"):
        with pytest.raises(NoSuchUpload):
            upload_id_from(text)
