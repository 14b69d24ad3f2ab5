"""Finding the node: by configuration, by flags, or not at all and in plain words."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from garage_lite import server as server_module
from garage_lite.cli import main
from garage_lite.config import Config
from garage_lite.core.wire.address import TcpAddress

from .conftest import KEY, SECRET, FakeNode

NO_ENVIRONMENT = ("CONFIG_FILE", "RPC_HOST", "RPC_SECRET", "RPC_SECRET_FILE")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NO_ENVIRONMENT:
        monkeypatch.delenv(f"GARAGE_{name}", raising=False)
    monkeypatch.setattr("garage_lite.config.DEFAULT_CONFIG_FILE", str(tmp_path / "no.toml"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))


def config_file(directory: Path, address: object = "127.0.0.1:1", more: str = "") -> str:
    path = directory / "garage.toml"
    path.write_text(f"""
        metadata_dir = "{directory}/meta"
        data_dir = "{directory}/data"
        replication_factor = 1
        rpc_bind_addr = "{address}"
        rpc_secret = "{SECRET}"
        {more}
        [s3_api]
        s3_region = "eu"
        public_endpoint = "https://s3.example"
        """)
    return str(path)


def error(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("Error: ") and err.count("\n") == 1
    return err


def test_by_configuration(
    node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on the machine of the node: its key and its address are found by the file."""
    node.answers["GetClusterHealth"] = {"status": "unavailable"}
    assert isinstance(node.peer.address, TcpAddress)
    file = config_file(tmp_path, TcpAddress("0.0.0.0", node.peer.address.port))
    assert "holds no node key yet" in error(capsys, "-c", file, "status")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "node_key.pub").write_bytes(KEY.node)
    assert main(["-c", file, "health", "-q"]) == 1
    assert node.asked == [("GetClusterHealth", {})]


def test_by_environment(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node.answers["ListBuckets"] = []
    monkeypatch.setenv("GARAGE_RPC_HOST", str(node.peer))
    monkeypatch.setenv("GARAGE_RPC_SECRET", SECRET)
    assert main(["bucket", "list"]) == 0
    assert capsys.readouterr().out.startswith("ID ")


def test_export_env_tells_what_the_configuration_says(
    node: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node.answers["GetKeyInfo"] = {"accessKeyId": "GK", "secretAccessKey": "s"}
    file = config_file(tmp_path)
    assert main(["-c", file, "-h", str(node.peer), "key", "export-env", "k"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "AWS_DEFAULT_REGION='eu'",
        "AWS_ENDPOINT_URL='https://s3.example'",
    ]


def test_nothing_configured(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no configuration: " in error(capsys, "status")


def test_no_node_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = f"{KEY.node.hex()}@127.0.0.1:1"
    said = error(capsys, "-h", host, "-s", SECRET, "status")
    assert "can't reach the node at 127.0.0.1:1: connection refused (is it running?)" in said
    assert "--rpc-host: 'x' is no peer" in error(capsys, "-h", "x", "-s", SECRET, "status")
    assert "64 hexadecimal digits" in error(capsys, "-h", host, "-s", "12", "status")
    assert "No such file" in error(capsys, "-c", str(tmp_path / "none"), "status")


def test_wrong_secret(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    said = error(capsys, "-h", str(node.peer), "-s", "00" * 32, "status")
    assert "its rpc_secret is another one, or it is not the node" in said


def test_node_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = config_file(tmp_path)
    assert main(["-c", file, "node", "id"]) == 0
    out, err = capsys.readouterr()
    assert len(out) == 65 and bytes.fromhex(out)
    assert f'bootstrap_peers = [ "{out.strip()}@127.0.0.1:1" ]' in err
    file = config_file(tmp_path, more='rpc_public_addr = "node.example:3901"')
    assert main(["-c", file, "node", "id", "-q"]) == 0
    assert capsys.readouterr() == (f"{out.strip()}@node.example:3901\n", "")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Config, dict[str, Any]]]:
    """What run_server was called with, instead of a node that runs."""
    calls: list[tuple[Config, dict[str, Any]]] = []

    def run(config: Config, **options: Any) -> int:
        calls.append((config, options))
        return 7

    monkeypatch.setattr(server_module, "run_server", run)
    monkeypatch.setattr("garage_lite.logs.set_up", lambda environ: None)
    return calls


def test_server(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[tuple[Config, dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["-c", config_file(tmp_path), "server"]) == 7
    assert started[-1][1] == {
        "single_node": False,
        "default_bucket": None,
        "default_access_key": None,
    }
    assert main(["server"]) == 7
    config, options = started[-1]
    assert config.metadata_dir == str(tmp_path / "share/garage-lite/meta")
    assert options["single_node"] is True

    file = config_file(tmp_path)
    said = error(capsys, "-c", file, "server", "--single-node", "--default-bucket")
    assert "--default-bucket needs the environment variable GARAGE_DEFAULT_BUCKET" in said
    monkeypatch.setenv("GARAGE_DEFAULT_BUCKET", "b")
    monkeypatch.setenv("GARAGE_DEFAULT_ACCESS_KEY", "GKx")
    said = error(capsys, "-c", file, "server", "--default-bucket")
    assert "--default-bucket needs the environment variable GARAGE_DEFAULT_SECRET_KEY" in said
    monkeypatch.setenv("GARAGE_DEFAULT_SECRET_KEY", "s")
    assert main(["-c", file, "server", "--single-node", "--default-bucket"]) == 7
    assert started[-1][1] == {
        "single_node": True,
        "default_bucket": "b",
        "default_access_key": ("GKx", "s"),
    }
    assert main(["-c", file, "server", "--default-access-key"]) == 7
    assert started[-1][1]["default_bucket"] is None


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completions", shell]) == 0
    script = capsys.readouterr().out
    assert "garage-lite" in script and "set-quotas" in script
    if shell == "bash":
        probe = "COMP_WORDS=(garage-lite -c f bucket al); COMP_CWORD=4; _garage_lite\n"
        done = subprocess.run(
            ["bash", "-euc", f"{script}\n{probe}echo ${{COMPREPLY[@]}}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["alias", "allow"]


def test_no_completions(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no completions for 'tcsh'" in error(capsys, "completions", "tcsh")
