"""`layout ...`: who holds what. Stage changes, look at what they mean, apply them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from garage_lite.cli.run import Api, CommandFailed, Context
from garage_lite.cli.tables import Row, capacity, joined, print_table, short
from garage_lite.units import format_size, parse_size

_HINT = (
    "Use `garage layout show` to view staged role changes,\n"
    "and `garage layout apply` to enact staged changes."
)


def tags(role: dict[str, Any]) -> str:
    return f"[{joined(role.get('tags') or [])}]"


async def show(context: Context, api: Api) -> None:
    layout = await api.call("GetClusterLayout")
    print("==== CURRENT CLUSTER LAYOUT ====")
    _print_roles(
        layout,
        "No nodes currently have a role in the cluster.\n"
        "See `garage status` to view available nodes.",
    )
    print(f"\nCurrent cluster layout version: {layout['version']}")
    if not print_staged_changes(layout):
        return
    preview = await api.call("PreviewClusterLayoutChanges")
    if "error" in preview:
        print(
            f"Error while trying to compute the assignment: {preview['error']}\n"
            "This new layout cannot yet be applied.\n"
            "You can also revert all proposed changes with: garage layout revert"
        )
        return
    new = preview["newLayout"]
    print("\n==== NEW CLUSTER LAYOUT AFTER APPLYING CHANGES ====")
    _print_roles(new, "No nodes have a role in the new layout.")
    print()
    for line in preview["message"]:
        print(line)
    print(
        "To enact the staged role changes, type:\n\n"
        f"    garage layout apply --version {new['version']}\n\n"
        "You can also revert all proposed changes with: garage layout revert"
    )


async def assign(context: Context, api: Api) -> None:
    values = context.values
    if values["gateway"] and values["capacity"] is not None:
        raise CommandFailed("Please specify only -c or -g")
    size = _size(values["capacity"])
    layout = await api.call("GetClusterLayout")
    nodes = await _known_nodes(api, layout)
    roles: list[dict[str, Any]] = [
        {"id": _match(nodes, pattern), "remove": True} for pattern in values["replace"]
    ]
    for pattern in values["node"]:
        node = _match(nodes, pattern)
        current = _role_now(layout, node)
        zone = values["zone"] or (current or {}).get("zone")
        if zone is None:
            raise CommandFailed("Please specify a zone with the -z flag")
        if size is None and not values["gateway"] and current is None:
            raise CommandFailed(
                "Please specify a capacity with the -c flag, or set node explicitly as gateway"
                " with -g"
            )
        kept = None if values["gateway"] or current is None else current.get("capacity")
        roles.append(
            {
                "id": node,
                "zone": zone,
                "capacity": kept if size is None else size,
                "tags": values["tag"] or (current or {}).get("tags") or [],
            }
        )
    await api.call("UpdateClusterLayout", {"roles": roles})
    print(f"Role changes are staged but not yet committed.\n{_HINT}")


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        size = parse_size(text)
    except ValueError as error:
        raise CommandFailed(f"-c: {error}") from error
    if size == 0:
        raise CommandFailed("-c: a capacity of 0; use -g for a node that stores nothing")
    return size


async def remove(context: Context, api: Api) -> None:
    layout = await api.call("GetClusterLayout")
    node = _match(await _known_nodes(api, layout), context.values["node"])
    await api.call("UpdateClusterLayout", {"roles": [{"id": node, "remove": True}]})
    print(f"Role removal is staged but not yet committed.\n{_HINT}")


async def configure(context: Context, api: Api) -> None:
    text = context.values["redundancy"]
    if text is None:
        raise CommandFailed("Please specify an action for `garage layout config`")
    if text in ("none", "max", "maximum"):
        redundancy: Any = "maximum"
    elif text.isascii() and text.isdigit():
        redundancy = {"atLeast": int(text)}
    else:
        raise CommandFailed("invalid zone redundancy value: expected a number, none or max")
    parameters = {"zoneRedundancy": redundancy}
    await api.call("UpdateClusterLayout", {"roles": [], "parameters": parameters})
    print(f"The zone redundancy parameter has been set to '{_redundancy(parameters)}'.")


async def apply(context: Context, api: Api) -> None:
    text = context.values["version"]
    if text is None:
        raise CommandFailed(
            "Please pass the new layout version number to ensure that you are writing the"
            " correct version of the cluster layout.\nTo know the correct value of the new"
            " layout version, invoke `garage layout show` and review the proposed changes."
        )
    if not (text.isascii() and text.isdigit()):
        raise CommandFailed(f"--version: expected a number, got {text!r}")
    result = await api.call("ApplyClusterLayout", {"version": int(text)})
    for line in result["message"]:
        print(line)
    print("New cluster layout with updated role assignment has been applied in cluster.")
    print("Data will now be moved around between nodes accordingly.")


async def revert(context: Context, api: Api) -> None:
    if not context.values["yes"]:
        raise CommandFailed("Please add the --yes flag to run the layout revert operation")
    await api.call("RevertClusterLayout")
    print("All proposed role changes in cluster layout have been canceled.")


async def history(context: Context, api: Api) -> None:
    found = await api.call("GetClusterLayoutHistory")
    print("==== LAYOUT HISTORY ====")
    rows: list[Row] = [("Version", "Status", "Storage nodes", "Gateway nodes")]
    for version in found["versions"]:
        counts = str(version["storageNodes"]), str(version["gatewayNodes"])
        rows.append((f"#{version['version']}", version["status"].capitalize(), *counts))
    print_table(rows)
    print()
    if not found.get("updateTrackers"):
        print(
            "Your cluster is currently in a stable state with a single live layout version.\n"
            "No metadata migration is in progress. Note that the migration of data blocks is not"
            " tracked,\nso you might want to keep old nodes online until their data directories"
            " become empty."
        )
        print_drained(await api.call("GetClusterStatus"))
        return
    status = await api.call("GetClusterStatus")
    _print_trackers(found, {node["id"] for node in status["nodes"] if node["isUp"]})


def _print_trackers(found: dict[str, Any], up: set[str]) -> None:
    print("==== UPDATE TRACKERS ====")
    print(
        "Several layout versions are currently live in the cluster, and data is being migrated.\n"
        "This is the internal data that Garage stores to know which nodes have what data.\n"
    )
    rows: list[Row] = [("Node", "Ack", "Sync", "Sync_ack")]
    for node, t in sorted(found["updateTrackers"].items()):
        rows.append((short(node), f"#{t['ack']}", f"#{t['sync']}", f"#{t['syncAck']}"))
    print_table(rows)
    print(f"\n{_waiting(found, up)}")
    forced = f"garage layout skip-dead-nodes --version {found['currentVersion']}"
    if found["minAck"] >= found["currentVersion"]:
        forced += " --allow-missing-data`."
    else:
        forced += "`"
    print(
        "\nIf some nodes are not catching up to the latest layout version in the update trackers,\n"
        "it might be because they are offline or unable to complete a sync successfully.\n"
        f"You may force progress using `{forced}"
    )


def _waiting(found: dict[str, Any], up: set[str]) -> str:
    """Which step the cluster is at, and the nodes that it waits for."""
    newest = found["currentVersion"]
    for name, step in (
        ("ack", "to acknowledge"),
        ("sync", "to sync their data to"),
        ("syncAck", "to read from"),
    ):
        behind = sorted(n for n, t in found["updateTrackers"].items() if t[name] < newest)
        if behind:
            named = (short(node) + ("" if node in up else " (not connected)") for node in behind)
            return f"Waiting for these nodes {step} version #{newest}: {', '.join(named)}"
    return f"All nodes are done with version #{newest}."


def print_drained(status: dict[str, Any]) -> None:
    """Of nodes that the layout has let go: which may be turned off, which not yet."""
    for drained, said in (
        (False, "These nodes have no role any more and still hold blocks that others should have"),
        (True, "These nodes have given everything away and can be turned off"),
    ):
        named = [short(node["id"]) for node in status["nodes"] if node.get("drained") is drained]
        if named:
            print(f"\n{said}: {', '.join(named)}")


async def skip_dead_nodes(context: Context, api: Api) -> None:
    text, allow = context.values["version"], context.values["allow_missing_data"]
    if not (text.isascii() and text.isdigit()):
        raise CommandFailed(f"--version: expected a number, got {text!r}")
    body = {"version": int(text), "allowMissingData": allow}
    updated = await api.call("ClusterLayoutSkipDeadNodes", body)
    for node in updated["ackUpdated"]:
        print(f"Increased the ACK tracker for node {short(node)}")
    for node in updated["syncUpdated"]:
        print(f"Increased the SYNC tracker for node {short(node)}")
    if updated["ackUpdated"] or updated["syncUpdated"]:
        return
    if not allow:
        raise CommandFailed(
            "Nothing was done, try passing the `--allow-missing-data` flag to force progress even"
            " when not enough nodes can complete a metadata sync."
        )
    raise CommandFailed(
        "Sorry, there is nothing I can do for you. Please wait patiently. If you ask for help,"
        " please send the output of the `garage layout history` command."
    )


def print_staged_changes(layout: dict[str, Any]) -> bool:
    """What is staged, if anything; whether anything is."""
    changes, parameters = layout["stagedRoleChanges"], layout.get("stagedParameters")
    if not changes and not parameters:
        return False
    print("\n==== STAGED ROLE CHANGES ====")
    if changes:
        rows: list[Row] = [("ID", "Tags", "Zone", "Capacity")]
        for change in changes:
            if change.get("remove"):
                rows.append((short(change["id"]), "REMOVED"))
            else:
                size = capacity(change.get("capacity"))
                rows.append((short(change["id"]), tags(change), change["zone"], size))
        print_table(rows)
        print()
    if parameters:
        print(f"Zone redundancy: {_redundancy(parameters)}")
    return True


def _print_roles(layout: dict[str, Any], empty: str) -> None:
    rows: list[Row] = [("ID", "Tags", "Zone", "Capacity", "Usable capacity")]
    for role in layout["roles"]:
        row: Row = (short(role["id"]), tags(role), role["zone"], capacity(role.get("capacity")))
        usable = role.get("usableCapacity")
        if role.get("capacity") and usable is not None:
            percent = 100 * usable / role["capacity"]
            row = (*row, f"{format_size(usable, binary=True)} ({percent:.1f}%)")
        rows.append(row)
    if len(rows) == 1:
        print(empty)
        return
    print_table(rows)
    print(f"\nZone redundancy: {_redundancy(layout['parameters'])}")
    data_copies = layout["parameters"].get("dataReplicationFactor")
    if data_copies is not None:
        print(f"Data replication factor: {data_copies}")


def _redundancy(parameters: dict[str, Any]) -> str:
    redundancy = parameters["zoneRedundancy"]
    return str(redundancy["atLeast"]) if isinstance(redundancy, dict) else str(redundancy)


async def _known_nodes(api: Api, layout: dict[str, Any]) -> list[str]:
    status = await api.call("GetClusterStatus")
    return [node["id"] for node in (*status["nodes"], *layout["roles"])]


def _match(nodes: Iterable[str], pattern: str) -> str:
    """The one node whose id starts like this."""
    found = {node for node in nodes if node.startswith(pattern.lower())}
    if len(found) != 1:
        raise CommandFailed(f"{len(found)} nodes match '{pattern}'")
    return found.pop()


def _role_now(layout: dict[str, Any], node: str) -> dict[str, Any] | None:
    """The role a node has or is about to have."""
    change: dict[str, Any]
    for change in layout["stagedRoleChanges"]:
        if change["id"] == node:
            return None if change.get("remove") else change
    return next((role for role in layout["roles"] if role["id"] == node), None)
