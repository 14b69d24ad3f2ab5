"""The command line: Garage's grammar and output lines, spoken to a node over RPC.

Parses, finds the one function a command means, imports only that. Errors of people and nodes
become one `Error: ...` line on stderr and exit code 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    from garage_lite.cli.grammar import COMMANDS, GLOBAL_OPTIONS
    from garage_lite.cli.parse import HelpWanted, UsageError, VersionWanted, parse

    try:
        command, values = parse(arguments, COMMANDS, GLOBAL_OPTIONS)
    except HelpWanted as wanted:
        print(wanted.text, file=sys.stdout if wanted.asked else sys.stderr)
        return 0 if wanted.asked else 1
    except VersionWanted:
        from garage_lite import __version__

        print(f"garage-lite {__version__} [features: s3, admin-api-v2]")
        return 0
    except UsageError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    if command.run is None:
        name = " ".join(command.path)
        print(f"Error: `garage-lite {name}` is not available yet in this version", file=sys.stderr)
        return 1
    from garage_lite.cli.run import run

    return run(command.run, values, os.environ)
