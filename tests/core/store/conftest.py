"""The store of a node, for every test that asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.core.store.world import World


@pytest.fixture
async def w(tmp_path: Path) -> AsyncIterator[World]:
    async with World(tmp_path) as world:
        yield world
