"""Operations on the nodes around this one: connect, invite, let in, shut out.

ConnectClusterNodes is Garage's; the others are ours.
"""

from __future__ import annotations

from typing import Any, Final

from garage_lite.core.cluster.mesh import Mesh
from garage_lite.core.errors import GarageLiteError
from garage_lite.core.ids import NODE_ID_BYTES, NodeId
from garage_lite.core.wire.address import parse_peer
from garage_lite.core.wire.join_string import encode
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.errors import AdminError, bad_request
from garage_lite.web.admin.fields import Fields

PEERS_MAX: Final = 64
"""Connected by one request."""
INVITATION_SECONDS: Final = 24 * 3600


async def connect_nodes(context: AdminContext, fields: Fields) -> Any:
    """Each of `<id>@<address>` in turn, with its success or what went wrong."""
    texts = fields.texts("nodes")
    fields.end()
    if len(texts) > PEERS_MAX:
        raise bad_request(f"at most {PEERS_MAX} nodes can be connected at once")
    mesh = _mesh(context)
    return [await _connect(mesh, text) for text in texts]


async def _connect(mesh: Mesh, text: str) -> dict[str, Any]:
    try:
        await mesh.connect_to(parse_peer(text))
    except ValueError as error:
        return {"success": False, "error": str(error)}
    except GarageLiteError as error:
        return {"success": False, "error": error.message}
    return {"success": True, "error": None}


async def invite_node(context: AdminContext, fields: Fields) -> Any:
    """A join string for one new node."""
    seconds = fields.optional_number("expiresInSecs")
    fields.end()
    invitation = await _mesh(context).invite(INVITATION_SECONDS if seconds is None else seconds)
    return {
        "joinString": encode(invitation),
        "addresses": [str(address) for address in invitation.addresses],
        "expiration": invitation.expires_s,
    }


async def admit_node(context: AdminContext, fields: Fields) -> Any:
    """Admit a key by name; also one that was removed."""
    node = _node(fields.text("id"))
    fields.end()
    await _mesh(context).admission.admit(node)


async def remove_node(context: AdminContext, fields: Fields) -> Any:
    """Shut a key out of the cluster, until it is admitted again."""
    node = _node(fields.text("id"))
    fields.end()
    await _mesh(context).admission.remove(node)


def _node(text: str) -> NodeId:
    """A whole id: a beginning could be anybody's."""
    try:
        node = bytes.fromhex(text)
    except ValueError:
        node = b""
    if len(node) != NODE_ID_BYTES:
        raise bad_request("a node's id is 64 hexadecimal digits")
    return NodeId(node)


def _mesh(context: AdminContext) -> Mesh:
    if context.mesh is None:
        raise AdminError("NotImplemented", "This node has no door to others.")
    return context.mesh
