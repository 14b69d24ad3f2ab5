"""The command as a process, where the shell is the other side."""

from __future__ import annotations

import os
import subprocess
import sys


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "garage_lite", "--help"],
            stdout=pipe,
            stderr=subprocess.PIPE,
            timeout=30,
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_the_exit_code_is_that_of_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "garage_lite", "no-such-command"], capture_output=True, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: ")
