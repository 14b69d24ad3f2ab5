"""Who this node is: its Ed25519 key pair, kept in the metadata directory as Garage keeps it.

    node_key      64 bytes, mode 0600: libsodium's secret key (seed, then public key)
    node_key.pub  32 bytes: the public key, which is the node's id

Losing the pair makes a new node. The secret file is written first and made durable before the
public one, which is rewritten from it when it is missing or differs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from garage_lite.core.disk.durable_directory import make_durably
from garage_lite.core.errors import DataDirError
from garage_lite.core.ids import NODE_ID_BYTES, NodeId
from garage_lite.core.ports import Entropy, Files, OpenMode

SEED_BYTES: Final = 32
SECRET_KEY_BYTES: Final = 64
SECRET_NAME: Final = "node_key"
PUBLIC_NAME: Final = "node_key.pub"


@dataclass(frozen=True)
class NodeKey:
    node: NodeId
    secret: bytes = field(repr=False)
    """64 bytes: Ed25519 seed and public key."""


def key_from_seed(seed: bytes) -> NodeKey:
    """The key pair of a 32-byte seed."""
    from nacl.bindings import crypto_sign_seed_keypair

    public, secret = crypto_sign_seed_keypair(seed)
    return NodeKey(NodeId(public), secret)


def load_or_create_node_key(files: Files, metadata_dir: str, entropy: Entropy) -> NodeKey:
    """This node's key pair; made and durable on return if there was none.

    Raises DataDirError if what is there is no key pair, or the directory can't be written.
    """
    try:
        key = load_node_key(files, metadata_dir)
        if key is None:
            key = key_from_seed(entropy.token(SEED_BYTES))
            make_durably(files, metadata_dir)
            _replace(files, metadata_dir, SECRET_NAME, key.secret)
        if _read(files, f"{metadata_dir}/{PUBLIC_NAME}") != key.node:
            _replace(files, metadata_dir, PUBLIC_NAME, key.node)
    except OSError as error:
        raise DataDirError(f"can't keep the node's key in {metadata_dir}: {error}") from error
    return key


def load_node_key(files: Files, metadata_dir: str) -> NodeKey | None:
    """The key pair if there is one. DataDirError if the file is no key; OSError as it comes."""
    secret = _read(files, f"{metadata_dir}/{SECRET_NAME}")
    if secret is None:
        return None
    key = key_from_seed(secret[:SEED_BYTES]) if len(secret) == SECRET_KEY_BYTES else None
    if key is None or key.secret != secret:
        raise DataDirError(
            f"{metadata_dir}/{SECRET_NAME} is damaged: it is no key pair of {SECRET_KEY_BYTES}"
            " bytes. Put it back from a backup; without it this is a new node"
        )
    return key


def read_node_id(files: Files, metadata_dir: str) -> NodeId | None:
    """The node's id from the public file alone, which a CLI may read when the secret is not its
    to read. None if it isn't there or is no key."""
    public = _read(files, f"{metadata_dir}/{PUBLIC_NAME}")
    return NodeId(public) if public is not None and len(public) == NODE_ID_BYTES else None


def _read(files: Files, path: str) -> bytes | None:
    if not files.exists(path):
        return None
    file = files.open(path, OpenMode.READ)
    try:
        return file.read_at(0, SECRET_KEY_BYTES + 1)
    finally:
        file.close()


def _replace(files: Files, directory: str, name: str, content: bytes) -> None:
    """Write beside, sync, rename, sync the directory: the name never shows half a key."""
    temporary, target = f"{directory}/{name}.new", f"{directory}/{name}"
    if files.exists(temporary):
        files.remove(temporary)
    file = files.open(temporary, OpenMode.CREATE)
    try:
        file.write_at(0, [content])
        file.sync()
    finally:
        file.close()
    files.rename(temporary, target)
    files.sync_directory(directory)
