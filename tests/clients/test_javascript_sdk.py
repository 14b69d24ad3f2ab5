"""The AWS SDK for JavaScript v3 with lib-storage, as web applications use it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.clients.conftest import Run, need

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]

HERE = Path(__file__).parent / "node"


def test_javascript_sdk_round_trip(run: Run, bucket: str) -> None:
    need("node")
    if not (HERE / "node_modules").exists():
        reason = "the SDK is not installed; README's test command installs it"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    run("node", HERE / "roundtrip.mjs", bucket)
