#!/usr/bin/env python3
"""Build what a release is made of.

    python3 packaging/build.py binary --arch amd64

freezes the tree into dist/garage-lite-VERSION-ARCH: one file, for Linux with the C library of the
machine it was built on or a newer one. The same tree gives the same bytes.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import environment

SPEC = environment.ROOT / "packaging" / "garage-lite.spec"
DIST = environment.ROOT / "dist"
MACHINES = {"amd64": "x86_64"}
"""Debian's name of each architecture: the kernel's name of it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    products = parser.add_subparsers(dest="product", required=True)
    binary = products.add_parser("binary", help="one executable file")
    binary.add_argument("--arch", choices=sorted(MACHINES), required=True)
    print(build_binary(parser.parse_args().arch))


def build_binary(arch: str) -> Path:
    """Freeze the tree; returns the path of the file. Ends this program when that fails."""
    if platform.machine() != MACHINES[arch]:
        raise SystemExit(f"{arch} is built on a machine of that kind, this is {platform.machine()}")
    _ensure_build_tools()
    python = environment.ensure_venv(["build"])
    work = environment.ROOT / "build"
    command = [
        *(str(python), "-m", "PyInstaller", "--noconfirm", "--clean", "--log-level", "WARN"),
        *("--distpath", str(work / "frozen"), "--workpath", str(work / "work"), str(SPEC)),
    ]
    settings = {
        **os.environ,
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": _commit_time(),
        "PYINSTALLER_CONFIG_DIR": str(work / "config"),
    }
    status = subprocess.run(command, env=settings, stdin=subprocess.DEVNULL).returncode
    if status:
        raise SystemExit(f"PyInstaller failed with status {status}")
    DIST.mkdir(exist_ok=True)
    product = DIST / f"garage-lite-{_version()}-{arch}"
    shutil.move(work / "frozen" / "garage-lite", product)
    return product


def _ensure_build_tools() -> None:
    """objdump and strip; and the shared libpython, which Debian's python3 does without."""
    absent = environment.ensure_commands({"objdump": "binutils", "strip": "binutils"})
    if absent:
        raise SystemExit(f"needed to build, and not installable by this user: {', '.join(absent)}")
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        library = f"libpython3.{sys.version_info.minor}"
        if not list(Path(str(sysconfig.get_config_var("LIBDIR"))).glob(f"{library}.so*")):
            environment.install_packages([library])


def _version() -> str:
    text = (environment.ROOT / "garage_lite" / "__init__.py").read_text()
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise SystemExit("garage_lite/__init__.py holds no __version__")
    return match[1]


def _commit_time() -> str:
    """Seconds since 1970 of the commit being built, so that the build has no time of its own."""
    git = subprocess.run(
        ["git", "log", "-1", "--format=%ct"],
        cwd=environment.ROOT,
        capture_output=True,
        text=True,
    )
    return git.stdout.strip() or "0"


if __name__ == "__main__":
    main()
