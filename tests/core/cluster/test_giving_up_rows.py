"""A node that a layout takes its partitions from keeps their rows until those are elsewhere."""

from __future__ import annotations

import asyncio

from garage_lite.core.model.rowkeys import Table
from tests.core.cluster.syncing import Syncing
from tests.core.cluster.test_table_sync import reference, version
from tests.sim.loop import run

PLACES = (7, 8, 100, 255)


def owned(w: Syncing, node: int) -> dict[bytes, bytes]:
    """The rows there that not every node holds."""
    return {key: value for key, value in w.rows(node).items() if key[0] >= Table.OBJECT}


def test_i25_rows_are_dropped_only_once_the_new_owners_hold_the_same_bytes() -> None:
    async def main() -> None:
        async with Syncing(4, copies=3, holding=3) as w:
            await asyncio.sleep(1)
            for number in range(20):
                await w[0].write(version(f"k{number}", number + 1, where=PLACES[number % 4]))
                await w[0].write([reference(number)])
            await w.rounds(seconds=30)
            before = owned(w, 2)
            assert len(before) == 60

            w.cut(3)
            await w.lay_out(0, 1, 3, copies=3)
            await w.rounds(seconds=120)
            assert owned(w, 2) == before, "the new owner holds nothing yet"

            w.heal()

            def given_up() -> bool:
                left = owned(w, 2)
                if left != before:
                    assert all(owned(w, other).items() >= before.items() for other in (0, 1, 3))
                return not left

            await w.until(given_up, seconds=2000)

    run(main())
