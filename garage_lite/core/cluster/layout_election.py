"""Runs the election of a layout version among the nodes that will stay.

layout/promise: [number, ballot] -> [granted, vote]      refused: a higher ballot was here
layout/accept:  [number, ballot, version] -> bool
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from garage_lite.core.cluster.peers import Cluster
from garage_lite.core.cluster.rpc import Request
from garage_lite.core.disk.replica import Replica
from garage_lite.core.errors import GarageLiteError, InvalidArgument, Unavailable
from garage_lite.core.ids import NodeId
from garage_lite.core.layout.election import Ballot, Vote, electorate, majority, to_propose
from garage_lite.core.layout.version import LayoutVersion
from garage_lite.core.model.rowkeys import Table, local_row
from garage_lite.core.ports import Clock
from garage_lite.core.table.schema import Update
from garage_lite.core.wire.outbox import URGENT

PROMISE: Final = "layout/promise"
ACCEPT: Final = "layout/accept"
CALL_SECONDS: Final = 5.0
ROUNDS_MAX: Final = 10
_ROW: Final = local_row(Table.NODE, b"layout vote")


class LayoutElection:
    """This node as a voter, and as the one who proposes."""

    def __init__(self, replica: Replica, cluster: Cluster, clock: Clock) -> None:
        self._replica = replica
        self._cluster = cluster
        self._clock = clock
        self._voting = asyncio.Lock()
        cluster.endpoints.serve(PROMISE, self._promise)
        cluster.endpoints.serve(ACCEPT, self._accept)

    async def elect(self, current: LayoutVersion, planned: LayoutVersion) -> LayoutVersion:
        """The version that has the number of `planned`: chosen by a majority of those who decide
        on return; not always `planned`. Raises Unavailable where no majority can be reached."""
        voters = electorate(current, planned)
        turn = 0
        for _ in range(ROUNDS_MAX):
            turn += 1
            ballot = (turn, self._cluster.node)
            promises = await self._ask(voters, PROMISE, [planned.number, list(ballot)])
            votes = [(granted, Vote.decode(vote)) for granted, vote in promises]
            turn = max([turn, *(vote.promised[0] for _, vote in votes)])
            granted = [vote for given, vote in votes if given is True]
            if len(granted) < majority(voters):
                continue
            choice = to_propose(granted, planned)
            payload = [planned.number, list(ballot), choice.encode()]
            accepted = await self._ask(voters, ACCEPT, payload)
            if sum(answer is True for answer in accepted) >= majority(voters):
                return choice
        raise Unavailable(
            f"layout version {planned.number} is being decided by another node: try again"
        )

    async def _ask(self, voters: Sequence[NodeId], endpoint: str, payload: Any) -> list[Any]:
        """The answers of a majority at least. Raises Unavailable."""
        found = await asyncio.gather(*(self._one(node, endpoint, payload) for node in voters))
        answers = [answer for answer in found if answer is not _SILENT]
        if len(answers) < majority(voters):
            raise Unavailable(
                f"a new layout needs the agreement of {majority(voters)} of the"
                f" {len(voters)} nodes that stay in it, and only {len(answers)} can be reached."
                " Remove the nodes that are gone for good, or wait for them."
            )
        return answers

    async def _one(self, node: NodeId, endpoint: str, payload: Any) -> Any:
        try:
            reply = await self._cluster.call(
                node, endpoint, payload, timeout=CALL_SECONDS, priority=URGENT
            )
        except (GarageLiteError, TimeoutError):
            return _SILENT
        return reply.payload

    async def _promise(self, request: Request) -> list[Any]:
        match request.payload:
            case [int() as number, [int() as turn, bytes() as node]]:
                async with self._voting:
                    vote = self._vote(number)
                    promised = vote.promise((turn, node))
                    if promised is not None:
                        await self._keep(promised)
                    return [promised is not None, (promised or vote).encode()]
        raise InvalidArgument("expected a version number and a ballot")

    async def _accept(self, request: Request) -> bool:
        match request.payload:
            case [int() as number, [int() as turn, bytes() as node], bytes() as encoded]:
                version = LayoutVersion.decode(encoded)
                async with self._voting:
                    ballot: Ballot = (turn, node)
                    vote = self._vote(number).accept(ballot, version)
                    if vote is None:
                        return False
                    await self._keep(vote)
                    return True
        raise InvalidArgument("expected a version number, a ballot and a layout version")

    def _vote(self, number: int) -> Vote:
        """Raises InvalidArgument for a number older than the last one voted on."""
        stored = self._replica.durable.get(_ROW)
        vote = Vote.decode(stored).about(number) if stored is not None else Vote(number)
        if vote.number != number:
            raise InvalidArgument(f"layout version {number} was decided before")
        return vote

    async def _keep(self, vote: Vote) -> None:
        now_ms = self._clock.now_us() // 1000
        await self._replica.apply([Update(_ROW, vote.encode())], now_ms, None, True)


_SILENT: Final = object()
