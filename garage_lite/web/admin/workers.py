"""Operations on background workers and their settings."""

from __future__ import annotations

from typing import Any

from garage_lite.core.workers.runner import State, WorkerStatus
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.errors import AdminError
from garage_lite.web.admin.fields import Fields


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
