"""`status`, `health`, `stats`: how the cluster is."""

from __future__ import annotations

from typing import Any

from garage_lite.cli.layout import print_drained, print_staged_changes, tags
from garage_lite.cli.run import Api, Context
from garage_lite.cli.tables import Row, age, capacity, print_table, short
from garage_lite.units import format_size

_COLUMNS: Row = (
    "ID",
    "Hostname",
    "Address",
    "Tags",
    "Zone",
    "Capacity",
    "DataAvail",
    "ResyncQueue",
    "Version",
)


_SKEW_MSEC = 10_000


async def status(context: Context, api: Api) -> None:
    cluster = await api.call("GetClusterStatus")
    layout = await api.call("GetClusterLayout")
    staged = {c["id"] for c in layout["stagedRoleChanges"] if not c.get("remove")}
    up = [node for node in cluster["nodes"] if node["isUp"]]
    down = [node for node in cluster["nodes"] if not node["isUp"]]

    print("==== HEALTHY NODES ====")
    print_table([_COLUMNS, *(_healthy(node, staged) for node in up)])
    if down:
        print("\n==== FAILED NODES ====")
        head: Row = ("ID", "Hostname", "Tags", "Zone", "Capacity", "Last seen")
        print_table([head, *(_failed(node, staged) for node in down)])
        if any(node.get("draining") and not node.get("role") for node in down):
            print(
                "\nYour cluster is expecting to drain data from nodes that are currently"
                " unavailable.\nIf these nodes are definitely dead, please review the layout"
                " history with\n`garage layout history` and use `garage layout skip-dead-nodes`"
                " to force progress."
            )
    for line in _warnings(cluster["nodes"]):
        print(f"\nWARNING: {line}")
    print_drained(cluster)
    if print_staged_changes(layout):
        print("\nPlease use `garage layout show` to check the proposed new layout and apply it.\n")


def _warnings(nodes: list[dict[str, Any]]) -> list[str]:
    """What somebody should look at: alarms of the node talked to, clocks that differ from its."""
    lines = [alarm for node in nodes for alarm in node.get("alarms", ())]
    for node in nodes:
        skew = node.get("clockSkewMsec") or 0
        if abs(skew) > _SKEW_MSEC:
            where = "ahead of" if skew > 0 else "behind"
            lines.append(
                f"The clock of node {short(node['id'])} is {abs(skew) / 1000:.0f} seconds {where}"
                " this node's."
            )
    return lines


def _healthy(node: dict[str, Any], staged: set[str]) -> Row:
    queue = node.get("resyncQueueLen")
    last = ("N/A" if queue is None else str(queue), node.get("garageVersion") or "?")
    address = node.get("addr") or "N/A"
    if node.get("relayed"):
        address += " (relayed)"
    start = (short(node["id"]), node.get("hostname") or "?", address)
    role = node.get("role")
    if role is None:
        return (*start, "", "", _without_role(node, staged), "", *last)
    return (
        *start,
        tags(role),
        role["zone"],
        capacity(role.get("capacity")),
        _available(node, role),
        *last,
    )


def _failed(node: dict[str, Any], staged: set[str]) -> Row:
    seen = node.get("lastSeenSecsAgo")
    last_seen = "never seen" if seen is None else age(seen)
    start = (short(node["id"]), node.get("hostname") or "?")
    role = node.get("role")
    if role is None:
        return (*start, "", "", _without_role(node, staged), last_seen)
    return (*start, tags(role), role["zone"], capacity(role.get("capacity")), last_seen)


def _without_role(node: dict[str, Any], staged: set[str]) -> str:
    if node["id"] in staged:
        return "pending..."
    if node.get("drained") is False:
        return "draining blocks.."
    return "draining metadata.." if node.get("draining") else "NO ROLE ASSIGNED"


def _available(node: dict[str, Any], role: dict[str, Any]) -> str:
    space = node.get("dataPartition")
    if role.get("capacity") is None:
        return "N/A"
    if not space or not space["total"]:
        return "?"
    percent = 100 * space["available"] / space["total"]
    return f"{format_size(space['available'], binary=True)} ({percent:.1f}%)"


async def health(context: Context, api: Api) -> int:
    """Exit code 1 when the cluster is unavailable."""
    found = await api.call("GetClusterHealth")
    if not context.values["quiet"]:
        print_table(
            [
                ("Cluster health:", found["status"].upper()),
                ("Known nodes:", str(found["knownNodes"])),
                ("Connected nodes:", str(found["connectedNodes"])),
                ("Storage nodes:", str(found["storageNodes"])),
                ("Storage nodes up:", str(found["storageNodesUp"])),
                ("Partitions:", str(found["partitions"])),
                ("Partitions with quorum:", str(found["partitionsQuorum"])),
                ("Fully healthy partitions:", str(found["partitionsAllOk"])),
            ]
        )
    return 1 if found["status"] == "unavailable" else 0


async def stats(context: Context, api: Api) -> None:
    values = context.values
    nodes = await api.on_nodes("GetNodeStatistics", values["all_nodes"], node=values["node"])
    for node, found in nodes["success"].items():
        print(f"==== NODE [{short(node)}] ====\n{found['freeform'].rstrip()}\n")
    for node, message in nodes["error"].items():
        print(f"==== NODE [{short(node)}] ====\nError: {message}\n")
    cluster = await api.call("GetClusterStatistics")
    print(f"==== CLUSTER STATISTICS ====\n{cluster['freeform'].rstrip()}\n")
