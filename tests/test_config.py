"""garage.toml and the environment: what is read, what is refused and in which words."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from garage_lite import config as subject
from garage_lite.config import Config, embedded, find_config_file, load, require_rpc_secret
from garage_lite.config.joined import write_joined
from garage_lite.config.schema import MEANINGLESS_KEYS, ROOT_KEYS, SECTIONS
from garage_lite.config.secret_files import Flags
from garage_lite.core.block.markers import DataDirectory
from garage_lite.core.errors import ConfigError
from garage_lite.core.limits import BLOCK_BYTES, MEMORY_BODY_BUFFERS
from garage_lite.core.wire.address import TcpAddress, UnixAddress

SECRET = "4425f5c26c5e11581d3223904324dcb5b5d5dfb14e5e7f35e38c595424f5f1e6"
NODE = "ab" * 32

MINIMAL = f"""
metadata_dir = "/var/lib/garage/meta"
data_dir = "/var/lib/garage/data"
replication_factor = 1
rpc_bind_addr = "[::]:3901"
rpc_secret = "{SECRET}"
@
[s3_api]
s3_region = "garage"
"""

EVERYTHING = f"""
metadata_dir = "/m"
data_dir = [ {{ path = "/d1", capacity = "2T" }}, {{ path = "/d2", read_only = true }} ]
metadata_snapshots_dir = "/snap"
metadata_fsync = false
data_fsync = false
metadata_auto_snapshot_interval = "6h"
db_engine = "lmdb"
lmdb_map_size = "1T"
fjall_block_cache_size = 1000
disable_scrub = true
use_local_tz = true
block_size = "10M"
block_ram_buffer_max = "256 MiB"
block_max_concurrent_reads = 4
block_max_concurrent_writes_per_request = 10
compression_level = "none"
replication_factor = 3
data_replication_factor = 2
consistency_mode = "degraded"
rpc_secret = "{SECRET}"
rpc_bind_addr = "127.0.0.1:3901"
rpc_bind_outgoing = true
rpc_admission = "explicit"
rpc_public_addr = "node.example:3901"
rpc_public_addr_subnet = "10.0.0.0/8"
rpc_timeout_msec = 10000
rpc_ping_timeout_msec = 5000
bootstrap_peers = [ "{NODE}@10.0.0.2:3901" ]
allow_world_readable_secrets = true
allow_punycode = true
[s3_api]
api_bind_addr = "/run/garage/s3.sock"
s3_region = "eu"
root_domain = ".s3.example"
public_endpoint = "https://s3.example:8443"
public_endpoint_path_style = false
[k2v_api]
api_bind_addr = "[::]:3904"
public_endpoint = "https://k2v.example"
[s3_web]
bind_addr = "[::]:3902"
root_domain = ".web.example"
add_host_to_metrics = true
[admin]
api_bind_addr = "[::]:3903"
admin_token = "adm"
metrics_token = "met"
metrics_require_token = true
trace_sink = "http://otel:4317"
[consul_discovery]
api = "agent"
consul_http_addr = "http://consul:8500"
service_name = "garage"
ca_cert = "ca"
client_cert = "cert"
client_key = "key"
token = "consul token"
tls_skip_verify = true
tags = [ "a", "b" ]
datacenters = [ "dc1" ]
meta = {{ region = "x" }}
[kubernetes_discovery]
namespace = "storage"
service_name = "garage"
skip_crd = true
"""


class Fixed:
    """An Entropy that isn't."""

    def token(self, length: int) -> bytes:
        return b"\x5a" * length


def read(
    directory: Path,
    more: str = "",
    flags: Flags | None = None,
    environ: Mapping[str, str] | None = None,
    text: str = MINIMAL,
) -> Config:
    path = directory / "garage.toml"
    path.write_text(text.replace("@", more))
    return load(str(path), (flags or Flags()).with_environment(environ or {}))


