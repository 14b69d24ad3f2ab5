"""Every command of Garage 2.5, as a table: its words, arguments, options, and what runs it.

A command whose feature this version lacks has no `run`: it is known, and says so. `completions`
and the manual's test read the same table.
"""

from __future__ import annotations

from typing import Final

from garage_lite.cli.parse import Command, Commands, Option, Positional


def _value(name: str, value: str, about: str, short: str | None = None) -> Option:
    return Option((short, name) if short else (name,), about, value)


def _flag(name: str, about: str, short: str | None = None) -> Option:
    return Option((short, name) if short else (name,), about)


GLOBAL_OPTIONS: Final = (
    _value("--config", "FILE", "Configuration file [GARAGE_CONFIG_FILE, /etc/garage.toml]", "-c"),
    _value("--rpc-host", "ID@HOST:PORT", "Node to talk to [GARAGE_RPC_HOST]", "-h"),
    _value("--rpc-secret", "HEX", "The cluster's secret [GARAGE_RPC_SECRET]", "-s"),
    _value("--rpc-secret-file", "FILE", "File that holds it [GARAGE_RPC_SECRET_FILE]"),
    _value("--admin-token", "TOKEN", "Admin API token [GARAGE_ADMIN_TOKEN]"),
    _value("--admin-token-file", "FILE", "File that holds it [GARAGE_ADMIN_TOKEN_FILE]"),
    _value("--metrics-token", "TOKEN", "Metrics token [GARAGE_METRICS_TOKEN]"),
    _value("--metrics-token-file", "FILE", "File that holds it [GARAGE_METRICS_TOKEN_FILE]"),
    _flag("--allow-world-readable-secrets", "Accept secret files that others can read"),
)

_YES: Final = _flag("--yes", "Really do it")
_ALL: Final = _flag("--all-nodes", "On all nodes of the cluster", "-a")
_ON: Final = _value("--node", "NODE", "On this node: its id, or a unique prefix")
_LOCAL: Final = _value("--local", "KEY", "In the name space of this access key")
_EXPIRES: Final = _value("--expires-in", "DURATION", "Valid for this long, for example 90d")
_NEVER: Final = _flag("--never-expires", "Valid for ever")
_SCOPE: Final = _value("--scope", "NAMES", "API endpoints it may use, separated by commas, or *")
_PERMISSIONS: Final = (
    Option(("--key",), "Access key: id, name or unique prefix", "KEY", required=True),
    _flag("--read", "Reading objects"),
    _flag("--write", "Writing objects"),
    _flag("--owner", "Settings of the bucket"),
)
_NODE: Final = Positional("NODE", "Node id, or a unique prefix")
_BUCKET: Final = Positional("BUCKET", "Bucket: a global alias, or an id or its prefix")
_KEY: Final = Positional("KEY", "Access key: id, name or unique prefix")
_TOKEN: Final = Positional("TOKEN", "Token: id, name or unique prefix")


def _command(
    path: str,
    about: str,
    *arguments: Positional | Option,
    run: str | None = None,
    hidden: bool = False,
) -> Command:
    return Command(
        tuple(path.split()),
        about,
        tuple(a for a in arguments if isinstance(a, Positional)),
        tuple(a for a in arguments if isinstance(a, Option)),
        run,
        hidden,
    )


