"""The operations on nodes, on a lone node with a real mesh around it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from garage_lite.core.cluster.peers import Cluster, Endpoints
from garage_lite.core.wire.join_string import decode
from garage_lite.web.admin.cluster import FACT, peer_json, told_to_peers
from garage_lite.web.admin.context import AdminContext
from garage_lite.web.admin.errors import AdminError
from garage_lite.web.admin.operations import call
from tests.core.cluster.mesh_world import MeshNode, full_mesh, nodes

from .conftest import Lone


def beside(lone: Lone, node: MeshNode) -> AdminContext:
    """The context of the lone node, were it that node of the mesh."""
    facts = replace(lone.context.facts, node=node.id)
    cluster = Cluster(node.id, Endpoints(), node.running)
    return replace(lone.context, mesh=node.running, facts=facts, cluster=cluster)


async def test_connect_and_status(lone: Lone) -> None:
    async with nodes(2) as (a, b):
        context = beside(lone, a)
        b.running.tell(FACT, lambda: told_to_peers(context))
        results = await call(
            context, "ConnectClusterNodes", [str(b.peer), "what", f"{'00' * 32}@127.0.0.1:1"]
        )
        assert results[0] == {"success": True, "error": None}
        assert [result["success"] for result in results[1:]] == [False, False]
        assert "can't reach" in results[2]["error"]
        status = await call(context, "GetClusterStatus", None)
        shown = next(node for node in status["nodes"] if node["id"] == b.id.hex())
        assert shown["isUp"]
        assert shown["addr"] == str(b.peer.address)
        assert shown["hostname"] == "attic"
        assert shown["garageVersion"] == "v0.1.0"
        assert shown["resyncQueueLen"] == 0
        assert shown["metadataPartition"]["total"] > 0
        health = await call(context, "GetClusterHealth", None)
        assert (health["knownNodes"], health["connectedNodes"]) == (2, 2)
        await b.stop()
        await full_mesh([a])
        status = await call(context, "GetClusterStatus", None)
        shown = next(node for node in status["nodes"] if node["id"] == b.id.hex())
        assert not shown["isUp"]
        assert shown["hostname"] == "attic"
        assert shown["lastSeenSecsAgo"] == 0
        assert "metadataPartition" not in shown


async def test_another_node_does_what_it_is_asked(lone: Lone) -> None:
    async with nodes(2) as (a, b):
        await a.running.connect_to(b.peer)

        async def answer(payload: Any) -> Any:
            name, parameters = payload
            assert (name, parameters["node"]) == ("GetNodeInfo", "self")
            return {"success": {b.id.hex(): {"hostname": "cellar"}}, "error": {}}

        async def echo(request: Any) -> Any:
            return await answer(request.payload)

        b.running._endpoints.handlers["json-api"] = echo
        found = await call(beside(lone, a), "GetNodeInfo", {"node": "*"})
        assert found["success"][b.id.hex()] == {"hostname": "cellar"}
        assert found["success"][a.id.hex()]["hostname"] == "attic"


async def test_invite_admit_and_remove(lone: Lone) -> None:
    async with nodes(2) as (a, b):
        context = beside(lone, a)
        answer = await call(context, "InviteClusterNode", {"expiresInSecs": 60})
        invitation = decode(answer["joinString"])
        assert invitation.inviter == a.id
        assert answer["addresses"] == [str(a.peer.address)]
        assert answer["expiration"] == invitation.expires_s
        await call(context, "RemoveClusterNode", {"id": b.id.hex()})
        assert not a.running.admission.admits(b.id)
        await call(context, "AdmitClusterNode", {"id": b.id.hex()})
        assert a.running.admission.admits(b.id)
        for wrong in (
            {"id": b.id.hex()[:20]},
            {"id": "x" * 64},
            {"id": a.id.hex()},
            {},
        ):
            with pytest.raises(AdminError):
                await call(context, "RemoveClusterNode", wrong)
        with pytest.raises(AdminError):
            await call(context, "InviteClusterNode", {"expiresInSecs": 10**9})
        with pytest.raises(AdminError):
            await call(context, "ConnectClusterNodes", {"not": "a list"})


async def test_a_node_without_a_door_says_so(lone: Lone) -> None:
    for name in ("InviteClusterNode", "ConnectClusterNodes"):
        assert (await lone.refused(name, [] if name.startswith("C") else {})).code == (
            "NotImplemented"
        )


@pytest.mark.parametrize("told", [None, 7, {"hostname": 7}, {"hostname": "x"}])
async def test_what_a_peer_tells_is_shown_only_in_its_form(lone: Lone, told: Any) -> None:
    async with nodes(2) as (a, b):
        b.running.tell(FACT, lambda: told)
        await a.running.connect_to(b.peer)
        (peer,) = a.running.peers()
        assert "hostname" not in peer_json(peer)