def test_a_minimal_file_and_our_defaults(tmp_path: Path) -> None:
    config = read(tmp_path)
    assert config.data_dir == (DataDirectory("/var/lib/garage/data"),)
    assert config.rpc_bind_addr == TcpAddress("::", 3901)
    assert config.rpc_secret == bytes.fromhex(SECRET)
    assert config.metadata_fsync and config.data_fsync
    assert config.block_size == BLOCK_BYTES
    assert config.block_ram_buffer_max == MEMORY_BODY_BUFFERS
    assert config.compression_level == 1
    assert config.s3_api.public_endpoint_path_style is True
    assert config.warnings == ()
    assert config.source == str(tmp_path / "garage.toml")


def test_every_key_is_read(tmp_path: Path) -> None:
    path = tmp_path / "garage.toml"
    path.write_text(EVERYTHING)
    config = load(str(path), Flags())
    assert config.data_dir == (
        DataDirectory("/d1", 2 * 10**12, False),
        DataDirectory("/d2", None, True),
    )
    assert config.metadata_auto_snapshot_interval_ms == 6 * 3_600_000
    assert (config.block_size, config.block_ram_buffer_max) == (10**7, 256 << 20)
    assert config.compression_level is None
    assert (config.metadata_fsync, config.data_fsync) == (False, False)
    assert (config.rpc_timeout_ms, config.rpc_ping_timeout_ms) == (10_000, 5000)
    assert str(config.bootstrap_peers[0]) == f"{NODE}@10.0.0.2:3901"
    assert config.s3_api.api_bind_addr == UnixAddress("/run/garage/s3.sock")
    assert config.s3_api.public_endpoint_path_style is False
    assert config.k2v_api is not None and config.s3_web is not None
    assert config.admin.metrics_require_token
    assert config.consul_discovery is not None and config.kubernetes_discovery is not None
    assert config.consul_discovery.meta == (("region", "x"),)
    ignored, later = config.warnings
    assert ignored.endswith(
        "mean nothing here and are ignored: db_engine, lmdb_map_size, fjall_block_cache_size"
    )
    assert "have no effect yet" in later and "k2v_api" in later


def test_the_example_above_names_every_key() -> None:
    """So that a key added to the schema is added to the test of all of them."""
    keys = [*ROOT_KEYS, *(key for section in SECTIONS.values() for key in section)]
    missing = [key for key in keys if f"{key} =" not in EVERYTHING and not key.endswith("_file")]
    assert not missing
    assert set(MEANINGLESS_KEYS) <= set(ROOT_KEYS)


