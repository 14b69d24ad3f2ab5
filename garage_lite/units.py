"""Sizes and durations as people write them, in the configuration and on the command line.

Sizes follow the `bytesize` convention that Garage uses: K, KB, M, MB... are powers of 1000 and
Ki, KiB, Mi, MiB... powers of 1024. Knows nothing of what is measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", re.ASCII)
_PREFIXES: Final = "kmgtpe"
_SIZE_MAX: Final = 2**63 - 1

_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", re.ASCII)
_SECONDS: Final[Mapping[str, Decimal]] = {
    name: Decimal(seconds)
    for names, seconds in (
        ("ms msec millis millisecond milliseconds", "0.001"),
        ("s sec secs second seconds", "1"),
        ("m min mins minute minutes", "60"),
        ("h hr hrs hour hours", "3600"),
        ("d day days", "86400"),
        ("w week weeks", "604800"),
        ("month months", "2629746"),
        ("y yr yrs year years", "31556952"),
    )
    for name in names.split()
}


def parse_size(text: str) -> int:
    """Bytes in "10M", "1.5 GiB", "4096". ValueError in plain words otherwise."""
    match = _SIZE.fullmatch(text)
    factor = _size_factor(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError(f"{text!r} is no size; expected for example 500, 10M, 1.5G or 64 MiB")
    size = int(Decimal(match[1]) * factor)
    if size > _SIZE_MAX:
        raise ValueError(f"{text!r} is more than can be counted")
    return size


def _size_factor(unit: str) -> int | None:
    if unit in ("", "b"):
        return 1
    power = _PREFIXES.find(unit[0]) + 1
    if power == 0 or unit[1:] not in ("", "b", "i", "ib"):
        return None
    base = 1024 if unit[1:].startswith("i") else 1000
    return int(base**power)


def parse_duration_ms(text: str) -> int:
    """Milliseconds in "6h", "1d 12h", "90 s". ValueError in plain words otherwise."""
    total, at = Decimal(0), 0
    while at < len(text):
        match = _DURATION.match(text, at)
        seconds = _SECONDS.get(match[2].lower()) if match else None
        if match is None or seconds is None:
            at = 0
            break
        total += Decimal(match[1]) * seconds
        at = match.end()
    if at == 0:
        raise ValueError(f"{text!r} is no duration; expected for example 30s, 10min, 6h or 1d")
    return int(total * 1000)


def format_size(size: int, *, binary: bool = False) -> str:
    """ "1.2 MB", or "1.1 MiB" if `binary`; less than a kilobyte as "500 B"."""
    base, prefixes, suffix = (1024, "KMGTPE", "iB") if binary else (1000, "kMGTPE", "B")
    if size < base:
        return f"{size} B"
    value, power = size / base, 0
    while value >= base and power < len(prefixes) - 1:
        value, power = value / base, power + 1
    return f"{value:.1f} {prefixes[power]}{suffix}"
