"""`worker`, `repair`, `meta`, `json-api`: looking after a node."""

from __future__ import annotations

import json
import sys
from typing import Any

from garage_lite.cli.grammar import REPAIRS
from garage_lite.cli.run import Api, CommandFailed, Context
from garage_lite.cli.tables import Row, age, or_dash, print_table, short

_REPAIR_NAMES = {
    "mpu": "multipartUploads",
    "block-refs": "blockRefs",
    "block-rc": "blockRc",
    "clear-resync-queue": "clearResyncQueue",
}
SNAPSHOT_SECONDS = 1860.0
"""More than a node waits for another's."""
_SCRUB_STEPS = ("start", "pause", "resume", "cancel")
_WORKER_COLUMNS = "TID", "State", "Name", "Tranq", "Done", "Queue", "Errors", "Consec", "Last"
_PROGRESS = (
    ("Progress:", "progress"),
    ("Queue length:", "queueLength"),
    ("Persistent errors:", "persistentErrors"),
)
_STATES = {"busy": "Busy", "idle": "Idle", "done": "Done"}


async def worker_list(context: Context, api: Api) -> None:
    wanted = {"busyOnly": context.values["busy"], "errorOnly": context.values["errors"]}
    workers = await api.on_node("ListWorkers", wanted, node=context.values["node"])
    rows: list[Row] = [_WORKER_COLUMNS]
    for worker in sorted(workers, key=_worker_order):
        last, errors = worker.get("lastError"), worker["errors"]
        rows.append(
            (
                str(worker["id"]),
                _state(worker["state"]),
                worker["name"],
                or_dash(worker.get("tranquility")),
                or_dash(worker.get("progress")),
                or_dash(worker.get("queueLength")),
                str(errors) if errors else "-",
                str(worker["consecutiveErrors"]) if errors else "-",
                age(last["secsAgo"]) if last else "",
            )
        )
    print_table(rows)


async def worker_info(context: Context, api: Api) -> None:
    text = context.values["tid"]
    if not (text.isascii() and text.isdigit()):
        raise CommandFailed(f"a task id is a number, not {text!r}")
    worker = await api.on_node("GetWorkerInfo", {"id": int(text)}, node=context.values["node"])
    state = _state(worker["state"])
    if isinstance(worker["state"], dict):
        pause = worker["state"]["throttled"]["durationSecs"]
        state = f"Busy (throttled, paused for {pause:.3f}s)"
    rows: list[Row] = [
        ("Task id:", str(worker["id"])),
        ("Worker name:", worker["name"]),
        ("Worker state:", state),
        *_present(worker, ("Tranquility:", "tranquility")),
        ("",),
        ("Total errors:", str(worker["errors"])),
        ("Consecutive errs:", str(worker["consecutiveErrors"])),
    ]
    last = worker.get("lastError")
    if last:
        rows += [("Last error:", last["message"]), ("Last error time:", age(last["secsAgo"]))]
    rows += [("",), *_present(worker, *_PROGRESS)]
    for number, line in enumerate(worker.get("freeform") or ()):
        rows.append(("Message:" if number == 0 else "", line))
    print_table(rows if len(rows[-1]) > 1 else rows[:-1])


def _present(worker: dict[str, Any], *fields: tuple[str, str]) -> list[Row]:
    return [(title, str(worker[f])) for title, f in fields if worker.get(f) is not None]


def _state(state: Any) -> str:
    return "Busy*" if isinstance(state, dict) else _STATES.get(state, str(state))


def _worker_order(worker: dict[str, Any]) -> tuple[int, int]:
    order = {"Busy": 0, "Busy*": 0, "Idle": 1}
    return order.get(_state(worker["state"]), 2), worker["id"]


async def worker_get(context: Context, api: Api) -> None:
    body = {"variable": context.values["variable"]}
    answers = await _on_nodes(context, api, "GetWorkerVariable", body)
    print_table(
        [
            (short(node), name, str(value))
            for node, variables in answers["success"].items()
            for name, value in sorted(variables.items())
        ]
    )
    _print_failures(answers)


async def worker_set(context: Context, api: Api) -> None:
    body = {"variable": context.values["variable"], "value": context.values["value"]}
    answers = await _on_nodes(context, api, "SetWorkerVariable", body)
    rows = [(short(n), a["variable"], str(a["value"])) for n, a in answers["success"].items()]
    print_table(rows)
    _print_failures(answers)


async def _on_nodes(context: Context, api: Api, operation: str, body: Any) -> Any:
    """On the nodes that the command line names."""
    values = context.values
    return await api.on_nodes(operation, values["all_nodes"], body, node=values["node"])


def _print_failures(answers: dict[str, Any]) -> None:
    for node, message in answers["error"].items():
        print(f"{short(node)}: error: {message}", file=sys.stderr)


async def repair(context: Context, api: Api) -> None:
    values = context.values
    what, step = values["what"], values["step"]
    if what not in REPAIRS:
        raise CommandFailed(f"unknown repair {what!r}; expected one of {', '.join(REPAIRS)}")
    if (what == "scrub") != (step in _SCRUB_STEPS):
        raise CommandFailed("expected: repair scrub start|pause|resume|cancel, or another repair")
    if not values["yes"]:
        raise CommandFailed("Please add --yes to start the repair operation")
    kind: Any = {"scrub": step} if what == "scrub" else _REPAIR_NAMES.get(what, what)
    answers = await _on_nodes(context, api, "LaunchRepairOperation", {"repairType": kind})
    rows: list[Row] = [(short(n), f"Error: {m}") for n, m in answers["error"].items()]
    rows += [(short(node), "Repair launched") for node in answers["success"]]
    print_table(rows)
    if answers["error"]:
        raise CommandFailed(f"{len(answers['error'])} nodes returned an error")


async def snapshot(context: Context, api: Api) -> None:
    answers = await api.on_nodes(
        "CreateMetadataSnapshot",
        context.values["all"],
        node=context.values["node"],
        seconds=SNAPSHOT_SECONDS,
    )
    rows: list[Row] = [("Node", "Result")]
    rows += [(short(node), "Snapshot created") for node in answers["success"]]
    rows += [(short(n), f"Error: {m}") for n, m in answers["error"].items()]
    print_table(rows)
    if answers["error"]:
        raise CommandFailed(f"{len(answers['error'])} nodes returned an error")


async def json_api(context: Context, api: Api) -> None:
    """The answer as JSON on stdout."""
    text = context.values["json"]
    if text == "-":
        text = sys.stdin.read()
    try:
        parameters = None if text is None else json.loads(text)
    except ValueError as error:
        raise CommandFailed(f"the parameters are no JSON: {error}") from error
    answer = await api.call(context.values["endpoint"], parameters)
    print(json.dumps(answer, indent=2, ensure_ascii=False))