_NODE_COMMANDS: Final = (
    _command(
        "server",
        "Run the node",
        _flag("--single-node", "Set up a layout of this node alone"),
        _flag("--default-access-key", "Make the key of GARAGE_DEFAULT_ACCESS_KEY, ..._SECRET_KEY"),
        _flag("--default-bucket", "Make the bucket GARAGE_DEFAULT_BUCKET for that key"),
        run="server:server",
    ),
    _command("status", "Nodes of the cluster", run="status:status"),
    _command(
        "health",
        "Health of the cluster; exit code 1 if it is unavailable",
        _flag("--quiet", "Print nothing", "-q"),
        run="status:health",
    ),
    _command(
        "node id",
        "Print this node's id and address",
        _flag("--quiet", "Print the id alone", "-q"),
        run="server:node_id",
    ),
    _command(
        "node connect",
        "Connect to a node",
        Positional("PEER", "<64 hex digits>@<host>:<port>"),
        run="nodes:connect",
    ),
    _command(
        "node invite",
        "Make a join string, with which one new node can join the cluster",
        _value("--expires-in", "DURATION", "Valid for this long [24h]"),
        _flag("--quiet", "Print the join string alone", "-q"),
        run="nodes:invite",
    ),
    _command(
        "node join",
        "Join the cluster that a join string invites to; the node must not run",
        Positional("STRING", "The join string"),
        run="join:join",
    ),
    _command(
        "node admit",
        "Admit a node's key to the cluster, also one that was removed",
        Positional("ID", "64 hex digits"),
        run="nodes:admit",
    ),
    _command(
        "node remove",
        "Shut a node's key out of the cluster",
        _YES,
        Positional("ID", "64 hex digits"),
        run="nodes:remove",
    ),
    _command("stats", "Statistics of the node and the cluster", _ALL, _ON, run="status:stats"),
    _command(
        "worker list",
        "Background workers",
        _flag("--busy", "Only those at work", "-b"),
        _flag("--errors", "Only those with errors", "-e"),
        _ON,
        run="maintenance:worker_list",
    ),
    _command(
        "worker info",
        "One worker in detail",
        Positional("TID", "Task id"),
        _ON,
        run="maintenance:worker_info",
    ),
    _command(
        "worker get",
        "Show the workers' variables",
        _ALL,
        _ON,
        Positional("VARIABLE", "Which; all if left out", required=False),
        run="maintenance:worker_get",
    ),
    _command(
        "worker set",
        "Set a variable",
        _ALL,
        _ON,
        Positional("VARIABLE", "Which"),
        Positional("VALUE", "To what"),
        run="maintenance:worker_set",
    ),
    _command(
        "block list-errors",
        "Blocks that could not be synced",
        _ON,
        run="blocks:block_errors",
    ),
    _command(
        "block info",
        "Where a block is referenced",
        Positional("HASH", "Hash, or prefix"),
        run="blocks:block_info",
    ),
    _command(
        "block retry-now",
        "Sync blocks again now",
        _flag("--all", "All that had errors"),
        _ON,
        Positional("HASH", "Hashes", required=False, many=True),
        run="blocks:block_retry",
    ),
    _command(
        "block purge",
        "Delete all objects that need missing blocks",
        _YES,
        Positional("HASH", "Hashes", many=True),
        run="blocks:block_purge",
    ),
    _command(
        "meta snapshot",
        "Take a snapshot of the metadata",
        _flag("--all", "On all nodes of the cluster", "-a"),
        _ON,
        run="maintenance:snapshot",
    ),
    _command(
        "convert-db",
        "Convert a metadata database",
        Option(("-i",), "Input path", "PATH", required=True),
        Option(("-a",), "Input engine", "ENGINE", required=True),
        Option(("-o",), "Output path", "PATH", required=True),
        Option(("-b",), "Output engine", "ENGINE", required=True),
    ),
    _command(
        "json-api",
        "Call an endpoint of the Admin API and print its JSON",
        Positional("ENDPOINT", "Name, for example GetClusterStatus"),
        Positional("JSON", "Parameters; - reads them from standard input", required=False),
        run="maintenance:json_api",
    ),
    _command(
        "completions",
        "Print a completion script",
        Positional("SHELL", "bash, zsh or fish"),
        run="completions:completions",
    ),
    _command("admin-api-schema", "Print the Admin API's schema", hidden=True),
)

REPAIRS: Final = {
    "tables": "Sync all metadata tables",
    "blocks": "Check and sync every block",
    "versions": "Propagate deletions of objects",
    "mpu": "Propagate deletions of multipart uploads",
    "block-refs": "Propagate deletions of versions",
    "block-rc": "Count block references again",
    "aliases": "Fix bucket aliases",
    "rebalance": "Move blocks to their right data directory",
    "clear-resync-queue": "Empty the block resync queue",
    "scrub": "Read and check every block: start, pause, resume or cancel",
}

_REPAIRS: Final = (
    _command(
        "repair",
        "Check and mend what is stored",
        _ALL,
        _ON,
        _YES,
        Positional("WHAT", ", ".join(REPAIRS)),
        Positional("STEP", "For scrub: start, pause, resume, cancel", required=False),
        run="maintenance:repair",
    ),
    _command(
        "offline-repair",
        "Recount; the node must be stopped",
        _YES,
        Positional("WHAT", "object_counters, k2v_item_counters"),
    ),
)

_LAYOUT: Final = (
    _command(
        "layout assign",
        "Give nodes a role",
        Positional("NODE", "Node ids, or unique prefixes", many=True),
        _value("--zone", "ZONE", "Zone the node is in", "-z"),
        _value("--capacity", "SIZE", "Space it gives, for example 500G", "-c"),
        _flag("--gateway", "It stores nothing", "-g"),
        Option(("-t", "--tag"), "A tag; may be repeated", "TAG", many=True),
        Option(("--replace",), "Node it replaces; may be repeated", "NODE", many=True),
        run="layout:assign",
    ),
    _command("layout remove", "Take a node's role away", _NODE, run="layout:remove"),
    _command(
        "layout config",
        "Set parameters of the layout",
        _value("--redundancy", "N|none|max", "Zones that must hold each object", "-r"),
        run="layout:configure",
    ),
    _command("layout show", "Show the layout and what is staged", run="layout:show"),
    _command(
        "layout apply",
        "Apply what is staged",
        _value("--version", "N", "The new version's number, as a check"),
        run="layout:apply",
    ),
    _command("layout revert", "Forget what is staged", _YES, run="layout:revert"),
    _command("layout history", "Versions of the layout in use", run="layout:history"),
    _command(
        "layout skip-dead-nodes",
        "Go on without nodes that will not come back",
        Option(("--version",), "Version to go on to", "N", required=True),
        _flag("--allow-missing-data", "Even if data may be lost"),
        run="layout:skip_dead_nodes",
    ),
)

