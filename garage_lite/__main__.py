"""The command `garage-lite`: hands the arguments to the CLI and its exit code to the shell."""

from __future__ import annotations

import sys

from garage_lite.cli import main as run


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
