"""Access keys: create, import, find, change, delete; on real tables."""

from __future__ import annotations

import pytest

from garage_lite.core.errors import (
    InvalidArgument,
    KeyAlreadyExists,
    NoSuchAccessKey,
    NoSuchBucket,
)
from garage_lite.core.model.buckets import Permission
from garage_lite.core.model.rowkeys import Table
from garage_lite.core.store.names import check_access_key
from tests.core.store.office import Office, office

__all__ = ["office"]


async def test_a_new_key_has_no_right(office: Office) -> None:
    key = await office.keys.create("backup")
    check_access_key(key.id, key.secret)
    found = office.directory.key(key.id)
    assert found == key
    assert (found.name.value, found.create_bucket.value) == ("backup", False)
    assert not found.expired(office.disk.tables.now_ms() + 10**15)


async def test_keys_differ(office: Office) -> None:
    first, second = await office.keys.create("a"), await office.keys.create("a")
    assert first.id != second.id
    assert first.secret != second.secret


async def test_an_imported_key_is_as_given_and_never_replaced(office: Office) -> None:
    await office.keys.import_key("minioadmin", "s" * 16, "old one")
    with pytest.raises(KeyAlreadyExists):
        await office.keys.import_key("minioadmin", "t" * 16, "other")
    found = office.directory.key("minioadmin")
    assert found is not None
    assert (found.secret, found.name.value) == ("s" * 16, "old one")
    with pytest.raises(InvalidArgument):
        await office.keys.import_key("short", "s" * 16, "")


async def test_a_key_is_renamed_allowed_and_expires(office: Office) -> None:
    key = await office.keys.create("old")
    now_ms = office.disk.tables.now_ms()
    await office.keys.rename(key.id, "new")
    await office.keys.allow_create_bucket(key.id, True)
    await office.keys.set_expiration(key.id, now_ms + 10)
    found = office.directory.key(key.id)
    assert found is not None
    assert (found.name.value, found.create_bucket.value) == ("new", True)
    assert (found.expired(now_ms + 9), found.expired(now_ms + 10)) == (False, True)
    await office.keys.set_expiration(key.id, None)
    assert not office.directory.access_keys()[0].expired(now_ms + 10)
    for change in (office.keys.rename("GKx", ""), office.keys.set_expiration("GKx", 1)):
        with pytest.raises(NoSuchAccessKey):
            await change


async def test_a_deleted_key_takes_its_rights_and_names_along(office: Office) -> None:
    key, other = await office.key(), await office.key()
    bucket_id = await office.buckets.create_by_key("photos", key)
    await office.buckets.allow(bucket_id, other, Permission.READ)
    await office.buckets.add_local_alias(bucket_id, key, "mine")
    await office.keys.delete(key)
    bucket = office.directory.bucket_by_id(bucket_id)
    assert list(bucket.keys.items()) == [(other, int(Permission.READ))]
    assert list(bucket.local_aliases.items()) == []
    assert list(bucket.aliases.items()) == [("photos", True)]
    assert office.directory.key(key) is None
    with pytest.raises(NoSuchBucket):
        office.directory.resolve("mine", key)
    with pytest.raises(NoSuchAccessKey):
        await office.keys.delete(key)
    with pytest.raises(KeyAlreadyExists):
        await office.keys.import_key(key, "s" * 16, "")


async def test_a_deleted_key_leaves_no_secret_behind(office: Office) -> None:
    key = await office.keys.create("a")
    await office.keys.delete(key.id)
    rows = await office.disk.rows(Table.KEY)
    assert all(key.secret.encode() not in row for row in rows.values())


async def test_only_expired_keys_are_deleted_as_expired(office: Office) -> None:
    now_ms = office.disk.tables.now_ms()
    kept = await office.keys.create("kept", expiration_ms=now_ms + 1)
    gone = await office.keys.create("gone", expiration_ms=now_ms)
    await office.keys.create("forever")
    assert await office.keys.delete_expired() == [gone.id]
    assert office.directory.key(kept.id) == kept


async def test_keys_are_found_by_id_name_or_start(office: Office) -> None:
    for key_id, name in (("GKaaaa01", "alice"), ("GKaabb02", "Bob"), ("GKaaaa01-long", "x")):
        await office.keys.import_key(key_id, "s" * 16, name)
    find = office.keys.find
    assert find("GKaaaa01").id == "GKaaaa01"
    assert find("gkaab").id == "GKaabb02"
    assert find("ALICE").id == "GKaaaa01"
    assert find("bob").id == "GKaabb02"
    with pytest.raises(InvalidArgument, match="3 access keys"):
        find("gk")
    for pattern in ("", "carol", "ali"):
        with pytest.raises(NoSuchAccessKey):
            find(pattern)
