"""Operations on buckets, their names, rights and settings."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Any

from garage_lite.core.errors import NoSuchBucket, NoSuchUpload, NotImplementedHere
from garage_lite.core.ids import BUCKET_ID_BYTES, BucketId, VersionId
from garage_lite.core.model.buckets import Bucket, Permission
from garage_lite.core.store.bucket_rows import local_aliases_of
from garage_lite.core.store.buckets import LocalAlias, Setting
from garage_lite.web.admin.access_keys import (
    INFO_LIST_MAX,
    LIST_MAX,
    existing_key,
    permissions_json,
    read_permissions,
)
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.dates import date_text
from garage_lite.web.admin.errors import AdminError, bad_request
from garage_lite.web.admin.fields import Fields


async def list_buckets(context: AdminContext, fields: Fields) -> Any:
    return [
        {
            "id": bucket.id.hex(),
            "created": date_text(bucket.created_ms),
            "globalAliases": _aliases(bucket),
            "localAliases": [
                {"accessKeyId": key_id, "alias": name} for key_id, name in local_aliases_of(bucket)
            ],
        }
        for bucket in _page(context, fields, LIST_MAX)
    ]


async def list_buckets_info(context: AdminContext, fields: Fields) -> Any:
    shown = []
    for bucket in _page(context, fields, INFO_LIST_MAX):
        shown.append(await bucket_json(context, bucket.id))
        await asyncio.sleep(0)
    return shown


def _page(context: AdminContext, fields: Fields, limit_default: int) -> list[Bucket]:
    offset = fields.optional_text("offset")
    limit = fields.query_number("limit")
    fields.end()
    start = b"" if offset is None else bucket_id(offset)
    found = (bucket for bucket in context.directory.buckets() if bucket.id >= start)
    return list(islice(found, limit_default if limit is None else limit))


async def get_bucket(context: AdminContext, fields: Fields) -> Any:
    wanted = [fields.optional_text(name) for name in ("id", "globalAlias", "search")]
    fields.end()
    match wanted:
        case [str() as text, None, None]:
            found = bucket_id(text)
        case [None, str() as alias, None]:
            found = _by_alias(context, alias).id
        case [None, None, str() as search]:
            found = _by_search(context, search).id
        case _:
            raise bad_request(
                "Either id, globalAlias or search must be provided (but not several of them)"
            )
    return await bucket_json(context, found)


async def create_bucket(context: AdminContext, fields: Fields) -> Any:
    global_alias = fields.optional_text("globalAlias")
    local_alias = fields.inner("localAlias", _local_alias)
    fields.end()
    if local_alias is not None:
        existing_key(context, local_alias.access_key_id)
    made = await context.buckets.create(global_alias=global_alias, local_alias=local_alias)
    return await bucket_json(context, made)


def _local_alias(fields: Fields) -> LocalAlias:
    key_id, name = fields.text("accessKeyId"), fields.text("alias")
    return LocalAlias(key_id, name, fields.inner("allow", read_permissions) or Permission.NONE)


async def update_bucket(context: AdminContext, fields: Fields) -> Any:
    bucket = existing_bucket(context, fields.text("id"))
    settings = fields.inner("body", _settings) or {}
    fields.end()
    if settings:
        await context.buckets.configure(bucket.id, settings)
    return await bucket_json(context, bucket.id)


def _settings(fields: Fields) -> dict[Setting, Any]:
    found: dict[Setting, Any] = {}
    if fields.has("websiteAccess"):
        found["website"] = fields.inner("websiteAccess", _website)
    if fields.has("quotas"):
        found["quotas"] = fields.inner("quotas", _quotas)
    settings: tuple[tuple[str, Setting], ...] = (
        ("corsRules", "cors"),
        ("lifecycleRules", "lifecycle"),
    )
    for name, setting in settings:
        rules = fields.optional_list(name)
        if rules:
            raise NotImplementedHere(f"{name} are not there yet in this version.")
        if rules is not None:
            found[setting] = None
    return found


def _website(fields: Fields) -> dict[str, Any] | None:
    enabled = fields.flag("enabled")
    index, error = fields.optional_text("indexDocument"), fields.optional_text("errorDocument")
    if fields.optional_list("routingRules"):
        raise NotImplementedHere("routingRules are not there yet in this version.")
    if not enabled:
        if index is not None or error is not None:
            raise bad_request(
                "Cannot specify indexDocument or errorDocument when disabling website access."
            )
        return None
    if index is None:
        raise bad_request("Please specify indexDocument when enabling website access.")
    if not index or "/" in index:
        raise bad_request("The index document must not be empty nor contain a slash.")
    if error == "":
        raise bad_request("The error document must not be empty.")
    return {"index_document": index, "error_document": error}


def _quotas(fields: Fields) -> list[int | None]:
    return [fields.optional_number("maxSize"), fields.optional_number("maxObjects")]


async def delete_bucket(context: AdminContext, fields: Fields) -> Any:
    bucket = existing_bucket(context, fields.text("id"))
    fields.end()
    await context.buckets.delete(bucket.id)


async def cleanup_incomplete_uploads(context: AdminContext, fields: Fields) -> Any:
    bucket = existing_bucket(context, fields.text("bucketId"))
    older_than_ms = fields.number("olderThanSecs") * 1000
    fields.end()

    async def abort(of: BucketId, key: bytes, upload: VersionId) -> None:
        try:
            await context.uploads.abort(of, key, upload)
        except NoSuchUpload:
            return  # it ended by itself meanwhile

    count = await context.buckets.cleanup_incomplete_uploads(bucket.id, older_than_ms, abort)
    return {"uploadsDeleted": count}


async def allow_key(context: AdminContext, fields: Fields) -> Any:
    bucket, key_id, permissions = _right(context, fields)
    await context.buckets.allow(bucket, key_id, permissions)
    return await bucket_json(context, bucket)


async def deny_key(context: AdminContext, fields: Fields) -> Any:
    bucket, key_id, permissions = _right(context, fields)
    await context.buckets.deny(bucket, key_id, permissions)
    return await bucket_json(context, bucket)


def _right(context: AdminContext, fields: Fields) -> tuple[BucketId, str, Permission]:
    bucket = existing_bucket(context, fields.text("bucketId"))
    key_id = fields.text("accessKeyId")
    permissions = fields.inner("permissions", read_permissions)
    fields.end()
    if permissions is None:
        raise bad_request("the request lacks the field `permissions`")
    return bucket.id, existing_key(context, key_id).id, permissions


async def add_alias(context: AdminContext, fields: Fields) -> Any:
    bucket, name, key_id = _alias(context, fields)
    if key_id is None:
        await context.buckets.add_alias(bucket, name)
    else:
        await context.buckets.add_local_alias(bucket, key_id, name)
    return await bucket_json(context, bucket)


async def remove_alias(context: AdminContext, fields: Fields) -> Any:
    bucket, name, key_id = _alias(context, fields)
    if key_id is None:
        await context.buckets.remove_alias(bucket, name)
    else:
        await context.buckets.remove_local_alias(bucket, key_id, name)
    return await bucket_json(context, bucket)


def _alias(context: AdminContext, fields: Fields) -> tuple[BucketId, str, str | None]:
    """The bucket, the name, and for a local name its key."""
    bucket = existing_bucket(context, fields.text("bucketId"))
    global_alias = fields.optional_text("globalAlias")
    local_alias = fields.optional_text("localAlias")
    key_id = fields.optional_text("accessKeyId")
    fields.end()
    if global_alias is not None and local_alias is None and key_id is None:
        return bucket.id, global_alias, None
    if global_alias is None and local_alias is not None and key_id is not None:
        return bucket.id, local_alias, existing_key(context, key_id).id
    raise bad_request("Either globalAlias, or localAlias and accessKeyId must be provided")


async def bucket_json(context: AdminContext, wanted: BucketId) -> dict[str, Any]:
    bucket = context.directory.bucket_by_id(wanted)
    counters = await context.buckets.counters(bucket.id)
    website = bucket.website.value
    max_size, max_objects = bucket.quotas.value or (None, None)
    shown: dict[str, Any] = {
        "id": bucket.id.hex(),
        "created": date_text(bucket.created_ms),
        "globalAliases": _aliases(bucket),
        "websiteAccess": website is not None,
    }
    if website is not None:
        shown["websiteConfig"] = {
            "indexDocument": website["index_document"],
            "errorDocument": website["error_document"],
            "routingRules": [],
        }
    return shown | {
        "keys": _keys_json(context, bucket),
        "objects": counters.objects,
        "bytes": counters.total_bytes,
        "unfinishedUploads": counters.uploads + counters.pending,
        "unfinishedMultipartUploads": counters.uploads,
        "unfinishedMultipartUploadParts": counters.parts,
        "unfinishedMultipartUploadBytes": counters.part_bytes,
        "quotas": {"maxSize": max_size, "maxObjects": max_objects},
    }


def _keys_json(context: AdminContext, bucket: Bucket) -> list[dict[str, Any]]:
    """The keys with a right on the bucket or a name of their own for it."""
    names: dict[str, list[str]] = {key_id: [] for key_id, rights in bucket.keys.items() if rights}
    for key_id, name in local_aliases_of(bucket):
        names.setdefault(key_id, []).append(name)
    shown = []
    for key_id in sorted(names):
        key = context.directory.key(key_id)
        if key is not None:
            shown.append(
                {
                    "accessKeyId": key.id,
                    "name": key.name.value,
                    "permissions": permissions_json(bucket.permissions_of(key.id)),
                    "bucketLocalAliases": names[key_id],
                }
            )
    return shown


def _aliases(bucket: Bucket) -> list[str]:
    return [name for name, _ in bucket.aliases.items()]


def bucket_id(text: str) -> BucketId:
    """A bucket id in full. Raises AdminError."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != BUCKET_ID_BYTES:
        raise bad_request("Invalid bucket id")
    return BucketId(found)


def existing_bucket(context: AdminContext, text: str) -> Bucket:
    """The bucket of an id. Raises AdminError."""
    found = bucket_id(text)
    try:
        return context.directory.bucket_by_id(found)
    except NoSuchBucket as error:
        raise _no_such_bucket(text) from error


def _by_alias(context: AdminContext, alias: str) -> Bucket:
    try:
        return context.directory.resolve(alias)
    except NoSuchBucket as error:
        raise _no_such_bucket(alias) from error


def _by_search(context: AdminContext, search: str) -> Bucket:
    """A global alias, or the only bucket whose id begins so."""
    try:
        return context.directory.resolve(search)
    except NoSuchBucket:
        pass
    found = [b for b in context.directory.buckets() if search and b.id.hex().startswith(search)]
    if not found:
        raise _no_such_bucket(search)
    if len(found) > 1:
        raise bad_request(f"Several matching buckets: {search}")
    return found[0]


def _no_such_bucket(wanted: str) -> AdminError:
    return AdminError("NoSuchBucket", f"Bucket not found: {wanted[:200]}")
