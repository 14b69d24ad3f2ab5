"""The keys of garage.toml: for each section, what it may hold and how each value is read.

One table a section, so that the manual and its test can list them. Parsers take what TOML gave
and return the value or raise ValueError in plain words; `parse_section` adds file and key.
Knows nothing of where secrets come from or which keys belong together.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from garage_lite.core.errors import ConfigError
from garage_lite.core.limits import KIB, MIB
from garage_lite.core.wire.address import (
    Address,
    Peer,
    parse_address,
    parse_peer,
    parse_tcp_address,
)
from garage_lite.units import parse_duration_ms, parse_size

BLOCK_BYTES_MIN: Final = 4 * KIB
BLOCK_BYTES_MAX: Final = 16 * MIB
"""Garage recommends up to 10M; beyond this a few uploads would fill a small machine's memory."""


@dataclass(frozen=True)
class Key:
    parse: Callable[[Any], Any]
    required: bool = False
    name: str | None = None
    """The `Config` field, where it differs from the key (units come last there)."""


def parse_section(
    table: Mapping[str, Any], section: str, keys: Mapping[str, Key], where: str
) -> dict[str, Any]:
    """Field name -> value for the keys present. ConfigError names file, key and remedy."""
    values: dict[str, Any] = {}
    for name, raw in table.items():
        shown = f"{section}.{name}" if section else name
        if name == "replication_mode" and not section:
            raise ConfigError(
                f"{where}: replication_mode is no longer supported; use replication_factor"
                " (and consistency_mode) instead"
            )
        if not section and name in SECTIONS:
            continue
        key = keys.get(name)
        if key is None:
            raise ConfigError(_unknown(name, shown, section, keys, where))
        try:
            values[key.name or name] = key.parse(raw)
        except ValueError as error:
            raise ConfigError(f"{where}: {shown}: {error}") from error
    for name, key in keys.items():
        if key.required and name not in table:
            shown = f"{section}.{name}" if section else name
            raise ConfigError(f"{where}: the key {shown} is missing")
    return values


def _unknown(name: str, shown: str, section: str, keys: Mapping[str, Key], where: str) -> str:
    known = [*keys, *(() if section else SECTIONS)]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    homes = [home for home, others in SECTIONS.items() if name in others]
    if section and name in ROOT_KEYS:
        hint = f"{name} belongs at the top of the file, before the first section"
    elif homes:
        hint = f"{name} belongs in [{homes[0]}]"
    elif close:
        hint = f"did you mean {section + '.' if section else ''}{close[0]}?"
    else:
        hint = "see the manual for the known keys"
    return f"{where}: unknown key {shown} ({hint})"


def parse_flag(text: str) -> bool:
    """A truth value of the environment."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise ValueError(f"expected true or false, got {text!r}")


def _string(raw: Any) -> str:
    if not isinstance(raw, str) or not raw:
        raise ValueError("expected a text in quotes")
    return raw


def _bool(raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise ValueError(f"expected true or false, got {raw!r}")
    return raw


def _strings(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list):
        raise ValueError("expected a list of texts")
    return tuple(_string(item) for item in raw)


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def parse(raw: Any) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= high:
            raise ValueError(f"expected a whole number from {low} to {high}, got {raw!r}")
        return raw

    return parse


def _size(low: int = 0, high: int = 2**63 - 1) -> Callable[[Any], int]:
    def parse(raw: Any) -> int:
        size = raw if isinstance(raw, int) and not isinstance(raw, bool) else None
        if size is None:
            size = parse_size(_string(raw))
        if not low <= size <= high:
            raise ValueError(f"{raw!r} is out of range; expected {low} to {high} bytes")
        return size

    return parse


def _duration(raw: Any) -> int:
    milliseconds = parse_duration_ms(_string(raw))
    if milliseconds < 60_000:
        raise ValueError(f"{raw!r} is too short; expected a minute at least")
    return milliseconds


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def parse(raw: Any) -> str:
        if raw not in allowed:
            raise ValueError(f"expected {' or '.join(allowed)}, got {raw!r}")
        return str(raw)

    return parse


def _address(raw: Any) -> Address:
    return parse_address(_string(raw))


def _public_address(raw: Any) -> str:
    return str(parse_tcp_address(_string(raw)))


def _subnet(raw: Any) -> str:
    import ipaddress

    return str(ipaddress.ip_network(_string(raw), strict=False))


def _peers(raw: Any) -> tuple[Peer, ...]:
    return tuple(parse_peer(text) for text in _strings(raw))


def _endpoint(raw: Any) -> str:
    """A URL with a scheme: Garage takes one without and then can't use it."""
    text = _string(raw)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"expected a URL such as https://s3.example.org, got {text!r}")
    return text


def _compression(raw: Any) -> int | None:
    if isinstance(raw, str) and raw.lower() == "none":
        return None
    try:
        return _integer(-99, 22)(raw)
    except ValueError:
        raise ValueError(f'expected a zstd level from -99 to 22, or "none"; got {raw!r}') from None


def _data_dir(raw: Any) -> tuple[dict[str, Any], ...]:
    if isinstance(raw, str) and raw:
        return ({"path": raw},)
    if not isinstance(raw, list) or not raw:
        raise ValueError('expected a path, or a list of { path = "...", capacity = "..." }')
    entries = tuple(_data_dir_entry(entry) for entry in raw)
    paths = [entry["path"] for entry in entries]
    if len(set(paths)) < len(paths):
        raise ValueError("the same path is listed twice")
    if all(entry["read_only"] for entry in entries):
        raise ValueError("at least one directory must be writable")
    return entries


