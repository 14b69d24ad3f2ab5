"""Operations on background workers, their settings, and blocks that they can't get right."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from garage_lite.core.ids import BLOCK_HASH_BYTES, BlockHash
from garage_lite.core.workers.resync import failed_entries
from garage_lite.core.workers.runner import State, WorkerStatus
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.errors import AdminError, bad_request
from garage_lite.web.admin.fields import Fields

_RETRIES_MAX: Final = 10_000
"""Blocks of one RetryBlockResync."""
_ERRORS_MAX: Final = 10_000
"""Blocks of one ListBlockErrors: a lost disk may have a million."""


async def list_workers(context: AdminContext, fields: Fields) -> Any:
    busy_only, error_only = fields.flag("busyOnly"), fields.flag("errorOnly")
    fields.end()
    return [
        worker_json(context, status)
        for status in context.workers.status()
        if not (busy_only and status.state not in (State.BUSY, State.THROTTLED))
        and not (error_only and not status.errors)
    ]


async def get_worker(context: AdminContext, fields: Fields) -> Any:
    wanted = fields.number("id")
    fields.end()
    for status in context.workers.status():
        if status.id == wanted:
            return worker_json(context, status)
    raise AdminError("NoSuchWorker", f"Worker not found: {wanted}")


def worker_json(context: AdminContext, status: WorkerStatus) -> dict[str, Any]:
    state: Any = status.state.value
    if status.state is State.THROTTLED:
        state = {"throttled": {"durationSecs": status.rest_us / 1_000_000}}
    last_error = None
    if status.last_error is not None:
        ago_us = context.clock.now_us() - (status.last_error_us or 0)
        last_error = {"message": status.last_error, "secsAgo": max(0, ago_us // 1_000_000)}
    return {
        "id": status.id,
        "name": status.name,
        "state": state,
        "errors": status.errors,
        "consecutiveErrors": status.consecutive_errors,
        "lastError": last_error,
        "tranquility": status.progress.tranquility,
        "progress": status.progress.progress,
        "queueLength": status.progress.queue_length,
        "persistentErrors": status.progress.persistent_errors,
        "freeform": list(status.progress.freeform),
    }


async def get_variable(context: AdminContext, fields: Fields) -> Any:
    name = fields.optional_text("variable")
    fields.end()
    return context.variables.all() if name is None else {name: context.variables.get(name)}


async def set_variable(context: AdminContext, fields: Fields) -> Any:
    name, value = fields.text("variable"), fields.text("value")
    fields.end()
    await context.variables.set(name, value)
    return {"variable": name, "value": value}


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
        blocks = [_block_hash(context, text) for text in named]
    for block in blocks:
        await context.blocks.look_again(block)
    context.resync.notify()
    return {"count": len(blocks)}


def _block_hash(context: AdminContext, text: str) -> BlockHash:
    try:
        block = bytes.fromhex(text)
    except ValueError:
        block = b""
    if len(block) != BLOCK_HASH_BYTES:
        raise bad_request(f"Invalid block hash: {text[:100]}")
    if (
        not context.blocks.files.has(BlockHash(block))
        and not context.blocks.facts(BlockHash(block)).live
    ):
        raise AdminError("NoSuchBlock", f"Block not found: {text}")
    return BlockHash(block)
