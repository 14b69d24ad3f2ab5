"""The in-memory directory says what the rows say, in whatever order it is told."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from garage_lite.core.crdt import Lww, LwwMap
from garage_lite.core.errors import InvalidArgument, NoSuchBucket, StorageFailed
from garage_lite.core.ids import BucketId
from garage_lite.core.model.buckets import Alias, Bucket, Permission
from garage_lite.core.model.keys import AccessKey
from garage_lite.core.model.rowkeys import Table, everywhere_row
from garage_lite.core.store.directory import Directory
from garage_lite.core.table.schema import Update
from tests.core.tables_on_disk import TablesOnDisk

RED, BLUE = BucketId(b"\x01" * 32), BucketId(b"\x01\x02" * 16)


def bucket_row(bucket: Bucket) -> Update:
    return Update(everywhere_row(Table.BUCKET, bucket.id), bucket.encode())


def alias_row(name: str, target: BucketId | None, stamp: int = 1) -> Update:
    key = everywhere_row(Table.ALIAS, name.encode())
    return Update(key, Alias(Lww(stamp, target)).encode())


def key_row(key: AccessKey) -> Update:
    return Update(everywhere_row(Table.KEY, key.id.encode()), key.encode())


def local(name: str, target: BucketId) -> LwwMap[str]:
    return LwwMap({name: Lww(1, target.hex())})


GRANTED: LwwMap[int] = LwwMap({"GKone": Lww(1, int(Permission.READ))})
ROWS = [
    bucket_row(Bucket(RED, 5, keys=GRANTED)),
    bucket_row(Bucket(BLUE, 6)),
    alias_row("red", RED),
    alias_row("blue", BLUE),
    alias_row("shared", RED),
    key_row(AccessKey("GKone", "s", 7)),
    key_row(AccessKey("GKtwo", "s", 8, local_aliases=local("shared", BLUE))),
]


def told(*rows: Update) -> Directory:
    directory = Directory()
    for row in rows:
        directory.refresh(*row)
    return directory


def test_a_local_alias_wins_over_the_global_one() -> None:
    directory = told(*ROWS)
    assert directory.resolve("shared").id == RED
    assert directory.resolve("shared", "GKone").id == RED
    assert directory.resolve("shared", "GKtwo").id == BLUE
    assert directory.resolve("shared", "GKunknown").id == RED


def test_a_deleted_key_has_no_names() -> None:
    directory = told(*ROWS, key_row(AccessKey("GKtwo", "", 8, deleted=True)))
    assert directory.resolve("shared", "GKtwo").id == RED
    assert directory.key("GKtwo") is None
    assert [key.id for key in directory.access_keys()] == ["GKone"]


@pytest.mark.parametrize("name", ["", "nothing", RED.hex()])
def test_clients_reach_only_by_name(name: str) -> None:
    with pytest.raises(NoSuchBucket):
        told(*ROWS).resolve(name, "GKone")


def test_operators_reach_by_name_or_by_the_start_of_an_id() -> None:
    directory = told(*ROWS, alias_row("0101", BLUE))
    assert directory.resolve_for_admin("red").id == RED
    assert directory.resolve_for_admin(BLUE.hex()).id == BLUE
    assert directory.resolve_for_admin("01010").id == RED
    assert directory.resolve_for_admin("0101").id == BLUE
    with pytest.raises(InvalidArgument):
        directory.resolve_for_admin("01")
    for text in ("", "zz", "ff"):
        with pytest.raises(NoSuchBucket):
            directory.resolve_for_admin(text)


def test_a_deleted_bucket_is_gone_under_all_its_names() -> None:
    directory = told(*ROWS, bucket_row(Bucket(RED, 5, deleted=True)))
    for name in ("red", "shared"):
        with pytest.raises(NoSuchBucket):
            directory.resolve(name)
    with pytest.raises(NoSuchBucket):
        directory.bucket_by_id(RED)
    assert [bucket.id for bucket in directory.buckets()] == [BLUE]


def test_buckets_of_a_key_are_those_it_has_a_right_on_or_a_name_for() -> None:
    directory = told(*ROWS)
    assert [bucket.id for bucket in directory.buckets_of("GKone")] == [RED]
    assert [bucket.id for bucket in directory.buckets_of("GKtwo")] == [BLUE]
    assert directory.buckets_of("GKunknown") == []


def test_the_order_of_changes_does_not_matter() -> None:
    rows = [
        *ROWS,
        alias_row("red", None, stamp=9),
        bucket_row(Bucket(BLUE, 6, website=Lww(3, "later"))),
        bucket_row(Bucket(BLUE, 6, website=Lww(2, "earlier"))),
    ]
    shuffler = random.Random(7)
    for _ in range(50):
        shuffler.shuffle(rows)
        directory = told(*rows)
        assert directory.bucket_by_id(BLUE).website.value == "later"
        with pytest.raises(NoSuchBucket):
            directory.resolve("red")


def test_rows_that_are_dropped_are_forgotten() -> None:
    directory = told(*ROWS)
    for key, _ in ROWS:
        directory.refresh(key, None)
    assert directory.buckets() == []
    assert directory.access_keys() == []
    with pytest.raises(NoSuchBucket):
        directory.resolve("red")


def test_other_tables_are_passed_over_and_damage_is_an_error() -> None:
    directory = told(Update(everywhere_row(Table.TOKEN, b"x"), b"garbage"))
    assert directory.buckets() == []
    with pytest.raises(StorageFailed):
        directory.refresh(everywhere_row(Table.BUCKET, RED), b"garbage")
    with pytest.raises(StorageFailed):
        directory.refresh(everywhere_row(Table.KEY, b"\xff"), key_row(ROWS_KEY).value)


ROWS_KEY = AccessKey("GKone", "s", 7)


async def test_it_loads_what_is_stored_and_follows_what_is_written(tmp_path: Path) -> None:
    disk = await TablesOnDisk.open(tmp_path)
    await disk.tables.write(ROWS[:3])
    directory = await Directory.load(disk.tables)
    assert directory.resolve("red").id == RED
    await disk.tables.write(ROWS[3:])
    assert directory.resolve("blue").id == BLUE
    renamed = replace(ROWS_KEY, name=Lww(3, "new"))
    await disk.tables.write([key_row(renamed)])
    found = directory.key("GKone")
    assert found is not None
    assert found.name.value == "new"
    await disk.close()
