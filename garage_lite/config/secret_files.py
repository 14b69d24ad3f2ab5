"""Secrets: which of flag, environment and file counts, and the 0600 files they may live in.

Never puts a secret's value into an error.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from garage_lite.config.schema import parse_flag
from garage_lite.core.errors import ConfigError

RPC_SECRET_BYTES: Final = 32
_SECRET_FILE_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True)
class Flags:
    """What the command line said; None where it was silent."""

    config_file: str | None = None
    rpc_host: str | None = None
    rpc_secret: str | None = field(default=None, repr=False)
    rpc_secret_file: str | None = None
    admin_token: str | None = field(default=None, repr=False)
    admin_token_file: str | None = None
    metrics_token: str | None = field(default=None, repr=False)
    metrics_token_file: str | None = None
    allow_world_readable_secrets: bool | None = None

    def with_environment(self, environ: Mapping[str, str]) -> Flags:
        """Fill the gaps from GARAGE_*; a secret on the command line silences the
        environment's other way of giving the same one. ConfigError on a bad truth value."""

        def env(name: str) -> str | None:
            return environ.get(f"GARAGE_{name}") or None

        found: dict[str, Any] = {
            "config_file": self.config_file or env("CONFIG_FILE"),
            "rpc_host": self.rpc_host or env("RPC_HOST"),
        }
        for name in ("rpc_secret", "admin_token", "metrics_token"):
            given = getattr(self, name), getattr(self, f"{name}_file")
            if given == (None, None):
                given = env(name.upper()), env(f"{name.upper()}_FILE")
            found[name], found[f"{name}_file"] = given
        allow = self.allow_world_readable_secrets
        variable = "ALLOW_WORLD_READABLE_SECRETS"
        if allow is None and (text := env(variable)) is not None:
            try:
                allow = parse_flag(text)
            except ValueError as error:
                raise ConfigError(f"GARAGE_{variable}: {error}") from error
        return Flags(**found, allow_world_readable_secrets=allow)


def parse_rpc_secret(text: str) -> bytes:
    """The network key from its 64 hex digits. ConfigError never shows what it got."""
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) != RPC_SECRET_BYTES or len(text) != 2 * RPC_SECRET_BYTES:
        raise ConfigError("rpc_secret must be 64 hexadecimal digits (try: openssl rand -hex 32)")
    return secret


def choose_secret(
    values: Mapping[str, Any], name: str, shown: str, flags: Flags, allow: bool, where: str
) -> str | None:
    """One secret from flags (with environment) or else from the file; never from both a value
    and a file on the same level."""
    levels = (
        (getattr(flags, name), getattr(flags, f"{name}_file"), "the command line or environment"),
        (values.get(name), values.get(f"{name}_file"), where),
    )
    for value, file, level in levels:
        if value is not None and file is not None:
            raise ConfigError(f"{level}: only one of {shown} and {shown}_file can be set")
        if file is not None:
            return read_secret(file, allow)
        if value is not None:
            return str(value)
    return None


def read_secret(path: str, allow_world_readable: bool) -> str:
    """A secret file's text without trailing blanks. Others must not be able to read it."""
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o7777
            if mode & 0o077 and not allow_world_readable:
                raise ConfigError(
                    f"the secret file {path} is readable by others (mode 0{mode:o}, expected"
                    " 0600): chmod it, or set allow_world_readable_secrets = true"
                )
            return file.read(_SECRET_FILE_BYTES_MAX).rstrip()
    except OSError as error:
        raise ConfigError(f"can't read the secret file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the secret file {path} is not text") from error


def write_secret(path: str, text: str) -> None:
    """Make a 0600 file appear whole under its name, or leave the one that won the race."""
    temporary = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        os.unlink(temporary)
        directory = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ConfigError(f"can't write the secret file {path}: {error.strerror}") from error
