"""Operations on several nodes: each answer by its node, whatever becomes of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from garage_lite.cli import maintenance, run
from garage_lite.core.cluster.peers import Cluster, Endpoints
from garage_lite.core.cluster.rpc import JSON_API, Request, operations_handler
from garage_lite.core.errors import AccessDenied
from garage_lite.web.admin import operations
from garage_lite.web.admin.operations import bound_operations, call
from tests.core.cluster.direct_peers import Neighbourhood
from tests.core.layout.build import GB, node
from tests.web.admin.conftest import HERE, Lone

PEER, DEAD = node(2), node(3)
ROLE = {"zone": "a", "capacity": GB, "tags": []}


class Street:
    """This node, a peer that answers with what `said` makes of a call, and a dead one."""

    def __init__(self, lone: Lone) -> None:
        self.hood = Neighbourhood()
        here, there = Endpoints(), Endpoints()
        there.serve(JSON_API, self._answer)
        cluster = Cluster(HERE, here, self.hood.peers_of(HERE, here))
        self.hood.peers_of(PEER, there)
        self.context = replace(lone.context, cluster=cluster)
        here.serve(JSON_API, operations_handler(bound_operations(self.context)))
        self.asked: list[Any] = []
        self.answer: Any = {"success": {PEER.hex(): "well"}, "error": {}}

    async def _answer(self, request: Request) -> Any:
        self.asked.append(request.payload)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def do(self, name: str, node: str, body: Any = None) -> Any:
        return await call(self.context, name, {"node": node, "body": body})


async def street_of(lone: Lone) -> Street:
    await lone.do("UpdateClusterLayout", {"roles": [{"id": DEAD.hex(), **ROLE}]})
    await lone.do("ApplyClusterLayout", {"version": 1})
    return Street(lone)


async def test_all_answer_but_the_dead(lone: Lone) -> None:
    street = await street_of(lone)
    found = await street.do("GetWorkerVariable", "*", {"variable": "scrub-tranquility"})
    assert found == {
        "success": {HERE.hex(): {"scrub-tranquility": "4"}, PEER.hex(): "well"},
        "error": {DEAD.hex(): "The node is not connected."},
    }
    body = {"node": "self", "body": {"variable": "scrub-tranquility"}}
    assert street.asked == [["GetWorkerVariable", body]]


async def test_one_is_meant_by_its_beginning(lone: Lone) -> None:
    street = await street_of(lone)
    found = await street.do("ListWorkers", PEER.hex()[:4])
    assert found == {"success": {PEER.hex(): "well"}, "error": {}}
    assert list((await street.do("GetNodeInfo", "self"))["success"]) == [HERE.hex()]
    assert len(street.asked) == 1


async def test_what_another_says_is_wrong_is_told_once(lone: Lone) -> None:
    street = await street_of(lone)
    said = "InvalidRequest (400): there is no variable x"
    street.answer = {"success": {}, "error": {PEER.hex(): said}}
    found = await street.do("GetWorkerVariable", PEER.hex(), {"variable": "x"})
    assert found == {"success": {}, "error": {PEER.hex(): said}}


async def test_answers_that_make_no_sense(lone: Lone) -> None:
    street = await street_of(lone)
    for street.answer in ("text", None, {"success": {DEAD.hex(): 1}}, {"error": 5}):
        found = await street.do("ListWorkers", PEER.hex())
        assert found["success"] == {}
        assert found["error"] == {PEER.hex(): "The node's answer can't be read."}
    street.answer = AccessDenied("greet first")
    found = await street.do("ListWorkers", "*")
    assert list(found["success"]) == [HERE.hex()]
    assert "greet first" in found["error"][PEER.hex()]


async def test_a_variable_is_set_everywhere(lone: Lone) -> None:
    street = await street_of(lone)
    wanted = {"variable": "scrub-tranquility", "value": "9"}
    street.answer = {"success": {PEER.hex(): wanted}, "error": {}}
    found = await street.do("SetWorkerVariable", "*", wanted)
    assert found["success"] == {HERE.hex(): wanted, PEER.hex(): wanted}
    assert lone.context.variables.get("scrub-tranquility") == "9"


def test_limits_are_nested() -> None:
    """Who asks waits longer than the node that it asks waits for another."""
    assert operations.PEER_SECONDS < run.CALL_SECONDS
    assert operations.SNAPSHOT_SECONDS < maintenance.SNAPSHOT_SECONDS