def test_secrets_never_show(tmp_path: Path) -> None:
    path = tmp_path / "garage.toml"
    path.write_text(EVERYTHING)
    shown = repr(load(str(path), Flags(rpc_secret="ee" * 32, admin_token="hunter2")))
    for secret in (SECRET, "hunter2", "'met'", "consul token", repr(b"\xee" * 32)):
        assert secret not in shown
    assert "hunter2" not in repr(Flags(admin_token="hunter2"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("blok_size = 1", "unknown key blok_size (did you mean block_size?)"),
        ("xyz = 1", "unknown key xyz (see the manual for the known keys)"),
        ('admin_token = "x"', "unknown key admin_token (admin_token belongs in [admin])"),
        ("[admin]\nblock_size = 1", "block_size belongs at the top of the file"),
        ("[admin]\napi_bind_adr = 1", "unknown key admin.api_bind_adr (did you mean admin.api_bi"),
        ('replication_mode = "3"', "replication_mode is no longer supported"),
        ("block_size = 100", "block_size: 100 is out of range; expected 4096 to 16777216 bytes"),
        ('block_size = "1X"', "block_size: '1X' is no size; expected for example 500, 10M"),
        ("block_size = true", "block_size: expected a text in quotes"),
        ("block_max_concurrent_reads = 0", "expected a whole number from 1 to 1024, got 0"),
        ("data_fsync = 1", "data_fsync: expected true or false, got 1"),
        ("compression_level = 23", 'expected a zstd level from -99 to 22, or "none"; got 23'),
        ('consistency_mode = "strong"', "expected consistent or degraded or dangerous, got 'stro"),
        ('metadata_auto_snapshot_interval = "6x"', "'6x' is no duration; expected for example"),
        ('metadata_auto_snapshot_interval = "1s"', "too short; expected a minute at least"),
        ('rpc_public_addr = "host"', "rpc_public_addr: 'host' is no address"),
        ('rpc_public_addr_subnet = "x"', "rpc_public_addr_subnet: 'x' does not appear to be"),
        ('bootstrap_peers = ["x@h:1"]', "a node id is 64 hexadecimal digits"),
        ("bootstrap_peers = 1", "expected a list of texts"),
        ('rpc_secret_file = "/x"', "only one of rpc_secret and rpc_secret_file can be set"),
        ("admin = 1", "[admin] must be a section"),
        ("[s3_web]\n", "the key s3_web.bind_addr is missing"),
        ("[k2v_api]\npublic_endpoint = 'h:1'", "expected a URL such as https://s3.example.org"),
        ("[admin]\nadmin_token = ''", "admin.admin_token: expected a text in quotes"),
        ("[consul_discovery]\napi = 'x'", "consul_discovery.api: expected catalog or agent"),
        ("[consul_discovery]\nmeta = 1", "consul_discovery.meta: expected a section of texts"),
        ("= 3", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, line)
    assert str(tmp_path / "garage.toml") in caught.value.message or "rpc_secret" in message
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[]", "expected a path, or a list of"),
        ('""', "expected a path, or a list of"),
        ('["/d"]', "each entry needs a path"),
        ('[{path="/d"}]', "/d: give either a capacity or read_only = true"),
        ('[{path="/d", capacity="1G", read_only=true}]', "give either a capacity or read_only"),
        ('[{path="/d", capacity=0}]', "0 is out of range"),
        ('[{path="/d", size="1G"}]', "/d: unknown key size"),
        ('[{path="/d", capacity="1G"}, {path="/d", read_only=true}]', "listed twice"),
        ('[{path="/d", read_only=true}]', "at least one directory must be writable"),
    ],
)
def test_wrong_data_directories(tmp_path: Path, value: str, message: str) -> None:
    text = MINIMAL.replace('data_dir = "/var/lib/garage/data"', f"data_dir = {value}")
    with pytest.raises(ConfigError, match="data_dir: ") as caught:
        read(tmp_path, text=text)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "key", ["metadata_dir", "data_dir", "replication_factor", "rpc_bind_addr", "s3_region"]
)
def test_missing_keys(tmp_path: Path, key: str) -> None:
    text = "\n".join(line for line in MINIMAL.splitlines() if not line.startswith(key))
    with pytest.raises(ConfigError, match=f"the key (s3_api.)?{key} is missing"):
        read(tmp_path, text=text)


def test_path_style_needs_no_root_domain_but_the_other_does(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs s3_api\.root_domain"):
        read(tmp_path, text=MINIMAL + "public_endpoint_path_style = false")
    config = read(tmp_path, text=MINIMAL + 'root_domain = ".s3.x"')
    assert config.s3_api.public_endpoint_path_style is None


def test_relative_directories_become_absolute(tmp_path: Path) -> None:
    config = read(tmp_path, text=MINIMAL.replace("/var/lib/garage/", "x/"))
    assert config.metadata_dir == os.path.abspath("x/meta")
    assert config.data_dir[0].path == os.path.abspath("x/data")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"can't read .*nothing\.toml: No such file"):
        load(str(tmp_path / "nothing.toml"), Flags())


# --- secrets and the environment

ONE, TWO, THREE = "11" * 32, "22" * 32, "33" * 32


