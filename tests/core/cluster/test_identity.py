"""The node's key: made once, kept, never half written."""

from __future__ import annotations

from pathlib import Path

import pytest

from garage_lite.core.cluster.identity import (
    key_from_seed,
    load_node_key,
    load_or_create_node_key,
    read_node_id,
)
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.errors import DataDirError
from garage_lite.system import SystemEntropy

FILES, ENTROPY = LocalFiles(), SystemEntropy()


def test_made_once_and_kept(tmp_path: Path) -> None:
    directory = str(tmp_path / "new" / "meta")
    assert read_node_id(FILES, directory) is None
    key = load_or_create_node_key(FILES, directory, ENTROPY)
    assert load_or_create_node_key(FILES, directory, ENTROPY) == key
    assert read_node_id(FILES, directory) == key.node
    secret, public = Path(directory, "node_key"), Path(directory, "node_key.pub")
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.read_bytes()[32:] == public.read_bytes() == key.node
    assert sorted(p.name for p in Path(directory).iterdir()) == ["node_key", "node_key.pub"]
    assert key.secret.hex() not in repr(key)


@pytest.mark.parametrize("public", [None, b"", b"x" * 32])
def test_the_public_file_follows_the_secret_one(tmp_path: Path, public: bytes | None) -> None:
    """A crash between the two, or a file somebody replaced."""
    key = load_or_create_node_key(FILES, str(tmp_path), ENTROPY)
    if public is None:
        (tmp_path / "node_key.pub").unlink()
    else:
        (tmp_path / "node_key.pub").write_bytes(public)
    (tmp_path / "node_key.pub.new").write_bytes(b"left by a crash")
    assert load_or_create_node_key(FILES, str(tmp_path), ENTROPY) == key
    assert read_node_id(FILES, str(tmp_path)) == key.node


@pytest.mark.parametrize("length", [0, 32, 63, 65, 64])
def test_a_damaged_secret_is_no_reason_for_a_new_identity(tmp_path: Path, length: int) -> None:
    damaged = key_from_seed(b"s" * 32).secret[:-1].ljust(length, b"?")[:length]
    (tmp_path / "node_key").write_bytes(damaged)
    with pytest.raises(DataDirError, match="node_key is damaged"):
        load_or_create_node_key(FILES, str(tmp_path), ENTROPY)
    assert (tmp_path / "node_key").read_bytes() == damaged


def test_a_directory_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirError, match="can't keep the node's key in"):
        load_or_create_node_key(FILES, str(tmp_path / "file" / "meta"), ENTROPY)
    assert load_node_key(FILES, str(tmp_path)) is None
