"""`block`: what can't be synced, who uses a block, and the end of those that are lost."""

from __future__ import annotations

from typing import Any

from garage_lite.cli.run import Api, CommandFailed, Context
from garage_lite.cli.tables import Row, age, print_table, short


async def block_errors(context: Context, api: Api) -> None:
    rows: list[Row] = [("Hash", "RC", "Errors", "Last error", "Next try")]
    for error in await api.on_node("ListBlockErrors", node=context.values["node"]):
        wait = error["nextTryInSecs"]
        rows.append(
            (
                error["blockHash"],
                str(error["refcount"]),
                str(error["errorCount"]),
                age(error["lastTrySecsAgo"]),
                f"in {age(wait, '')}" if wait > 0 else "in asap",
            )
        )
    print_table(rows)


async def block_retry(context: Context, api: Api) -> None:
    hashes = context.values["hash"]
    if context.values["all"] == bool(hashes):
        raise CommandFailed("Please specify block hashes or --all (not both)")
    body = {"blockHashes": hashes} if hashes else {"all": True}
    count = (await api.on_node("RetryBlockResync", body, node=context.values["node"]))["count"]
    print(f"{count} blocks returned in queue for a retry now (check logs to see results)")


async def block_info(context: Context, api: Api) -> None:
    info = await api.on_node("GetBlockInfo", {"blockHash": context.values["hash"]})
    print("==== BLOCK INFORMATION ====")
    print_table([("Block hash:", info["blockHash"]), ("Refcount:", str(info["refcount"]))])
    print("\n==== REFERENCES TO THIS BLOCK ====")
    rows: list[Row] = [("Status", "Version", "Bucket", "Key", "MPU")]
    rows += [_reference_row(version) for version in info["versions"]]
    print_table(rows)
    if any(one["refDeleted"] != one["versionDeleted"] for one in info["versions"]):
        print("\nThere are inconsistencies between the block_ref and the version tables.")
        print("Fix them by running `garage-lite repair block-refs`")


def _reference_row(version: dict[str, Any]) -> Row:
    status = "deleted" if version["refDeleted"] else "active"
    link = version["backlink"] or {}
    if "object" in link:
        user = link["object"]
        return status, short(version["versionId"]), short(user["bucketId"]), user["key"]
    if "upload" in link:
        user = link["upload"]
        bucket, key = short(user["bucketId"]), user["key"]
        return status, short(version["versionId"]), bucket, key, short(user["uploadId"])
    return status, short(version["versionId"])


async def block_purge(context: Context, api: Api) -> None:
    if not context.values["yes"]:
        raise CommandFailed("Pass the --yes flag to confirm block purge operation.")
    done = await api.on_node("PurgeBlocks", context.values["hash"])
    print(
        f"Purged {done['blocksPurged']} blocks: deleted {done['blockRefsPurged']} block refs,"
        f" {done['versionsDeleted']} versions, {done['objectsDeleted']} objects,"
        f" {done['uploadsDeleted']} multipart uploads"
    )
