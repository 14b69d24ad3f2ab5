"""`server` and `node id`: the commands that need no running node."""

from __future__ import annotations

import sys

from garage_lite.cli.run import CommandFailed, Context
from garage_lite.config import Config, embedded, find_config_file
from garage_lite.core.cluster.identity import load_or_create_node_key
from garage_lite.core.disk.files import LocalFiles
from garage_lite.core.wire.address import TcpAddress
from garage_lite.system import SystemEntropy


def server(context: Context) -> int:
    """Run the node until it is told to stop; without any configuration, a node of its own."""
    from garage_lite import logs

    logs.set_up(context.environ)
    single_node = context.values["single_node"]
    default_key, default_bucket = _defaults(context)
    if find_config_file(context.flags) is None:
        config = embedded(context.environ, context.flags, SystemEntropy())
        single_node = True
    else:
        config = context.config
    from garage_lite.server import run_server

    return run_server(
        config,
        single_node=single_node,
        default_bucket=default_bucket,
        default_access_key=default_key,
    )


def _defaults(context: Context) -> tuple[tuple[str, str] | None, str | None]:
    """The key (id, secret) and the bucket to make at start, from the environment, as Garage's
    --default-access-key and --default-bucket."""
    bucket = key = None
    if context.values["default_bucket"]:
        bucket = _variable(context, "GARAGE_DEFAULT_BUCKET", "--default-bucket")
    if context.values["default_access_key"] or bucket is not None:
        wanted = "--default-access-key" if bucket is None else "--default-bucket"
        key = (
            _variable(context, "GARAGE_DEFAULT_ACCESS_KEY", wanted),
            _variable(context, "GARAGE_DEFAULT_SECRET_KEY", wanted),
        )
    return key, bucket


def _variable(context: Context, name: str, wanted_by: str) -> str:
    value = context.environ.get(name)
    if not value:
        raise CommandFailed(f"{wanted_by} needs the environment variable {name}")
    return value


def node_id(context: Context) -> None:
    """The id, and the address others should use, on one line of stdout; advice on stderr."""
    config = context.config
    files = LocalFiles()
    key = load_or_create_node_key(files, config.metadata_dir, SystemEntropy())
    name = key.node.hex()
    if config.rpc_public_addr is not None:
        name += f"@{config.rpc_public_addr}"
    print(name)
    if not context.values["quiet"]:
        sys.stdout.flush()
        _advise(config, name)


def _advise(config: Config, name: str) -> None:
    lines = []
    if config.rpc_public_addr is None:
        bound = config.rpc_bind_addr
        port = bound.port if isinstance(bound, TcpAddress) else 3901
        name += f"@127.0.0.1:{port}"
        lines += [
            "rpc_public_addr is not set, so the address at which others reach this node is not"
            f" known: put it in the place of 127.0.0.1:{port} below.",
        ]
    told = "" if config.source is None else f"-c {config.source} "
    lines += [
        "",
        "To connect another node to this one, run there:",
        f"    garage-lite node connect {name}",
        "or here:",
        f"    garage-lite {told}-h <id>@<host>:<port> node connect {name}",
        "",
        "or name this node in the other's configuration:",
        f'    bootstrap_peers = [ "{name}" ]',
        "",
        "Whoever knows the rpc_secret and a node's id can control the cluster: keep both private.",
    ]
    print("\n".join(lines), file=sys.stderr)
