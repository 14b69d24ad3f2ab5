"""One operation on several nodes: who is meant, all asked at once, what each of them said.

The answer is Garage's MultiResponse, `{"success": {id: answer}, "error": {id: message}}`: a node
that is dead, slow or unwilling is named with its reason and spoils no other's answer. Nodes ask
each other by the same JSON operations that the command line calls; who may ask is decided at the
door (core/cluster/door.py): a peer once it has been greeted, a stranger that holds the secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from garage_lite.core.cluster.rpc import JSON_API
from garage_lite.core.errors import GarageLiteError
from garage_lite.core.ids import NodeId
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.errors import AdminError, as_admin_error, bad_request

MESSAGE_CHARS_MAX: Final = 1000
"""Of what another node says is wrong."""


def matching_nodes(context: AdminContext, text: str) -> list[NodeId]:
    """The nodes that are meant by "self", "*" or the beginning of an id. Raises AdminError."""
    if text == "self":
        return [context.facts.node]
    known = context.known
    if text == "*":
        return known
    found = [target for target in known if text and target.hex().startswith(text)]
    if not found:
        raise bad_request(f"No nodes matching {text[:100]}")
    if len(found) > 1:
        raise bad_request(f"Multiple nodes matching {text[:100]}")
    return found


async def on_nodes(
    context: AdminContext,
    name: str,
    targets: Sequence[NodeId],
    here: Callable[[], Awaitable[Any]],
    body: Any,
    seconds: float,
) -> dict[str, Any]:
    """Operation `name` on each of `targets`: this node by `here`, others by a call that may take
    `seconds`. What `here` raises besides errors for the caller is raised."""

    async def one(target: NodeId) -> tuple[bool, Any]:
        try:
            if target == context.facts.node:
                return True, await here()
            return await _elsewhere(context, target, name, body, seconds)
        except (GarageLiteError, AdminError) as failure:
            return False, as_admin_error(failure).line

    answers = await asyncio.gather(*(one(target) for target in targets))
    told = [(target.hex(), *answer) for target, answer in zip(targets, answers, strict=True)]
    return {
        "success": {node: said for node, good, said in told if good},
        "error": {node: said for node, good, said in told if not good},
    }


async def _elsewhere(
    context: AdminContext, target: NodeId, name: str, body: Any, seconds: float
) -> tuple[bool, Any]:
    """Whether another node did it, and what it said. Raises NodeError."""
    if target not in context.up:
        return False, "The node is not connected."
    parameters = {"node": "self", "body": body}
    reply = await context.cluster.call(target, JSON_API, [name, parameters], timeout=seconds)
    match reply.payload:
        case {"success": {**success}} if target.hex() in success:
            return True, success[target.hex()]
        case {"error": {**error}} if target.hex() in error:
            return False, str(error[target.hex()])[:MESSAGE_CHARS_MAX]
    return False, "The node's answer can't be read."
