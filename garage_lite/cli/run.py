"""From a parsed command to a running one: settings, the node to talk to, errors in one line.

Imports what a command needs and nothing else: only `server` loads the node.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from garage_lite.cli.parse import Values
from garage_lite.config import Config, embedded, find_config_file, load
from garage_lite.config.secret_files import Flags
from garage_lite.core.errors import GarageLiteError

CALL_SECONDS: Final = 60.0
"""More than a node waits for another."""


class CommandFailed(Exception):
    """The command can't be done; the message is for the person who typed it."""


class Api:
    """The Admin API's operations on one node, by name."""

    def __init__(self, call: Callable[[str, Any, float], Awaitable[Any]], node: str) -> None:
        """`call(operation, parameters, seconds it may take)`."""
        self._call = call
        self.node = node
        """Hex id of the node talked to."""

    async def call(
        self, operation: str, parameters: Any = None, seconds: float = CALL_SECONDS
    ) -> Any:
        """The operation's JSON. CommandFailed with its code and message."""
        from garage_lite.core.wire.messages import PeerFailed

        try:
            return await self._call(operation, {} if parameters is None else parameters, seconds)
        except PeerFailed as error:
            shown = f"{error.code} ({error.status})" if error.status else error.code
            raise CommandFailed(f"{operation} returned {shown}: {error.message}") from error

    async def on_node(self, operation: str, body: Any = None, *, node: str | None = None) -> Any:
        """A per-node operation's answer from one node: as in `on_nodes`."""
        answers = await self.on_nodes(operation, False, body, node=node)
        for message in answers["error"].values():
            raise CommandFailed(message)
        for answer in answers["success"].values():
            return answer
        raise CommandFailed(f"{operation}: no node answered")

    async def on_nodes(
        self,
        operation: str,
        all_nodes: bool,
        body: Any = None,
        *,
        node: str | None = None,
        seconds: float = CALL_SECONDS,
    ) -> Any:
        """A per-node operation's {success: {node: answer}, error: {node: message}}: of all nodes,
        of the one whose id begins with `node`, or of the one talked to."""
        if all_nodes and node is not None:
            raise CommandFailed("Please specify only --all-nodes or --node")
        target = "*" if all_nodes else node or self.node
        parameters = {"node": target, "body": {} if body is None else body}
        return await self.call(operation, parameters, seconds)


class Context:
    """What a command has to work with."""

    def __init__(self, values: Values, environ: Mapping[str, str]) -> None:
        self.values = values
        self.environ = environ
        self.flags = Flags(
            config_file=values["config"],
            rpc_host=values["rpc_host"],
            rpc_secret=values["rpc_secret"],
            rpc_secret_file=values["rpc_secret_file"],
            admin_token=values["admin_token"],
            admin_token_file=values["admin_token_file"],
            metrics_token=values["metrics_token"],
            metrics_token_file=values["metrics_token_file"],
            allow_world_readable_secrets=values["allow_world_readable_secrets"] or None,
        ).with_environment(environ)
        self._config: Config | None = None

    @property
    def config(self) -> Config:
        """The configuration in force; read on first use. ConfigError."""
        if self._config is None:
            path = find_config_file(self.flags)
            if path is None:
                self._config = embedded(self.environ, self.flags, None)
            else:
                self._config = load(path, self.flags)
        return self._config

    @property
    def has_config(self) -> bool:
        """Whether the command read a configuration."""
        return self._config is not None


def run(target: str, values: Values, environ: Mapping[str, str]) -> int:
    """Run `module:function` of this package: a plain one gets the Context, an async one the
    node's Api as well. The exit code is what it returns, 0 for None."""
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(f"garage_lite.cli.{module}"), name)
    try:
        context = Context(values, environ)
        if asyncio.iscoroutinefunction(function):
            return asyncio.run(_remote(function, context)) or 0
        return function(context) or 0
    except (CommandFailed, GarageLiteError) as error:
        message = error.message if isinstance(error, GarageLiteError) else str(error)
        print(f"Error: {message}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stdout = None  # whoever read our output has left; nothing to flush at exit
        return 1
    except KeyboardInterrupt:
        return 130


async def _remote(function: Callable[[Context, Api], Awaitable[Any]], context: Context) -> Any:
    from garage_lite.cli.connect import open_client
    from garage_lite.core.cluster.rpc import JSON_API

    async with open_client(context) as (client, node):

        async def call(operation: str, parameters: Any, seconds: float) -> Any:
            return await client.call(JSON_API, [operation, parameters], seconds)

        return await function(context, Api(call, node))
