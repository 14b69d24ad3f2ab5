"""Operations on single blocks: those that can't be synced, who uses one, and the end of one."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from garage_lite.core.block.refcount import Reference, block_refs_prefix, references
from garage_lite.core.errors import NoSuchUpload
from garage_lite.core.ids import BLOCK_HASH_BYTES, BlockHash
from garage_lite.core.model.rowkeys import Table, block_ref_row
from garage_lite.core.model.versions import BlockRef
from garage_lite.core.store.block_users import BlockUser, ObjectUser, UploadUser, users_of
from garage_lite.core.store.deletions import DeleteKey, delete_many
from garage_lite.core.table.schema import Update
from garage_lite.core.workers.resync import failed_entries
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.errors import AdminError, bad_request
from garage_lite.web.admin.fields import Fields

_RETRIES_MAX: Final = 10_000
"""Blocks of one RetryBlockResync."""
_ERRORS_MAX: Final = 10_000
"""Blocks of one ListBlockErrors: a lost disk may have a million."""
_PREFIX_DIGITS_MIN: Final = 4
_PURGED_MAX: Final = 1000
_REFERENCES_MAX: Final = 10_000
"""Of one block, looked up at once."""


async def list_block_errors(context: AdminContext, fields: Fields) -> Any:
    fields.end()
    now_us = context.clock.now_us()
    shown = []
    for block, entry in (await failed_entries(context.blocks))[:_ERRORS_MAX]:
        shown.append(
            {
                "blockHash": block.hex(),
                "refcount": context.blocks.facts(block).live,
                "errorCount": entry.errors,
                "lastTrySecsAgo": max(0, now_us - (entry.last_error_us or 0)) // 1_000_000,
                "nextTryInSecs": max(0, entry.due_us - now_us) // 1_000_000,
            }
        )
        await asyncio.sleep(0)
    return shown


async def retry_block_resync(context: AdminContext, fields: Fields) -> Any:
    """Look at blocks again now, as if they had never failed."""
    every, named = fields.flag("all"), fields.texts("blockHashes")
    fields.end()
    if every == bool(named):
        raise bad_request('Either {"all": true} or blockHashes must be provided')
    if len(named) > _RETRIES_MAX:
        raise bad_request(f"At most {_RETRIES_MAX} blocks can be retried at once")
    if every:
        blocks = [block for block, _ in await failed_entries(context.blocks)]
    else:
        blocks = [await _block(context, text) for text in named]
    for block in blocks:
        await context.blocks.look_again(block)
    context.resync.notify()
    return {"count": len(blocks)}


async def get_block_info(context: AdminContext, fields: Fields) -> Any:
    text = fields.text("blockHash")
    fields.end()
    block = await (_block if len(text) == 2 * BLOCK_HASH_BYTES else _by_prefix)(context, text)
    users = await _users(context, block)
    return {
        "blockHash": block.hex(),
        "refcount": sum(not one.reference.deleted for one in users),
        "versions": [_user_json(one) for one in users],
    }


async def purge_blocks(context: AdminContext, fields: Fields) -> Any:
    """Delete every version and upload that needs one of these blocks, which are lost."""
    named = fields.texts("blockHashes")
    fields.end()
    if len(named) > _PURGED_MAX:
        raise bad_request(f"At most {_PURGED_MAX} blocks can be purged at once")
    blocks = [await _block(context, text) for text in named]
    counts = dict.fromkeys(
        ("blocksPurged", "blockRefsPurged", "versionsDeleted", "objectsDeleted", "uploadsDeleted"),
        0,
    )
    for block in blocks:
        for one in await _users(context, block):
            if not one.reference.deleted:
                await _purge(context, block, one, counts)
        await context.blocks.look_again(block)
        counts["blocksPurged"] += 1
    context.resync.notify()
    return counts


async def _purge(
    context: AdminContext, block: BlockHash, one: BlockUser, counts: dict[str, int]
) -> None:
    tables = context.storage.tables
    if isinstance(one.user, ObjectUser):
        bucket = context.directory.bucket_by_id(one.reference.bucket)
        await delete_many(tables, bucket, [DeleteKey(one.user.key, one.user.version.version_id)])
        counts["versionsDeleted"] += 1
        counts["objectsDeleted"] += 1
    elif isinstance(one.user, UploadUser) and one.user.open:
        try:
            await context.uploads.abort(one.reference.bucket, one.user.key, one.user.upload)
        except NoSuchUpload:
            return
        counts["uploadsDeleted"] += 1
    row = BlockRef(one.reference.bucket, deleted=True).encode()
    await tables.write([Update(block_ref_row(block, one.reference.data), row)], deletes_only=True)
    counts["blockRefsPurged"] += 1


async def _users(context: AdminContext, block: BlockHash) -> list[BlockUser]:
    found = await _references(context, block)
    return await users_of(context.storage.tables, found[:_REFERENCES_MAX])


async def _references(context: AdminContext, block: BlockHash) -> list[Reference]:
    return references(await context.storage.tables.with_prefix(block_refs_prefix(block)))


def _user_json(one: BlockUser) -> dict[str, Any]:
    reference, user = one
    shown: dict[str, Any] = {
        "versionId": reference.data.hex(),
        "refDeleted": reference.deleted,
        "versionDeleted": user is None or (isinstance(user, UploadUser) and not user.open),
        "garbageCollected": user is None,
        "backlink": None,
    }
    bucket = reference.bucket.hex()
    if isinstance(user, ObjectUser):
        shown["versionId"] = user.version.id.hex()
        shown["backlink"] = {"object": {"bucketId": bucket, "key": _text(user.key)}}
    elif isinstance(user, UploadUser):
        shown["backlink"] = {
            "upload": {
                "uploadId": user.upload.hex(),
                "uploadDeleted": not user.open,
                "uploadGarbageCollected": False,
                "bucketId": bucket,
                "key": _text(user.key),
            }
        }
    return shown


def _text(key: bytes) -> str:
    return key.decode(errors="replace")


async def _by_prefix(context: AdminContext, text: str) -> BlockHash:
    """The only block with a reference on this node whose hash begins so."""
    prefix = text.lower()
    if len(prefix) < _PREFIX_DIGITS_MIN or not all(digit in "0123456789abcdef" for digit in prefix):
        raise bad_request(f"Invalid block hash: {text[:100]}")
    low = bytes.fromhex(prefix + "0" * (len(prefix) % 2))
    found: set[BlockHash] = set()
    view = context.storage.tables.durable()
    for keys, _ in view.scan(bytes((Table.BLOCK_REF, low[0])) + low, bytes((Table.BLOCK_REF + 1,))):
        found.update(BlockHash(key[2:34]) for key in keys if key[2:34].hex().startswith(prefix))
        if len(found) > 1:
            raise bad_request(f"Several blocks begin with {text}")
        if not keys or not keys[-1][2:34].hex().startswith(prefix):
            break
    if not found:
        raise AdminError("NoSuchBlock", f"Block not found: {text}")
    return found.pop()


async def _block(context: AdminContext, text: str) -> BlockHash:
    """A block that there is, here or in the references of its owners, by its whole hash."""
    try:
        name = bytes.fromhex(text)
    except ValueError:
        name = b""
    if len(name) != BLOCK_HASH_BYTES:
        raise bad_request(f"Invalid block hash: {text[:100]}")
    block = BlockHash(name)
    if not context.blocks.files.has(block) and not await _references(context, block):
        raise AdminError("NoSuchBlock", f"Block not found: {text}")
    return block
