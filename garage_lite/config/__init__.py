"""garage.toml and the GARAGE_* environment, as one frozen `Config`.

Every key of Garage 2.5 is known: those whose feature this version lacks are parsed, checked and
kept; those that mean nothing here (a database engine's) are accepted with a warning. A key that
Garage does not know is an error, for a misspelt key that is silently ignored costs somebody's
data. Command-line flags win over the environment, which wins over the file. Errors say which
file, which key, what is wrong with it and what is allowed. Nothing here opens a data directory.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from garage_lite.config.joined import read_joined
from garage_lite.config.schema import (
    ADMIN_KEYS,
    CONSUL_KEYS,
    K2V_API_KEYS,
    KUBERNETES_KEYS,
    MEANINGLESS_KEYS,
    NOT_YET_KEYS,
    ROOT_KEYS,
    S3_API_KEYS,
    S3_WEB_KEYS,
    Key,
    parse_section,
)
from garage_lite.config.secret_files import (
    RPC_SECRET_BYTES,
    Flags,
    choose_secret,
    parse_rpc_secret,
    read_secret,
    write_secret,
)
from garage_lite.core.block.markers import DataDirectory
from garage_lite.core.errors import ConfigError
from garage_lite.core.limits import BLOCK_BYTES, MEMORY_BODY_BUFFERS
from garage_lite.core.ports import Entropy
from garage_lite.core.wire.address import Address, Peer, TcpAddress

DEFAULT_CONFIG_FILE: Final = "/etc/garage.toml"


@dataclass(frozen=True)
class S3ApiConfig:
    s3_region: str
    api_bind_addr: Address | None = None
    root_domain: str | None = None
    public_endpoint: str | None = None
    public_endpoint_path_style: bool | None = None


@dataclass(frozen=True)
class K2vApiConfig:
    api_bind_addr: Address
    public_endpoint: str | None = None


@dataclass(frozen=True)
class S3WebConfig:
    bind_addr: Address
    root_domain: str | None = None
    add_host_to_metrics: bool = False


@dataclass(frozen=True)
class AdminConfig:
    api_bind_addr: Address | None = None
    admin_token: str | None = field(default=None, repr=False)
    metrics_token: str | None = field(default=None, repr=False)
    metrics_require_token: bool = False
    trace_sink: str | None = None


@dataclass(frozen=True)
class ConsulConfig:
    consul_http_addr: str
    service_name: str
    api: str = "catalog"
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    token: str | None = field(default=None, repr=False)
    tls_skip_verify: bool = False
    tags: tuple[str, ...] = ()
    meta: tuple[tuple[str, str], ...] = ()
    datacenters: tuple[str, ...] = ()


@dataclass(frozen=True)
class KubernetesConfig:
    namespace: str
    service_name: str
    skip_crd: bool = False


@dataclass(frozen=True)
class Config:
    metadata_dir: str
    data_dir: tuple[DataDirectory, ...]
    rpc_bind_addr: Address
    s3_api: S3ApiConfig
    replication_factor: int
    data_replication_factor: int | None = None
    """Copies of each block; None: as many as of metadata."""
    rpc_secret: bytes | None = field(default=None, repr=False)
    """32 bytes. A server can't start without it; the CLI says so when it needs it."""
    metadata_snapshots_dir: str | None = None
    metadata_fsync: bool = True
    data_fsync: bool = True
    metadata_auto_snapshot_interval_ms: int | None = None
    disable_scrub: bool = False
    use_local_tz: bool = False
    block_size: int = BLOCK_BYTES
    block_ram_buffer_max: int = MEMORY_BODY_BUFFERS
    block_max_concurrent_reads: int = 16
    block_max_concurrent_writes_per_request: int = 3
    compression_level: int | None = 1
    """zstd level; None stores blocks as they are."""
    consistency_mode: str = "consistent"
    rpc_admission: str = "secret"
    """"secret": whoever holds rpc_secret is a peer; "explicit": whoever was admitted by name."""
    rpc_bind_outgoing: bool = False
    rpc_public_addr: str | None = None
    """host:port, not resolved; the host may be a name."""
    rpc_public_addr_subnet: str | None = None
    rpc_timeout_ms: int | None = None
    rpc_ping_timeout_ms: int | None = None
    bootstrap_peers: tuple[Peer, ...] = ()
    allow_world_readable_secrets: bool = False
    allow_punycode: bool = False
    k2v_api: K2vApiConfig | None = None
    s3_web: S3WebConfig | None = None
    admin: AdminConfig = AdminConfig()
    consul_discovery: ConsulConfig | None = None
    kubernetes_discovery: KubernetesConfig | None = None
    source: str | None = None
    """The file it was read from; None for the embedded default."""
    warnings: tuple[str, ...] = ()
    """Lines for the log at start-up."""


