"""Dialling a node that has several addresses: one after another, overlapping, first come.

The next address is tried when the one before failed, or after STAGGER_SECONDS: an address that
swallows packets costs that much and not a connection's whole timeout. A name is asked of the DNS
at each try, and stands for all the addresses it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from garage_lite.core.cluster.transport import Link, Unreachable
from garage_lite.core.wire.address import Address, TcpAddress

STAGGER_SECONDS: Final = 1.0

RESOLVE_SECONDS: Final = 10.0
RESOLVED_MAX: Final = 8
"""Addresses taken of one name."""

Dial = Callable[[Address], Awaitable[Link]]


async def resolved(address: Address) -> Sequence[Address]:
    """The IP addresses of a name, as the system orders them; an address is its own. Raises
    Unreachable."""
    if not isinstance(address, TcpAddress):
        return [address]
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await loop.getaddrinfo(address.host, address.port)
    except TimeoutError as error:
        raise Unreachable(f"{address.host}: the name service does not answer") from error
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"{address.host}: no address is known for this name") from error
    hosts = dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found)
    return [TcpAddress(host, address.port) for host in hosts][:RESOLVED_MAX]


async def first_reached(addresses: Sequence[Address], dial: Dial) -> tuple[Address, Link]:
    """The first link that comes up, and where. Every other is closed. Unreachable says why each
    address failed."""
    failures: list[str] = []
    waiting = list(addresses)
    running: dict[asyncio.Task[Link], Address] = {}
    try:
        while waiting or running:
            if waiting:
                address = waiting.pop(0)
                running[asyncio.ensure_future(dial(address))] = address
            done, _ = await asyncio.wait(
                running,
                timeout=STAGGER_SECONDS if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                address = running.pop(task)
                failure = task.exception()
                if failure is None:
                    return address, task.result()
                if not isinstance(failure, Unreachable):
                    raise failure
                failures.append(failure.message)
    finally:
        await _give_up(list(running))
    raise Unreachable("; ".join(failures) or "no address is known")


async def _give_up(tasks: Sequence[asyncio.Task[Link]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Link):
            result.close()
