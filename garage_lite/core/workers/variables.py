"""Settings of workers that change while they run (`worker get`, `worker set`), kept over restarts.

Garage's names and bounds, and how fast blocks may travel in the background. Knows no worker: they
read the value when they need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from garage_lite.core.block.pace import Bandwidth
from garage_lite.core.disk.block_directories import SmallState
from garage_lite.core.errors import InvalidArgument


class Bounds(NamedTuple):
    default: int
    least: int
    most: int


RESYNC_WORKERS_MAX: Final = 8
RESYNC_TRANQUILITY: Final = "resync-tranquility"
RESYNC_WORKER_COUNT: Final = "resync-worker-count"
RESYNC_BANDWIDTH: Final = "resync-bandwidth"
"""Bytes per second of blocks that travel in the background, with hours of the day: see
`Bandwidth.parse`."""
SCRUB_TRANQUILITY: Final = "scrub-tranquility"

NUMBERS: Final[Mapping[str, Bounds]] = {
    RESYNC_TRANQUILITY: Bounds(2, 0, 1000),
    RESYNC_WORKER_COUNT: Bounds(1, 1, RESYNC_WORKERS_MAX),
    SCRUB_TRANQUILITY: Bounds(4, 0, 1000),
}
NO_LIMIT: Final = "0"
_NAMES: Final = (*NUMBERS, RESYNC_BANDWIDTH)


class LiveVariables:
    """The present value of each variable."""

    def __init__(self, state: SmallState) -> None:
        self._state = state
        self._numbers = {name: _stored(state, name, bounds) for name, bounds in NUMBERS.items()}
        kept = state.get(_row(RESYNC_BANDWIDTH))
        self._bandwidth_text = NO_LIMIT if kept is None else kept.decode()
        self.bandwidth = Bandwidth.parse(self._bandwidth_text)

    def __getitem__(self, name: str) -> int:
        return self._numbers[name]

    def all(self) -> dict[str, str]:
        return {name: self.get(name) for name in sorted(_NAMES)}

    def get(self, name: str) -> str:
        """Raises InvalidArgument if there is no such variable."""
        _check_known(name)
        return self._bandwidth_text if name == RESYNC_BANDWIDTH else str(self._numbers[name])

    async def set(self, name: str, text: str) -> None:
        """In force and durable on return. Raises InvalidArgument on a bad name or value."""
        _check_known(name)
        if name == RESYNC_BANDWIDTH:
            bandwidth = _bandwidth(text)
            await self._state.set(_row(name), text.encode())
            self._bandwidth_text, self.bandwidth = text, bandwidth
        else:
            number = _number(name, text)
            await self._state.set(_row(name), text.encode())
            self._numbers[name] = number


def _check_known(name: str) -> None:
    if name not in _NAMES:
        raise InvalidArgument(f"there is no variable {name}; there are {', '.join(sorted(_NAMES))}")


def _number(name: str, text: str) -> int:
    bounds = NUMBERS[name]
    value = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1
    if not bounds.least <= value <= bounds.most:
        raise InvalidArgument(
            f"{name} takes a whole number from {bounds.least} to {bounds.most}, not {text!r}"
        )
    return value


def _bandwidth(text: str) -> Bandwidth:
    try:
        return Bandwidth.parse(text)
    except ValueError as error:
        raise InvalidArgument(
            f"{RESYNC_BANDWIDTH} takes bytes per second, with hours of the day if you like"
            f" (0 is no limit): {error}"
        ) from error


def _row(name: str) -> str:
    return f"variable/{name}"


def _stored(state: SmallState, name: str, bounds: Bounds) -> int:
    stored = state.get(_row(name))
    return bounds.default if stored is None else int(stored)
