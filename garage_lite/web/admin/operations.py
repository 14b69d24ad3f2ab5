"""The operations of the Admin API v2: one table, called over HTTP and by the command line.

An operation takes the members of one JSON object and gives JSON. Those `per_node` take the
target in `node` (an id's beginning, "*" or "self") and their own members in `body`, and answer
`{"success": {id: answer}, "error": {id: message}}`. Names and shapes are Garage 2.5's. This
module must not know how a request came in.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Final

from garage_lite.core.errors import GarageLiteError, Unavailable
from garage_lite.web.admin import (
    access_keys,
    blocks,
    buckets,
    cluster,
    layout,
    node,
    objects,
    peers,
    statistics,
    workers,
)
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.errors import AdminError, as_admin_error
from garage_lite.web.admin.fan_out import matching_nodes, on_nodes
from garage_lite.web.admin.fields import Fields

log = logging.getLogger(__name__)

Run = Callable[[AdminContext, Fields], Awaitable[Any]]


PEER_SECONDS: Final = 20.0
"""Less than who asked waits (cli/run.py), so that a silent node is named."""
SNAPSHOT_SECONDS: Final = 1800.0
"""A whole copy, where snapshots go to another disk."""


class BodyForm(Enum):
    """Where the body of an HTTP request goes among the members."""

    NONE = "none"
    WHOLE = "whole"
    """Its members are the operation's."""
    MEMBER = "member"
    """It is the member `body`."""
    LIST = "list"
    """It is a list of nodes: the member `nodes`."""


@dataclass(frozen=True, slots=True)
class Operation:
    run: Run
    method: str = "GET"
    query: tuple[str, ...] = ()
    """Members that an HTTP request has in its URL."""
    body: BodyForm = BodyForm.NONE
    per_node: bool = False
    peer_seconds: float = PEER_SECONDS
    """Per node: for another node's answer."""
    list_member: str | None = None
    """Per node: the body is a list, which the operation takes as this member."""


def _post(run: Run, query: tuple[str, ...] = (), body: BodyForm = BodyForm.WHOLE) -> Operation:
    return Operation(run, "POST", query, body)


def _on_node(
    run: Run,
    method: str = "POST",
    body: BodyForm = BodyForm.MEMBER,
    seconds: float = PEER_SECONDS,
    list_member: str | None = None,
) -> Operation:
    return Operation(run, method, ("node",), body, True, seconds, list_member)


_PAGE: Final = ("offset", "limit")

OPERATIONS: Final[dict[str, Operation]] = {
    "GetClusterStatus": Operation(cluster.get_status),
    "GetClusterHealth": Operation(cluster.get_health),
    "GetClusterStatistics": Operation(statistics.get_statistics),
    "ConnectClusterNodes": _post(peers.connect_nodes, body=BodyForm.LIST),
    "InviteClusterNode": _post(peers.invite_node),
    "AdmitClusterNode": _post(peers.admit_node),
    "RemoveClusterNode": _post(peers.remove_node),
    "GetClusterLayout": Operation(layout.get_layout),
    "GetClusterLayoutHistory": Operation(layout.get_layout_history),
    "UpdateClusterLayout": _post(layout.update_layout),
    "PreviewClusterLayoutChanges": _post(layout.preview_layout, body=BodyForm.NONE),
    "ApplyClusterLayout": _post(layout.apply_layout),
    "RevertClusterLayout": _post(layout.revert_layout, body=BodyForm.NONE),
    "ClusterLayoutSkipDeadNodes": _post(layout.skip_dead_nodes),
    "ListKeys": Operation(access_keys.list_keys, query=_PAGE),
    "ListKeysInfo": Operation(access_keys.list_keys_info, query=_PAGE),
    "GetKeyInfo": Operation(access_keys.get_key, query=("id", "search", "showSecretKey")),
    "CreateKey": _post(access_keys.create_key),
    "ImportKey": _post(access_keys.import_key),
    "UpdateKey": _post(access_keys.update_key, ("id",), BodyForm.MEMBER),
    "DeleteKey": _post(access_keys.delete_key, ("id",), BodyForm.NONE),
    "ListBuckets": Operation(buckets.list_buckets, query=_PAGE),
    "ListBucketsInfo": Operation(buckets.list_buckets_info, query=_PAGE),
    "GetBucketInfo": Operation(buckets.get_bucket, query=("id", "globalAlias", "search")),
    "CreateBucket": _post(buckets.create_bucket),
    "UpdateBucket": _post(buckets.update_bucket, ("id",), BodyForm.MEMBER),
    "DeleteBucket": _post(buckets.delete_bucket, ("id",), BodyForm.NONE),
    "CleanupIncompleteUploads": _post(buckets.cleanup_incomplete_uploads),
    "InspectObject": Operation(objects.inspect_object, query=("bucketId", "key")),
    "AllowBucketKey": _post(buckets.allow_key),
    "DenyBucketKey": _post(buckets.deny_key),
    "AddBucketAlias": _post(buckets.add_alias),
    "RemoveBucketAlias": _post(buckets.remove_alias),
    "GetNodeInfo": _on_node(node.get_node_info, "GET", BodyForm.NONE),
    "GetNodeStatistics": _on_node(node.get_node_statistics, "GET", BodyForm.NONE),
    "CreateMetadataSnapshot": _on_node(
        node.create_metadata_snapshot, body=BodyForm.NONE, seconds=SNAPSHOT_SECONDS
    ),
    "LaunchRepairOperation": _on_node(node.launch_repair),
    "ListWorkers": _on_node(workers.list_workers),
    "GetWorkerInfo": _on_node(workers.get_worker),
    "GetWorkerVariable": _on_node(workers.get_variable),
    "SetWorkerVariable": _on_node(workers.set_variable),
    "ListBlockErrors": _on_node(blocks.list_block_errors, "GET", BodyForm.NONE),
    "GetBlockInfo": _on_node(blocks.get_block_info),
    "RetryBlockResync": _on_node(blocks.retry_block_resync),
    "PurgeBlocks": _on_node(blocks.purge_blocks, list_member="blockHashes"),
}

