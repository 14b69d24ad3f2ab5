"""`bucket ...`: buckets, their names, permissions, quotas and web sites."""

from __future__ import annotations

from typing import Any

from garage_lite.cli.key import find_key
from garage_lite.cli.run import Api, CommandFailed, Context
from garage_lite.cli.tables import (
    Row,
    day,
    first_of,
    flags,
    joined,
    moment,
    print_table,
    short,
    sizes,
    truth,
)
from garage_lite.units import parse_duration_ms, parse_size


async def list_buckets(context: Context, api: Api) -> None:
    rows: list[Row] = [("ID", "Created", "Global aliases", "Local aliases")]
    for bucket in await api.call("ListBuckets"):
        local = [f"{a['accessKeyId']}:{a['alias']}" for a in bucket["localAliases"]]
        names = first_of(bucket["globalAliases"]), first_of(local)
        rows.append((short(bucket["id"]), day(bucket.get("created")), *names))
    print_table(rows)


async def info(context: Context, api: Api) -> None:
    _print_bucket(await _find(api, context.values["bucket"]))


async def create(context: Context, api: Api) -> None:
    _print_bucket(await api.call("CreateBucket", {"globalAlias": context.values["bucket"]}))


async def delete(context: Context, api: Api) -> None:
    name = context.values["bucket"]
    bucket = await _find(api, name)
    if any(alias != name for alias in bucket["globalAliases"]):
        raise CommandFailed(
            f"Bucket {name} still has other global aliases."
            " Use `bucket unalias` to delete them one by one."
        )
    if any(key["bucketLocalAliases"] for key in bucket["keys"]):
        raise CommandFailed(
            f"Bucket {name} still has other local aliases."
            " Use `bucket unalias` to delete them one by one."
        )
    if not context.values["yes"]:
        print(f"About to delete bucket {bucket['id']}.")
        raise CommandFailed("Add --yes flag to really perform this operation")
    await api.call("DeleteBucket", {"id": bucket["id"]})
    print(f"Bucket {bucket['id']} has been deleted.")


async def alias(context: Context, api: Api) -> None:
    bucket = await _find(api, context.values["bucket"])
    body = {"bucketId": bucket["id"]}
    if context.values["local"] is None:
        body["globalAlias"] = context.values["new_name"]
    else:
        key = await find_key(api, context.values["local"])
        body |= {"localAlias": context.values["new_name"], "accessKeyId": key["accessKeyId"]}
    _print_bucket(await api.call("AddBucketAlias", body))


async def unalias(context: Context, api: Api) -> None:
    name = context.values["name"]
    if context.values["local"] is None:
        bucket = await api.call("GetBucketInfo", {"globalAlias": name})
        body = {"bucketId": bucket["id"], "globalAlias": name}
    else:
        key = await find_key(api, context.values["local"])
        mine = [b for b in key["buckets"] if name in b["localAliases"]]
        if not mine:
            raise CommandFailed(f"No bucket called {name} in namespace of key {key['accessKeyId']}")
        body = {"bucketId": mine[0]["id"], "localAlias": name, "accessKeyId": key["accessKeyId"]}
    _print_bucket(await api.call("RemoveBucketAlias", body))


async def allow(context: Context, api: Api) -> None:
    await _permit(context, api, "AllowBucketKey")


async def deny(context: Context, api: Api) -> None:
    await _permit(context, api, "DenyBucketKey")


async def _permit(context: Context, api: Api, operation: str) -> None:
    values = context.values
    bucket = await _find(api, values["bucket"])
    key = await find_key(api, values["key"])
    body = {
        "bucketId": bucket["id"],
        "accessKeyId": key["accessKeyId"],
        "permissions": {name: values[name] for name in ("read", "write", "owner")},
    }
    _print_bucket(await api.call(operation, body))


async def website(context: Context, api: Api) -> None:
    values = context.values
    if values["allow"] == values["deny"]:
        raise CommandFailed("You must specify exactly one flag, either --allow or --deny")
    bucket = await _find(api, values["bucket"])
    access: dict[str, Any] = {"enabled": False}
    if values["allow"]:
        before = bucket.get("websiteConfig") or {}
        access = {
            "enabled": True,
            "indexDocument": values["index_document"] or "index.html",
            "errorDocument": values["error_document"] or before.get("errorDocument"),
        }
    body = {"id": bucket["id"], "body": {"websiteAccess": access}}
    _print_bucket(await api.call("UpdateBucket", body))


async def set_quotas(context: Context, api: Api) -> None:
    values = context.values
    if values["max_size"] is None and values["max_objects"] is None:
        raise CommandFailed(
            "You must specify either --max-size or --max-objects (or both) for this command to do"
            " something."
        )
    quotas: dict[str, int | None] = {}
    if values["max_size"] is not None:
        quotas["maxSize"] = _limit(values["max_size"], "size")
    if values["max_objects"] is not None:
        quotas["maxObjects"] = _limit(values["max_objects"], "number")
    bucket = await _find(api, values["bucket"])
    body = {"id": bucket["id"], "body": {"quotas": {**bucket["quotas"], **quotas}}}
    _print_bucket(await api.call("UpdateBucket", body))