@pytest.mark.parametrize(
    ("flag", "environment", "expected"),
    [
        (None, {}, SECRET),
        (None, {"GARAGE_RPC_SECRET": ONE}, ONE),
        (TWO, {"GARAGE_RPC_SECRET": ONE}, TWO),
        (TWO, {"GARAGE_RPC_SECRET_FILE": "/nothing"}, TWO),
        (None, {"GARAGE_RPC_SECRET": ""}, SECRET),
    ],
)
def test_flag_over_environment_over_file(
    tmp_path: Path, flag: str | None, environment: dict[str, str], expected: str
) -> None:
    config = read(tmp_path, flags=Flags(rpc_secret=flag), environ=environment)
    assert config.rpc_secret == bytes.fromhex(expected)


def test_tokens_from_the_environment(tmp_path: Path) -> None:
    environ = {"GARAGE_ADMIN_TOKEN": "a", "GARAGE_METRICS_TOKEN": "m"}
    admin = read(tmp_path, '[admin]\nadmin_token = "file"', environ=environ).admin
    assert (admin.admin_token, admin.metrics_token) == ("a", "m")


def secret_file(directory: Path, mode: int, text: str = THREE + "\n") -> str:
    path = directory / "secret"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_a_secret_file_must_be_private(tmp_path: Path) -> None:
    path = secret_file(tmp_path, 0o644)
    flags = Flags(rpc_secret_file=path)
    with pytest.raises(ConfigError, match=r"readable by others \(mode 0644, expected 0600\)"):
        read(tmp_path, flags=flags)
    allowed = (
        {"more": "allow_world_readable_secrets = true"},
        {"environ": {"GARAGE_ALLOW_WORLD_READABLE_SECRETS": "true"}},
    )
    arguments: Any
    for arguments in allowed:
        config = read(tmp_path, flags=flags, **arguments)
        assert config.rpc_secret == bytes.fromhex(THREE)
    strict = Flags(rpc_secret_file=path, allow_world_readable_secrets=False)
    with pytest.raises(ConfigError, match="readable by others"):
        read(tmp_path, "allow_world_readable_secrets = true", flags=strict)
    secret_file(tmp_path, 0o600)
    assert read(tmp_path, flags=flags).rpc_secret == bytes.fromhex(THREE)


def test_a_secret_file_named_in_the_file(tmp_path: Path) -> None:
    path = secret_file(tmp_path, 0o400)
    text = MINIMAL.replace(f'rpc_secret = "{SECRET}"', f'rpc_secret_file = "{path}"')
    assert read(tmp_path, text=text).rpc_secret == bytes.fromhex(THREE)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (Flags(rpc_secret="abc"), "rpc_secret must be 64 hexadecimal digits"),
        (Flags(rpc_secret=ONE + "  "), "rpc_secret must be 64 hexadecimal digits"),
        (Flags(rpc_secret_file="/nothing/here"), "can't read the secret file /nothing/here"),
        (Flags(rpc_secret=ONE, rpc_secret_file="/x"), "only one of rpc_secret and rpc_secret_file"),
    ],
)
def test_wrong_secrets(tmp_path: Path, flags: Flags, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, flags=flags)
    assert message in caught.value.message
    assert not flags.rpc_secret or flags.rpc_secret not in caught.value.message


def test_a_file_without_secret_is_read_but_no_server_starts(tmp_path: Path) -> None:
    config = read(tmp_path, text=MINIMAL.replace("rpc_secret", "# rpc_secret"))
    assert config.rpc_secret is None
    with pytest.raises(ConfigError, match="has no rpc_secret: set rpc_secret or"):
        require_rpc_secret(config)