_OF_SETTINGS: Final = frozenset(
    name
    for name, one in OPERATIONS.items()
    if one.run.__module__ in {access_keys.__name__, buckets.__name__, objects.__name__}
)
"""Those that speak of buckets and access keys, which may have been made at another node."""

NOT_YET: Final = frozenset(
    (
        "ListAdminTokens",
        "GetAdminTokenInfo",
        "GetCurrentAdminTokenInfo",
        "CreateAdminToken",
        "UpdateAdminToken",
        "DeleteAdminToken",
    )
)
"""Operations of Garage that come later: known, and refused in plain words."""


def operation(name: str) -> Operation:
    """Raises AdminError: NotImplemented for what comes later, else NoSuchEndpoint."""
    found = OPERATIONS.get(name)
    if found is not None:
        return found
    if name in NOT_YET:
        raise AdminError("NotImplemented", f"{name} is not there yet in this version.")
    raise AdminError("NoSuchEndpoint", f"There is no operation {name[:100]!r}.")


def bound_operations(context: AdminContext) -> dict[str, Callable[[Any], Awaitable[Any]]]:
    """Each operation by name, as a function of its parameters: what the RPC port serves."""
    return {name: partial(call, context, name) for name in (*OPERATIONS, *sorted(NOT_YET))}


async def call(context: AdminContext, name: str, parameters: Any) -> Any:
    """Do one operation; `parameters` and the answer are JSON values (null means no members).

    Raises AdminError, and nothing else but what is a bug of ours.
    """
    wanted = operation(name)
    if wanted.body is BodyForm.LIST:
        parameters = {"nodes": parameters}
    fields = Fields(parameters)
    try:
        if wanted.per_node:
            return await _on_nodes(context, name, wanted, fields)
        if name in _OF_SETTINGS:
            # What this node knows may be looked at also without the others; changes need them.
            with contextlib.suppress(Unavailable):
                await context.directory.look()
        return await wanted.run(context, fields)
    except GarageLiteError as error:
        raise _told(name, error) from error


def _told(name: str, error: GarageLiteError | AdminError) -> AdminError:
    told = as_admin_error(error)
    if told.status >= 500:
        log.error("%s failed: %s", name, told.message)
    return told


async def _on_nodes(
    context: AdminContext, name: str, wanted: Operation, fields: Fields
) -> dict[str, Any]:
    targets = matching_nodes(context, fields.text("node"))
    body = fields.raw("body")
    fields.end()

    async def here() -> Any:
        try:
            members = {wanted.list_member: body} if wanted.list_member else body
            return await wanted.run(context, Fields(members, "body"))
        except GarageLiteError as error:
            raise _told(name, error) from error

    return await on_nodes(context, name, targets, here, body, wanted.peer_seconds)