def find_config_file(flags: Flags) -> str | None:
    """The file to read: as told, else /etc/garage.toml if it is there, else none."""
    if flags.config_file is not None:
        return flags.config_file
    return DEFAULT_CONFIG_FILE if os.path.exists(DEFAULT_CONFIG_FILE) else None


def load(path: str, flags: Flags) -> Config:
    """Read a garage.toml; `flags` come with their environment. ConfigError says what is wrong."""
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"can't read the configuration file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return from_table(table, path, flags)


def from_table(table: Mapping[str, Any], source: str | None, flags: Flags) -> Config:
    """A `Config` from parsed TOML. Relative directories are taken from the working directory."""
    where = source or "the configuration"
    values = parse_section(table, "", ROOT_KEYS, where)
    allow = flags.allow_world_readable_secrets
    if allow is None:
        allow = values.get("allow_world_readable_secrets", False)
    values["allow_world_readable_secrets"] = allow
    for name in ("metadata_dir", "metadata_snapshots_dir"):
        if name in values:
            values[name] = os.path.abspath(values[name])
    values["data_dir"] = tuple(
        DataDirectory(**{**entry, "path": os.path.abspath(entry["path"])})
        for entry in values["data_dir"]
    )
    values["s3_api"] = _s3_api(table, where)
    values["k2v_api"] = _optional(K2vApiConfig, table, "k2v_api", K2V_API_KEYS, where)
    values["s3_web"] = _optional(S3WebConfig, table, "s3_web", S3_WEB_KEYS, where)
    values["kubernetes_discovery"] = _optional(
        KubernetesConfig, table, "kubernetes_discovery", KUBERNETES_KEYS, where
    )
    values["consul_discovery"] = _optional(
        ConsulConfig, table, "consul_discovery", CONSUL_KEYS, where
    )
    admin = parse_section(_section(table, "admin", where), "admin", ADMIN_KEYS, where)
    for name in ("admin_token", "metrics_token"):
        admin[name] = choose_secret(admin, name, f"admin.{name}", flags, allow, where)
    values["admin"] = AdminConfig(**{k: v for k, v in admin.items() if not k.endswith("_file")})
    secret = choose_secret(values, "rpc_secret", "rpc_secret", flags, allow, where)
    if secret is None:
        joined = read_joined(values["metadata_dir"], allow)
        secret = joined.get("rpc_secret")
        values = joined | values
    values["rpc_secret"] = None if secret is None else parse_rpc_secret(secret)
    values.pop("rpc_secret_file", None)
    values = {name: value for name, value in values.items() if name not in MEANINGLESS_KEYS}
    return Config(**values, source=source, warnings=_warnings(table, where))


def require_rpc_secret(config: Config) -> bytes:
    """The network key, or a ConfigError that says how to give one."""
    if config.rpc_secret is None:
        raise ConfigError(
            f"{config.source or 'the configuration'} has no rpc_secret: set rpc_secret or"
            " rpc_secret_file (make one with: openssl rand -hex 32), or join a cluster with"
            " `garage-lite node join`"
        )
    return config.rpc_secret


