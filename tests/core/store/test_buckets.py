"""Buckets: names, rights, races, deletion; on real tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from garage_lite.core.disk.metadata import MetadataStore
from garage_lite.core.errors import (
    AccessDenied,
    AliasTaken,
    BucketAlreadyExists,
    BucketAlreadyOwned,
    BucketNotEmpty,
    InvalidName,
    NoSuchAccessKey,
    NoSuchBucket,
    NotAllowedHere,
    OperationAborted,
)
from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.model.buckets import Permission, Versioning
from garage_lite.core.model.objects import Floor, Kind
from garage_lite.core.model.uploads import Upload, UploadState
from garage_lite.core.store.buckets import LocalAlias
from tests.core.store.office import Office, office

__all__ = ["office"]


def interrupt(
    monkeypatch: pytest.MonkeyPatch,
    action: Callable[[], Coroutine[Any, Any, object]],
    *,
    always: bool = False,
) -> None:
    """The next write (`always`: every write but those of `action`) waits for room, and meanwhile
    `action` runs from start to end."""
    room = MetadataStore.room

    async def crowded(store: MetadataStore) -> None:
        monkeypatch.setattr(MetadataStore, "room", room)
        await action()
        if always:
            monkeypatch.setattr(MetadataStore, "room", crowded)

    monkeypatch.setattr(MetadataStore, "room", crowded)


# --- S3's creation


async def test_a_key_creates_a_global_bucket_and_owns_it(office: Office) -> None:
    key = await office.key()
    bucket_id = await office.buckets.create_by_key("photos", key)
    bucket = office.directory.resolve("photos")
    assert bucket.id == bucket_id
    assert bucket.permissions_of(key) == Permission.ALL
    assert bucket.created_ms == office.disk.tables.now_ms()


async def test_a_taken_name_says_whose_it_is(office: Office) -> None:
    mine, other = await office.key(), await office.key()
    await office.buckets.create_by_key("photos", mine)
    with pytest.raises(BucketAlreadyOwned):
        await office.buckets.create_by_key("photos", mine)
    with pytest.raises(BucketAlreadyExists):
        await office.buckets.create_by_key("photos", other)


async def test_a_name_only_this_key_sees_is_taken_too(office: Office) -> None:
    key = await office.key()
    alias = LocalAlias(key, "photos", Permission.READ)
    await office.buckets.create(local_alias=alias)
    with pytest.raises(BucketAlreadyOwned):
        await office.buckets.create_by_key("photos", key)


async def test_creation_needs_the_right_and_a_good_name(office: Office) -> None:
    key = await office.key(may_create=False)
    with pytest.raises(AccessDenied):
        await office.buckets.create_by_key("photos", key)
    with pytest.raises(InvalidName):
        await office.buckets.create_by_key("Photos", key)
    with pytest.raises(NoSuchAccessKey):
        await office.buckets.create_by_key("photos", "GKnobody")
    assert office.directory.buckets() == []


async def test_of_many_creations_at_once_exactly_one_wins(office: Office) -> None:
    keys = [await office.key() for _ in range(8)]
    results = await asyncio.gather(
        *(office.buckets.create_by_key("photos", key) for key in keys), return_exceptions=True
    )
    won = [result for result in results if isinstance(result, bytes)]
    assert len(won) == 1
    assert all(isinstance(r, BucketAlreadyExists) for r in results if r not in won)
    assert [bucket.id for bucket in office.directory.buckets()] == won


async def test_a_name_taken_while_a_creation_waits_is_seen(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = await office.key(), await office.key()
    interrupt(monkeypatch, lambda: office.buckets.create_by_key("photos", other))
    with pytest.raises(BucketAlreadyExists):
        await office.buckets.create_by_key("photos", mine)
    assert office.directory.resolve("photos").permissions_of(other) == Permission.ALL


async def test_an_alias_given_while_a_creation_waits_is_seen(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await office.key()
    other = await office.buckets.create(global_alias="other")
    interrupt(monkeypatch, lambda: office.buckets.add_alias(other, "photos"))
    with pytest.raises(BucketAlreadyExists):
        await office.buckets.create_by_key("photos", key)
    assert office.directory.resolve("photos").id == other


async def test_a_grant_made_while_another_waits_is_kept(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await office.key()
    bucket_id = await office.buckets.create(global_alias="photos")
    interrupt(monkeypatch, lambda: office.buckets.allow(bucket_id, key, Permission.WRITE))
    await office.buckets.allow(bucket_id, key, Permission.READ)
    rights = office.directory.bucket_by_id(bucket_id).permissions_of(key)
    assert rights == Permission.READ | Permission.WRITE


async def test_who_is_interrupted_again_and_again_gives_up(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await office.key()
    bucket_id = await office.buckets.create(global_alias="photos")
    rights = [Permission.READ, Permission.NONE] * 100

    def grant() -> Coroutine[Any, Any, None]:
        right = rights.pop()
        verb = office.buckets.allow if right else office.buckets.deny
        return verb(bucket_id, key, right or Permission.ALL)

    interrupt(monkeypatch, grant, always=True)
    with pytest.raises(OperationAborted):
        await office.buckets.allow(bucket_id, key, Permission.OWNER)


# --- an operator's creation, names, rights, settings


async def test_operators_create_with_any_names(office: Office) -> None:
    key = await office.key()
    bare = await office.buckets.create()
    both = await office.buckets.create(
        global_alias="photos", local_alias=LocalAlias(key, "mine", Permission.WRITE)
    )
    assert office.directory.bucket_by_id(bare).aliases.get("photos") is None
    assert office.directory.resolve("photos").id == both
    assert office.directory.resolve("mine", key).permissions_of(key) == Permission.WRITE
    with pytest.raises(NoSuchBucket):
        office.directory.resolve("mine")
    for taken in ({"global_alias": "photos"}, {"local_alias": LocalAlias(key, "mine")}):
        with pytest.raises(BucketAlreadyExists):
            await office.buckets.create(**taken)
    with pytest.raises(InvalidName):
        await office.buckets.create(global_alias="no_good")


async def test_names_are_added_and_removed_but_never_the_last(office: Office) -> None:
    key = await office.key()
    bucket_id = await office.buckets.create(global_alias="one")
    await office.buckets.add_alias(bucket_id, "two")
    await office.buckets.add_alias(bucket_id, "two")
    await office.buckets.remove_alias(bucket_id, "one")
    with pytest.raises(NoSuchBucket):
        office.directory.resolve("one")
    with pytest.raises(NotAllowedHere):
        await office.buckets.remove_alias(bucket_id, "two")
    await office.buckets.add_local_alias(bucket_id, key, "mine")
    await office.buckets.remove_alias(bucket_id, "two")
    assert office.directory.resolve("mine", key).id == bucket_id
    with pytest.raises(NotAllowedHere):
        await office.buckets.remove_local_alias(bucket_id, key, "mine")
    await office.buckets.add_alias(bucket_id, "one")
    await office.buckets.remove_local_alias(bucket_id, key, "mine")
    assert office.directory.resolve("one", key).id == bucket_id
    with pytest.raises(NotAllowedHere):
        await office.buckets.remove_local_alias(bucket_id, key, "mine")


async def test_a_name_of_another_bucket_is_not_taken_over(office: Office) -> None:
    key = await office.key()
    one = await office.buckets.create(global_alias="one")
    two = await office.buckets.create(global_alias="two")
    await office.buckets.add_local_alias(one, key, "mine")
    with pytest.raises(AliasTaken):
        await office.buckets.add_alias(two, "one")
    with pytest.raises(AliasTaken):
        await office.buckets.add_local_alias(two, key, "mine")
    await office.buckets.delete(one)
    await office.buckets.add_alias(two, "one")
    await office.buckets.add_local_alias(two, key, "mine")
    assert office.directory.resolve("mine", key).id == two


async def test_rights_are_added_and_taken_away(office: Office) -> None:
    key = await office.key()
    bucket_id = await office.buckets.create(global_alias="photos")
    await office.buckets.allow(bucket_id, key, Permission.READ | Permission.WRITE)
    await office.buckets.deny(bucket_id, key, Permission.WRITE | Permission.OWNER)
    assert office.directory.bucket_by_id(bucket_id).permissions_of(key) == Permission.READ
    await office.buckets.deny(bucket_id, key, Permission.ALL)
    assert office.directory.buckets_of(key) == []
    with pytest.raises(NoSuchAccessKey):
        await office.buckets.allow(bucket_id, "GKnobody", Permission.READ)
    with pytest.raises(NoSuchBucket):
        await office.buckets.allow(BucketId(bytes(32)), key, Permission.READ)


async def test_settings_are_set_and_unset(office: Office) -> None:
    bucket_id = await office.buckets.create(global_alias="photos")
    await office.buckets.configure(bucket_id, {"quotas": [10, None], "website": {"index": "i"}})
    bucket = office.directory.bucket_by_id(bucket_id)
    assert (bucket.quotas.value, bucket.website.value) == ([10, None], {"index": "i"})
    await office.buckets.configure(bucket_id, {"website": None})
    assert office.directory.bucket_by_id(bucket_id).website.value is None
    assert office.directory.bucket_by_id(bucket_id).quotas.value == [10, None]


async def test_versioning_is_never_switched_off(office: Office) -> None:
    bucket_id = await office.buckets.create(global_alias="photos")
    await office.buckets.set_versioning(bucket_id, Versioning.OFF)
    await office.buckets.set_versioning(bucket_id, Versioning.ENABLED)
    await office.buckets.set_versioning(bucket_id, Versioning.SUSPENDED)
    with pytest.raises(NotAllowedHere):
        await office.buckets.set_versioning(bucket_id, Versioning.OFF)


# --- deletion


async def test_an_empty_bucket_goes_with_all_its_names(office: Office) -> None:
    key = await office.key()
    bucket_id = await office.buckets.create(global_alias="one")
    await office.buckets.add_alias(bucket_id, "two")
    await office.buckets.add_local_alias(bucket_id, key, "mine")
    await office.buckets.delete(bucket_id)
    for name in ("one", "two", "mine"):
        with pytest.raises(NoSuchBucket):
            office.directory.resolve(name, key)
    with pytest.raises(NoSuchBucket):
        await office.buckets.delete(bucket_id)
    again = await office.buckets.create_by_key("one", key)
    assert again != bucket_id
    assert office.directory.resolve("one").id == again


async def test_deletion_by_a_key_takes_the_last_name_with_the_bucket(office: Office) -> None:
    key = await office.key()
    bucket_id = await office.buckets.create_by_key("one", key)
    await office.buckets.add_alias(bucket_id, "two")
    await office.buckets.add_local_alias(bucket_id, key, "mine")
    await office.put_row(bucket_id, b"k", 1)
    await office.buckets.delete_by_key("mine", key)
    await office.buckets.delete_by_key("one", key)
    assert office.directory.resolve("two", key).id == bucket_id
    with pytest.raises(BucketNotEmpty):
        await office.buckets.delete_by_key("two", key)
    with pytest.raises(NoSuchBucket):
        await office.buckets.delete_by_key("one", key)


async def test_a_version_or_a_delete_marker_keeps_the_bucket(office: Office) -> None:
    bucket_id = await office.buckets.create(global_alias="photos")
    await office.put_row(bucket_id, b"k", 1, kind=Kind.DELETE_MARKER, null=False)
    with pytest.raises(BucketNotEmpty):
        await office.buckets.delete(bucket_id)


async def test_tombstones_do_not_keep_the_bucket(office: Office) -> None:
    bucket_id = await office.buckets.create(global_alias="photos")
    await office.put_row(bucket_id, b"k", 1)
    await office.put_row(bucket_id, b"k", 2, kind=Kind.DELETE_MARKER, floor=Floor.ALL)
    await office.put_row(bucket_id, b"other", 3, removed=True)
    await office.buckets.delete(bucket_id)
    assert office.directory.buckets() == []


@pytest.mark.parametrize("state", UploadState)
async def test_an_open_upload_keeps_the_bucket(office: Office, state: UploadState) -> None:
    bucket_id = await office.buckets.create(global_alias="photos")
    await office.put_upload(bucket_id, b"k", Upload(state, 1, "GK"))
    if state in (UploadState.OPEN, UploadState.FENCED):
        with pytest.raises(BucketNotEmpty):
            await office.buckets.delete(bucket_id)
    else:
        await office.buckets.delete(bucket_id)


async def test_a_write_during_the_deletion_keeps_the_bucket(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket_id = await office.buckets.create(global_alias="photos")
    interrupt(monkeypatch, lambda: office.put_row(bucket_id, b"k", 1))
    with pytest.raises(BucketNotEmpty):
        await office.buckets.delete(bucket_id)
    assert office.directory.resolve("photos").id == bucket_id


async def test_deleted_by_two_at_once_one_succeeds(office: Office) -> None:
    bucket_id = await office.buckets.create(global_alias="photos")
    results = await asyncio.gather(
        office.buckets.delete(bucket_id), office.buckets.delete(bucket_id), return_exceptions=True
    )
    assert sorted(map(type, results), key=str) == [type(None), NoSuchBucket]


# --- what is inside


async def test_counters_follow_the_rows(office: Office) -> None:
    bucket_id = await office.buckets.create(global_alias="photos")
    assert (await office.buckets.counters(bucket_id)).objects == 0
    await office.put_row(bucket_id, b"k", 1, size=10)
    counters = await office.buckets.counters(bucket_id)
    assert (counters.objects, counters.total_bytes) == (1, 10)


async def test_old_uploads_are_cleaned_up(office: Office) -> None:
    bucket_id = await office.buckets.create(global_alias="photos")
    now_ms = office.disk.tables.now_ms()
    await office.put_upload(bucket_id, b"old\x00", Upload(UploadState.OPEN, now_ms - 5000, "GK"))
    await office.put_upload(bucket_id, b"new", Upload(UploadState.OPEN, now_ms - 100, "GK"))
    await office.put_upload(bucket_id, b"done", Upload(UploadState.COMPLETED, 0, "GK"))
    aborted: list[tuple[BucketId, bytes, VersionId]] = []

    async def abort(bucket: BucketId, key: bytes, upload: VersionId) -> None:
        aborted.append((bucket, key, upload))

    assert await office.buckets.cleanup_incomplete_uploads(bucket_id, 5000, abort) == 1
    assert aborted == [(bucket_id, b"old\x00", VersionId(b"u" * 16))]