def _data_dir_entry(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict) or not isinstance(raw.get("path"), str) or not raw["path"]:
        raise ValueError('each entry needs a path: { path = "...", capacity = "..." }')
    path = raw["path"]
    for name in raw:
        if name not in ("path", "capacity", "read_only"):
            raise ValueError(f"{path}: unknown key {name}; expected path, capacity, read_only")
    read_only = _bool(raw.get("read_only", False))
    if read_only == ("capacity" in raw):
        raise ValueError(f"{path}: give either a capacity or read_only = true")
    capacity = None if read_only else _size(low=1)(raw["capacity"])
    return {"path": path, "capacity": capacity, "read_only": read_only}


def _pairs(raw: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(raw, dict):
        raise ValueError("expected a section of texts")
    return tuple((name, _string(value)) for name, value in raw.items())


def _anything(raw: Any) -> None:
    return None


_MILLISECONDS: Final = _integer(1, 3_600_000)

ROOT_KEYS: Final[Mapping[str, Key]] = {
    "metadata_dir": Key(_string, required=True),
    "data_dir": Key(_data_dir, required=True),
    "metadata_snapshots_dir": Key(_string),
    "metadata_fsync": Key(_bool),
    "data_fsync": Key(_bool),
    "metadata_auto_snapshot_interval": Key(_duration, name="metadata_auto_snapshot_interval_ms"),
    "db_engine": Key(_anything),
    "lmdb_map_size": Key(_anything),
    "fjall_block_cache_size": Key(_anything),
    "disable_scrub": Key(_bool),
    "use_local_tz": Key(_bool),
    "block_size": Key(_size(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX)),
    "block_ram_buffer_max": Key(_size(MIB)),
    "block_max_concurrent_reads": Key(_integer(1, 1024)),
    "block_max_concurrent_writes_per_request": Key(_integer(1, 64)),
    "compression_level": Key(_compression),
    "replication_factor": Key(_integer(1, 16), required=True),
    "data_replication_factor": Key(_integer(1, 16)),
    "consistency_mode": Key(_one_of("consistent", "degraded", "dangerous")),
    "rpc_secret": Key(_string),
    "rpc_secret_file": Key(_string),
    "rpc_admission": Key(_one_of("secret", "explicit")),
    "rpc_bind_addr": Key(_address, required=True),
    "rpc_bind_outgoing": Key(_bool),
    "rpc_public_addr": Key(_public_address),
    "rpc_public_addr_subnet": Key(_subnet),
    "rpc_timeout_msec": Key(_MILLISECONDS, name="rpc_timeout_ms"),
    "rpc_ping_timeout_msec": Key(_MILLISECONDS, name="rpc_ping_timeout_ms"),
    "bootstrap_peers": Key(_peers),
    "allow_world_readable_secrets": Key(_bool),
    "allow_punycode": Key(_bool),
}

S3_API_KEYS: Final[Mapping[str, Key]] = {
    "api_bind_addr": Key(_address),
    "s3_region": Key(_string, required=True),
    "root_domain": Key(_string),
    "public_endpoint": Key(_endpoint),
    "public_endpoint_path_style": Key(_bool),
}

K2V_API_KEYS: Final[Mapping[str, Key]] = {
    "api_bind_addr": Key(_address, required=True),
    "public_endpoint": Key(_endpoint),
}

S3_WEB_KEYS: Final[Mapping[str, Key]] = {
    "bind_addr": Key(_address, required=True),
    "root_domain": Key(_string),
    "add_host_to_metrics": Key(_bool),
}

ADMIN_KEYS: Final[Mapping[str, Key]] = {
    "api_bind_addr": Key(_address),
    "admin_token": Key(_string),
    "admin_token_file": Key(_string),
    "metrics_token": Key(_string),
    "metrics_token_file": Key(_string),
    "metrics_require_token": Key(_bool),
    "trace_sink": Key(_string),
}

CONSUL_KEYS: Final[Mapping[str, Key]] = {
    "api": Key(_one_of("catalog", "agent")),
    "consul_http_addr": Key(_string, required=True),
    "service_name": Key(_string, required=True),
    "ca_cert": Key(_string),
    "client_cert": Key(_string),
    "client_key": Key(_string),
    "token": Key(_string),
    "tls_skip_verify": Key(_bool),
    "tags": Key(_strings),
    "meta": Key(_pairs),
    "datacenters": Key(_strings),
}

KUBERNETES_KEYS: Final[Mapping[str, Key]] = {
    "namespace": Key(_string, required=True),
    "service_name": Key(_string, required=True),
    "skip_crd": Key(_bool),
}

SECTIONS: Final[Mapping[str, Mapping[str, Key]]] = {
    "s3_api": S3_API_KEYS,
    "k2v_api": K2V_API_KEYS,
    "s3_web": S3_WEB_KEYS,
    "admin": ADMIN_KEYS,
    "consul_discovery": CONSUL_KEYS,
    "kubernetes_discovery": KUBERNETES_KEYS,
}

MEANINGLESS_KEYS: Final = ("db_engine", "lmdb_map_size", "fjall_block_cache_size")
"""They tune a database that isn't here. `garage.toml` may keep them."""

NOT_YET_KEYS: Final = (
    "use_local_tz",
    "k2v_api.api_bind_addr",
    "s3_web.bind_addr",
    "admin.metrics_token",
    "admin.metrics_token_file",
    "admin.metrics_require_token",
    "admin.trace_sink",
)
"""Features of a later version; each leaves this list with the change that brings it."""