def embedded_directory(environ: Mapping[str, str]) -> str:
    """Where a node without a configuration keeps everything."""
    data_home = environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data_home):
        home = environ.get("HOME") or os.path.expanduser("~")
        data_home = os.path.join(home, ".local", "share")
    return os.path.join(data_home, "garage-lite")


def embedded(environ: Mapping[str, str], flags: Flags, entropy: Entropy | None) -> Config:
    """The configuration of a node that was given none: alone, on loopback, in one directory.

    With `entropy` the RPC secret is made on first use (a server); without it (a client) a
    missing one is a ConfigError.
    """
    directory = embedded_directory(environ)
    secret_file = os.path.join(directory, "rpc_secret")
    own = flags.rpc_secret is None and flags.rpc_secret_file is None
    if own and not os.path.exists(secret_file):
        if entropy is None:
            raise ConfigError(
                f"no configuration: {DEFAULT_CONFIG_FILE} does not exist and no node was started"
                f" without one (nothing in {directory}); pass -c FILE or set GARAGE_CONFIG_FILE"
            )
        write_secret(secret_file, entropy.token(RPC_SECRET_BYTES).hex())
    config = from_table(_embedded_table(directory), None, flags)
    if not own:
        return config
    text = read_secret(secret_file, config.allow_world_readable_secrets)
    return replace(config, rpc_secret=parse_rpc_secret(text))


def _embedded_table(directory: str) -> dict[str, Any]:
    return {
        "metadata_dir": os.path.join(directory, "meta"),
        "data_dir": os.path.join(directory, "data"),
        "replication_factor": 1,
        "rpc_bind_addr": "127.0.0.1:3901",
        "rpc_public_addr": "127.0.0.1:3901",
        "s3_api": {"api_bind_addr": "127.0.0.1:3900", "s3_region": "garage"},
        "admin": {"api_bind_addr": "127.0.0.1:3903"},
    }


def rpc_address(config: Config) -> Address:
    """Where the CLI on this machine finds the node: its bind address, loopback for a wildcard."""
    bound = config.rpc_bind_addr
    if isinstance(bound, TcpAddress) and bound.host in ("::", "0.0.0.0"):
        return TcpAddress("127.0.0.1", bound.port)
    return bound


def _section(table: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    section = table.get(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: [{name}] must be a section")
    return section


def _optional(
    kind: Any, table: Mapping[str, Any], name: str, keys: Mapping[str, Key], where: str
) -> Any:
    if name not in table:
        return None
    return kind(**parse_section(_section(table, name, where), name, keys, where))


def _s3_api(table: Mapping[str, Any], where: str) -> S3ApiConfig:
    """As in Garage 2.5: without a root domain, links are path style, and can't be told not to."""
    if "s3_api" not in table:
        raise ConfigError(f"{where}: the section [s3_api] is missing")
    parsed: S3ApiConfig = _optional(S3ApiConfig, table, "s3_api", S3_API_KEYS, where)
    if parsed.root_domain is None:
        if parsed.public_endpoint_path_style is False:
            raise ConfigError(
                f"{where}: s3_api.public_endpoint_path_style = false needs s3_api.root_domain"
            )
        parsed = replace(parsed, public_endpoint_path_style=True)
    return parsed


def _warnings(table: Mapping[str, Any], where: str) -> tuple[str, ...]:
    lines = []
    for keys, meaning in (
        (MEANINGLESS_KEYS, "mean nothing here and are ignored"),
        (NOT_YET_KEYS, "have no effect yet in this version"),
    ):
        present = [key for key in keys if _present(table, key)]
        if present:
            lines.append(f"{where}: these settings {meaning}: {', '.join(present)}")
    return tuple(lines)


def _present(table: Mapping[str, Any], dotted: str) -> bool:
    section, dot, key = dotted.rpartition(".")
    place = table.get(section, {}) if dot else table
    return key in place