_BUCKETS: Final = (
    _command("bucket list", "List buckets", run="bucket:list_buckets"),
    _command("bucket info", "Show a bucket", _BUCKET, run="bucket:info"),
    _command(
        "bucket create", "Make a bucket", Positional("BUCKET", "Its name"), run="bucket:create"
    ),
    _command("bucket delete", "Delete an empty bucket", _YES, _BUCKET, run="bucket:delete"),
    _command(
        "bucket alias",
        "Give a bucket another name",
        _BUCKET,
        Positional("NEW-NAME", "The name"),
        _LOCAL,
        run="bucket:alias",
    ),
    _command(
        "bucket unalias",
        "Take a name from a bucket",
        Positional("NAME", "The name"),
        _LOCAL,
        run="bucket:unalias",
    ),
    _command("bucket allow", "Let a key use a bucket", _BUCKET, *_PERMISSIONS, run="bucket:allow"),
    _command("bucket deny", "Take that away again", _BUCKET, *_PERMISSIONS, run="bucket:deny"),
    _command(
        "bucket website",
        "Serve a bucket as a web site",
        _flag("--allow", "Serve it"),
        _flag("--deny", "Don't"),
        _value("--index-document", "KEY", "For paths that end in / [index.html]", "-i"),
        _value("--error-document", "KEY", "For errors", "-e"),
        _BUCKET,
        run="bucket:website",
    ),
    _command(
        "bucket set-quotas",
        "Limit a bucket",
        _BUCKET,
        _value("--max-size", "SIZE", "For example 30GiB, or none"),
        _value("--max-objects", "N", "A number, or none"),
        run="bucket:set_quotas",
    ),
    _command(
        "bucket cleanup-incomplete-uploads",
        "Abort old multipart uploads",
        _value("--older-than", "DURATION", "At least this old [1d]"),
        Positional("BUCKET", "Buckets", many=True),
        run="bucket:cleanup_uploads",
    ),
    _command(
        "bucket inspect-object",
        "Show how an object is stored",
        _BUCKET,
        Positional("OBJECT", "The object's key"),
        run="bucket:inspect_object",
    ),
)

_CREATE_BUCKET: Final = _flag("--create-bucket", "Make buckets by S3's CreateBucket")

_KEYS: Final = (
    _command("key list", "List access keys", run="key:list_keys"),
    _command(
        "key info",
        "Show a key",
        _KEY,
        _flag("--show-secret", "With its secret"),
        _flag("--key-id", "Print the id alone"),
        _flag("--secret-key", "Print the secret alone"),
        run="key:info",
    ),
    _command(
        "key create",
        "Make a key",
        Positional("NAME", "Its name [Unnamed key]", required=False),
        _EXPIRES,
        run="key:create",
    ),
    _command(
        "key rename", "Rename a key", _KEY, Positional("NEW-NAME", "The name"), run="key:rename"
    ),
    _command("key set", "Change a key's expiry", _KEY, _EXPIRES, _NEVER, run="key:set_expiry"),
    _command("key delete", "Delete a key", _KEY, _YES, run="key:delete"),
    _command("key delete-expired", "Delete expired keys", _YES, run="key:delete_expired"),
    _command("key allow", "Let a key do more", _KEY, _CREATE_BUCKET, run="key:allow"),
    _command("key deny", "Take that away again", _KEY, _CREATE_BUCKET, run="key:deny"),
    _command(
        "key import",
        "Add a key made elsewhere",
        Positional("KEY-ID", "Its id"),
        Positional("SECRET-KEY", "Its secret"),
        Option(("-n",), "Its name [Imported key]", "NAME"),
        _YES,
        run="key:import_key",
    ),
    _command(
        "key export-env",
        "Print a key as environment variables",
        _KEY,
        _value("--prefix", "TEXT", "Before each name [AWS_]"),
        run="key:export_environment",
    ),
)

_TOKENS: Final = (
    _command("admin-token list", "List Admin API tokens"),
    _command("admin-token info", "Show a token", _TOKEN),
    _command(
        "admin-token create",
        "Make a token",
        Positional("NAME", "Its name", required=False),
        _EXPIRES,
        _SCOPE,
        _flag("--quiet", "Print the token alone", "-q"),
    ),
    _command("admin-token rename", "Rename a token", _TOKEN, Positional("NEW-NAME", "The name")),
    _command("admin-token set", "Change a token", _TOKEN, _EXPIRES, _NEVER, _SCOPE),
    _command("admin-token delete", "Delete a token", _TOKEN, _YES),
    _command("admin-token delete-expired", "Delete expired tokens", _YES),
)

COMMANDS: Final[Commands] = {
    command.path: command
    for group in (_NODE_COMMANDS, _LAYOUT, _BUCKETS, _KEYS, _TOKENS, _REPAIRS)
    for command in group
}
