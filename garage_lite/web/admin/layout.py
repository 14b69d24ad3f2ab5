"""Operations on the cluster's layout."""

from __future__ import annotations

from typing import Any

from garage_lite.core.cluster.cluster_layout import ZoneRedundancy
from garage_lite.core.errors import NotAllowedHere
from garage_lite.core.ids import NODE_ID_BYTES, NodeId
from garage_lite.core.layout.history import LayoutHistory
from garage_lite.core.layout.roles import Parameters, Role
from garage_lite.core.layout.statistics import Statistics
from garage_lite.core.layout.trackers import Tracker
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.errors import bad_request
from garage_lite.web.admin.fields import Fields
from garage_lite.web.admin.layout_text import message_lines


async def get_layout(context: AdminContext, fields: Fields) -> Any:
    fields.end()
    return layout_json(context.layout.history)


async def get_layout_history(context: AdminContext, fields: Fields) -> Any:
    fields.end()
    history = context.layout.history
    versions = []
    for version in (*reversed(history.active), *reversed(history.retired)):
        status = "Draining" if version.number >= history.floor else "Historical"
        versions.append(
            {
                "version": version.number,
                "status": "Current" if version is history.current else status,
                "storageNodes": len(version.storage_nodes),
                "gatewayNodes": len(version.gateway_nodes),
            }
        )
    trackers = None
    if len(history.active) > 1:
        trackers = {
            node.hex(): {
                name: history.trackers.get(tracker, node, history.floor)
                for name, tracker in (
                    ("ack", Tracker.ACK),
                    ("sync", Tracker.SYNC),
                    ("syncAck", Tracker.SYNC_ACK),
                )
            }
            for node in history.nodes()
        }
    return {
        "currentVersion": history.current.number,
        "minAck": history.ack_floor(),
        "versions": versions,
        "updateTrackers": trackers,
    }


async def update_layout(context: AdminContext, fields: Fields) -> Any:
    changes = dict(_role_change(change) for change in fields.optional_list("roles") or [])
    redundancy = fields.inner("parameters", _zone_redundancy)
    fields.end()
    await context.layout.stage(changes, redundancy)
    return layout_json(context.layout.history)


async def preview_layout(context: AdminContext, fields: Fields) -> Any:
    fields.end()
    try:
        history, found = await context.layout.preview()
    except NotAllowedHere as error:
        return {"error": error.message}
    return {
        "message": message_lines(found, history.current.copies),
        "statistics": statistics_json(found),
        "newLayout": layout_json(history),
    }


async def apply_layout(context: AdminContext, fields: Fields) -> Any:
    version = fields.number("version")
    fields.end()
    found = await context.layout.apply(version)
    return {
        "message": message_lines(found, context.layout.history.current.copies),
        "statistics": statistics_json(found),
        "layout": layout_json(context.layout.history),
    }


async def skip_dead_nodes(context: AdminContext, fields: Fields) -> Any:
    version, allow = fields.number("version"), fields.flag("allowMissingData")
    fields.end()
    skipped = await context.layout.skip_dead(version, context.up, allow_missing_data=allow)
    return {
        "ackUpdated": [node.hex() for node in skipped.ack],
        "syncUpdated": [node.hex() for node in skipped.sync],
    }


async def revert_layout(context: AdminContext, fields: Fields) -> Any:
    fields.end()
    await context.layout.revert()
    return layout_json(context.layout.history)


def layout_json(history: LayoutHistory) -> dict[str, Any]:
    """The current layout and what is staged."""
    current = history.current
    size = current.data.partition_size if current.data else 0
    roles = []
    for node in (*current.storage_nodes, *current.gateway_nodes):
        role = current.roles[node]
        stored = current.partitions_on(node)
        roles.append(
            {
                "id": node.hex(),
                **role_json(role),
                "storedPartitions": stored,
                "usableCapacity": stored * size,
            }
        )
    staged = history.staging.staged_parameters
    unchanged = staged.zone_redundancy == current.parameters.zone_redundancy
    return {
        "version": current.number,
        "roles": sorted(roles, key=lambda entry: str(entry["id"])),
        "parameters": _parameters_json(current.parameters),
        "partitionSize": size,
        "stagedRoleChanges": [
            {"id": node.hex(), **(role_json(role) if role else {"remove": True})}
            for node, role in history.staged_roles().items()
        ],
        "stagedParameters": None if unchanged else _parameters_json(staged),
    }


def role_json(role: Role) -> dict[str, Any]:
    return {"zone": role.zone, "tags": list(role.tags), "capacity": role.capacity}


def statistics_json(found: Statistics) -> dict[str, Any]:
    return {
        "replicationFactor": found.replication_factor,
        "effectiveZoneRedundancy": found.effective_zone_redundancy,
        "partitionSize": found.partition_size,
        "previousPartitionSize": found.previous_partition_size,
        "lowPartitionSize": found.low_partition_size,
        "usableCapacity": found.usable_capacity,
        "totalCapacity": found.total_capacity,
        "effectiveCapacity": found.effective_capacity,
        "lowUsableCapacity": found.low_usable_capacity,
        "totalMovedPartitions": found.total_moved_partitions,
        "zones": [
            {
                "name": zone.name,
                "nodes": [
                    {
                        "id": node.id.hex(),
                        "tags": list(node.tags),
                        "storedPartitions": node.stored_partitions,
                        "newPartitions": node.new_partitions,
                        "totalCapacity": node.total_capacity,
                        "usableCapacity": node.usable_capacity,
                    }
                    for node in zone.nodes
                ],
                "totalReplicatedPartitions": zone.total_replicated_partitions,
                "uniquePartitions": zone.unique_partitions,
                "totalCapacity": zone.total_capacity,
                "usableCapacity": zone.usable_capacity,
            }
            for zone in found.zones
        ],
    }


def _parameters_json(parameters: Parameters) -> dict[str, Any]:
    """Garage's, and where blocks have a replication factor of their own, that."""
    at_least = parameters.zone_redundancy
    shown: dict[str, Any] = {
        "zoneRedundancy": "maximum" if at_least is None else {"atLeast": at_least}
    }
    if parameters.data_replication_factor is not None:
        shown["dataReplicationFactor"] = parameters.data_replication_factor
    return shown


def _zone_redundancy(fields: Fields) -> ZoneRedundancy:
    value = fields.raw("zoneRedundancy")
    if value == "maximum":
        return ZoneRedundancy(None)
    if isinstance(value, dict):
        inner = Fields(value, "zoneRedundancy")
        at_least = inner.number("atLeast")
        inner.end()
        return ZoneRedundancy(at_least)
    raise bad_request('zoneRedundancy must be "maximum" or {"atLeast": a number}')


def _role_change(change: Any) -> tuple[NodeId, Role | None]:
    fields = Fields(change, "a role change")
    node = node_id(fields.text("id"))
    if fields.has("remove"):
        remove = fields.flag("remove")
        fields.end()
        if not remove:
            raise bad_request("Invalid layout change")
        return node, None
    zone = fields.text("zone")
    capacity = fields.optional_number("capacity")
    tags = tuple(fields.texts("tags"))
    fields.end()
    return node, Role(zone, capacity, tags)


def node_id(text: str) -> NodeId:
    """A node id in full. Raises AdminError."""
    try:
        node = bytes.fromhex(text)
    except ValueError:
        node = b""
    if len(node) != NODE_ID_BYTES:
        raise bad_request("Invalid node identifier")
    return NodeId(node)
