"""What a machine needs before anything of ours can run: Debian packages and a virtual environment.

Standard library only: it runs on a Debian 12 whose python3 has neither pip nor venv yet.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON_MIN = (3, 11)


def run(command: Sequence[str | Path], *, cwd: Path = ROOT) -> None:
    """Run a command to its end, its output shown on stderr; ends this program if it fails."""
    words = [str(word) for word in command]
    status = subprocess.run(words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode
    if status:
        raise SystemExit(f"failed with status {status}: {' '.join(words)}")


def say(line: str) -> None:
    """Progress, kept off stdout: that belongs to what was asked for."""
    print(line, file=sys.stderr, flush=True)


def _as_root(command: Sequence[str]) -> list[str] | None:
    """The command as the superuser runs it; None when we can't become one without a password."""
    if os.geteuid() == 0:
        return list(command)
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True).returncode == 0:
        return [sudo, "-n", "env", "DEBIAN_FRONTEND=noninteractive", *command]
    return None


def install_packages(packages: Iterable[str]) -> bool:
    """Install Debian packages; False when this machine or this user can't. Ends on apt's error."""
    wanted = sorted(set(packages))
    if not wanted:
        return True
    install = _as_root(["apt-get", "-qq", "install", "-y", "--no-install-recommends", *wanted])
    if not shutil.which("apt-get") or install is None:
        return False
    say(f"installing {' '.join(wanted)}")
    _update_package_lists()
    run(install)
    return True


@functools.cache
def _update_package_lists() -> None:
    """Once a run: it is the slow part."""
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run(_as_root(["apt-get", "-qq", "update"]) or [])


def ensure_commands(packages: Mapping[str, str]) -> list[str]:
    """Install the package of each command that is absent ({command: package}); returns the
    commands that are still absent because packages can't be installed here."""
    absent = [command for command in packages if not shutil.which(command)]
    if install_packages(packages[command] for command in absent):
        return [command for command in absent if not shutil.which(command)]
    return absent


def _fingerprint(extras: Sequence[str]) -> str:
    """Changes whenever what pip would install might change."""
    parts = [(ROOT / "pyproject.toml").read_bytes(), sys.version.encode(), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join([*parts, ",".join(sorted(extras)).encode()])).hexdigest()


def ensure_venv(extras: Sequence[str] = ()) -> Path:
    """The interpreter of `.venv`, with the tree and these extras installed. Quick when it is
    already so."""
    if sys.version_info < PYTHON_MIN:
        raise SystemExit(f"Python {PYTHON_MIN[0]}.{PYTHON_MIN[1]} or newer is needed")
    python = VENV / "bin" / "python"
    stamp = VENV / f"installed-{'-'.join(sorted(extras)) or 'run'}"
    fingerprint = _fingerprint(extras)
    if python.exists() and stamp.exists() and stamp.read_text() == fingerprint:
        return python
    if not _works(python):
        missing = importlib.util.find_spec("ensurepip") is None
        if missing and not install_packages(["python3-venv"]):
            raise SystemExit(
                "this Python can't make virtual environments; run as root: "
                "apt-get install python3-venv"
            )
        say("making .venv")
        shutil.rmtree(VENV, ignore_errors=True)
        run([sys.executable, "-m", "venv", VENV])
    say("installing Python packages")
    tree = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-e", tree])
    stamp.write_text(fingerprint)
    return python


def _works(python: Path) -> bool:
    if not python.exists():
        return False
    return subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
