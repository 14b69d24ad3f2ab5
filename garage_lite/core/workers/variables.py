"""Settings of workers that change while they run (`worker get`, `worker set`), kept over restarts.

Garage's names and bounds. Knows no worker: they read the value when they need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from garage_lite.core.disk.block_directories import SmallState
from garage_lite.core.errors import InvalidArgument


class Bounds(NamedTuple):
    default: int
    least: int
    most: int


RESYNC_WORKERS_MAX: Final = 8
RESYNC_TRANQUILITY: Final = "resync-tranquility"
RESYNC_WORKER_COUNT: Final = "resync-worker-count"
SCRUB_TRANQUILITY: Final = "scrub-tranquility"

VARIABLES: Final[Mapping[str, Bounds]] = {
    RESYNC_TRANQUILITY: Bounds(2, 0, 1000),
    RESYNC_WORKER_COUNT: Bounds(1, 1, RESYNC_WORKERS_MAX),
    SCRUB_TRANQUILITY: Bounds(4, 0, 1000),
}


class LiveVariables:
    """The present value of each variable."""

    def __init__(self, state: SmallState) -> None:
        self._state = state
        self._values = {name: _stored(state, name) for name in VARIABLES}

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def all(self) -> dict[str, str]:
        return {name: str(value) for name, value in sorted(self._values.items())}

    def get(self, name: str) -> str:
        """Raises InvalidArgument if there is no such variable."""
        _known(name)
        return str(self._values[name])

    async def set(self, name: str, text: str) -> None:
        """In force and durable on return. Raises InvalidArgument on a bad name or value."""
        bounds = _known(name)
        value = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
        if not bounds.least <= value <= bounds.most:
            raise InvalidArgument(
                f"{name} takes a whole number from {bounds.least} to {bounds.most}, not {text!r}"
            )
        await self._state.set(_row(name), text.encode())
        self._values[name] = value


def _known(name: str) -> Bounds:
    bounds = VARIABLES.get(name)
    if bounds is None:
        raise InvalidArgument(
            f"there is no variable {name}; there are {', '.join(sorted(VARIABLES))}"
        )
    return bounds


def _row(name: str) -> str:
    return f"variable/{name}"


def _stored(state: SmallState, name: str) -> int:
    stored = state.get(_row(name))
    return VARIABLES[name].default if stored is None else int(stored)