def _limit(text: str, kind: str) -> int | None:
    if text == "none":
        return None
    try:
        if kind == "size":
            return parse_size(text)
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"{text!r} is no whole number")
        return int(text)
    except ValueError as error:
        raise CommandFailed(f"Invalid {kind} specified: {error}") from error


async def cleanup_uploads(context: Context, api: Api) -> None:
    try:
        older_than_ms = parse_duration_ms(context.values["older_than"] or "1d")
    except ValueError as error:
        raise CommandFailed(
            f"Invalid duration passed for --older-than parameter: {error}"
        ) from error
    for name in context.values["bucket"]:
        bucket = (await _find(api, name))["id"]
        body = {"bucketId": bucket, "olderThanSecs": older_than_ms // 1000}
        deleted = (await api.call("CleanupIncompleteUploads", body))["uploadsDeleted"]
        print(f"{short(bucket)}: {deleted or 'no'} uploads deleted")


async def inspect_object(context: Context, api: Api) -> None:
    bucket = await _find(api, context.values["bucket"])
    body = {"bucketId": bucket["id"], "key": context.values["object"]}
    found = await api.call("InspectObject", body)
    for version in found["versions"]:
        print("==== OBJECT VERSION ====")
        _print_version(found, version)
        print()


def _print_version(found: dict[str, Any], version: dict[str, Any]) -> None:
    blocks = version.get("blocks") or []
    rows: list[Row] = [
        ("Bucket ID:", found["bucketId"]),
        ("Key:", found["key"]),
        ("Version ID:", version["uuid"]),
        ("Timestamp:", moment(version["timestamp"])),
    ]
    if version.get("size") is not None:
        rows += [("Size:", sizes(version["size"])), ("Size (exact):", str(version["size"]))]
        if blocks:
            rows.append(("Number of blocks:", str(len(blocks))))
    if version.get("etag"):
        rows.append(("Etag:", version["etag"]))
    rows += [
        (f"{title}:", truth(version.get(field)))
        for title, field in (
            ("Encrypted", "encrypted"),
            ("Uploading", "uploading"),
            ("Aborted", "aborted"),
            ("Delete marker", "deleteMarker"),
            ("Inline data", "inline"),
        )
    ]
    if version.get("headers"):
        rows += [("",), *((name, value) for name, value in version["headers"])]
    print_table(rows)
    if blocks:
        print()
        table: list[Row] = [("Part#", "Offset", "Block hash", "Size")]
        for block in blocks:
            place = f"{block['partNumber']:4}", f"{block['offset']:9}"
            table.append((*place, block["hash"], f"{block['size']:9}"))
        print_table(table)


async def _find(api: Api, pattern: str) -> dict[str, Any]:
    bucket: dict[str, Any] = await api.call("GetBucketInfo", {"search": pattern})
    return bucket


def _print_bucket(bucket: dict[str, Any]) -> None:
    print("==== BUCKET INFORMATION ====")
    rows: list[Row] = [("Bucket:", bucket["id"])]
    if bucket.get("created"):
        rows.append(("Created:", moment(bucket["created"])))
    rows += [("",), ("Size:", sizes(bucket["bytes"])), ("Objects:", str(bucket["objects"]))]
    rows += _unfinished(bucket)
    rows += [("",), ("Website access:", truth(bucket["websiteAccess"]))]
    site = bucket.get("websiteConfig")
    if site:
        rows.append(("  index document:", site["indexDocument"]))
        rows.append(("  error document:", site.get("errorDocument") or "(not defined)"))
    rows += _quotas(bucket["quotas"])
    names = bucket["globalAliases"]
    if names:
        title = "Global alias:" if len(names) == 1 else "Global aliases:"
        rows += [("",), (title, names[0]), *(("", name) for name in names[1:])]
    print_table(rows)

    print("\n==== KEYS FOR THIS BUCKET ====")
    keys: list[Row] = [("Permissions", "Access key", "", "Local aliases")]
    for key in bucket["keys"]:
        local = joined(key["bucketLocalAliases"])
        keys.append((flags(key["permissions"]), key["accessKeyId"], key["name"], local))
    print_table(keys)


def _unfinished(bucket: dict[str, Any]) -> list[Row]:
    if not bucket["unfinishedUploads"]:
        return []
    return [
        ("Unfinished uploads:", f"{bucket['unfinishedMultipartUploads']} multipart uploads"),
        ("", f"{bucket['unfinishedUploads']} including regular uploads"),
        (
            "Size of unfinished multipart uploads:",
            sizes(bucket["unfinishedMultipartUploadBytes"]),
        ),
    ]


def _quotas(quotas: dict[str, Any]) -> list[Row]:
    size, objects = quotas.get("maxSize"), quotas.get("maxObjects")
    if size is None and objects is None:
        return []
    rows: list[Row] = [("",), ("Quotas:", "enabled")]
    if size is not None:
        rows.append(("  maximum size:", sizes(size)))
    if objects is not None:
        rows.append(("  maximum number of objects:", str(objects)))
    return rows
