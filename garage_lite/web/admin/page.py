"""The status page of a node: read-only, for anybody who can reach the admin port.

One HTML document, rendered here, without scripts and without a request to anywhere. It shows how
the node is doing, and no secret: no key, no bucket's name, no token.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from typing import Final

from garage_lite.core.workers.runner import State, WorkerStatus
from garage_lite.units import format_size
from garage_lite.web.admin.cluster import health
from garage_lite.web.admin.context import AdminContext, Space
from garage_lite.web.admin.statistics import stored_totals

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c1c1e;--soft:#5b5b62;--line:#d9d9de;--page:#fbfbfc;
--good:#1b6e3c;--warn:#8a5200;--bad:#a3141c}
@media (prefers-color-scheme:dark){:root{--ink:#ececef;--soft:#a5a5ae;--line:#3a3a40;--page:#161618;
--good:#6fcf97;--warn:#f0b35a;--bad:#ff8a8a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:48rem;padding:1.5rem 1rem 3rem;background:var(--page);color:var(--ink);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.25rem;margin:0}
h2{font-size:1rem;margin:2rem 0 .25rem}
.health{font-size:1.25rem;margin:.25rem 0 0}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
ul{margin:.5rem 0 0;padding-left:1.2rem}
dl,table{margin:0;width:100%}
dl>div{display:flex;flex-wrap:wrap;gap:0 1rem;padding:.4rem 0;border-bottom:1px solid var(--line)}
dt{flex:0 0 9rem;color:var(--soft)}
dd{flex:1 1 13rem;margin:0}
code{font-size:.9em}
table{border-collapse:collapse}
th{font-weight:400;color:var(--soft);white-space:nowrap}
th,td{text-align:left;vertical-align:top;padding:.4rem .75rem .4rem 0;
border-bottom:1px solid var(--line)}
"""

_DIGEST: Final = base64.b64encode(sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
_STATES: Final = {
    State.BUSY: "working",
    State.THROTTLED: "working, with rests",
    State.IDLE: "waiting for work",
    State.DONE: "done",
}


async def status_page(context: AdminContext) -> str:
    """The whole document."""
    facts = context.facts
    tone, sentence, remarks = verdict(context)
    listed = "".join(f"<li>{escape(remark)}</li>" for remark in remarks)
    workers = "".join(_worker_row(status) for status in context.workers.status())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(sentence)} – {escape(facts.hostname)}</title>"
        f"<style>{STYLE}</style></head><body><header><h1>Garage Lite</h1>"
        f'<p class="health {tone}" role="status">{escape(sentence)}</p>'
        f"{f'<ul>{listed}</ul>' if listed else ''}</header><main>"
        f"<h2>Node</h2>{_list(_node_rows(context))}"
        f"<h2>Stored</h2>{_list(await _stored_rows(context))}"
        "<h2>Background work</h2><table><thead><tr><th>Worker</th><th>State</th><th>Errors</th>"
        f"</tr></thead><tbody>{workers}</tbody></table></main></body></html>"
    )


def verdict(context: AdminContext) -> tuple[str, str, Sequence[str]]:
    """How the node is doing: good, warn or bad; one sentence; what needs somebody's eye."""
    metadata = context.metadata.status()
    remarks = []
    if metadata.failed:
        remarks.append(f"The metadata store refuses writes: {metadata.failed}")
    if metadata.disk_full:
        remarks.append("The metadata disk is full: writes are refused, reads and deletes work.")
    remarks += [f"Damaged metadata: {text}" for text in metadata.damage]
    if metadata.trouble:
        remarks.append(f"Compaction has stopped: {metadata.trouble}")
    if context.data_space() is None:
        remarks.append("A data disk does not answer.")
    if context.resync.persistent_errors:
        remarks.append(f"{context.resync.persistent_errors} data blocks can't be restored.")
    if not context.layout.ready:
        return (
            "warn",
            "This node has no role yet, so it stores nothing.",
            [*remarks, "Give it one: garage-lite layout assign, then garage-lite layout apply."],
        )
    status = health(context).status
    if status == "unavailable":
        return "bad", "This node can't serve requests.", remarks
    if status == "degraded":
        return "warn", "This node works, but some storage nodes don't answer.", remarks
    if remarks:
        return "warn", "This node works, but something needs your attention.", remarks
    return "good", "This node is working well.", remarks


def _node_rows(context: AdminContext) -> list[tuple[str, str]]:
    facts = context.facts
    role = context.layout.history.current.roles.get(facts.node)
    rows = [
        ("Name", escape(facts.hostname)),
        ("Node id", f"<code>{facts.node.hex()}</code>"),
        ("Version", escape(facts.version)),
        ("Region", escape(facts.region)),
    ]
    if role is not None:
        capacity = "none: a gateway" if role.capacity is None else format_size(role.capacity)
        rows.append(("Zone", escape(role.zone)))
        rows.append(("Capacity", capacity))
    rows.append(("Layout version", str(context.layout.history.current.number)))
    return rows


async def _stored_rows(context: AdminContext) -> list[tuple[str, str]]:
    rows = [("Buckets", str(len(context.directory.buckets())))]
    totals = await stored_totals(context)
    if totals is not None:
        rows.append(("Objects", f"{totals.objects} ({format_size(totals.total_bytes)})"))
    rows.append(("Data disks", _room(context.data_space())))
    rows.append(("Metadata disk", _room(context.metadata_room())))
    rows.append(("Blocks to look at", str(context.resync.length)))
    return rows


def _room(space: Space | None) -> str:
    if space is None:
        return "does not answer"
    return f"{format_size(space.available)} free of {format_size(space.total)}"


def _list(rows: Sequence[tuple[str, str]]) -> str:
    """A definition list; the values are HTML already."""
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows)
    return f"<dl>{items}</dl>"


def _worker_row(status: WorkerStatus) -> str:
    state = _STATES[status.state]
    if status.progress.progress is not None:
        state += f", {status.progress.progress}"
    if status.progress.freeform:
        state += f" ({'; '.join(status.progress.freeform)})"
    errors = str(status.errors)
    if status.consecutive_errors and status.last_error:
        errors += f": {status.last_error}"
    return (
        f"<tr><td>{escape(status.name)}</td><td>{escape(state)}</td><td>{escape(errors)}</td></tr>"
    )
