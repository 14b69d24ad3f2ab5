"""What `node join` leaves behind: the cluster that this node was invited to.

`joined.toml` in the metadata directory, mode 0600, holds rpc_secret, rpc_admission and
bootstrap_peers; each counts where garage.toml does not say it. So a node that joined needs no
edit of its configuration.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from typing import Any, Final

from garage_lite.config.schema import ROOT_KEYS, parse_section
from garage_lite.config.secret_files import read_secret, write_secret
from garage_lite.core.errors import ConfigError

JOINED_NAME: Final = "joined.toml"
JOINED_KEYS: Final = ("rpc_secret", "rpc_admission", "bootstrap_peers")


def joined_path(metadata_dir: str) -> str:
    return os.path.join(metadata_dir, JOINED_NAME)


def read_joined(metadata_dir: str, allow_world_readable: bool) -> dict[str, Any]:
    """The values of the cluster joined; empty if none was. ConfigError."""
    path = joined_path(metadata_dir)
    if not os.path.exists(path):
        return {}
    text = read_secret(path, allow_world_readable)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    keys = {name: ROOT_KEYS[name] for name in JOINED_KEYS}
    return parse_section(table, "", keys, path)


def write_joined(
    metadata_dir: str, rpc_secret: str, rpc_admission: str, peers: Sequence[str]
) -> None:
    """Durable on return. The values hold no quotes: they are hex digits, a word, addresses."""
    named = ", ".join(f'"{peer}"' for peer in peers)
    lines = (
        f'rpc_secret = "{rpc_secret}"',
        f'rpc_admission = "{rpc_admission}"',
        f"bootstrap_peers = [{named}]",
    )
    write_secret(joined_path(metadata_dir), "\n".join(lines))
