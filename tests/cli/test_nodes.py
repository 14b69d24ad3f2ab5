"""What the commands about nodes print, and what they ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from garage_lite.cli import main
from garage_lite.core.ids import NodeId
from garage_lite.core.wire.address import TcpAddress
from garage_lite.core.wire.join_string import Invitation, encode

from .conftest import Cli, FakeNode

PEER = "ab" * 32 + "@192.0.2.7:3901"
CONFIG = """\
metadata_dir = "{directory}/meta"
data_dir = "{directory}/data"
replication_factor = 3
rpc_bind_addr = "127.0.0.1:3901"
{secret}
[s3_api]
s3_region = "garage"
"""


def test_node_connect(node: FakeNode, cli: Cli) -> None:
    node.answers["ConnectClusterNodes"] = [{"success": True, "error": None}]
    assert cli("node", "connect", PEER) == (0, "Success.\n", "")
    assert node.last("ConnectClusterNodes") == [PEER]
    node.answers["ConnectClusterNodes"] = [{"success": False, "error": "no answer"}]
    assert cli("node", "connect", PEER) == (1, "", "Error: no answer\n")


def test_node_invite(node: FakeNode, cli: Cli) -> None:
    node.answers["InviteClusterNode"] = {
        "joinString": "GL1ABC",
        "addresses": ["192.0.2.7:3901"],
        "expiration": 1,
    }
    assert cli("node", "invite", "-q") == (0, "GL1ABC\n", "")
    assert node.last("InviteClusterNode") == {}
    code, out, _ = cli("node", "invite", "--expires-in", "2h")
    assert code == 0
    assert "\n    garage-lite node join GL1ABC\n" in out
    assert "192.0.2.7:3901" in out
    assert node.last("InviteClusterNode") == {"expiresInSecs": 7200}
    assert "--expires-in" in cli("node", "invite", "--expires-in", "soon")[2]


def test_node_admit_and_remove(node: FakeNode, cli: Cli) -> None:
    node.answers["AdmitClusterNode"] = node.answers["RemoveClusterNode"] = None
    assert cli("node", "admit", "ab" * 32) == (0, "Success.\n", "")
    assert node.last("AdmitClusterNode") == {"id": "ab" * 32}
    code, _, err = cli("node", "remove", "ab" * 32)
    assert code == 1
    assert "--yes" in err
    code, out, _ = cli("node", "remove", "ab" * 32, "--yes")
    assert code == 0
    assert out.startswith("Success.\n")
    assert node.last("RemoveClusterNode") == {"id": "ab" * 32}


def config(tmp_path: Path, secret: str = "") -> str:
    path = tmp_path / "garage.toml"
    path.write_text(CONFIG.format(directory=tmp_path, secret=secret))
    return str(path)


def test_join_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = Invitation(NodeId(b"n" * 32), b"s" * 16, (TcpAddress("127.0.0.1", 1),), 0)
    for text, secret, message in (
        ("GL1", "", "typing error"),
        ("hello", "", "no join string"),
        (encode(nowhere), f'rpc_secret = "{"5e" * 32}"', "belongs to a cluster already"),
        (encode(nowhere), "", "Can't join: can't reach the node at 127.0.0.1:1"),
    ):
        assert main(["-c", config(tmp_path, secret), "node", "join", text]) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "meta" / "joined.toml").exists()


def test_status_warns(node: FakeNode, cli: Cli) -> None:
    node.answers["GetClusterLayout"] = {"stagedRoleChanges": [], "stagedParameters": None}
    here = {"id": "ab" * 32, "isUp": True, "alarms": ["This node has a twin."]}
    there = {"id": "cd" * 32, "isUp": True, "clockSkewMsec": -12_345}
    node.answers["GetClusterStatus"] = {"layoutVersion": 0, "nodes": [here, there]}
    out = cli("status")[1]
    assert "\nWARNING: This node has a twin.\n" in out
    assert (
        "\nWARNING: The clock of node cdcdcdcdcdcdcdcd is 12 seconds behind this node's.\n" in out
    )
    there["clockSkewMsec"] = 900
    here["alarms"] = []
    assert "WARNING" not in cli("status")[1]


def test_status_tells_of_a_relayed_node(node: FakeNode, cli: Cli) -> None:
    node.answers["GetClusterLayout"] = {"stagedRoleChanges": [], "stagedParameters": None}
    shown = {"id": "ab" * 32, "hostname": "attic", "addr": "192.0.2.7:3901", "isUp": True}
    node.answers["GetClusterStatus"] = {"layoutVersion": 0, "nodes": [{**shown, "relayed": True}]}
    assert "192.0.2.7:3901 (relayed)" in cli("status")[1]
