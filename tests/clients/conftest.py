"""One node for all the clients of a test process, and a fresh bucket for each test."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from tests.process import CLIENT_PATH, REGION, Key, NodeProcess, client_environment


@dataclass(frozen=True)
class Site:
    """Where a client finds the node, and what it signs with."""

    endpoint: str
    key: Key
    region: str = REGION

    @property
    def host(self) -> str:
        return self.endpoint.removeprefix("http://")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    node = NodeProcess(tmp_path_factory.mktemp("node"))
    node.start()
    try:
        node.lay_out()
        yield Site(node.endpoint, node.create_key("clients"))
        node.stop()
    finally:
        node.kill()


def boto_client(site: Site, **options: Any) -> Any:
    settings: dict[str, Any] = {
        "s3": {"addressing_style": "path"},
        "retries": {"total_max_attempts": 1},
        "signature_version": "s3v4",  # of presigned URLs too, which else may get the old one
        **options,
    }
    return boto3.session.Session().client(
        "s3",
        endpoint_url=site.endpoint,
        region_name=site.region,
        aws_access_key_id=site.key.access_key,
        aws_secret_access_key=site.key.secret_key,
        config=Config(**settings),
    )


@pytest.fixture(scope="session")
def s3(site: Site) -> Iterator[Any]:
    """boto3 as it comes: checksums whenever it can."""
    client = boto_client(site)
    yield client
    client.close()


_numbers = itertools.count(1)


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"bucket-{os.getpid()}-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    return name


Run = Callable[..., str]


@pytest.fixture
def run(site: Site, tmp_path: Path) -> Run:
    """Run a client program to its end; returns what it printed, fails when it fails."""
    home = tmp_path / "home"
    home.mkdir()
    environment = client_environment(home, site.endpoint, site.key)

    def call(*words: str | Path, timeout: int = 100, **extra: str) -> str:
        done = subprocess.run(
            [str(word) for word in words],
            env=environment | extra,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{words}: status {done.returncode}\n{done.stdout}"
        return done.stdout

    return call


def need(*commands: str) -> None:
    """The client must be there: where CI runs its absence is a failure, never a silent gap."""
    missing = [command for command in commands if shutil.which(command, path=CLIENT_PATH) is None]
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)}; README's test command installs it as root"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def content(size: int, seed: int = 0) -> bytes:
    """Bytes that compress badly and differ by seed."""
    return random.Random(seed).randbytes(size)


NAMES: Sequence[tuple[str, int]] = (
    ("empty", 0),
    ("small.txt", 11),
    ("with space & ünïcode+plus.bin", 3000),
    ("deep/er/and/deeper/file", 70_000),
    ("deep/big.bin", 5 * 2**20 + 17),
)
"""(name, size) of a small tree that has what trips clients and servers up."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for seed, (name, size) in enumerate(NAMES):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(size, seed))
    return root


def files_of(root: Path) -> dict[str, bytes]:
    """Every file below a directory: name and content."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
