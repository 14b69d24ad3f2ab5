"""Faults that a store of this kind is known for, each tried on three whole nodes."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from garage_lite.core.errors import GarageLiteError, NoSuchKey
from garage_lite.core.store.copies import CopyRequest, Source
from tests.sim.cluster import Cluster
from tests.sim.test_conditional import BUCKET, at, get, put, run_on

SKEW_US: Final = 20 * 60 * 1_000_000
"""As far as two clocks may be apart and both be believed."""
SIZES: Final = {"inline": 100, "blocks": 10_000}
KEY: Final = b"key"


async def seen(cluster: Cluster) -> list[bytes | None]:
    """What each node answers."""
    answers: list[bytes | None] = []
    for number in range(3):
        try:
            answers.append(await get(cluster, number))
        except NoSuchKey:
            answers.append(None)
    return answers


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("last", ["put", "copy", "delete"])
def test_i38_what_comes_last_wins_over_a_clock_that_is_ahead(last: str, size: str) -> None:
    async def test(cluster: Cluster) -> None:
        cluster.nodes[0].clock.skew_us = SKEW_US
        cluster.nodes[1].clock.skew_us = -SKEW_US
        cluster.isolate([1])  # it has not even met the stamp that it must pass
        first = await put(cluster, 0, b"1" * SIZES[size], None)
        cluster.network.heal()
        match last:
            case "put":
                await put(cluster, 1, b"2" * SIZES[size], None)
                assert await seen(cluster) == [b"2" * SIZES[size]] * 3
            case "copy":
                headers = (("content-type", "text/changed"),)
                copy = CopyRequest(Source(BUCKET.id, KEY), BUCKET, KEY, headers)
                await at(cluster, 1, lambda node: node.copies.copy_object(copy))
                for number in range(3):
                    copied = await at(cluster, number, lambda n: n.objects.head(BUCKET.id, KEY))
                    assert copied.stamp > first.stamp and copied.meta.headers == headers
                assert await seen(cluster) == [b"1" * SIZES[size]] * 3
            case _:
                await at(cluster, 1, lambda node: node.objects.delete(BUCKET, KEY))
                assert await seen(cluster) == [None] * 3
                page = await at(cluster, 2, lambda node: node.listing.objects(BUCKET.id))
                assert not page.entries

    run_on(test)


@pytest.mark.parametrize("size", SIZES)
def test_i37_a_failed_overwrite_leaves_what_was_there(size: str) -> None:
    """The writer is alone with its copy when it fails, in whatever state it leaves that."""

    async def test(cluster: Cluster) -> None:
        old, new = b"o" * SIZES[size], b"n" * SIZES[size]
        await put(cluster, 1, old, None)
        for delay in (0.0, 0.05, 0.15, 0.25):
            writing = asyncio.ensure_future(put(cluster, 0, new, None))
            await asyncio.sleep(delay)
            cluster.isolate([0])
            try:
                await writing
            except GarageLiteError:
                assert await get(cluster, 1) in (old, new)
            cluster.network.heal()
            await asyncio.sleep(5)  # until they are linked again
            answers = await seen(cluster)
            assert answers[0] in (old, new) and len(set(answers)) == 1
            await put(cluster, 1, old, None)

    run_on(test)


def test_i41_a_deleted_key_is_listed_by_no_two_nodes_of_three() -> None:
    """One node misses the deletion; each pair with it knows better."""

    async def test(cluster: Cluster) -> None:
        await put(cluster, 0, b"1", None)
        await asyncio.sleep(2)
        cluster.isolate([2])
        await at(cluster, 0, lambda node: node.objects.delete(BUCKET, KEY))
        for away in (0, 1):
            cluster.network.heal()
            cluster.isolate([away])
            asked = 1 - away
            for number in (asked, 2):
                page = await at(cluster, number, lambda node: node.listing.objects(BUCKET.id))
                assert not page.entries

    run_on(test)


def test_i15_one_silent_node_makes_nobody_wait() -> None:
    """Each verb, the frozen node being one that would be asked first."""

    async def test(cluster: Cluster) -> None:
        await put(cluster, 0, b"x" * SIZES["blocks"], None)
        for silent in (1, 2):
            cluster.freeze(silent)
            begun = cluster.loop.time()
            assert await get(cluster, 0) == b"x" * SIZES["blocks"]
            await put(cluster, 0, b"x" * SIZES["blocks"], None)
            await at(cluster, 0, lambda node: node.listing.objects(BUCKET.id))
            assert cluster.loop.time() - begun < 4
            cluster.thaw()
            await asyncio.sleep(15)

    run_on(test)
