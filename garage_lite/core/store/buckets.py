"""The verbs on buckets: create, name, allow, set, delete.

A bucket's names are kept twice, as in Garage: alias rows (and a key's own row) say where a name
leads, the bucket's row says which names it has. Both are written in one step under one stamp.
Rights are those of keys on buckets; whether the caller may do what he asks is decided before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from garage_lite.core.cluster.tables import Tables
from garage_lite.core.errors import (
    AccessDenied,
    AliasTaken,
    BucketAlreadyExists,
    BucketAlreadyOwned,
    BucketNotEmpty,
    NoSuchAccessKey,
    NoSuchBucket,
    NotAllowedHere,
)
from garage_lite.core.ids import BUCKET_ID_BYTES, BucketId, VersionId
from garage_lite.core.model.buckets import Bucket, Permission, Versioning
from garage_lite.core.model.counters import Counters
from garage_lite.core.model.rowkeys import (
    Table,
    after_prefix,
    counter_row,
    in_bucket,
    upload_id_of,
    upload_name_of,
)
from garage_lite.core.model.uploads import Upload, UploadState
from garage_lite.core.store.bucket_rows import (
    alias_update,
    bucket_update,
    global_aliases_of,
    global_target,
    local_alias_update,
    local_aliases_of,
    local_target,
    stored_bucket,
    stored_key,
    target_of,
    with_alias,
    with_local_alias,
    with_right,
    without_alias,
    without_local_alias,
)
from garage_lite.core.store.edits import write_edit
from garage_lite.core.store.listing import Listing
from garage_lite.core.store.names import check_bucket_name
from garage_lite.core.store.versions import counted
from garage_lite.core.table.schema import Update, View

Setting = Literal["website", "cors", "lifecycle", "quotas"]
AbortUpload = Callable[[BucketId, bytes, VersionId], Awaitable[None]]
"""Aborts one upload of an object key; an upload that is gone is no error."""


@dataclass(frozen=True, slots=True)
class LocalAlias:
    """A name that only one access key sees."""

    access_key_id: str
    name: str
    permissions: Permission = Permission.NONE
    """What the key may do with the bucket that is created under this name."""


class Buckets:
    """Every change of buckets and their names; durable on return. Reads are `directory.py`'s.

    All raise NoSuchBucket and NoSuchAccessKey for what is not there.
    """

    def __init__(self, tables: Tables, *, allow_punycode: bool = False) -> None:
        self._tables = tables
        self._allow_punycode = allow_punycode

    async def create_by_key(self, name: str, access_key_id: str) -> BucketId:
        """S3's CreateBucket: takes the global name if it is free; the key gets every right.

        Raises InvalidName, BucketAlreadyOwned (the key has a right on the bucket of that name),
        BucketAlreadyExists, AccessDenied (the key may not create buckets). Of several at once
        exactly one succeeds.
        """
        check_bucket_name(name, allow_punycode=self._allow_punycode)
        new = self._new_bucket()

        def edit(view: View, stamp: int) -> list[Update]:
            key = stored_key(view, access_key_id)
            taken = target_of(view, name, key)
            if taken is not None:
                owned = taken.permissions_of(access_key_id)
                raise BucketAlreadyOwned if owned else BucketAlreadyExists
            if not key.create_bucket.value:
                raise AccessDenied("Access Denied: this key may not create buckets.")
            bucket = with_right(with_alias(new, name, stamp), key, Permission.ALL, stamp)
            return [bucket_update(bucket), alias_update(view, name, new.id, stamp)]

        await write_edit(self._tables, edit, new=True)
        return new.id

    async def create(
        self, *, global_alias: str | None = None, local_alias: LocalAlias | None = None
    ) -> BucketId:
        """An operator's creation, with any names or none. Raises InvalidName,
        BucketAlreadyExists."""
        for name in (global_alias, local_alias.name if local_alias else None):
            if name is not None:
                check_bucket_name(name, allow_punycode=self._allow_punycode)
        new = self._new_bucket()

        def edit(view: View, stamp: int) -> list[Update]:
            bucket, updates = new, []
            if global_alias is not None:
                if global_target(view, global_alias) is not None:
                    raise BucketAlreadyExists
                bucket = with_alias(bucket, global_alias, stamp)
                updates.append(alias_update(view, global_alias, new.id, stamp))
            if local_alias is not None:
                key = stored_key(view, local_alias.access_key_id)
                if local_target(view, local_alias.name, key) is not None:
                    raise BucketAlreadyExists
                bucket = with_local_alias(bucket, key, local_alias.name, stamp)
                if local_alias.permissions:
                    bucket = with_right(bucket, key, local_alias.permissions, stamp)
                updates.append(local_alias_update(key, local_alias.name, new.id, stamp))
            return [bucket_update(bucket), *updates]

        # A name of a key's own hides the global one, which others may know.
        await write_edit(self._tables, edit, new=local_alias is None)
        return new.id

    def _new_bucket(self) -> Bucket:
        bucket_id = BucketId(self._tables.entropy.token(BUCKET_ID_BYTES))
        return Bucket(bucket_id, self._tables.now_ms())

    async def delete_by_key(self, name: str, access_key_id: str) -> None:
        """S3's DeleteBucket, as Garage: removes this name; the last one with the bucket, which
        must then be empty. Raises BucketNotEmpty."""
        view = self._tables.latest()
        key = stored_key(view, access_key_id)
        bucket = target_of(view, name, key)
        if bucket is None:
            raise NoSuchBucket
        if _names(bucket) <= 1:
            await self.delete(bucket.id)
        elif local_target(view, name, key) is not None:
            await self.remove_local_alias(bucket.id, access_key_id, name)
        else:
            await self.remove_alias(bucket.id, name)

    async def delete(self, bucket_id: BucketId) -> None:
        """Delete a bucket with all its names. Raises BucketNotEmpty while it holds a version, a
        delete marker or an open multipart upload."""
        counters = counter_row(bucket_id)
        before = self._tables.latest().get(counters)
        await self._check_empty(bucket_id)

        def edit(view: View, stamp: int) -> list[Update]:
            bucket = stored_bucket(view, bucket_id)
            if view.get(counters) != before:
                raise BucketNotEmpty("The bucket is being written to.")
            updates = [bucket_update(replace(bucket, deleted=True))]
            for name in global_aliases_of(bucket):
                target = global_target(view, name)
                if target is not None and target.id == bucket_id:
                    updates.append(alias_update(view, name, None, stamp))
            for key_id, name in local_aliases_of(bucket):
                try:
                    key = stored_key(view, key_id)
                except NoSuchAccessKey:
                    continue
                updates.append(local_alias_update(key, name, None, stamp))
            return updates

        await write_edit(self._tables, edit)

    async def _check_empty(self, bucket_id: BucketId) -> None:
        listing = Listing(self._tables)
        if (await listing.versions(bucket_id, limit=1)).entries:
            raise BucketNotEmpty
        async for _ in self._open_uploads(bucket_id):
            raise BucketNotEmpty("The bucket has multipart uploads in progress.")

    # --- names

    async def add_alias(self, bucket_id: BucketId, name: str) -> None:
        """Raises InvalidName, AliasTaken (the name leads to another bucket)."""
        check_bucket_name(name, allow_punycode=self._allow_punycode)

        def edit(view: View, stamp: int) -> list[Update]:
            bucket = stored_bucket(view, bucket_id)
            taken = global_target(view, name)
            if taken is not None and taken.id != bucket_id:
                raise AliasTaken(f"The name {name} already leads to another bucket.")
            alias = alias_update(view, name, bucket_id, stamp)
            return [bucket_update(with_alias(bucket, name, stamp)), alias]

        await write_edit(self._tables, edit)

    async def remove_alias(self, bucket_id: BucketId, name: str) -> None:
        """Raises NotAllowedHere: it is no name of the bucket, or its last one."""

        def edit(view: View, stamp: int) -> list[Update]:
            bucket = stored_bucket(view, bucket_id)
            if not bucket.aliases.get(name):
                raise NotAllowedHere(f"{name} is no global name of this bucket.")
            _check_not_last(bucket)
            alias = alias_update(view, name, None, stamp)
            return [bucket_update(without_alias(bucket, name, stamp)), alias]

        await write_edit(self._tables, edit)

    async def add_local_alias(self, bucket_id: BucketId, access_key_id: str, name: str) -> None:
        """Raises InvalidName, AliasTaken (for this key the name leads to another bucket)."""
        check_bucket_name(name, allow_punycode=self._allow_punycode)

        def edit(view: View, stamp: int) -> list[Update]:
            bucket, key = stored_bucket(view, bucket_id), stored_key(view, access_key_id)
            taken = local_target(view, name, key)
            if taken is not None and taken.id != bucket_id:
                raise AliasTaken(f"The name {name} of this key already leads to another bucket.")
            alias = local_alias_update(key, name, bucket_id, stamp)
            return [bucket_update(with_local_alias(bucket, key, name, stamp)), alias]

        await write_edit(self._tables, edit)

    async def remove_local_alias(self, bucket_id: BucketId, access_key_id: str, name: str) -> None:
        """Raises NotAllowedHere: the key has no such name for the bucket, or it is the last."""

        def edit(view: View, stamp: int) -> list[Update]:
            bucket, key = stored_bucket(view, bucket_id), stored_key(view, access_key_id)
            if key.local_aliases.get(name) != bucket_id.hex():
                raise NotAllowedHere(f"{name} is no name of this bucket for key {key.id}.")
            _check_not_last(bucket)
            alias = local_alias_update(key, name, None, stamp)
            return [bucket_update(without_local_alias(bucket, key, name, stamp)), alias]

        await write_edit(self._tables, edit)

    # --- rights and settings

    async def allow(self, bucket_id: BucketId, access_key_id: str, rights: Permission) -> None:
        """Add rights of a key."""

        def edit(view: View, stamp: int) -> list[Update]:
            bucket, key = stored_bucket(view, bucket_id), stored_key(view, access_key_id)
            wanted = bucket.permissions_of(key.id) | rights
            return [bucket_update(with_right(bucket, key, wanted, stamp))]

        await write_edit(self._tables, edit)

    async def deny(self, bucket_id: BucketId, access_key_id: str, rights: Permission) -> None:
        """Take rights of a key away."""

        def edit(view: View, stamp: int) -> list[Update]:
            bucket, key = stored_bucket(view, bucket_id), stored_key(view, access_key_id)
            wanted = bucket.permissions_of(key.id) & ~rights
            return [bucket_update(with_right(bucket, key, wanted, stamp))]

        await write_edit(self._tables, edit)

    async def configure(self, bucket_id: BucketId, settings: Mapping[Setting, Any]) -> None:
        """Set documents (None: as if never set), in one step. Their form is the caller's duty."""

        def edit(view: View, stamp: int) -> list[Update]:
            bucket = stored_bucket(view, bucket_id)
            changed = {name: getattr(bucket, name).set(settings[name], stamp) for name in settings}
            return [bucket_update(replace(bucket, **changed))]

        await write_edit(self._tables, edit)

    async def set_versioning(self, bucket_id: BucketId, state: Versioning) -> None:
        """Raises NotAllowedHere: once enabled it can only be suspended, as in S3."""

        def edit(view: View, stamp: int) -> list[Update]:
            bucket = stored_bucket(view, bucket_id)
            if state is Versioning.OFF and bucket.versioning.value != Versioning.OFF:
                raise NotAllowedHere("Versioning can be suspended, not switched off.")
            versioning = bucket.versioning.set(int(state), stamp)
            return [bucket_update(replace(bucket, versioning=versioning))]

        await write_edit(self._tables, edit)

    # --- what is inside

    async def counters(self, bucket_id: BucketId) -> Counters:
        """What the bucket holds."""
        return await counted(self._tables, bucket_id)

    async def cleanup_incomplete_uploads(
        self, bucket_id: BucketId, older_than_ms: int, abort: AbortUpload
    ) -> int:
        """Abort the multipart uploads begun at least `older_than_ms` ago; how many there were."""
        limit_ms = self._tables.now_ms() - older_than_ms
        aborted = 0
        async for row_key, upload in self._open_uploads(bucket_id):
            if upload.started_ms <= limit_ms:
                await abort(bucket_id, upload_name_of(row_key), upload_id_of(row_key))
                aborted += 1
        return aborted

    async def _open_uploads(self, bucket_id: BucketId) -> AsyncIterator[tuple[bytes, Upload]]:
        start = in_bucket(Table.UPLOAD, bucket_id)
        async for keys, values in self._tables.scan(start, after_prefix(start)):
            for key, value in zip(keys, values, strict=True):
                upload = Upload.decode(value)
                if upload.state <= UploadState.FENCED:
                    yield key, upload


def _names(bucket: Bucket) -> int:
    return len(global_aliases_of(bucket)) + len(local_aliases_of(bucket))


def _check_not_last(bucket: Bucket) -> None:
    if _names(bucket) <= 1:
        raise NotAllowedHere("This is the bucket's last name; delete the bucket instead.")
