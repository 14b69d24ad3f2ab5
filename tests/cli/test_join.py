"""Two real nodes, the second with nothing but a join string: from invitation to cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process import NodeProcess

JOIN_SECONDS_MAX = 20


def without_secret(node: NodeProcess) -> None:
    lines = node.config.read_text().splitlines()
    node.config.write_text("\n".join(each for each in lines if "rpc_secret" not in each) + "\n")
    node.config.chmod(0o600)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + JOIN_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("admission", ["secret", "explicit"])
def test_a_node_joins_by_a_string(tmp_path: Path, admission: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first, second = NodeProcess(tmp_path / "one"), NodeProcess(tmp_path / "two")
    text = first.config.read_text()
    first.config.write_text(f'rpc_admission = "{admission}"\n{text}')
    without_secret(second)
    try:
        first.start()
        string = first.cli("node", "invite", "--quiet").strip()
        assert "Start the node now" in second.cli("node", "join", string)
        joined = tmp_path / "two" / "meta" / "joined.toml"
        assert joined.stat().st_mode & 0o777 == 0o600
        assert f'rpc_admission = "{admission}"' in joined.read_text()
        second.start()
        identifier = second.cli("node", "id", "-q").strip().split("@")[0]
        until(lambda: identifier[:16] in first.cli("status"))
        for node in (first, second):
            status = node.cli("status")
            assert "FAILED" not in status
            assert len(status.splitlines()) == 4
        first.cli("node", "remove", "--yes", identifier)
        until(lambda: identifier[:16] not in first.cli("status"))
        until(lambda: "was removed from the cluster" in first.log_tail())
        until(lambda: "was removed from the cluster" in second.log_tail())
    finally:
        second.kill()
        first.kill()
