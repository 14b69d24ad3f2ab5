"""Where tests make buckets and keys: the verbs on real tables, and rows put there directly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from garage_lite.core.ids import BucketId, VersionId
from garage_lite.core.model.objects import Kind, ObjectVersion
from garage_lite.core.model.rowkeys import Stamp, object_prefix, object_row, upload_row
from garage_lite.core.model.uploads import Upload
from garage_lite.core.store.buckets import Buckets
from garage_lite.core.store.directory import Directory
from garage_lite.core.store.keys import Keys
from garage_lite.core.table.schema import Update
from tests.core.tables_on_disk import TablesOnDisk


@dataclass
class Office:
    """Where buckets and keys are made."""

    disk: TablesOnDisk
    directory: Directory
    buckets: Buckets
    keys: Keys

    async def key(self, name: str = "", *, may_create: bool = True) -> str:
        key = await self.keys.create(name)
        await self.keys.allow_create_bucket(key.id, may_create)
        return key.id

    async def put_row(self, bucket: BucketId, key: bytes, number: int, **fields: object) -> None:
        stamp = Stamp(self.disk.tables.stamp(), 0, VersionId(number.to_bytes(16, "big")))
        version = ObjectVersion(stamp, **{"kind": Kind.INLINE, "mtime_ms": 1, **fields})  # type: ignore[arg-type]
        row = object_row(object_prefix(bucket, key), stamp)
        await self.disk.tables.write([Update(row, version.encode())])

    async def put_upload(self, bucket: BucketId, key: bytes, upload: Upload) -> None:
        row = upload_row(bucket, key, VersionId(b"u" * 16))
        await self.disk.tables.write([Update(row, upload.encode())])


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    disk = await TablesOnDisk.open(tmp_path)
    directory = await Directory.load(disk.tables)
    yield Office(disk, directory, Buckets(disk.tables), Keys(disk.tables, directory))
    await disk.close()