def test_a_node_that_joined_has_its_secret_from_there(tmp_path: Path) -> None:
    metadata = str(tmp_path / "meta")
    peer = "ab" * 32 + "@[2001:db8::7]:3901"
    write_joined(metadata, "cd" * 32, "explicit", [peer])
    text = MINIMAL.replace("rpc_secret", "# rpc_secret")
    text = re.sub(r"metadata_dir = .*", f'metadata_dir = "{metadata}"', text)
    config = read(tmp_path, text=text)
    assert require_rpc_secret(config) == b"\xcd" * 32
    assert config.rpc_admission == "explicit"
    assert [str(found) for found in config.bootstrap_peers] == [peer]
    own = read(tmp_path, text=text.replace("# rpc_secret", "rpc_secret"))
    assert own.rpc_secret != config.rpc_secret
    assert own.rpc_admission == "secret"


def test_what_a_node_joined_may_be_damaged(tmp_path: Path) -> None:
    metadata = tmp_path / "meta"
    metadata.mkdir()
    text = MINIMAL.replace("rpc_secret", "# rpc_secret")
    text = re.sub(r"metadata_dir = .*", f'metadata_dir = "{metadata}"', text)
    joined = metadata / "joined.toml"
    for damaged in ("rpc_secret = 5", "what", 'data_dir = "/elsewhere"'):
        joined.write_text(damaged)
        joined.chmod(0o600)
        with pytest.raises(ConfigError, match="joined.toml"):
            read(tmp_path, text=text)
    joined.chmod(0o644)
    with pytest.raises(ConfigError, match="readable by others"):
        read(tmp_path, text=text)


def test_a_bad_truth_value_in_the_environment() -> None:
    with pytest.raises(ConfigError, match="GARAGE_ALLOW_WORLD_READABLE_SECRETS: expected true"):
        Flags().with_environment({"GARAGE_ALLOW_WORLD_READABLE_SECRETS": "maybe"})


def test_which_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "DEFAULT_CONFIG_FILE", str(tmp_path / "default.toml"))
    environ = {"GARAGE_CONFIG_FILE": "/e"}
    assert find_config_file(Flags(config_file="/f").with_environment(environ)) == "/f"
    assert find_config_file(Flags().with_environment(environ)) == "/e"
    assert find_config_file(Flags()) is None
    (tmp_path / "default.toml").touch()
    assert find_config_file(Flags()) == str(tmp_path / "default.toml")


# --- a node that was given nothing


def test_the_embedded_default(tmp_path: Path) -> None:
    environ = {"XDG_DATA_HOME": str(tmp_path)}
    config = embedded(environ, Flags(), Fixed())
    home = tmp_path / "garage-lite"
    assert config.metadata_dir == str(home / "meta")
    assert config.rpc_secret == b"\x5a" * 32
    assert (home / "rpc_secret").stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in home.iterdir()) == ["rpc_secret"]
    addresses = (
        config.s3_api.api_bind_addr,
        config.rpc_bind_addr,
        config.admin.api_bind_addr,
    )
    assert addresses == tuple(TcpAddress("127.0.0.1", port) for port in (3900, 3901, 3903))
    assert config.warnings == (), "a first start has nothing to warn of"
    assert (config.s3_api.s3_region, config.replication_factor) == ("garage", 1)

    again = embedded(environ, Flags(), None)
    assert again == config, "the CLI finds the secret that the server made"


def test_the_embedded_default_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration: "):
        embedded({"HOME": str(tmp_path)}, Flags(), None)
    config = embedded({"HOME": str(tmp_path), "XDG_DATA_HOME": "relative"}, Flags(), Fixed())
    assert config.metadata_dir == str(tmp_path / ".local/share/garage-lite/meta")
    given = embedded({"HOME": str(tmp_path)}, Flags(rpc_secret=ONE), None)
    assert given.rpc_secret == bytes.fromhex(ONE)


def test_the_embedded_secret_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "garage-lite").touch()
    with pytest.raises(ConfigError, match="can't write the secret file"):
        embedded({"XDG_DATA_HOME": str(tmp_path)}, Flags(), Fixed())
