"""The command `garage-lite`: hands the arguments to the CLI and its exit code to the shell."""

from __future__ import annotations

import os
import sys

from garage_lite.cli import main as run


def main() -> None:
    try:
        status = run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output (`| head`) has gone, and so has the place to complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()
