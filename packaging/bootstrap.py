#!/usr/bin/env python3
"""From a bare checkout to a running node, or to a tested tree, in one command.

    python3 packaging/bootstrap.py run
    python3 packaging/bootstrap.py test [arguments of pytest]

`run` starts a node on loopback, on the configuration that is built in, and stays in the
foreground; `test` installs the real S3 clients and runs every check. Standard library only; how
things get installed is in `environment.py`.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import environment

READY_SECONDS_MAX = 60
S3_PORT, ADMIN_PORT = 3900, 3903
REGION = "garage"
ENDPOINT = f"http://127.0.0.1:{S3_PORT}"
"""As in the configuration that is built in, which a node without a config file runs on."""
BUCKET = "first-bucket"

CLIENT_PACKAGES = {
    "curl": "curl",
    "fusermount3": "fuse3",
    "node": "nodejs",
    "npm": "npm",
    "rclone": "rclone",
    "restic": "restic",
    "s3cmd": "s3cmd",
    "s3fs": "s3fs",
}
"""Command: Debian package, of the S3 clients that the tests drive."""


class Credentials(NamedTuple):
    access_key: str
    secret_key: str


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("run", help="install what is needed and start a node")
    verbs.add_parser("test", help="install what the tests need and run them all")
    arguments, rest = parser.parse_known_args()
    if arguments.verb == "test":
        sys.exit(test(rest))
    if rest:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    sys.exit(serve())


# --- run


def serve() -> int:
    """Start a node and tell how to use it; returns its exit status once it has ended."""
    for own in (os.environ.get("GARAGE_CONFIG_FILE"), "/etc/garage.toml"):
        if own and Path(own).exists():
            raise SystemExit(f"{own} is there: start the node it describes: garage-lite server")
    if _answers():
        raise SystemExit(f"something else answers on {ENDPOINT}: is a node running already?")
    python = environment.ensure_venv()
    environment.ensure_commands({"curl": "curl"})  # for the example; the node needs none
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    credentials_file = Path(data_home) / "garage-lite" / "credentials"
    credentials = _credentials(credentials_file)
    started = time.monotonic()
    node = subprocess.Popen(
        [
            *(python, "-m", "garage_lite", "server"),
            *("--single-node", "--default-access-key", "--default-bucket"),
        ],
        env={
            **os.environ,
            "GARAGE_DEFAULT_ACCESS_KEY": credentials.access_key,
            "GARAGE_DEFAULT_SECRET_KEY": credentials.secret_key,
            "GARAGE_DEFAULT_BUCKET": BUCKET,
        },
    )
    # Hand it on and wait; a terminal's Ctrl-C reaches the node by itself too, which is no harm.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: node.terminate())
    while node.poll() is None and not _answers():
        if time.monotonic() - started > READY_SECONDS_MAX:
            node.terminate()
            raise SystemExit(f"the node was not ready after {READY_SECONDS_MAX} s")
        time.sleep(0.1)
    if node.poll() is None:
        print(_welcome(credentials, credentials_file), flush=True)
    return node.wait()


def _credentials(path: Path) -> Credentials:
    """The key made on the first start, kept beside the data where only its owner reads it."""
    if path.exists():
        pairs = dict(
            line.removeprefix("export ").split("=", 1) for line in path.read_text().splitlines()
        )
        return Credentials(pairs["AWS_ACCESS_KEY_ID"], pairs["AWS_SECRET_ACCESS_KEY"])
    made = Credentials("GK" + secrets.token_hex(12), secrets.token_hex(32))
    lines = (
        f"export AWS_ACCESS_KEY_ID={made.access_key}",
        f"export AWS_SECRET_ACCESS_KEY={made.secret_key}",
        f"export AWS_DEFAULT_REGION={REGION}",
        f"export AWS_ENDPOINT_URL={ENDPOINT}",
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("\n".join(lines) + "\n")
    return made


def _answers() -> bool:
    """Whether the S3 door answers (it refuses us, unsigned as we are: that is an answer)."""
    connection = http.client.HTTPConnection("127.0.0.1", S3_PORT, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _welcome(credentials: Credentials, file: Path) -> str:
    """What the newcomer needs next. The secret goes to a terminal alone, never into a log."""
    secret = credentials.secret_key if sys.stdout.isatty() else f"in {file}"
    key = '"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"'
    # Without this header curl of Debian 12 signs no content hash, which S3 wants.
    unsigned = "-H x-amz-content-sha256:UNSIGNED-PAYLOAD"
    curl = f"curl -fsS --aws-sigv4 aws:amz:{REGION}:s3 {unsigned} --user {key}"
    return f"""
Garage Lite is ready.
  Endpoint:    {ENDPOINT}
  Region:      {REGION}
  Bucket:      {BUCKET}
  Access key:  {credentials.access_key}
  Secret key:  {secret}
  Status page: http://127.0.0.1:{ADMIN_PORT}/

Store a file and read it back:
  . {file}
  {curl} -T {environment.ROOT}/README.md {ENDPOINT}/{BUCKET}/README.md
  {curl} {ENDPOINT}/{BUCKET}/README.md

Ctrl-C stops the node; its data stay in {file.parent}
"""


# --- test


def test(arguments: list[str]) -> int:
    """Every check, in the order in which they are quick; ends with pytest's closing line."""
    absent = environment.ensure_commands(CLIENT_PACKAGES)
    if absent:
        environment.say(f"not here and not installable by this user: {', '.join(absent)}")
    python = environment.ensure_venv(["test"])
    if shutil.which("npm"):
        _ensure_node_packages()
    bin_directory = python.parent
    environment.run([bin_directory / "ruff", "format", "--check", "--quiet", "."])
    environment.run([bin_directory / "ruff", "check", "."])
    environment.run([bin_directory / "mypy"])
    command = [str(bin_directory / "pytest"), "-n", "2", "--dist", "worksteal", *arguments]
    return subprocess.run(command, cwd=environment.ROOT, stdin=subprocess.DEVNULL).returncode


def _ensure_node_packages() -> None:
    """The JavaScript SDK beside its test, as its package.json names it."""
    directory = environment.ROOT / "tests" / "clients" / "node"
    fingerprint = hashlib.sha256((directory / "package.json").read_bytes()).hexdigest()
    stamp = directory / "node_modules" / ".installed"
    if stamp.exists() and stamp.read_text() == fingerprint:
        return
    environment.say("installing the JavaScript SDK")
    quiet = ("--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error")
    environment.run(["npm", "install", *quiet], cwd=directory)
    stamp.write_text(fingerprint)


if __name__ == "__main__":
    main()
